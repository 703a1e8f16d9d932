//! How the agent is, in numbers: for the service manager's status line and for metrics.

use std::collections::BTreeMap;

use engine::{
    Engine,
    finding::Severity,
    judge::Mode,
    output::{CoverageState, Line},
};

use super::{Desk, reads::word};
use crate::store::{Missed, State, Stats};

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// When the agent began, ns since 1970.
    pub(crate) since_utc: i64,
    pub(crate) servers: u64,
    pub(crate) tools: u64,
    /// Of the servers, those in mode `enforce`.
    pub(crate) enforcing: u64,
    pub(crate) tally: Tally,
    pub(crate) lost: BTreeMap<String, u64>,
    pub(crate) open_findings: BTreeMap<Severity, u64>,
    /// Baselines by state.
    pub(crate) baselines: BTreeMap<&'static str, u64>,
    /// Hooks and what each does for us.
    pub(crate) coverage: BTreeMap<String, CoverageState>,
    pub(crate) store: Stats,
    /// Nothing gets written.
    pub(crate) store_degraded: bool,
    pub(crate) sinks: BTreeMap<String, Sink>,
    pub(crate) sink_restarts: u64,
    pub(crate) disarmed: bool,
}

/// A sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sink {
    pub(crate) waiting: u64,
    pub(crate) sent: u64,
    pub(crate) bytes: u64,
    pub(crate) failures: u64,
    pub(crate) failing: bool,
    pub(crate) missed: Missed,
}

/// What was told since the agent began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) findings: BTreeMap<Severity, u64>,
    /// By action and by what became of it.
    pub(crate) responses: BTreeMap<(String, String), u64>,
}

impl Tally {
    pub(super) fn observe(&mut self, line: &Line) {
        match line {
            Line::Call(_) => self.calls += 1,
            // Later revisions are the same finding.
            Line::Finding(f) if f.revision == 1 => *self.findings.entry(f.severity).or_default() += 1,
            Line::Response(r) => {
                *self.responses.entry((word(&r.action), word(&r.verdict))).or_default() += 1;
            }
            _ => {}
        }
    }
}

impl Desk {
    /// How it is now.
    pub(crate) fn figures(&self, engine: &Engine) -> Figures {
        let judge = engine.judge();
        let mut open_findings = BTreeMap::new();
        for finding in judge.open_findings() {
            *open_findings.entry(finding.severity).or_default() += 1;
        }
        let mut baselines = BTreeMap::new();
        for baseline in judge.baselines() {
            *baselines.entry(baseline.state()).or_default() += 1;
        }
        let running = || self.live.servers.values();
        let enforced = |r: &&super::live::Running| judge.mode_of(&r.line.server.name, None) == Mode::Enforce;
        let (sinks, sink_restarts) = self.sink_figures();
        Figures {
            since_utc: self.since_utc,
            servers: running().count() as u64,
            tools: running().map(|r| r.tools.len() as u64).sum(),
            enforcing: running().filter(enforced).count() as u64,
            tally: self.tally.clone(),
            lost: self.live.lost.clone(),
            open_findings,
            baselines,
            coverage: self.live.coverage.iter().map(|(hook, c)| (hook.clone(), c.state)).collect(),
            store: self.hands.store.stats(),
            store_degraded: matches!(self.hands.store.state(), State::Degraded { .. }),
            sinks,
            sink_restarts,
            disarmed: engine.planner().disarmed(),
        }
    }
}

impl Figures {
    /// In a line: `7 servers, 31 tools, enforcing 3, 0 lost`, and what a person should look at.
    pub(crate) fn sentence(&self) -> String {
        let many = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let lost: u64 = self.lost.values().sum();
        let mut said = vec![
            many(self.servers, "server"),
            many(self.tools, "tool"),
            format!("enforcing {}", self.enforcing),
            format!("{lost} lost"),
        ];
        let blind: Vec<&str> = self.blind().collect();
        if !blind.is_empty() {
            said.push(format!("blind: {}", blind.join(" ")));
        }
        let failing: Vec<&str> =
            self.sinks.iter().filter(|(_, s)| s.failing).map(|(name, _)| name.as_str()).collect();
        if !failing.is_empty() {
            said.push(format!("failing sinks: {}", failing.join(" ")));
        }
        if self.store_degraded {
            said.push("state cannot be written".into());
        }
        if self.disarmed {
            said.push("disarmed".into());
        }
        said.join(", ")
    }

    /// Hooks that see nothing.
    pub(crate) fn blind(&self) -> impl Iterator<Item = &str> {
        self.coverage.iter().filter(|(_, s)| **s == CoverageState::Blind).map(|(hook, _)| hook.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_tells_what_is_wrong_after_what_is() {
        let mut figures = Figures { servers: 7, tools: 31, enforcing: 3, ..Figures::default() };
        assert_eq!(figures.sentence(), "7 servers, 31 tools, enforcing 3, 0 lost");
        figures.servers = 1;
        figures.lost.insert("ring:open".into(), 4);
        figures.lost.insert("ring:exec".into(), 1);
        figures.coverage.insert("io_uring".into(), CoverageState::Blind);
        figures.coverage.insert("syscalls".into(), CoverageState::Observing);
        figures.sinks.insert("siem".into(), Sink { failing: true, ..Sink::default() });
        figures.store_degraded = true;
        assert_eq!(
            figures.sentence(),
            "1 server, 31 tools, enforcing 3, 5 lost, blind: io_uring, failing sinks: siem, state cannot be written"
        );
    }
}
