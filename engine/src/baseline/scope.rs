//! One scope of a baseline: its sets and numbers, and which of them are tested.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    family::Family,
    item::{DIMENSIONS, Dimension, Item, LEVELS, levels_of},
    numbers::{Metric, Number},
    risk::Alarms,
};

/// What a baseline is kept of: a scope, all calls of a tool in one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ScopeKey {
    /// Exec to first request.
    Startup,
    /// No call in flight.
    Ambient,
    /// All calls of a session together: only means are kept of it.
    Session,
    /// All that the server does, in whatever scope. What is new to it is new to each of its tools; and what
    /// it does is known also where it is open which tool did it.
    Whole,
    /// The calls of a tool. First calls of a tool in a session have numbers of their own.
    Tool(String),
}

impl fmt::Display for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Startup => f.write_str("startup"),
            Self::Ambient => f.write_str("ambient"),
            Self::Session => f.write_str("session"),
            Self::Whole => f.write_str("server"),
            Self::Tool(name) => write!(f, "tool {name}"),
        }
    }
}

/// What is normal in one scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeBaseline {
    /// Calls (startups, ambient minutes) that taught it.
    pub calls: u64,
    /// Sessions that it was seen in.
    pub sessions: u32,
    pub(super) last_session: u32,
    /// Sets by dimension and level.
    pub(super) sets: BTreeMap<Dimension, [Family; LEVELS]>,
    /// Numbers of steady calls.
    #[serde(with = "as_pairs")]
    pub(super) numbers: BTreeMap<(bool, Metric), NumberBox>,
    #[serde(skip)]
    pub(super) tested: Tested,
}

impl ScopeBaseline {
    /// Where a number becomes an alarm, if it is tested; the highest seen; and of how many.
    pub(crate) fn number_limit(&self, first: bool, metric: Metric) -> Option<(u64, u64, u64)> {
        if !self.tested.number(first, metric) {
            return None;
        }
        match self.numbers.get(&(first, metric)) {
            Some(n) => Some((n.0.limit(), n.0.max(), n.0.count())),
            // Only values above nothing are kept.
            None => {
                let (_, floor) = metric.effect_size();
                Some((floor, 0, self.calls))
            }
        }
    }

    /// Seen in enough sessions to be tested: what was seen in few says little about the next, whatever the
    /// whole says.
    pub(super) fn is_known(&self) -> bool {
        u64::from(self.sessions) >= FEWEST_SESSIONS
    }

    pub(super) fn novelty(&self, item: &Item) -> Novelty {
        let sets = self.sets.get(&item.dimension);
        let mut novelty = Novelty { new: false, tested: None };
        for (level, name) in item.levels.iter().enumerate() {
            if sets.is_some_and(|sets| sets[level].has(name)) {
                if level == 0 {
                    break;
                }
                continue;
            }
            novelty.new = true;
            if self.tested.set(item.dimension, level) {
                novelty.tested = Some(level);
            }
        }
        novelty
    }

    /// Calls `f` with each test that may be made of it, in one order always, and its alarms.
    pub(super) fn each_test(&self, key: &ScopeKey, mut f: impl FnMut(Test, &dyn Fn() -> Alarms)) {
        if !self.is_known() {
            return;
        }
        // What is new to the whole server says more than what is new to one of its tools.
        let behind = u8::from(*key != ScopeKey::Whole);
        for dimension in DIMENSIONS {
            for level in 0..levels_of(dimension) {
                let family = self.sets.get(&dimension).map(|sets| &sets[level]);
                if family.is_some_and(|f| f.refused > 0 || !is_closed(dimension, level, f)) {
                    continue;
                }
                let rank = rank(dimension, level) + behind;
                f(Test::Set(dimension, level), &|| {
                    family.map(|f| f.alarms(rank)).unwrap_or(Alarms { rank, ..Alarms::default() })
                });
            }
        }
        for metric in Metric::ALL {
            for first in [false, true] {
                f(Test::Number(first, metric), &|| {
                    let single = self.numbers.get(&(first, metric)).and_then(|n| n.0.single());
                    Alarms { sessions: single.into_iter().collect(), rank: 1 + behind, ..Alarms::default() }
                });
            }
        }
    }

    /// The coarsest members of a dimension, most frequent first.
    #[must_use]
    pub fn coarse(&self, dimension: Dimension) -> Vec<&Arc<str>> {
        let Some(sets) = self.sets.get(&dimension) else {
            return Vec::new();
        };
        // Destinations are best known by name.
        let level = if dimension == Dimension::Connect { 0 } else { levels_of(dimension) - 1 };
        let mut all = sets[level].sorted();
        all.sort_by_key(|(_, m)| std::cmp::Reverse(m.count + m.first_calls));
        all.into_iter().map(|(name, _)| name).collect()
    }
}

/// A number that is compared by what it would alarm at.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct NumberBox(pub(super) Number);

impl PartialEq for NumberBox {
    fn eq(&self, other: &Self) -> bool {
        self.0.count() == other.0.count() && self.0.max() == other.0.max()
    }
}

mod as_pairs {
    //! JSON keys are strings; these are pairs.
    use serde::{Deserialize as _, Serialize as _};

    use super::{BTreeMap, Metric, NumberBox};

    type Map = BTreeMap<(bool, Metric), NumberBox>;

    pub(super) fn serialize<S: serde::Serializer>(map: &Map, s: S) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(s)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Map, D::Error> {
        Ok(Vec::<((bool, Metric), NumberBox)>::deserialize(d)?.into_iter().collect())
    }
}

/// What of a scope is tested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tested {
    /// One bit a level, by dimension.
    sets: [u8; DIMENSIONS.len()],
    /// One bit a metric: of steady calls, and of first ones.
    numbers: [u16; 2],
}

/// Which alarm of a scope a tested family is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    Set(Dimension, usize),
    Number(bool, Metric),
}

impl Tested {
    pub(super) fn add(&mut self, test: Test) {
        match test {
            Test::Set(dimension, level) => self.sets[dimension as usize] |= 1 << level,
            Test::Number(first, metric) => self.numbers[usize::from(first)] |= 1 << metric as u32,
        }
    }

    pub(super) fn any(&self) -> bool {
        *self != Self::default()
    }

    pub(super) fn set(&self, dimension: Dimension, level: usize) -> bool {
        self.sets[dimension as usize] >> level & 1 != 0
    }

    pub(super) fn number(&self, first: bool, metric: Metric) -> bool {
        self.numbers[usize::from(first)] >> metric as u32 & 1 != 0
    }
}

const _: () = assert!(Metric::ALL.len() <= u16::BITS as usize && LEVELS <= u8::BITS as usize);

/// A scope that was seen in fewer sessions is not tested.
pub(super) const FEWEST_SESSIONS: u64 = 10;

/// How much something new in a set says, 0 the most; known before any session is seen.
fn rank(dimension: Dimension, level: usize) -> u8 {
    let coarsest = level + 1 == levels_of(dimension);
    match dimension {
        Dimension::Syscall => 4,
        Dimension::Read if coarsest => 1,
        _ if coarsest => 0,
        _ => 2,
    }
}

/// Whether a fine set is one that does not grow: few members, as a server has that talks to one host or keeps
/// one file, and each of them came back. In a larger one, the next new member is more of the same, however often the
/// known ones came back: the sessions of one project say nothing about the files of the next.
fn is_closed(dimension: Dimension, level: usize, family: &Family) -> bool {
    const CLOSED: usize = 8;
    level + 1 == levels_of(dimension)
        || family.members.len() <= CLOSED
            && family.members.values().all(|m| u64::from(m.sessions()) >= FEWEST_SESSIONS / 2)
}

/// How new an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Novelty {
    /// It was not seen at the finest level.
    pub(crate) new: bool,
    /// The coarsest level that is new and may be tested.
    pub(crate) tested: Option<usize>,
}
