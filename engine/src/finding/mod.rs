//! Findings: one for each call and cause, with evidence, in words that are true to their basis.
//!
//! # Layout
//! - [`kind`]: what can be found, how bad it is, and what the field calls it

pub mod kind;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::output::{Context, Effect, Process, Scope, ServerRef, Time};
pub use kind::{Kind, Severity, Taxonomy};

/// A deviation or a rule hit. A later line with the same `id` and a higher `revision` replaces an
/// earlier one: counts and severity only ever grow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Stable: the same call and cause give the same id.
    pub id: String,
    /// Counts the versions of this finding from 1.
    pub revision: u32,
    /// When the first act of it happened.
    pub time: Time,
    /// Which server.
    pub server: Arc<ServerRef>,
    /// Who and where.
    #[serde(flatten)]
    pub context: Arc<Context>,
    /// The baseline that it was compared with (`uid/name@digest`).
    pub identity: String,
    /// Whom it is charged to.
    pub scope: Arc<Scope>,
    /// What was found.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// What says so.
    pub origin: Origin,
    /// What it is about: a path, a destination, a program, a metric.
    pub object: String,
    /// In plain English.
    pub sentence: String,
    /// Acts that it stands for.
    pub count: u64,
    /// What it rests on.
    pub evidence: Evidence,
    /// What the field calls it.
    pub taxonomy: Taxonomy,
    /// The rule that would permit it, YAML.
    pub permit: String,
}

/// What says that something is a finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Origin {
    /// A person's rule.
    Rule {
        /// Its id.
        rule: String,
        /// File and line, as far as known.
        place: String,
    },
    /// The learned baseline: it was never done before, and that is known to be rare.
    Baseline {
        /// Sessions that taught it.
        sessions: u64,
        /// Calls that taught it.
        calls: u64,
        /// Upper 95 % bound on the chance that a session has any such finding by chance.
        bound: f64,
    },
    /// What no tool should do unseen, whatever was learned.
    Detector,
}

/// What a finding rests on. Lists are bounded; `more` says what was left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// Acts, first ones first.
    pub effects: Vec<Seen>,
    /// Acts that found no room above.
    pub more: u64,
    /// The process that acted and its ancestors within the server, nearest first.
    pub processes: Vec<Arc<Process>>,
    /// Calls before it, latest first.
    pub calls_before: Vec<String>,
    /// What was normal: "412 calls since 2026-05-03, destinations {github.com:443/tcp}".
    pub baseline: Option<String>,
}

/// One act in evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// When.
    pub time: Time,
    /// Process that did it.
    pub process: Arc<Process>,
    /// What.
    pub effect: Arc<Effect>,
    /// Occurrences.
    pub count: u64,
}
