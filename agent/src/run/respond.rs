//! Orders of the engine about servers.

use anyhow::Result;
use engine::{
    input::Fact,
    respond::{Order, Outcome, ProcessKey},
};

use super::{Agent, now_ns};
use crate::{
    contain::{Ground, Rate},
    kernel::Kernel,
};

impl Ground for Kernel {
    fn members(&self, tree: u64) -> Vec<ProcessKey> {
        let key = |(tgid, start_ns)| ProcessKey { tgid, start_ns };
        Kernel::members(self, tree).into_iter().map(key).collect()
    }

    fn cut(&mut self, tree: u64, on: bool) -> Result<(), String> {
        Kernel::cut(self, tree, on).map_err(|e| format!("{e:#}"))
    }

    fn rate(&mut self, tree: u64, limit: Option<Rate>) -> Result<(), String> {
        let limit = limit.map(|rate| (rate.bytes_per_s, rate.burst));
        Kernel::rate(self, tree, limit, now_ns()).map_err(|e| format!("{e:#}"))
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
        let disarmed = self.contain.tick();
        if let Err(e) = self.kernel.guard_watchdog(self.contain.watchdog(), || self.contain.homes()) {
            tracing::warn!("servers may touch the watchdog or the cgroups that hold them: {e:#}");
        }
        match disarmed {
            Some(disarmed) => self.fact(&Fact::Disarmed { disarmed }),
            None => Ok(()),
        }
    }
}
