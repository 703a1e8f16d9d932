//! End-to-end tests: a real kernel, real MCP servers, and an oracle server that logs the truth.
//!
//! # Layout
//! - [`truth`]: what the oracle server writes down about its own acts
//! - [`sys`]: system calls, each in a safe coat
//! - [`uring`]: just enough io_uring to submit one request
//! - [`client`]: a raw MCP client over pipes or socketpairs, in any key order
//! - [`agent`]: starts `toolwarden run`, collects its lines, stops it
//! - [`world`]: the peers that the oracle talks to (sinks, a resolver, unix sockets)
//! - [`scenario`]: an oracle server with its world, called by name
//! - [`compare`]: truth against effect lines
//! - [`strace`]: an independent observer

pub mod client;
pub mod scenario;
pub mod sys;
pub mod truth;
pub mod uring;
pub mod world;
