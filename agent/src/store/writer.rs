//! The one thread that writes: groups jobs, commits, tells who waits, tidies up, in that order.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use super::{
    Options,
    apply::{self, Moment},
    error::{is_damage, is_own_fault},
    gaps,
    job::{Done, Failed, Job, OnDone},
    outbox::{self, Wants},
    place::Place,
    retention::{self, Clock, Slice, Sweep},
    rows::{Purged, unsigned},
    shared::Shared,
};

/// After a transaction that did not work: the first wait, doubled up to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A job on its way.
pub(super) struct Queued {
    pub(super) job: Job,
    pub(super) bytes: usize,
    pub(super) on_done: Option<OnDone>,
}

/// A purge under way, which takes many transactions.
struct Running {
    sweep: Sweep,
    taken: Purged,
    asked: Option<(usize, Option<OnDone>)>,
}

pub(super) struct Writer {
    db: Connection,
    jobs: Receiver<Queued>,
    shared: Arc<Shared>,
    options: Options,
    /// Number of this boot, once it is stored. Not at the start: on a full disk the agent must
    /// still come up.
    boot: Option<i64>,
    sweeps: VecDeque<Running>,
    /// The sinks, and what they want.
    wants: Vec<Wants>,
    clock: Clock,
    /// When to look at age and size again.
    due: Instant,
    /// Nobody else may write as long as this thread lives.
    _place: Place,
}

impl Writer {
    pub(super) fn new(
        db: Connection,
        place: Place,
        jobs: Receiver<Queued>,
        shared: Arc<Shared>,
        options: Options,
    ) -> rusqlite::Result<Self> {
        let mark: Option<String> =
            db.query_row("SELECT value FROM meta WHERE key = 'clock'", (), |row| row.get(0)).optional()?;
        let mark = mark.and_then(|mark| mark.parse().ok()).unwrap_or(0);
        let now = Instant::now();
        let clock = Clock::new(mark, now, (options.now)());
        Ok(Self {
            db,
            jobs,
            shared,
            options,
            boot: None,
            sweeps: VecDeque::new(),
            wants: Vec::new(),
            clock,
            due: now,
            _place: place,
        })
    }

    /// Works until nobody can send any more and everything is written or given up.
    pub(super) fn run(mut self) {
        while let Some(batch) = self.next() {
            self.write(batch);
            self.retain();
            self.sweep();
        }
        for Running { taken, asked, .. } in std::mem::take(&mut self.sweeps) {
            self.settle(
                asked,
                Err(Failed(format!("the agent ended; {} findings were purged", taken.findings))),
            );
        }
        if let Err(e) = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(())) {
            tracing::warn!("the WAL of the state database stays for the next start: {e}");
        }
    }

    /// What waits, up to a group; `None` at the end.
    fn next(&mut self) -> Option<Vec<Queued>> {
        let wait = if self.sweeps.is_empty() {
            self.due.saturating_duration_since(Instant::now())
        } else {
            Duration::ZERO
        };
        let first = match self.jobs.recv_timeout(wait) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        let mut batch = vec![first];
        batch.extend(self.jobs.try_iter().take(self.options.group.saturating_sub(1)));
        Some(batch)
    }

    fn write(&mut self, batch: Vec<Queued>) {
        let mut jobs = Vec::with_capacity(batch.len());
        for Queued { job, bytes, on_done } in batch {
            match job {
                Job::Purge { before } => self.sweeps.push_back(Running {
                    sweep: Sweep::Asked { before },
                    taken: Purged::default(),
                    asked: Some((bytes, on_done)),
                }),
                job => {
                    if let Job::Sinks(wants) = &job {
                        self.wants.clone_from(wants);
                    }
                    jobs.push(Queued { job, bytes, on_done });
                }
            }
        }
        if jobs.is_empty() {
            return;
        }
        match self.persist(&jobs) {
            Ok(outcomes) => {
                for (Queued { bytes, on_done, .. }, outcome) in jobs.into_iter().zip(outcomes) {
                    self.settle(Some((bytes, on_done)), outcome);
                }
                self.prune(false);
                if let Some(wake) = &self.options.wake {
                    match outbox::last(&self.db) {
                        Ok(end) => self.shared.outbox_end.store(end, Relaxed),
                        Err(e) => tracing::debug!("the end of the outbox is not known: {e}"),
                    }
                    match outbox::all(&self.db) {
                        Ok(rows) => self.shared.miss(rows),
                        Err(e) => tracing::debug!("what sinks miss is not known: {e}"),
                    }
                    wake.raise();
                }
                // After the answers: nobody waits for it but the next group.
                self.checkpoint();
            }
            Err(failed) => {
                for Queued { bytes, on_done, .. } in jobs {
                    self.settle(Some((bytes, on_done)), Err(failed.clone()));
                }
            }
        }
    }

    /// Commits these jobs, however long the disk takes to recover, unless the end was asked for.
    fn persist(&mut self, jobs: &[Queued]) -> Result<Vec<Result<Done, Failed>>, Failed> {
        let mut wait = BACK_OFF.0;
        loop {
            let started = Instant::now();
            let error = match self.commit(jobs) {
                Ok(outcomes) => {
                    self.shared.commits.fetch_add(1, Relaxed);
                    self.shared.slowest_us.fetch_max(micros(started), Relaxed);
                    self.shared.recover();
                    return Ok(outcomes);
                }
                Err(error) => error,
            };
            self.shared.retries.fetch_add(1, Relaxed);
            let because = if is_damage(&error) {
                format!("{error}; restart the agent: it moves the damaged database aside")
            } else {
                error.to_string()
            };
            self.shared.degrade(because.clone());
            if self.shared.stop.load(Relaxed) {
                return Err(Failed(format!(
                    "the agent ended while the database was not writable: {because}"
                )));
            }
            thread::park_timeout(wait);
            wait = (wait * 2).min(BACK_OFF.1);
        }
    }

    /// One transaction. A job that is wrong in itself fails alone; any other error fails all.
    fn commit(&mut self, jobs: &[Queued]) -> rusqlite::Result<Vec<Result<Done, Failed>>> {
        let mut transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let boot = match self.boot {
            Some(boot) => boot,
            None => boot_number(&transaction, &self.options.boot)?,
        };
        let moment = Moment { boot, now_ns: (self.options.now)() };
        let mut outcomes = Vec::with_capacity(jobs.len());
        for Queued { job, .. } in jobs {
            let point = transaction.savepoint()?;
            outcomes.push(match apply::apply(&point, job, moment) {
                Ok(done) => {
                    point.commit()?;
                    Ok(done)
                }
                Err(e) if is_own_fault(&e) => {
                    point.finish()?;
                    Err(Failed(e.to_string()))
                }
                Err(e) => return Err(e),
            });
        }
        transaction.commit()?;
        self.boot = Some(boot);
        Ok(outcomes)
    }

    /// Counts an outcome, then tells it.
    fn settle(&self, asked: Option<(usize, Option<OnDone>)>, outcome: Result<Done, Failed>) {
        let Some((bytes, on_done)) = asked else { return };
        let count = if outcome.is_ok() { &self.shared.written } else { &self.shared.failed };
        count.fetch_add(1, Relaxed);
        self.shared.release(bytes);
        match (on_done, outcome) {
            (Some(on_done), outcome) => on_done(outcome),
            (None, Err(e)) => tracing::warn!("a change of the state was not stored: {e}"),
            (None, Ok(_)) => {}
        }
    }

    /// Writes the WAL back once it is long enough. Passive: it waits for no reader.
    fn checkpoint(&mut self) {
        let log = |mode: &str| {
            self.db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), (), |row| {
                let (pages, done) = (row.get::<_, i64>(1)?, row.get::<_, i64>(2)?);
                Ok(unsigned(pages).saturating_sub(unsigned(done)))
            })
        };
        let waiting = log("NOOP").and_then(|waiting| {
            if waiting < u64::from(self.options.wal_pages) {
                return Ok(waiting);
            }
            let started = Instant::now();
            let waiting = log("PASSIVE")?;
            self.shared.checkpoints.fetch_add(1, Relaxed);
            self.shared.slowest_checkpoint_us.fetch_max(micros(started), Relaxed);
            Ok(waiting)
        });
        match waiting {
            Ok(waiting) => self.shared.wal_pages.store(waiting, Relaxed),
            // What is in the WAL is safe there; the next group tries again.
            Err(e) => tracing::warn!("the WAL of the state database cannot be written back: {e}"),
        }
    }

    /// Keeps the outbox within its bounds.
    fn prune(&mut self, by_age: bool) {
        // Without this boot's number nothing was ever written.
        let Some(boot) = self.boot else { return };
        let moment = Moment { boot, now_ns: (self.options.now)() };
        loop {
            match gaps::prune(&mut self.db, moment, &self.options.outbox, by_age, &self.wants) {
                Ok(true) => {}
                Ok(false) => return,
                // What is too much stays; the next group tries again.
                Err(e) => return tracing::warn!("the outbox cannot be shortened: {e}"),
            }
        }
    }

    /// Looks at age and size when it is time to.
    fn retain(&mut self) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        self.due = now + self.options.retention.every;
        let running = |sweep: Sweep| Running { sweep, taken: Purged::default(), asked: None };
        let now_ns = (self.options.now)();
        if self.clock.believe(now, now_ns) {
            let age = i64::try_from(self.options.retention.max_age.as_nanos()).unwrap_or(i64::MAX);
            self.sweeps.push_back(running(Sweep::Age { before: now_ns.saturating_sub(age) }));
            self.prune(true);
            if let Err(e) = apply::note(&self.db, "clock", &self.clock.mark_ns.to_string()) {
                tracing::debug!("the time is not noted: {e}");
            }
        } else {
            tracing::warn!("the clock jumped ahead: nothing is purged by age until it ran evenly for a day");
        }
        let max = self.options.retention.max_bytes;
        match retention::used(&self.db) {
            Ok(used) if used > max => {
                // Some room, so that it does not begin again at once.
                self.sweeps.push_back(running(Sweep::Size { target: max / 10 * 9 }));
            }
            Ok(_) => self.shared.oversize.store(false, Relaxed),
            Err(e) => tracing::warn!("the size of the state database is not known: {e}"),
        }
    }

    /// One slice of the purge that came first.
    fn sweep(&mut self) {
        let Some(mut running) = self.sweeps.pop_front() else { return };
        let before = running.taken;
        let end = running.sweep.slice(&mut self.db, (self.options.now)(), &mut running.taken);
        self.shared.purged.fetch_add(running.taken.findings - before.findings, Relaxed);
        let Running { sweep, taken, asked } = running;
        match end {
            Ok(Slice::More) => {
                self.sweeps.push_front(Running { sweep, taken, asked });
                return;
            }
            Ok(end) => {
                if matches!(sweep, Sweep::Size { .. }) {
                    self.shared.oversize.store(end == Slice::Stuck, Relaxed);
                }
                if taken != Purged::default() {
                    tracing::warn!("purged from the state database: {taken:?}, because of {sweep:?}");
                }
                self.settle(asked, Ok(Done::Purged(taken)));
            }
            // Retention comes back by itself.
            Err(e) => {
                tracing::warn!("purging the state database stopped: {e}");
                self.settle(asked, Err(Failed(format!("after {} findings: {e}", taken.findings))));
            }
        }
        self.checkpoint();
    }
}

fn boot_number(db: &Connection, uuid: &str) -> rusqlite::Result<i64> {
    let known = db.query_row("SELECT id FROM boots WHERE uuid = ?", [uuid], |row| row.get(0)).optional()?;
    match known {
        Some(number) => Ok(number),
        None => db.query_row("INSERT INTO boots (uuid) VALUES (?) RETURNING id", [uuid], |row| row.get(0)),
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
