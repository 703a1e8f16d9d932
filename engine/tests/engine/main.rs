//! The engine from outside: inputs in, outputs out.
#![expect(unreachable_pub, reason = "one binary: modules are its only boundary")]

mod attribution;
mod common;
mod enforce;
mod golden;
mod learning;
mod names;
mod properties;
mod respond;
mod running;
mod schema;
mod settling;
