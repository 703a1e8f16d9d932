//! Policies in the kernel: an [`engine::policy::Policy`] becomes entries of maps, trees are bound to them.
//!
//! A generation of a policy gets a number of its own. Its entries are put beside those of the one before, then the trees are
//! flipped, then the old ones go: at no moment is a tree held to half a policy.
//!
//! # Layout
//! - [`calls`]: calls in flight, where user space has to say which
//! - [`inherit`]: policies of an agent before this one
//! - [`known`]: what trees were told of names before they were held
//! - [`rights`]: which entries a policy makes (pure)
//! - [`links`]: programs and sockets by where they are
//! - [`retire`]: what nobody is held to any more
//! - [`usage`]: which rights are live
//! - this module: the maps, and the operations on them

mod calls;
mod inherit;
mod known;
mod links;
mod retire;
mod rights;
mod usage;

use std::{
    collections::{BTreeMap, HashMap as Table, HashSet},
    net::IpAddr,
};

use abi::{
    paths::{PathKey, PathRights},
    policy::{
        Bound, BoundKey, CEILING_NS, CallKey, CallValue, Jit, NameKey, NetKey, Rate, Rights, ScanKey,
        ToolKey, ToolValue, TreePolicy, family, names, tree_flag,
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

pub(crate) use self::calls::Unsure;
use super::{Kernel, take};

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
    seen: Table<u64, calls::Seen>,
    next: u32,
    inherited: inherit::Inherited,
    /// What is to go, and what goes as soon as all programs are over that ran when nobody was held to it any more.
    retired: retire::Retired,
    leaving: retire::Retired,
}

/// A policy in the kernel.
struct Loaded {
    number: u32,
    generation: u64,
    entries: rights::Entries,
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
            retired: retire::Retired::default(),
            leaving: retire::Retired::default(),
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
        if self.policy.put(number, &entries).is_err() {
            self.retire_now();
            if let Err(e) = self.policy.put(number, &entries) {
                self.policy.remove(number, &entries);
                return Err(e).with_context(context);
            }
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
            self.policy.retired.policies.push((old.number, old.entries));
        }
        self.sync_pins();
        Ok(())
    }

    /// Holds a tree, and those that are nested in it, to the policy of an identity.
    pub(crate) fn bind(&mut self, tree: u64, identity: &str, dry_run: bool, now_ns: u64) -> Result<()> {
        const NOEXIST: u64 = 1;
        let Some(loaded) = self.policy.loaded.get(identity) else {
            bail!("no policy of {identity} is loaded");
        };
        let (number, families) = (loaded.number, loaded.entries.families);
        let shape = self.trees.get(&tree, 0).with_context(|| format!("tree {tree} has ended"))?;
        if self.policy.take_back(tree) {
            self.forget_calls(tree);
        }
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
        let mut jit = Jit { startup_until: if fresh { u64::MAX } else { 0 }, ..Jit::default() };
        if read != 0 {
            // Calls may be in flight: as with a request that is not understood, user space says which.
            (jit.ceilings, jit.ceiling_until) = (1, now_ns.saturating_add(CEILING_NS));
        }
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
        // What passes unseen from now on would make its calls wrong if the tree is bound again.
        self.policy.retired.trees.insert(tree);
        Ok(())
    }

    /// Holds nobody to the policy of an identity any more, and takes it out of the kernel.
    pub(crate) fn unload(&mut self, identity: &str) -> Result<()> {
        let roots: Vec<u64> =
            self.policy.bound.iter().filter(|(_, i)| *i == identity).map(|(tree, _)| *tree).collect();
        roots.into_iter().try_for_each(|tree| self.release(tree))?;
        if let Some(old) = self.policy.loaded.remove(identity) {
            self.policy.retired.policies.push((old.number, old.entries));
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
        let maps = &mut self.policy;
        maps.old.remove(&tree);
        maps.bound.remove(&tree);
        maps.inherited.forget(tree);
        if maps.trees.remove(&tree).is_ok() | maps.take_back(tree) {
            self.forget_calls(tree);
            let _gone = self.policy.rates.remove(&tree);
        }
    }

    /// Its calls, and how far its channels were read.
    fn forget_calls(&mut self, tree: u64) {
        let shape = self.trees.get(&tree, 0).ok();
        let maps = &mut self.policy;
        maps.seen.remove(&tree);
        let calls: Vec<CallKey> =
            maps.calls.keys().filter_map(std::result::Result::ok).filter(|k| k.tree == tree).collect();
        for key in calls {
            let _gone = maps.calls.remove(&key);
        }
        // A nested tree may write where the outer one replies: that goes on to be scanned, or no call of it would be over.
        let others: Vec<u64> = maps
            .trees
            .iter()
            .filter_map(Result::ok)
            .filter(|(id, held)| held.root == *id && *id != tree)
            .filter_map(|(id, _)| self.trees.get(&id, 0).ok())
            .flat_map(|t| [t.request, t.reply])
            .collect();
        for (channel, side) in shape.iter().flat_map(|s| [(s.request, side::REQUEST), (s.reply, side::REPLY)])
        {
            if !others.contains(&channel) {
                let _gone = maps.scans.remove(&ScanKey { channel, side: u64::from(side) });
            }
        }
        let _gone = maps.jit.remove(&tree);
    }
}
