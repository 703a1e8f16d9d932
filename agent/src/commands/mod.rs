//! What the command line does beside running the agent.
//!
//! # Layout
//! - [`rules`]: checks, tests and explains rules

pub(crate) mod rules;

use std::process::ExitCode;

/// A check said no: a failed test, a finding of lint.
pub(crate) const NEGATIVE: u8 = 1;
/// A file that the command needs is wrong.
pub(crate) const INVALID: u8 = 5;

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Good,
    /// A check said no.
    Negative,
    /// A file that it needs is wrong.
    Invalid,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Good => Self::SUCCESS,
            Outcome::Negative => NEGATIVE.into(),
            Outcome::Invalid => INVALID.into(),
        }
    }
}
