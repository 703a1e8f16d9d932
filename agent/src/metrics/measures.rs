//! What the loop counts and times.

use std::time::Instant;

use abi::kind;
use engine::record;
use zerocopy::FromBytes as _;

use crate::run::now_ns;

/// One record in so many is timed: two looks at the clock cost a tenth of what the engine does with a record. A prime,
/// because what servers do has a rhythm.
const ONE_IN: u64 = 13;
/// Upper bounds of the buckets, ns: from a microsecond to a second.
pub(super) const BOUNDS: [u64; 13] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
];

/// A distribution of times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Histogram {
    /// By bucket; the last has no bound.
    pub(super) counts: [u64; BOUNDS.len() + 1],
    pub(super) sum_ns: u64,
}

impl Histogram {
    fn take(&mut self, ns: u64) {
        let bucket = BOUNDS.iter().position(|bound| ns <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }
}

/// Counts and times since the agent began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measures {
    /// Records from the ring, by kind; those of no known kind at 0.
    pub(super) records: [u64; kind::COUNT],
    all: u64,
    /// From the reading of a record until all that it brought about is done.
    pub(super) engine: Histogram,
    /// From the act in the kernel until then.
    pub(super) delay: Histogram,
}

/// A record that is timed.
#[derive(Debug)]
pub(crate) struct Timed {
    read: Instant,
    at_ns: u64,
}

impl Measures {
    /// A record was read.
    pub(crate) fn begin(&mut self, bytes: &[u8]) -> Option<Timed> {
        let kind = record::kind_of(bytes).map_or(0, usize::from);
        self.records[if kind < kind::COUNT { kind } else { 0 }] += 1;
        self.all += 1;
        if !self.all.is_multiple_of(ONE_IN) {
            return None;
        }
        let (header, _) = abi::Header::read_from_prefix(bytes).ok()?;
        Some(Timed { read: Instant::now(), at_ns: header.at_ns })
    }

    /// It is dealt with.
    pub(crate) fn end(&mut self, timed: Option<Timed>) {
        if let Some(Timed { read, at_ns }) = timed {
            self.engine.take(u64::try_from(read.elapsed().as_nanos()).unwrap_or(u64::MAX));
            self.delay.take(now_ns().saturating_sub(at_ns));
        }
    }

    /// Records read from the ring.
    pub(crate) fn read(&self) -> u64 {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_buckets_and_strange_records_are_counted_too() {
        let mut h = Histogram::default();
        for ns in [0, 1_000, 1_001, 2_000_000_000] {
            h.take(ns);
        }
        assert_eq!((h.counts[0], h.counts[1], h.counts[BOUNDS.len()]), (2, 1, 1));
        let mut m = Measures::default();
        for bytes in [&[][..], &[0, 0, 99, 0], &[0, 0, 2, 0]] {
            let timed = m.begin(bytes);
            m.end(timed);
        }
        assert_eq!((m.read(), m.records[0], m.records[usize::from(kind::EXEC)]), (3, 2, 1));
    }
}
