//! Acts whose time or thread is the point.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use e2e::{sys, truth::Act};

use crate::log::Call;

/// Makes a file of this call's own.
fn open_own(call: &Call, stem: &str) -> io::Result<()> {
    let path = call.path(stem);
    call.will(Act::open_create(&path))?;
    sys::open(&path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC).map(drop)
}

/// Several threads open a file each.
pub(crate) fn threads(call: &Call) -> io::Result<()> {
    let n = call.number("n", 4);
    thread::scope(|scope| {
        let all: Vec<_> =
            (0..n).map(|i| scope.spawn(move || open_own(call, &format!("thread{i}")))).collect();
        all.into_iter()
            .try_for_each(|one| one.join().map_err(|_panic| io::Error::other("a thread panicked"))?)
    })
}

/// Sleeps in the call, then opens: calls that run beside it overlap.
pub(crate) fn parallel_sleep(call: &Call) -> io::Result<()> {
    thread::sleep(Duration::from_millis(call.number("ms", 10)));
    open_own(call, "slept")
}

/// Opens after the reply; whether that is within the settling time is up to `ms`.
fn open_later(call: &Call, ms: u64, stem: &'static str) {
    let call = call.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(ms));
        open_own(&call, stem)
    });
}

/// In-process work after the reply, within the settling time.
pub(crate) fn late_work(call: &Call) -> io::Result<()> {
    open_later(call, call.number("ms", 5), "late");
    Ok(())
}

/// In-process work that sleeps past the settling time: the first exception.
pub(crate) fn late_sleeper(call: &Call) -> io::Result<()> {
    open_later(call, call.number("ms", 60), "sleeper");
    Ok(())
}

static TIMER: AtomicBool = AtomicBool::new(false);

/// A timer that opens a file every `ms` until stopped: the second exception.
pub(crate) fn background_timer(call: &Call) -> io::Result<()> {
    if TIMER.swap(true, Ordering::SeqCst) {
        return Err(io::Error::other("the timer runs"));
    }
    let (call, ms) = (call.clone(), call.number("ms", 37));
    thread::spawn(move || {
        for tick in 0.. {
            thread::sleep(Duration::from_millis(ms));
            if !TIMER.load(Ordering::SeqCst) {
                return Ok(());
            }
            open_own(&call, &format!("tick{tick}"))?;
        }
        io::Result::Ok(())
    });
    Ok(())
}

pub(crate) fn stop_timer(_call: &Call) -> io::Result<()> {
    TIMER.store(false, Ordering::SeqCst);
    Ok(())
}

/// Burns CPU time of this thread.
pub(crate) fn burn_cpu(call: &Call) -> io::Result<()> {
    let ns = call.number("ms", 20) * 1_000_000;
    call.will(Act::Cpu { at_least_ns: ns })?;
    let start = sys::thread_cpu_ns();
    while sys::thread_cpu_ns() - start < ns {
        std::hint::spin_loop();
    }
    Ok(())
}

/// Holds memory for a moment, each time more: the kernel keeps one high-water mark a process, so
/// a peak is known only when it tops the earlier ones.
pub(crate) fn alloc(call: &Call) -> io::Result<()> {
    let bytes = (call.number("mb", 32) << 20) + (u64::from(call.serial) << 16);
    call.will(Act::Rss { at_least: bytes })?;
    let held = vec![1u8; bytes as usize];
    // Two clock ticks, so that a sampled counter may see it.
    thread::sleep(Duration::from_millis(8));
    drop(std::hint::black_box(held));
    Ok(())
}

/// Sleeps until told to stop, or for `ms`.
pub(crate) fn slow(call: &Call, stop: &dyn Fn() -> bool) {
    let end = Instant::now() + Duration::from_millis(call.number("ms", 30));
    while Instant::now() < end && !stop() {
        thread::sleep(Duration::from_millis(2));
    }
}
