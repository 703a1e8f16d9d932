//! Ends a process, or a whole tree: at once by pidfd, then again until nobody of it is left.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use engine::respond::{Order, Outcome, ProcessKey, Spared, Verdict};
use rustix::process::Signal;

use super::{
    Contain, Ground, LOCK, Reach, failed,
    group::Group,
    nanos,
    process::{self, Held, Missing, Never},
    refused, release,
};

/// Looks at the tree until nobody of it is left. After these many, it is frozen first.
const ROUNDS: usize = 32;
const PATIENCE: usize = 4;
/// Who was sent a SIGKILL is gone by then, unless it waits for a device.
const GONE: Duration = Duration::from_millis(100);

/// Who was signalled.
#[derive(Default)]
struct Killed {
    held: BTreeMap<ProcessKey, Held>,
    spared: BTreeMap<u32, Spared>,
    /// When the first round was over: all that were known had their signal.
    first_ns: u64,
}

impl Killed {
    fn kill(&mut self, key: ProcessKey) -> bool {
        if self.held.contains_key(&key) {
            return false;
        }
        let because = match Held::open(key) {
            Ok(held) => match held.signal(Signal::KILL) {
                Ok(()) => {
                    self.held.insert(key, held);
                    return true;
                }
                Err(e) => format!("the kernel refuses to end it: {e}"),
            },
            Err(Missing::Gone | Missing::Another) => return false,
            Err(Missing::Refused(e)) => format!("the kernel refuses a handle of it: {e}"),
        };
        self.spared.insert(key.tgid, Spared { pid: key.tgid, because });
        false
    }

    /// How many are still there by then.
    fn left(&self) -> usize {
        let end = Instant::now() + GONE;
        self.held.values().filter(|h| !h.ended(end)).count()
    }

    fn outcome(self, began: Instant, what: &str) -> Outcome {
        let left = self.left();
        let n = self.held.len();
        let mut result = format!("{what}: {n} processes got a SIGKILL");
        if left > 0 {
            result = format!("{result}; {left} of them are still ending");
        }
        for s in self.spared.values() {
            result = format!("{result}; process {}: {}", s.pid, s.because);
        }
        let verdict = match (n, self.spared.is_empty()) {
            (0, true) => Verdict::Nothing,
            (0, false) => Verdict::Refused,
            (_, true) if left == 0 => Verdict::Done,
            (..) => Verdict::Partly,
        };
        Outcome {
            verdict,
            result,
            before: "running".into(),
            after: if left == 0 { "ended".into() } else { "ending".into() },
            processes: n as u64,
            spared: self.spared.into_values().collect(),
            took_ns: if self.first_ns == 0 { nanos(began) } else { self.first_ns },
            ..Outcome::default()
        }
    }
}

impl Contain {
    pub(super) fn kill_server(
        &mut self,
        order: &Order,
        ground: &impl Ground,
        never: &Never,
        began: Instant,
    ) -> Outcome {
        let mut killed = Killed::default();
        for round in 0..ROUNDS {
            let Reach { keys, spared } = Self::reach(order, ground, never);
            killed.spared.extend(spared.into_iter().map(|s| (s.pid, s)));
            let mut new = false;
            for key in &keys {
                new |= killed.kill(*key);
            }
            if round == 0 {
                killed.first_ns = nanos(began);
                // An agent before this one may have frozen it: the record goes by this tree from now on.
                let _known = self.known(order.tree, &keys);
                self.thaw(order);
            }
            if !new {
                break;
            }
            // Forks faster than it is ended: it must stand still for that.
            if round == PATIENCE {
                let frozen = self.freeze(order, ground, never, began);
                tracing::warn!("{} forks while it is ended: {}", order.server, frozen.result);
                self.kill_group(order);
            }
        }
        let outcome = killed.outcome(began, "ended");
        // Its cgroups are empty now.
        let _lock = self.records.lock(LOCK);
        if let Some(mut record) = self.records.get(order.tree) {
            record.cut = false;
            release::release(&self.layout, &self.records, &mut record, None);
        }
        outcome
    }

    /// One process and those that descend from it.
    pub(super) fn kill_child(
        &mut self,
        order: &Order,
        ground: &impl Ground,
        never: &Never,
        began: Instant,
    ) -> Outcome {
        let Some(target) = order.process else {
            return failed("the order names no process");
        };
        if let Some(why) = never.because(target.tgid) {
            let spared = vec![Spared { pid: target.tgid, because: why.into() }];
            return Outcome { spared, ..refused(format!("process {}: {why}", target.tgid)) };
        }
        let is_target =
            |k: &ProcessKey| k.tgid == target.tgid && process::ticks(*k) == process::ticks(target);
        if !ground.members(order.tree).iter().any(is_target) {
            return match process::stat(target.tgid) {
                Some(stat) if stat.ticks == process::ticks(target) => {
                    refused(format!("process {} is not of this server", target.tgid))
                }
                _ => Outcome {
                    verdict: Verdict::Nothing,
                    result: format!("process {} has ended", target.tgid),
                    ..Outcome::default()
                },
            };
        }
        // They stand still first: a parent that has ended passes its children on, and nobody knows whose they
        // were.
        let mut family = BTreeMap::new();
        hold(target, &mut family);
        for _ in 0..ROUNDS {
            let mut new = false;
            for key in Self::reach(order, ground, never).keys {
                let child = process::stat(key.tgid).is_some_and(|s| family.contains_key(&s.parent));
                if child && !family.contains_key(&key.tgid) {
                    new |= hold(key, &mut family);
                }
            }
            if !new {
                break;
            }
        }
        let mut killed = Killed::default();
        for key in family.into_values() {
            killed.kill(key);
        }
        killed.first_ns = nanos(began);
        killed.outcome(began, "ended with its descendants")
    }

    /// On v1, who is frozen ends only when it is thawed.
    fn thaw(&self, order: &Order) {
        let Some(record) = self.records.get(order.tree) else { return };
        let Some(force) = record.freeze.as_ref().or(record.throttle.as_ref()) else { return };
        let Some(h) = self.layout.freezer().filter(|h| !h.is_v2()) else { return };
        let own = [h.own(&record.name)].into_iter();
        let in_place = force.in_place.iter().filter_map(|(_, cgroup)| h.dir(cgroup));
        for group in own.chain(in_place).map(|dir| Group::new(h, dir)).filter(Group::exists) {
            if let Err(e) = group.freeze(false) {
                tracing::error!("{} cannot be thawed: {e}", group.dir.display());
            }
        }
    }

    fn kill_group(&self, order: &Order) {
        let Some(record) = self.records.get(order.tree) else { return };
        let Some(h) = self.layout.freezer() else { return };
        let group = Group::new(h, h.own(&record.name));
        if let Err(e) = group.kill() {
            // v1, and kernels before 5.14: by the signals alone.
            tracing::debug!("{}: {e}", group.dir.display());
        }
        self.thaw(order);
    }
}

/// Has a process stand still, and remembers it.
fn hold(key: ProcessKey, family: &mut BTreeMap<u32, ProcessKey>) -> bool {
    match Held::open(key) {
        Ok(held) => {
            // It is ended in a moment, whether it stands or not.
            if let Err(e) = held.signal(Signal::STOP) {
                tracing::debug!(pid = key.tgid, "cannot be stopped: {e}");
            }
            family.insert(key.tgid, key).is_none()
        }
        Err(_) => false,
    }
}
