//! Baselines: what is normal for one server identity, scope by scope.
//!
//! # Layout
//! - `item`: acts in general terms; `scope`: what is known of one scope
//! - [`roots`], [`general`]: names in terms that hold on the next call and the next host
//! - [`family`]: sets with incidence by session; [`numbers`]: histograms and session maxima
//! - [`risk`]: which of them may be tested within the budget of false findings
//! - [`settling`]: how long its tools work after their replies
//! - `ratified`: what of it is enforced
//! - [`view`]: what people are shown

pub mod family;
pub mod general;
mod item;
pub mod numbers;
mod ratified;
pub mod risk;
pub mod roots;
mod scope;
pub mod settling;
#[cfg(test)]
mod simulation_tests;
pub mod view;

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde::{Deserialize, Serialize};

pub use item::{Dimension, Item, LEVELS, is_common, item};
pub(crate) use ratified::Ratified;
pub(crate) use scope::Novelty;
pub use scope::{ScopeBaseline, ScopeKey};

use family::When;
use numbers::{Metric, Number};
use scope::{FEWEST_SESSIONS, NumberBox, Tested};
use settling::Settling;

use crate::input::Identity;

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

    /// Keeps each name once, as it is while it learns: what comes from a file has one for each place.
    pub(crate) fn share_names(&mut self) {
        let mut known = HashSet::new();
        let sets = self.scopes.values_mut().flat_map(|s| s.sets.values_mut()).flatten();
        sets.for_each(|family| family.share(&mut known));
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
