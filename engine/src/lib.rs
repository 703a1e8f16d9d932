//! The engine: everything that decides, and nothing that touches the world.
//!
//! One entry, [`Engine::apply`]: an [`Input`] in, [`Output`]s appended. Time is an argument, always.
//! Replaying the same inputs gives the same outputs, byte for byte.
//!
//! # Layout
//! - [`input`], [`output`]: what goes in and what comes out
//! - [`record`]: kernel bytes to events; the only place that reads `abi` structs
//! - [`mcp`]: MCP bytes to messages, a streaming scanner that stores no payload
//! - [`privacy`]: masks payload values and secrets before anything else sees them
//! - `tree`, `server`, `call`: candidates, servers, and their calls from request to summary
//! - `charge`: which scope an effect belongs to
//! - `effect`, `text`: events to effects, in words that people and machines read
//! - `engine`: ties them together
//! - [`act`]: effects in the one form that rules, detectors and baselines decide about
//! - [`detect`]: what no tool should do unseen, whatever was learned
//! - [`baseline`]: what is normal for a server identity, scope by scope
//! - [`judge`]: compares with rules, detectors and baselines, and teaches baselines
//! - [`rules`]: what people and shipped packs allow, forbid and limit
//! - [`finding`]: what is told when something is out of line
//! - [`policy`]: what a server may do, as the kernel can hold it
//! - [`respond`]: what is done about findings
//! - [`recording`]: inputs as a file
#![forbid(unsafe_code)]

pub mod act;
pub mod baseline;
mod call;
mod charge;
pub mod detect;
mod effect;
mod engine;
pub mod finding;
pub mod input;
pub mod judge;
pub mod mcp;
pub mod output;
pub mod policy;
pub mod privacy;
pub mod record;
pub mod recording;
pub mod respond;
pub mod rules;
mod server;
mod text;
mod tree;

pub use engine::{AmbiguousShare, Engine};
pub use input::Input;
pub use output::Output;
