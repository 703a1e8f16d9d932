//! From an event to bytes.
//!
//! # Layout
//! - [`head`]: what transports say about an event beside its body
//! - [`json`]: as `--print json` has it; [`flat`]: the same without objects in it
//! - [`ocsf`], [`cef`]: as others define it
//! - [`about`]: an event with where it is from, and how much of it fits
//! - `schema`: of the JSON; `samples`, `odd`: events for tests
//! - [`read`]: looks into events; [`words`]: what they are called

mod about;
mod cef;
mod flat;
mod head;
mod json;
mod ocsf;
#[cfg(test)]
mod odd;
mod read;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
mod words;

use super::{host::Host, spec::Format, wire::Event};

pub(super) use head::Head;

/// An event in a format: one line without its end.
pub(super) fn body(format: Format, host: &Host, event: &Event) -> Vec<u8> {
    match format {
        Format::Json => json::body(host, event),
        Format::Ocsf => ocsf::body(host, event),
        Format::Cef => cef::body(host, event),
        Format::Flat => flat::body(host, event),
    }
}

/// One line, with its end.
pub(super) fn line(format: Format, host: &Host, event: &Event) -> Vec<u8> {
    let mut line = body(format, host, event);
    line.push(b'\n');
    line
}
