//! An event with where it is from, and how much of it fits.

use std::cell::Cell;

use serde_json::Value;

use super::{
    head::Head,
    read::{cut, number, text},
};
use crate::sinks::{host::Host, wire::Event};

/// How much of an event is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Acts in evidence.
    pub(super) acts: usize,
    /// Bytes of a text.
    pub(super) text: usize,
}

/// An event with where it is from.
pub(super) struct About<'a> {
    pub(super) value: &'a Value,
    pub(super) event: &'a Event,
    pub(super) host: &'a Host,
    pub(super) head: &'a Head,
    pub(super) bounds: Bounds,
    /// Something did not fit.
    cut: Cell<bool>,
}

impl<'a> About<'a> {
    pub(super) fn new(
        value: &'a Value,
        event: &'a Event,
        host: &'a Host,
        head: &'a Head,
        bounds: Bounds,
    ) -> Self {
        Self { value, event, host, head, bounds, cut: Cell::new(false) }
    }

    pub(super) fn text(&self, at: &str) -> String {
        self.fit(text(self.value, at))
    }

    /// A text that may be too long.
    pub(super) fn fit(&self, text: &str) -> String {
        if text.len() > self.bounds.text {
            self.cut.set(true);
        }
        cut(text, self.bounds.text)
    }

    /// The first of these.
    pub(super) fn some<'b, T>(&self, all: &'b [T], most: usize) -> &'b [T] {
        if all.len() > most {
            self.cut.set(true);
        }
        &all[..all.len().min(most)]
    }

    /// Whether something did not fit.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// A time since boot, as UTC in milliseconds.
    pub(super) fn at_ms(&self, boot_ns: u64) -> Option<i64> {
        let (known_ns, of_event) = (self.head.time_ns, number(self.value, "/time/boot_ns"));
        (boot_ns > 0 && of_event > 0).then(|| {
            let since = i128::from(boot_ns) - i128::from(of_event);
            ms(i64::try_from(i128::from(known_ns) + since).unwrap_or(known_ns))
        })
    }
}

/// Nanoseconds as milliseconds.
pub(super) fn ms(ns: i64) -> i64 {
    ns.div_euclid(1_000_000)
}

/// Last part of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path)
}

/// `ADDRESS:PORT/PROTOCOL`, as objects of network findings are written.
pub(super) fn destination(object: &str) -> Option<(&str, u16, &str)> {
    let (place, protocol) = object.rsplit_once('/')?;
    let (address, port) = place.rsplit_once(':')?;
    Some((address, port.parse().ok()?, protocol))
}
