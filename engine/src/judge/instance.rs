//! One running server as the judge sees it: what its calls did so far.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher as _, Hash, RandomState},
    sync::Arc,
};

use crate::{
    act,
    baseline::{self, Item, Key, ScopeKey, roots::Roots},
    detect::Detectors,
    finding::{Kind, Severity},
    output::{CallLine, Context, Effect, EffectLine, Process, Scope, ScopeKind, ServerRef},
    rules::Who,
};

use super::{book::Cause, policy::Policy};

/// Items of effects remembered; beyond that they are made anew.
const CACHED: usize = 4096;
/// Processes remembered, for evidence.
const PROCESSES: usize = 4096;
/// Calls remembered, for evidence.
const RECENT: usize = 5;
/// Items of one call that may be learned. A call that does more is too much to learn from.
const ITEMS: usize = 8192;

/// What a scope did so far.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// What may be learned of it, and how often it was done.
    pub(super) items: Vec<(Arc<Item>, u64)>,
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
    cache: HashMap<u64, Arc<[Arc<Item>]>>,
    hasher: RandomState,
    pub(super) detectors: Detectors,
    pub(super) policy: Policy,
    /// As rules see it.
    pub(super) who: Who,
    /// Over the session.
    pub(super) bytes_out: u64,
    pub(super) questions: u64,
    pub(super) ended_calls: u64,
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
            calls: HashMap::new(),
            startup: Some(Pending::default()),
            ambient: Pending::default(),
            ambient_ns: now,
            called: HashMap::new(),
            recent: VecDeque::new(),
            processes: HashMap::new(),
            cache: HashMap::new(),
            hasher: RandomState::new(),
            detectors: Detectors::default(),
            policy: Policy::default(),
            who: Who::default(),
            bytes_out: 0,
            questions: 0,
            ended_calls: 0,
        }
    }

    /// The acts of an effect in general terms.
    pub(super) fn items(&mut self, effect: &Effect) -> Arc<[Arc<Item>]> {
        if !has_acts(effect) {
            return Arc::default();
        }
        let mut state = self.hasher.build_hasher();
        hash(effect, &mut state);
        let key = std::hash::Hasher::finish(&state);
        if let Some(items) = self.cache.get(&key) {
            return Arc::clone(items);
        }
        let mut items = Vec::new();
        act::each(effect, |a| items.extend(baseline::item(&a, &self.roots).map(Arc::new)));
        let items: Arc<[Arc<Item>]> = items.into();
        if self.cache.len() >= CACHED {
            self.cache.clear();
        }
        self.cache.insert(key, Arc::clone(&items));
        items
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

    /// Findings and losses of an ambiguous moment taint all that it may belong to.
    pub(super) fn taint(&mut self, scope: &Scope) {
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
        Effect::Fork { .. } | Effect::Exit { .. } | Effect::Flow { .. } | Effect::DnsAnswer { .. }
    )
}

/// What of an effect makes its items; the rest (results, sizes) may differ.
fn hash<H: std::hash::Hasher>(effect: &Effect, state: &mut H) {
    std::mem::discriminant(effect).hash(state);
    match effect {
        Effect::Open { path, read, write, create, truncate, .. } => {
            path.hash(state);
            (*read, *write, *create, *truncate).hash(state);
        }
        Effect::Exec { path, argv, script, .. } => {
            path.hash(state);
            argv.hash(state);
            script.hash(state);
        }
        Effect::PathOp { op, path, to, .. } => {
            (*op as u8).hash(state);
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
        Effect::DnsQuery { name, .. } => name.hash(state),
        Effect::TlsHello { sni, address, port } => {
            sni.hash(state);
            address.hash(state);
            port.hash(state);
        }
        Effect::Syscall { abi, nr } => (*abi, *nr).hash(state),
        Effect::Special { name, .. } | Effect::Uring { name, .. } => name.hash(state),
        Effect::Fork { .. } | Effect::Exit { .. } | Effect::Flow { .. } | Effect::DnsAnswer { .. } => {}
    }
}
