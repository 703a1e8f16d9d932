//! The book of findings: one for each cause, counted on while it lasts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    finding::{Evidence, Finding, Kind, Origin, Seen, Severity},
    output::{Context, Scope, ServerRef, Time},
};

/// Acts kept as evidence.
const EFFECTS: usize = 16;
/// A finding that nobody acknowledged is counted on for this long; then the same cause is a new one.
const OPEN_NS: u64 = 24 * 3_600_000_000_000;
/// Open findings. Beyond that, the one that was quiet for longest is closed: if its cause comes again, it is a new finding. Nothing is hidden so,
/// however many causes somebody makes.
const MOST_OPEN: usize = 4096;

/// What makes two findings one.
pub(super) type Cause = (String, String, Kind, String);

/// A finding that is made.
pub(super) struct Draft {
    pub(super) server: Arc<ServerRef>,
    pub(super) context: Arc<Context>,
    pub(super) identity: String,
    /// Scope in words, for the cause: the same deviation of another call of a tool is the same cause.
    pub(super) place: String,
    pub(super) scope: Arc<Scope>,
    pub(super) kind: Kind,
    pub(super) severity: Severity,
    pub(super) origin: Origin,
    pub(super) object: String,
    pub(super) sentence: String,
    pub(super) permit: String,
    pub(super) evidence: Evidence,
    pub(super) time: Time,
    pub(super) count: u64,
}

#[derive(Debug)]
struct Open {
    finding: Finding,
    began_ns: u64,
    told: bool,
    /// Key in the order of acts.
    acted: u64,
}

/// Open findings.
#[derive(Debug, Default)]
pub(super) struct Book {
    open: BTreeMap<Cause, Open>,
    changed: BTreeSet<Cause>,
    /// The order in which causes acted last.
    order: BTreeMap<u64, Cause>,
    acts: u64,
    /// Closed ones with something that was not told.
    closed: Vec<Finding>,
}

impl Book {
    /// Enters a finding, or counts on the one that is open for its cause. Returns the cause.
    pub(super) fn enter(&mut self, draft: Draft) -> Cause {
        let cause = (draft.identity.clone(), draft.place.clone(), draft.kind, draft.object.clone());
        let now = draft.time.boot_ns;
        let expired = self.open.get(&cause).is_some_and(|o| now.saturating_sub(o.began_ns) > OPEN_NS);
        if expired {
            self.retire(&cause);
        }
        while !self.open.contains_key(&cause) && self.open.len() >= MOST_OPEN {
            let Some(quietest) = self.order.first_key_value().map(|(_, cause)| cause.clone()) else { break };
            self.retire(&quietest);
        }
        if let Some(open) = self.open.get_mut(&cause) {
            let f = &mut open.finding;
            f.count = f.count.saturating_add(draft.count);
            f.severity = f.severity.max(draft.severity);
            if f.sentence.len() < draft.sentence.len() && draft.severity >= f.severity {
                f.sentence = draft.sentence;
            }
            add(&mut f.evidence, draft.evidence.effects);
            self.acted(&cause);
        } else {
            let finding = Finding {
                id: id(&cause, draft.time.utc),
                revision: 0,
                time: draft.time,
                server: draft.server,
                context: draft.context,
                identity: draft.identity,
                scope: draft.scope,
                kind: draft.kind,
                severity: draft.severity,
                origin: draft.origin,
                object: draft.object,
                sentence: draft.sentence,
                count: draft.count,
                evidence: draft.evidence,
                taxonomy: draft.kind.taxonomy(),
                permit: draft.permit,
            };
            self.acts += 1;
            self.order.insert(self.acts, cause.clone());
            self.open.insert(cause.clone(), Open { finding, began_ns: now, told: false, acted: self.acts });
        }
        self.changed.insert(cause.clone());
        cause
    }

    /// Counts a further act of a finding.
    pub(super) fn count(&mut self, cause: &Cause, seen: Option<Seen>, count: u64) {
        if let Some(open) = self.open.get_mut(cause) {
            open.finding.count = open.finding.count.saturating_add(count);
            add(&mut open.finding.evidence, seen.into_iter().collect());
            self.changed.insert(cause.clone());
            self.acted(cause);
        }
    }

    /// Raises a finding; a lower severity changes nothing.
    pub(super) fn raise(&mut self, cause: &Cause, severity: Severity, because: &str) {
        if let Some(open) = self.open.get_mut(cause)
            && open.finding.severity < severity
        {
            open.finding.severity = severity;
            open.finding.sentence.push(' ');
            open.finding.sentence.push_str(because);
            self.changed.insert(cause.clone());
        }
    }

    /// Says more of a finding, once.
    pub(super) fn note(&mut self, cause: &Cause, more: &str) {
        if let Some(open) = self.open.get_mut(cause)
            && !open.finding.sentence.contains(more)
        {
            open.finding.sentence.push(' ');
            open.finding.sentence.push_str(more);
            self.changed.insert(cause.clone());
        }
    }

    /// Raises the other finding of a pair, of the same server.
    pub(super) fn raise_partner(
        &mut self,
        cause: &Cause,
        kind: Kind,
        object: &str,
        severity: Severity,
        because: &str,
    ) {
        let other = self.open.keys().find(|c| c.0 == cause.0 && c.2 == kind && c.3 == object).cloned();
        if let Some(other) = other {
            self.raise(&other, severity, because);
        }
    }

    pub(super) fn get(&self, cause: &Cause) -> Option<&Finding> {
        self.open.get(cause).map(|o| &o.finding)
    }

    /// An open finding of a server, wherever in it, that is at least as bad.
    pub(super) fn find(&self, identity: &str, kind: Kind, object: &str, severity: Severity) -> Option<Cause> {
        let same = |(c, o): &(&Cause, &Open)| {
            c.0 == identity && c.2 == kind && c.3 == object && o.finding.severity >= severity
        };
        self.open.iter().find(same).map(|(cause, _)| cause.clone())
    }

    /// What has not been told: findings at once, their counts when `all`.
    pub(super) fn tell(&mut self, all: bool, mut tell: impl FnMut(Finding)) {
        self.closed.drain(..).for_each(&mut tell);
        let mut later = BTreeSet::new();
        for cause in std::mem::take(&mut self.changed) {
            let Some(open) = self.open.get_mut(&cause) else {
                continue;
            };
            if open.told && !all {
                later.insert(cause);
                continue;
            }
            open.told = true;
            open.finding.revision += 1;
            tell(open.finding.clone());
        }
        self.changed = later;
    }

    /// Anything that waits to be told.
    pub(super) fn waits(&self) -> bool {
        !self.changed.is_empty() || !self.closed.is_empty()
    }

    /// A person has seen it: the next one of its cause is a new finding.
    pub(super) fn close(&mut self, id: &str) -> Option<Finding> {
        let cause = self.open.iter().find(|(_, o)| o.finding.id == id).map(|(c, _)| c.clone())?;
        self.remove(&cause).map(|o| o.finding)
    }

    /// It acted just now.
    fn acted(&mut self, cause: &Cause) {
        if let Some(open) = self.open.get_mut(cause)
            && let Some(cause) = self.order.remove(&open.acted)
        {
            self.acts += 1;
            open.acted = self.acts;
            self.order.insert(self.acts, cause);
        }
    }

    /// Closes one that nobody acknowledged; what was not told of it is told still.
    fn retire(&mut self, cause: &Cause) {
        let untold = self.changed.contains(cause);
        if let Some(mut open) = self.remove(cause)
            && untold
        {
            open.finding.revision += 1;
            self.closed.push(open.finding);
        }
    }

    fn remove(&mut self, cause: &Cause) -> Option<Open> {
        self.changed.remove(cause);
        let open = self.open.remove(cause)?;
        self.order.remove(&open.acted);
        Some(open)
    }

    /// Open findings.
    pub(super) fn all(&self) -> impl Iterator<Item = &Finding> {
        self.open.values().map(|o| &o.finding)
    }
}

fn add(evidence: &mut Evidence, seen: Vec<Seen>) {
    for s in seen {
        let room = evidence.effects.len() < EFFECTS;
        match evidence.effects.iter_mut().find(|e| e.effect == s.effect && e.process == s.process) {
            Some(known) => known.count = known.count.saturating_add(s.count),
            None if room => evidence.effects.push(s),
            None => evidence.more = evidence.more.saturating_add(1),
        }
    }
}

fn id(cause: &Cause, utc: i64) -> String {
    let mut h = blake3::Hasher::new();
    for part in [&cause.0, &cause.1, cause.2.id(), &cause.3] {
        h.update(part.as_bytes());
        h.update(&[0]);
    }
    h.update(&utc.to_le_bytes());
    h.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
