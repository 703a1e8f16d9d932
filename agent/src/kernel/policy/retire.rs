//! What is taken out goes in two steps: first nobody is held to it any more; then, when every program that runs now is over, it goes.
//! A program that knows who was held, and finds no right any more, would deny what is permitted.

use std::{collections::BTreeSet, mem};

use abi::{
    paths::PathKey,
    policy::{NameKey, ToolKey},
};

use super::{Kernel, Maps, rights::Entries};
use crate::kernel::Counts;

/// What nobody is held to any more.
#[derive(Default)]
pub(super) struct Retired {
    /// Policies.
    pub(super) policies: Vec<(u32, Entries)>,
    /// Policies of an agent before this one: what their entries are is not known.
    numbers: BTreeSet<u32>,
    /// Trees whose calls are to be forgotten.
    pub(super) trees: BTreeSet<u64>,
}

impl Retired {
    fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.numbers.is_empty() && self.trees.is_empty()
    }
}

impl Maps {
    /// A tree is held again, or gone. Whether its calls were still to be forgotten.
    pub(super) fn take_back(&mut self, tree: u64) -> bool {
        self.leaving.trees.remove(&tree) | self.retired.trees.remove(&tree)
    }

    /// Policies of before that hold nobody any more.
    fn unused(&self) -> BTreeSet<u32> {
        if self.inherited.numbers.is_empty() {
            return BTreeSet::new();
        }
        let used: BTreeSet<u32> = self.trees.iter().filter_map(Result::ok).map(|(_, h)| h.policy).collect();
        self.inherited.numbers.difference(&used).copied().collect()
    }

    /// Takes their entries out.
    fn remove_all(&mut self, numbers: &BTreeSet<u32>) {
        if numbers.is_empty() {
            return;
        }
        let gone: BTreeSet<u64> = numbers.iter().map(|n| u64::from(*n)).collect();
        let tools: Vec<ToolKey> =
            self.tools.keys().filter_map(Result::ok).filter(|k| gone.contains(&k.policy)).collect();
        tools.iter().for_each(|key| drop(self.tools.remove(key)));
        let names: Vec<NameKey> =
            self.names.keys().filter_map(Result::ok).filter(|k| gone.contains(&k.policy)).collect();
        names.iter().for_each(|key| drop(self.names.remove(key)));
        let paths: Vec<PathKey> =
            self.paths.keys().filter_map(Result::ok).filter(|k| gone.contains(&k.policy)).collect();
        paths.iter().for_each(|key| drop(self.paths.remove(key)));
        for map in [&mut self.connect, &mut self.listen] {
            let keys: Vec<_> =
                map.keys().filter_map(Result::ok).filter(|k| gone.contains(&k.data().policy)).collect();
            keys.iter().for_each(|key| drop(map.remove(key)));
        }
        self.inherited.numbers.retain(|n| !numbers.contains(n));
    }
}

impl Kernel {
    /// Whether something is to go, when all programs that run now are over. The one before has ended.
    pub(crate) fn begin_retiring(&mut self) -> bool {
        let maps = &mut self.policy;
        maps.retired.numbers = maps.unused();
        maps.leaving = mem::take(&mut maps.retired);
        !maps.leaving.is_empty()
    }

    /// They are over: it goes.
    pub(crate) fn end_retiring(&mut self) {
        let leaving = mem::take(&mut self.policy.leaving);
        for (number, entries) in &leaving.policies {
            self.policy.remove(*number, entries);
        }
        self.policy.remove_all(&leaving.numbers);
        for tree in leaving.trees {
            self.forget_calls(tree);
        }
    }

    /// There is no room left: what is to go goes now. Blocks as [`Counts::settle`] does.
    pub(crate) fn retire_now(&mut self) {
        Counts::settle();
        self.end_retiring();
        if self.begin_retiring() {
            self.end_retiring();
        }
    }
}
