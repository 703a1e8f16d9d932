//! What the writer can be asked to do.

use engine::{finding::Finding, respond::ResponseLine};

use super::outbox::{Told, Wants};
use super::rows::{Ack, AuditRow, ExceptionRow, ModeRow, Number, Purged, ServerRow, ToolRow};

/// One change. It is in the database wholly or not at all.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Job {
    /// A new finding, or a later revision of one.
    Finding(Box<Finding>),
    /// Something was done about a server.
    Response(Box<ResponseLine>),
    /// Somebody saw a finding.
    Ack { id: String, ack: Ack },
    /// What is normal for an identity: the given scopes are replaced, others stay.
    Baselines { identity: String, meta: String, scopes: Vec<(String, String)>, at: i64 },
    /// Forget one scope, or all of an identity.
    #[cfg_attr(not(test), expect(dead_code, reason = "no verb asks for it yet"))]
    Forget { identity: String, scope: Option<String> },
    /// A server was seen.
    Server(Box<ServerRow>),
    /// A tool was seen.
    Tool(ToolRow),
    /// A mode was set.
    Mode(ModeRow),
    /// A mode was taken back.
    #[cfg_attr(not(test), expect(dead_code, reason = "no verb asks for it yet"))]
    ClearMode { server: String, tool: String },
    /// A rule was written.
    Permit(ExceptionRow),
    /// A rule was taken back.
    Revoke { id: i64 },
    /// A control verb came.
    Audit(AuditRow),
    /// The agent has something to tell.
    Tell(Told),
    /// These are the sinks; of all others nothing is kept.
    Sinks(Vec<Wants>),
    /// A sink has everything up to here.
    Cursor { sink: String, seq: i64 },
    /// A sink will never take this.
    Dead { sink: String, seq: i64, because: String },
    /// A value of `meta`.
    Note { key: String, value: String },
    /// Drop findings that did not change since. Bounded slices run between other jobs; it is done
    /// when all are.
    Purge { before: i64 },
    /// All of these or none.
    All(Vec<Job>),
    /// Whatever a test needs to happen inside the writer.
    #[cfg(test)]
    Sql(String),
}

impl Job {
    /// Bytes that it holds in the queue, roughly.
    pub(super) fn bytes(&self) -> usize {
        /// An allocation, an enum, a row of columns.
        const BASE: usize = 256;
        BASE + match self {
            Self::Finding(finding) => {
                let Finding { evidence, permit, sentence, object, .. } = &**finding;
                // Effects and processes are shared with the engine; 256 is eyeballed.
                (evidence.effects.len() + evidence.processes.len() + evidence.calls_before.len()) * 256
                    + permit.len()
                    + sentence.len()
                    + object.len()
            }
            Self::Baselines { meta, scopes, .. } => {
                meta.len() + scopes.iter().map(|(scope, blob)| scope.len() + blob.len()).sum::<usize>()
            }
            Self::Response(line) => line.result.len() + line.spared.len() * BASE,
            Self::Permit(row) => row.yaml.len(),
            Self::Audit(row) => row.arguments.len() + row.target.len() + row.exe.len(),
            Self::Tell(told) => told.json.len(),
            Self::Note { value, .. } => value.len(),
            Self::All(jobs) => jobs.iter().map(Self::bytes).sum(),
            _ => 0,
        }
    }
}

/// What became of a job that is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    /// Written.
    Written,
    /// A finding was written as this change.
    Stored(Number),
    /// A row got this number.
    Row(i64),
    /// The database already knew this or better: an older or repeated revision.
    Unchanged,
    /// There is no such finding, mode, rule or baseline.
    Absent,
    /// A purge took this.
    Purged(Purged),
    /// Of [`Job::All`], in order.
    All(Vec<Done>),
}

/// Why a job is not in the database and never will be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failed(pub(crate) String);

/// Called on the writer thread once the outcome is durable: it must be quick and must not panic.
pub(crate) type OnDone = Box<dyn FnOnce(Result<Done, Failed>) + Send>;

/// The queue did not take the job; count it and say so.
#[derive(Debug, thiserror::Error)]
#[error("the store did not take it: {because}")]
pub(crate) struct Refused {
    /// As it was, to try again.
    pub(crate) job: Box<Job>,
    /// Why.
    pub(crate) because: Because,
}

/// Why the queue does not take a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Because {
    /// Too many wait, in number or bytes.
    #[error("its queue is full")]
    Full,
    /// The writer ended.
    #[error("it is closed")]
    Closed,
}
