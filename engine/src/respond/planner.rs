//! Findings, people and time to orders. Pure: all time is an argument.

use std::{collections::BTreeMap, sync::Arc};

pub use super::subject::{Subject, Wish};
use super::{
    Action, Cause, Order, Outcome, ProcessKey, ResponseLine, Settings, Verdict,
    breaker::Breaker,
    held::{Held, ladder},
    quarantine::Quarantine,
};
use crate::{
    finding::{Finding, Kind},
    output::Time,
    rules::written::Response,
};

/// A release that failed is tried again after this.
const RETRY_NS: u64 = 5_000_000_000;
/// Orders that wait for their outcome; older ones are forgotten: the agent answers at once.
const PENDING: usize = 1024;

/// What an outcome leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The record.
    pub line: ResponseLine,
    /// What the person is told who asked for it.
    pub answer: Option<Result<String, String>>,
}

#[derive(Clone, Debug)]
struct Pending {
    subject: Subject,
    order: Order,
    cause: Cause,
    instead_of: Option<Action>,
    at_ns: u64,
    /// Of a kill.
    quarantine_ns: u64,
}

/// Decides what is done.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    settings: Settings,
    held: BTreeMap<u64, (Subject, Held)>,
    pending: BTreeMap<String, Pending>,
    breaker: Breaker,
    quarantine: Quarantine,
    orders: u64,
    disarmed: bool,
    /// For times of records.
    pub(crate) utc_minus_boot_ns: i64,
}

impl Planner {
    /// Changes the settings; what is in force stays so.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// What is in force now, by tree.
    pub fn in_force(&self) -> impl Iterator<Item = (&Subject, impl Iterator<Item = Action> + '_)> {
        self.held.values().filter(|(_, h)| !h.until.is_empty()).map(|(s, h)| (s, h.until.keys().copied()))
    }

    /// Identities that are frozen when they start, and until when.
    pub fn quarantined(&self, now: u64) -> impl Iterator<Item = (&str, u64)> {
        self.quarantine.held(now)
    }

    /// Whether responses are disarmed.
    #[must_use]
    pub fn disarmed(&self) -> bool {
        self.disarmed
    }

    /// Something was found. `response`: of its rule, if a rule says so. `enforce`: the mode carries responses out.
    pub fn finding(
        &mut self,
        finding: &Finding,
        response: Option<&[Response]>,
        subject: &Subject,
        enforce: bool,
        now: u64,
    ) -> Option<Order> {
        // What is found about responses calls for none.
        if finding.kind == Kind::RespawnLoop {
            return None;
        }
        let by_severity = || self.settings.by_severity.get(&finding.severity).map(Vec::as_slice);
        let steps = ladder(response.or_else(by_severity)?);
        let dry_run = self.settings.dry_run || !enforce;
        if self.disarmed && !dry_run {
            return None;
        }
        let (_, held) = self.held.entry(subject.tree).or_insert_with(|| (subject.clone(), Held::default()));
        let mut action = held.next(&steps, dry_run, now, &self.settings)?;
        let process = process(finding).filter(|p| !subject.own.contains(&p.tgid));
        // Who acted is the server itself, or is not known exactly.
        if action == Action::KillChild && process.is_none() {
            action = Action::KillServer;
        }
        held.climbed(action, dry_run, now);
        let mut instead_of = None;
        if !self.breaker.take(&subject.key(), dry_run, action, now, &self.settings) {
            if held.until.contains_key(&Action::CutNetwork) {
                return None;
            }
            instead_of = Some(std::mem::replace(&mut action, Action::CutNetwork));
        }
        held.ending |= action == Action::KillServer && !dry_run;
        let for_ns = match instead_of {
            // No breaker lifts it.
            Some(_) => 0,
            None => self.time_of(action),
        };
        let rule = match &finding.origin {
            crate::finding::Origin::Rule { rule, .. } if response.is_some() => Some(rule.clone()),
            _ => None,
        };
        let cause = Cause::Finding { finding: finding.id.clone(), kind: finding.kind, rule };
        let process = process.filter(|_| action == Action::KillChild);
        let order = self.order(action, subject, process, for_ns, dry_run, now);
        let quarantine_ns = self.settings.quarantine_ns;
        Some(self.enter(order, subject, cause, instead_of, quarantine_ns, now))
    }

    /// A person wants something.
    ///
    /// # Errors
    /// When it cannot be wanted.
    pub fn wish(&mut self, wish: &Wish, subject: &Subject, now: u64) -> Result<Order, String> {
        let Wish { action, for_ns, dry_run, who } = wish;
        if self.disarmed && !dry_run && *action != Action::Release {
            return Err("responses are disarmed: `toolwarden arm` ends that".into());
        }
        let for_ns = match action {
            Action::KillChild => return Err("a person ends a child with `kill`".into()),
            Action::KillServer | Action::Release => 0,
            Action::Throttle | Action::CutNetwork | Action::Freeze => {
                for_ns.unwrap_or_else(|| self.time_of(*action))
            }
        };
        let (_, held) = self.held.entry(subject.tree).or_insert_with(|| (subject.clone(), Held::default()));
        held.ending |= *action == Action::KillServer && !dry_run;
        if *action == Action::Release && !dry_run {
            self.quarantine.lift(&subject.key(), now);
        }
        let quarantine_ns = wish.for_ns.unwrap_or(self.settings.quarantine_ns);
        let order = self.order(*action, subject, None, for_ns, *dry_run, now);
        Ok(self.enter(order, subject, Cause::Person { who: who.clone() }, None, quarantine_ns, now))
    }

    /// A person lets an identity start again, by its key or name. How many were held.
    pub fn lift(&mut self, name: &str, now: u64) -> usize {
        self.quarantine.lift(name, now)
    }

    /// It became known who a server is. An order, when its identity is held; and how often it started, when
    /// that is a loop. `before`: what it did until now.
    pub fn identified(&mut self, subject: &Subject, before: &str, now: u64) -> (Option<Order>, Option<u32>) {
        if let Some((known, _)) = self.held.get_mut(&subject.tree) {
            known.clone_from(subject);
            return (None, None);
        }
        let Some(entry) = self.quarantine.start(&subject.key(), now) else {
            return (None, None);
        };
        let looping = (entry.starts >= self.settings.respawns.max(1)).then_some(entry.starts);
        let dry_run = self.settings.dry_run;
        if self.disarmed && !dry_run {
            return (None, looping);
        }
        self.held.insert(subject.tree, (subject.clone(), Held::default()));
        let for_ns = entry.until_ns.saturating_sub(now).max(1);
        let cause =
            Cause::Quarantine { response: entry.response, starts: entry.starts, before: before.to_owned() };
        // One decision holds for all that start: it spends no further freeze of the budget.
        let order = self.order(Action::Freeze, subject, None, for_ns, dry_run, now);
        (Some(self.enter(order, subject, cause, None, 0, now)), looping)
    }

    /// A server has ended: what was done to it is tidied up.
    pub fn ended(&mut self, tree: u64, now: u64) -> Option<Order> {
        let (subject, held) = self.held.remove(&tree)?;
        (!held.until.is_empty()).then(|| self.release(&subject, None, Cause::Ended, now))
    }

    /// Time passes.
    pub fn tick(&mut self, now: u64) -> Vec<Order> {
        let mut due = Vec::new();
        for (subject, held) in self.held.values_mut() {
            let over: Vec<Action> = held.until.iter().filter(|(_, t)| **t <= now).map(|(a, _)| *a).collect();
            for action in over {
                held.until.remove(&action);
                due.push((subject.clone(), action));
            }
        }
        due.into_iter().map(|(s, action)| self.release(&s, Some(action), Cause::TimeUp, now)).collect()
    }

    /// The disarm file is there, or is not any more. All that is in force ends.
    pub fn disarm(&mut self, disarmed: bool, now: u64) -> Vec<Order> {
        self.disarmed = disarmed;
        if disarmed { self.release_all(&Cause::Disarmed, now) } else { Vec::new() }
    }

    /// The agent stops.
    pub fn stop(&mut self, now: u64) -> Vec<Order> {
        self.release_all(&Cause::Stopped, now)
    }

    /// What became of an order.
    pub fn responded(&mut self, outcome: &Outcome, now: u64) -> Option<Settled> {
        let p = self.pending.remove(&outcome.id)?;
        let Order { action, only, for_ns, dry_run, tree, .. } = p.order;
        let done = matches!(outcome.verdict, Verdict::Done | Verdict::Partly);
        if let Some((_, held)) = self.held.get_mut(&tree) {
            match action {
                Action::Release if outcome.verdict == Verdict::Failed => {
                    if let Some(only) = only {
                        held.until.insert(only, now.saturating_add(RETRY_NS));
                    }
                }
                Action::Release if !dry_run => held.lifted(only),
                Action::Throttle | Action::CutNetwork | Action::Freeze if done => {
                    held.until.insert(action, p.ends_ns());
                }
                Action::KillServer if !done && !dry_run => held.ending = false,
                _ => {}
            }
        }
        if action == Action::KillServer && done && p.quarantine_ns > 0 {
            let until = now.saturating_add(p.quarantine_ns);
            self.quarantine.put(&p.subject.key(), &p.subject.server.name, &outcome.id, until);
        }
        let ends = (for_ns > 0 && done).then(|| self.time(p.ends_ns()));
        let undo = match action {
            Action::Throttle | Action::CutNetwork | Action::Freeze if done => {
                Some(format!("toolwarden respond release {}", p.subject.server.id))
            }
            Action::KillServer if done && p.quarantine_ns > 0 => {
                let who = self.name(&p.subject);
                Some(format!(
                    "an ended process stays so; `toolwarden respond release {who}` lets it start again"
                ))
            }
            _ => None,
        };
        let line = ResponseLine {
            time: self.time(p.at_ns),
            server: Arc::clone(&p.subject.server),
            context: Arc::clone(&p.subject.context),
            identity: p.subject.identity.clone(),
            id: outcome.id.clone(),
            cause: p.cause,
            action,
            only,
            instead_of: p.instead_of,
            dry_run,
            until: ends,
            verdict: outcome.verdict,
            result: outcome.result.clone(),
            before: outcome.before.clone(),
            after: outcome.after.clone(),
            processes: outcome.processes,
            spared: outcome.spared.clone(),
            took_ns: outcome.took_ns,
            undo,
        };
        let answer = matches!(line.cause, Cause::Person { .. }).then(|| {
            let said = format!("{} (response {})", outcome.result, outcome.id);
            match outcome.verdict {
                Verdict::Refused | Verdict::Failed => Err(outcome.result.clone()),
                Verdict::Done | Verdict::Partly | Verdict::Would | Verdict::Nothing => Ok(said),
            }
        });
        Some(Settled { line, answer })
    }

    fn name<'a>(&self, subject: &'a Subject) -> &'a str {
        if subject.identity.is_empty() { &subject.server.name } else { &subject.identity }
    }

    fn release_all(&mut self, cause: &Cause, now: u64) -> Vec<Order> {
        let held: Vec<Subject> =
            self.held.values().filter(|(_, h)| !h.until.is_empty()).map(|(s, _)| s.clone()).collect();
        held.iter().map(|s| self.release(s, None, cause.clone(), now)).collect()
    }

    fn release(&mut self, subject: &Subject, only: Option<Action>, cause: Cause, now: u64) -> Order {
        let order = Order { only, ..self.order(Action::Release, subject, None, 0, false, now) };
        self.enter(order, subject, cause, None, 0, now)
    }

    fn time_of(&self, action: Action) -> u64 {
        match action {
            Action::Throttle => self.settings.throttle_ns,
            Action::Freeze => self.settings.freeze_ns,
            Action::CutNetwork => self.settings.cut_ns,
            Action::KillChild | Action::KillServer | Action::Release => 0,
        }
    }

    fn order(
        &mut self,
        action: Action,
        subject: &Subject,
        process: Option<ProcessKey>,
        for_ns: u64,
        dry_run: bool,
        now: u64,
    ) -> Order {
        self.orders += 1;
        let mut h = blake3::Hasher::new();
        for word in [subject.tree, self.orders, now, self.utc_minus_boot_ns.cast_unsigned()] {
            h.update(&word.to_le_bytes());
        }
        Order {
            id: h.finalize().to_hex()[..16].to_owned(),
            action,
            tree: subject.tree,
            server: subject.server.name.clone(),
            process,
            only: None,
            for_ns,
            dry_run,
        }
    }

    fn enter(
        &mut self,
        order: Order,
        subject: &Subject,
        cause: Cause,
        instead_of: Option<Action>,
        quarantine_ns: u64,
        now: u64,
    ) -> Order {
        if self.pending.len() >= PENDING {
            let oldest = self.pending.iter().min_by_key(|(_, p)| p.at_ns).map(|(id, _)| id.clone());
            oldest.map(|id| self.pending.remove(&id));
        }
        let pending = Pending {
            subject: subject.clone(),
            order: order.clone(),
            cause,
            instead_of,
            at_ns: now,
            quarantine_ns,
        };
        self.pending.insert(order.id.clone(), pending);
        order
    }

    fn time(&self, boot_ns: u64) -> Time {
        Time { utc: self.utc_minus_boot_ns.saturating_add(boot_ns as i64), boot_ns }
    }
}

impl Pending {
    fn ends_ns(&self) -> u64 {
        if self.order.for_ns == 0 { u64::MAX } else { self.at_ns.saturating_add(self.order.for_ns) }
    }
}

/// The process that acted last, if it is known exactly.
fn process(finding: &Finding) -> Option<ProcessKey> {
    let last = finding.evidence.effects.last().map(|seen| &seen.process);
    let p = last.or(finding.evidence.processes.first())?;
    (p.start_ns > 0).then_some(ProcessKey { tgid: p.pid, start_ns: p.start_ns })
}
