//! `/etc/toolwarden/toolwarden.toml` and `conf.d/*.toml` beside it.
//!
//! # Layout
//! - [`written`], [`sink_table`]: the keys, their defaults and limits
//! - [`read`]: files, and what is wrong with them: `file:line:column`, the line, what to do
//! - [`merge`]: later files win key by key, and it is remembered where each value came from
//! - [`settings`]: what `toolwarden run` does in the end: options of the command line win
//! - [`again`]: read anew while the agent runs
//! - [`sinks`], [`outputs`]: what is written about a sink, checked as a whole
//! - [`show`]: `toolwarden config`
//!
//! # Guarantees
//! An absent or empty file means the defaults. An unknown key or a bad value is an error; nothing is ever ignored. A file
//! that others than root can write is refused: a configuration can have processes killed.

mod again;
mod merge;
mod outputs;
mod read;
mod settings;
mod show;
mod sink_table;
mod sinks;
#[cfg(test)]
mod tests;
pub(crate) mod written;

use std::path::{Path, PathBuf};

pub(crate) use again::{Again, Live};
use anyhow::Result;
pub(crate) use merge::Origin;
pub(crate) use settings::Settings;
pub(crate) use show::run;
use written::Config;

use crate::{sinks::spec::Spec, store::Wants};

/// Where a host keeps it.
pub(crate) const FILE: &str = "/etc/toolwarden/toolwarden.toml";
/// Beside it: files that are read after it, in the order of their names.
const DROP_INS: &str = "conf.d";

/// A configuration, and where it came from.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// By key, such as `hooks.canary_minutes`.
    pub(crate) origins: std::collections::BTreeMap<String, Origin>,
    /// The sinks, checked.
    pub(crate) sinks: Vec<(Spec, Wants)>,
    /// Files that hold secrets of sinks.
    pub(crate) secrets: Vec<PathBuf>,
    /// In the order in which they were read.
    pub(crate) files: Vec<PathBuf>,
    /// What a person should know who checks it; the daemon refuses it.
    pub(crate) warnings: Vec<String>,
}

/// Reads it. `explicit` must be there; without it the host's own is read if there is one. `strict`: for the daemon.
pub(crate) fn load(explicit: Option<&Path>, strict: bool) -> Result<Loaded> {
    let main = explicit.unwrap_or(Path::new(FILE));
    let mut files = Vec::new();
    if explicit.is_some() || main.exists() {
        files.push(main.to_owned());
    }
    let drop_ins = main.with_file_name(DROP_INS);
    if drop_ins.is_dir() {
        files.extend(read::drop_ins(&drop_ins, strict)?);
    }
    let mut loaded = Loaded::default();
    let mut merged = merge::Merged::default();
    let mut problems = Vec::new();
    for path in &files {
        match read::file(path, strict, &mut loaded.warnings) {
            Ok(text) => merged.add(path, &text),
            Err(problem) => problems.push(format!("{problem:#}")),
        }
    }
    if !problems.is_empty() {
        anyhow::bail!("{}", problems.join("\n"));
    }
    (loaded.config, loaded.origins) = merged.finish()?;
    loaded.files = files;
    let read = sinks::sinks(&loaded, strict).map_err(|why| anyhow::anyhow!("{why}"))?;
    loaded.sinks = read.sinks;
    loaded.warnings.extend(read.warnings);
    loaded.secrets = read.secrets;
    Ok(loaded)
}
