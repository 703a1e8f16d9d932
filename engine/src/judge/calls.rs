//! An ended call: its numbers, and what is learned of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    AMBIENT_NS, ASSESS_CALLS, Judge, Mode, WAITING, book::Draft, effects::place, instance::Pending, words,
};
use crate::{
    baseline::{
        Dimension, Item, Key, ScopeBaseline, ScopeKey, State,
        family::When,
        numbers::{Metric, ln_e_value},
    },
    finding::{Evidence, Kind, Origin, Severity},
    output::{CallLine, CallStatus},
};

/// Calls of a session before its means say anything.
const MEAN_CALLS: u64 = 8;

/// Behaviour that is not learned, because a person should look at a finding in it first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    key: Key,
    scope: ScopeKey,
    first: bool,
    session: u32,
    utc: i64,
    items: Vec<(Dimension, Vec<String>, u64)>,
    numbers: Vec<(Metric, u64)>,
}

impl Waiting {
    pub(super) fn is_of(&self, key: &Key) -> bool {
        self.key == *key
    }
}

impl Judge {
    pub(super) fn on_call(&mut self, line: &CallLine) {
        self.now_utc = self.now_utc.max(line.time.utc);
        let id = line.server.id.clone();
        let (Some(call), Some(tool)) = (&line.scope.call, line.scope.tool.clone()) else {
            return;
        };
        self.end_startup(&id, line.time.utc);
        let Some(i) = self.instances.get_mut(&id) else {
            return;
        };
        let pending = i.calls.remove(&call.number).unwrap_or_default();
        let calls = i.called.entry(tool.clone()).or_default();
        *calls += 1;
        let first = *calls == 1;
        if i.called.len() > 4096 {
            // A client that calls tools that do not exist: names are not kept for ever.
            i.called.clear();
        }
        i.ended_calls += 1;
        let mean = i.ended_calls >= MEAN_CALLS;
        let scope = ScopeKey::Tool(tool);
        let known = i.compared.as_ref().or(i.key.as_ref()).and_then(|key| self.baselines.get(key));
        if let Some(b) = known.filter(|b| b.knows(&scope)) {
            i.creep.add(ln_e_value(b.rank(&scope, Metric::BytesOut, line.bytes_out)));
        }
        let session_numbers = [
            (Metric::MeanBytesOut, i.bytes_out / i.ended_calls),
            (Metric::MeanQuestions, i.questions / i.ended_calls),
            (Metric::Creep, i.creep.thousandths()),
        ];
        let numbers = numbers(line, &pending);
        let mut tainted = self.new_tool(line, &scope);
        let bases = [(&scope, first), (&ScopeKey::Whole, false)];
        tainted |= self.judge_numbers(line, &scope, &bases, &numbers);
        if mean {
            let session = &ScopeKey::Session;
            let odd = self.judge_numbers(line, session, &[(session, false)], &session_numbers);
            tainted |= odd;
            if let Some(i) = self.instances.get_mut(&id) {
                i.session_odd |= odd;
                // The highest so far: a mean of few calls strays further than one of many.
                let mut highest = session_numbers;
                for (now, before) in highest.iter_mut().zip(i.session_numbers.iter().flatten()) {
                    now.1 = now.1.max(before.1);
                }
                i.session_numbers = Some(highest);
            }
        }
        tainted |= self.ruled(line, &scope);
        let answered = matches!(line.status, CallStatus::Ok | CallStatus::ToolError | CallStatus::Error);
        let Some(i) = self.instances.get_mut(&id) else {
            return;
        };
        i.remember(line);
        let (Some(key), session) = (i.key.clone(), i.session) else {
            return;
        };
        let counted = std::mem::replace(&mut i.counted, true);
        let utc = line.time.utc;
        if let Some(b) = self.baselines.get_mut(&key)
            && !counted
        {
            b.trials += 1;
        }
        if pending.tainted || tainted {
            self.wait(&key, &scope, first, session, utc, &pending, &numbers);
        } else if answered {
            self.learn(&key, &scope, first, session, utc, &pending, &numbers);
        }
        if self.baselines.get(&key).is_some_and(|b| b.calls % ASSESS_CALLS == 0) {
            self.assess(&key);
        }
    }

    /// What detectors say of a call, and limits that people set.
    fn ruled(&mut self, line: &CallLine, scope: &ScopeKey) -> bool {
        let Some(i) = self.instances.get_mut(&line.server.id).filter(|_| self.config.rules) else {
            return false;
        };
        let mut hits = Vec::new();
        i.detectors.call(line, &mut hits);
        let mut found: Vec<(Kind, Severity, String, String, Origin)> = Vec::new();
        for hit in hits {
            let severity = hit.severity.unwrap_or_else(|| hit.kind.severity());
            let sentence =
                format!("{}, server `{}` {}.", words::when(&line.scope), line.server.name, hit.why);
            found.push((hit.kind, severity, hit.object, sentence, Origin::Detector));
        }
        let selected = i.policy.of(&self.rules, &i.who, scope);
        for e in selected.exceeded(line) {
            let sentence = format!(
                "{}, server `{}` had {} for {}; rule `{}` ({}) allows {}.",
                words::when(&line.scope),
                line.server.name,
                e.metric.show(e.value),
                e.metric.name(),
                e.rule.id,
                e.rule.place,
                e.metric.show(e.limit)
            );
            let origin = Origin::Rule { rule: e.rule.id.clone(), place: e.rule.place.to_string() };
            found.push((Kind::LimitHit, e.rule.severity, e.metric.name().to_owned(), sentence, origin));
        }
        let any = !found.is_empty();
        let call = line.scope.call.as_ref().map(|c| c.number);
        for (kind, severity, object, sentence, origin) in found {
            if let Some(draft) = self.call_draft(line, scope, kind, severity, object, sentence, origin) {
                self.record(draft, &line.server.id, call);
            }
        }
        any
    }

    /// A tool that a server with a known set of tools did not have.
    fn new_tool(&mut self, line: &CallLine, scope: &ScopeKey) -> bool {
        let Some(i) = self.instances.get(&line.server.id) else {
            return false;
        };
        let key = i.compared.as_ref().or(i.key.as_ref());
        let Some(b) = key.and_then(|k| self.baselines.get(k)).filter(|b| b.state == State::Active) else {
            return false;
        };
        // One call of a name that does not exist is an error reply, not a tool.
        if b.scope(scope).is_some() || !self.config.baselines || line.status != CallStatus::Ok {
            return false;
        }
        let tool = line.scope.tool.as_deref().unwrap_or_default();
        let known = b.tools().count();
        let sentence = format!(
            "Server `{}` was asked for tool `{tool}`, and answered; in {} calls since it is known it was asked \
             for {known} other tools only.",
            line.server.name, b.calls
        );
        let origin = Origin::Baseline { sessions: u64::from(b.trials), calls: b.calls, bound: b.bound() };
        let draft = self.call_draft(
            line,
            scope,
            Kind::NewTool,
            Kind::NewTool.severity(),
            tool.into(),
            sentence,
            origin,
        );
        if let Some(draft) = draft
            && self.mode(&line.server.name, Some(tool)) != Mode::Learn
        {
            self.book.enter(draft);
        }
        // A new tool is learned: its finding says so once.
        false
    }

    /// Is a number far beyond all that was seen in any of these scopes (and of first calls of it)? True when it is.
    fn judge_numbers(
        &mut self,
        line: &CallLine,
        scope: &ScopeKey,
        bases: &[(&ScopeKey, bool)],
        numbers: &[(Metric, u64)],
    ) -> bool {
        if !self.config.baselines || self.mode(&line.server.name, line.scope.tool.as_deref()) == Mode::Learn {
            return false;
        }
        let Some(i) = self.instances.get(&line.server.id) else {
            return false;
        };
        let key = i.compared.as_ref().or(i.key.as_ref());
        let Some(b) = key.and_then(|k| self.baselines.get(k)).filter(|b| b.state == State::Active) else {
            return false;
        };
        let bases: Vec<_> = bases.iter().filter_map(|(base, first)| Some((b.scope(base)?, *first))).collect();
        let mut drafts = Vec::new();
        for &(metric, value) in numbers {
            let beyond = |(base, first): &(&ScopeBaseline, bool)| {
                base.number_limit(*first, metric).filter(|(limit, ..)| value > *limit)
            };
            let Some((_, max, n)) = bases.iter().find_map(beyond) else {
                continue;
            };
            let kind = match metric {
                Metric::BytesOut => Kind::Volume,
                Metric::MeanBytesOut | Metric::MeanQuestions | Metric::Creep => Kind::SlowExfiltration,
                _ => Kind::Exhaustion,
            };
            // The second and further alarms of one call would say the same.
            let severity = match metric {
                Metric::Duration | Metric::ReplyBytes | Metric::Threads => Severity::Low,
                _ => kind.severity(),
            };
            let sentence = format!(
                "{}, server `{}` had {} for {}; the highest of {n} before was {}.",
                words::when(&line.scope),
                line.server.name,
                words::amount(metric, value),
                metric.name(),
                words::amount(metric, max),
            );
            let origin = Origin::Baseline { sessions: u64::from(b.trials), calls: b.calls, bound: b.bound() };
            drafts.push((kind, severity, metric.name().to_owned(), sentence, origin));
        }
        let any = !drafts.is_empty();
        let call = line.scope.call.as_ref().map(|c| c.number);
        for (kind, severity, object, sentence, origin) in drafts {
            if let Some(draft) = self.call_draft(line, scope, kind, severity, object, sentence, origin) {
                self.record(draft, &line.server.id, call);
            }
        }
        any
    }

    #[expect(clippy::too_many_arguments, reason = "all parts of one finding")]
    pub(super) fn call_draft(
        &self,
        line: &CallLine,
        scope: &ScopeKey,
        kind: Kind,
        severity: Severity,
        object: String,
        sentence: String,
        origin: Origin,
    ) -> Option<Draft> {
        let i = self.instances.get(&line.server.id)?;
        Some(Draft {
            server: Arc::clone(&i.server),
            context: Arc::clone(&i.context),
            identity: i.key.as_ref().map(ToString::to_string).unwrap_or_default(),
            place: place(std::slice::from_ref(scope)),
            scope: Arc::clone(&line.scope),
            kind,
            severity,
            origin,
            object,
            sentence,
            permit: String::new(),
            evidence: Evidence { calls_before: i.recent.iter().cloned().collect(), ..Evidence::default() },
            time: line.time,
            count: 1,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "all parts of one behaviour")]
    fn learn(
        &mut self,
        key: &Key,
        scope: &ScopeKey,
        first: bool,
        session: u32,
        utc: i64,
        pending: &Pending,
        numbers: &[(Metric, u64)],
    ) {
        let limits = self.config.limits();
        let Some(b) = self.baselines.get_mut(key) else {
            return;
        };
        let when = When { session, utc, first_call: first, count: 0 };
        let items = || pending.items.iter().map(|(item, count)| (&**item, *count));
        b.learned_call(scope, session, limits);
        b.learn(scope, items(), when, limits);
        b.learned_call(&ScopeKey::Whole, session, limits);
        let shared = pending.shared.iter().map(|(item, count)| (&**item, *count));
        b.learn(&ScopeKey::Whole, items().chain(shared), when, limits);
        b.learn_numbers(scope, first, numbers, session, limits);
        b.learn_numbers(&ScopeKey::Whole, false, numbers, session, limits);
        if !self.dirty.contains(key) {
            self.dirty.insert(key.clone());
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all parts of one behaviour")]
    fn wait(
        &mut self,
        key: &Key,
        scope: &ScopeKey,
        first: bool,
        session: u32,
        utc: i64,
        pending: &Pending,
        numbers: &[(Metric, u64)],
    ) {
        let text = |item: &Item| item.levels.iter().map(ToString::to_string).collect();
        for (.., cause) in &pending.causes {
            let Some(finding) = self.book.get(cause) else {
                continue;
            };
            if self.waiting.len() >= WAITING && !self.waiting.contains_key(&finding.id) {
                continue;
            }
            self.waiting.entry(finding.id.clone()).or_insert_with(|| Waiting {
                key: key.clone(),
                scope: scope.clone(),
                first,
                session,
                utc,
                items: pending.items.iter().map(|(i, n)| (i.dimension, text(i), *n)).collect(),
                numbers: numbers.to_vec(),
            });
        }
    }

    /// A person says that what a finding is about is to be expected: it is learned after all.
    pub(super) fn learn_waiting(&mut self, finding: &str) -> bool {
        let Some(w) = self.waiting.remove(finding) else {
            return false;
        };
        let mut pending = Pending::default();
        for (dimension, levels, count) in w.items {
            let levels = levels.into_iter().map(Arc::from).collect();
            pending.items.push((Arc::new(Item { dimension, levels }), count));
        }
        self.learn(&w.key, &w.scope, w.first, w.session, w.utc, &pending, &w.numbers);
        self.assess(&w.key);
        true
    }

    /// The first call has ended: the startup was that of a working server, and is learned.
    fn end_startup(&mut self, id: &str, utc: i64) {
        let Some(i) = self.instances.get_mut(id) else {
            return;
        };
        let Some(key) = i.key.clone() else { return };
        let Some(pending) = i.startup.take() else {
            return;
        };
        let (session, partial) = (i.session, i.partial);
        if !partial && !pending.tainted {
            self.learn(&key, &ScopeKey::Startup, false, session, utc, &pending, &[]);
        }
    }

    /// A piece of time without a call is over.
    pub(super) fn flush_ambient(&mut self, id: &str, now: u64, last: bool) {
        let Some(i) = self.instances.get_mut(id) else {
            return;
        };
        if !last && now.saturating_sub(i.ambient_ns) < AMBIENT_NS {
            return;
        }
        i.ambient_ns = now;
        let pending = std::mem::take(&mut i.ambient);
        let (Some(key), session) = (i.key.clone(), i.session) else {
            return;
        };
        // A server that nobody called teaches nothing: a crash loop is no experience.
        if pending.tainted || !i.counted {
            return;
        }
        let numbers = [
            (Metric::BytesOut, pending.bytes_out),
            (Metric::Connects, pending.connects),
            (Metric::Files, pending.files),
            (Metric::Writes, pending.writes),
        ];
        let utc = self.now_utc;
        self.learn(&key, &ScopeKey::Ambient, false, session, utc, &pending, &numbers);
    }

    /// Learns the numbers of a session as a whole when it is over: while it lasts it would raise its own limits,
    /// little by little.
    fn learn_session(&mut self, key: &Key, session: u32, numbers: &[(Metric, u64); 3]) {
        let limits = self.config.limits();
        let Some(b) = self.baselines.get_mut(key) else {
            return;
        };
        b.learned_call(&ScopeKey::Session, session, limits);
        b.learn_numbers(&ScopeKey::Session, false, numbers, session, limits);
    }

    /// A server ended.
    pub(super) fn end(&mut self, id: &str) {
        self.flush_ambient(id, 0, true);
        let Some(i) = self.instances.remove(id) else {
            return;
        };
        if let Some(key) = i.key {
            self.enforcement.was_at(&key, i.roots, i.who);
            if let Some(numbers) = i.session_numbers.filter(|_| !i.session_odd) {
                self.learn_session(&key, i.session, &numbers);
            }
            self.assess(&key);
            self.dirty.insert(key);
        }
    }
}

/// Numbers of a call that say something: those of the whole process only when no other call ran.
fn numbers(line: &CallLine, pending: &Pending) -> Vec<(Metric, u64)> {
    let mut numbers = vec![
        (Metric::BytesOut, line.bytes_out),
        (Metric::BytesIn, line.bytes_in),
        (Metric::Files, line.files),
        (Metric::Connects, line.connects),
        (Metric::Children, line.children),
        (Metric::ReplyBytes, line.reply_bytes),
        (Metric::Writes, pending.writes),
    ];
    if matches!(line.status, CallStatus::Ok | CallStatus::ToolError | CallStatus::Error) {
        numbers.push((Metric::Duration, line.duration_ns));
    }
    if !line.overlapped {
        numbers.push((Metric::Cpu, line.cpu_ns));
        numbers.push((Metric::Memory, line.peak_rss));
        numbers.push((Metric::Threads, line.threads));
        numbers.push((Metric::Descriptors, line.fd_slots));
    }
    numbers
}
