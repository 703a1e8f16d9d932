//! Names that a tree was told before it was held to anything: between its exec and the moment in which it is known who it is, the programs
//! bind nothing. What it connected to by then goes on by what was answered.

use std::net::IpAddr;

use abi::policy::{Bound, BoundKey, NameKey, SHARED, TTL_FLOOR_NS, names};
use anyhow::{Context as _, Result};

use super::{Maps, rights};
use crate::kernel::Kernel;

impl Maps {
    /// The most specific entry that covers a name, as the programs find it.
    fn name_right(&self, policy: u64, name: &str) -> Option<u64> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let has = |name: &u64| self.names.get(&NameKey { policy, name: *name }, 0).is_ok();
        let whole = self.key.name(&name);
        if has(&whole) {
            return Some(whole);
        }
        let parents = name.match_indices('.').map(|(at, _)| name.get(at + 1..).unwrap_or_default());
        parents.map(|rest| self.key.name(rest).wrapping_add(names::BELOW)).find(has)
    }
}

impl Kernel {
    /// Binds the addresses of names that its policy has, for a short while; a connection keeps its right for as long as the name does.
    pub(crate) fn know_names(&mut self, tree: u64, all: &[(String, Vec<IpAddr>)], now_ns: u64) -> Result<()> {
        const NOEXIST: u64 = 1;
        let maps = &mut self.policy;
        let policy = u64::from(maps.trees.get(&tree, 0).context("the tree is not held")?.policy);
        for (name, addresses) in all {
            let Some(right) = maps.name_right(policy, name) else { continue };
            for address in addresses {
                let key = BoundKey { tree, addr: rights::words(*address) };
                let mut bound = Bound { right: [0; SHARED], until: [0; SHARED] };
                bound.right[0] = right;
                bound.until[0] = now_ns + TTL_FLOOR_NS;
                // What the programs have bound is newer.
                if let Err(e) = maps.addresses.insert(key, bound, NOEXIST)
                    && maps.addresses.get(&key, 0).is_err()
                {
                    return Err(e).context("the map of addresses is full");
                }
            }
        }
        Ok(())
    }
}
