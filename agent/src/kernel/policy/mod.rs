//! Policies in the kernel: an [`engine::policy::Policy`] becomes entries of maps, trees are bound to them.
//!
//! A generation of a policy gets a number of its own. Its entries are put beside those of the one before, then the trees are
//! flipped, then the old ones go: at no moment is a tree held to half a policy.
//!
//! # Layout
//! - [`inherit`]: policies of an agent before this one
//! - [`known`]: what trees were told of names before they were held
//! - [`rights`]: which entries a policy makes (pure)
//! - [`links`]: programs and sockets by where they are
//! - this module: the maps, and the operations on them

mod inherit;
mod known;
mod links;
mod rights;

use std::{
    collections::{BTreeMap, HashMap as Table, HashSet},
    net::IpAddr,
};

use abi::{
    paths::{PathKey, PathRights},
    policy::{
        Bound, BoundKey, CallKey, CallValue, Jit, NameKey, NetKey, Rate, Rights, ScanKey, ToolKey, ToolValue,
        TreePolicy, family, jit_order, names, tree_flag,
    },
    scan::{self, Scan},
    side,
};
use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{
        Array, HashMap, MapData,
        lpm_trie::{Key, LpmTrie},
    },
};
use engine::policy::Policy;

use super::{Kernel, take};

/// A call that the kernel knows, and user space not yet, may have begun this long ago: records wait in the ring.
const YOUNG_NS: u64 = 50_000_000;

/// The maps of verdicts.
pub(super) struct Maps {
    trees: HashMap<MapData, u64, TreePolicy>,
    tools: HashMap<MapData, ToolKey, ToolValue>,
    jit: HashMap<MapData, u64, Jit>,
    calls: HashMap<MapData, CallKey, CallValue>,
    scans: HashMap<MapData, ScanKey, Scan>,
    connect: LpmTrie<MapData, NetKey, Rights>,
    listen: LpmTrie<MapData, NetKey, Rights>,
    names: HashMap<MapData, NameKey, Rights>,
    paths: HashMap<MapData, PathKey, PathRights>,
    resolvers: HashMap<MapData, [u64; 2], u64>,
    addresses: HashMap<MapData, BoundKey, Bound>,
    rates: HashMap<MapData, u64, Rate>,
    key: names::Key,
    /// Programs that are loaded later look for it.
    _keys: Array<MapData, names::Key>,
    /// By identity: what is loaded now.
    loaded: BTreeMap<String, Loaded>,
    /// Trees that are bound, and to whom.
    bound: Table<u64, String>,
    /// Trees that ran before they were found: their start-up is over.
    old: HashSet<u64>,
    /// Messages that were not understood, by tree, at the last look.
    seen: Table<u64, (u64, u64)>,
    next: u32,
    inherited: inherit::Inherited,
}

/// A policy in the kernel.
struct Loaded {
    number: u32,
    generation: u64,
    entries: rights::Entries,
}

/// How the rights of a tree were used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// By tool: its bit, and for how long its rights existed because of calls that are over, ns.
    pub(crate) live_ns: Vec<(u32, u64)>,
    /// Calls that were recognised.
    pub(crate) calls: u64,
    /// Requests that were not understood: the ceiling was live for a while.
    pub(crate) unsure: u64,
    /// Replies that were not understood.
    pub(crate) unsure_replies: u64,
    /// Calls of tools that the policy does not know.
    pub(crate) unknown_tools: u64,
    /// Calls that could not be opened, because a map was full or the id was in flight.
    pub(crate) full: u64,
    /// Calls in flight.
    pub(crate) in_flight: u64,
}

impl Maps {
    /// `adopted`: an agent before this one used them.
    pub(super) fn new(ebpf: &mut Ebpf, adopted: bool) -> Result<Self> {
        let mut random = [0; 16];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .context("no random numbers for the hashes of names")?;
        let number = u128::from_ne_bytes(random);
        let mut key = names::Key::new(number as u64, (number >> 64) as u64);
        let mut keys: Array<MapData, names::Key> = take(ebpf, "NAMES_KEY")?;
        if adopted {
            key = keys.get(&0, 0).context("cannot read the key of names")?;
        } else {
            keys.set(0, key, 0).context("cannot set the key of names")?;
        }
        let mut maps = Self {
            trees: take(ebpf, "TREE_POLICY")?,
            tools: take(ebpf, "TOOLS")?,
            jit: take(ebpf, "JIT")?,
            calls: take(ebpf, "INFLIGHT")?,
            scans: take(ebpf, "SCANS")?,
            connect: take(ebpf, "CONNECT")?,
            listen: take(ebpf, "LISTEN")?,
            names: take(ebpf, "NAMES")?,
            paths: take(ebpf, "PATHS")?,
            resolvers: take(ebpf, "RESOLVERS")?,
            addresses: take(ebpf, "BOUND")?,
            rates: take(ebpf, "RATES")?,
            key,
            _keys: keys,
            loaded: BTreeMap::new(),
            bound: Table::new(),
            old: HashSet::new(),
            seen: Table::new(),
            next: 1,
            inherited: inherit::Inherited::default(),
        };
        if adopted {
            maps.take_over();
        }
        Ok(maps)
    }

    fn put(&mut self, number: u32, entries: &rights::Entries) -> Result<()> {
        let policy = u64::from(number);
        let full = |what: &'static str| {
            move || format!("a map of {what} is full: nothing of this policy is in force")
        };
        for (name, tool) in &entries.tools {
            self.tools.insert(ToolKey { policy, name: *name }, tool, 0).with_context(full("tools"))?;
        }
        for (map, nets, what) in [
            (&mut self.connect, &entries.connect, "addresses to connect to"),
            (&mut self.listen, &entries.listen, "addresses to listen at"),
        ] {
            for ((addr, prefix), rights) in nets {
                let key =
                    Key::new(abi::policy::NET_PREFIX + u32::from(*prefix), NetKey { policy, addr: *addr });
                map.insert(&key, rights, 0).with_context(full(what))?;
            }
        }
        for (name, rights) in &entries.names {
            self.names.insert(NameKey { policy, name: *name }, rights, 0).with_context(full("names"))?;
        }
        for (path, rights) in &entries.paths {
            self.paths.insert(PathKey { policy, path: *path }, rights, 0).with_context(full("paths"))?;
        }
        Ok(())
    }

    /// Takes all entries of a policy out. What is not there need not go.
    fn remove(&mut self, number: u32, entries: &rights::Entries) {
        let policy = u64::from(number);
        for (name, _) in &entries.tools {
            let _gone = self.tools.remove(&ToolKey { policy, name: *name });
        }
        for (map, nets) in [(&mut self.connect, &entries.connect), (&mut self.listen, &entries.listen)] {
            for (addr, prefix) in nets.keys() {
                let key =
                    Key::new(abi::policy::NET_PREFIX + u32::from(*prefix), NetKey { policy, addr: *addr });
                let _gone = map.remove(&key);
            }
        }
        for name in entries.names.keys() {
            let _gone = self.names.remove(&NameKey { policy, name: *name });
        }
        for path in entries.paths.keys() {
            let _gone = self.paths.remove(&PathKey { policy, path: *path });
        }
    }

    /// Changes what trees are held to, nested ones included: entries that a program makes meanwhile are copies of one that is
    /// found by the next round.
    fn change(&mut self, root: u64, mut f: impl FnMut(&mut TreePolicy)) -> Result<()> {
        const ROUNDS: usize = 8;
        for _ in 0..ROUNDS {
            let mut changed = false;
            let entries: Vec<(u64, TreePolicy)> =
                self.trees.iter().filter_map(std::result::Result::ok).collect();
            for (tree, held) in entries.into_iter().filter(|(_, held)| held.root == root) {
                let mut new = held;
                f(&mut new);
                if new != held {
                    self.trees.insert(tree, new, 0).context("cannot change what a tree is held to")?;
                    changed = true;
                }
            }
            if !changed {
                return Ok(());
            }
        }
        bail!("a tree makes nested trees faster than they can be held to a policy")
    }

    /// What a tree is held to; makes the entry if there is none.
    fn held(&mut self, tree: u64) -> Result<TreePolicy> {
        if let Ok(held) = self.trees.get(&tree, 0)
            && held.root == tree
        {
            return Ok(held);
        }
        let held = TreePolicy { root: tree, ..TreePolicy::default() };
        self.trees.insert(tree, held, 0).context("the map of trees under a policy is full")?;
        Ok(held)
    }

    /// Nothing holds it any more.
    fn drop_if_free(&mut self, root: u64) {
        let free = self.trees.get(&root, 0).is_ok_and(|h| h.policy == 0 && h.flags == 0);
        if free {
            let keys: Vec<u64> = self
                .trees
                .iter()
                .filter_map(std::result::Result::ok)
                .filter(|(_, h)| h.root == root)
                .map(|(tree, _)| tree)
                .collect();
            for tree in keys {
                let _gone = self.trees.remove(&tree);
            }
        }
    }
}

impl Kernel {
    /// Whom this host asks for names: only their answers bind addresses.
    pub(crate) fn set_resolvers(&mut self, all: &[IpAddr]) -> Result<()> {
        let old: Vec<[u64; 2]> = self.policy.resolvers.keys().filter_map(std::result::Result::ok).collect();
        let new: Vec<[u64; 2]> = all.iter().map(|a| rights::words(*a)).collect();
        for resolver in &new {
            self.policy.resolvers.insert(resolver, 1, 0).context("too many resolvers")?;
        }
        for resolver in old.iter().filter(|r| !new.contains(r)) {
            let _gone = self.policy.resolvers.remove(resolver);
        }
        Ok(())
    }

    /// Puts a policy into the kernel, instead of an older one of the same identity. On an error the older one stays.
    pub(crate) fn load_policy(&mut self, policy: &Policy) -> Result<()> {
        let context = || format!("the policy of {} (generation {})", policy.identity, policy.generation);
        if self.policy.loaded.get(&policy.identity).is_some_and(|l| l.generation > policy.generation) {
            bail!("{} is older than the one that is in force", context());
        }
        let named = links::resolved(&policy.paths);
        let entries = rights::compile(policy, &named, &self.policy.key).with_context(context)?;
        let number = self.policy.next;
        if let Err(e) = self.policy.put(number, &entries) {
            self.policy.remove(number, &entries);
            return Err(e).with_context(context);
        }
        self.policy.next += 1;
        let new = Loaded { number, generation: policy.generation, entries };
        let roots: Vec<u64> =
            self.policy.bound.iter().filter(|(_, i)| **i == policy.identity).map(|(tree, _)| *tree).collect();
        for root in roots {
            let families = new.entries.families;
            self.policy.change(root, |held| {
                held.policy = number;
                held.families = families;
            })?;
        }
        if let Some(old) = self.policy.loaded.insert(policy.identity.clone(), new) {
            self.policy.remove(old.number, &old.entries);
        }
        self.sync_pins();
        Ok(())
    }

    /// Holds a tree, and those that are nested in it, to the policy of an identity.
    pub(crate) fn bind(&mut self, tree: u64, identity: &str, dry_run: bool) -> Result<()> {
        const NOEXIST: u64 = 1;
        let Some(loaded) = self.policy.loaded.get(identity) else {
            bail!("no policy of {identity} is loaded");
        };
        let (number, families) = (loaded.number, loaded.entries.families);
        let shape = self.trees.get(&tree, 0).with_context(|| format!("tree {tree} has ended"))?;
        let position = |channel: u64, side: u32| {
            self.channels
                .get(&channel, 0)
                .ok()
                .and_then(|c| c.position.get(side as usize).copied())
                .unwrap_or(0)
        };
        let (read, written) = (position(shape.request, side::REQUEST), position(shape.reply, side::REPLY));
        for (channel, side, at) in [(shape.request, side::REQUEST, read), (shape.reply, side::REPLY, written)]
        {
            // Nothing has passed yet: it begins with a line. Else with the rest of one, for all that is known here.
            let scan = if at == 0 {
                Scan::default()
            } else {
                Scan { flags: scan::flag::UNSURE, position: u64::MAX, ..Scan::default() }
            };
            let key = ScanKey { channel, side: u64::from(side) };
            if let Err(e) = self.policy.scans.insert(key, scan, NOEXIST)
                && self.policy.scans.get(&key, 0).is_err()
            {
                return Err(e).context("the map of channels that are scanned is full");
            }
        }
        let fresh = written == 0 && !self.policy.old.contains(&tree);
        let jit = Jit { startup_until: if fresh { u64::MAX } else { 0 }, ..Jit::default() };
        if let Err(e) = self.policy.jit.insert(tree, jit, NOEXIST)
            && self.policy.jit.get(&tree, 0).is_err()
        {
            return Err(e).context("the map of live rights is full");
        }
        let flag = if dry_run { tree_flag::DRY_RUN } else { tree_flag::ENFORCE };
        self.policy.held(tree)?;
        self.policy.change(tree, |held| {
            held.policy = number;
            held.families = families;
            held.flags = held.flags & !(tree_flag::ENFORCE | tree_flag::DRY_RUN) | flag;
        })?;
        self.policy.bound.insert(tree, identity.to_owned());
        self.policy.inherited.trees.remove(&tree);
        self.spread(tree)
    }

    /// Nested trees that began before their outer one was held to anything.
    fn spread(&mut self, root: u64) -> Result<()> {
        let held = self.policy.trees.get(&root, 0).context("it was released")?;
        let parents: Table<u64, u64> =
            self.trees.iter().filter_map(std::result::Result::ok).map(|(id, t)| (id, t.parent)).collect();
        for tree in parents.keys().filter(|t| **t != root) {
            let mut up = *tree;
            for _ in 0..parents.len() {
                up = parents.get(&up).copied().unwrap_or(0);
                if up == 0 || up == root {
                    break;
                }
            }
            if up == root && self.policy.trees.get(tree, 0).is_err() {
                self.policy.trees.insert(tree, held, 0).context("the map of trees under a policy is full")?;
            }
        }
        Ok(())
    }

    /// Holds a tree to no policy any more. A cut or a rate stays.
    pub(crate) fn release(&mut self, tree: u64) -> Result<()> {
        self.policy.bound.remove(&tree);
        self.policy.change(tree, |held| {
            held.policy = 0;
            held.families = 0;
            held.flags &= !(tree_flag::ENFORCE | tree_flag::DRY_RUN);
        })?;
        self.policy.drop_if_free(tree);
        Ok(())
    }

    /// Holds nobody to the policy of an identity any more, and takes it out of the kernel.
    pub(crate) fn unload(&mut self, identity: &str) -> Result<()> {
        let roots: Vec<u64> =
            self.policy.bound.iter().filter(|(_, i)| *i == identity).map(|(tree, _)| *tree).collect();
        roots.into_iter().try_for_each(|tree| self.release(tree))?;
        if let Some(old) = self.policy.loaded.remove(identity) {
            self.policy.remove(old.number, &old.entries);
        }
        Ok(())
    }

    /// Cuts a tree off the network, or lets it in again. Needs no policy.
    pub(crate) fn cut(&mut self, tree: u64, on: bool) -> Result<()> {
        self.flag(tree, tree_flag::CUT, on)
    }

    fn flag(&mut self, tree: u64, flag: u32, on: bool) -> Result<()> {
        self.policy.held(tree)?;
        self.policy.change(tree, |held| {
            held.flags = if on { held.flags | flag } else { held.flags & !flag };
        })?;
        if on {
            self.spread(tree)?;
        } else {
            self.policy.drop_if_free(tree);
        }
        Ok(())
    }

    /// Limits the bytes of a tree, each way; `None` lifts it. A bucket that holds less than half a second stalls TCP, whose timer
    /// after a refused packet is as long.
    pub(crate) fn rate(&mut self, tree: u64, limit: Option<(u64, u64)>, now_ns: u64) -> Result<()> {
        let Some((bytes_per_s, burst)) = limit else {
            self.flag(tree, tree_flag::RATE, false)?;
            let _gone = self.policy.rates.remove(&tree);
            return Ok(());
        };
        /// Below this, products of bytes and nanoseconds would not fit.
        const MOST: u64 = 10_000_000_000;
        if bytes_per_s == 0 || bytes_per_s > MOST || burst == 0 {
            bail!("a rate is 1 to {MOST} bytes a second, with a burst of at least one byte");
        }
        let rate = Rate { bytes_per_s, burst, start_ns: now_ns, ..Rate::default() };
        self.policy.rates.insert(tree, rate, 0).context("the map of rates is full")?;
        self.flag(tree, tree_flag::RATE, true)
    }

    /// Trees with messages that the kernel did not understand since the last look, or whose request channel they can write themselves:
    /// user space has to say which of their calls are in flight.
    pub(crate) fn unsure(&mut self) -> Vec<u64> {
        let mut out = Vec::new();
        for tree in self.policy.bound.keys() {
            let Ok(jit) = self.policy.jit.get(tree, 0) else { continue };
            let now = (jit.unsure, jit.unsure_replies);
            let before = self.policy.seen.insert(*tree, now).unwrap_or_default();
            // Which calls were proved before is not known: then nobody opens any.
            if (now != before || jit.forged != 0) && !self.policy.inherited.forged.contains(tree) {
                out.push(*tree);
            }
        }
        out
    }

    /// Nobody has said so yet: it is unsure at the next look, too.
    pub(crate) fn still_unsure(&mut self, tree: u64) {
        self.policy.seen.remove(&tree);
    }

    /// User space, which follows the channel completely, says which calls of such a tree are in flight: by [`abi::scan::id_hash`],
    /// and tool. The ceiling need not be live any more.
    pub(crate) fn set_live(
        &mut self,
        tree: u64,
        calls: &[(u64, std::sync::Arc<str>)],
        now_ns: u64,
    ) -> Result<()> {
        // What is opened here may be over in the kernel already, its reply on the way to user space; and what is left
        // as it is, because it is young, may be over as well. The next look knows.
        let mut again = false;
        for (id, tool) in calls {
            again |= self.opened(tree, *id, tool, now_ns)?;
        }
        let over: Vec<CallKey> = self
            .policy
            .calls
            .keys()
            .filter_map(std::result::Result::ok)
            .filter(|k| k.tree == tree && !calls.iter().any(|(id, _)| *id == k.id))
            .collect();
        for key in over {
            // One that began after user space looked is not over.
            let young =
                self.policy.calls.get(&key, 0).is_ok_and(|v| now_ns.saturating_sub(v.at_ns) < YOUNG_NS);
            again |= young;
            if !young {
                self.closed(tree, key.id, now_ns)?;
            }
        }
        if again {
            self.still_unsure(tree);
        }
        super::hooks::jit(&mut self.ebpf, [tree, 0, jit_order::UNDERSTOOD, 0, now_ns])
            .context("cannot end the ceiling")
    }

    /// User space says that a call began. Whether the kernel did not know.
    fn opened(&mut self, tree: u64, id: u64, tool: &str, now_ns: u64) -> Result<bool> {
        let Some(loaded) = self.policy.bound.get(&tree).and_then(|i| self.policy.loaded.get(i)) else {
            return Ok(false);
        };
        let hash = scan::fnv(tool.as_bytes());
        let Some((_, tool)) = loaded.entries.tools.iter().find(|(name, _)| *name == hash) else {
            return Ok(false);
        };
        let (bit, settle_ns) = (tool.bit, tool.settle_ns);
        let key = CallKey { tree, id };
        if self.policy.calls.get(&key, 0).is_ok() {
            return Ok(false);
        }
        // Counted by the program, atomically.
        super::hooks::jit(&mut self.ebpf, [tree, id, bit, settle_ns, now_ns])
            .context("cannot open a call")?;
        self.policy.calls.get(&key, 0).context("the map of calls is full").map(|_known| true)
    }

    /// It says that a call is over.
    fn closed(&mut self, tree: u64, id: u64, now_ns: u64) -> Result<()> {
        if self.policy.calls.get(&CallKey { tree, id }, 0).is_err() {
            return Ok(());
        }
        super::hooks::jit(&mut self.ebpf, [tree, id, jit_order::CLOSE, 0, now_ns])
            .context("cannot close a call")
    }

    /// Ends calls that nobody answered within their time. Gives how many.
    pub(crate) fn expire(&mut self, now_ns: u64) -> Result<u64> {
        let over: Vec<CallKey> = self
            .policy
            .calls
            .iter()
            .filter_map(std::result::Result::ok)
            .filter(|(_, v)| {
                let lasts = if v.cancelled == 0 { abi::policy::CALL_NS } else { abi::policy::CANCELLED_NS };
                now_ns.saturating_sub(v.at_ns) > lasts
            })
            .map(|(key, _)| key)
            .collect();
        for key in &over {
            self.closed(key.tree, key.id, now_ns)?;
        }
        Ok(over.len() as u64)
    }

    /// Forgets closed sockets whose denied data the kernel has given up by now.
    pub(crate) fn forget_closed(&mut self, now_ns: u64) -> Result<()> {
        /// Longer than any kernel goes on sending.
        const LASTS_S: u64 = 1200;
        let map = self.ebpf.map_mut("OWNERS").context("the BPF object has no map OWNERS")?;
        let mut owners = HashMap::<_, u64, abi::Owner>::try_from(map)?;
        let over: Vec<u64> = owners
            .iter()
            .filter_map(std::result::Result::ok)
            .filter(|(_, o)| o.flags & abi::owner_flag::CLOSED != 0)
            .filter(|(_, o)| (now_ns / 1_000_000_000).saturating_sub(u64::from(o.hello)) > LASTS_S)
            .map(|(cookie, _)| cookie)
            .collect();
        for cookie in over {
            owners.remove(&cookie).context("cannot forget a closed socket")?;
        }
        Ok(())
    }

    /// Whether a tree is held to a policy already: its own, or that of the tree that it is nested in.
    pub(crate) fn is_held(&self, tree: u64) -> bool {
        self.policy.trees.get(&tree, 0).is_ok_and(|held| held.policy != 0)
    }

    /// How the rights of each tree were used so far.
    pub(crate) fn usages(&self) -> Vec<(u64, Usage)> {
        self.policy.bound.keys().filter_map(|tree| Some((*tree, self.usage(*tree)?))).collect()
    }

    fn usage(&self, tree: u64) -> Option<Usage> {
        let jit = self.policy.jit.get(&tree, 0).ok()?;
        Some(Usage {
            live_ns: (0..).zip(jit.live_ns).filter(|(_, ns)| *ns != 0).collect(),
            calls: jit.calls,
            unsure: jit.unsure,
            unsure_replies: jit.unsure_replies,
            unknown_tools: jit.unknown_tools,
            full: jit.full,
            in_flight: jit.count.iter().sum(),
        })
    }

    /// A tree that ran before it was found.
    pub(super) fn policy_old(&mut self, tree: u64) {
        self.policy.old.insert(tree);
    }

    /// Marks a tree as a server's. A nested one stays bound to the tree that it is in.
    pub(super) fn mark_server(&mut self, tree: u64) -> Result<()> {
        let held = self.policy.trees.get(&tree, 0);
        let mut held = held.unwrap_or(TreePolicy { root: tree, ..TreePolicy::default() });
        held.flags |= tree_flag::SERVER;
        self.policy.trees.insert(tree, held, 0).context("the map of trees under a policy is full")
    }

    /// Has the canary's tree judged by a policy that permits nothing, and denies nothing: each act gives a record.
    pub(crate) fn hold_canary(&mut self, tree: u64) -> Result<()> {
        let families = family::EXEC | family::FILE | family::UNIX | family::DANGEROUS;
        let held = TreePolicy { policy: u32::MAX, flags: tree_flag::DRY_RUN, root: tree, families, _pad: 0 };
        self.policy.trees.insert(tree, held, 0).context("the map of trees under a policy is full")
    }

    /// A tree is gone: so is all that was kept for it.
    pub(super) fn policy_forget(&mut self, tree: u64) {
        let shape = self.trees.get(&tree, 0).ok();
        let maps = &mut self.policy;
        maps.old.remove(&tree);
        maps.seen.remove(&tree);
        maps.bound.remove(&tree);
        maps.inherited.forget(tree);
        if maps.trees.remove(&tree).is_err() {
            return;
        }
        let calls: Vec<CallKey> =
            maps.calls.keys().filter_map(std::result::Result::ok).filter(|k| k.tree == tree).collect();
        for key in calls {
            let _gone = maps.calls.remove(&key);
        }
        for (channel, side) in shape.iter().flat_map(|s| [(s.request, side::REQUEST), (s.reply, side::REPLY)])
        {
            let _gone = maps.scans.remove(&ScanKey { channel, side: u64::from(side) });
        }
        let _gone = (maps.jit.remove(&tree), maps.rates.remove(&tree));
    }
}
