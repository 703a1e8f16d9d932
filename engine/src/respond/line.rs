//! The record of a response: why, what, and what came of it.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Action;
use crate::{
    finding::Kind,
    output::{Context, ServerRef, Time},
};

/// A response, after it was carried out, refused, or only told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResponseLine {
    /// When it was ordered.
    pub time: Time,
    /// Of which server.
    pub server: Arc<ServerRef>,
    /// Who and where.
    #[serde(flatten)]
    pub context: Arc<Context>,
    /// Key of its baseline (`uid/name@digest`), empty when it is not known.
    pub identity: String,
    /// Unique.
    pub id: String,
    /// Why.
    pub cause: Cause,
    /// What was ordered.
    pub action: Action,
    /// For a release: only this was lifted.
    pub only: Option<Action>,
    /// What was called for, where the circuit breaker made something else of it.
    pub instead_of: Option<Action>,
    /// Nothing was done: it says what would have been.
    pub dry_run: bool,
    /// Ends by itself at this time.
    pub until: Option<Time>,
    /// What became of it.
    pub verdict: Verdict,
    /// In words.
    pub result: String,
    /// How it was before.
    pub before: String,
    /// How it is now.
    pub after: String,
    /// Processes that it reached.
    pub processes: u64,
    /// Processes that were not touched, and why.
    pub spared: Vec<Spared>,
    /// From the order to the last system call's return, ns.
    pub took_ns: u64,
    /// How it is undone.
    pub undo: Option<String>,
}

/// Why a response was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Cause {
    /// A finding.
    Finding {
        /// Its id.
        finding: String,
        /// What was found.
        kind: Kind,
        /// The rule that asks for it; else it is the default of the finding's severity.
        rule: Option<String>,
    },
    /// A person.
    Person {
        /// Who.
        who: String,
    },
    /// The identity's server was killed, and it started again.
    Quarantine {
        /// The response that killed it.
        response: String,
        /// Starts since then.
        starts: u32,
        /// What it did before it was known who it is.
        before: String,
    },
    /// Its time was up.
    TimeUp,
    /// The server has ended.
    Ended,
    /// Responses were disarmed.
    Disarmed,
    /// The agent stops.
    Stopped,
}

/// What became of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is done.
    Done,
    /// Part of it is done.
    Partly,
    /// It would have been.
    Would,
    /// It may not be done.
    Refused,
    /// It could not be done.
    #[default]
    Failed,
    /// There was nothing to do.
    Nothing,
}

/// A process that was not touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Spared {
    /// Its pid.
    pub pid: u32,
    /// Why.
    pub because: String,
}

/// What the agent says of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Of which order.
    pub id: String,
    /// What became of it.
    pub verdict: Verdict,
    /// In words.
    pub result: String,
    /// How it was before.
    pub before: String,
    /// How it is now.
    pub after: String,
    /// Processes that it reached.
    pub processes: u64,
    /// Processes that were not touched.
    pub spared: Vec<Spared>,
    /// From the order to the last system call's return, ns.
    pub took_ns: u64,
}
