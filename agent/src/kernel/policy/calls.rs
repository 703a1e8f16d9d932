//! Calls in flight, where user space has to say which they are: the kernel did not understand a message, the tree can write its own
//! request channel, or nobody answered.

use abi::{
    policy::{CEILING_NS, CallKey, CallValue, Jit, jit_order},
    scan,
};
use anyhow::{Context as _, Result};

use super::{super::hooks, Kernel};

/// What the kernel knows, and user space not yet, may have begun this long ago: records wait in the ring.
const YOUNG_NS: u64 = 50_000_000;

/// How much the kernel did not understand.
pub(super) type Seen = (u64, u64, u64);

pub(super) fn seen(jit: &Jit) -> Seen {
    (jit.unsure, jit.unsure_replies, jit.ceilings)
}

/// Trees of which user space has to say which calls are in flight.
pub(crate) struct Unsure {
    /// With how many times the ceiling has become live.
    pub(crate) trees: Vec<(u64, u64)>,
    /// How far the ring was written then, for [`Kernel::has_read`].
    produced: Option<u32>,
}

impl Kernel {
    /// Trees with messages that the kernel did not understand since the last look, or whose request channel they can write themselves:
    /// user space has to say which of their calls are in flight. The records of those messages are in the ring by now.
    pub(crate) fn unsure(&mut self, now_ns: u64) -> Unsure {
        let mut out = Vec::new();
        for tree in self.policy.bound.keys() {
            let Ok(jit) = self.policy.jit.get(tree, 0) else { continue };
            // A program that was reading a request when the tree was bound did not know it: its record may come yet.
            let began = jit.ceiling_until.saturating_sub(CEILING_NS);
            if jit.unsure == 0 && jit.ceilings != jit.understood && now_ns.saturating_sub(began) < YOUNG_NS {
                continue;
            }
            let now = seen(&jit);
            let before = self.policy.seen.insert(*tree, now).unwrap_or_default();
            // Which calls were proved before is not known: then nobody opens any.
            if (now != before || jit.forged != 0) && !self.policy.inherited.forged.contains(tree) {
                out.push((*tree, jit.ceilings));
            }
        }
        let produced = if out.is_empty() { None } else { self.position(jit_order::PRODUCED) };
        Unsure { trees: out, produced }
    }

    /// Whether user space has read all records that were in the ring then. A record that another processor is still writing holds up
    /// those behind it: the ring looks empty, and is not.
    pub(crate) fn has_read(&mut self, unsure: &Unsure) -> bool {
        let consumed = self.position(jit_order::CONSUMED);
        let ahead = consumed.zip(unsure.produced).map(|(consumed, produced)| consumed.wrapping_sub(produced));
        ahead.is_some_and(|ahead| ahead <= u32::MAX / 2)
    }

    /// The lower half of a position in the ring.
    fn position(&mut self, which: u64) -> Option<u32> {
        let asked = hooks::jit(&mut self.ebpf, [0, 0, which, 0, 0]);
        asked.inspect_err(|e| tracing::error!("cannot ask how far the ring was read: {e:#}")).ok()
    }

    /// Nobody has said so yet: it is unsure at the next look, too.
    pub(crate) fn still_unsure(&mut self, tree: u64) {
        self.policy.seen.remove(&tree);
    }

    /// User space, which follows the channel completely, says which calls of such a tree are in flight: by [`abi::scan::id_hash`],
    /// and tool. The ceiling need not be live any more because of the `ceilings` that there were then.
    pub(crate) fn set_live(
        &mut self,
        tree: u64,
        calls: &[(u64, std::sync::Arc<str>)],
        ceilings: u64,
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
        hooks::jit(&mut self.ebpf, [tree, ceilings, jit_order::UNDERSTOOD, 0, now_ns])
            .map(drop)
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
        hooks::jit(&mut self.ebpf, [tree, id, bit, settle_ns, now_ns]).context("cannot open a call")?;
        self.policy.calls.get(&key, 0).context("the map of calls is full").map(|_known| true)
    }

    /// It says that a call is over.
    fn closed(&mut self, tree: u64, id: u64, now_ns: u64) -> Result<()> {
        if self.policy.calls.get(&CallKey { tree, id }, 0).is_err() {
            return Ok(());
        }
        hooks::jit(&mut self.ebpf, [tree, id, jit_order::CLOSE, 0, now_ns])
            .map(drop)
            .context("cannot close a call")
    }

    /// Ends calls that nobody answered within their time. Gives the trees that asked for them; who has to answer is not asked
    /// of those that were cancelled.
    pub(crate) fn expire(&mut self, now_ns: u64) -> Result<Vec<u64>> {
        let over: Vec<(CallKey, CallValue)> = self
            .policy
            .calls
            .iter()
            .filter_map(std::result::Result::ok)
            .filter(|(_, v)| {
                let lasts = if v.cancelled == 0 { abi::policy::CALL_NS } else { abi::policy::CANCELLED_NS };
                now_ns.saturating_sub(v.at_ns) > lasts
            })
            .collect();
        for (key, _) in &over {
            self.closed(key.tree, key.id, now_ns)?;
        }
        Ok(over.into_iter().filter(|(_, v)| v.cancelled == 0).map(|(key, _)| key.tree).collect())
    }
}
