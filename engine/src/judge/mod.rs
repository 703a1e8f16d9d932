//! The judge: compares what servers do with rules, detectors and baselines, and teaches baselines.
//!
//! It sees only lines, as people do; so what it says can be checked against what was printed.
//!
//! # Layout
//! - [`config`]: what an operator sets
//! - `instance`: a running server, and what its calls did so far
//! - `effects`: an effect: rules, detectors, novelty
//! - `calls`: an ended call: numbers, and learning
//! - `beyond`: what a ratified server does that cannot be denied here
//! - `asked`: whether a baseline may be ratified, and a mode set
//! - `denied`: what the kernel denied
//! - `enforce`: who is held to which kernel policy
//! - `policy`: what rules say about it
//! - `coverage`: a hook that stops working
//! - `book`: findings, one for each cause
//! - `commands`: what people decide
//! - [`export`](mod@export): a baseline as a rule file
//! - `tampering`: what is done to the agent
//! - `words`: sentences

mod asked;
mod beyond;
mod book;
mod calls;
mod commands;
pub mod config;
mod coverage;
mod denied;
mod effects;
mod enforce;
pub mod export;
mod instance;
mod policy;
mod tampering;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use foldhash::HashMap;

use crate::{
    baseline::{Baseline, Key, State, roots::Roots},
    detect::{Escalation, Hit, Thresholds},
    finding::{Evidence, Finding, Kind, Origin},
    input::Identity,
    output::{
        Basis, Certainty, CoverageState, Line, LostLine, Scope, ScopeKind, ServerEvent, ServerLine, Time,
    },
    rules::{RuleSet, Who},
};
use book::{Book, Draft};
pub use calls::Waiting;
pub use commands::{Command, RuleText, Stored};
pub use config::{Config, Mode, ModeRule, OnDegraded};
pub(crate) use effects::is_incidental;
use enforce::Enforcement;
use instance::Instance;

/// Behaviour of calls with findings that wait for a person.
const WAITING: usize = 1024;
/// Ambient behaviour is taken in pieces of this length.
const AMBIENT_NS: u64 = 60_000_000_000;
/// Counts of open findings are told this often at most.
const TELL_NS: u64 = 1_000_000_000;
/// Detectors look at running calls this often.
const DETECT_NS: u64 = 10_000_000_000;
/// Calls after which it is decided anew what may be tested.
const ASSESS_CALLS: u64 = 256;
/// A day, ns.
const DAY_NS: i64 = 86_400_000_000_000;

/// Compares and learns.
#[derive(Debug, Default)]
pub struct Judge {
    config: Config,
    modes: Vec<ModeRule>,
    baselines: BTreeMap<Key, Baseline>,
    instances: HashMap<String, Instance>,
    /// Identities that came before the line that tells of them.
    identities: HashMap<String, Identity>,
    book: Book,
    waiting: BTreeMap<String, calls::Waiting>,
    /// Baselines that changed since they were last stored.
    dirty: BTreeSet<Key>,
    now_utc: i64,
    pub(crate) utc_minus_boot_ns: i64,
    told_ns: u64,
    detected_ns: u64,
    rules: Arc<RuleSet>,
    thresholds: Thresholds,
    resolvers: Option<Vec<IpAddr>>,
    escalation: Escalation,
    hits: Vec<Hit>,
    enforcement: Enforcement,
    /// What each hook did when it was last told of.
    hooks: BTreeMap<String, CoverageState>,
    guarded: tampering::Guarded,
}

impl Judge {
    /// It became known what of the agent's no server may change.
    pub(crate) fn guard(&mut self, files: &[String], inside: &[String]) {
        self.guarded = tampering::Guarded::new(files, inside);
    }

    /// It became known who a server is; its line follows.
    pub(crate) fn identify(&mut self, server: String, identity: &Identity) {
        self.identities.insert(server, identity.clone());
    }

    /// Looks at a line.
    pub(crate) fn observe(&mut self, line: &Line, out: &mut Vec<Finding>) {
        match line {
            Line::Server(l) => self.on_server(l),
            Line::Effect(l) => self.on_effect(l),
            Line::Call(l) => self.on_call(l),
            Line::Lost(l) => {
                self.on_lost(l);
                // Counting went on without a map entry: nothing was lost.
                if !l.cause.starts_with("full:aggregation") {
                    self.instances.values_mut().for_each(Instance::taint_all);
                }
            }
            Line::Coverage(l) => self.on_coverage(l),
            Line::Finding(_) | Line::Response(_) => {}
        }
        if self.book.waits() {
            self.book.tell(matches!(line, Line::Call(_)), |f| out.push(f));
        }
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, now_ns: u64, out: &mut Vec<Finding>) {
        if now_ns.saturating_sub(self.detected_ns) > DETECT_NS && self.config.rules {
            self.detected_ns = now_ns;
            let mut ids: Vec<String> = self.instances.keys().cloned().collect();
            ids.sort();
            for id in ids {
                let mut hits = Vec::new();
                if let Some(i) = self.instances.get_mut(&id) {
                    i.detectors.tick(now_ns, &mut hits);
                }
                let utc = now_ns as i64 + self.utc_minus_boot_ns;
                self.on_hits(&id, Time { utc, boot_ns: now_ns }, hits);
            }
        }
        if now_ns.saturating_sub(self.told_ns) > TELL_NS {
            self.told_ns = now_ns;
            self.book.tell(true, |f| out.push(f));
        }
    }

    /// Tells everything that waits.
    pub(crate) fn finish(&mut self, out: &mut Vec<Finding>) {
        let ids: Vec<String> = self.instances.keys().cloned().collect();
        for id in ids {
            self.end(&id);
        }
        self.book.tell(true, |f| out.push(f));
    }

    fn on_server(&mut self, line: &ServerLine) {
        self.now_utc = self.now_utc.max(line.time.utc);
        self.enforcement.touch();
        let id = line.server.id.clone();
        match line.event {
            ServerEvent::Found | ServerEvent::Identified => {
                let i = self.instances.entry(id.clone()).or_insert_with(|| {
                    let mut i =
                        Instance::new(Arc::clone(&line.server), Arc::clone(&line.context), line.time.boot_ns);
                    i.detectors.set_thresholds(self.thresholds.clone());
                    if let Some(resolvers) = &self.resolvers {
                        i.detectors.set_resolvers(resolvers);
                    }
                    i
                });
                i.who.server.clone_from(&line.server.name);
                i.forget_verdicts();
                i.server = Arc::clone(&line.server);
                i.context = Arc::clone(&line.context);
                i.partial |= line.startup.partial;
                if let Some(identity) = self.identities.remove(&id) {
                    self.bind(&id, &identity, line);
                }
            }
            ServerEvent::Forging | ServerEvent::Blind => {
                self.instances.values_mut().filter(|i| i.server.id == id).for_each(Instance::taint_all);
            }
            ServerEvent::Ended => {}
        }
        let mut hits = Vec::new();
        if self.config.rules
            && let Some(i) = self.instances.get_mut(&id)
        {
            i.detectors.server(line, &mut hits);
        }
        self.on_hits(&id, line.time, hits);
        if line.event == ServerEvent::Ended {
            self.end(&id);
            self.escalation.forget(&id);
        }
    }

    /// Hits that are not an effect's.
    fn on_hits(&mut self, id: &str, time: Time, hits: Vec<Hit>) {
        for hit in hits {
            let Some(i) = self.instances.get(id) else {
                return;
            };
            let sentence = format!("Server `{}` {}.", i.server.name, hit.why);
            let severity = hit.severity.unwrap_or_else(|| hit.kind.severity());
            let draft = Draft { severity, ..server_draft(i, time, hit.kind, &hit.object, sentence) };
            self.record(draft, id, None);
        }
    }

    /// A server that was killed is started again and again.
    pub(crate) fn respawned(&mut self, id: &str, time: Time, starts: u32) {
        let Some(i) = self.instances.get(id) else { return };
        let name = &i.server.name;
        let sentence = format!(
            "Server `{name}` was killed, and has been started {starts} times since: each time it is frozen."
        );
        let draft = server_draft(i, time, Kind::RespawnLoop, name, sentence);
        self.book.enter(draft);
    }

    fn on_lost(&mut self, line: &LostLine) {
        if !self.config.rules {
            return;
        }
        let mut ids: Vec<String> = self.instances.keys().cloned().collect();
        ids.sort();
        for id in ids {
            let mut hits = Vec::new();
            if let Some(i) = self.instances.get_mut(&id) {
                i.detectors.lost(line, &mut hits);
            }
            self.on_hits(&id, line.time, hits);
        }
    }

    /// A server instance gets its baseline.
    fn bind(&mut self, id: &str, identity: &Identity, line: &ServerLine) {
        let uid = line.context.uid;
        let key = Key::of(identity, uid);
        let Some(i) = self.instances.get_mut(id) else {
            return;
        };
        i.roots = Roots::new(identity, line.context.project.as_deref());
        i.who = Who {
            server: line.server.name.clone(),
            package: identity.package.clone(),
            user: Some(uid.to_string()),
            home: i.roots.home().map(str::to_owned),
            roots: i.roots.given().map(str::to_owned).collect(),
            ..Who::default()
        };
        i.forget_names();
        if i.nameless {
            // What it did so far has no names in terms of its own directories.
            i.taint_all();
        }
        // Gone before anybody could look: it is nobody in particular.
        let unknown = identity.name.is_empty() && identity.digest.is_none();
        if unknown || i.key.as_ref() == Some(&key) {
            return;
        }
        let mut told = None;
        if !self.baselines.contains_key(&key) {
            let mut baseline = Baseline::new(key.clone(), identity);
            // The latest baseline of the same name and user is what it was until now.
            let before = self
                .baselines
                .values()
                .filter(|b| b.key.uid == uid && b.key.name == key.name)
                .max_by_key(|b| b.last_utc);
            if let Some(before) = before {
                let what = match (&before.version, &identity.version) {
                    (Some(a), Some(b)) if a != b => format!("version {b} instead of {a}"),
                    _ => "another entry point under the same name".into(),
                };
                told = Some((Kind::ServerChanged, what));
                if before.state == State::Active || before.ratified.is_some() {
                    baseline.state = State::Stale { predecessor: before.key.to_string() };
                }
            } else {
                told = Some((Kind::NewServer, "it was never seen on this host before".into()));
            }
            self.baselines.insert(key.clone(), baseline);
        }
        let Some(baseline) = self.baselines.get_mut(&key) else {
            return;
        };
        i.session = baseline.begin_session(line.time.utc);
        let predecessor = match &baseline.state {
            State::Stale { predecessor } => Some(predecessor.clone()),
            _ => None,
        };
        i.compared = predecessor.and_then(|p| self.baselines.keys().find(|k| k.to_string() == p).cloned());
        i.key = Some(key.clone());
        self.dirty.insert(key.clone());
        if let Some((kind, what)) = told
            && self.config.rules
        {
            let sentence = match kind {
                Kind::NewServer => format!("Server `{}` is new: {what}.", line.server.name),
                _ => format!(
                    "Server `{}` is not what it was: {what}. It is compared with what it did before until a \
                     person ratifies it.",
                    line.server.name
                ),
            };
            let Some(i) = self.instances.get(id) else { return };
            let object = line.entry.clone().unwrap_or_else(|| line.server.name.clone());
            let draft = server_draft(i, line.time, kind, &object, sentence);
            self.book.enter(draft);
        }
        self.assess(&key);
        if let Some(other) = self.instances.get(id).and_then(|i| i.compared.clone()) {
            self.assess(&other);
        }
    }

    /// Decides what of a baseline may be tested.
    fn assess(&mut self, key: &Key) {
        let servers = self.baselines.values().filter(|b| !matches!(b.state, State::Stale { .. })).count();
        let now = self.now_utc;
        let config = &self.config;
        let Some(b) = self.baselines.get_mut(key) else {
            return;
        };
        let days = (now.saturating_sub(b.since_utc) as f64 / DAY_NS as f64).max(1.0);
        let rate = config.sessions_per_day.unwrap_or(f64::from(b.sessions) / days).max(0.01);
        if b.assess(config.budget_per_day / servers.max(1) as f64 / rate) {
            let judged = |i: &&mut Instance| i.key.as_ref() == Some(key) || i.compared.as_ref() == Some(key);
            self.instances.values_mut().filter(judged).for_each(Instance::forget_comparisons);
        }
    }

    /// A tool worked until so long after a reply, and nothing else ran: its learned settling time, if there is
    /// one, before and now.
    pub(crate) fn learn_settling(
        &mut self,
        server: &str,
        tool: &str,
        latest_ns: u64,
        configured_ns: u64,
    ) -> (Option<u64>, Option<u64>) {
        let Some((i, key)) = self.instances.get(server).and_then(|i| Some((i, i.key.as_ref()?))) else {
            return (None, None);
        };
        if !self.dirty.contains(key) {
            self.dirty.insert(key.clone());
        }
        let limits = self.config.limits();
        let Some(b) = self.baselines.get_mut(key) else {
            return (None, None);
        };
        b.learn_settling(tool, latest_ns, i.session, configured_ns, limits)
    }

    /// Learned settling times of a running server's tools.
    pub(crate) fn settling(&self, server: &str) -> impl Iterator<Item = (&str, u64)> {
        let key = self.instances.get(server).and_then(|i| i.key.as_ref());
        let known = key.and_then(|k| self.baselines.get(k)).into_iter().flat_map(Baseline::settling);
        known.filter_map(|(tool, s)| Some((tool, s.learned_ns()?)))
    }

    fn mode(&self, server: &str, tool: Option<&str>) -> Mode {
        self.mode_rule(server, tool).map(|m| m.mode).unwrap_or_default()
    }

    fn mode_rule(&self, server: &str, tool: Option<&str>) -> Option<&ModeRule> {
        // The last rule that matches decides; one for a tool beats one for its server.
        let fits = |m: &&ModeRule| m.server == "*" || m.server == server;
        let for_tool =
            self.modes.iter().rev().filter(fits).find(|m| m.tool.is_some() && m.tool.as_deref() == tool);
        let for_server = self.modes.iter().rev().filter(fits).find(|m| m.tool.is_none());
        for_tool.or(for_server)
    }

    /// Baselines, by key.
    pub fn baselines(&self) -> impl Iterator<Item = &Baseline> {
        self.baselines.values()
    }

    /// A baseline, by its key as text, or by the server's name if that is unique.
    pub fn baseline(&self, name: &str) -> Option<&Baseline> {
        let mut named = self.baselines.values().filter(|b| b.key.name == name);
        match (self.baselines.values().find(|b| b.key.to_string() == name), named.next(), named.next()) {
            (Some(b), ..) | (None, Some(b), None) => Some(b),
            _ => None,
        }
    }

    /// Mode of a server and tool, for display.
    #[must_use]
    pub fn mode_of(&self, server: &str, tool: Option<&str>) -> Mode {
        self.mode(server, tool)
    }

    /// Settling time of tools whose own is not known.
    pub(crate) fn set_settling(&mut self, settle_ns: u64) {
        self.enforcement.settle_ns = settle_ns;
    }

    /// Mode rules.
    #[must_use]
    pub fn modes(&self) -> &[ModeRule] {
        &self.modes
    }

    /// Open findings.
    pub fn open_findings(&self) -> impl Iterator<Item = &Finding> {
        self.book.all()
    }

    /// Key of the baseline of a running server, by the server's id.
    pub fn identity_of(&self, server: &str) -> Option<&Key> {
        self.instances.get(server)?.key.as_ref()
    }

    /// A baseline by its key.
    pub fn baseline_of(&self, key: &Key) -> Option<&Baseline> {
        self.baselines.get(key)
    }

    /// The key of a baseline.
    ///
    /// # Errors
    /// When there is none, or more than one that the name may mean.
    pub fn key_of(&self, name: &str) -> Result<Key, String> {
        self.find(name)
    }

    /// Behaviour that waits for a person, by finding.
    pub fn waiting(&self) -> impl Iterator<Item = (&String, &Waiting)> {
        self.waiting.iter()
    }

    /// The rules in force.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Takes the baselines that changed, to be stored.
    pub fn take_dirty(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.dirty).into_iter().collect()
    }
}

/// A finding about a server itself.
fn server_draft(i: &Instance, time: Time, kind: Kind, object: &str, sentence: String) -> Draft {
    Draft {
        server: Arc::clone(&i.server),
        context: Arc::clone(&i.context),
        identity: i.key.as_ref().map(ToString::to_string).unwrap_or_default(),
        place: "server".into(),
        scope: Arc::new(Scope {
            kind: ScopeKind::Ambient,
            tool: None,
            call: None,
            certainty: Certainty::Certain,
            basis: Basis::Lineage,
            candidates: Vec::new(),
        }),
        kind,
        severity: kind.severity(),
        origin: Origin::Detector,
        object: object.to_owned(),
        sentence,
        permit: String::new(),
        evidence: Evidence::default(),
        time,
        count: 1,
    }
}
