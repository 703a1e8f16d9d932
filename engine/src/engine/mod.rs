//! The engine: one entry, all state.
//!
//! # Layout
//! - `effects`: records to effects
//! - `channels`: channel bytes to calls
//! - `clock`: what time brings
//! - `lines`: lines on their way out
//! - `respond`: what is done about findings

mod channels;
mod clock;
mod effects;
mod lines;
mod respond;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    charge::{Base, Charge},
    finding::Finding,
    input::{Fact, Input},
    judge::{Command, Judge},
    mcp::Frame,
    output::{CoverageLine, Effect, Line, LostLine, Output, Process, ServerEvent, Time},
    record,
    respond::Planner,
    server::{Ambiguity, Observed},
    tree::Tree,
};

/// A candidate that reads nothing for this long is let go: it costs every process of the host.
const QUIET_NS: u64 = 60_000_000_000;
/// A server is announced without its identity after this long.
const IDENTITY_NS: u64 = 500_000_000;
/// Records announced this long before a drain may still be counted after it.
const DRAIN_SLACK_NS: u64 = 100_000_000;
/// Names bound to addresses, and questions awaited, a server.
const NAMES: usize = 1024;

/// How a process's effects are charged.
#[derive(Clone, Debug)]
enum Birth {
    /// It serves the channel: by time.
    Window,
    /// Born while no call ran, and not the one that serves: may work for itself or for a call.
    Worker(Base),
    /// Born in these calls: theirs for life.
    Lineage(Charge),
}

#[derive(Debug)]
struct Proc {
    tree: u64,
    birth: Birth,
    shown: Arc<Process>,
}

/// Where counts go that the kernel made under a record's id.
#[derive(Clone, Debug)]
struct Announced {
    at_ns: u64,
    /// Tree whose lines they join.
    tree: u64,
    charge: Charge,
    process: Arc<Process>,
    effect: Arc<Effect>,
    id: u64,
    /// Its call had replied before.
    outlived: bool,
}

/// The engine.
#[derive(Debug, Default)]
pub struct Engine {
    now_ns: u64,
    utc_minus_boot_ns: i64,
    settle_ns: u64,
    include_arguments: bool,
    in_flight_ns: u64,
    attached_ns: Option<u64>,
    procs: HashMap<u32, Proc>,
    /// In order of age, so that the same inputs give the same outputs.
    trees: BTreeMap<u64, Tree>,
    announced: HashMap<u64, Announced>,
    lost: HashMap<String, u64>,
    next_effect: u64,
    undecodable: u64,
    frames: Vec<Frame>,
    judge: Judge,
    planner: Planner,
    findings: Vec<Finding>,
    /// What was seen after replies, by tree; the judge learns from it.
    observed: Vec<(u64, Observed)>,
    /// Of servers that are gone.
    ambiguity: Ambiguity,
}

/// Shares of effects that were ambiguous: of calls of several tools, or of none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct AmbiguousShare {
    /// Had every tool settled by the configured time.
    pub before: f64,
    /// With the learned times.
    pub after: f64,
    /// Effects, system calls left out.
    pub effects: u64,
}

impl From<Ambiguity> for AmbiguousShare {
    fn from(a: Ambiguity) -> Self {
        let share = |n: u64| n as f64 / a.effects.max(1) as f64;
        Self { before: share(a.before), after: share(a.after), effects: a.effects }
    }
}

impl Engine {
    /// An engine that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trees that are tracked: while there are none, the syscall hooks need not be attached.
    pub fn tracked(&self) -> usize {
        self.trees.len()
    }

    /// Calls of a tree that are in flight: the hash of the id as the kernel has it, where it has one, and the tool.
    pub fn in_flight(&self, tree: u64) -> Vec<(u64, std::sync::Arc<str>)> {
        let server = self.trees.get(&tree).and_then(|t| t.server.as_ref());
        server.map(|s| s.in_flight()).unwrap_or_default()
    }

    /// The server that a process belongs to: that of its tree, or of a tree around it.
    pub fn server_of(&self, pid: u32) -> Option<&str> {
        let mut tree = self.trees.get(&self.procs.get(&pid)?.tree)?;
        // Trees are few and nested by hand: no more steps than trees.
        for _ in 0..self.trees.len() {
            if let Some(server) = &tree.server {
                return Some(&server.shown.name);
            }
            tree = self.trees.get(&tree.parent?)?;
        }
        None
    }

    /// Processes of servers, with the server's name.
    pub fn members(&self) -> impl Iterator<Item = (u32, &str)> {
        self.procs.keys().filter_map(|&pid| Some((pid, self.server_of(pid)?)))
    }

    /// Processes that started servers, with the name of one of theirs.
    pub fn clients(&self) -> impl Iterator<Item = (u32, &str)> {
        self.trees.values().filter_map(|t| Some((t.client, t.server.as_ref()?.shown.name.as_str())))
    }

    /// What compares and learns.
    pub fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Baselines that changed since this was last asked.
    pub fn take_dirty(&mut self) -> Vec<crate::baseline::Key> {
        self.judge.take_dirty()
    }

    /// How many effects were ambiguous, over all servers since the start.
    pub fn ambiguous_share(&self) -> AmbiguousShare {
        let mut all = self.ambiguity;
        for s in self.trees.values().filter_map(|t| t.server.as_ref()) {
            all.add(s.ambiguity);
        }
        all.into()
    }

    /// The same, of one running server, by its id.
    pub fn ambiguous_share_of(&self, server: &str) -> Option<AmbiguousShare> {
        let server = self.trees.values().filter_map(|t| t.server.as_ref()).find(|s| s.shown.id == server)?;
        Some(server.ambiguity.into())
    }

    /// The one entry.
    pub fn apply(&mut self, input: Input<'_>, out: &mut Vec<Output>) {
        let from = out.len();
        self.take_in(input, out);
        let mut findings = std::mem::take(&mut self.findings);
        let mut settle_anew = false;
        for output in &out[from..] {
            if let Output::Line(line) = output {
                self.judge.observe(line, &mut findings);
                if let Line::Server(line) = &**line
                    && matches!(line.event, ServerEvent::Found | ServerEvent::Identified)
                {
                    settle_anew = true;
                }
            }
        }
        settle_anew |= matches!(input, Input::Fact { fact: Fact::Command(_) | Fact::Restore(_), .. });
        self.learn_settling(settle_anew);
        match input {
            Input::Tick { now_ns } => self.judge.tick(now_ns, &mut findings),
            Input::Fact { fact: Fact::Stop, .. } => self.judge.finish(&mut findings),
            _ => {}
        }
        self.respond(input, from, &findings, out);
        out.extend(findings.drain(..).map(|f| Output::Line(Box::new(Line::Finding(Box::new(f))))));
        self.findings = findings;
        let mut changes = Vec::new();
        self.judge.hold(self.now_ns, &mut changes);
        out.extend(changes.into_iter().map(Output::Policy));
    }

    fn take_in(&mut self, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Record { bytes, digests } => match record::decode(bytes) {
                Ok(record) => self.on_record(&record, digests, out),
                Err(_) => {
                    self.undecodable += 1;
                    let total = self.undecodable;
                    self.on_lost("undecodable", total, out);
                }
            },
            Input::Tick { now_ns } => {
                self.now_ns = self.now_ns.max(now_ns);
                self.on_tick(out);
            }
            Input::Fact { now_ns, fact } => {
                self.now_ns = self.now_ns.max(now_ns);
                self.on_fact(fact, out);
            }
        }
    }

    /// Teaches the judge what was seen after replies, and hands what it knows to the servers.
    fn learn_settling(&mut self, mut anew: bool) {
        for (tree, seen) in self.observed.drain(..) {
            let Some(server) = self.trees.get_mut(&tree).and_then(|t| t.server.as_mut()) else {
                continue;
            };
            let id = &server.shown.id;
            let (before, now) = self.judge.learn_settling(id, &seen.tool, seen.latest_ns, self.settle_ns);
            server.set_settling(seen.tool, now);
            // Another process of the same server may run.
            anew |= before != now;
        }
        if !anew {
            return;
        }
        for server in self.trees.values_mut().filter_map(|t| t.server.as_mut()) {
            let learned = self.judge.settling(&server.shown.id);
            let learned = learned.map(|(tool, ns)| (tool.into(), ns)).collect();
            server.settle_by(learned);
        }
    }

    fn time(&self, boot_ns: u64) -> Time {
        Time { utc: self.utc_minus_boot_ns.saturating_add(boot_ns as i64), boot_ns }
    }

    fn on_fact(&mut self, fact: &Fact, out: &mut Vec<Output>) {
        match fact {
            Fact::Start { utc_minus_boot_ns, settle_ns, include_arguments, in_flight_ns, host: _ } => {
                self.in_flight_ns = *in_flight_ns;
                self.utc_minus_boot_ns = *utc_minus_boot_ns;
                self.judge.utc_minus_boot_ns = *utc_minus_boot_ns;
                self.planner.utc_minus_boot_ns = *utc_minus_boot_ns;
                self.settle_ns = *settle_ns;
                self.judge.set_settling(*settle_ns);
                self.include_arguments = *include_arguments;
            }
            Fact::Identity(identity) => self.on_identity(identity, out),
            Fact::Existing(process) => self.on_existing(process),
            Fact::Attached => {
                self.attached_ns = Some(self.now_ns);
                for tree in self.trees.values_mut().filter(|t| t.gap_ns == u64::MAX) {
                    tree.gap_ns = self.now_ns.saturating_sub(tree.began_ns);
                }
            }
            Fact::Detached => self.attached_ns = None,
            Fact::Aggregate { id, count, bytes_out, bytes_in } => {
                self.on_aggregate(*id, *count, *bytes_out, *bytes_in, out);
            }
            Fact::Drained { up_to_ns } => {
                // A program may take the time before the switch of maps, and count after it.
                self.announced.retain(|_, a| a.at_ns.saturating_add(DRAIN_SLACK_NS) >= *up_to_ns);
                for tree in self.trees.values_mut() {
                    tree.counted |= tree.ended_ns.is_some_and(|ended| ended <= *up_to_ns);
                }
                for c in self
                    .trees
                    .values_mut()
                    .filter_map(|t| t.server.as_mut())
                    .flat_map(|s| s.closing.values_mut())
                {
                    c.drained |= c.settled_ns <= *up_to_ns;
                }
                self.tell_complete(out);
            }
            Fact::Usage(usage) => self.on_usage(usage, out),
            Fact::Lost { cause, total } => self.on_lost(cause, *total, out),
            Fact::Command(command) => {
                if !self.on_wish(command, out) {
                    out.push(Output::Answer(self.judge.command(command)));
                }
                if let Command::Configure { config } = command {
                    self.planner.set(config.responses.clone());
                }
            }
            Fact::Responded(outcome) => self.on_responded(outcome, out),
            Fact::Disarmed { disarmed } => Self::order_all(self.planner.disarm(*disarmed, self.now_ns), out),
            Fact::Guarded { files, inside } => self.judge.guard(files, inside),
            Fact::Restore(stored) => self.judge.restore((**stored).clone()),
            Fact::Stop => self.on_stop(out),
            Fact::Coverage(coverage) => {
                let line = CoverageLine { time: self.time(self.now_ns), coverage: coverage.clone() };
                out.push(Output::Line(Box::new(Line::Coverage(line))));
            }
        }
    }

    fn on_lost(&mut self, cause: &str, total: u64, out: &mut Vec<Output>) {
        let known = self.lost.entry(cause.to_owned()).or_default();
        let count = total.saturating_sub(*known);
        if count == 0 {
            return;
        }
        *known = total;
        let line = LostLine { time: self.time(self.now_ns), cause: cause.to_owned(), count, total };
        out.push(Output::Line(Box::new(Line::Lost(line))));
    }
}
