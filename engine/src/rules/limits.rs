//! What one call may use at most.

use serde::Serialize;

use super::{Rule, units::Unit};
use crate::output::CallLine;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the call's fields")]
pub enum Metric {
    Connects,
    BytesOut,
    BytesIn,
    Children,
    Files,
    Execs,
    Duration,
    Cpu,
    Memory,
    ReplyBytes,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Connects,
        Self::BytesOut,
        Self::BytesIn,
        Self::Children,
        Self::Files,
        Self::Execs,
        Self::Duration,
        Self::Cpu,
        Self::Memory,
        Self::ReplyBytes,
    ];

    /// As in a rule file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connects => "connects",
            Self::BytesOut => "bytes_out",
            Self::BytesIn => "bytes_in",
            Self::Children => "children",
            Self::Files => "files",
            Self::Execs => "execs",
            Self::Duration => "duration",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::ReplyBytes => "reply_bytes",
        }
    }

    pub(super) fn unit(self) -> Unit {
        match self {
            Self::Connects | Self::Children | Self::Files | Self::Execs => Unit::Count,
            Self::BytesOut | Self::BytesIn | Self::Memory | Self::ReplyBytes => Unit::Bytes,
            Self::Duration | Self::Cpu => Unit::Time,
        }
    }

    /// What a call used.
    #[must_use]
    pub fn of(self, call: &CallLine) -> u64 {
        match self {
            Self::Connects => call.connects,
            Self::BytesOut => call.bytes_out,
            Self::BytesIn => call.bytes_in,
            Self::Children => call.children,
            Self::Files => call.files,
            Self::Execs => call.execs,
            Self::Duration => call.duration_ns,
            Self::Cpu => call.cpu_ns,
            Self::Memory => call.peak_rss,
            Self::ReplyBytes => call.reply_bytes,
        }
    }

    /// A number with its unit, as in a rule file.
    #[must_use]
    pub fn show(self, value: u64) -> String {
        self.unit().show(value)
    }
}

/// A limit that a call went beyond.
#[derive(Clone, Copy, Debug)]
pub struct Exceeded<'a> {
    /// Whose limit.
    pub rule: &'a Rule,
    /// Of what.
    pub metric: Metric,
    /// The limit.
    pub limit: u64,
    /// What the call used.
    pub value: u64,
}
