//! End-to-end tests: a real kernel, real MCP servers, and an oracle server that logs the truth.
//!
//! # Layout
//! - [`truth`]: what the oracle server writes down about its own acts
//! - [`sys`]: system calls, each in a safe coat
//! - [`uring`]: just enough io_uring to submit one request
//! - [`client`]: a raw MCP client over pipes or socketpairs, in any key order
//! - [`raw_server`]: an MCP server without a library, for servers that misbehave
//! - [`agent`]: starts `toolwarden run`, collects its lines, stops it
//! - [`world`]: the peers that the oracle talks to (sinks, resolvers, unix sockets)
//! - [`scenario`]: an oracle server with its world, called by name
//! - [`compare`], `same`, [`verdict`]: truth against effect lines, and the figures
//! - [`person`]: who may ratify and respond
//! - [`pace`]: how patient tests are where everything is slow
//! - [`corpus`]: recorded sessions and what is known about them
//! - [`strace`]: an independent observer
//! - [`real`]: MCP servers that we did not write

use std::{
    io::{self, Write as _},
    path::Path,
};

pub mod agent;
pub mod client;
pub mod compare;
#[cfg(test)]
mod compare_tests;
pub mod corpus;
#[cfg(test)]
mod corpus_tests;
pub mod local;
pub mod pace;
pub mod person;
pub mod raw_server;
pub mod real;
mod same;
pub mod scenario;
pub mod strace;
pub mod sys;
pub mod truth;
pub mod uring;
pub mod verdict;
pub mod world;

/// Root of the workspace that this was built from.
#[must_use]
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Says what is not tested on this machine, and why, where a person sees it although the test passes.
pub fn not_tested(what: &str) {
    // Not by a macro: the test harness keeps what those print. Where nobody reads it nothing is lost.
    drop(writeln!(io::stderr(), "not tested here: {what}"));
}
