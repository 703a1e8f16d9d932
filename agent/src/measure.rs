//! Resource use of a process.

use engine::input::{Fact, Usage};

/// Measures a process; `None` when it is gone.
pub(crate) fn usage(tgid: u32) -> Option<Fact> {
    let status = std::fs::read_to_string(format!("/proc/{tgid}/status")).ok()?;
    let field = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key));
        line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Some(Fact::Usage(Usage {
        tgid,
        cpu_ns: cpu_time(tgid)?,
        rss: field("VmRSS:") * 1024,
        peak_rss: field("VmHWM:") * 1024,
        threads: field("Threads:"),
        fd_slots: field("FDSize:"),
    }))
}

/// CPU time of all threads of a process, ns: the same clock that the kernel programs read.
fn cpu_time(tgid: u32) -> Option<u64> {
    let mut clock = 0;
    // SAFETY: the pointer is to a live local.
    if unsafe { libc::clock_getcpuclockid(libc::pid_t::try_from(tgid).ok()?, &raw mut clock) } != 0 {
        return None;
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something_and_no_process_is_none() {
        let Some(Fact::Usage(u)) = usage(std::process::id()) else { unreachable!("this process runs") };
        assert!(u.cpu_ns > 0 && u.rss > 0 && u.peak_rss >= u.rss / 2 && u.threads > 0 && u.fd_slots > 0);
        assert_eq!(usage(u32::MAX), None);
    }
}
