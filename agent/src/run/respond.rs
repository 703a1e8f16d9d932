//! Orders of the engine about servers.

use anyhow::Result;
use engine::{
    input::Fact,
    respond::{Order, Outcome, ProcessKey},
};

use super::Agent;
use crate::{
    contain::{Ground, Rate},
    kernel::Kernel,
};

/// Why the network cannot be limited.
const NO_NETWORK: &str = "not available in this build: the kernel's network policy is not part of it";

impl Ground for Kernel {
    fn members(&self, tree: u64) -> Vec<ProcessKey> {
        let key = |(tgid, start_ns)| ProcessKey { tgid, start_ns };
        Kernel::members(self, tree).into_iter().map(key).collect()
    }

    fn cut(&mut self, _tree: u64, _on: bool) -> Result<(), String> {
        Err(NO_NETWORK.into())
    }

    fn rate(&mut self, _tree: u64, _limit: Option<Rate>) -> Result<(), String> {
        Err(NO_NETWORK.into())
    }
}

impl Agent {
    /// Carries an order out, at once: nothing is stored before.
    pub(super) fn respond(&mut self, order: &Order) -> Fact {
        let clients = self.engine.clients_beside(order.tree).collect();
        let outcome: Outcome = self.contain.perform(order, &mut self.kernel, clients);
        Fact::Responded(outcome)
    }

    /// Tells the engine when a person has disarmed responses.
    pub(super) fn look_at_arms(&mut self) -> Result<()> {
        match self.contain.tick() {
            Some(disarmed) => self.fact(&Fact::Disarmed { disarmed }),
            None => Ok(()),
        }
    }
}
