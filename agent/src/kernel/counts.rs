//! What the kernel programs counted instead of telling: aggregated occurrences, and losses.
//!
//! There are two aggregation maps. The programs write the active one; a drain makes the other one
//! active, waits until no program can still be writing the first (an RCU grace period, see
//! [`Counts::settle`]), then reads and empties it. So no count is read twice and none is lost.

use abi::{AggKey, AggValue, counter, kind, run};
use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray},
};
use engine::input::Fact;

use super::take;

/// The maps that hold counts.
pub(crate) struct Counts {
    active: Array<MapData, u32>,
    maps: [HashMap<MapData, AggKey, AggValue>; 2],
    counters: PerCpuArray<MapData, u64>,
    current: u32,
}

/// Sums of the loss counters over all CPUs.
type Counters = Vec<(String, u64)>;

impl Counts {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            active: take(ebpf, "ACTIVE")?,
            maps: [take(ebpf, "AGG0")?, take(ebpf, "AGG1")?],
            counters: take(ebpf, "COUNTERS")?,
            current: 0,
        })
    }

    /// Makes the other map the active one.
    pub(crate) fn flip(&mut self) -> Result<()> {
        self.current ^= 1;
        self.active.set(0, self.current, 0).context("cannot switch the aggregation map")
    }

    /// Waits until every program that saw the old map has finished. Blocks for an RCU grace period
    /// (10 to 50 ms): membarrier's global command is defined as `synchronize_rcu`.
    pub(crate) fn settle() {
        const GLOBAL: libc::c_int = 1;
        // SAFETY: no pointers; an error (not supported) leaves the sleep below as the fallback.
        let failed = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0) } != 0;
        if failed {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Empties the map that is not active.
    pub(crate) fn drain(&mut self, out: &mut Vec<Fact>) {
        let map = &mut self.maps[(self.current ^ 1) as usize];
        let keys: Vec<AggKey> = map.keys().filter_map(Result::ok).collect();
        for key in keys {
            if let Ok(v) = map.get(&key, 0)
                && v.count != 0
            {
                out.push(Fact::Aggregate {
                    id: v.id,
                    count: v.count,
                    bytes_out: v.bytes_out,
                    bytes_in: v.bytes_in,
                });
            }
            // Just read; a failure here would only mean that it is counted again under no new bytes.
            let _gone = map.remove(&key);
        }
    }

    /// Over all CPUs.
    fn sum(&self, index: u32) -> u64 {
        self.counters.get(&index, 0).map_or(0, |v| v.iter().fold(0, |a: u64, b| a.wrapping_add(*b)))
    }

    /// Records that the programs wrote.
    pub(crate) fn written(&self) -> u64 {
        self.sum(counter::WRITTEN)
    }

    /// What the programs did.
    pub(crate) fn work(&self) -> Work {
        let runs = RUNS.map(|(hook, name)| (name, self.sum(counter::RUNS + hook)));
        Work { written: self.written(), aggregated: self.sum(counter::AGGREGATED), runs }
    }

    /// Loss counters, by cause, that are not zero.
    pub(crate) fn losses(&self) -> Counters {
        let mut out = Vec::new();
        for (index, name) in LOSSES {
            let n = self.sum(index);
            if n != 0 {
                out.push((name.to_owned(), n));
            }
        }
        out
    }
}

/// What the programs did, by their own counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Records written.
    pub(crate) written: u64,
    /// Acts counted instead.
    pub(crate) aggregated: u64,
    /// Runs of each hook for processes that are watched.
    pub(crate) runs: [(&'static str, u64); RUNS.len()],
}

/// Hooks whose runs are counted, as coverage calls them where it has a line for each.
const RUNS: [(u32, &str); run::COUNT as usize] = [
    (run::FORK, "lifecycle/fork"),
    (run::EXEC, "lifecycle/exec"),
    (run::EXIT, "lifecycle/exit"),
    (run::SYSCALL, "syscalls"),
    (run::URING, "io_uring"),
    (run::CONNECT4, "cgroup/connect4"),
    (run::CONNECT6, "cgroup/connect6"),
    (run::SENDMSG4, "cgroup/sendmsg4"),
    (run::SENDMSG6, "cgroup/sendmsg6"),
    (run::BIND4, "cgroup/bind4"),
    (run::BIND6, "cgroup/bind6"),
    (run::SOCK_CREATE, "cgroup/sock_create"),
    (run::SOCK_RELEASE, "cgroup/sock_release"),
    (run::EGRESS, "cgroup/egress"),
    (run::INGRESS, "cgroup/ingress"),
    (run::LSM_EXEC, "lsm/programs"),
    (run::LSM_FILE, "lsm/files"),
    (run::LSM_UNIX, "lsm/unix"),
    (run::LSM_DANGEROUS, "lsm/dangerous"),
    (run::LSM_GUARD, "lsm/own"),
    (run::TAMPERING, "tampering"),
];

/// Loss counters and what they are called.
pub(crate) const LOSSES: [(u32, &str); 27] = [
    (counter::LOST + kind::FORK as u32, "ring:fork"),
    (counter::LOST + kind::EXEC as u32, "ring:exec"),
    (counter::LOST + kind::EXIT as u32, "ring:exit"),
    (counter::LOST + kind::CHUNK as u32, "ring:chunk"),
    (counter::LOST + kind::OPEN as u32, "ring:open"),
    (counter::LOST + kind::PATH_OP as u32, "ring:path"),
    (counter::LOST + kind::NET as u32, "ring:net"),
    (counter::LOST + kind::UNIX as u32, "ring:unix"),
    (counter::LOST + kind::PACKET as u32, "ring:packet"),
    (counter::LOST + kind::FLOW as u32, "ring:flow"),
    (counter::LOST + kind::SYSCALL as u32, "ring:syscall"),
    (counter::LOST + kind::SPECIAL as u32, "ring:special"),
    (counter::LOST + kind::URING as u32, "ring:uring"),
    (counter::LOST + kind::BLIND as u32, "ring:blind"),
    (counter::FAULTS, "fault:user-memory"),
    (counter::TRUNCATED, "truncated:text"),
    (counter::PROCS_FULL, "full:processes"),
    (counter::TREES_FULL, "full:trees"),
    (counter::AGG_FULL, "full:aggregation"),
    (counter::OWNERS_FULL, "full:sockets"),
    (counter::NO_FILE, "gone:descriptor"),
    (counter::CHANNEL_SKIPPED, "skipped:channel-bytes"),
    (counter::LOST + kind::DENIED as u32, "ring:denied"),
    (counter::RIGHTS_FULL, "full:rights"),
    (counter::POLICY_FULL, "full:policies"),
    (counter::LSM_BUSY, "full:lsm-work-spaces"),
    (counter::LOST, "ring:other"),
];
