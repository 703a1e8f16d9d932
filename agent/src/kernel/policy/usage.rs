//! What the kernel keeps of live rights, for those who count how long they were.

use abi::policy::Jit;

use super::super::Kernel;

impl Kernel {
    /// Trees that are held, to whose policy, and which of their scopes are live.
    pub(crate) fn live_rights(&self) -> impl Iterator<Item = (u64, &str, Jit)> {
        self.policy.bound.iter().filter_map(|(tree, identity)| {
            let jit = self.policy.jit.get(tree, 0).ok()?;
            Some((*tree, identity.as_str(), jit))
        })
    }

    /// Whether a tree is held to a policy of this agent.
    pub(crate) fn is_bound(&self, tree: u64) -> bool {
        self.policy.bound.contains_key(&tree)
    }

    /// The tools that a process was born with, and the tree whose calls they were. `None`: it has ended, or has none.
    pub(crate) fn born_with(&self, tgid: u32) -> Option<(u64, u64)> {
        let proc = self.procs.get(&tgid, 0).ok().filter(|proc| proc.born != 0)?;
        let held = self.policy.trees.get(&proc.tree, 0).ok()?;
        Some((held.root, proc.born))
    }

    /// Processes that were born with tools.
    pub(crate) fn all_born_with(&self) -> Vec<u32> {
        let all = self.procs.iter().filter_map(std::result::Result::ok);
        all.filter(|(_, proc)| proc.born != 0).map(|(tgid, _)| tgid).collect()
    }
}
