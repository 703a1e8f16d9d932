//! Every process of a tree stands still.
//!
//! To enter a cgroup takes the kernel an RCU grace period: 10 to 20 ms. So a SIGSTOP comes first, which takes
//! microseconds; the cgroup is what holds, because nobody in it can send the SIGCONT that ends a stop. Who
//! was stopped by us is told to go on then, and does so when it is thawed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use engine::respond::{Order, Outcome, ProcessKey, Verdict};
use rustix::process::Signal;

use super::{
    Contain, Ground, LOCK, failed,
    group::Group,
    in_force, nanos,
    process::{self, Held, Never},
    record::Force,
    until_ns,
};

/// A frozen cgroup says so by then; what waits for a disk may take longer.
const FROZEN: Duration = Duration::from_millis(50);
const STOP_ROUNDS: usize = 8;

impl Contain {
    pub(super) fn freezer_name(&self) -> String {
        self.layout
            .freezer()
            .map_or_else(|| "no freezer on this host".into(), |h| format!("freezer of {}", h.name))
    }

    pub(super) fn freeze(
        &mut self,
        order: &Order,
        ground: &impl Ground,
        never: &Never,
        began: Instant,
    ) -> Outcome {
        let Some(h) = self.layout.freezer() else {
            return failed(
                "this host has neither cgroup v2 nor the v1 freezer: mount -t cgroup2 none /sys/fs/cgroup",
            );
        };
        let mut stopped: BTreeMap<ProcessKey, Held> = BTreeMap::new();
        stop(order, ground, never, &mut stopped);
        let took_ns = nanos(began);
        let keys: Vec<ProcessKey> = ground.members(order.tree);
        if keys.is_empty() {
            return Outcome {
                verdict: Verdict::Nothing,
                result: "none of its processes runs".into(),
                ..Outcome::default()
            };
        }
        let _lock = self.records.lock(LOCK);
        let mut record = self.record(order.tree, &order.server, &keys);
        let before = in_force(&record);
        let own = Group::new(h, h.own(&record.name));
        let mut force =
            Force { until_ns: until_ns(order.for_ns), own: vec![h.name.clone()], ..Force::default() };
        // In the record before it is so: whoever finds it can undo it.
        record.freeze = Some(force.clone());
        let prepared = self
            .records
            .put(&record)
            .and_then(|()| own.make())
            // Who enters a frozen cgroup freezes, so nobody can fork out of it.
            .and_then(|()| own.freeze(true));
        let gathered = match prepared.map_err(|e| e.to_string()) {
            Ok(()) => self.gather(h, &mut record, order, ground, never),
            Err(e) => Err(e),
        };
        let mut all = match gathered {
            Ok(all) => all,
            Err(why) => {
                go_on(&stopped);
                super::release::release(&self.layout, &self.records, &mut record, Some(order.action));
                return failed(format!("cannot freeze: {why}"));
            }
        };
        let mut problems = Vec::new();
        for (cgroup, pids) in &all.containers {
            let Some(dir) = h.dir(cgroup) else { continue };
            force.in_place.push((h.name.clone(), cgroup.clone()));
            match Group::new(h, dir).freeze(true) {
                Ok(()) => all.inside.extend(pids),
                Err(e) => problems.push(format!("container {cgroup}: {e}")),
            }
        }
        record.freeze = Some(force.clone());
        if let Err(e) = self.records.put(&record) {
            problems.push(format!("it cannot be written down: {e}"));
        }
        let groups = force.in_place.iter().filter_map(|(_, c)| h.dir(c)).map(|d| Group::new(h, d));
        let slow = groups.chain([own]).filter(|g| !frozen(g)).count();
        go_on(&stopped);
        if slow > 0 {
            problems.push(
                "some of them do not stand still yet: they are in a system call, or wait for CPU time".into(),
            );
        }
        if all.endless {
            problems.push("it forks faster than its processes can be moved".into());
        }
        problems.extend(all.spared.iter().map(|s| format!("process {}: {}", s.pid, s.because)));
        let n = all.inside.len();
        if n == 0 {
            super::release::release(&self.layout, &self.records, &mut record, Some(order.action));
        }
        let place = match force.in_place.len() {
            0 => format!("{} of {}", h.own(&record.name).display(), h.name),
            _ => format!("its containers {:?}", force.in_place.iter().map(|(_, c)| c).collect::<Vec<_>>()),
        };
        let mut result = format!("{n} processes stand still ({place})");
        for problem in &problems {
            result = format!("{result}; {problem}");
        }
        Outcome {
            verdict: match (n, problems.is_empty()) {
                (0, true) => Verdict::Nothing,
                (0, false) => Verdict::Refused,
                (_, true) => Verdict::Done,
                (_, false) => Verdict::Partly,
            },
            result,
            before,
            after: in_force(&record),
            processes: n as u64,
            spared: all.spared,
            took_ns,
            ..Outcome::default()
        }
    }
}

/// Stops all that may be touched, until no new process appears; and waits until they stand.
fn stop(order: &Order, ground: &impl Ground, never: &Never, stopped: &mut BTreeMap<ProcessKey, Held>) {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..STOP_ROUNDS {
        let mut new = false;
        for key in Contain::reach(order, ground, never).keys {
            if !seen.insert(key) {
                continue;
            }
            new = true;
            // Who stands already was stopped by somebody else, who will say when it goes on.
            if is_stopped(key.tgid) {
                continue;
            }
            if let Ok(held) = Held::open(key)
                && held.signal(Signal::STOP).is_ok()
            {
                stopped.insert(key, held);
            }
        }
        if !new {
            return;
        }
    }
}

fn is_stopped(pid: u32) -> bool {
    process::state(pid).is_some_and(|s| matches!(s, b'T' | b't'))
}

/// They hold still by the cgroup now, or not at all.
fn go_on(stopped: &BTreeMap<ProcessKey, Held>) {
    for held in stopped.values() {
        if let Err(e) = held.signal(Signal::CONT) {
            tracing::error!(pid = held.key.tgid, "a process that was stopped cannot be told to go on: {e}");
        }
    }
}

fn frozen(group: &Group) -> bool {
    let end = Instant::now() + FROZEN;
    while !group.is_frozen() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    true
}
