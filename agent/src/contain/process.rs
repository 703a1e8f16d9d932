//! Processes by what never means another one: a pidfd, checked against the start time.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use engine::respond::ProcessKey;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// Nanoseconds of one tick of `/proc`: USER_HZ is 100 on every x86-64 kernel.
const TICK_NS: u64 = 10_000_000;
/// Deepest lineage; real ones have up to 20 steps.
const ANCESTORS: usize = 256;

/// A process that is held: its number cannot mean another one while this lives.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) key: ProcessKey,
    fd: OwnedFd,
}

/// Why a process cannot be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It has ended.
    Gone,
    /// The number means another process by now.
    Another,
    /// The kernel refuses.
    Refused(Errno),
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) parent: u32,
    pub(crate) ticks: u64,
    pub(crate) threads: u64,
    /// Only its exit code is left.
    pub(crate) dead: bool,
}

/// The letter of `/proc/PID/stat`.
pub(crate) fn state(pid: u32) -> Option<u8> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = text.iter().rposition(|b| *b == b')')?;
    text.get(end + 2).copied()
}

/// Reads it; `None` when there is no such process.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(text: &[u8]) -> Option<Stat> {
    // The name stands in parentheses and may hold anything.
    let end = text.iter().rposition(|b| *b == b')')?;
    let text = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut words = text.split_ascii_whitespace();
    let dead = matches!(words.next()?, "Z" | "X");
    let parent = words.next()?.parse().ok()?;
    let threads = words.nth(15)?.parse().ok()?;
    let ticks = words.nth(1)?.parse().ok()?;
    Some(Stat { parent, ticks, threads, dead })
}

/// Start of a process in the ticks of `/proc`.
pub(crate) fn ticks(key: ProcessKey) -> u64 {
    key.start_ns / TICK_NS
}

impl Held {
    /// Opens a process, and only then looks whether it is the one that is meant.
    pub(crate) fn open(key: ProcessKey) -> Result<Self, Missing> {
        let pid = i32::try_from(key.tgid).ok().and_then(Pid::from_raw).ok_or(Missing::Gone)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| match e {
            Errno::SRCH => Missing::Gone,
            other => Missing::Refused(other),
        })?;
        let stat = stat(key.tgid).ok_or(Missing::Gone)?;
        match (stat.ticks == ticks(key), stat.dead) {
            (false, _) => Err(Missing::Another),
            (true, true) => Err(Missing::Gone),
            (true, false) => Ok(Self { key, fd }),
        }
    }

    /// Sends a signal; a process that has ended is no error.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Whether it has ended by then.
    pub(crate) fn ended(&self, by: Instant) -> bool {
        loop {
            let left = by.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(n) => return n > 0,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

fn timespec(d: Duration) -> Timespec {
    Timespec { tv_sec: d.as_secs().cast_signed(), tv_nsec: i64::from(d.subsec_nanos()) }
}

/// Whom no order may touch, and why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Never {
    /// The agent, its ancestors, and its watchdog.
    own: BTreeSet<u32>,
    clients: BTreeSet<u32>,
}

impl Never {
    /// Of this process, as it was started.
    pub(crate) fn of_self(clients: BTreeSet<u32>) -> Self {
        let mut own = BTreeSet::new();
        let mut pid = std::process::id();
        for _ in 0..ANCESTORS {
            own.insert(pid);
            match stat(pid) {
                Some(stat) if stat.parent > 0 => pid = stat.parent,
                _ => break,
            }
        }
        Self { own, clients }
    }

    /// Those of the servers at hand.
    pub(crate) fn clients(&mut self, clients: BTreeSet<u32>) {
        self.clients = clients;
    }

    /// Another process of the agent's own.
    pub(crate) fn add(&mut self, pid: u32) {
        self.own.insert(pid);
    }

    /// Why this process must not be touched, if so.
    pub(crate) fn because(&self, pid: u32) -> Option<&'static str> {
        match pid {
            0 | 1 => Some("it is the host's first process"),
            pid if pid == std::process::id() => Some("it is the agent itself"),
            pid if self.own.contains(&pid) => Some("it belongs to the agent, or the agent was started by it"),
            pid if self.clients.contains(&pid) => Some("it is an MCP client"),
            _ => None,
        }
    }
}

/// This boot of the host.
pub(crate) fn boot() -> String {
    fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_forge_a_stat() {
        let text = b"42 (a) Z 1 (b)) S 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 12345 99";
        let stat = parse(text).expect("a stat");
        assert_eq!(stat, Stat { parent: 7, ticks: 12345, threads: 3, dead: false });
    }

    #[test]
    fn another_start_time_is_another_process() {
        let pid = std::process::id();
        let ticks = stat(pid).expect("this process runs").ticks;
        let key = |ticks: u64| ProcessKey { tgid: pid, start_ns: ticks * TICK_NS + 7 };
        assert!(Held::open(key(ticks)).is_ok());
        assert_eq!(Held::open(key(ticks + 1)).err(), Some(Missing::Another));
        assert_eq!(Held::open(key(ticks - 1)).err(), Some(Missing::Another));
        assert_eq!(Held::open(ProcessKey { tgid: u32::MAX, start_ns: 0 }).err(), Some(Missing::Gone));
    }

    #[test]
    fn the_agents_own_lineage_and_clients_are_never_touched() {
        let never = Never::of_self([77].into());
        let parent = stat(std::process::id()).expect("this process runs").parent;
        for pid in [1, std::process::id(), parent, 77] {
            assert!(never.because(pid).is_some(), "{pid}");
        }
        assert_eq!(never.because(4_000_000), None);
    }
}
