//! The control socket: HTTP/JSON over a unix socket, for people and their scripts.
//!
//! The agent's loop owns everything, so this side owns nothing: it says who asks, whether they may,
//! and passes a [`Verb`] on. Servers run as the developer, so being in the right group, or even
//! being root, does not make a peer a person: see [`authorise`].
//!
//! # Layout
//! - [`verb`]: what can be asked
//! - [`socket`]: the socket's place, rights and the lock of the agent that serves it
//! - [`peer`]: who asks, by the kernel's word
//! - [`lineage`]: where they come from, by `/proc`
//! - [`authorise`](mod@authorise): whether they may
//! - [`audit`]: what was changed or refused, by whom
//! - [`serve`]: connections and their limits
//! - [`feed`]: lines as they come, for those who watch
//! - [`quiet`]: answers to what is no HTTP
//! - [`difference`](mod@difference): what tells two baselines apart
//! - [`routes`]: HTTP to verbs, answers to JSON

mod audit;
mod authorise;
pub(crate) mod difference;
mod feed;
mod lineage;
mod peer;
mod quiet;
mod routes;
mod serve;
mod socket;
#[cfg(test)]
pub(crate) mod tests;
mod verb;

use std::{future::Future, pin::Pin};

use tokio::sync::oneshot;

pub(crate) use audit::AuditRow;
pub(crate) use authorise::{Lineage, Role};
pub(crate) use feed::Feeds;
pub(crate) use peer::Peer;
pub(crate) use serve::serve;
pub(crate) use socket::{Socket, group};
pub(crate) use verb::{CallFilter, FindingFilter, Mode, Verb};

/// Where the socket is unless told otherwise.
pub(crate) const SOCKET: &str = "/run/toolwarden/control.sock";
/// Version of the JSON: a number that only a break of it raises.
pub(crate) const VERSION: u32 = 1;
/// Questions that wait for the loop; beyond that a peer is told to come again.
pub(crate) const WAITING: usize = 16;

/// One question to the agent's loop. Its peer may ask it.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) verb: Verb,
    pub(crate) peer: Peer,
    /// When the other end of it is gone, nobody waits any more.
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What the loop says.
pub(crate) type Answer = Result<serde_json::Value, Failure>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// HTTP status.
    pub(crate) status: u16,
    /// What is wrong and what to do about it.
    pub(crate) message: String,
}

impl Failure {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// Whoever asks may not.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(403, message)
    }

    /// There is no such server, finding or baseline.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, message)
    }

    /// It was understood, and it cannot be so: a broken rule file, a mode that is not possible.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(422, message)
    }

    /// The agent cannot do it now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, message)
    }

    /// In one word, for scripts.
    pub(crate) fn code(&self) -> &'static str {
        match self.status {
            400 => "bad-request",
            403 => "refused",
            404 => "not-found",
            405 => "bad-method",
            408 => "too-slow",
            409 => "conflict",
            413 | 414 | 431 => "too-large",
            422 => "invalid",
            501 => "not-implemented",
            503 => "busy",
            504 => "no-answer",
            _ => "failed",
        }
    }
}

/// When a row is on disk, or why not.
pub(crate) type Recorded = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// What the agent knows and keeps, for this side of it.
pub(crate) trait Host: Send + Sync + 'static {
    /// What a process is. The kernel's maps know trees even after their processes were adopted by
    /// pid 1, and the engine knows the clients of its servers. Called off the loop; must not wait
    /// for it.
    fn role(&self, pid: u32) -> Role;

    /// Where a peer comes from. May block; called on a thread of its own.
    fn lineage(&self, peer: &Peer) -> Lineage {
        lineage::of(peer, &|pid| self.role(pid))
    }

    /// Keeps a row. The peer is answered when this is done.
    fn audit(&self, row: AuditRow) -> Recorded;
}
