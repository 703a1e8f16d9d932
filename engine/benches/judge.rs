//! Inputs a second with 100 servers x 30 tools loaded, in CPU time of one thread.
//!
//! Required: 500,000. `cargo bench -p engine --bench judge`

mod world;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use world::{World, cpu};

fn replay(c: &mut Criterion) {
    let began = cpu();
    let stored = World::learned();
    let mut world = World::loaded(stored);
    println!(
        "loaded in {:.1} s: {} baselines active, {} members a tool",
        (cpu() - began).as_secs_f64(),
        world.active(),
        world.members() / (world::SERVERS * world::TOOLS)
    );
    let mut tape = world.tape();
    for _ in 0..3 {
        let (began, inputs) = (cpu(), world.inputs);
        world.play(&mut tape);
        let rate = (world.inputs - inputs) as f64 / (cpu() - began).as_secs_f64();
        println!("{rate:.0} inputs/s");
    }
    println!("findings in three rounds: {} {:?}", world.findings, world.first);
    let mut group = c.benchmark_group("engine");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Elements(tape.len()));
    group.bench_function("replay, 100 servers x 30 tools", |b| {
        b.iter_custom(|rounds| {
            let from = cpu();
            for _ in 0..rounds {
                world.play(&mut tape);
            }
            cpu() - from
        });
    });
    group.finish();
}

criterion_group!(benches, replay);
criterion_main!(benches);
