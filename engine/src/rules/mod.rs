//! Rules: hard statements by a person (or a shipped pack), in force even while learning. YAML, no
//! expression language: globs, ranges, names and numbers, so that a rule can be checked, compared
//! with others and put into kernel maps. Who wins when rules disagree stands in [`select`].
//!
//! # Layout
//! - [`written`], `inline`, [`value`]: a rule file as it is written, and the tests in it
//! - `parse`: from text to that; all bytes are hostile
//! - `compile`, [`set`], `table`: rules as meant
//! - `names`, `glob`, `net`, [`syscalls`], [`units`]: patterns, names and numbers
//! - [`select`], [`limits`]: whom rules are about, and what they say; [`outline`]: what of it prefixes can say; `own`: a process's own entries of `/proc`
//! - [`case`]: inline tests
//! - [`lint`], [`explain`]: what is hardly meant, and why something was decided
//! - [`write`]: rules as text again
//! - [`packs`]: what is shipped
//! - [`problem`]: what is wrong with a file, with line and caret

pub mod case;
mod compile;
pub mod explain;
mod glob;
mod inline;
pub mod limits;
pub mod lint;
mod names;
mod net;
pub(crate) mod outline;
mod own;
pub mod packs;
mod parse;
pub mod problem;
pub mod select;
pub mod set;
pub mod syscalls;
mod table;
#[cfg(test)]
mod tests;
pub mod units;
pub mod value;
pub mod write;
pub mod written;

pub use case::{TestResult, run_tests};
pub use explain::explain;
pub use limits::{Exceeded, Metric};
pub use lint::lint;
pub use names::{NameGlob, escape};
pub use own::own_path;
pub use packs::packs;
pub use parse::{MAX_FILE, parse};
pub use problem::{Level, Problem};
pub use select::{Decision, Selected, Verdict, Where, Who};
pub use set::{Origin, Rule, RuleSet, Source};
pub use units::Day;
pub use write::{export, permit};

/// The JSON Schema of a rule file.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(written::RuleFile)
}
