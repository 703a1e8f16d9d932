//! Events to other systems.
//!
//! # Layout
//! - [`spec`]: what a sink is
//! - [`broker`]: in the agent: feeds the sinks from the store, stores how far each is, keeps their process ([`child`]) alive
//! - [`board`]: how they are, for `status`
//! - [`wire`]: what agent and process say to each other
//! - [`process`]: the process that talks to the outside: another user, no capabilities, few system calls ([`confine`])
//! - [`deliver`]: one sink: batch by batch, again until it works
//! - [`redact`]: in the agent: takes out what a sink must not get
//! - [`format`]: from an event to bytes
//! - [`file`], [`stdout`], [`syslog`], [`journald`], [`http`]: where they go
//! - [`connect`], [`tls`]: connections; [`udp`], [`tail`]: what syslog makes of them; [`queue`]: what a socket still holds
//! - [`secret`]: tokens and keys
//!
//! # Guarantees
//! - At least once, in order, for each sink by itself: a slow or dead one holds up nobody.
//! - An event counts as delivered when its receiver said so, or when it is on the disk; only then the cursor in the store moves.
//! - Whoever takes over the process can read events and credentials of sinks, and tell the agent lies about what was delivered; it can reach
//!   neither BPF nor cgroups nor other processes.

mod board;
mod broker;
mod child;
mod confine;
mod connect;
mod deliver;
mod file;
mod format;
pub(crate) mod host;
mod http;
mod journald;
mod process;
mod queue;
pub(crate) mod redact;
pub(crate) mod secret;
pub(crate) mod spec;
mod stdout;
mod syslog;
mod tail;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod udp;
mod wire;

pub(crate) use board::Board;
pub(crate) use broker::{Plan, Sinks};
pub(crate) use confine::confine_to;
pub(crate) use process::run;
pub(crate) use redact::Redact;
