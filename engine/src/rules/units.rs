//! Numbers with units, and dates, as people write them.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

/// A day: days since 1970-01-01, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub struct Day(pub i32);

impl Day {
    /// The day of a time in nanoseconds since 1970.
    #[must_use]
    pub fn of_utc_ns(ns: i64) -> Self {
        Self(i32::try_from(ns.div_euclid(86_400_000_000_000)).unwrap_or(i32::MAX))
    }

    /// Reads `2027-01-31`, and nothing else that some library would take for a date.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let shape = text.len() == 10
            && text
                .bytes()
                .enumerate()
                .all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() });
        let date: jiff::civil::Date = shape.then(|| text.parse().ok())??;
        let epoch = jiff::civil::Date::constant(1970, 1, 1);
        Some(Self(date.since(epoch).ok()?.get_days()))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoch = jiff::civil::Date::constant(1970, 1, 1);
        match jiff::Span::new().try_days(self.0).ok().and_then(|span| epoch.checked_add(span).ok()) {
            Some(date) => write!(f, "{date}"),
            None => write!(f, "day {}", self.0),
        }
    }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Count,
    Bytes,
    Time,
}

impl Unit {
    fn table(self) -> &'static [(&'static str, u64)] {
        match self {
            Self::Count => &[("", 1)],
            Self::Bytes => &[
                ("", 1),
                ("B", 1),
                ("kB", 1000),
                ("KB", 1000),
                ("MB", 1_000_000),
                ("GB", 1_000_000_000),
                ("TB", 1_000_000_000_000),
                ("KiB", 1 << 10),
                ("MiB", 1 << 20),
                ("GiB", 1 << 30),
                ("TiB", 1 << 40),
            ],
            Self::Time => &[
                ("ns", 1),
                ("us", 1000),
                ("ms", 1_000_000),
                ("s", 1_000_000_000),
                ("m", 60_000_000_000),
                ("min", 60_000_000_000),
                ("h", 3_600_000_000_000),
            ],
        }
    }

    /// How it is written.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Count => "a whole number, such as 20",
            Self::Bytes => "bytes, such as 64KiB, 1MiB or 10MB",
            Self::Time => "a time with its unit, such as 250ms, 30s or 5m",
        }
    }

    /// Reads a number with a unit of this sort.
    pub(super) fn parse(self, text: &str) -> Option<u64> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim_start();
        let factor = self.table().iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)?;
        number.parse::<u64>().ok()?.checked_mul(factor)
    }

    /// Writes a number so that `parse` reads it back.
    pub(super) fn show(self, value: u64) -> String {
        let units: &[(&str, u64)] = match self {
            Self::Count => &[],
            Self::Bytes => &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)],
            Self::Time => {
                &[("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000), ("ns", 1)]
            }
        };
        match units.iter().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor)) {
            Some((unit, factor)) => format!("{}{unit}", value / factor),
            None if self == Self::Time => format!("{value}ns"),
            None => value.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_written() {
        assert_eq!(Unit::Bytes.parse("1MiB"), Some(1 << 20));
        assert_eq!(Unit::Bytes.parse("10 MB"), Some(10_000_000));
        assert_eq!(Unit::Time.parse("30s"), Some(30_000_000_000));
        assert_eq!(Unit::Count.parse("0"), Some(0));
        for bad in ["", "s", "-1s", "1.5s", "30", "1 year", "99999999999999999999s", "18446744073709551615s"]
        {
            assert_eq!(Unit::Time.parse(bad), None, "{bad}");
        }
        assert_eq!(Unit::Count.parse("1k"), None);
        for (unit, value) in
            [(Unit::Bytes, 3 << 20), (Unit::Bytes, 1001), (Unit::Time, 90_000_000_000), (Unit::Time, 0)]
        {
            assert_eq!(unit.parse(&unit.show(value)), Some(value));
        }
    }

    #[test]
    fn days_are_read_strictly() {
        assert_eq!(Day::parse("1970-01-02"), Some(Day(1)));
        assert_eq!(Day::parse("2027-01-31").map(|d| d.to_string()).as_deref(), Some("2027-01-31"));
        for bad in ["2027-1-31", "2027-02-30", "20270131", "2027-01-31T00:00", "+027-01-31", "", "äää-01-31"]
        {
            assert_eq!(Day::parse(bad), None, "{bad}");
        }
        assert_eq!(Day::of_utc_ns(-1), Day(-1));
    }
}
