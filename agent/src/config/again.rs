//! The configuration read anew while the agent runs: what comes into force at once, and what needs a restart.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use toml::{Table, Value};

use super::{Settings, load, merge::flat, written::Config};
use crate::{cli, store::Wants};

/// Keys, and beginnings of keys, that a reload puts in force. All else stands in the kernel, in open files, or in other
/// processes, since the agent began.
const AT_ONCE: [&str; 7] = [
    "detection.budget_per_day",
    "respond.",
    "enforce.keep",
    "enforce.canary_minutes",
    "sinks.",
    "identity.",
    "outbox.user",
];

/// For a reload.
#[derive(Debug)]
pub(crate) struct Again {
    /// Options of the command line: they win.
    run: cli::Run,
    /// Keys and values in force, as written.
    now: Mutex<BTreeMap<String, Value>>,
}

/// A configuration that was read anew.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) settings: Settings,
    keys: BTreeMap<String, Value>,
}

/// Keys with other values than before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// In force.
    pub(crate) settings: Vec<String>,
    /// In force after a restart.
    pub(crate) restart: Vec<String>,
}

/// What the loop keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) keep_enforcing: bool,
    pub(crate) canary_minutes: u64,
    /// What sinks want.
    pub(crate) wants: Vec<Wants>,
    pub(crate) outbox_bytes: u64,
}

impl Live {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            keep_enforcing: settings.keep_enforcing,
            canary_minutes: settings.canary_minutes,
            wants: settings.sinks.iter().map(|(_, wants)| wants.clone()).collect(),
            outbox_bytes: settings.outbox.max_bytes.0,
        }
    }
}

impl Again {
    pub(super) fn new(run: &cli::Run, config: &Config) -> Self {
        Self { run: run.clone(), now: Mutex::new(keys(config)) }
    }

    /// Reads it anew; changes nothing.
    pub(crate) fn read(&self) -> Result<Read> {
        let strict = rustix::process::geteuid().is_root();
        let loaded = load(self.run.config.as_deref(), strict).context("the configuration stays as it is")?;
        let keys = keys(&loaded.config);
        Ok(Read { settings: Settings::new(&self.run, loaded), keys })
    }

    /// Remembers what came into force, and says what did not.
    pub(crate) fn in_force(&self, read: &Read) -> Change {
        let mut now = self.now();
        let mut change = Change::default();
        let all: Vec<String> = now.keys().chain(read.keys.keys()).cloned().collect();
        for key in all {
            let value = read.keys.get(&key);
            if now.get(&key) == value {
                continue;
            }
            if !AT_ONCE.iter().any(|begin| key.starts_with(begin)) {
                change.restart.push(key);
                continue;
            }
            match value {
                Some(value) => drop(now.insert(key.clone(), value.clone())),
                None => drop(now.remove(&key)),
            }
            change.settings.push(key);
        }
        for keys in [&mut change.settings, &mut change.restart] {
            keys.sort();
            keys.dedup();
        }
        change
    }

    fn now(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keys(config: &Config) -> BTreeMap<String, Value> {
    // Plain data: it is what `config show` prints.
    Table::try_from(config).map(|table| flat(&table).into_iter().collect()).unwrap_or_default()
}
