//! What trees were held to by an agent before this one: it stays in force until it is known who they are.

use std::collections::BTreeSet;

use abi::policy::{TreePolicy, tree_flag};

use super::{Kernel, Maps};

/// What of adopted maps this agent did not make itself.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// Trees that are held to policies of before.
    pub(super) trees: BTreeSet<u64>,
    /// Of those, who could write their own request channel: which calls were proved is not known any more.
    pub(super) forged: BTreeSet<u64>,
    /// Numbers of policies that may still be in use.
    pub(super) numbers: BTreeSet<u32>,
    /// Trees of which it is known who they are.
    settled: BTreeSet<u64>,
}

impl Inherited {
    /// The tree is gone.
    pub(super) fn forget(&mut self, tree: u64) {
        self.trees.remove(&tree);
        self.forged.remove(&tree);
        self.settled.remove(&tree);
    }
}

impl Maps {
    /// Policies that are in the maps already keep their numbers.
    pub(super) fn take_over(&mut self) {
        let number = |policy: u64| u32::try_from(policy).unwrap_or(u32::MAX);
        let known = self.tools.keys().filter_map(Result::ok).map(|k| number(k.policy));
        let known = known.chain(self.names.keys().filter_map(Result::ok).map(|k| number(k.policy)));
        let known = known.chain(self.paths.keys().filter_map(Result::ok).map(|k| number(k.policy)));
        let nets = [&self.connect, &self.listen];
        let nets =
            nets.into_iter().flat_map(|m| m.keys().filter_map(Result::ok).map(|k| number(k.data().policy)));
        let trees = self.trees.iter().filter_map(Result::ok).map(|(_, held)| held.policy);
        self.inherited.numbers = known.chain(nets).chain(trees).filter(|n| *n != 0).collect();
        self.next = self.inherited.numbers.last().map_or(1, |last| last.saturating_add(1));
    }

    /// Whether something here is to outlive the agent.
    pub(in crate::kernel) fn rests(&self) -> bool {
        // What is only told needs an agent that tells it.
        let denies = tree_flag::ENFORCE | tree_flag::CUT | tree_flag::RATE;
        !self.loaded.is_empty()
            || self.trees.iter().filter_map(Result::ok).any(|(_, h)| h.flags & denies != 0)
    }

    /// Whether a tree is held to anything.
    pub(in crate::kernel) fn holds(&self) -> bool {
        self.trees.keys().next().is_some()
    }

    /// Whether it is known who a tree is.
    pub(in crate::kernel) fn is_settled(&self, tree: u64) -> bool {
        self.inherited.settled.contains(&tree)
    }
}

impl Kernel {
    /// A tree of adopted maps.
    pub(in crate::kernel) fn policy_inherited(&mut self, tree: u64) {
        let maps = &mut self.policy;
        maps.old.insert(tree);
        let held = maps.trees.get(&tree, 0).unwrap_or_else(|_none| TreePolicy::default());
        if held.root == tree && held.policy != 0 {
            maps.inherited.trees.insert(tree);
        }
        if let Ok(jit) = maps.jit.get(&tree, 0) {
            if held.policy == 0 {
                // Released, and the agent of then did not come to forget its calls.
                maps.retired.trees.insert(tree);
            }
            // Calls of before are in the maps, and the engine does not know them.
            maps.seen.insert(tree, super::calls::seen(&jit));
            if jit.forged != 0 {
                maps.inherited.forged.insert(tree);
            }
        }
    }

    /// It is known now who a tree is, and what it is to be held to has been done: what an agent before this one held it to is over.
    pub(crate) fn settle(&mut self, tree: u64) {
        self.policy.inherited.settled.insert(tree);
        if self.policy.inherited.trees.remove(&tree)
            && !self.policy.bound.contains_key(&tree)
            && let Err(e) = self.release(tree)
        {
            tracing::error!(tree, "it is still held as an agent before this one held it: {e:#}");
        }
    }

    /// Trees that are still held as an agent before this one held them.
    pub(crate) fn is_inherited(&self, tree: u64) -> bool {
        self.policy.inherited.trees.contains(&tree)
    }
}
