//! Ceilings that no ordinary tool needs (ATT&CK T1496, T1499), a call. What is normal for *this* tool is
//! the baselines' business; these hold from the first call on, and are generous.
//!
//! | threshold | default | why |
//! |---|---|---|
//! | `children` | 200 | processes born in a call. A build or a test run makes more: give such a tool its own limit |
//! | `forks_per_s` | 150 | of the whole server, in one second: a fork bomb makes thousands. With `children` in the same call: high |
//! | `connects` | 500 | TCP connects of a call; datagrams are not counted, a stream of them is one conversation |
//! | `files` | 20,000 | made in a call: more than unpacking a large package (a kernel tree has 80,000: a person permits that) |
//! | `bytes_out` | 1 GiB | to other hosts; kind `volume`, for it is data that leaves |
//! | `duration_s` | 1,800 | clients give up after one to five minutes |
//! | `peak_rss` | 4 GiB | |
//! | `cpu_s` | 600 | shared with the calls beside it when they overlap |
//! | `threads` | 256 | system calls that make threads or processes, less the processes |
//! | `sockets` | 512 | sockets made or accepted in a call, whatever became of them |
//!
//! File descriptors and disk use are not in the lines. Effects that may belong to several calls count for none here.
//! Counts come while the call runs; duration also by `tick`; CPU and memory only when it ends.

use serde::{Deserialize, Serialize};

use super::{Hit, bounded::Lru, certain_call};
use crate::{
    finding::{Kind, Severity},
    output::{CallLine, Effect, EffectLine, PathOpKind, SyscallAbi},
};

/// Ceilings; reasons stand in the module's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the module's table says what they are")]
pub struct Exhaustion {
    pub children: u64,
    pub forks_per_s: u64,
    pub threads: u64,
    pub connects: u64,
    pub sockets: u64,
    pub files: u64,
    pub bytes_out: u64,
    pub duration_s: u64,
    pub peak_rss: u64,
    pub cpu_s: u64,
}

impl Default for Exhaustion {
    fn default() -> Self {
        Self {
            children: 200,
            forks_per_s: 150,
            threads: 256,
            connects: 500,
            sockets: 512,
            files: 20_000,
            bytes_out: 1 << 30,
            duration_s: 1800,
            peak_rss: 4 << 30,
            cpu_s: 600,
        }
    }
}

/// Numbers of system calls, of the x86_64 table.
mod nr {
    pub(super) const SOCKET: u32 = 41;
    pub(super) const ACCEPT: u32 = 43;
    pub(super) const CLONE: u32 = 56;
    pub(super) const ACCEPT4: u32 = 288;
    pub(super) const CLONE3: u32 = 435;
}

/// Calls that are counted at a time.
pub(super) const CALLS: usize = 256;
const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Debug, Default)]
struct Spent {
    first_ns: Option<u64>,
    children: u64,
    clones: u64,
    connects: u64,
    sockets: u64,
    files: u64,
    bytes_out: u64,
    told_duration: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Spending {
    calls: Lru<u64, Spent, CALLS>,
    fork_second: u64,
    forks: u64,
    told_forks: bool,
}

impl Spending {
    pub(super) fn held(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.calls.dropped
    }

    /// Counters of the call that the line certainly belongs to, if it still runs.
    fn spent(&mut self, line: &EffectLine) -> Option<&mut Spent> {
        let number = certain_call(&line.scope).filter(|_| !line.outlived)?;
        let spent = self.calls.entry(number);
        spent.first_ns.get_or_insert(line.time.boot_ns);
        Some(spent)
    }

    pub(super) fn fork(&mut self, t: &Exhaustion, line: &EffectLine, hits: &mut Vec<Hit>) {
        let second = line.time.boot_ns / SECOND;
        if second != self.fork_second {
            // Told once a stretch of busy seconds.
            self.told_forks &= self.forks > t.forks_per_s;
            (self.fork_second, self.forks) = (second, 0);
        }
        self.forks = self.forks.saturating_add(line.count);
        let rate = self.forks;
        let mut all = 0;
        if let Some(spent) = self.spent(line) {
            let before = spent.children;
            spent.children = before.saturating_add(line.count);
            all = spent.children;
            if passes(before, all, t.children) {
                let bomb = (rate > t.forks_per_s).then_some(Severity::High);
                hits.push(hit(
                    bomb,
                    "children",
                    format!("made more than {} processes in one call", t.children),
                ));
            }
        }
        if rate > t.forks_per_s && !self.told_forks {
            self.told_forks = true;
            let bomb = (all > t.children).then_some(Severity::High);
            hits.push(hit(
                bomb,
                "forks",
                format!("made more than {} processes in one second", t.forks_per_s),
            ));
        }
    }

    pub(super) fn syscall(
        &mut self,
        t: &Exhaustion,
        line: &EffectLine,
        abi: SyscallAbi,
        nr: u32,
        hits: &mut Vec<Hit>,
    ) {
        let (clones, sockets) = match (abi, nr) {
            (SyscallAbi::X86_64, nr::CLONE | nr::CLONE3) => (line.count, 0),
            (SyscallAbi::X86_64, nr::SOCKET | nr::ACCEPT | nr::ACCEPT4) => (0, line.count),
            _ => return,
        };
        let Some(spent) = self.spent(line) else { return };
        let threads = |s: &Spent| s.clones.saturating_sub(s.children);
        let before = (threads(spent), spent.sockets);
        spent.clones = spent.clones.saturating_add(clones);
        spent.sockets = spent.sockets.saturating_add(sockets);
        if passes(before.0, threads(spent), t.threads) {
            hits.push(hit(None, "threads", format!("made more than {} threads in one call", t.threads)));
        }
        if passes(before.1, spent.sockets, t.sockets) {
            hits.push(hit(None, "sockets", format!("made more than {} sockets in one call", t.sockets)));
        }
    }

    pub(super) fn connect(&mut self, t: &Exhaustion, line: &EffectLine, hits: &mut Vec<Hit>) {
        let Some(spent) = self.spent(line) else { return };
        let before = spent.connects;
        spent.connects = before.saturating_add(line.count);
        if passes(before, spent.connects, t.connects) {
            hits.push(hit(
                None,
                "connects",
                format!("made more than {} connections in one call", t.connects),
            ));
        }
    }

    pub(super) fn file(&mut self, t: &Exhaustion, line: &EffectLine, hits: &mut Vec<Hit>) {
        let made = match &*line.effect {
            // Opened again, it is not made again.
            Effect::Open { .. } => !line.repeat,
            Effect::PathOp { op, .. } => {
                matches!(op, PathOpKind::Mkdir | PathOpKind::Mknod | PathOpKind::Symlink | PathOpKind::Link)
            }
            _ => false,
        };
        if !made {
            return;
        }
        let Some(spent) = self.spent(line) else { return };
        let before = spent.files;
        spent.files = before.saturating_add(line.count);
        if passes(before, spent.files, t.files) {
            hits.push(hit(None, "files", format!("made more than {} files in one call", t.files)));
        }
    }

    pub(super) fn sent(
        &mut self,
        t: &Exhaustion,
        line: &EffectLine,
        address: &str,
        bytes: u64,
        hits: &mut Vec<Hit>,
    ) {
        if bytes == 0 || address.starts_with("127.") || address == "::1" {
            return;
        }
        let Some(spent) = self.spent(line) else { return };
        let before = spent.bytes_out;
        spent.bytes_out = before.saturating_add(bytes);
        if passes(before, spent.bytes_out, t.bytes_out) {
            let why = format!("sent more than {} MiB to other hosts in one call", t.bytes_out >> 20);
            hits.push(Hit { kind: Kind::Volume, ..hit(None, "bytes_out", why) });
        }
    }

    pub(super) fn call(&mut self, t: &Exhaustion, line: &CallLine, hits: &mut Vec<Hit>) {
        let Some(number) = certain_call(&line.scope) else { return };
        let spent = self.calls.remove(&number).unwrap_or_default();
        let seconds = line.duration_ns / SECOND;
        if seconds > t.duration_s && !spent.told_duration {
            hits.push(hit(None, "duration", format!("took {} minutes for one call", seconds / 60)));
        }
        if line.peak_rss > t.peak_rss {
            let why = format!("used {} MiB of memory", line.peak_rss >> 20);
            hits.push(hit(None, "memory", why));
        }
        let cpu = line.cpu_ns / SECOND;
        if cpu > t.cpu_s {
            let shared = if line.overlapped { ", shared with calls beside it" } else { "" };
            hits.push(hit(None, "cpu", format!("used {} minutes of CPU time in one call{shared}", cpu / 60)));
        }
        // Counted with the call, but not seen line by line: they were charged before it was known.
        if line.children > t.children && spent.children <= t.children {
            hits.push(hit(None, "children", format!("made {} processes in one call", line.children)));
        }
    }

    pub(super) fn tick(&mut self, t: &Exhaustion, now_ns: u64, hits: &mut Vec<Hit>) {
        let long = t.duration_s.saturating_mul(SECOND);
        for (number, spent) in self.calls.iter_mut() {
            let began = spent.first_ns.unwrap_or(now_ns);
            if !spent.told_duration && now_ns.saturating_sub(began) > long {
                spent.told_duration = true;
                let why = format!("has worked on call {number} for more than {} minutes", t.duration_s / 60);
                hits.push(hit(None, "duration", why));
            }
        }
    }
}

fn passes(before: u64, after: u64, limit: u64) -> bool {
    before <= limit && after > limit
}

fn hit(severity: Option<Severity>, object: &str, why: String) -> Hit {
    Hit { kind: Kind::Exhaustion, severity, object: object.into(), why }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Detectors,
            testing::{MINUTE, S, ambient, call, connect, flow, hits, in_call, line, more, open},
        },
        *,
    };

    fn objects(hits: &[Hit]) -> Vec<&str> {
        hits.iter().map(|h| &*h.object).collect()
    }

    fn forks(n: u64, step_ns: u64) -> impl Iterator<Item = EffectLine> {
        (0..n).map(move |i| line(S + i * step_ns, in_call(1), Effect::Fork { child: i as u32 }))
    }

    #[test]
    fn a_fork_bomb_is_high_and_a_build_is_not() {
        let told = hits(&mut Detectors::default(), forks(5000, S / 1000));
        assert_eq!(objects(&told), ["forks", "children"]);
        assert_eq!(told[1].severity, Some(Severity::High));
        assert_eq!(objects(&hits(&mut Detectors::default(), forks(300, S / 10))), ["children"]);
        assert_eq!(hits(&mut Detectors::default(), forks(150, S / 10)), []);
        let bomb = (0..200).map(|i| line(S + i, ambient(), Effect::Fork { child: 1 }));
        assert_eq!(objects(&hits(&mut Detectors::default(), bomb)), ["forks"]);
    }

    #[test]
    fn threads_and_sockets_are_told_by_their_system_calls() {
        let many = |nr, n| more(&line(S, in_call(1), Effect::Syscall { abi: SyscallAbi::X86_64, nr }), n);
        let told = hits(&mut Detectors::default(), [many(nr::CLONE3, 400), many(nr::SOCKET, 300)]);
        assert_eq!(objects(&told), ["threads"]);
        let told = hits(&mut Detectors::default(), [many(nr::SOCKET, 500), many(nr::ACCEPT4, 100)]);
        assert_eq!(objects(&told), ["sockets"]);
        // A build: as many processes as calls that make them.
        let lines = forks(150, S / 10).chain([many(nr::CLONE, 300)]);
        assert_eq!(hits(&mut Detectors::default(), lines), []);
    }

    #[test]
    fn each_ceiling_is_told_once() {
        let mut d = Detectors::default();
        let first = line(S, in_call(1), connect("192.0.2.1", 443));
        let told = hits(&mut d, [first.clone(), more(&first, 600), more(&first, 600)]);
        assert_eq!(objects(&told), ["connects"]);
        let files = (0..20_100u64).map(|i| line(S + i, in_call(1), open("/tmp/x", true, true)));
        assert_eq!(objects(&hits(&mut d, files)), ["files"]);
        let sent = (0..4).map(|i| line(S + i, in_call(1), flow("192.0.2.1", 443, "tcp", 400 << 20)));
        let told = hits(&mut d, sent);
        assert_eq!((told.len(), told[0].kind), (1, Kind::Volume));
        let here = (0..4).map(|i| line(S + i, in_call(2), flow("127.0.0.1", 5432, "tcp", 400 << 20)));
        assert_eq!(hits(&mut d, here), []);
    }

    #[test]
    fn calls_that_do_not_end_are_told_by_the_tick() {
        let mut d = Detectors::default();
        let mut told = hits(&mut d, [line(S, in_call(1), connect("192.0.2.1", 443))]);
        d.tick(20 * MINUTE, &mut told);
        assert_eq!(told, []);
        d.tick(31 * MINUTE, &mut told);
        d.tick(32 * MINUTE, &mut told);
        d.call(&call(1, S, 33 * MINUTE), &mut told);
        assert_eq!(objects(&told), ["duration"]);
        d.call(&call(2, S, 33 * MINUTE), &mut told);
        assert_eq!(objects(&told), ["duration", "duration"]);
    }

    #[test]
    fn cpu_and_memory_come_with_the_call() {
        let mut line = call(1, S, S);
        (line.cpu_ns, line.peak_rss, line.children) = (601 * S, 5 << 30, 201);
        let mut told = Vec::new();
        Detectors::default().call(&line, &mut told);
        assert_eq!(objects(&told), ["memory", "cpu", "children"]);
    }
}
