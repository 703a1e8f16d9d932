//! State that outlives the agent: one SQLite database under the state directory.
//!
//! # Layout
//! - [`open`]: what is refused, what is moved aside, how SQLite is set up
//! - [`place`]: the directory, the lock, the files
//! - [`schema`]: tables, and the steps that bring an older database forward
//! - [`job`]: what the writer can be asked to do; [`rows`]: what is kept
//! - [`writer`]: the thread that writes; [`apply`]: from a job to rows
//! - [`outbox`]: what waits for sinks; [`gaps`]: what they will never get
//! - [`retention`]: what is dropped, when, in what order
//! - [`read`]: lists and single things, for any thread
//! - [`shared`]: counters and health
//!
//! # Files
//! `toolwarden.db` (0600) with `-wal` and `-shm`; `toolwarden.lock`, held by the agent that writes;
//! `toolwarden.db.corrupt-SECONDS`, the last three damaged databases.
//!
//! # Guarantees
//! - [`Store::submit`] never waits for the disk. A job that it does not take comes back at once, to
//!   be counted and told.
//! - Jobs are applied in the order in which they were taken. One is in the database wholly or not
//!   at all. [`Job::All`] makes many into one.
//! - A job is acknowledged (`on_done` with `Ok`) after the transaction that holds it was committed
//!   with synchronous=FULL: the WAL was synced, and neither `kill -9` nor a power cut undoes it.
//! - A full or failing disk makes the store [`State::Degraded`]. The queue is kept and tried again
//!   with back-off until it works; what does not fit the queue meanwhile is refused as above.
//! - A damaged database is moved aside, never deleted at once and never silently
//!   ([`Started::Replaced`]); one of a newer agent, or of another program, is left as it is.
//! - Order comes from numbers that the database gives out, not from clocks.
//! - Nothing is purged without an audit line with its counts in the same transaction.

mod apply;
mod error;
mod gaps;
mod job;
mod open;
mod outbox;
mod place;
mod read;
mod retention;
mod rows;
mod schema;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(crate) use error::{Error, Result};
#[cfg(test)]
pub(crate) use gaps::Gap;
#[cfg(test)]
pub(crate) use job::Failed;
pub(crate) use job::{Because, Done, Job, OnDone, Refused};
pub(crate) use open::Started;
#[cfg(test)]
pub(crate) use outbox::OutboxRow;
pub(crate) use outbox::{Bounds, Told, Type, Wants, tagged};
#[cfg(test)]
pub(crate) use place::Aside;
pub(crate) use read::{Query, Reader};
pub(crate) use retention::Retention;
pub(crate) use rows::{Ack, AuditRow, ExceptionRow, FindingRow, ModeRow, ServerRow, ToolRow};
#[cfg(test)]
pub(crate) use rows::{BaselineRow, IdentityRow, Number, Purged};
use shared::Shared;
pub(crate) use shared::{Missed, State, Stats};
use writer::{Queued, Writer};

use crate::wake::Wake;

/// How the store works.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Jobs that may wait.
    pub(crate) queue: usize,
    /// Bytes that they may hold, roughly.
    pub(crate) queue_bytes: usize,
    /// Jobs of one transaction at most.
    pub(crate) group: usize,
    /// Pages in the WAL that are worth writing back: 4 MiB, as SQLite's own default.
    pub(crate) wal_pages: u32,
    /// How much is kept.
    pub(crate) retention: Retention,
    /// How much waits for sinks.
    pub(crate) outbox: Bounds,
    /// This boot of the host: `/proc/sys/kernel/random/boot_id`.
    pub(crate) boot: String,
    /// Signalled after each commit.
    pub(crate) wake: Option<Arc<Wake>>,
    /// UTC nanoseconds.
    pub(crate) now: fn() -> i64,
    /// Do not sync: what a test of power cuts must notice.
    #[cfg(test)]
    pub(crate) lax: bool,
}

impl Default for Options {
    fn default() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            queue: 8192,
            queue_bytes: 64 << 20,
            group: 256,
            wal_pages: 1000,
            retention: Retention::default(),
            outbox: Bounds::default(),
            boot: boot.trim().to_owned(),
            wake: None,
            now,
            #[cfg(test)]
            lax: false,
        }
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| rows::signed(since.as_nanos()))
}

/// The database and the thread that writes it. Dropping it is [`Store::close`] without a limit.
#[derive(Debug)]
pub(crate) struct Store {
    jobs: Mutex<Option<SyncSender<Queued>>>,
    shared: Arc<Shared>,
    queue_bytes: usize,
    dir: PathBuf,
    started: Started,
    thread: thread::Thread,
    /// Disconnected when the thread is through.
    ended: Mutex<Receiver<()>>,
}

impl Store {
    /// Opens the database in `dir`, makes or heals it, and starts to write. The last part of `dir`
    /// is made if it is absent. Tell people what [`Store::started`] says. No [`Reader`] of this
    /// process may be open on it: looking at the file would drop its locks.
    pub(crate) fn open(dir: &Path, options: Options) -> Result<Self> {
        let place = place::Place::hold(dir)?;
        let (db, started) = open::writer(&place, (options.now)())?;
        #[cfg(test)]
        if options.lax {
            db.pragma_update(None, "synchronous", "OFF").map_err(Error::sql("set it up"))?;
        }
        let shared = Arc::new(Shared::default());
        let (jobs, queue) = sync_channel(options.queue);
        let (alive, ended) = channel::<()>();
        let queue_bytes = options.queue_bytes;
        let writer = Writer::new(db, place, queue, Arc::clone(&shared), options)
            .map_err(Error::sql("read the time of its last use"))?;
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                writer.run();
                drop(alive);
            })
            .map_err(Error::io("start a thread for it", dir))?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            shared,
            queue_bytes,
            dir: dir.to_owned(),
            started,
            thread: thread.thread().clone(),
            ended: Mutex::new(ended),
        })
    }

    /// What was found at the start.
    pub(crate) fn started(&self) -> &Started {
        &self.started
    }

    /// Hands a job to the writer without waiting. `on_done` is called when its outcome is durable.
    pub(crate) fn submit(&self, job: Job, on_done: Option<OnDone>) -> std::result::Result<(), Refused> {
        let refuse = |job: Job, because: Because| {
            self.shared.refused.fetch_add(1, Relaxed);
            Err(Refused { job: Box::new(job), because })
        };
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(jobs) = &*jobs else { return refuse(job, Because::Closed) };
        let bytes = job.bytes();
        if !self.shared.reserve(bytes, self.queue_bytes) {
            return refuse(job, Because::Full);
        }
        match jobs.try_send(Queued { job, bytes, on_done }) {
            Ok(()) => Ok(()),
            Err(e) => {
                self.shared.release(bytes);
                match e {
                    TrySendError::Full(queued) => refuse(queued.job, Because::Full),
                    TrySendError::Disconnected(queued) => refuse(queued.job, Because::Closed),
                }
            }
        }
    }

    /// Hands in a job and waits until it is durable.
    #[cfg(test)]
    pub(crate) fn commit(&self, job: Job, limit: Duration) -> std::result::Result<Done, Failed> {
        let (tell, told) = channel();
        let on_done: OnDone = Box::new(move |outcome| {
            // Nobody waits any more after the limit.
            drop(tell.send(outcome));
        });
        self.submit(job, Some(on_done)).map_err(|refused| Failed(refused.to_string()))?;
        told.recv_timeout(limit).unwrap_or_else(|_| {
            Err(Failed(match self.state() {
                State::Working => format!("not stored yet after {limit:?}; it may still be"),
                State::Degraded { because, .. } => {
                    format!("not stored yet, it is tried again: {because}")
                }
            }))
        })
    }

    /// A reader for the calling thread.
    pub(crate) fn reader(&self) -> Result<Reader> {
        Reader::open(&self.dir)
    }

    /// What each sink will never get.
    pub(crate) fn missed(&self) -> BTreeMap<String, Missed> {
        self.shared.missed()
    }

    /// Number of the last event that waits, or ever did, for sinks.
    pub(crate) fn outbox_end(&self) -> i64 {
        self.shared.outbox_end.load(Relaxed)
    }

    /// Waits until nothing is queued.
    pub(crate) fn settle(&self, limit: Duration) {
        let began = std::time::Instant::now();
        while self.stats().queued > 0 && began.elapsed() < limit {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How it is doing.
    pub(crate) fn state(&self) -> State {
        self.shared.state()
    }

    /// Counts.
    pub(crate) fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Writes what is queued, writes the WAL back and ends. On a disk that does not work each group
    /// is tried once more. Counts in the end: `queued` is what the limit left unfinished.
    pub(crate) fn close(&self, limit: Duration) -> Stats {
        self.stop(Some(limit));
        self.stats()
    }

    fn stop(&self, limit: Option<Duration>) {
        self.shared.stop.store(true, Relaxed);
        if self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take().is_none() {
            return;
        }
        self.thread.unpark();
        // Nothing is ever sent: it ends with the thread, or with the time.
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        match limit {
            Some(limit) => ended.recv_timeout(limit).ok(),
            None => ended.recv().ok(),
        };
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop(None);
    }
}
