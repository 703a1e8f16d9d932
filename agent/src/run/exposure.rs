//! For how long rights are open: what the kernel keeps of it is looked at as often as the ring.

use zerocopy::FromBytes as _;

use super::{Agent, now_ns};

impl Agent {
    /// Counts the time since the last look.
    pub(super) fn count_rights(&mut self) {
        let (meter, kernel) = (self.desk.meter(), &self.kernel);
        meter.keep(|tree| kernel.is_bound(tree));
        let now = now_ns();
        for (tree, identity, jit) in kernel.live_rights() {
            meter.look(tree, identity, &jit, now);
        }
    }

    /// Children keep the rights of the calls that they were born in, for as long as they live.
    pub(super) fn count_child(&mut self, record: &[u8]) {
        match engine::record::kind_of(record) {
            Some(abi::kind::FORK) => {
                if let Ok((fork, _)) = abi::Fork::read_from_prefix(record) {
                    self.child_of_a_call(fork.child);
                }
            }
            Some(abi::kind::EXIT) => {
                if let Ok((exit, _)) = abi::Exit::read_from_prefix(record) {
                    self.desk.meter().ended(exit.header.tgid);
                }
            }
            _ => {}
        }
    }

    fn child_of_a_call(&mut self, child: u32) {
        if let Some((root, bits)) = self.kernel.born_with(child) {
            self.desk.meter().born(root, child, bits);
        }
    }

    /// Records of births and ends may be lost, and an agent before this one may have seen them.
    pub(super) fn recount_children(&mut self) {
        let meter = self.desk.meter();
        let gone: Vec<u32> = meter.children().filter(|pid| self.kernel.born_with(*pid).is_none()).collect();
        gone.into_iter().for_each(|pid| meter.ended(pid));
        for child in self.kernel.all_born_with() {
            self.child_of_a_call(child);
        }
    }
}
