//! Responses carried out: pidfds and signals, cgroups, and a watchdog that ends what is over when the agent
//! cannot.
//!
//! A tree's processes are asked of the kernel's maps, again and again until no new one appears. Each is held
//! by a pidfd and checked against its start time before anything is done to it. What is done is written down
//! first, with how it was before.
//!
//! # Layout
//! - this module: an order, and what comes of it
//! - [`process`]: pidfds, start times, whom no order touches
//! - [`layout`]: where this host has its cgroups; [`group`]: one of them
//! - [`gather`](mod@gather): brings a tree into a cgroup of ours, or finds that of its container
//! - [`freeze`], [`throttle`], [`kill`]: one action each
//! - [`scope`]: a cgroup that systemd knows of
//! - [`record`]: what is in force, on disk; [`release`](mod@release): the way back
//! - [`watchdog`]: the small process beside the agent

mod freeze;
mod gather;
mod group;
mod kill;
pub(crate) mod layout;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod release;
mod scope;
#[cfg(test)]
mod tests;
mod throttle;
pub(crate) mod watchdog;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use engine::respond::{Action, Order, Outcome, ProcessKey, Spared, Verdict};

use layout::Layout;
use process::Never;
use record::{Record, Records};

/// A file that disarms all agents of the host, for when none of them answers.
const DISARM: &str = "/run/toolwarden/disarm";
/// Another process may be at a record for this long; then the agent goes on without it.
const LOCK: Duration = Duration::from_millis(20);

/// What the kernel's maps know and hold.
pub(crate) trait Ground {
    /// Processes of a tree and of those that are nested in it.
    fn members(&self, tree: u64) -> Vec<ProcessKey>;
    /// Takes the network from a tree, or gives it back.
    fn cut(&mut self, tree: u64, on: bool) -> Result<(), String>;
    /// Limits a tree's network, bytes a second; `None`: no limit.
    fn rate(&mut self, tree: u64, limit: Option<Rate>) -> Result<(), String>;
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) bytes_per_s: u64,
    pub(crate) burst: u64,
}

/// Where a disarm file of this agent is.
pub(crate) fn disarm_file(state_dir: &Path) -> PathBuf {
    state_dir.join("disarm")
}

/// Whether responses are disarmed.
pub(crate) fn is_disarmed(state_dir: &Path) -> bool {
    disarm_file(state_dir).exists() || Path::new(DISARM).exists()
}

/// Carries orders out.
#[derive(Debug)]
pub(crate) struct Contain {
    state_dir: PathBuf,
    /// Where the agent's maps are pinned: the watchdog ends cuts there.
    pin_dir: PathBuf,
    records: Records,
    layout: Layout,
    scopes: scope::Scopes,
    own: Never,
    watchdog: Option<Child>,
    /// For tests: their program has no such verb.
    #[cfg(test)]
    unwatched: bool,
    /// As last told to the engine.
    disarmed: bool,
}

/// Whom an order reaches.
#[derive(Debug, Default)]
struct Reach {
    keys: Vec<ProcessKey>,
    spared: Vec<Spared>,
}

impl Contain {
    pub(crate) fn new(state_dir: &Path, layout: Layout) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            pin_dir: PathBuf::new(),
            records: Records::of_state(state_dir),
            scopes: scope::Scopes::of_host(&layout),
            layout,
            own: Never::of_self(BTreeSet::new()),
            watchdog: None,
            #[cfg(test)]
            unwatched: false,
            disarmed: false,
        }
    }

    /// The same, with maps that outlive the agent.
    pub(crate) fn pinned(self, pin_dir: &Path) -> Self {
        Self { pin_dir: pin_dir.to_owned(), ..self }
    }

    /// The watchdog's process, while there is one.
    pub(crate) fn watchdog(&self) -> Option<u32> {
        self.watchdog.as_ref().map(Child::id)
    }

    /// The directories that servers are put into.
    pub(crate) fn homes(&self) -> Vec<PathBuf> {
        self.layout.homes()
    }

    /// Carries an order out. Never fails: what goes wrong is in the outcome.
    pub(crate) fn perform(
        &mut self,
        order: &Order,
        ground: &mut impl Ground,
        clients: BTreeSet<u32>,
    ) -> Outcome {
        let began = Instant::now();
        let mut never = self.own.clone();
        never.clients(clients);
        if let Some(child) = &self.watchdog {
            never.add(child.id());
        }
        let mut outcome = if order.dry_run {
            self.would(order, ground, &never)
        } else if order.action != Action::Release && is_disarmed(&self.state_dir) {
            refused("responses are disarmed: `toolwarden arm` ends that")
        } else {
            match order.action {
                Action::Freeze => self.freeze(order, ground, &never, began),
                Action::Throttle => self.throttle(order, ground, &never),
                Action::KillChild => self.kill_child(order, ground, &never, began),
                Action::KillServer => self.kill_server(order, ground, &never, began),
                Action::CutNetwork => self.cut(order, ground),
                Action::Release => self.release(order, ground),
            }
        };
        outcome.id.clone_from(&order.id);
        if outcome.took_ns == 0 {
            outcome.took_ns = nanos(began);
        }
        if !order.dry_run {
            self.watch();
        }
        outcome
    }

    /// What may be touched of a tree.
    fn reach(order: &Order, ground: &impl Ground, never: &Never) -> Reach {
        let mut reach = Reach::default();
        for key in ground.members(order.tree) {
            match never.because(key.tgid) {
                Some(why) => reach.spared.push(Spared { pid: key.tgid, because: why.into() }),
                None => reach.keys.push(key),
            }
        }
        reach
    }

    /// The record of a tree, or a new one.
    fn record(&self, tree: u64, server: &str, keys: &[ProcessKey]) -> Record {
        self.known(tree, keys).unwrap_or_else(|| Record::new(tree, server))
    }

    /// The record of a tree: this agent's, or one that an agent before it made for the same processes. Trees have
    /// other numbers in each agent; the cgroups keep their names.
    fn known(&self, tree: u64, keys: &[ProcessKey]) -> Option<Record> {
        if let Some(known) = self.records.get(tree) {
            return Some(known);
        }
        let same = |r: &Record| {
            keys.iter().any(|k| r.places.get(&k.tgid).is_some_and(|p| p.ticks == process::ticks(*k)))
        };
        let mut record = self.records.all().into_iter().find(same)?;
        let old = std::mem::replace(&mut record.tree, tree);
        if let Err(e) = self.records.put(&record).and_then(|()| self.records.remove(old)) {
            tracing::warn!("an old record of containment stays: {e}");
        }
        Some(record)
    }

    fn would(&self, order: &Order, ground: &impl Ground, never: &Never) -> Outcome {
        let Reach { keys, spared } = Self::reach(order, ground, never);
        let n = keys.len();
        let result = match order.action {
            Action::Freeze => format!("would freeze {n} processes ({})", self.freezer_name()),
            Action::Throttle => format!("would throttle {n} processes: {}", self.throttle_plan()),
            Action::CutNetwork => format!("would take the network from {n} processes"),
            Action::KillServer => format!("would end {n} processes"),
            Action::KillChild => {
                let pid = order.process.map_or(0, |p| p.tgid);
                format!("would end process {pid} and its descendants")
            }
            Action::Release => format!("would release {n} processes"),
        };
        Outcome { verdict: Verdict::Would, result, processes: n as u64, spared, ..Outcome::default() }
    }

    fn cut(&mut self, order: &Order, ground: &mut impl Ground) -> Outcome {
        let keys = ground.members(order.tree);
        if let Err(why) = ground.cut(order.tree, true) {
            return refused(why);
        }
        let mut record = self.record(order.tree, &order.server, &keys);
        record.cut = true;
        record.cut_until_ns = until_ns(order.for_ns);
        if let Err(e) = self.records.put(&record) {
            tracing::error!("a record of containment cannot be written: {e}");
        }
        Outcome {
            verdict: Verdict::Done,
            result: format!("{} processes have no network", keys.len()),
            before: "with network".into(),
            after: "without network".into(),
            processes: keys.len() as u64,
            ..Outcome::default()
        }
    }

    fn release(&mut self, order: &Order, ground: &mut impl Ground) -> Outcome {
        let _lock = self.records.lock(LOCK);
        let mut record = self.record(order.tree, &order.server, &ground.members(order.tree));
        let mut said = Vec::new();
        let mut problems = Vec::new();
        let lifts = |action| order.only.is_none_or(|o| o == action);
        if lifts(Action::CutNetwork) && record.cut {
            match ground.cut(order.tree, false) {
                Ok(()) => {
                    record.cut = false;
                    said.push("it has the network again".to_owned());
                }
                Err(why) => problems.push(why),
            }
        }
        if lifts(Action::Throttle) && record.throttle.is_some() {
            // Where there is no rate, there is none to lift.
            let _none = ground.rate(order.tree, None);
        }
        let before = in_force(&record);
        let done = release::release(&self.layout, &self.records, &mut record, order.only);
        problems.extend(done.problems);
        if done.any {
            said.push(format!("{} processes are where they were before", done.back));
        }
        if done.elsewhere > 0 {
            said.push(format!("{} are in the cgroup above theirs, which is gone", done.elsewhere));
        }
        let verdict = match (problems.is_empty(), said.is_empty()) {
            (false, _) => Verdict::Failed,
            (true, true) => Verdict::Nothing,
            (true, false) => Verdict::Done,
        };
        if verdict == Verdict::Nothing {
            said.push("nothing of the kind is in force".into());
        }
        said.extend(problems);
        Outcome {
            verdict,
            result: said.join("; "),
            before,
            after: in_force(&record),
            processes: done.back + done.elsewhere,
            ..Outcome::default()
        }
    }

    /// Releases what an agent before this one holds, by the server's name then. `None`: nothing of that name.
    pub(crate) fn release_named(
        &mut self,
        name: &str,
        ground: &mut impl Ground,
    ) -> Option<Result<String, String>> {
        let named = |r: &Record| r.server == name || format!("{:x}", r.tree) == name;
        let found: Vec<Record> = self.records.all().into_iter().filter(named).collect();
        if found.is_empty() {
            return None;
        }
        let mut said = Vec::new();
        for record in found {
            let done = self.release(&release_of(&record), ground);
            said.push(done.result);
            if done.verdict == Verdict::Failed {
                return Some(Err(said.join("; ")));
            }
        }
        Some(Ok(said.join("; ")))
    }

    /// A clean stop leaves nothing behind, whoever did it.
    pub(crate) fn close(&mut self, ground: &mut impl Ground) {
        for record in self.records.all() {
            let done = self.release(&release_of(&record), ground);
            if done.verdict == Verdict::Failed {
                tracing::error!("{} cannot be released: {}", record.server, done.result);
            }
        }
    }

    /// Sees to it that a watchdog is at work while anything is in force.
    fn watch(&mut self) {
        #[cfg(test)]
        if self.unwatched {
            return;
        }
        if let Some(child) = &mut self.watchdog {
            match child.try_wait() {
                Ok(None) => return,
                Ok(Some(_)) | Err(_) => self.watchdog = None,
            }
        }
        // Nothing to watch, or that of an agent before this one does.
        if self.records.all().is_empty() || self.records.watch().is_none() {
            return;
        }
        let spawned = Command::new("/proc/self/exe")
            .arg("watchdog")
            .arg("--state-dir")
            .arg(&self.state_dir)
            .arg("--pin-dir")
            .arg(&self.pin_dir)
            // It may hold secrets of sinks.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match spawned {
            Ok(child) => self.watchdog = Some(child),
            Err(e) => tracing::error!("no watchdog: what is in force ends only while the agent runs: {e}"),
        }
    }

    /// Time passes: true or false when responses were disarmed or armed since.
    pub(crate) fn tick(&mut self) -> Option<bool> {
        self.watch();
        let now = is_disarmed(&self.state_dir);
        (now != self.disarmed).then(|| {
            self.disarmed = now;
            now
        })
    }
}

fn release_of(record: &Record) -> Order {
    Order {
        id: String::new(),
        action: Action::Release,
        tree: record.tree,
        server: record.server.clone(),
        process: None,
        only: None,
        for_ns: 0,
        dry_run: false,
    }
}

/// What stands in a record, in words.
fn in_force(record: &Record) -> String {
    let mut all = Vec::new();
    if record.freeze.is_some() {
        all.push("frozen");
    }
    if record.throttle.is_some() {
        all.push("throttled");
    }
    if record.cut {
        all.push("without network");
    }
    if all.is_empty() { "free".into() } else { all.join(", ") }
}

fn refused(why: impl Into<String>) -> Outcome {
    Outcome { verdict: Verdict::Refused, result: why.into(), ..Outcome::default() }
}

fn failed(why: impl Into<String>) -> Outcome {
    Outcome { verdict: Verdict::Failed, result: why.into(), ..Outcome::default() }
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// When something that lasts so long is over, ns since boot.
fn until_ns(for_ns: u64) -> u64 {
    if for_ns == 0 { 0 } else { boot_ns().saturating_add(for_ns) }
}

pub(crate) fn boot_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    t.tv_sec.cast_unsigned().saturating_mul(1_000_000_000).saturating_add(t.tv_nsec.cast_unsigned())
}
