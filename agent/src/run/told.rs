//! How the agent is, for those outside: the service manager, and Prometheus.

use std::time::Duration;

use anyhow::Result;
use aya::maps::{MapData, RingBuf};
use engine::{
    Input,
    input::{Fact, Usage},
};

use super::{Agent, now_ns};
use crate::{
    config::{Live, Settings},
    desk::{self, Figures},
    measure,
    metrics::{self, Measures, Metrics, Said},
    service::Progress,
};

/// Both are told this often.
pub(super) const TELL: Duration = Duration::from_secs(1);

/// What is counted for them.
#[derive(Default)]
pub(super) struct Told {
    pub(super) measures: Measures,
    progress: Progress,
    /// `None`: switched off.
    metrics: Option<Metrics>,
}

impl Told {
    /// Begins to serve metrics. Nothing of it stops the agent.
    pub(super) fn new(options: &Settings) -> Self {
        let metrics = options.metrics.and_then(|address| {
            if !address.ip().is_loopback() {
                tracing::warn!("metrics are served at {address}: whoever can reach it can read them");
            }
            let started = desk::user(options.outbox.user.as_deref()).and_then(|u| Metrics::start(address, u));
            started.map_err(|e| tracing::warn!("no metrics: {e:#}")).ok()
        });
        Self { metrics, ..Self::default() }
    }
}

/// Without these the agent does not do its work.
const NEEDED: [&str; 2] = ["lifecycle", "syscalls"];

fn unready(figures: &Figures) -> Option<String> {
    let blind: Vec<&str> = figures.blind().filter(|hook| NEEDED.contains(hook)).collect();
    (!blind.is_empty()).then(|| format!("blind: {}", blind.join(" ")))
}

impl Agent {
    /// Tells how it is.
    pub(super) fn tell(&mut self) {
        if !self.service.listens() && self.told.metrics.is_none() {
            return;
        }
        let figures = self.desk.figures(&self.engine);
        let status = figures.sentence();
        self.service.status(&status);
        if let Some(metrics) = &self.told.metrics {
            let usage = match measure::usage(std::process::id()) {
                Some(Fact::Usage(Usage { cpu_ns, rss, .. })) => Some((cpu_ns, rss)),
                _ => None,
            };
            let text = metrics::text(&figures, &self.told.measures, &self.counts.work(), usage);
            metrics.say(Said { unready: unready(&figures), status, text });
            self.desk.metrics = Some(metrics.state());
        }
    }

    /// Looks at the ring, whatever woke the loop, and says that the agent is alive if its work goes on: a loop that
    /// turns and reads nothing of what the kernel writes is to be started again, like one that hangs.
    pub(super) fn prove_progress(&mut self, ring: &mut RingBuf<MapData>) -> Result<()> {
        let written = self.counts.written();
        if !self.take(ring)? {
            self.apply(&Input::Tick { now_ns: now_ns() })?;
        }
        if self.told.progress.goes_on(written, self.told.measures.read()) {
            self.service.alive();
        }
        Ok(())
    }

    /// What a reload changed.
    pub(super) fn on_settings(&mut self, live: Live) {
        self.keep = live.keep_enforcing;
        self.watch.every(live.canary_minutes);
        self.desk.acts_for(&live);
    }
}

#[cfg(test)]
mod tests {
    use engine::output::CoverageState;

    use super::*;

    #[test]
    fn only_what_nothing_works_without_makes_it_unready() {
        let mut figures = Figures::default();
        figures.coverage.insert("io_uring".into(), CoverageState::Blind);
        assert_eq!(unready(&figures), None);
        figures.coverage.insert("syscalls".into(), CoverageState::Blind);
        assert_eq!(unready(&figures).as_deref(), Some("blind: syscalls"));
    }
}
