//! What the writer thread and everybody else look at together.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::outbox::SinkRow;

/// How the store is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// What is queued gets written.
    Working,
    /// Nothing gets written. The queue is kept and tried again; nothing that was stored is lost.
    Degraded { because: String, since: Instant },
}

/// What a sink will never get, since it was configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Missed {
    /// Events that the receiver refused for good.
    pub(crate) dead: u64,
    /// Events that the outbox could not hold for it: the sum of its gaps.
    pub(crate) lost: u64,
}

/// Counts since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Jobs that wait or are being written now.
    pub(crate) queued: u64,
    /// Jobs that are in the database.
    pub(crate) written: u64,
    /// Jobs that the queue did not take.
    pub(crate) refused: u64,
    /// Jobs that the database would never take, and those given up at the end.
    pub(crate) failed: u64,
    /// Transactions.
    pub(crate) commits: u64,
    /// Transactions that did not work and were, or will be, tried again.
    pub(crate) retries: u64,
    /// The slowest transaction that worked.
    pub(crate) slowest: Duration,
    /// Times that the WAL was written back.
    pub(crate) checkpoints: u64,
    /// The slowest of them.
    pub(crate) slowest_checkpoint: Duration,
    /// Pages in the WAL that are not written back.
    pub(crate) wal_pages: u64,
    /// Findings that retention or a person purged.
    pub(crate) purged: u64,
    /// The database is larger than allowed though no finding is left to purge.
    pub(crate) oversize: bool,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) queued: AtomicU64,
    pub(super) queued_bytes: AtomicUsize,
    pub(super) written: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) slowest_us: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) slowest_checkpoint_us: AtomicU64,
    pub(super) wal_pages: AtomicU64,
    pub(super) purged: AtomicU64,
    pub(super) oversize: AtomicBool,
    pub(super) outbox_end: AtomicI64,
    /// No new tries: give up what cannot be written at once.
    pub(super) stop: AtomicBool,
    degraded: Mutex<Option<(String, Instant)>>,
    missed: Mutex<BTreeMap<String, Missed>>,
}

impl Shared {
    pub(super) fn stats(&self) -> Stats {
        Stats {
            queued: self.queued.load(Relaxed),
            written: self.written.load(Relaxed),
            refused: self.refused.load(Relaxed),
            failed: self.failed.load(Relaxed),
            commits: self.commits.load(Relaxed),
            retries: self.retries.load(Relaxed),
            slowest: Duration::from_micros(self.slowest_us.load(Relaxed)),
            checkpoints: self.checkpoints.load(Relaxed),
            slowest_checkpoint: Duration::from_micros(self.slowest_checkpoint_us.load(Relaxed)),
            wal_pages: self.wal_pages.load(Relaxed),
            purged: self.purged.load(Relaxed),
            oversize: self.oversize.load(Relaxed),
        }
    }

    /// By sink.
    pub(super) fn missed(&self) -> BTreeMap<String, Missed> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn miss(&self, rows: Vec<SinkRow>) {
        let rows = rows.into_iter().map(|row| (row.name, Missed { dead: row.dead, lost: row.lost }));
        *self.missed.lock().unwrap_or_else(PoisonError::into_inner) = rows.collect();
    }

    pub(super) fn state(&self) -> State {
        match &*self.degraded.lock().unwrap_or_else(PoisonError::into_inner) {
            None => State::Working,
            Some((because, since)) => State::Degraded { because: because.clone(), since: *since },
        }
    }

    pub(super) fn degrade(&self, because: String) {
        let mut degraded = self.degraded.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *degraded {
            Some((known, _)) if *known == because => {}
            Some((known, _)) => *known = because,
            None => {
                tracing::warn!("the state database cannot be written, trying again: {because}");
                *degraded = Some((because, Instant::now()));
            }
        }
    }

    pub(super) fn recover(&self) {
        let mut degraded = self.degraded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, since)) = degraded.take() {
            tracing::warn!("the state database is written again, after {:?}", since.elapsed());
        }
    }

    /// Room for this many bytes, taken; `false` if there is none.
    pub(super) fn reserve(&self, bytes: usize, limit: usize) -> bool {
        let taken = self.queued_bytes.fetch_update(Relaxed, Relaxed, |held| {
            // A job larger than the whole limit gets through alone: it would never otherwise.
            let sum = held.saturating_add(bytes);
            (held == 0 || sum <= limit).then_some(sum)
        });
        if taken.is_ok() {
            self.queued.fetch_add(1, Relaxed);
        }
        taken.is_ok()
    }

    pub(super) fn release(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Relaxed);
        self.queued.fetch_sub(1, Relaxed);
    }
}
