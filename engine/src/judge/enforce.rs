//! Who is held to what: modes, ratified baselines and rules as changes of kernel policy.
//!
//! A server in `enforce` is held to the ratified baseline of its own identity. Another digest of the same name and
//! user gets nothing of its own: until a person ratifies it, it is held to what its predecessor was ratified for, the
//! latest one; with `strict` in the mode rule, to nothing but what rules permit. Another user, and a name that was
//! never ratified, is held to nothing: such a server is only watched, and that it is new is a finding.

use std::collections::{BTreeMap, BTreeSet};

use super::{Judge, Mode, instance::Instance};
use crate::{
    baseline::{Baseline, Dimension, Key, ScopeKey, risk, roots::Roots},
    policy::{
        Change, Family, Given, Policy, backtest,
        backtest::WouldDeny,
        compile,
        exposure::{self, Exposure, Meter},
        view::{self, Expected, Shown},
    },
    rules::{Who, units::Day},
};

/// What is in force.
#[derive(Debug)]
pub(super) struct Enforcement {
    pub(super) available: BTreeSet<Family>,
    pub(super) because: BTreeMap<Family, String>,
    loaded: BTreeMap<String, Policy>,
    bound: BTreeMap<u64, (String, bool)>,
    places: BTreeMap<Key, Place>,
    /// Something changed that it depends on.
    stale: bool,
    day: Day,
    generation: u64,
    pub(super) settle_ns: u64,
}

/// Where servers of an identity are, and what they are called.
#[derive(Clone, Debug, Default)]
struct Place {
    roots: Vec<Roots>,
    who: Who,
    /// They are held, or were.
    held: bool,
}

impl Default for Enforcement {
    fn default() -> Self {
        Self {
            available: [Family::Network, Family::Listen].into(),
            because: BTreeMap::new(),
            loaded: BTreeMap::new(),
            bound: BTreeMap::new(),
            places: BTreeMap::new(),
            stale: false,
            day: Day::default(),
            generation: 0,
            settle_ns: 20_000_000,
        }
    }
}

impl Enforcement {
    pub(super) fn touch(&mut self) {
        self.stale = true;
    }

    /// A server has ended: the next one of its identity is likely where it was.
    pub(super) fn was_at(&mut self, key: &Key, roots: Roots, who: Who) {
        let known = self.places.get(key);
        if known.is_none_or(|place| !place.held) {
            self.places.insert(key.clone(), Place { roots: vec![roots], who, held: false });
        }
    }

    /// Whose policy holds a tree.
    pub(super) fn holder_of(&self, tree: u64) -> Option<&str> {
        self.bound.get(&tree).map(|(identity, _)| identity.as_str())
    }

    /// Whose policy holds a tree, if it denies anything.
    pub(super) fn denier_of(&self, tree: u64) -> Option<&str> {
        self.bound.get(&tree).filter(|(_, dry_run)| !dry_run).map(|(identity, _)| identity.as_str())
    }

    pub(super) fn can(&mut self, available: &BTreeSet<Family>, because: &BTreeMap<Family, String>) {
        self.available.clone_from(available);
        self.because.clone_from(because);
    }
}

impl Judge {
    /// What is to be changed for servers to be held to what they should be.
    pub(crate) fn hold(&mut self, now_ns: u64, out: &mut Vec<Change>) {
        // Every input comes by here.
        if self.enforcement.loaded.is_empty() && !self.modes.iter().any(|m| m.mode == Mode::Enforce) {
            return;
        }
        let utc = self.utc_minus_boot_ns.saturating_add(i64::try_from(now_ns).unwrap_or(i64::MAX));
        // An exception ends by day.
        let today = Day::of_utc_ns(utc);
        if !self.enforcement.stale && today == self.enforcement.day {
            return;
        }
        self.enforcement.stale = false;
        self.enforcement.day = today;
        let trees = self.wanted_trees();
        self.remember_places(&trees);
        let mut keys: BTreeSet<Key> = trees.values().cloned().collect();
        let ratified = self.baselines.values().filter(|b| b.ratified.is_some());
        keys.extend(
            ratified.filter(|b| self.mode(&b.key.name, None) == Mode::Enforce).map(|b| b.key.clone()),
        );
        let mut wanted: BTreeMap<String, Policy> = BTreeMap::new();
        for key in &keys {
            if let Some(policy) = self.compiled(key, today, |_| {}) {
                wanted.insert(policy.identity.clone(), policy);
            }
        }
        let before = out.len();
        self.change(wanted, &trees, utc, out);
        if out.len() != before {
            self.instances.values_mut().for_each(super::Instance::forget_comparisons);
        }
    }

    fn change(
        &mut self,
        wanted: BTreeMap<String, Policy>,
        trees: &BTreeMap<u64, Key>,
        utc: i64,
        out: &mut Vec<Change>,
    ) {
        let dry_run = self.config.dry_run;
        let e = &mut self.enforcement;
        let gone: Vec<String> = e.loaded.keys().filter(|id| !wanted.contains_key(*id)).cloned().collect();
        for (identity, mut policy) in wanted {
            let known = e.loaded.get(&identity);
            policy.generation = known.map_or(0, |p| p.generation);
            if known == Some(&policy) {
                continue;
            }
            // Also beyond those of an agent that ran before.
            e.generation = (e.generation + 1).max(u64::try_from(utc / 1_000_000).unwrap_or_default());
            policy.generation = e.generation;
            out.push(Change::Load(Box::new(policy.clone())));
            e.loaded.insert(identity, policy);
        }
        for (tree, key) in trees {
            let to = (key.to_string(), dry_run);
            if e.bound.get(tree) != Some(&to) {
                out.push(Change::Bind { tree: *tree, identity: to.0.clone(), dry_run });
                e.bound.insert(*tree, to);
                let is_it = |id: &&String| u64::from_str_radix(id, 16) == Ok(*tree);
                let names = self.instances.iter().find(|(id, _)| is_it(id)).map(|(_, i)| i.detectors.names());
                let names: Vec<_> =
                    names.into_iter().flatten().map(|(name, all)| (name.to_owned(), all.to_vec())).collect();
                if !names.is_empty() {
                    out.push(Change::Names { tree: *tree, names });
                }
            }
        }
        let free: Vec<u64> = e.bound.keys().filter(|tree| !trees.contains_key(*tree)).copied().collect();
        for tree in free {
            e.bound.remove(&tree);
            out.push(Change::Release { tree });
        }
        for identity in gone {
            e.loaded.remove(&identity);
            out.push(Change::Unload { identity });
        }
    }

    /// Trees that are held to something, and to whose.
    fn wanted_trees(&self) -> BTreeMap<u64, Key> {
        let mut trees = BTreeMap::new();
        for (id, i) in &self.instances {
            let Ok(tree) = u64::from_str_radix(id, 16) else { continue };
            if let Some(key) = self.holder(i) {
                trees.insert(tree, key);
            }
        }
        trees
    }

    /// Whose policy holds a server.
    fn holder(&self, i: &Instance) -> Option<Key> {
        let key = i.key.as_ref()?;
        let rule = self.mode_rule(&i.server.name, None).filter(|m| m.mode == Mode::Enforce)?;
        if rule.strict || self.baselines.get(key).is_some_and(|b| b.ratified.is_some()) {
            return Some(key.clone());
        }
        let same = self.baselines.values().filter(|b| b.key.uid == key.uid && b.key.name == key.name);
        let latest = same.filter_map(|b| Some((b.ratified.as_ref()?.1, &b.key))).max();
        latest.map(|(_, key)| key.clone())
    }

    fn remember_places(&mut self, trees: &BTreeMap<u64, Key>) {
        let mut places: BTreeMap<Key, Place> = BTreeMap::new();
        for (tree, key) in trees {
            let Some(i) = self.instances.get(&format!("{tree:x}")) else { continue };
            let first = || Place { roots: Vec::new(), who: i.who.clone(), held: true };
            let Place { roots, who, .. } = places.entry(key.clone()).or_insert_with(first);
            if !roots.contains(&i.roots) {
                roots.push(i.roots.clone());
            }
            for root in &i.who.roots {
                if !who.roots.contains(root) {
                    who.roots.push(root.clone());
                }
            }
        }
        self.enforcement.places.append(&mut places);
    }

    /// Where servers of an identity are, and what they are called.
    fn place(&self, key: &Key) -> Place {
        let known = self.enforcement.places.get(key);
        let running = self.instances.values().filter(|i| i.key.as_ref() == Some(key));
        match (known, running.min_by_key(|i| &i.server.id)) {
            (Some(place), None) => place.clone(),
            (Some(place), Some(_)) if place.held => place.clone(),
            (_, Some(i)) => Place { roots: vec![i.roots.clone()], who: i.who.clone(), held: false },
            (None, None) => {
                let package = self.baselines.get(key).and_then(|b| b.package.clone());
                let user = Some(key.uid.to_string());
                let who = Who { server: key.name.clone(), package, user, ..Who::default() };
                Place { roots: Vec::new(), who, held: false }
            }
        }
    }

    /// The policy of an identity, with the baseline as `change` leaves it.
    fn compiled(&self, key: &Key, today: Day, change: impl Fn(&mut Baseline)) -> Option<Policy> {
        let mut baseline = self.baselines.get(key)?.clone();
        change(&mut baseline);
        let Place { roots, who, .. } = self.place(key);
        let e = &self.enforcement;
        Some(compile(
            &baseline,
            Given {
                roots: &roots,
                rules: &self.rules,
                who: &who,
                today,
                families: &e.available,
                because: &e.because,
                resolvers: self.resolvers.as_deref().unwrap_or_default(),
                settle_ns: e.settle_ns,
            },
        ))
    }

    /// What of its own past a policy would deny; `change`: see [`Self::compiled`].
    pub(super) fn past_denied(&self, key: &Key, change: impl Fn(&mut Baseline)) -> Vec<WouldDeny> {
        let today = Day::of_utc_ns(self.now_utc);
        let (Some(policy), Some(baseline)) = (self.compiled(key, today, change), self.baselines.get(key))
        else {
            return Vec::new();
        };
        let Place { roots, .. } = self.place(key);
        let mut denied = backtest::would_deny(&policy, baseline, &roots);
        // What was not learned yet, of those that run.
        for i in self.instances.values().filter(|i| i.key.as_ref() == Some(key)) {
            let startup = i.startup.iter().filter(|p| !p.tainted).flat_map(|p| &p.items);
            let startup = startup.map(|(item, _)| (&ScopeKey::Startup, item));
            let ambient = Some(&i.ambient).filter(|p| !p.tainted).into_iter().flat_map(|p| &p.items);
            let ambient = ambient.map(|(item, _)| (&ScopeKey::Ambient, item));
            for (scope, item) in startup.chain(ambient) {
                let name = item.levels.first().map(|n| &**n).unwrap_or_default();
                denied.extend(backtest::one(&policy, &roots, scope, item.dimension, name));
            }
        }
        denied.sort();
        denied.dedup();
        denied
    }

    /// The policy of a baseline as people see it: what is in force, else what would be.
    ///
    /// # Errors
    /// When there is none, or more than one that the name may mean.
    pub fn show_policy(&self, name: &str) -> Result<Shown, String> {
        let key = self.find(name)?;
        let id = key.to_string();
        let loaded = self.enforcement.loaded.get(&id);
        let today = Day::of_utc_ns(self.now_utc);
        let policy = loaded.cloned().or_else(|| self.compiled(&key, today, |_| {}));
        let policy = policy.ok_or_else(|| format!("there is no baseline {name}"))?;
        let baseline = self.baselines.get(&key);
        let held = self.enforcement.bound.values().filter(|(held, _)| *held == id).count();
        let mut shown = view::show(&policy);
        shown.in_force = loaded.is_some();
        shown.ratified = baseline.is_some_and(|b| b.ratified.is_some());
        shown.mode = self.mode(&key.name, None);
        shown.held = held;
        shown.would_deny = self.past_denied(&key, |_| {});
        let dimensions: Vec<Dimension> =
            shown.families.iter().flat_map(|f| f.dimensions()).copied().collect();
        shown.expected = baseline.map(|b| {
            let (denied, sessions) = b.would_be_denied(&dimensions);
            Expected { sessions, denied, at_most: risk::upper(denied, sessions) }
        });
        Ok(shown)
    }

    /// How far the rights of the policy that is in force were open.
    ///
    /// # Errors
    /// When there is none, or more than one that the name may mean.
    pub fn exposure(&self, name: &str, meter: &Meter) -> Result<Exposure, String> {
        let key = self.find(name)?;
        let policy = self.enforcement.loaded.get(&key.to_string());
        let none = || {
            format!(
                "no policy of {key} is in force, so no right is counted: `toolwarden mode {} enforce`",
                key.name
            )
        };
        policy.map(|policy| exposure::exposure(policy, meter)).ok_or_else(none)
    }
}
