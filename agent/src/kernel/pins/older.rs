//! Pins of another layout: those of an agent of another version. Their maps cannot be adopted. So they stay in force beside this agent's, and
//! either denies, until whoever they held is held here, or is known not to be, or has ended.

use std::{
    fs,
    path::{Path, PathBuf},
};

use abi::{
    Proc,
    policy::{TreePolicy, tree_flag},
};
use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData};

use super::{Kernel, LINKS, MAPS, dir};
use crate::running;

/// Ns of a clock tick.
const TICK: u64 = 10_000_000;

/// Pins of one layout.
pub(super) struct Older {
    at: PathBuf,
    /// Processes that they hold, and their starts.
    held: Vec<(u32, u64)>,
    /// Whom they hold cannot be read: whoever is found running may be.
    unknown: bool,
}

fn table<K: aya::Pod, V: aya::Pod>(path: &Path) -> Result<HashMap<MapData, K, V>> {
    Ok(HashMap::try_from(Map::HashMap(MapData::from_pin(path)?))?)
}

fn held(maps: &Path) -> Result<Vec<(u32, u64)>> {
    let policies: HashMap<_, u64, TreePolicy> = table(&maps.join("TREE_POLICY"))?;
    let procs: HashMap<_, u32, Proc> = table(&maps.join("PROCS"))?;
    let holds = |tree| policies.get(&tree, 0).is_ok_and(|h| h.policy != 0 || h.flags != 0);
    Ok(procs
        .iter()
        .filter_map(Result::ok)
        .filter(|(_, p)| holds(p.tree))
        .map(|(pid, p)| (pid, p.start_ns))
        .collect())
}

impl Older {
    pub(super) fn read(at: PathBuf) -> Self {
        let held = held(&at.join(MAPS));
        let unknown = held.is_err();
        tracing::warn!(
            pins = %at.display(),
            "pins of another version: they stay in force until the servers that they hold are known here{}",
            if unknown { "; which those are cannot be read" } else { "" }
        );
        Self { at, held: held.unwrap_or_default(), unknown }
    }
}

impl Kernel {
    /// A process that ran before was found.
    pub(in crate::kernel) fn may_be_held_elsewhere(&mut self, pid: u32, start_ns: u64) {
        let Some(pins) = &mut self.pins else { return };
        for older in pins.older.iter_mut().filter(|o| o.unknown) {
            older.held.push((pid, start_ns));
        }
    }

    /// Takes away what of them holds nobody any more that is not held here.
    pub(super) fn drop_older(&mut self) {
        let Some(pins) = &self.pins else { return };
        if pins.older.is_empty() {
            return;
        }
        let waits = |(pid, start): &(u32, u64)| {
            let alive = running::start_of(*pid).is_some_and(|s| s / TICK == start / TICK);
            let tree =
                self.procs.get(pid, 0).ok().filter(|p| p.start_ns / TICK == start / TICK).map(|p| p.tree);
            alive && tree.is_none_or(|tree| !self.is_held(tree) && !self.policy.is_settled(tree))
        };
        let over = |o: &Older| !o.held.iter().any(waits);
        let over: Vec<PathBuf> = pins.older.iter().filter(|o| over(o)).map(|o| o.at.clone()).collect();
        let Some(pins) = &mut self.pins else { return };
        for at in over {
            pins.older.retain(|o| o.at != at);
            if let Err(e) = dir::remove_layout(&at) {
                tracing::error!("{e:#}");
            }
        }
    }
}

/// What is pinned in a directory: each layout, with the numbers of its links and maps.
pub(crate) fn listed(path: &Path) -> Vec<(String, usize, usize)> {
    let count = |layout: &str| {
        let at = path.join(layout);
        let terms = dir::names(&at.join(LINKS));
        let links = terms.iter().map(|term| dir::names(&at.join(LINKS).join(term)).len()).sum();
        (layout.to_owned(), links, dir::names(&at.join(MAPS)).len())
    };
    dir::layouts(path).iter().map(|layout| count(layout)).collect()
}

/// Lets a tree that was cut off into the network again, without an agent. False: nothing is pinned.
pub(crate) fn uncut(path: &Path, tree: u64) -> Result<bool> {
    let mut any = false;
    for (layout, ..) in listed(path) {
        let at = path.join(layout).join(MAPS).join("TREE_POLICY");
        if !fs::exists(&at)? {
            continue;
        }
        any = true;
        let context = || format!("cannot use {}", at.display());
        let mut policies: HashMap<_, u64, TreePolicy> = table(&at).with_context(context)?;
        let cut: Vec<(u64, TreePolicy)> = policies
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, held)| held.root == tree && held.flags & tree_flag::CUT != 0)
            .collect();
        for (id, mut held) in cut {
            held.flags &= !tree_flag::CUT;
            policies.insert(id, held, 0).with_context(context)?;
        }
    }
    Ok(any)
}
