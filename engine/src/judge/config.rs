//! What an operator sets.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{baseline::Limits, policy::Family, respond::Settings};

/// Detection by baselines and rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// False findings that baselines may make, a host and day.
    pub budget_per_day: f64,
    /// Sessions of a server that a day is expected to have; learned when absent.
    pub sessions_per_day: Option<f64>,
    /// Members of one set of a baseline.
    pub max_members: usize,
    /// Members of all sets of a server's baseline.
    pub max_members_per_server: u64,
    /// Tools of a server that baselines are kept for.
    pub max_tools: usize,
    /// What may make findings: for evaluation.
    pub baselines: bool,
    /// See `baselines`: rules and detectors.
    pub rules: bool,
    /// What must be denied in the kernel for a server to be in `enforce`; what else can be, is as well.
    pub enforce: BTreeSet<Family>,
    /// What becomes of `enforce` where that cannot be had.
    pub on_degraded: OnDegraded,
    /// Servers in `enforce` are only told about what would have been denied.
    pub dry_run: bool,
    /// What is done about findings.
    pub responses: Settings,
}

/// What becomes of enforcement that cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDegraded {
    /// It is an error.
    #[default]
    Refuse,
    /// What can be had is taken, the rest is observed.
    Observe,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            budget_per_day: 1.0,
            sessions_per_day: None,
            max_members: 4096,
            max_members_per_server: 100_000,
            max_tools: 512,
            baselines: true,
            rules: true,
            enforce: [Family::Network, Family::Listen].into(),
            on_degraded: OnDegraded::default(),
            dry_run: false,
            responses: Settings::default(),
        }
    }
}

impl Config {
    pub(crate) fn limits(&self) -> Limits {
        Limits { set: self.max_members, server: self.max_members_per_server, tools: self.max_tools }
    }
}

/// What is done about what a server does.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Learn; rules and detectors tell, baselines do not.
    Learn,
    /// Baselines tell too.
    #[default]
    Watch,
    /// A ratified baseline becomes kernel policy.
    Enforce,
}

/// Mode of servers and tools, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModeRule {
    /// Server name; `*` for all.
    pub server: String,
    /// Tool; all when absent.
    pub tool: Option<String>,
    /// The mode.
    pub mode: Mode,
    /// In `enforce`: an identity without a ratified baseline may do only what rules permit, instead of what its
    /// predecessor may.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}
