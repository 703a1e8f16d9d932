//! What an operator sets about responses.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{finding::Severity, rules::written::Response};

const MINUTE_NS: u64 = 60_000_000_000;

/// Responses. By default nothing is done but to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is done about findings whose rule says nothing, by severity: a ladder, climbed when it goes on.
    pub by_severity: BTreeMap<Severity, Vec<Response>>,
    /// Only tell what would be done, whatever the mode.
    pub dry_run: bool,
    /// The next finding of the same server within this time climbs one step, ns.
    pub again_ns: u64,
    /// What is found this soon after a step belongs to the same event, and climbs none, ns.
    pub pause_ns: u64,
    /// A throttle ends by itself after this, ns; 0: does not.
    pub throttle_ns: u64,
    /// A freeze, ns; 0: does not.
    pub freeze_ns: u64,
    /// A cut-off, ns; 0: does not.
    pub cut_ns: u64,
    /// Kills of one server identity an hour; beyond that its network is cut off instead.
    pub kills_per_hour: u32,
    /// Freezes of one server identity an hour; the same.
    pub freezes_per_hour: u32,
    /// An identity whose server was killed is frozen when it starts again within this time, ns; 0: it may start.
    pub quarantine_ns: u64,
    /// So many starts within a quarantine are a respawn loop.
    pub respawns: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            by_severity: BTreeMap::new(),
            dry_run: false,
            again_ns: 10 * MINUTE_NS,
            pause_ns: 2_000_000_000,
            throttle_ns: 10 * MINUTE_NS,
            freeze_ns: 10 * MINUTE_NS,
            cut_ns: 0,
            kills_per_hour: 3,
            freezes_per_hour: 6,
            quarantine_ns: 10 * MINUTE_NS,
            respawns: 3,
        }
    }
}
