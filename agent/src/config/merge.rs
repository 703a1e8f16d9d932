//! Later files win, key by key: a drop-in changes what it names and nothing else. Arrays are replaced.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize as _, Serialize};
use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::written::Config;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Origin {
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Files so far.
#[derive(Debug, Default)]
pub(super) struct Merged {
    table: Table,
    origins: BTreeMap<String, Origin>,
}

impl Merged {
    /// Adds a file that was checked.
    pub(super) fn add(&mut self, path: &Path, text: &str) {
        let (Ok(table), Ok(spanned)) = (text.parse::<Table>(), DeTable::parse(text)) else {
            return;
        };
        merge(&mut self.table, table);
        note(spanned.get_ref(), "", &mut |key, at| {
            let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
            self.origins.insert(key, Origin { file: path.to_owned(), line });
        });
    }

    /// The whole.
    pub(super) fn finish(self) -> Result<(Config, BTreeMap<String, Origin>)> {
        let config = Config::deserialize(self.table).map_err(|e| anyhow!("{}", e.message()));
        Ok((config.context("the files contradict each other")?, self.origins))
    }
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn note(table: &DeTable<'_>, above: &str, tell: &mut dyn FnMut(String, usize)) {
    for (key, value) in table {
        let path = join(above, key.get_ref());
        match value.get_ref() {
            DeValue::Table(table) => note(table, &path, tell),
            _ => tell(path, key.span().start),
        }
    }
}

/// `sinks.siem.host`.
fn join(above: &str, key: &str) -> String {
    if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") }
}

/// Keys and values of a configuration.
pub(super) fn flat(table: &Table) -> Vec<(String, Value)> {
    fn walk(table: &Table, above: &str, out: &mut Vec<(String, Value)>) {
        for (key, value) in table {
            let path = join(above, key);
            match value {
                Value::Table(table) => walk(table, &path, out),
                value => out.push((path, value.clone())),
            }
        }
    }
    let mut out = Vec::new();
    walk(table, "", &mut out);
    out
}
