//! Responses: what is done about a finding, decided here and carried out by the agent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// An order to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Id of the response record.
    pub id: String,
    /// What.
    pub action: Action,
    /// The server's tree.
    pub tree: u64,
    /// For [`Action::KillChild`].
    pub process: Option<ProcessKey>,
    /// Ends by itself after this, ns; 0: does not.
    pub for_ns: u64,
    /// Only tell what would have been done.
    pub dry_run: bool,
}
