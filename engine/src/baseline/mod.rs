//! Baselines: what is normal for one server identity, scope by scope.
//!
//! # Layout
//! - [`roots`], [`general`]: names in terms that hold on the next call and the next host
//! - [`family`]: sets with incidence by session; [`numbers`]: histograms and session maxima
//! - [`risk`]: which of them may be tested within the budget of false findings
//! - [`settling`]: how long its tools work after their replies
//! - [`view`]: what people are shown

pub mod family;
pub mod general;
pub mod numbers;
pub mod risk;
pub mod roots;
pub mod settling;
#[cfg(test)]
mod simulation_tests;
pub mod view;

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use family::{Family, When};
use numbers::{Metric, Number};
use risk::Alarms;
use settling::Settling;

use crate::{
    act::{Access, Act},
    input::Identity,
    output::SyscallAbi,
};
use roots::Roots;

/// Whom a baseline belongs to. Names are claims; user and digest are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// User id.
    pub uid: u32,
    /// Name of the server.
    pub name: String,
    /// Digest of the entry point, else the version it claims, else empty.
    pub digest: String,
}

impl Key {
    /// The key of an identity.
    #[must_use]
    pub fn of(identity: &Identity, uid: u32) -> Self {
        let mut digest = identity.digest.clone().unwrap_or_default();
        digest.truncate(16);
        if let Some(version) = &identity.version {
            // An entry point may stay the same while what it imports changes.
            digest = format!("{digest}+{version}");
        }
        Self { uid, name: identity.name.clone(), digest }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.uid, self.name, self.digest)
    }
}

/// What sets are kept of.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the acts")]
pub enum Dimension {
    Exec,
    Read,
    Write,
    Delete,
    Change,
    Connect,
    Listen,
    Dns,
    Unix,
    Syscall,
    Special,
    Uring,
}

/// Most levels that a dimension has, fine to coarse.
pub const LEVELS: usize = 3;

/// An act in general terms: its name at each level, fine to coarse.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// What it is of.
    pub dimension: Dimension,
    /// Names; never empty.
    pub levels: Vec<Arc<str>>,
}

/// An act in general terms; `None` for acts that are no baseline's business.
#[must_use]
pub fn item(act: &Act<'_>, roots: &Roots) -> Option<Item> {
    fn of<const N: usize>(dimension: Dimension, levels: [String; N]) -> Item {
        Item { dimension, levels: levels.into_iter().map(Arc::from).collect() }
    }
    Some(match act {
        Act::Exec { file, argv, script, .. } => {
            let [path, _, _] = general::path(script.unwrap_or(file), roots);
            let shape = general::shape(argv, roots);
            of(Dimension::Exec, [format!("{path} · {shape}"), path])
        }
        // They hold nothing.
        Act::File {
            path: "/dev/null" | "/dev/zero" | "/dev/full" | "/dev/random" | "/dev/urandom", ..
        } => {
            return None;
        }
        Act::File { access, path, .. } => {
            let dimension = match access {
                Access::Read => Dimension::Read,
                Access::Write => Dimension::Write,
                Access::Delete => Dimension::Delete,
                Access::Change => Dimension::Change,
            };
            of(dimension, general::path(path, roots))
        }
        Act::Connect { address, name, port, protocol } => {
            of(Dimension::Connect, general::destination(*address, *name, *port, protocol))
        }
        Act::Listen { address, port, protocol } => {
            let class = general::address_class(*address);
            let port = if *port == 0 || *port >= 32768 { "{high}".into() } else { port.to_string() };
            of(Dimension::Listen, [format!("{class}:{port}/{protocol}")])
        }
        Act::Dns { name, .. } => of(Dimension::Dns, general::domain(name)),
        Act::Unix { path, listen } => {
            let [fine, _, area] = general::path(path, roots);
            let act = if *listen { "bind " } else { "" };
            of(Dimension::Unix, [format!("{act}{fine}"), format!("{act}{area}")])
        }
        Act::Syscall { abi: SyscallAbi::X86_64, nr } if is_common(*nr) => return None,
        Act::Syscall { abi, nr } => {
            let table = match abi {
                SyscallAbi::X86_64 => "x86_64",
                SyscallAbi::I386 => "i386",
            };
            of(Dimension::Syscall, [format!("{table}:{nr}")])
        }
        Act::Special { name, .. } => of(Dimension::Special, [(*name).to_owned()]),
        Act::Uring { name } => of(Dimension::Uring, [(*name).to_owned()]),
        // What it goes to is judged where it connects; the name itself by a detector.
        Act::Sni { .. } => return None,
    })
}

/// System calls of memory, threads, clocks, signals, descriptors and directories that any runtime makes at times
/// of its own choosing: which call they fall into says nothing about a tool. By number in the x86_64 table.
#[must_use]
pub fn is_common(nr: u32) -> bool {
    matches!(
        nr,
        0..=40 | 44..=48 | 54..=55 | 60..=63 | 72..=81 | 89 | 95..=100 | 102 | 104 | 107..=111 | 131 | 137..=138
            | 157..=158 | 186 | 200..=204 | 217..=219 | 221 | 228..=235 | 247 | 257 | 262 | 270..=271 | 273
            | 280..=281 | 283..=293 | 302 | 309 | 318 | 332 | 334 | 435..=439 | 441
            // Acts on files, programs and peers: they are judged by what they touch.
            | 41..=43 | 49..=50 | 56..=59 | 82..=88 | 90..=94 | 258..=261 | 263..=269 | 299 | 307 | 316 | 322 | 326 | 452
    )
}

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
    last_session: u32,
    /// Sets by dimension and level.
    sets: BTreeMap<Dimension, [Family; LEVELS]>,
    /// Numbers of steady calls.
    #[serde(with = "as_pairs")]
    numbers: BTreeMap<(bool, Metric), NumberBox>,
    #[serde(skip)]
    tested: Tested,
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
    fn is_known(&self) -> bool {
        u64::from(self.sessions) >= FEWEST_SESSIONS
    }

    fn novelty(&self, item: &Item) -> Novelty {
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
    fn each_test(&self, key: &ScopeKey, mut f: impl FnMut(Test, &dyn Fn() -> Alarms)) {
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
struct NumberBox(Number);

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
struct Tested {
    /// One bit a level, by dimension.
    sets: [u8; DIMENSIONS.len()],
    /// One bit a metric: of steady calls, and of first ones.
    numbers: [u16; 2],
}

/// Which alarm of a scope a tested family is.
#[derive(Clone, Copy, Debug)]
enum Test {
    Set(Dimension, usize),
    Number(bool, Metric),
}

impl Tested {
    fn add(&mut self, test: Test) {
        match test {
            Test::Set(dimension, level) => self.sets[dimension as usize] |= 1 << level,
            Test::Number(first, metric) => self.numbers[usize::from(first)] |= 1 << metric as u32,
        }
    }

    fn any(&self) -> bool {
        *self != Self::default()
    }

    fn set(&self, dimension: Dimension, level: usize) -> bool {
        self.sets[dimension as usize] >> level & 1 != 0
    }

    fn number(&self, first: bool, metric: Metric) -> bool {
        self.numbers[usize::from(first)] >> metric as u32 & 1 != 0
    }
}

const _: () = assert!(Metric::ALL.len() <= u16::BITS as usize && LEVELS <= u8::BITS as usize);

/// Where a baseline stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum State {
    /// Too little is known to say that anything is unusual.
    #[default]
    Learning,
    /// Deviations are findings.
    Active,
    /// Another version or digest of a known server: it is compared with what that one did.
    Stale {
        /// The baseline that it is compared with.
        predecessor: String,
    },
}

/// What is normal for one server identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Whose.
    pub key: Key,
    /// Package, a claim.
    pub package: Option<String>,
    /// Version, a claim.
    pub version: Option<String>,
    /// Where it stands.
    pub state: State,
    /// Sessions so far; they are numbered from 1.
    pub sessions: u32,
    /// Sessions that had a call: the trials.
    pub trials: u32,
    /// Calls that taught it.
    pub calls: u64,
    /// First and last session's begin, UTC ns.
    pub since_utc: i64,
    /// See `since_utc`.
    pub last_utc: i64,
    /// Who ratified it, and when (UTC ns).
    pub ratified: Option<(String, i64)>,
    /// Members in all sets.
    pub members: u64,
    /// Something found no room.
    pub too_large: bool,
    #[serde(with = "scopes_as_pairs")]
    scopes: BTreeMap<ScopeKey, ScopeBaseline>,
    /// Work after the reply, by tool.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    settling: BTreeMap<String, Settling>,
    /// Bound of the tested families.
    #[serde(skip)]
    bound: f64,
    #[serde(skip)]
    allowed: f64,
}

mod scopes_as_pairs {
    //! JSON keys are strings; a scope is more.
    use serde::{Deserialize as _, Serialize as _};

    use super::{BTreeMap, ScopeBaseline, ScopeKey};

    type Map = BTreeMap<ScopeKey, ScopeBaseline>;

    pub(super) fn serialize<S: serde::Serializer>(map: &Map, s: S) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(s)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Map, D::Error> {
        Ok(Vec::<(ScopeKey, ScopeBaseline)>::deserialize(d)?.into_iter().collect())
    }
}

/// Bounds of one baseline.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Members of one set.
    pub set: usize,
    /// Members of all sets of a server.
    pub server: u64,
    /// Tools of a server.
    pub tools: usize,
}

impl Baseline {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(key: Key, identity: &Identity) -> Self {
        Self { key, package: identity.package.clone(), version: identity.version.clone(), ..Self::default() }
    }

    /// A session begins; its number.
    pub(crate) fn begin_session(&mut self, utc: i64) -> u32 {
        self.sessions += 1;
        if self.since_utc == 0 {
            self.since_utc = utc;
        }
        self.last_utc = utc;
        self.sessions
    }

    /// Learns items of a scope, each with how often it was.
    pub(crate) fn learn<'a>(
        &mut self,
        scope: &ScopeKey,
        items: impl Iterator<Item = (&'a Item, u64)>,
        when: When,
        limits: Limits,
    ) {
        let mut members = self.members;
        let Some(s) = self.scope_mut(scope, limits) else {
            self.too_large |= items.count() > 0;
            return;
        };
        let mut refused = false;
        for (item, count) in items {
            let full = members >= limits.server;
            let sets = s.sets.entry(item.dimension).or_default();
            for (level, name) in item.levels.iter().enumerate() {
                let before = sets[level].members.len();
                // A coarser level has far fewer members: room for it is kept.
                let capacity = if full { before } else { limits.set };
                refused |= !sets[level].learn(name, When { count, ..when }, capacity);
                members += (sets[level].members.len() - before) as u64;
            }
        }
        self.members = members;
        self.too_large |= refused;
    }

    /// Learns a number of a call.
    pub(crate) fn learn_numbers(
        &mut self,
        scope: &ScopeKey,
        first: bool,
        numbers: &[(Metric, u64)],
        session: u32,
        limits: Limits,
    ) {
        let Some(s) = self.scope_mut(scope, limits) else {
            return;
        };
        // Only values above nothing are kept.
        for &(metric, value) in numbers.iter().filter(|(_, value)| *value > 0) {
            let number = s.numbers.entry((first, metric)).or_insert_with(|| NumberBox(Number::new(metric)));
            number.0.learn(value, session);
        }
    }

    /// A call (a startup, an ambient minute) taught this scope.
    pub(crate) fn learned_call(&mut self, scope: &ScopeKey, session: u32, limits: Limits) {
        if matches!(scope, ScopeKey::Tool(_)) {
            self.calls += 1;
        }
        if let Some(s) = self.scope_mut(scope, limits) {
            s.calls += 1;
            if s.last_session != session {
                s.last_session = session;
                s.sessions += 1;
            }
        }
    }

    /// Learns how late a tool worked after a reply; the learned time, if there is one,
    /// before and now.
    pub(crate) fn learn_settling(
        &mut self,
        tool: &str,
        latest_ns: u64,
        session: u32,
        configured_ns: u64,
        limits: Limits,
    ) -> (Option<u64>, Option<u64>) {
        if !self.settling.contains_key(tool) {
            if self.settling.len() >= limits.tools {
                return (None, None);
            }
            self.settling.insert(tool.to_owned(), Settling::default());
        }
        let Some(settling) = self.settling.get_mut(tool) else {
            return (None, None);
        };
        let before = settling.learned_ns();
        settling.learn(latest_ns, session, configured_ns);
        (before, settling.learned_ns())
    }

    /// Work after the reply, by tool.
    pub fn settling(&self) -> impl Iterator<Item = (&str, &Settling)> {
        self.settling.iter().map(|(tool, s)| (tool.as_str(), s))
    }

    fn scope_mut(&mut self, scope: &ScopeKey, limits: Limits) -> Option<&mut ScopeBaseline> {
        if !self.scopes.contains_key(scope) {
            if self.scopes.len() >= limits.tools {
                return None;
            }
            self.scopes.insert(scope.clone(), ScopeBaseline::default());
        }
        self.scopes.get_mut(scope)
    }

    /// A scope.
    #[must_use]
    pub fn scope(&self, scope: &ScopeKey) -> Option<&ScopeBaseline> {
        self.scopes.get(scope)
    }

    /// Whether a scope was seen in enough sessions to be tested.
    #[must_use]
    pub fn knows(&self, scope: &ScopeKey) -> bool {
        self.scopes.get(scope).is_some_and(ScopeBaseline::is_known)
    }

    /// Names of the tools that it knows.
    pub fn tools(&self) -> impl Iterator<Item = &str> {
        self.scopes.keys().filter_map(|k| if let ScopeKey::Tool(t) = k { Some(t.as_str()) } else { None })
    }

    /// The coarsest level at which an item is new in a scope, if that level may be tested. `seen`: whether
    /// it is new at any level at all, tested or not.
    pub(crate) fn novelty(&self, scope: &ScopeKey, item: &Item) -> Novelty {
        self.scopes.get(scope).map_or(Novelty { new: true, tested: None }, |s| s.novelty(item))
    }

    /// The level at which an item is new for every tool that is known; `None` when any tool has it.
    pub(crate) fn novelty_for_tools(&self, item: &Item) -> Option<usize> {
        let mut level = usize::MAX;
        for (key, s) in &self.scopes {
            if !matches!(key, ScopeKey::Tool(_)) {
                continue;
            }
            let novelty = s.novelty(item);
            if s.is_known() {
                level = level.min(novelty.tested?);
            } else if !novelty.new {
                return None;
            }
        }
        (level != usize::MAX).then_some(level)
    }

    /// Share of the calls of a scope, first ones and later ones, that had this much of a metric or more, if this
    /// call had been one of them.
    pub(crate) fn rank(&self, scope: &ScopeKey, metric: Metric, value: u64) -> f64 {
        let Some(s) = self.scopes.get(scope).filter(|_| value > 0) else {
            return 1.0;
        };
        // Only values above nothing are kept.
        let of = |first| s.numbers.get(&(first, metric)).map_or(0, |n| n.0.at_least(value));
        let above = of(false) + of(true);
        (above + 1) as f64 / (s.calls + 1) as f64
    }

    /// Chooses what is tested so that false findings stay within `allowed`: the highest chance that a
    /// session may have one. True when something else is tested than before.
    pub(crate) fn assess(&mut self, allowed: f64) -> bool {
        let mut alarms = Vec::new();
        for (key, s) in &self.scopes {
            s.each_test(key, |_, of| alarms.push(of()));
        }
        let choice = risk::choose(&alarms, u64::from(self.trials), allowed);
        self.bound = choice.bound;
        self.allowed = allowed;
        let mut chosen = choice.tested.iter();
        let (mut changed, mut any) = (false, false);
        for (key, s) in &mut self.scopes {
            let mut tested = Tested::default();
            s.each_test(key, |test, _| {
                if chosen.next() == Some(&true) {
                    tested.add(test);
                }
            });
            changed |= tested != s.tested;
            any |= tested.any();
            s.tested = tested;
        }
        if self.state == State::Learning && any {
            self.state = State::Active;
            changed = true;
        }
        changed
    }

    /// Upper 95 % bound on the chance that a session has a false finding.
    #[must_use]
    pub fn bound(&self) -> f64 {
        self.bound
    }

    /// Sessions that are still needed before anything may be tested.
    #[must_use]
    pub fn needs_sessions(&self) -> u64 {
        risk::sessions_needed(self.allowed).max(FEWEST_SESSIONS).saturating_sub(u64::from(self.trials))
    }

    /// Marks all members as ratified.
    pub(crate) fn ratify(&mut self, by: &str, utc: i64) {
        self.ratified = Some((by.to_owned(), utc));
        for s in self.scopes.values_mut() {
            for family in s.sets.values_mut().flatten() {
                family.members.values_mut().for_each(|m| m.ratified = true);
            }
        }
        if matches!(self.state, State::Stale { .. }) {
            self.state = State::Learning;
        }
    }
}

/// A scope that was seen in fewer sessions is not tested.
const FEWEST_SESSIONS: u64 = 10;

const DIMENSIONS: [Dimension; 12] = [
    Dimension::Exec,
    Dimension::Read,
    Dimension::Write,
    Dimension::Delete,
    Dimension::Change,
    Dimension::Connect,
    Dimension::Listen,
    Dimension::Dns,
    Dimension::Unix,
    Dimension::Syscall,
    Dimension::Special,
    Dimension::Uring,
];

fn levels_of(dimension: Dimension) -> usize {
    match dimension {
        Dimension::Read | Dimension::Write | Dimension::Delete | Dimension::Change | Dimension::Connect => 3,
        Dimension::Exec | Dimension::Dns | Dimension::Unix => 2,
        Dimension::Listen | Dimension::Syscall | Dimension::Special | Dimension::Uring => 1,
    }
}

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
