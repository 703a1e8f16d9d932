//! Responses: what is done about a finding, decided here and carried out by the agent.
//!
//! An [`Order`] goes out; what became of it comes back as an [`Outcome`], and both together are a
//! [`ResponseLine`]. Orders that are only told (`dry_run`) take the same way, and change nothing.
//!
//! # Layout
//! - [`settings`]: what an operator sets
//! - [`planner`]: findings, people and time to orders
//! - `held`: what is in force on one tree, and how far its ladder was climbed
//! - `breaker`: caps of kills and freezes
//! - `quarantine`: identities whose server was killed
//! - `subject`: whom it is about
//! - [`line`]: the record of a response

mod breaker;
mod held;
pub mod line;
pub mod planner;
mod quarantine;
pub mod settings;
mod subject;
#[cfg(test)]
mod tests;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use line::{Cause, Outcome, ResponseLine, Spared, Verdict};
pub use planner::{Planner, Subject};
pub use settings::Settings;

/// A process, never just a pid.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct ProcessKey {
    /// Process id.
    pub tgid: u32,
    /// Its start, ns since boot.
    pub start_ns: u64,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Less CPU, memory, processes, disk and network.
    Throttle,
    /// No packet in or out.
    CutNetwork,
    /// Every process of the tree stands still, for a time.
    Freeze,
    /// End one child and its descendants.
    KillChild,
    /// End the whole tree, and quarantine the identity.
    KillServer,
    /// Undo all of it.
    Release,
}

impl Action {
    /// As written in JSON and by people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::CutNetwork => "cut-network",
            Self::Freeze => "freeze",
            Self::KillChild => "kill-child",
            Self::KillServer => "kill-server",
            Self::Release => "release",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An order to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Id of the response record.
    pub id: String,
    /// What.
    pub action: Action,
    /// The server's tree.
    pub tree: u64,
    /// Name of the server, for places that people look at.
    pub server: String,
    /// For [`Action::KillChild`].
    pub process: Option<ProcessKey>,
    /// For [`Action::Release`]: only this; `None`: all that is in force.
    pub only: Option<Action>,
    /// Ends by itself after this, ns; 0: does not.
    pub for_ns: u64,
    /// Only tell what would have been done.
    pub dry_run: bool,
}
