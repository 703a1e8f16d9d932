//! Brings the processes of a tree into a cgroup of ours, all threads of each, until none is outside; or finds
//! the cgroups of the containers that they are in, which are never left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use engine::respond::{Order, ProcessKey, Spared};

use super::{
    Contain, Ground, Reach,
    group::Group,
    layout::{Hierarchy, is_container},
    process::{self, Held, Missing, Never},
    record::{Place, Record},
};

/// Looks at the tree until none of it is outside.
const ROUNDS: usize = 64;

/// Where the tree is now.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// In our cgroup.
    pub(super) inside: BTreeSet<u32>,
    /// In containers: processes by cgroup.
    pub(super) containers: BTreeMap<String, BTreeSet<u32>>,
    pub(super) spared: Vec<Spared>,
    /// Processes appeared faster than they could be moved.
    pub(super) endless: bool,
}

impl Contain {
    /// See above. The record is stored before anything is moved.
    pub(super) fn gather(
        &self,
        h: &Hierarchy,
        record: &mut Record,
        order: &Order,
        ground: &impl Ground,
        never: &Never,
    ) -> Result<Gathered, String> {
        let group = Group::new(h, h.own(&record.name));
        group.make().map_err(|e| format!("cannot make {}: {e}", group.dir.display()))?;
        let own = h.own_place(&record.name);
        let mut all = Gathered::default();
        let mut seen = BTreeSet::new();
        for round in 0.. {
            let Reach { keys, spared } = Self::reach(order, ground, never);
            let new: Vec<ProcessKey> = keys.into_iter().filter(|k| seen.insert(*k)).collect();
            if round == 0 {
                all.spared = spared;
            }
            if new.is_empty() {
                break;
            }
            if round == ROUNDS {
                all.endless = true;
                break;
            }
            let mut to_move = Vec::new();
            let known = record.places.len();
            for key in new {
                let Some(place) = h.place(key.tgid) else { continue };
                if place.ends_with(&own) {
                    all.inside.insert(key.tgid);
                } else if is_container(&place) {
                    all.containers.entry(place).or_default().insert(key.tgid);
                } else {
                    remember(record, key);
                    to_move.push(key);
                }
            }
            if record.places.len() != known
                && let Err(e) = self.records.put(record)
            {
                return Err(format!("cannot write down where its processes were: {e}"));
            }
            for key in to_move {
                match enter(h, &group, key) {
                    Ok(true) => {
                        all.inside.insert(key.tgid);
                    }
                    Ok(false) => {}
                    Err(because) => all.spared.push(Spared { pid: key.tgid, because }),
                }
            }
        }
        self.keep_others_out(h, order, ground, &mut all);
        Ok(all)
    }

    /// A container's cgroup is used only when nobody else is in it.
    fn keep_others_out(&self, h: &Hierarchy, order: &Order, ground: &impl Ground, all: &mut Gathered) {
        let tree: BTreeSet<u32> = ground.members(order.tree).iter().map(|k| k.tgid).collect();
        for (cgroup, pids) in std::mem::take(&mut all.containers) {
            let others: Vec<u32> = match h.dir(&cgroup) {
                Some(dir) => Group::new(h, dir).members().into_iter().filter(|p| !tree.contains(p)).collect(),
                None => {
                    let because = format!("its container's cgroup {cgroup} cannot be reached from here");
                    all.spared.extend(pids.iter().map(|pid| Spared { pid: *pid, because: because.clone() }));
                    continue;
                }
            };
            if others.is_empty() {
                all.containers.insert(cgroup, pids);
                continue;
            }
            let because = format!(
                "it is in the container {cgroup} with processes that are not the server's ({others:?}): limit the \
                 container itself"
            );
            all.spared.extend(pids.iter().map(|pid| Spared { pid: *pid, because: because.clone() }));
        }
    }
}

/// Where a process is now, in all hierarchies: once, before it is moved for the first time.
pub(super) fn remember(record: &mut Record, key: ProcessKey) {
    let ticks = process::ticks(key);
    if record.places.get(&key.tgid).is_some_and(|p| p.ticks == ticks) {
        return;
    }
    let text = fs::read_to_string(format!("/proc/{}/cgroup", key.tgid)).unwrap_or_default();
    let mut cgroups = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ':');
        let (Some(number), Some(names), Some(path)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        // Ours is no place to go back to.
        if path.contains("/toolwarden/") || path.contains("/toolwarden.slice/") {
            continue;
        }
        if number == "0" {
            cgroups.insert(super::layout::V2.to_owned(), path.to_owned());
        }
        for name in names.split(',').filter(|n| !n.is_empty()) {
            cgroups.insert(name.to_owned(), path.to_owned());
        }
    }
    record.places.insert(key.tgid, Place { ticks, cgroups });
}

/// Moves one process, held and verified. False: it has ended.
fn enter(h: &Hierarchy, group: &Group, key: ProcessKey) -> Result<bool, String> {
    let _held = match Held::open(key) {
        Ok(held) => held,
        Err(Missing::Gone | Missing::Another) => return Ok(false),
        Err(Missing::Refused(e)) => return Err(format!("the kernel refuses a handle of it: {e}")),
    };
    match group.admit(key.tgid) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(false),
        Err(e) => return Err(format!("it cannot be moved to {}: {e}", group.dir.display())),
    }
    let inside = |place: &str| h.dir(place).is_some_and(|d| d == group.dir);
    match h.place(key.tgid) {
        Some(place) if inside(&place) => Ok(true),
        // It ended while it was moved: its number may be another's by now.
        _ if process::stat(key.tgid).is_none_or(|s| s.dead || s.ticks != process::ticks(key)) => Ok(false),
        place => Err(format!("it was moved, and is in {place:?} all the same")),
    }
}
