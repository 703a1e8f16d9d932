//! MCP bytes to messages: a streaming scanner that stores no payload.
//!
//! # Layout
//! - [`Framer`]: one direction of one channel, bytes in, [`Frame`]s out
//! - [`Message`]: what is kept of one JSON-RPC message
//! - `scan`: the JSON scanner, shared with [`crate::privacy::Masker`]
//! - `token`: what the scanner says
//! - `keys`: the keys that mean something, and where
//! - `text`: strings, decoded in bounded space
//! - `tail`: the id at the end of a line whose beginning was lost
//! - `find`: bytes, fast

mod find;
mod frame;
mod keys;
mod message;
pub(crate) mod scan;
pub(crate) mod tail;
mod text;
pub(crate) mod token;

#[cfg(test)]
mod line_tests;
#[cfg(test)]
pub(crate) mod prop_tests;
#[cfg(test)]
mod tests;

pub use frame::{Frame, Framer};
pub use message::{ArgumentValue, Hints, Id, Message};
pub(crate) use text::first16;
