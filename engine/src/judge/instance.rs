//! One running server as the judge sees it: what its calls did so far.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher as _, Hash, RandomState},
    sync::Arc,
};

use foldhash::HashMap;

use crate::{
    act,
    baseline::{self, Item, Key, ScopeKey, numbers::Metric, roots::Roots},
    detect::Detectors,
    finding::{Kind, Severity},
    output::{CallLine, Context, Effect, EffectLine, Process, Scope, ScopeKind, ServerRef},
    rules::{Who, units::Day},
};

use super::{book::Cause, policy::Policy};

/// Items of effects remembered; beyond that they are made anew.
const CACHED: usize = 4096;
/// Sets of scopes that effects belonged to, remembered.
const SCOPES: usize = 1024;
/// Processes remembered, for evidence.
const PROCESSES: usize = 4096;
/// Calls remembered, for evidence.
const RECENT: usize = 5;
/// Items of one call that may be learned. A call that does more is too much to learn from.
const ITEMS: usize = 8192;
/// Items of effects that may belong to several scopes.
const SHARED: usize = 64;

/// What a scope did so far.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// What may be learned of it, and how often it was done.
    pub(super) items: Vec<(Arc<Item>, u64)>,
    /// The same, but of effects that may belong to another scope: they teach no tool, only what the server does.
    pub(super) shared: Vec<(Arc<Item>, u64)>,
    /// Places in `items`, by address: items are shared.
    index: HashMap<usize, usize>,
    /// It has a finding, or something of it was lost: it teaches nothing.
    pub(super) tainted: bool,
    /// Findings that it has, by kind.
    pub(super) causes: Vec<(Kind, Severity, Cause)>,
    pub(super) writes: u64,
    pub(super) bytes_out: u64,
    pub(super) connects: u64,
    pub(super) files: u64,
}

impl Pending {
    pub(super) fn add(&mut self, item: &Arc<Item>, count: u64) {
        if let Some(&at) = self.index.get(&(Arc::as_ptr(item) as usize)) {
            self.items[at].1 += count;
            return;
        }
        if self.items.len() >= ITEMS {
            self.tainted = true;
            return;
        }
        self.index.insert(Arc::as_ptr(item) as usize, self.items.len());
        self.items.push((Arc::clone(item), count));
    }

    /// The same for an effect that may belong to another scope.
    pub(super) fn share(&mut self, item: &Arc<Item>, count: u64) {
        if let Some((_, n)) = self.shared.iter_mut().find(|(known, _)| Arc::ptr_eq(known, item)) {
            *n += count;
        } else if self.shared.len() < SHARED {
            self.shared.push((Arc::clone(item), count));
        }
        // What is not learned for want of room may be new again: that errs to the loud side.
    }
}

/// The acts of an effect in general terms. Most have one: it needs no list, whose place in memory would be one
/// more to look into.
#[derive(Clone, Debug)]
pub(super) enum Items {
    One(Arc<Item>),
    List(Arc<[Arc<Item>]>),
}

impl Items {
    fn new(mut items: Vec<Arc<Item>>) -> Self {
        match (items.len(), items.pop()) {
            (1, Some(only)) => Self::One(only),
            (_, last) => {
                items.extend(last);
                Self::List(items.into())
            }
        }
    }
}

impl std::ops::Deref for Items {
    type Target = [Arc<Item>];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::One(only) => std::slice::from_ref(only),
            Self::List(items) => items,
        }
    }
}

/// An effect that was seen before.
#[derive(Debug)]
struct Known {
    items: Items,
    verdicts: Verdicts,
}

/// Two bits a set of scopes: that an effect was clean, and that rules had nothing to say, not even that it is
/// allowed. Most servers have few sets: those need no second look into memory.
#[derive(Debug, Default)]
struct Verdicts {
    first: u64,
    rest: Box<[u64]>,
}

impl Verdicts {
    const CLEAN: u64 = 1;
    const UNRULED: u64 = 2;
    /// `CLEAN` of all sets of a word.
    const ALL_CLEAN: u64 = u64::MAX / 3;

    fn of(&self, set: usize) -> u64 {
        let word = match set / 32 {
            0 => self.first,
            k => self.rest.get(k - 1).copied().unwrap_or_default(),
        };
        word >> (set % 32 * 2) & 3
    }

    fn add(&mut self, set: usize, bits: u64) {
        let word = match set / 32 {
            0 => &mut self.first,
            k => {
                if self.rest.len() < k {
                    let mut longer = std::mem::take(&mut self.rest).into_vec();
                    longer.resize(k, 0);
                    self.rest = longer.into();
                }
                &mut self.rest[k - 1]
            }
        };
        *word |= bits << (set % 32 * 2);
    }

    fn forget_clean(&mut self) {
        self.first &= !Self::ALL_CLEAN;
        self.rest.iter_mut().for_each(|word| *word &= !Self::ALL_CLEAN);
    }
}

/// What is known of an effect.
pub(super) struct Look {
    pub(super) items: Items,
    /// The scopes that it may belong to.
    pub(super) scopes: Arc<[ScopeKey]>,
    /// Neither rules nor the baseline had anything to say of it in these scopes, and nothing that they
    /// judge by has changed since: it only counts.
    pub(super) clean: bool,
    /// That holds for rules, at least.
    pub(super) unruled: bool,
    effect: u64,
    set: usize,
}

/// A running server.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) server: Arc<ServerRef>,
    pub(super) context: Arc<Context>,
    /// Whose baseline; `None` until it is known who it is.
    pub(super) key: Option<Key>,
    /// Whose baseline it is compared with, when that is another's.
    pub(super) compared: Option<Key>,
    pub(super) roots: Roots,
    pub(super) session: u32,
    /// It had a call: the session counts.
    pub(super) counted: bool,
    /// Its startup was not seen in whole.
    pub(super) partial: bool,
    pub(super) calls: HashMap<u64, Pending>,
    pub(super) startup: Option<Pending>,
    pub(super) ambient: Pending,
    pub(super) ambient_ns: u64,
    /// Tools called in this session, with the number of calls.
    pub(super) called: HashMap<String, u64>,
    pub(super) recent: VecDeque<String>,
    processes: HashMap<u32, (Arc<Process>, u32)>,
    /// Effects by a keyed hash that a server cannot find collisions of (SipHash): a hit is not compared.
    cache: HashMap<u64, Known>,
    hasher: RandomState,
    /// Sets of scopes, in the order in which they were first seen.
    sets: Vec<Arc<[ScopeKey]>>,
    places: HashMap<Arc<[ScopeKey]>, usize>,
    /// The latest scope, and the place of its set: most effects have that of the one before.
    latest: Option<(Arc<Scope>, usize)>,
    /// Day for which effects are known to be clean: exceptions of rules end.
    day: Day,
    pub(super) detectors: Detectors,
    pub(super) policy: Policy,
    /// It acted before it was known who it is.
    pub(super) nameless: bool,
    /// As rules see it.
    pub(super) who: Who,
    /// Over the session.
    pub(super) bytes_out: u64,
    pub(super) questions: u64,
    pub(super) ended_calls: u64,
    pub(super) creep: Creep,
    /// Means and sums of the session so far, once it has calls enough for them.
    pub(super) session_numbers: Option<[(Metric, u64); 3]>,
    /// One of them was far beyond those of other sessions.
    pub(super) session_odd: bool,
}

/// A sum of logarithmic e-values that starts again when it falls below nothing (CUSUM), and its highest.
#[derive(Debug, Default)]
pub(super) struct Creep {
    sum: f64,
    highest: f64,
}

impl Creep {
    pub(super) fn add(&mut self, ln_e: f64) {
        self.sum = (self.sum + ln_e).max(0.0);
        self.highest = self.highest.max(self.sum);
    }

    pub(super) fn thousandths(&self) -> u64 {
        (self.highest * 1000.0) as u64
    }
}

impl Instance {
    pub(super) fn new(server: Arc<ServerRef>, context: Arc<Context>, now: u64) -> Self {
        Self {
            server,
            context,
            key: None,
            compared: None,
            roots: Roots::default(),
            session: 0,
            counted: false,
            partial: false,
            calls: HashMap::default(),
            startup: Some(Pending::default()),
            ambient: Pending::default(),
            ambient_ns: now,
            called: HashMap::default(),
            recent: VecDeque::new(),
            processes: HashMap::default(),
            cache: HashMap::default(),
            hasher: RandomState::new(),
            sets: Vec::new(),
            places: HashMap::default(),
            latest: None,
            day: Day::default(),
            detectors: Detectors::default(),
            policy: Policy::default(),
            nameless: false,
            who: Who::default(),
            bytes_out: 0,
            questions: 0,
            ended_calls: 0,
            creep: Creep::default(),
            session_numbers: None,
            session_odd: false,
        }
    }

    /// What is known of an effect; `None` if it is no act that anybody judges.
    pub(super) fn look(&mut self, line: &EffectLine) -> Option<Look> {
        let effect = &*line.effect;
        if !has_acts(effect) {
            return None;
        }
        let today = Day::of_utc_ns(line.time.utc);
        if today != self.day {
            self.day = today;
            self.forget_verdicts();
        }
        let set = self.scope_set(&line.scope);
        let scopes = self.sets.get(set).map(Arc::clone).unwrap_or_default();
        let mut state = self.hasher.build_hasher();
        hash(effect, &mut state);
        let key = std::hash::Hasher::finish(&state);
        if let Some(known) = self.cache.get(&key) {
            let verdicts = known.verdicts.of(set);
            let (clean, unruled) = (verdicts & Verdicts::CLEAN != 0, verdicts & Verdicts::UNRULED != 0);
            return Some(Look { items: known.items.clone(), scopes, clean, unruled, effect: key, set });
        }
        let mut items = Vec::new();
        act::each(effect, |a| items.extend(baseline::item(&a, &self.roots).map(Arc::new)));
        let items = Items::new(items);
        if self.cache.len() >= CACHED {
            self.cache.clear();
        }
        let known = Known { items: items.clone(), verdicts: Verdicts::default() };
        self.cache.insert(key, known);
        Some(Look { items, scopes, clean: false, unruled: false, effect: key, set })
    }

    /// Nothing was to be said of an effect: that holds until something changes that it was judged by.
    ///
    /// Learning does not: members and sessions only become more, and a scope that becomes known by them is
    /// not tested before the next assessment.
    ///
    /// `unruled`: of rules, that is; `clean`: of the baseline, too.
    pub(super) fn was_clean(&mut self, look: &Look, effect: &Effect, unruled: bool, clean: bool) {
        if !same_for_all(effect) {
            return;
        }
        if let Some(known) = self.cache.get_mut(&look.effect) {
            let bits = if unruled { Verdicts::UNRULED } else { 0 } | if clean { Verdicts::CLEAN } else { 0 };
            known.verdicts.add(look.set, bits);
        }
    }

    /// Rules, modes or settings changed: everything is judged anew.
    pub(super) fn forget_verdicts(&mut self) {
        for known in self.cache.values_mut() {
            known.verdicts = Verdicts::default();
        }
        self.policy.forget();
    }

    /// Something else is tested: everything is compared anew.
    pub(super) fn forget_comparisons(&mut self) {
        self.cache.values_mut().for_each(|known| known.verdicts.forget_clean());
    }

    /// It became known who it is: its effects are called otherwise.
    pub(super) fn forget_names(&mut self) {
        self.cache.clear();
        self.policy.forget();
    }

    fn scope_set(&mut self, scope: &Arc<Scope>) -> usize {
        if let Some((latest, set)) = &self.latest
            && Arc::ptr_eq(latest, scope)
        {
            return *set;
        }
        let keys = scopes(scope);
        let set = match self.places.get(&*keys) {
            Some(set) => *set,
            None => {
                if self.sets.len() >= SCOPES {
                    self.sets.clear();
                    self.places.clear();
                    self.forget_verdicts();
                }
                let keys: Arc<[ScopeKey]> = keys.into();
                self.sets.push(Arc::clone(&keys));
                self.places.insert(keys, self.sets.len() - 1);
                self.sets.len() - 1
            }
        };
        self.latest = Some((Arc::clone(scope), set));
        set
    }

    /// Remembers who started whom.
    pub(super) fn track(&mut self, line: &EffectLine) {
        match &*line.effect {
            Effect::Fork { child } if self.processes.len() < PROCESSES => {
                let shown =
                    Process { pid: *child, start_ns: line.time.boot_ns, exe: line.process.exe.clone() };
                self.processes.insert(*child, (Arc::new(shown), line.process.pid));
            }
            Effect::Exec { .. } => {
                let parent = self.processes.get(&line.process.pid).map_or(0, |p| p.1);
                if self.processes.len() < PROCESSES {
                    self.processes.insert(line.process.pid, (Arc::clone(&line.process), parent));
                }
            }
            // A child is of interest while it may act.
            Effect::Exit { .. } if self.processes.len() >= PROCESSES / 2 => {
                self.processes.remove(&line.process.pid);
            }
            _ => {}
        }
    }

    /// The process and its ancestors within the server.
    pub(super) fn ancestry(&self, process: &Arc<Process>) -> Vec<Arc<Process>> {
        let mut chain = vec![Arc::clone(process)];
        let mut pid = process.pid;
        while let Some((_, parent)) = self.processes.get(&pid)
            && chain.len() < 16
            && *parent != pid
        {
            pid = *parent;
            if let Some((shown, _)) = self.processes.get(&pid) {
                chain.push(Arc::clone(shown));
            }
        }
        chain
    }

    /// Where what this scope does is kept, when it is certain enough to be learned from.
    pub(super) fn pending(&mut self, scope: &Scope) -> Option<&mut Pending> {
        match scope.kind {
            ScopeKind::Startup => self.startup.as_mut(),
            ScopeKind::Ambient => Some(&mut self.ambient),
            ScopeKind::Call => {
                // Certain for the tool: any of its calls may keep it, the latest lasts longest.
                let number = match &scope.call {
                    Some(call) => call.number,
                    None => {
                        scope.candidates.iter().filter_map(|c| c.call.as_ref()).map(|c| c.number).max()?
                    }
                };
                Some(self.calls.entry(number).or_default())
            }
            ScopeKind::Ambiguous | ScopeKind::UnknownStart => None,
        }
    }

    /// Where an effect of open scope is kept, unless something that it may belong to teaches nothing.
    pub(super) fn shared(&mut self, scope: &Scope) -> Option<&mut Pending> {
        if scope.kind != ScopeKind::Ambiguous {
            return None;
        }
        let mut latest = None;
        for c in &scope.candidates {
            match (c.kind, &c.call) {
                (ScopeKind::Call, Some(call)) => {
                    if self.calls.get(&call.number).is_some_and(|p| p.tainted) {
                        return None;
                    }
                    latest = latest.max(Some(call.number));
                }
                (ScopeKind::Ambient, _) if !self.ambient.tainted => {}
                (ScopeKind::Startup, _) if self.startup.as_ref().is_none_or(|p| !p.tainted) => {}
                _ => return None,
            }
        }
        self.calls.get_mut(&latest?)
    }

    /// Findings and losses of an ambiguous moment taint all that it may belong to.
    pub(super) fn taint(&mut self, scope: &Scope) {
        // What may have been of this scope is not learned as another's either.
        self.calls.values_mut().for_each(|p| p.shared.clear());
        if let Some(p) = self.pending(scope) {
            p.tainted = true;
        }
        for c in &scope.candidates {
            match (c.kind, &c.call) {
                (ScopeKind::Call, Some(call)) => self.calls.entry(call.number).or_default().tainted = true,
                (ScopeKind::Ambient, _) => self.ambient.tainted = true,
                (ScopeKind::Startup, _) => {
                    if let Some(p) = &mut self.startup {
                        p.tainted = true;
                    }
                }
                _ => {}
            }
        }
    }

    /// Everything under way teaches nothing.
    pub(super) fn taint_all(&mut self) {
        self.calls.values_mut().for_each(|p| p.tainted = true);
        self.ambient.tainted = true;
        if let Some(p) = &mut self.startup {
            p.tainted = true;
        }
    }

    pub(super) fn remember(&mut self, line: &CallLine) {
        let tool = line.scope.tool.as_deref().unwrap_or_default();
        let number = line.scope.call.as_ref().map_or(0, |c| c.number);
        self.recent.push_front(format!(
            "call {number} of {tool}: {} ms, {} effects",
            line.duration_ns / 1_000_000,
            line.effects
        ));
        self.recent.truncate(RECENT);
    }
}

/// The scopes that an effect may belong to.
pub(super) fn scopes(scope: &Scope) -> Vec<ScopeKey> {
    let of = |kind, tool: &Option<String>| match kind {
        ScopeKind::Startup => Some(ScopeKey::Startup),
        ScopeKind::Ambient => Some(ScopeKey::Ambient),
        ScopeKind::Call => tool.clone().map(ScopeKey::Tool),
        ScopeKind::Ambiguous | ScopeKind::UnknownStart => None,
    };
    // Calls that nobody saw begin may be of any tool: no baseline is fit to judge.
    if scope.candidates.iter().any(|c| c.kind == ScopeKind::UnknownStart) {
        return Vec::new();
    }
    let mut keys: Vec<ScopeKey> = of(scope.kind, &scope.tool).into_iter().collect();
    if keys.is_empty() {
        let mut seen = HashSet::new();
        for c in &scope.candidates {
            if let Some(key) = of(c.kind, &c.tool)
                && seen.insert(key.clone())
            {
                keys.push(key);
            }
        }
    }
    keys
}

fn has_acts(effect: &Effect) -> bool {
    !matches!(
        effect,
        Effect::Fork { .. }
            | Effect::Exit { .. }
            | Effect::Flow { .. }
            | Effect::DnsAnswer { .. }
            | Effect::Denied { .. }
    )
}

/// Whether it is judged alike whoever does it, and however it ends: `/proc/PID` is another's or one's own,
/// and the result of a special call is no part of its hash.
fn same_for_all(effect: &Effect) -> bool {
    match effect {
        Effect::Open { path, .. } => !path.starts_with("/proc/"),
        Effect::PathOp { path, to, .. } => {
            !path.starts_with("/proc/") && !to.as_deref().is_some_and(|to| to.starts_with("/proc/"))
        }
        Effect::Special { .. } => false,
        _ => true,
    }
}

/// What of an effect makes its items and decides what rules say of it; the rest (results, sizes) may differ.
fn hash<H: std::hash::Hasher>(effect: &Effect, state: &mut H) {
    std::mem::discriminant(effect).hash(state);
    match effect {
        Effect::Open { path, truncated, read, write, create, truncate, directory, .. } => {
            path.hash(state);
            let bits = [read, write, create, truncate, directory, truncated];
            bits.into_iter().fold(0_u8, |all, bit| all << 1 | u8::from(*bit)).hash(state);
        }
        Effect::Exec { path, argv, script, memfd, deleted, env, .. } => {
            path.hash(state);
            argv.hash(state);
            script.hash(state);
            env.hash(state);
            (*memfd, *deleted).hash(state);
        }
        Effect::PathOp { op, path, to, truncated, .. } => {
            (*op as u8, *truncated).hash(state);
            path.hash(state);
            to.hash(state);
        }
        Effect::Net { op, address, port, protocol, name, .. } => {
            (*op as u8, port).hash(state);
            address.hash(state);
            protocol.hash(state);
            name.hash(state);
        }
        Effect::Unix { op, path, .. } => {
            (*op as u8).hash(state);
            path.hash(state);
        }
        Effect::DnsQuery { name, record, .. } => {
            name.hash(state);
            record.hash(state);
        }
        Effect::TlsHello { sni, address, port } => {
            sni.hash(state);
            address.hash(state);
            port.hash(state);
        }
        Effect::Syscall { abi, nr } => (*abi, *nr).hash(state),
        Effect::Special { name, .. } | Effect::Uring { name, .. } => name.hash(state),
        Effect::Fork { .. }
        | Effect::Exit { .. }
        | Effect::Flow { .. }
        | Effect::DnsAnswer { .. }
        | Effect::Denied { .. } => {}
    }
}
