//! What can be asked of the agent. One enum for all, so that who may do what is one table.

use engine::respond::Action;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A question or an order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verb {
    /// How the agent is.
    Status,
    /// Servers that run now.
    Servers,
    /// Tools, of one server (name or id) or of all.
    Tools { server: Option<String> },
    /// The last calls.
    Calls(CallFilter),
    /// Findings, latest first.
    Findings(FindingFilter),
    /// One finding.
    Finding { id: String },
    /// All baselines in short.
    Baselines,
    /// One baseline in full.
    Baseline { identity: String },
    /// What `b` has and `a` has not, and the other way round.
    BaselineDiff { a: String, b: String },
    /// A baseline as a rule file.
    BaselineExport { identity: String },
    /// What the kernel permits a server, or would.
    Policy { identity: String },
    /// For how long its rights were open.
    Exposure { identity: String },
    /// Rules in force.
    Rules,
    /// Modes of servers and tools.
    Mode,
    /// Who changed what, latest first.
    Audit { limit: Option<u32> },
    /// Read configuration and rules anew; the answer comes when they are in force, or at once
    /// without `wait`.
    Reload { wait: bool },
    /// A person has seen it; `expected` teaches it.
    Ack { id: String, note: Option<String>, expected: bool },
    /// Write the exception that a finding offers.
    Permit { id: String, reason: String, expires: Option<String> },
    /// A person vouches for a baseline.
    Ratify { identity: String },
    /// Forget a baseline.
    Reset { identity: String },
    /// Take in a rule file that `export` wrote.
    Import { name: String, text: String },
    /// Set the mode of a server or of one tool.
    SetMode { server: String, tool: Option<String>, mode: Mode, strict: bool },
    /// Forget findings, calls and audit rows older than this.
    Purge { before_days: u32 },
    /// What was done about servers, latest first.
    Responses { server: Option<String>, limit: Option<u32> },
    /// One response.
    Response { id: String },
    /// Do something about a server, or undo it.
    Respond { server: String, action: Action, for_ns: Option<u64>, dry_run: bool },
    /// Carry out no response any more.
    Disarm,
    /// Carry them out again.
    Arm,
}

/// Which calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallFilter {
    pub(crate) server: Option<String>,
    pub(crate) tool: Option<String>,
    pub(crate) limit: Option<u32>,
}

/// Which findings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FindingFilter {
    /// This severe or more.
    pub(crate) severity: Option<engine::finding::Severity>,
    pub(crate) server: Option<String>,
    pub(crate) kind: Option<engine::finding::Kind>,
    /// Nanoseconds since 1970.
    pub(crate) since_utc_ns: Option<i64>,
    pub(crate) limit: Option<u32>,
    /// Only those that a person has seen, or has not.
    pub(crate) acked: Option<bool>,
}

/// What is done with deviations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Learn; only rules and protected objects give findings
    Learn,
    /// Compare and tell
    Watch,
    /// The ratified baseline is kernel policy
    Enforce,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Learn => "learn",
            Self::Watch => "watch",
            Self::Enforce => "enforce",
        }
    }
}

impl Verb {
    /// As audited and logged.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Servers => "servers",
            Self::Tools { .. } => "tools",
            Self::Calls(_) => "calls",
            Self::Findings(_) => "findings",
            Self::Finding { .. } => "finding",
            Self::Baselines => "baselines",
            Self::Baseline { .. } => "baseline",
            Self::BaselineDiff { .. } => "baseline-diff",
            Self::BaselineExport { .. } => "baseline-export",
            Self::Policy { .. } => "policy",
            Self::Exposure { .. } => "exposure",
            Self::Rules => "rules",
            Self::Mode => "mode",
            Self::Audit { .. } => "audit",
            Self::Reload { .. } => "reload",
            Self::Ack { .. } => "ack",
            Self::Permit { .. } => "permit",
            Self::Ratify { .. } => "ratify",
            Self::Reset { .. } => "reset",
            Self::Import { .. } => "import",
            Self::SetMode { .. } => "set-mode",
            Self::Purge { .. } => "purge",
            Self::Responses { .. } => "responses",
            Self::Response { .. } => "response",
            Self::Respond { .. } => "respond",
            Self::Disarm => "disarm",
            Self::Arm => "arm",
        }
    }

    /// Whether it changes anything. Spelled out, so that a new verb must be judged.
    pub(crate) fn changes(&self) -> bool {
        match self {
            Self::Status
            | Self::Servers
            | Self::Tools { .. }
            | Self::Calls(_)
            | Self::Findings(_)
            | Self::Finding { .. }
            | Self::Baselines
            | Self::Baseline { .. }
            | Self::BaselineDiff { .. }
            | Self::BaselineExport { .. }
            | Self::Policy { .. }
            | Self::Exposure { .. }
            | Self::Rules
            | Self::Mode
            | Self::Responses { .. }
            | Self::Response { .. }
            | Self::Audit { .. } => false,
            Self::Reload { .. }
            | Self::Ack { .. }
            | Self::Permit { .. }
            | Self::Ratify { .. }
            | Self::Reset { .. }
            | Self::Import { .. }
            | Self::SetMode { .. }
            | Self::Respond { .. }
            | Self::Disarm
            | Self::Arm
            | Self::Purge { .. } => true,
        }
    }

    /// What it is done to.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Respond { server, .. } => server.clone(),
            Self::Responses { server, .. } => server.clone().unwrap_or_default(),
            Self::Finding { id } | Self::Response { id } | Self::Ack { id, .. } | Self::Permit { id, .. } => {
                id.clone()
            }
            Self::Baseline { identity }
            | Self::BaselineExport { identity }
            | Self::Policy { identity }
            | Self::Exposure { identity }
            | Self::Ratify { identity }
            | Self::Reset { identity } => identity.clone(),
            Self::Import { name, .. } => name.clone(),
            Self::SetMode { server, tool, .. } => match tool {
                Some(tool) => format!("{server} {tool}"),
                None => server.clone(),
            },
            Self::BaselineDiff { a, b } => format!("{a} {b}"),
            Self::Tools { server } => server.clone().unwrap_or_default(),
            Self::Status
            | Self::Servers
            | Self::Calls(_)
            | Self::Findings(_)
            | Self::Baselines
            | Self::Rules
            | Self::Mode
            | Self::Audit { .. }
            | Self::Reload { .. }
            | Self::Disarm
            | Self::Arm
            | Self::Purge { .. } => String::new(),
        }
    }

    /// The rest of it for the audit: what was imported is told by size and digest, or one order
    /// would fill the trail.
    pub(crate) fn arguments(&self) -> Value {
        match self {
            Self::Reload { wait } => json!({ "wait": wait }),
            Self::Ack { note, expected, .. } => json!({ "note": note, "expected": expected }),
            Self::Permit { reason, expires, .. } => json!({ "reason": reason, "expires": expires }),
            Self::Import { text, .. } => {
                let digest: String =
                    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
                json!({ "bytes": text.len(), "sha256": digest })
            }
            Self::SetMode { mode, strict: true, .. } => json!({ "mode": mode, "strict": true }),
            Self::SetMode { mode, .. } => json!({ "mode": mode }),
            Self::Respond { action, for_ns, dry_run, .. } => {
                json!({ "action": action, "for_ns": for_ns, "dry_run": dry_run })
            }
            Self::Purge { before_days } => json!({ "before_days": before_days }),
            _ => json!({}),
        }
    }
}
