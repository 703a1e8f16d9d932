//! What the loop keeps and answers beside watching: inventory, state on disk, rules, people's asks.
//!
//! # Layout
//! - [`start`]: what stands in the state directory and the rule files when the agent starts
//! - [`figures`]: how the agent is, in numbers
//! - [`live`]: servers, tools and calls, from the lines
//! - [`host`]: who is what, for the control socket; the audit trail
//! - [`rules`]: rule files and stored exceptions as one set
//! - [`reads`]: answers from the engine and the inventory; [`past`]: from the store
//! - [`changes`]: what people change, off the loop as far as it waits for the disk
//! - [`save`]: baselines to the store
//! - [`activity`]: what servers do, for sinks that ask for it
//! - [`outside`]: sinks, and what the agent tells about itself
//! - [`resolvers`]: whom this host asks for names

mod activity;
mod changes;
mod figures;
mod host;
mod live;
mod outside;
mod past;
mod reads;
mod resolvers;
pub(crate) use resolvers::configured as resolvers;
pub(crate) mod rules;
mod save;
mod start;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use engine::{
    Engine, Output,
    baseline::{Baseline, Key},
    judge::{Command, Waiting},
    output::Line,
    policy::exposure::Meter,
};
use tokio::sync::{Mutex, mpsc, oneshot};

#[cfg(test)]
pub(crate) use activity::Acted;
use activity::Activity;
pub(crate) use figures::{Figures, Sink};
pub(crate) use host::Watcher;
use live::Live;
#[cfg(test)]
pub(crate) use outside::Life;
pub(crate) use outside::{Event, user};
pub(crate) use start::{Prepared, prepare, restores, stored};

use crate::{
    config::{Again, Live as Settings},
    control::{Failure, Feeds},
    service::Service,
    sinks::Sinks,
    store::{Done, Job, Store},
};

/// Orders that wait for the loop.
pub(crate) const ORDERS: usize = 32;
/// A change must be on disk by then.
const DURABLE: Duration = Duration::from_secs(30);
/// At the end, the store has this long to write what waits.
const CLOSING: Duration = Duration::from_secs(5);

/// What only the loop can do, for those who work off the loop.
#[derive(Debug)]
pub(crate) enum Order {
    /// A decision.
    Command(Box<Command>, oneshot::Sender<Result<String, String>>),
    /// Settings that hold from now on.
    Settings(Settings),
    /// What changed since it was last stored.
    Changed(oneshot::Sender<Snapshot>),
    /// It could not be stored after all.
    Unsaved(Vec<Key>),
}

/// What is to be stored of what was learned.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    baselines: Vec<Baseline>,
    /// All that waits, when it changed.
    waiting: Option<Vec<(String, Waiting)>>,
}

/// What work off the loop needs.
#[derive(Clone, Debug)]
pub(crate) struct Hands {
    pub(crate) store: Arc<Store>,
    state_dir: Arc<Path>,
    files: Arc<rules::Files>,
    orders: mpsc::Sender<Order>,
    /// One change of rules at a time.
    changing: Arc<Mutex<()>>,
    /// One save at a time: an older one must not come last.
    saving: Arc<Mutex<()>>,
    again: Arc<Again>,
    service: Arc<Service>,
    sinks: Arc<Sinks>,
}

/// The loop's part.
#[derive(Debug)]
pub(crate) struct Desk {
    live: Live,
    hands: Hands,
    watcher: Arc<Watcher>,
    since_utc: i64,
    unsaved: BTreeSet<Key>,
    waiting: usize,
    /// Findings and sightings that the store did not take.
    refused: u64,
    feeds: Arc<Feeds>,
    /// When a sink asks for effects.
    activity: Option<Activity>,
    tally: figures::Tally,
    /// For how long rights were open.
    meter: Meter,
    /// How metrics are served, for `status`.
    pub(crate) metrics: Option<serde_json::Value>,
}

impl Desk {
    pub(crate) fn hands(&self) -> Hands {
        self.hands.clone()
    }

    pub(crate) fn watcher(&self) -> Arc<Watcher> {
        Arc::clone(&self.watcher)
    }

    /// Who watches.
    pub(crate) fn feeds(&self) -> Arc<Feeds> {
        Arc::clone(&self.feeds)
    }

    /// Takes in what the engine said. Never waits.
    pub(crate) fn observe(&mut self, outputs: &[Output], engine: &Engine) {
        for output in outputs {
            let Output::Line(line) = output else { continue };
            self.feeds.offer(line);
            if let Line::Finding(finding) = &**line {
                self.submit(Job::Finding(finding.clone()));
            }
            if let Line::Response(response) = &**line {
                self.submit(Job::Response(response.clone()));
            }
            if let Line::Effect(effect) = &**line {
                self.acted(effect);
            }
            if let Line::Call(call) = &**line
                && let (Ok(tree), Some(tool)) =
                    (u64::from_str_radix(&call.server.id, 16), call.scope.tool.as_deref())
            {
                self.meter.called(tree, tool);
            }
            self.tally.observe(line);
            self.live.observe(line, |id| engine.judge().identity_of(id).map(ToString::to_string));
            if matches!(**line, Line::Server(_)) {
                self.watcher.look(engine);
            }
        }
    }

    /// Who counts for how long rights are open.
    pub(crate) fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }

    fn submit(&mut self, job: Job) {
        if self.hands.store.submit(job, None).is_err() {
            self.refused += 1;
        }
    }

    /// Stores what was seen since the last time.
    pub(crate) fn store_inventory(&mut self) {
        let (servers, tools) = self.live.take_news();
        let mut jobs: Vec<Job> = servers.into_iter().map(|row| Job::Server(Box::new(row))).collect();
        jobs.extend(tools.into_iter().map(Job::Tool));
        if !jobs.is_empty() {
            self.submit(Job::All(jobs));
        }
    }

    /// Losses of the store, cumulative.
    pub(crate) fn losses(&self) -> Option<(String, u64)> {
        (self.refused > 0).then(|| ("store:refused".to_owned(), self.refused))
    }

    /// Tells the control socket who is what.
    pub(crate) fn look(&self, engine: &Engine) {
        self.watcher.look(engine);
    }

    /// What changed since this was last asked.
    pub(crate) fn snapshot(&mut self, engine: &mut Engine) -> Snapshot {
        let mut keys = std::mem::take(&mut self.unsaved);
        keys.extend(engine.take_dirty());
        let judge = engine.judge();
        let waiting = judge.waiting().count();
        let changed = waiting != self.waiting || !keys.is_empty() && waiting > 0;
        self.waiting = waiting;
        Snapshot {
            baselines: keys.iter().filter_map(|key| judge.baseline_of(key).cloned()).collect(),
            waiting: changed.then(|| judge.waiting().map(|(id, w)| (id.clone(), w.clone())).collect()),
        }
    }

    /// These could not be stored: next time.
    pub(crate) fn unsaved(&mut self, keys: Vec<Key>) {
        self.unsaved.extend(keys);
        self.waiting = usize::MAX;
    }

    /// Stores all that is left and ends the store. Says what it could not keep.
    pub(crate) fn close(mut self, engine: &mut Engine) {
        self.store_inventory();
        if let Some(job) = self.snapshot(engine).job() {
            self.submit(job);
        }
        self.finish_sinks();
        let stats = self.hands.store.close(CLOSING);
        if stats.queued > 0 || self.refused > 0 {
            tracing::error!(queued = stats.queued, refused = self.refused, "not all state could be stored");
        }
    }
}

impl Hands {
    /// Hands a job to the store and waits, without a thread, until it is durable.
    async fn written(&self, job: Job) -> Result<Done, Failure> {
        let (tell, told) = oneshot::channel();
        let on_done = Box::new(move |outcome| {
            // Nobody waits any more after the limit.
            drop(tell.send(outcome));
        });
        let failed = |why: &dyn std::fmt::Display| Failure::unavailable(format!("not stored: {why}"));
        self.store.submit(job, Some(on_done)).map_err(|refused| failed(&refused))?;
        match tokio::time::timeout(DURABLE, told).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(e))) => Err(failed(&e)),
            Ok(Err(_)) => Err(failed(&"the store has ended")),
            Err(_) => Err(failed(&"the disk takes too long; it may still be stored")),
        }
    }

    /// Has the loop do something.
    async fn command(&self, command: Command) -> Result<String, Failure> {
        let (tell, told) = oneshot::channel();
        self.order(Order::Command(Box::new(command), tell)).await?;
        told.await.map_err(|_gone| stopping())?.map_err(Failure::invalid)
    }

    async fn order(&self, order: Order) -> Result<(), Failure> {
        self.orders.send(order).await.map_err(|_gone| stopping())
    }
}

fn stopping() -> Failure {
    Failure::unavailable("the agent is stopping")
}

/// Runs what may wait for the disk on a thread of its own.
async fn off_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Failure::unavailable(format!("the work was dropped: {e}"))),
    }
}

fn utc_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
