//! Trees that an agent before this one tracked: the maps know them, and what of them still lives goes on as it was held.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use abi::Proc;

use super::Kernel;
use crate::running::{self, Adopted, Seen};

/// Ns of a clock tick: `/proc` tells no more.
const TICK: u64 = 10_000_000;
/// Within this time, a program that has made a tree has put the tree's first process into the map, too.
const BIRTH: Duration = Duration::from_millis(10);

impl Kernel {
    /// What is alive of the trees in adopted maps, parents first; what is not is taken out of them.
    pub(crate) fn inherited(&mut self) -> Vec<Adopted> {
        if !self.pins.as_ref().is_some_and(|p| p.adopted) {
            return Vec::new();
        }
        // In this order: what is born meanwhile is in a later one, if it is in an earlier one.
        let channels: Vec<u64> = self.channels.keys().filter_map(Result::ok).collect();
        let trees: HashMap<u64, abi::Tree> = self.trees.iter().filter_map(Result::ok).collect();
        std::thread::sleep(BIRTH);
        let procs = self.procs.iter().filter_map(Result::ok);
        let procs: Vec<(u32, Proc)> = procs.filter(|(_, p)| p.flags & abi::proc_flag::CLIENT == 0).collect();
        let seen: HashMap<u32, Seen> = running::scan().into_iter().map(|s| (s.pid, s)).collect();
        let lives = |pid: &u32, p: &Proc| {
            let same = seen.get(pid).filter(|s| s.start_ns / TICK == p.start_ns / TICK).copied();
            // Its first thread has ended, others go on: it stays where it is.
            same.or_else(|| running::has_threads(*pid).then(|| Seen { pid: *pid, ..Seen::default() }))
        };
        let mut alive: Vec<(Seen, Proc)> = Vec::new();
        for (pid, p) in &procs {
            match lives(pid, p) {
                Some(s) => alive.push((s, *p)),
                None if self.procs.get(pid, 0).is_ok_and(|now| now == *p) => {
                    let _gone = self.procs.remove(pid);
                }
                None => {}
            }
        }
        alive.sort_by_key(|(s, p)| (p.start_ns, s.pid));
        let mut kept: HashSet<u64> = HashSet::new();
        for (_, p) in &alive {
            let mut at = p.tree;
            while at != 0 && kept.insert(at) {
                at = trees.get(&at).map_or(0, |t| t.parent);
            }
        }
        let gone: Vec<u64> = trees.keys().filter(|t| !kept.contains(*t)).copied().collect();
        for tree in gone {
            self.forget(tree);
        }
        let used: HashSet<u64> =
            self.trees.iter().filter_map(Result::ok).flat_map(|(_, t)| [t.request, t.reply]).collect();
        for channel in channels.into_iter().filter(|c| !used.contains(c)) {
            self.forget_channel(channel);
        }
        let mut begun = HashSet::new();
        let adopt = |(s, p): (Seen, Proc)| {
            let tree = trees.get(&p.tree)?;
            let root = begun.insert(p.tree);
            let (stdin, stdout) = if root { (tree.request, tree.reply) } else { (p.stdin, p.stdout) };
            let parent_tree = Some(tree.parent).filter(|t| root && *t != 0);
            let seen = Seen { stdin, stdout, start_ns: p.start_ns, ..s };
            Some(Adopted { seen, tree: p.tree, root, parent_tree })
        };
        let adopted: Vec<Adopted> = alive.into_iter().filter_map(adopt).collect();
        for a in adopted.iter().filter(|a| a.root) {
            self.policy_inherited(a.tree);
        }
        adopted
    }

    /// Whether a tree began while no agent ran, after one that had held servers.
    pub(crate) fn is_unwatched(&self, a: &Adopted) -> bool {
        let down = self.pins.as_ref().and_then(|p| p.down_ns);
        let then = down.is_some_and(|(from, to)| (from + 1..=to).contains(&a.seen.start_ns));
        a.root && then && !self.is_held(a.tree)
    }
}
