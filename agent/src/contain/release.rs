//! The way back: every process where it was, no limit left, no empty cgroup. Done by the agent and, when it
//! is gone, by the watchdog; so it rests on the record alone, and doing it twice is no harm.

use std::{collections::BTreeMap, fs};

use engine::respond::Action;

use super::{
    group::{Group, write},
    layout::{Hierarchy, Layout, is_scope},
    process,
    record::{Force, Record, Records},
};

/// Looks at a cgroup until it is empty; processes may fork while they are moved.
const ROUNDS: usize = 64;

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Released {
    /// Processes that are back where they were.
    pub(crate) back: u64,
    /// Whose cgroup is gone meanwhile: in the nearest one above it.
    pub(crate) elsewhere: u64,
    /// What could not be undone.
    pub(crate) problems: Vec<String>,
    /// Something was in force at all.
    pub(crate) any: bool,
}

/// Lifts one thing, or all. The record is stored, or removed when nothing is left of it.
pub(crate) fn release(
    layout: &Layout,
    records: &Records,
    record: &mut Record,
    only: Option<Action>,
) -> Released {
    let mut done = Released::default();
    let lifts = |action| only.is_none_or(|o| o == action);
    if lifts(Action::Freeze)
        && let Some(force) = record.freeze.take()
    {
        done.any = true;
        let still = record.throttle.clone();
        thaw(layout, record, &force, &mut done);
        leave(layout, record, &force, still.as_ref(), &mut done);
        if !done.problems.is_empty() {
            record.freeze = Some(force);
        }
    }
    if lifts(Action::Throttle)
        && let Some(force) = record.throttle.take()
    {
        done.any = true;
        let problems = done.problems.len();
        for changed in &force.changed {
            // A container that has ended took its limits along.
            if changed.file.exists()
                && let Err(e) = write(&changed.file, &changed.was)
            {
                done.problems.push(format!("{}: {e}", changed.file.display()));
            }
        }
        for (hierarchy, file, value) in &force.lift {
            let Some(h) = layout.named(hierarchy) else { continue };
            let group = Group::new(h, h.own(&record.name));
            if group.exists()
                && let Err(e) = group.set(file, value)
            {
                tracing::debug!("{file} of {}: {e}", group.dir.display());
            }
        }
        if force.duty.is_some() && record.freeze.is_none() {
            thaw(layout, record, &force, &mut done);
        }
        let still = record.freeze.clone();
        leave(layout, record, &force, still.as_ref(), &mut done);
        if done.problems.len() > problems {
            record.throttle = Some(force);
        }
    }
    tidy(layout, records, record);
    done
}

fn thaw(layout: &Layout, record: &Record, force: &Force, done: &mut Released) {
    let own =
        force.own.iter().filter_map(|name| layout.named(name)).map(|h| Group::new(h, h.own(&record.name)));
    let in_place = force.in_place.iter().filter_map(|(name, cgroup)| {
        let h = layout.named(name)?;
        Some(Group::new(h, h.dir(cgroup)?))
    });
    for group in own.chain(in_place).filter(Group::exists) {
        let freezes = group.get("cgroup.freeze").is_ok() || group.get("freezer.state").is_ok();
        if freezes && let Err(e) = group.freeze(false) {
            done.problems.push(format!("cannot thaw {}: {e}", group.dir.display()));
        }
    }
}

/// Empties our cgroups, but for those that something else still needs.
fn leave(layout: &Layout, record: &Record, force: &Force, still: Option<&Force>, done: &mut Released) {
    for name in &force.own {
        if still.is_some_and(|s| s.own.contains(name)) {
            continue;
        }
        let Some(h) = layout.named(name) else { continue };
        let group = Group::new(h, h.own(&record.name));
        let mut back = BTreeMap::new();
        for round in 0..ROUNDS {
            let members = group.members();
            if members.is_empty() {
                break;
            }
            for pid in members {
                let dead = process::stat(pid).is_none_or(|s| s.dead);
                match put_back(h, record, pid) {
                    // What has ended goes on nowhere.
                    Ok(_) if dead => {}
                    Ok(there) => {
                        back.insert(pid, there);
                    }
                    // It ended meanwhile, which empties the group as well.
                    Err(_) if process::stat(pid).is_none_or(|s| s.dead) => {}
                    Err(e) if round + 1 == ROUNDS => {
                        done.problems.push(format!("process {pid} of {name}: {e}"))
                    }
                    Err(_) => {}
                }
            }
        }
        // A process is in several hierarchies: it is counted once.
        let (there, elsewhere) =
            (back.values().filter(|t| **t).count(), back.values().filter(|t| !**t).count());
        done.back = done.back.max(there as u64);
        done.elsewhere = done.elsewhere.max(elsewhere as u64);
    }
}

/// To where it was; what was born since, to where its parent was. False: that is gone, it is above.
fn put_back(h: &Hierarchy, record: &Record, pid: u32) -> std::io::Result<bool> {
    let was = origin(h, record, pid).unwrap_or("/");
    let mut dir = h.dir(was).unwrap_or_else(|| h.top().to_owned());
    let mut there = true;
    while !dir.is_dir() && dir.starts_with(h.top()) && dir.pop() {
        there = false;
    }
    Group::new(h, dir).admit(pid).map(|()| there)
}

/// Where a process was, or the nearest ancestor whose place is known; else the first of the tree.
fn origin<'a>(h: &Hierarchy, record: &'a Record, pid: u32) -> Option<&'a str> {
    let mut at = pid;
    for _ in 0..64 {
        let Some(stat) = process::stat(at) else { break };
        if let Some(place) = record.places.get(&at).filter(|p| p.ticks == stat.ticks)
            && let Some(cgroup) = place.cgroups.get(&h.name)
        {
            return Some(cgroup);
        }
        at = stat.parent;
    }
    record.places.values().find_map(|p| p.cgroups.get(&h.name)).map(String::as_str)
}

/// Removes what is empty, and the record when nothing is left of it. A cgroup of processes that are just
/// ending can be removed a moment later: the watchdog looks again.
pub(crate) fn tidy(layout: &Layout, records: &Records, record: &Record) {
    let used = |name: &str| {
        [&record.freeze, &record.throttle].into_iter().flatten().any(|f| f.own.iter().any(|o| o == name))
    };
    let mut left = false;
    for h in layout.all().filter(|h| !used(&h.name)) {
        let group = Group::new(h, h.own(&record.name));
        // An empty scope systemd takes away itself. Taken away by us, it may never hear that it is empty, and keeps the unit.
        let systemds = is_scope(&record.name) && h.is_v2();
        if group.exists() && !systemds {
            left |= group.remove().is_err();
        }
        // The last one takes the directory of all along; another server's keeps it.
        let _kept = fs::remove_dir(h.home());
    }
    let stored = if record.is_idle() && !left { records.remove(record.tree) } else { records.put(record) };
    if let Err(e) = stored {
        tracing::error!("a record of containment cannot be written: {e}");
    }
}
