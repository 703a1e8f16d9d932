//! What `toolwarden run` does in the end.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use super::{
    Again, Loaded,
    written::{Identity, Outbox},
};
use crate::{
    cli::{self, Format, OnDegraded},
    commands::respond,
    kernel::pins,
    sinks::spec::Spec,
    store::Wants,
};

/// The configuration with the options of the command line, which win.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) print: Format,
    pub(crate) record: Option<PathBuf>,
    pub(crate) include_arguments: bool,
    pub(crate) settle_ms: u64,
    pub(crate) in_flight_s: u64,
    pub(crate) state_dir: PathBuf,
    pub(crate) rules: Option<PathBuf>,
    pub(crate) budget: f64,
    pub(crate) respond: Vec<respond::Default>,
    pub(crate) dry_run: bool,
    /// None: nobody can ask this agent anything.
    pub(crate) control: Option<PathBuf>,
    pub(crate) hold: Option<PathBuf>,
    pub(crate) guard: PathBuf,
    /// Where what outlives the agent is pinned.
    pub(crate) pins: PathBuf,
    pub(crate) keep_enforcing: bool,
    pub(crate) on_degraded: OnDegraded,
    pub(crate) canary_minutes: u64,
    pub(crate) sinks: Vec<(Spec, Wants)>,
    pub(crate) outbox: Outbox,
    pub(crate) identity: Identity,
    /// Where metrics are served.
    pub(crate) metrics: Option<SocketAddr>,
    /// Files that no server may touch.
    pub(crate) files: Vec<PathBuf>,
    /// For a reload.
    pub(crate) again: Arc<Again>,
}

impl Settings {
    pub(crate) fn new(run: &cli::Run, loaded: Loaded) -> Self {
        let again = Arc::new(Again::new(run, &loaded.config));
        let Loaded { config, mut files, secrets, sinks, .. } = loaded;
        files.extend(secrets);
        let path = |option: &Option<PathBuf>, written: PathBuf| option.clone().unwrap_or(written);
        let state_dir = path(&run.state_dir, config.paths.state_dir.0.clone());
        // A severity that the command line names is its alone.
        let written =
            config.respond.ladders().filter(|w| run.respond.iter().all(|r| r.severity != w.severity));
        let pins = run.pin_dir.clone().or(config.paths.pins.map(|p| p.0));
        Self {
            print: run.print,
            record: run.record.clone(),
            include_arguments: run.include_arguments || config.capture.include_arguments,
            settle_ms: run.settle_ms.unwrap_or(config.capture.settle_ms.0),
            in_flight_s: run.in_flight_s.unwrap_or(config.capture.in_flight_s.0),
            rules: run.rules.clone().or(config.paths.rules.map(|p| p.0)),
            budget: run.budget.unwrap_or(config.detection.budget_per_day.0),
            respond: run.respond.iter().cloned().chain(written).collect(),
            dry_run: run.dry_run || config.respond.dry_run,
            control: (!run.no_control).then(|| path(&run.control, config.paths.control.0)),
            hold: run.hold.clone(),
            guard: path(&run.guard, config.paths.guard.0),
            pins: pins.unwrap_or_else(|| pins::default_dir(&state_dir)),
            keep_enforcing: run.keep_enforcing || config.enforce.keep,
            on_degraded: run.on_degraded.unwrap_or(config.enforce.on_degraded),
            canary_minutes: run.canary_minutes.unwrap_or(config.enforce.canary_minutes.0),
            state_dir,
            sinks,
            outbox: config.outbox,
            identity: config.identity,
            metrics: config.metrics.listen.0,
            files,
            again,
        }
    }
}
