//! Figures of the evaluation.

use std::collections::BTreeMap;

use e2e::corpus::{Recording, Role, Variant};
use engine::finding::{Kind, Severity};

use crate::{
    arm::Arm,
    replay::{Seen, Session, Trained},
};

/// A malicious variant in one arm.
#[derive(Clone, Debug)]
pub(crate) struct Caught {
    pub(crate) kind: String,
    pub(crate) severity: Severity,
    /// From the begin of the call that does it, ms; none when no call does.
    pub(crate) after_ms: Option<u64>,
    /// One of the kinds that were expected.
    pub(crate) as_expected: bool,
}

/// A benign session in one arm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Benign {
    pub(crate) calls: u64,
    pub(crate) findings: u64,
    /// Medium or worse.
    pub(crate) serious: u64,
    pub(crate) last: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By arm.
    pub(crate) benign: BTreeMap<String, Vec<(String, Benign)>>,
    /// By variant, then arm.
    pub(crate) variants: BTreeMap<String, (Variant, BTreeMap<String, Option<Caught>>)>,
    /// Novelty of held-out recordings, with their calls.
    pub(crate) novelty: Vec<(String, u64, f64)>,
    /// Server, arm, state of its baseline, findings while it learned.
    pub(crate) states: Vec<(String, String, String, u64)>,
    /// Findings in benign sessions, by arm, server and kind.
    pub(crate) false_kinds: BTreeMap<(String, String, String), u64>,
    pub(crate) effects: u64,
    pub(crate) ambiguous: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        for (arm, sessions) in other.benign {
            self.benign.entry(arm).or_default().extend(sessions);
        }
        self.variants.extend(other.variants);
        self.novelty.extend(other.novelty);
        self.states.extend(other.states);
        self.false_kinds.extend(other.false_kinds);
        self.effects += other.effects;
        self.ambiguous += other.ambiguous;
    }

    pub(crate) fn sort(&mut self) {
        self.novelty.sort_by(|a, b| a.0.cmp(&b.0));
        self.states.sort();
        self.benign.values_mut().for_each(|s| s.sort_by(|a, b| a.0.cmp(&b.0)));
    }

    pub(crate) fn trained(&mut self, server: &str, arm: &Arm, trained: &Trained) {
        let state =
            trained.summaries.iter().map(|s| format!("{}: {}", s.state, s.because)).collect::<Vec<_>>();
        self.states.push((server.into(), arm.name(), state.join("; "), trained.findings));
    }

    pub(crate) fn benign(&mut self, recording: &Recording, arm: &Arm, seen: &Seen) {
        if let (Some(novelty), true) = (recording.novelty, arm.baselines && arm.rules) {
            self.novelty.push((recording.server.clone(), recording.calls, novelty));
        }
        for (n, s) in seen.sessions.iter().enumerate() {
            let findings: Vec<_> = s.findings.iter().filter(|f| !s.again.contains(&f.id)).collect();
            let serious = findings.iter().filter(|f| f.severity >= Severity::Medium).count() as u64;
            let one = Benign {
                calls: s.calls,
                findings: findings.len() as u64,
                serious,
                last: recording.role == Role::Final,
            };
            let name = format!("{} {n:04}", recording.server);
            self.benign.entry(arm.name()).or_default().push((name, one));
            for f in findings {
                let key =
                    (arm.name(), recording.server.clone(), format!("{} {}", f.severity.name(), f.kind.id()));
                *self.false_kinds.entry(key).or_default() += 1;
            }
            if arm.baselines && arm.rules {
                self.effects += s.effects;
                self.ambiguous += s.ambiguous;
            }
        }
    }

    pub(crate) fn malicious(&mut self, recording: &Recording, arm: &Arm, seen: &Seen, verbose: bool) {
        for variant in &recording.variants {
            let caught = seen.sessions.get(variant.session).and_then(|s| caught(variant, s));
            if verbose && caught.is_none() && variant.kernel_visible {
                println!("missed {} [{}] {:?}: {}", variant.id, arm.name(), variant.kinds, variant.how);
                for f in seen.sessions.get(variant.session).iter().flat_map(|s| &s.findings) {
                    println!(
                        "    {} {} at {}: {}",
                        f.severity.name(),
                        f.kind.id(),
                        f.time.boot_ns,
                        f.sentence
                    );
                }
            }
            let entry =
                self.variants.entry(variant.id.clone()).or_insert_with(|| (variant.clone(), BTreeMap::new()));
            entry.1.insert(arm.name(), caught);
        }
    }
}

/// The finding that tells of a variant: of an expected kind if there is one, else of any kind that is at least
/// medium or that only malice explains, at or after the time of the act.
fn caught(variant: &Variant, session: &Session) -> Option<Caught> {
    let begin = variant.call.and_then(|n| session.began.get(&n)).copied();
    let expected = |k: Kind| variant.kinds.iter().any(|id| id == k.id());
    let after = |at: u64| begin.is_none_or(|b| at.saturating_add(1_000_000) >= b);
    let mut found: Vec<_> = session
        .raised
        .iter()
        .filter_map(|(n, at)| Some((session.findings.get(*n)?, *at)))
        .filter(|(f, at)| after(*at) && (expected(f.kind) || f.severity >= Severity::Medium))
        .collect();
    found.sort_by_key(|(f, at)| (!expected(f.kind), std::cmp::Reverse(f.severity), *at));
    let &(first, at) = found.first()?;
    let severity = found.iter().map(|(f, _)| f.severity).max().unwrap_or(first.severity);
    Some(Caught {
        kind: first.kind.id().to_owned(),
        severity,
        after_ms: begin.map(|b| at.saturating_sub(b) / 1_000_000),
        as_expected: expected(first.kind),
    })
}
