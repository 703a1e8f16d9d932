//! Numbers about the agent itself, for Prometheus.
//!
//! # Layout
//! - [`measures`]: what the loop counts and times
//! - [`text`]: the text that Prometheus reads
//! - [`keeper`]: in the agent: the port, and the process that answers there
//! - [`process`]: that process: another user, no capabilities, few system calls
//!
//! # Guarantees
//! - Requests reach no code of the agent: the process has a listening socket and the last text, and can open nothing.
//! - What the agent said more than ten seconds ago is not served: a number that stands still looks like peace.
//! - A port that is taken stops nothing; it is told, and tried again.

mod keeper;
mod measures;
mod process;
mod text;

pub(crate) use keeper::Metrics;
pub(crate) use measures::Measures;
pub(crate) use process::run;
use serde::{Deserialize, Serialize};
pub(crate) use text::text;

/// Bytes of a frame: a length (4 bytes, little endian) and JSON.
const MAX_FRAME: usize = 1 << 20;

/// What the agent says about itself, each second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// Why it does not do its work, if so.
    pub(crate) unready: Option<String>,
    /// In a line.
    pub(crate) status: String,
    /// For Prometheus.
    pub(crate) text: String,
}
