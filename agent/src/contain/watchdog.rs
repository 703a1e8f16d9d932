//! A small process beside the agent: it ends freezes, throttles and cuts whose time is up, when the agent does not,
//! because it was killed or hangs. It also runs duty cycles, which must not stop in their frozen half. It
//! reads the records, changes nothing of the kernel's maps but who is cut off, and ends when there is no record.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use engine::respond::Action;

use super::{
    boot_ns,
    group::Group,
    is_disarmed,
    layout::Layout,
    record::{Record, Records},
    release::{release, tidy},
};
use crate::kernel::pins;

/// The agent has this long to end what is over: it tells people.
const GRACE_NS: u64 = 1_000_000_000;
/// Records and the disarm file are looked at this often.
const LOOK: Duration = Duration::from_millis(500);
/// The agent may be at a record; what hangs for longer is gone past.
const LOCK: Duration = Duration::from_secs(2);
/// One turn of a duty cycle.
const CYCLE: Duration = Duration::from_millis(100);

/// Watches until nothing is left.
pub(crate) fn run(state_dir: &Path, pin_dir: &Path) {
    // The agent's terminal and signals are not ours.
    let _leader = rustix::process::setsid();
    let agent = rustix::process::getppid();
    watch(state_dir, &Layout::of_host(), &Cuts { pin_dir, agent });
}

/// Where cuts are ended.
struct Cuts<'a> {
    pin_dir: &'a Path,
    agent: Option<rustix::process::Pid>,
}

impl Cuts<'_> {
    /// True: it is over. What is not pinned has ended with the agent.
    fn end(&self, record: &Record) -> bool {
        match pins::uncut(self.pin_dir, record.tree) {
            Ok(true) => true,
            Ok(false) => rustix::process::getppid() != self.agent,
            Err(e) => {
                tracing::error!("{} is still cut off: {e:#}", record.server);
                false
            }
        }
    }
}

/// The same, on a host like this.
#[cfg(test)]
pub(super) fn run_with(state_dir: &Path, layout: &Layout) {
    watch(state_dir, layout, &Cuts { pin_dir: Path::new(""), agent: None });
}

fn watch(state_dir: &Path, layout: &Layout, cuts: &Cuts<'_>) {
    let records = Records::of_state(state_dir);
    let Some(_only) = records.watch() else { return };
    let mut looked: Option<Instant> = None;
    let mut all = Vec::new();
    loop {
        if looked.is_none_or(|at| at.elapsed() >= LOOK) {
            look(state_dir, &records, layout, cuts);
            all = records.all();
            looked = Some(Instant::now());
        }
        if all.is_empty() {
            return;
        }
        let duties: Vec<(Group, u64)> = all.iter().filter_map(|r| duty(layout, r)).collect();
        if duties.is_empty() {
            sleep(pause(&all));
            looked = None;
        } else {
            turn(&duties);
        }
    }
}

/// Until something is over, or the next look is due.
fn pause(all: &[Record]) -> Duration {
    let next = all.iter().filter_map(Record::next_ns).min();
    let left = next.map_or(u64::MAX, |at| at.saturating_add(GRACE_NS).saturating_sub(boot_ns()));
    LOOK.min(Duration::from_nanos(left)).max(Duration::from_millis(10))
}

fn look(state_dir: &Path, records: &Records, layout: &Layout, cuts: &Cuts<'_>) {
    let disarmed = is_disarmed(state_dir);
    let now = boot_ns().saturating_sub(GRACE_NS);
    for seen in records.all() {
        if !disarmed && seen.due(now).is_empty() && !seen.is_idle() {
            continue;
        }
        let Some(_lock) = records.lock(LOCK) else { continue };
        // The agent may have been faster.
        let Some(mut record) = records.get(seen.tree) else { continue };
        let (actions, why) = match disarmed {
            true => (vec![Action::Freeze, Action::Throttle, Action::CutNetwork], "responses are disarmed"),
            false => (record.due(now), "its time is up"),
        };
        for action in actions {
            if action == Action::CutNetwork {
                if record.cut && cuts.end(&record) {
                    record.cut = false;
                    say(&record, action, why, &[]);
                    if let Err(e) = records.put(&record) {
                        tracing::error!("a record of containment cannot be written: {e}");
                    }
                }
                continue;
            }
            let done = release(layout, records, &mut record, Some(action));
            if done.any {
                say(&record, action, why, &done.problems);
            }
        }
        if record.is_idle() {
            tidy(layout, records, &record);
        }
    }
}

fn say(record: &Record, action: Action, why: &str, problems: &[String]) {
    if problems.is_empty() {
        tracing::warn!("{action} of {} ends: {why}", record.server);
    } else {
        tracing::error!("{action} of {} cannot be ended: {}", record.server, problems.join("; "));
    }
}

/// The cgroup that runs only for a part of the time, unless it is to stand still anyway.
fn duty(layout: &Layout, record: &Record) -> Option<(Group, u64)> {
    if record.freeze.is_some() {
        return None;
    }
    let percent = record.throttle.as_ref()?.duty?;
    let h = layout.freezer()?;
    let group = Group::new(h, h.own(&record.name));
    group.exists().then_some((group, percent))
}

/// One cycle of all of them. It ends with them running: whatever comes next finds them so.
fn turn(duties: &[(Group, u64)]) {
    let set = |on: bool| {
        for (group, _) in duties {
            if let Err(e) = group.freeze(on) {
                tracing::debug!("{}: {e}", group.dir.display());
            }
        }
    };
    let percent = duties.iter().map(|(_, p)| *p).max().unwrap_or(100).min(100);
    let run = CYCLE * u32::try_from(percent).unwrap_or(100) / 100;
    set(true);
    sleep(CYCLE - run);
    set(false);
    sleep(run);
}
