//! Records from the ring, and the hooks that they come from.

use std::collections::HashSet;

use anyhow::Result;
use aya::maps::{MapData, RingBuf};
use engine::{Input, input::Fact, record};
use tokio::time::Instant;

use super::{Agent, BATCH, DRAIN, LINGER, ROUNDS, WAITING, now_ns};
use crate::running::{self, Adopted};

impl Agent {
    /// Finds candidates among the processes that run already. Those that are born meanwhile are either
    /// children of a tracked process, which the fork program sees, or found by the next look.
    /// `only`: no other trees than those of these processes.
    pub(super) fn find_running(
        &mut self,
        ring: &mut RingBuf<MapData>,
        only: Option<&HashSet<u32>>,
    ) -> Result<()> {
        for _ in 0..ROUNDS {
            let seen = running::scan();
            // What the programs found meanwhile comes first: a process may belong to it.
            while self.take(ring)? {}
            let known = self.kernel.known();
            let mut plan = running::plan(&seen, &known, std::process::id(), now_ns());
            if let Some(roots) = only {
                running::only(&mut plan, roots, &known);
            }
            if plan.is_empty() {
                return Ok(());
            }
            self.attach()?;
            let mut missing = HashSet::new();
            for adopted in &plan {
                if missing.contains(&adopted.tree) {
                    continue;
                }
                if !self.kernel.adopt(adopted, now_ns())? {
                    // Without its root there is no tree; the next look finds its members' place.
                    missing.extend(adopted.root.then_some(adopted.tree));
                    continue;
                }
                self.found(adopted)?;
            }
        }
        Ok(())
    }

    /// Trees that an agent before this one tracked go on, held as they were until it is known who they are.
    pub(super) fn take_over(&mut self) -> Result<()> {
        for adopted in self.kernel.inherited() {
            self.found(&adopted)?;
            self.hold_inherited(&adopted);
        }
        Ok(())
    }

    /// Tells the engine of a process that ran before.
    fn found(&mut self, adopted: &Adopted) -> Result<()> {
        self.waiting.adopted(adopted);
        self.ingest.join(adopted.seen.stdin);
        self.ingest.join(adopted.seen.stdout);
        let mut existing = running::describe(adopted);
        existing.held = adopted.root && self.kernel.is_held(adopted.tree);
        existing.unwatched = self.kernel.is_unwatched(adopted);
        if existing.unwatched {
            tracing::warn!(
                pid = existing.tgid,
                "it started while no agent ran: what it did since is not known"
            );
        }
        self.fact(&Fact::Existing(existing))
    }

    /// Finds candidates again that were let go, once they read something.
    pub(super) fn look_again(&mut self, ring: &mut RingBuf<MapData>) -> Result<()> {
        if self.looked_at.elapsed() < WAITING {
            return Ok(());
        }
        self.looked_at = Instant::now();
        let woken = self.waiting.woken(self.looked_at.into_std());
        if woken.is_empty() { Ok(()) } else { self.find_running(ring, Some(&woken)) }
    }

    /// Feeds records to the engine; true when there may be more.
    pub(super) fn take(&mut self, ring: &mut RingBuf<MapData>) -> Result<bool> {
        for _ in 0..BATCH {
            let Some(item) = ring.next() else {
                return Ok(false);
            };
            let mut record = std::mem::take(&mut self.record);
            record.clear();
            record.extend_from_slice(item.get(..record::used(&item)).unwrap_or_default());
            drop(item);
            let timed = self.told.measures.begin(&record);
            if self.watch.claims(&record) {
                self.record = record;
                continue;
            }
            let new_tree = is_new_tree(&record);
            if new_tree {
                self.attach()?;
                self.hold_new(&record);
            }
            self.count_child(&record);
            let mut digests = std::mem::take(&mut self.digests);
            digests.clear();
            self.ingest.mask(&mut record, &mut digests);
            let done = self.apply(&Input::Record { bytes: &record, digests: &digests });
            self.record = record;
            self.digests = digests;
            self.told.measures.end(timed);
            done?;
        }
        Ok(true)
    }

    pub(super) fn attach(&mut self) -> Result<()> {
        self.idle_since = None;
        if !self.kernel.attached() {
            self.kernel.attach_syscalls()?;
            self.fact(&Fact::Attached)?;
        }
        Ok(())
    }

    /// Gives the other processes of the host their speed back when nothing is tracked.
    pub(super) fn rest(&mut self) -> Result<()> {
        if self.engine.tracked() > 0 || self.watch.is_busy() || !self.kernel.attached() {
            self.idle_since = None;
            return Ok(());
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() > LINGER { self.detach() } else { Ok(()) }
    }

    pub(super) fn detach(&mut self) -> Result<()> {
        self.idle_since = None;
        self.kernel.detach_syscalls()?;
        self.fact(&Fact::Detached)
    }

    pub(super) fn on_counters(&mut self) -> Result<()> {
        self.cut_due();
        // Without a tree nobody looks at rights as they are: the last one's end is counted here.
        self.count_rights();
        self.kernel.tend_pins(now_ns());
        self.recount_children();
        let mut losses = self.counts.losses();
        let misses = self.kernel.misses();
        if misses > 0 {
            losses.push(("missed:program-runs".into(), misses));
        }
        losses.extend(self.desk.losses());
        self.desk.look(&self.engine);
        self.look_at_arms()?;
        for (cause, total) in losses {
            self.fact(&Fact::Lost { cause, total })?;
        }
        if self.engine.tracked() > 0 && !self.draining && self.drained_at.elapsed() > DRAIN {
            self.start_drain();
        }
        self.rest()
    }
}

/// Whether a record says that a new tree began: the hooks must be attached at once.
fn is_new_tree(record: &[u8]) -> bool {
    use zerocopy::FromBytes as _;
    engine::record::kind_of(record) == Some(abi::kind::EXEC)
        && abi::Exec::read_from_prefix(record)
            .is_ok_and(|(exec, _)| exec.flags & abi::exec_flag::NEW_TREE != 0)
}
