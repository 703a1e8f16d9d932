//! For how long which scopes were live, from looks at what the kernel keeps.
//!
//! A look sees when the latest call of each tool began and until when its rights last: what happened since the look before is
//! put together from these times, which are the kernel's own. Where a tool began two calls between two looks, all that
//! time counts; so the sums are upper bounds, too large by the time between two looks a call at most.

use std::collections::BTreeMap;

use abi::policy::{AMBIENT, CALL_NS, CEILING, CEILING_NS, Jit, STARTUP};

use crate::policy::{Policy, scope};

/// Sets of live scopes that are told apart; time of further ones counts as if all were live.
const MASKS: usize = 1024;
/// Tools that calls are counted of.
const TOOLS: usize = 1024;

/// All that was counted.
#[derive(Debug, Default)]
pub struct Meter {
    counts: BTreeMap<String, Count>,
    trees: BTreeMap<u64, Tree>,
    /// Which tree a child belongs to.
    children: BTreeMap<u32, u64>,
}

/// What was counted of the servers of an identity.
#[derive(Clone, Debug, Default)]
pub(super) struct Count {
    /// Bits of its tools.
    tools: BTreeMap<String, u32>,
    /// For how long it was looked at, all its servers taken together.
    pub(super) observed_ns: u64,
    /// By set of live scopes, for how long just these were.
    pub(super) by_mask: BTreeMap<u64, u64>,
    /// By bit: for how long only a child that lived on held its rights.
    pub(super) outlived_ns: BTreeMap<u32, u64>,
    /// By bit: what the kernel counted of calls that are over. Those that overlap count twice.
    pub(super) calls_ns: BTreeMap<u32, u64>,
    /// By tool.
    pub(super) calls: BTreeMap<String, u64>,
    /// The ceiling was live.
    pub(super) ceiling_ns: u64,
    /// Requests that were not understood.
    pub(super) unsure: u64,
    /// Calls of tools that the policy does not know.
    pub(super) unknown_tools: u64,
    /// Calls that could not be opened.
    pub(super) full: u64,
    /// Calls that nobody answered in time.
    pub(super) expired: u64,
}

/// A server that is held.
#[derive(Debug)]
struct Tree {
    identity: String,
    /// Up to when it is counted.
    to_ns: u64,
    last: Box<Jit>,
    /// Tools that its living children were born with.
    children: BTreeMap<u32, u64>,
}

/// A bit was live from here to there.
type Span = (u64, u64, u64);

impl Meter {
    /// A policy is in force. When one of its tools has another bit than before, its identity is counted anew.
    pub fn load(&mut self, policy: &Policy) {
        let count = self.counts.entry(policy.identity.clone()).or_default();
        let tools = policy.tools.iter().map(|t| (&t.name, t.bit));
        if tools.clone().any(|(name, bit)| count.tools.get(name).is_some_and(|b| *b != bit)) {
            *count = Count::default();
        }
        count.tools.extend(tools.map(|(name, bit)| (name.clone(), bit)));
    }

    /// What the kernel says of a tree that is held to the policy of an identity.
    pub fn look(&mut self, tree: u64, identity: &str, jit: &Jit, at_ns: u64) {
        let new = || Tree {
            identity: identity.to_owned(),
            to_ns: at_ns,
            last: Box::new(*jit),
            children: BTreeMap::new(),
        };
        let t = self.trees.entry(tree).or_insert_with(new);
        if t.identity != identity {
            *t = Tree { children: std::mem::take(&mut t.children), ..new() };
        }
        let count = self.counts.entry(t.identity.clone()).or_default();
        count.add(t, jit, at_ns);
        t.to_ns = at_ns.max(t.to_ns);
        *t.last = *jit;
    }

    /// All trees that are held: others are counted no more.
    pub fn keep(&mut self, held: impl Fn(u64) -> bool) {
        self.trees.retain(|tree, _| held(*tree));
        let trees = &self.trees;
        self.children.retain(|_, tree| trees.contains_key(tree));
    }

    /// A child was born with the rights of tools, and keeps them.
    pub fn born(&mut self, tree: u64, child: u32, bits: u64) {
        if let Some(t) = self.trees.get_mut(&tree) {
            t.children.insert(child, bits & abi::policy::TOOL_BITS);
            self.children.insert(child, tree);
        }
    }

    /// A process has ended.
    pub fn ended(&mut self, process: u32) {
        if let Some(tree) = self.children.remove(&process)
            && let Some(t) = self.trees.get_mut(&tree)
        {
            t.children.remove(&process);
        }
    }

    /// Children that live, for all that is known here.
    pub fn children(&self) -> impl Iterator<Item = u32> {
        self.children.keys().copied()
    }

    /// A call was answered.
    pub fn called(&mut self, tree: u64, tool: &str) {
        let Some(t) = self.trees.get(&tree) else { return };
        let Some(count) = self.counts.get_mut(&t.identity) else { return };
        if count.calls.len() < TOOLS || count.calls.contains_key(tool) {
            *count.calls.entry(tool.to_owned()).or_default() += 1;
        }
    }

    /// A call was not answered in time: its rights have ended.
    pub fn expired(&mut self, tree: u64) {
        let identity = self.trees.get(&tree).map(|t| &t.identity);
        if let Some(count) = identity.and_then(|identity| self.counts.get_mut(identity)) {
            count.expired += 1;
        }
    }

    pub(super) fn count(&self, identity: &str) -> Option<&Count> {
        self.counts.get(identity)
    }

    pub(super) fn held(&self, identity: &str) -> usize {
        self.trees.values().filter(|t| t.identity == identity).count()
    }
}

impl Count {
    /// Adds what happened since the last look.
    fn add(&mut self, tree: &Tree, now: &Jit, at: u64) {
        let (from, last) = (tree.to_ns, &tree.last);
        self.unsure += now.unsure.saturating_sub(last.unsure);
        self.unknown_tools += now.unknown_tools.saturating_sub(last.unknown_tools);
        self.full += now.full.saturating_sub(last.full);
        for (bit, (ns, before)) in (0..).zip(now.live_ns.iter().zip(last.live_ns)) {
            if *ns > before {
                *self.calls_ns.entry(bit).or_default() += ns - before;
            }
        }
        if at <= from {
            return;
        }
        self.observed_ns += at - from;
        let called = called(last, now, from, at);
        let born = tree.children.values().fold(0, |bits, b| bits | b);
        let mut spans = called.clone();
        spans.push((AMBIENT | born, from, at));
        spans.extend(startup(last, now, from, at));
        spans.extend(ceiling(last, now, from, at));
        let mut edges: Vec<u64> = spans.iter().flat_map(|s| [s.1, s.2]).collect();
        edges.sort_unstable();
        edges.dedup();
        for (begin, end) in edges.iter().zip(edges.iter().skip(1)) {
            let live = |spans: &[Span]| {
                spans.iter().filter(|s| s.1 <= *begin && *end <= s.2).fold(0, |mask, s| mask | s.0)
            };
            let (mask, ns) = (live(&spans), end - begin);
            let known = self.by_mask.len() < MASKS || self.by_mask.contains_key(&mask);
            *self.by_mask.entry(if known { mask } else { CEILING }).or_default() += ns;
            if mask & CEILING == CEILING {
                self.ceiling_ns += ns;
            }
            let only_born = born & !live(&called);
            for bit in (0..scope::TOOLS).filter(|bit| only_born >> bit & 1 == 1) {
                *self.outlived_ns.entry(bit).or_default() += ns;
            }
        }
    }
}

/// Part of a time that lies between two looks.
fn within(mask: u64, begin: u64, end: u64, (from, at): (u64, u64)) -> Option<Span> {
    let (begin, end) = (begin.max(from), end.min(at));
    (begin < end).then_some((mask, begin, end))
}

/// Calls in flight, and those that settle.
fn called(last: &Jit, now: &Jit, from: u64, at: u64) -> Vec<Span> {
    let bits = || (0..scope::TOOLS).zip(now.count).zip(now.opened).zip(now.until);
    let begun = now.opened.iter().filter(|opened| **opened > from).count() as u64;
    // Some tool began more than one.
    let many = now.calls.saturating_sub(last.calls) > begun;
    let before = last.count.iter().zip(last.until);
    let mut spans = Vec::new();
    for ((((bit, count), opened), until), (flying, settling)) in bits().zip(before) {
        let mask = 1 << bit;
        let end = if count > 0 { opened.saturating_add(CALL_NS) } else { until };
        let begin = if *flying > 0 || opened <= from || many { from } else { opened };
        if *flying > 0 || count > 0 || opened > from {
            spans.extend(within(mask, begin, end, (from, at)));
        }
        spans.extend(within(mask, from, settling, (from, at)));
    }
    spans
}

fn startup(last: &Jit, now: &Jit, from: u64, at: u64) -> Option<Span> {
    (last.startup_until > from).then(|| within(STARTUP, from, now.startup_until, (from, at)))?
}

/// What a request that is not understood makes live, until user space has said what it was.
fn ceiling(last: &Jit, now: &Jit, from: u64, at: u64) -> Option<Span> {
    if last.ceiling() > from {
        // It ended since then; when is not kept.
        return within(CEILING, from, at, (from, at));
    }
    let began = now.ceiling().saturating_sub(CEILING_NS);
    within(CEILING, began, now.ceiling(), (from, at))
}
