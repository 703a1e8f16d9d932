//! The engine: everything that decides, and nothing that touches the world.
//!
//! One entry, [`Engine::apply`]: an [`Input`] in, [`Output`]s appended. Time is an argument, always.
//! Replaying the same inputs gives the same outputs, byte for byte.
//!
//! # Layout
//! - [`input`], [`output`]: what goes in and what comes out
//! - [`record`]: kernel bytes to [`record::Event`]; the only place that reads `abi` structs
//! - [`mcp`]: MCP bytes to messages, a streaming scanner that stores no payload
//! - [`privacy`]: masks payload values and secrets before anything else sees them
//! - [`server`]: candidates, servers, their channels and the calls in flight
//! - [`charge`]: which scope an effect belongs to
//! - [`effect`]: events to effects
//! - [`engine`]: ties them together
//! - [`recording`]: inputs as a file
#![forbid(unsafe_code)]

pub mod input;
pub mod mcp;
pub mod output;
pub mod privacy;

pub use input::Input;
pub use output::Output;
