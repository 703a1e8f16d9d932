//! What servers are held to: changes that the engine asks for go into the kernel.

use std::path::Path;

use anyhow::{Context as _, Result};
use engine::policy::{Change, Policy};
use serde::Deserialize;
use zerocopy::FromBytes as _;

use super::{Agent, now_ns};
use crate::{
    kernel::{Kernel, Unsure},
    running::Adopted,
};

/// What `--hold` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hold {
    policy: Policy,
    #[serde(default)]
    dry_run: bool,
    /// Trees are cut off this long after they began, ms.
    #[serde(default)]
    cut_after_ms: Option<u64>,
    /// Bytes a second, and burst.
    #[serde(default)]
    rate: Option<(u64, u64)>,
    #[serde(skip)]
    cuts: Vec<(u64, u64)>,
}

impl Hold {
    /// Reads the file, and loads its policy.
    pub(super) fn read(file: &Path, kernel: &mut Kernel) -> Result<Self> {
        let context = || format!("cannot use {}", file.display());
        let text = std::fs::read_to_string(file).with_context(context)?;
        let hold: Self = serde_json::from_str(&text).with_context(context)?;
        kernel.load_policy(&hold.policy).with_context(context)?;
        Ok(hold)
    }
}

impl Agent {
    /// Carries out a change. What fails is loud: a server then goes on as it was held before.
    pub(super) fn change(&mut self, change: &Change) {
        let done = match change {
            Change::Load(policy) => {
                self.desk.meter().load(policy);
                self.kernel.load_policy(policy)
            }
            Change::Bind { tree, identity, dry_run } => self.kernel.bind(*tree, identity, *dry_run, now_ns()),
            Change::Names { tree, names } => self.kernel.know_names(*tree, names, now_ns()),
            Change::Release { tree } => self.kernel.release(*tree),
            Change::Unload { identity } => self.kernel.unload(identity),
        };
        if let Err(e) = done {
            tracing::error!("a policy is not in force as it should be: {e:#}");
        }
        self.retire();
    }

    /// A tree is a server's: it must leave the agent alone. One that ended meanwhile does.
    pub(super) fn is_server(&mut self, id: &str) {
        let Ok(tree) = u64::from_str_radix(id, 16) else { return };
        if let Err(e) = self.kernel.is_server(tree) {
            tracing::debug!(tree, "the agent is not guarded against it: {e:#}");
        }
    }

    /// A tree begins: `record` is its exec.
    pub(super) fn hold_new(&mut self, record: &[u8]) {
        let (Some(hold), Ok((exec, _))) = (&mut self.hold, abi::Exec::read_from_prefix(record)) else {
            return;
        };
        let tree = exec.header.tree;
        let nested = self.kernel.is_held(tree);
        if let Some(ms) = hold.cut_after_ms {
            hold.cuts.push((tree, exec.header.at_ns + ms * 1_000_000));
        }
        let (identity, dry_run, rate) = (hold.policy.identity.clone(), hold.dry_run, hold.rate);
        if nested {
            return;
        }
        if let Err(e) = self.kernel.bind(tree, &identity, dry_run, now_ns()) {
            tracing::error!(tree, "not held: {e:#}");
        }
        if rate.is_some()
            && let Err(e) = self.kernel.rate(tree, rate, now_ns())
        {
            tracing::error!(tree, "not limited: {e:#}");
        }
    }

    /// A tree that an agent before this one held.
    pub(super) fn hold_inherited(&mut self, adopted: &Adopted) {
        let Some(hold) = &self.hold else { return };
        if adopted.root
            && self.kernel.is_inherited(adopted.tree)
            && let Err(e) = self.kernel.bind(adopted.tree, &hold.policy.identity, hold.dry_run, now_ns())
        {
            tracing::error!(tree = adopted.tree, "not held anew: {e:#}");
        }
    }

    /// Says which calls are in flight, for trees whose messages the kernel did not understand. They were `unsure` before the ring was
    /// read: so the engine has seen those messages, unless there is `more`.
    pub(super) fn clear_up(&mut self, unsure: &Unsure, more: bool) {
        if unsure.trees.is_empty() {
            return;
        }
        if more || !self.kernel.has_read(unsure) {
            unsure.trees.iter().for_each(|(tree, _)| self.kernel.still_unsure(*tree));
            return;
        }
        for (tree, ceilings) in &unsure.trees {
            let calls = self.engine.in_flight(*tree);
            if let Err(e) = self.kernel.set_live(*tree, &calls, *ceilings, now_ns()) {
                tracing::error!(tree, "{e:#}");
            }
        }
    }

    /// Ends calls that nobody answered.
    pub(super) fn expire(&mut self) {
        self.retire();
        if let Err(e) = self.kernel.forget_closed(now_ns()) {
            tracing::error!("{e:#}");
        }
        match self.kernel.expire(now_ns()) {
            Ok(trees) if trees.is_empty() => {}
            Ok(trees) => {
                let expired = trees.len();
                tracing::warn!(expired, "calls were not answered in time: their rights have ended");
                trees.into_iter().for_each(|tree| self.desk.meter().expired(tree));
            }
            Err(e) => tracing::error!("{e:#}"),
        }
    }

    /// Cuts off whose time has come.
    pub(super) fn cut_due(&mut self) {
        let Some(hold) = &mut self.hold else { return };
        let now = now_ns();
        let due: Vec<u64> = hold.cuts.iter().filter(|(_, at)| *at <= now).map(|(tree, _)| *tree).collect();
        hold.cuts.retain(|(_, at)| *at > now);
        for tree in due {
            if let Err(e) = self.kernel.cut(tree, true) {
                tracing::error!(tree, "not cut off: {e:#}");
            }
        }
    }
}
