//! What stands in the state directory and the rule files when the agent starts.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use engine::{
    baseline::Baseline,
    detect::Thresholds,
    input::Fact,
    judge::{Command, Config, Mode, ModeRule, OnDegraded, Stored},
    policy::exposure::Meter,
    respond,
};
use tokio::sync::{Mutex, mpsc};

use super::{
    Desk, Hands, ORDERS, Order, Watcher, changes, figures, live::Live, outside, resolvers, rules, save,
    utc_ns,
};
use crate::{
    cli,
    commands::{Exit, Stop},
    config::{Live as InForce, Settings},
    service::Service,
    store::{Bounds, ExceptionRow, ModeRow, Options, Reader, Started, Store},
    wake::Wake,
};

/// A desk, and what the engine is to be told first.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) desk: Desk,
    pub(crate) orders: mpsc::Receiver<Order>,
    /// In order. All of it is input of the engine, so that recordings replay.
    pub(crate) facts: Vec<Fact>,
}

/// Opens the store and reads rules.
pub(crate) fn prepare(options: &Settings, service: &Arc<Service>) -> Result<Prepared> {
    let dir = options.state_dir.as_path();
    let files = rules::Files::new(options.rules.as_deref());
    // Before the store: a slip in a rule file must leave no trace.
    let texts = files.read().map_err(invalid)?;
    rules::check(&texts).map_err(invalid)?;
    outside::apart(options, dir).map_err(|e| invalid(e.to_string()))?;
    let wake = Arc::new(Wake::new()?);
    let outbox = Bounds { max_bytes: options.outbox.max_bytes.0, max_age: options.outbox.max_age.0 };
    let store = Store::open(dir, Options { outbox, wake: Some(Arc::clone(&wake)), ..Options::default() })
        .with_context(|| format!("cannot use the state in {}", dir.display()))?;
    let mut facts = Vec::new();
    if let Started::Replaced { because, aside } = store.started() {
        let kept = aside.to.as_ref().map(|to| format!("; it was moved to {}", to.display()));
        anstream::eprintln!(
            "toolwarden: the state database was damaged ({because}){}: baselines, findings and the audit trail \
             begin anew",
            kept.unwrap_or_default()
        );
        facts.push(Fact::Lost { cause: "store:replaced".into(), total: 1 });
    }
    let reader = store.reader().context("cannot read the state")?;
    let mut live = Live::default();
    let (stored, exceptions, damaged) = read(&reader, &mut live).context("cannot read the state")?;
    if damaged > 0 {
        anstream::eprintln!("toolwarden: {damaged} stored baselines cannot be read; they are learned anew");
        facts.push(Fact::Lost { cause: "store:baseline".into(), total: damaged });
    }
    facts.push(Fact::Command(Command::Configure { config: judging(options) }));
    let thresholds = Box::new(Thresholds::default());
    facts.push(Fact::Command(Command::Detectors { thresholds, resolvers: resolvers::configured() }));
    let (texts, problems) = rules::with_stored(texts, &exceptions);
    for problem in problems {
        anstream::eprintln!("toolwarden: a stored exception is left out: {problem}");
    }
    rules::check(&texts).map_err(invalid)?;
    facts.push(Fact::Command(Command::Rules { files: texts }));
    facts.extend(restores(stored));
    let store = Arc::new(store);
    let sinks = outside::start(options, &store, wake).map_err(|e| invalid(format!("{e:#}")))?;
    let sinks = Arc::new(sinks);
    let (sender, orders) = mpsc::channel(ORDERS);
    let hands = Hands {
        store: Arc::clone(&store),
        state_dir: Arc::from(dir),
        files: Arc::new(files),
        orders: sender,
        changing: Arc::new(Mutex::new(())),
        saving: Arc::new(Mutex::new(())),
        again: Arc::clone(&options.again),
        service: Arc::clone(service),
        sinks,
    };
    let mut desk = Desk {
        live,
        hands,
        watcher: Arc::new(Watcher::new(store)),
        since_utc: utc_ns(),
        meter: Meter::default(),
        unsaved: BTreeSet::new(),
        waiting: 0,
        refused: 0,
        activity: None,
        feeds: Arc::default(),
        tally: figures::Tally::default(),
        metrics: None,
    };
    desk.acts_for(&InForce::of(options));
    Ok(Prepared { desk, orders, facts })
}

/// How findings are judged and what is done about them.
pub(super) fn judging(options: &Settings) -> Config {
    let on_degraded = match options.on_degraded {
        cli::OnDegraded::Refuse => OnDegraded::Refuse,
        cli::OnDegraded::Observe => OnDegraded::Observe,
    };
    let by_severity = options.respond.iter().map(|d| (d.severity, d.ladder.clone())).collect();
    let responses =
        respond::Settings { by_severity, dry_run: options.dry_run, ..respond::Settings::default() };
    Config {
        budget_per_day: options.budget,
        on_degraded,
        dry_run: options.dry_run,
        responses,
        ..Config::default()
    }
}

fn invalid(message: String) -> anyhow::Error {
    Stop::new(Exit::Invalid, message).into()
}

/// One baseline a fact, so that frames of recordings stay small.
pub(crate) fn restores(stored: Stored) -> Vec<Fact> {
    let Stored { baselines, waiting, modes } = stored;
    let restore = |stored| Fact::Restore(Box::new(stored));
    let one = |b| restore(Stored { baselines: vec![b], ..Stored::default() });
    let mut facts: Vec<Fact> = baselines.into_iter().map(one).collect();
    if !waiting.is_empty() || !modes.is_empty() {
        facts.push(restore(Stored { waiting, modes, ..Stored::default() }));
    }
    facts
}

type Found = (Stored, Vec<ExceptionRow>, u64);

fn read(reader: &Reader, live: &mut Live) -> crate::store::Result<Found> {
    let mut stored = Stored::default();
    let mut damaged = 0;
    for identity in reader.identities()? {
        for row in reader.baselines(&identity.identity)?.into_iter().filter(|row| row.scope == save::ALL) {
            match serde_json::from_str::<Baseline>(&row.blob) {
                Ok(b) => stored.baselines.push(b),
                Err(e) => {
                    tracing::warn!(identity = identity.identity, "a stored baseline cannot be read: {e}");
                    damaged += 1;
                }
            }
        }
    }
    if let Some(note) = reader.note(save::WAITING)? {
        stored.waiting = serde_json::from_str(&note).unwrap_or_else(|e| {
            tracing::warn!("what waited for a person cannot be read: {e}");
            Vec::new()
        });
    }
    let mut modes = reader.modes()?;
    // The last one that fits decides.
    modes.sort_by_key(|row| row.at);
    stored.modes = modes.iter().filter_map(mode).collect();
    let servers = reader.servers()?;
    let mut tools = Vec::new();
    for server in &servers {
        tools.extend(reader.tools(&server.identity)?);
    }
    live.restore(servers, tools);
    Ok((stored, reader.exceptions()?, damaged))
}

fn mode(row: &ModeRow) -> Option<ModeRule> {
    let mode = match row.mode.as_str() {
        "learn" => Mode::Learn,
        "watch" => Mode::Watch,
        "enforce" | changes::STRICT => Mode::Enforce,
        _ => return None,
    };
    let tool = (!row.tool.is_empty()).then(|| row.tool.clone());
    let strict = row.mode == changes::STRICT;
    Some(ModeRule { server: row.server.clone(), tool, mode, strict })
}

/// What a state directory, or a file that `baseline export --format json` wrote, holds.
pub(crate) fn stored(path: &Path) -> Result<Stored> {
    let context = || format!("cannot read baselines from {}", path.display());
    if path.is_dir() {
        let reader = Reader::open(path).with_context(context)?;
        return Ok(read(&reader, &mut Live::default()).with_context(context)?.0);
    }
    let text = std::fs::read(path).with_context(context)?;
    match serde_json::from_slice::<Stored>(&text) {
        Ok(stored) => Ok(stored),
        Err(why) => match serde_json::from_slice::<Baseline>(&text) {
            Ok(b) => Ok(Stored { baselines: vec![b], ..Stored::default() }),
            Err(_) => Err(why).with_context(context),
        },
    }
}
