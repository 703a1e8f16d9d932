//! Bytes that the engine holds with 100 servers x 30 tools loaded, and after it has worked.
//!
//! Required: 150 MB. `cargo bench -p engine --bench memory`

mod world;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use world::World;

/// What only the other benchmark needs of the world that both share.
const _: fn() -> std::time::Duration = world::cpu;
const _: fn(&world::Tape) -> u64 = world::Tape::len;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MADE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        MADE.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let before = HELD.load(Relaxed);
    // What was read from the store is dropped once it is restored.
    let mut world = World::loaded(World::learned());
    let loaded = HELD.load(Relaxed) - before;
    let mut tape = world.tape();
    let tape_bytes = HELD.load(Relaxed);
    world.play(&mut tape);
    let made = MADE.load(Relaxed);
    let inputs = world.inputs;
    world.play(&mut tape);
    let made = (MADE.load(Relaxed) - made) as f64 / (world.inputs - inputs) as f64;
    let worked = loaded as i64 + HELD.load(Relaxed) as i64 - tape_bytes as i64;
    let mib = |bytes: i64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{} baselines active, {} members a tool, {} findings {:?}",
        world.active(),
        world.members() / (world::SERVERS * world::TOOLS),
        world.findings,
        world.first
    );
    println!(
        "held after loading: {:.1} MiB; after two rounds: {:.1} MiB; {made:.2} allocations an input",
        mib(loaded as i64),
        mib(worked)
    );
    assert!(worked < 150_000_000, "more than 150 MB");
}
