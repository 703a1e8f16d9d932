//! Something was not seen while a call ran (EVASIONS E46; ATT&CK T1562).
//!
//! A loss is noticed up to a quarter of a second after it happened (the agent reads the counters every 250
//! ms): a call that ended no longer than `NOTICE_NS` before is told of it too. Losses name no server:
//! every server's calls of that time were seen in part. Not every count is a loss: those in
//! `HARMLESS` leave a record that says so itself. Unknown causes are losses. Once a call.
//!
//! High when the server itself made a flood in that call (`flood_effects`, or `flood_per_s`): then it is
//! likely done on purpose. Both numbers are eyeballed: honest tools make tens to hundreds of effects a
//! second, a recursive search some thousands for a moment. Lost records are in neither count.
//!
//! A channel that cannot be followed (`blind`) is told once, and is high: from then on calls may be missed
//! altogether, and nothing can be charged with certainty.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Hit, certain_call};
use crate::{
    finding::{Kind, Severity},
    output::{CallLine, LostLine, ServerEvent, ServerLine},
};

/// Thresholds of blinding; reasons stand in the module's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the module's header says what they are")]
pub struct Blinded {
    pub flood_effects: u64,
    pub flood_per_s: u64,
}

impl Default for Blinded {
    fn default() -> Self {
        Self { flood_effects: 20_000, flood_per_s: 5_000 }
    }
}

/// A loss is noticed this long after it happened, at most.
const NOTICE_NS: u64 = 300_000_000;
/// Counts that hide no act: lines of a start-up, paths that were cut or could not be read (their records
/// say so), occurrences that got records of their own.
const HARMLESS: &[&str] = &["candidate:", "truncated:", "fault:", "gone:", "full:aggregation"];
/// Losses and ended calls that are remembered.
pub(super) const KEPT: usize = 64;

#[derive(Clone, Debug)]
struct Ended {
    number: u64,
    start_ns: u64,
    end_ns: u64,
    flood: bool,
}

#[derive(Clone, Debug)]
struct Loss {
    /// First and last time that it was noticed.
    first_ns: u64,
    last_ns: u64,
    count: u64,
    cause: Box<str>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Blindness {
    losses: VecDeque<Loss>,
    ended: VecDeque<Ended>,
    blind: bool,
}

impl Blindness {
    pub(super) fn held(&self) -> usize {
        self.losses.len() + self.ended.len()
    }

    pub(super) fn lost(&mut self, line: &LostLine, hits: &mut Vec<Hit>) {
        if HARMLESS.iter().any(|cause| line.cause.starts_with(cause)) {
            return;
        }
        let at_ns = line.time.boot_ns;
        match self.losses.back_mut() {
            // One loss after the other: one stretch of time. Its ends stay true.
            Some(l) if *l.cause == *line.cause && at_ns.saturating_sub(l.last_ns) <= NOTICE_NS => {
                l.last_ns = l.last_ns.max(at_ns);
                l.count = l.count.saturating_add(line.count);
            }
            _ => {
                if self.losses.len() == KEPT {
                    self.losses.pop_front();
                }
                let cause = line.cause.as_str().into();
                self.losses.push_back(Loss { first_ns: at_ns, last_ns: at_ns, count: line.count, cause });
            }
        }
        // Ended calls whose line came before the loss was noticed.
        self.ended.retain(|call| {
            let while_it_ran = at_ns >= call.start_ns && at_ns <= call.end_ns.saturating_add(NOTICE_NS);
            if while_it_ran {
                hits.push(hit(call, line.count, &line.cause));
            }
            !while_it_ran
        });
    }

    pub(super) fn call(&mut self, t: &Blinded, line: &CallLine, hits: &mut Vec<Hit>) {
        let Some(number) = certain_call(&line.scope) else { return };
        let start_ns = line.time.boot_ns;
        let end_ns = start_ns.saturating_add(line.duration_ns);
        let effects = line.effects.saturating_add(line.ambiguous_effects);
        // A call of milliseconds makes no flood that lasts.
        let seconds = (line.duration_ns as f64 / 1e9).max(1.0);
        let flood = effects >= t.flood_effects || effects as f64 / seconds >= t.flood_per_s as f64;
        let call = Ended { number, start_ns, end_ns, flood };
        let during = |l: &&Loss| l.last_ns >= start_ns && l.first_ns <= end_ns.saturating_add(NOTICE_NS);
        let mut losses = self.losses.iter().filter(during);
        if let Some(first) = losses.next() {
            let count = losses.fold(first.count, |n, l| n.saturating_add(l.count));
            hits.push(hit(&call, count, &first.cause));
            return;
        }
        if self.ended.len() == KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(call);
    }

    pub(super) fn server(&mut self, line: &ServerLine, hits: &mut Vec<Hit>) {
        if line.event != ServerEvent::Blind || self.blind {
            return;
        }
        self.blind = true;
        hits.push(Hit {
            kind: Kind::Blinded,
            severity: Some(Severity::High),
            object: "request channel".into(),
            why: line.detail.clone().unwrap_or_else(|| "its channel cannot be followed any more".into()),
        });
    }
}

fn hit(call: &Ended, count: u64, cause: &str) -> Hit {
    let flood = if call.flood { ", which made a flood of effects itself" } else { "" };
    Hit {
        kind: Kind::Blinded,
        severity: Some(if call.flood { Severity::High } else { Kind::Blinded.severity() }),
        object: format!("call {}", call.number),
        why: format!("{count} records were lost ({cause}) during call {}{flood}", call.number),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{S, call, lost, server},
        *,
    };
    use crate::output::Startup;

    fn run(b: &mut Blindness, f: impl FnOnce(&mut Blindness, &mut Vec<Hit>)) -> Vec<Hit> {
        let mut hits = Vec::new();
        f(b, &mut hits);
        hits
    }

    #[test]
    fn a_loss_during_a_call_is_told_once() {
        let mut b = Blindness::default();
        let t = Blinded::default();
        assert_eq!(run(&mut b, |b, h| b.lost(&lost(5 * S, "ring:open", 7), h)), []);
        assert_eq!(run(&mut b, |b, h| b.lost(&lost(5 * S + 1, "ring:open", 3), h)), []);
        assert_eq!(run(&mut b, |b, h| b.call(&t, &call(1, S, S), h)), [], "ended before");
        assert_eq!(run(&mut b, |b, h| b.call(&t, &call(2, 9 * S, S), h)), [], "began after");
        let told = run(&mut b, |b, h| b.call(&t, &call(3, 4 * S, 3 * S), h));
        assert_eq!((told.len(), told[0].severity, &*told[0].object), (1, Some(Severity::Medium), "call 3"));
        assert!(told[0].why.starts_with("10 records"), "{}", told[0].why);
        assert_eq!(run(&mut b, |b, h| b.lost(&lost(7 * S, "ring:open", 1), h)), []);
    }

    #[test]
    fn a_loss_that_is_noticed_after_the_calls_line_counts() {
        let mut b = Blindness::default();
        assert_eq!(run(&mut b, |b, h| b.call(&Blinded::default(), &call(1, S, S), h)), []);
        assert_eq!(run(&mut b, |b, h| b.lost(&lost(2 * S + S / 10, "ring:open", 1), h)).len(), 1);
        assert_eq!(run(&mut b, |b, h| b.lost(&lost(2 * S + S / 10, "ring:open", 1), h)), []);
    }

    #[test]
    fn with_a_flood_it_is_high() {
        let mut b = Blindness::default();
        b.lost(&lost(S, "ring:open", 7), &mut Vec::new());
        let mut line = call(1, S / 2, S);
        line.effects = 30_000;
        assert_eq!(
            run(&mut b, |b, h| b.call(&Blinded::default(), &line, h))[0].severity,
            Some(Severity::High)
        );
    }

    #[test]
    fn what_hides_nothing_is_silent() {
        let mut b = Blindness::default();
        for cause in ["candidate:held-lines", "truncated:text", "fault:user-memory", "full:aggregation"] {
            b.lost(&lost(S, cause, 7), &mut Vec::new());
        }
        assert_eq!(run(&mut b, |b, h| b.call(&Blinded::default(), &call(1, 0, 2 * S), h)), []);
        b.lost(&lost(S, "missed:program-runs", 7), &mut Vec::new());
        assert_eq!(run(&mut b, |b, h| b.call(&Blinded::default(), &call(2, 0, 2 * S), h)).len(), 1);
    }

    #[test]
    fn a_blind_channel_is_told_once() {
        let mut b = Blindness::default();
        let line = server(ServerEvent::Blind, Startup::default());
        assert_eq!(run(&mut b, |b, h| b.server(&line, h)).len(), 1);
        assert_eq!(run(&mut b, |b, h| b.server(&line, h)), []);
    }
}
