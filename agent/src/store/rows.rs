//! What is kept, as its readers and writers see it. Times are UTC nanoseconds.

use engine::finding::{Finding, Severity};

/// The latest change of a finding, counted within one boot of the host from 1 without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Number {
    /// Counts boots of the host that this database saw.
    pub(crate) boot: i64,
    /// Counts changes within it.
    pub(crate) number: i64,
}

/// A stored finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FindingRow {
    /// Order of arrival; never used twice.
    pub(crate) seq: i64,
    pub(crate) id: String,
    pub(crate) revision: u32,
    pub(crate) number: Number,
    /// When it happened, by the clock of that moment.
    pub(crate) utc_ns: i64,
    /// When this revision was stored.
    pub(crate) changed_ns: i64,
    pub(crate) severity: Severity,
    pub(crate) kind: String,
    pub(crate) server: String,
    pub(crate) identity: String,
    pub(crate) tool: Option<String>,
    pub(crate) object: String,
    pub(crate) count: u64,
    pub(crate) ack: Option<Ack>,
    /// The whole of it.
    pub(crate) json: String,
}

impl FindingRow {
    /// The whole of it. Fails only for findings that another version wrote.
    pub(crate) fn parse(&self) -> serde_json::Result<Finding> {
        serde_json::from_str(&self.json)
    }
}

/// A person saw a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) by: String,
    pub(crate) at: i64,
    pub(crate) note: String,
    /// It is what the server should do.
    pub(crate) expected: bool,
}

/// What is known about one identity as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdentityRow {
    pub(crate) identity: String,
    /// JSON.
    pub(crate) meta: String,
    pub(crate) updated: i64,
}

/// What is normal for one identity in one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaselineRow {
    pub(crate) scope: String,
    /// JSON.
    pub(crate) blob: String,
    pub(crate) updated: i64,
}

/// A server of the inventory; also what a sighting of it says, when `sessions` and `calls` are
/// those since the last sighting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerRow {
    pub(crate) identity: String,
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) package: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) entry: Option<String>,
    pub(crate) digest: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) first_seen: i64,
    pub(crate) last_seen: i64,
    pub(crate) sessions: u64,
    pub(crate) calls: u64,
}

/// A tool of a server; also what a sighting of it says, when `calls` are those since the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ToolRow {
    pub(crate) identity: String,
    pub(crate) tool: String,
    pub(crate) calls: u64,
    pub(crate) first_seen: i64,
    pub(crate) last_seen: i64,
}

/// What the agent does about the servers that match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModeRow {
    /// Glob.
    pub(crate) server: String,
    /// All tools if empty.
    pub(crate) tool: String,
    pub(crate) mode: String,
    pub(crate) by: String,
    pub(crate) at: i64,
}

/// A rule that `findings permit` wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExceptionRow {
    /// Given by the database; ignored in writing.
    pub(crate) id: i64,
    /// The finding that it permits.
    pub(crate) finding: Option<String>,
    pub(crate) yaml: String,
    pub(crate) by: String,
    pub(crate) at: i64,
}

/// Who asked for what, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRow {
    pub(crate) utc_ns: i64,
    pub(crate) uid: u32,
    pub(crate) pid: u32,
    pub(crate) exe: String,
    pub(crate) verb: String,
    pub(crate) target: String,
    /// JSON.
    pub(crate) arguments: String,
    pub(crate) outcome: String,
}

/// What a purge took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Purged {
    /// Findings.
    pub(crate) findings: u64,
    /// Those of them that nobody had acknowledged.
    pub(crate) unseen: u64,
    /// Lines of the audit trail.
    pub(crate) audit: u64,
}

const SEVERITIES: [Severity; 5] =
    [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

/// As stored: a number, so that the database can compare.
pub(super) fn rank(severity: Severity) -> i64 {
    SEVERITIES.iter().position(|s| *s == severity).map_or(0, signed)
}

pub(super) fn severity(rank: i64) -> Severity {
    let rank = usize::try_from(rank).unwrap_or(0).min(SEVERITIES.len() - 1);
    SEVERITIES[rank]
}

/// SQLite's numbers are signed; what does not fit is as good as infinite.
pub(super) fn signed<T: TryInto<i64>>(n: T) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

/// The way back.
pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
