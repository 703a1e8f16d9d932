//! Numbers of calls: how much is usual, and what would be far beyond it.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// What is measured.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// From request to reply, ns.
    Duration,
    /// CPU time, ns.
    Cpu,
    /// Peak resident set, bytes.
    Memory,
    /// Bytes sent.
    BytesOut,
    /// Bytes received.
    BytesIn,
    /// Files opened.
    Files,
    /// Connects and datagrams to new destinations.
    Connects,
    /// Processes born.
    Children,
    /// Places for descriptors, when the call had settled.
    Descriptors,
    /// Threads when the call had settled.
    Threads,
    /// Bytes of the reply.
    ReplyBytes,
    /// Files made or opened for writing.
    Writes,
    /// Mean bytes sent a call, over the session so far.
    MeanBytesOut,
    /// Mean questions to a resolver a call, over the session so far.
    MeanQuestions,
    /// How surprising the bytes sent by the calls of a session are, one after the other: the highest sum so far of
    /// their logarithmic e-values, never below nothing, in thousandths. Little by little adds up here.
    Creep,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Duration,
        Self::Cpu,
        Self::Memory,
        Self::BytesOut,
        Self::BytesIn,
        Self::Files,
        Self::Connects,
        Self::Children,
        Self::Descriptors,
        Self::Threads,
        Self::ReplyBytes,
        Self::Writes,
        Self::MeanBytesOut,
        Self::MeanQuestions,
        Self::Creep,
    ];

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::Cpu => "CPU time",
            Self::Memory => "memory",
            Self::BytesOut => "bytes sent",
            Self::BytesIn => "bytes received",
            Self::Files => "files opened",
            Self::Connects => "connects",
            Self::Children => "processes started",
            Self::Descriptors => "places for descriptors",
            Self::Threads => "threads",
            Self::ReplyBytes => "reply bytes",
            Self::Writes => "files written",
            Self::MeanBytesOut => "bytes sent a call on average",
            Self::MeanQuestions => "DNS questions a call on average",
            Self::Creep => "surprise at the bytes that its calls sent, added up",
        }
    }

    /// An alarm needs a value beyond `factor` times the highest seen, plus `floor`: a new maximum
    /// by a little is what the next call may always bring. Times have the widest margin, because a
    /// busy machine stretches them.
    #[must_use]
    pub fn effect_size(self) -> (u64, u64) {
        match self {
            Self::Duration => (8, 2_000_000_000),
            Self::Cpu => (4, 1_000_000_000),
            Self::Memory => (2, 128 << 20),
            Self::BytesOut => (3, 32 << 10),
            Self::BytesIn => (4, 1 << 20),
            Self::Files => (3, 200),
            Self::Connects => (3, 10),
            Self::Children => (3, 8),
            Self::Descriptors => (2, 64),
            Self::Threads => (2, 16),
            Self::ReplyBytes => (4, 256 << 10),
            Self::Writes => (3, 20),
            Self::MeanBytesOut => (3, 256),
            Self::MeanQuestions => (3, 2),
            // e^8 is a chance of 1 in 3,000, had the calls been independent.
            Self::Creep => (2, 8_000),
        }
    }
}

/// Logarithm of the e-value of a rank: `p` is the share of calls that were at least as high, this one among them.
/// The calibrator is `p^(-1/2) / 2`, whose mean is 1 when `p` is uniform (Vovk and Wang, 2021).
#[must_use]
pub fn ln_e_value(p: f64) -> f64 {
    -std::f64::consts::LN_2 - 0.5 * p.clamp(f64::MIN_POSITIVE, 1.0).ln()
}

/// The two highest session maxima, so that each session can be judged without itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Top {
    session: u32,
    value: u64,
    other: u64,
}

/// One metric of one scope.
#[derive(Clone, Debug)]
pub struct Number {
    metric: Metric,
    histogram: Histogram<u32>,
    top: Top,
}

impl Number {
    pub(crate) fn new(metric: Metric) -> Self {
        // One significant digit: a quantile is a figure for people, alarms use the exact maximum, and
        // a host may have thousands of these.
        let mut histogram = Histogram::new(1).unwrap_or_else(|_| unreachable!("one digit is allowed"));
        histogram.auto(true);
        Self { metric, histogram, top: Top::default() }
    }

    /// Learns a value.
    pub(crate) fn learn(&mut self, value: u64, session: u32) {
        self.record(value, 1);
        let t = &mut self.top;
        if session == t.session {
            t.value = t.value.max(value);
        } else if value > t.value {
            *t = Top { session, value, other: t.value };
        } else {
            t.other = t.other.max(value);
        }
    }

    fn record(&mut self, value: u64, count: u32) {
        // It grows as it must (`saturating_record` would not let it); what no histogram can hold is its highest.
        if self.histogram.record_n(value, count).is_err() {
            self.histogram.saturating_record_n(value, count);
        }
    }

    /// Values learned.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Highest value learned.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.top.value
    }

    /// How many of the values were this high or higher, within 10 %.
    #[must_use]
    pub fn at_least(&self, value: u64) -> u64 {
        let high = self.histogram.iter_recorded().filter(|v| v.value_iterated_to() >= value);
        high.map(|v| u64::from(v.count_at_value())).sum()
    }

    /// A quantile of the values, within 10 %.
    #[must_use]
    pub fn quantile(&self, q: f64) -> u64 {
        self.histogram.value_at_quantile(q)
    }

    /// Where an alarm would begin.
    #[must_use]
    pub fn limit(&self) -> u64 {
        limit(self.metric, self.top.value)
    }

    /// The session that would have been an alarm, had the others been learned without it.
    pub(crate) fn single(&self) -> Option<u32> {
        (self.count() > 0 && self.top.value > limit(self.metric, self.top.other)).then_some(self.top.session)
    }
}

fn limit(metric: Metric, highest: u64) -> u64 {
    let (factor, floor) = metric.effect_size();
    highest.saturating_mul(factor).saturating_add(floor)
}

/// As stored: the histogram as its recorded values and counts.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    metric: Metric,
    values: Vec<(u64, u32)>,
    top: Top,
}

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let values =
            self.histogram.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect();
        Stored { metric: self.metric, values, top: self.top }.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(d)?;
        let mut number = Self::new(stored.metric);
        for (value, count) in stored.values {
            number.record(value, count);
        }
        number.top = stored.top;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_counts_what_was_as_high() {
        let mut n = Number::new(Metric::BytesOut);
        for (value, times) in [(127, 90), (1200, 9), (60_000, 1)] {
            (0..times).for_each(|_| n.learn(value, 1));
        }
        assert_eq!([1, 127, 1200, 60_000, 70_000].map(|v| n.at_least(v)), [100, 100, 10, 1, 0]);
        assert!((120..=136).contains(&n.quantile(0.5)), "{}", n.quantile(0.5));
        n.learn(u64::MAX, 2);
        let again: Number =
            serde_json::from_str(&serde_json::to_string(&n).expect("it is data")).expect("it was written so");
        assert_eq!((again.at_least(1200), again.quantile(0.5)), (11, n.quantile(0.5)));
    }

    #[test]
    fn e_values_of_uniform_ranks_are_one_on_average() {
        let n = 100_000;
        let mean = (1..=n).map(|i| ln_e_value(f64::from(i) / f64::from(n)).exp()).sum::<f64>() / f64::from(n);
        assert!((0.98..=1.0).contains(&mean), "{mean}");
    }
}
