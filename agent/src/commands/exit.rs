//! Exit codes: scripts and CI decide by them.

use std::{io, process::ExitCode};

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// The answer is no: not found, different.
    No = 1,
    /// Wrong usage; clap's own.
    Usage = 2,
    /// The agent cannot be reached, or does not answer.
    Unreachable = 3,
    /// Not permitted.
    Refused = 4,
    /// Invalid input or configuration.
    Invalid = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb stopped.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    /// The reader of our output went away: that is how `| head` ends.
    pub(crate) closed_pipe: bool,
}

impl Stop {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), closed_pipe: false }
    }
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        let closed_pipe = e.kind() == io::ErrorKind::BrokenPipe;
        Self { exit: Exit::Invalid, message: format!("cannot write the output: {e}"), closed_pipe }
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Stop {}
