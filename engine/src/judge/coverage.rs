//! A hook that stops working (EVASIONS E50): a finding about the host, charged to no server.
//!
//! What a hook is at the start is told by its coverage line alone; only what becomes worse is a finding. A hook
//! that works again changes nothing: a person must see that it did not.

use std::sync::Arc;

use super::{Judge, book::Draft};
use crate::{
    finding::{Evidence, Kind, Origin},
    output::{Basis, Certainty, Context, CoverageLine, CoverageState, Scope, ScopeKind, ServerRef},
};

/// In the place of a server's id and name: no server can be to blame for certain.
const HOST: &str = "(host)";

fn rank(state: CoverageState) -> u8 {
    match state {
        CoverageState::Blind => 0,
        CoverageState::Observing => 1,
        CoverageState::Enforcing => 2,
    }
}

impl Judge {
    pub(super) fn on_coverage(&mut self, line: &CoverageLine) {
        let hook = &line.coverage.hook;
        let state = line.coverage.state;
        let before = self.hooks.insert(hook.clone(), state);
        if before.is_none_or(|before| rank(before) <= rank(state)) || !self.config.rules {
            return;
        }
        let because = line.coverage.because.as_deref().unwrap_or("no reason is known");
        let sentence = match state {
            CoverageState::Blind => format!("Hook `{hook}` does not work any more: {because}."),
            _ => format!("Hook `{hook}` does not deny any more, it only tells: {because}."),
        };
        self.book.enter(Draft {
            server: Arc::new(ServerRef { id: HOST.into(), name: HOST.into() }),
            context: Arc::new(Context::default()),
            identity: String::new(),
            place: "host".into(),
            scope: Arc::new(Scope {
                kind: ScopeKind::Ambient,
                tool: None,
                call: None,
                certainty: Certainty::Certain,
                basis: Basis::Window,
                candidates: Vec::new(),
            }),
            kind: Kind::CoverageLost,
            severity: Kind::CoverageLost.severity(),
            origin: Origin::Detector,
            object: hook.clone(),
            sentence,
            permit: String::new(),
            evidence: Evidence::default(),
            time: line.time,
            count: 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Coverage, Line, Time};

    /// Findings after these states of one hook.
    fn after(states: &[CoverageState]) -> Vec<crate::finding::Finding> {
        let mut judge = Judge::default();
        let mut found = Vec::new();
        for (n, state) in states.iter().enumerate() {
            let time = Time { utc: n as i64, boot_ns: n as u64 };
            let because = Some("link 7 was detached".to_owned());
            let coverage = Coverage { hook: "cgroup/connect4".into(), state: *state, because };
            judge.observe(&Line::Coverage(CoverageLine { time, coverage }), &mut found);
        }
        found
    }

    #[test]
    fn only_what_becomes_worse_is_a_finding() {
        use CoverageState::{Blind, Enforcing, Observing};
        for (states, findings) in [
            (&[Observing][..], 0),
            (&[Blind], 0),
            (&[Observing, Observing, Enforcing], 0),
            (&[Observing, Blind], 1),
            (&[Enforcing, Observing], 1),
            (&[Enforcing, Blind, Observing], 1),
            (&[Blind, Observing, Observing], 0),
        ] {
            assert_eq!(after(states).len(), findings, "{states:?}");
        }
        let found = after(&[Observing, Blind]);
        assert_eq!(found[0].kind, Kind::CoverageLost);
        assert_eq!(found[0].object, "cgroup/connect4");
        assert!(found[0].sentence.contains("link 7 was detached"), "{}", found[0].sentence);
    }
}
