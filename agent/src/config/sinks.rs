//! Sinks as they are meant: what belongs to the type must be there, what does not must not.

use std::path::PathBuf;

use engine::rules::NameGlob;

use super::{
    Loaded,
    outputs::{Wrong, output},
    sink_table::{SinkKind, SinkTable},
};
use crate::{sinks::spec::Spec, store::Wants};

/// A name is a part of metrics, files and the store.
const NAME: usize = 32;
/// Sinks of an agent.
const MANY: usize = 32;
/// Words of `type`.
pub(super) const TYPES: &str = "file, stdout, syslog, journald, splunk_hec, otlp or webhook";

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) sinks: Vec<(Spec, Wants)>,
    pub(super) warnings: Vec<String>,
    /// Files that hold secrets.
    pub(super) secrets: Vec<PathBuf>,
}

/// Looks up what a sink needs beside the configuration.
pub(super) struct Finder {
    /// For the daemon: all must be there. Else what is there for the service only is not looked for.
    pub(super) strict: bool,
    pub(super) warnings: Vec<String>,
    pub(super) secrets: Vec<PathBuf>,
}

/// All of them, or what is wrong with each.
pub(super) fn sinks(loaded: &Loaded, strict: bool) -> Result<Read, String> {
    let (mut read, mut problems) = (Read::default(), Vec::new());
    for (name, table) in &loaded.config.sinks {
        let mut finder = Finder { strict, warnings: Vec::new(), secrets: Vec::new() };
        let done = sink(name, table, &mut finder);
        read.secrets.extend(finder.secrets);
        read.warnings.extend(finder.warnings.iter().map(|w| format!("sinks.{name}: {w}")));
        match done {
            Ok(sink) => read.sinks.push(sink),
            Err(Wrong { key, why }) => {
                let about = format!("sinks.{name}");
                let place = key
                    .and_then(|key| place(loaded, &format!("{about}.{key}")))
                    .or_else(|| place(loaded, &about));
                problems.push(format!("{}{about}: {why}", place.unwrap_or_default()));
            }
        }
    }
    if loaded.config.sinks.len() > MANY {
        problems.push(format!("{} sinks are too many: at most {MANY}", loaded.config.sinks.len()));
    }
    if problems.is_empty() { Ok(read) } else { Err(problems.join("\n")) }
}

/// File and line of a key, or of the first within it.
fn place(loaded: &Loaded, about: &str) -> Option<String> {
    let inside = |key: &&String| **key == about || key.starts_with(&format!("{about}."));
    loaded.origins.iter().find(|(key, _)| inside(key)).map(|(_, origin)| format!("{origin}: "))
}

fn sink(name: &str, table: &SinkTable, finder: &mut Finder) -> Result<(Spec, Wants), Wrong> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || name.len() > NAME || !name.chars().all(plain) {
        return Err(Wrong::all(format!("a name has a-z, 0-9, - and _, and at most {NAME} of them")));
    }
    let kind = table.kind.ok_or_else(|| Wrong::all(format!("`type` is missing: {TYPES}")))?;
    belongs(kind, table)?;
    let output = output(kind, table, finder)?;
    let glob = |text: &String| {
        NameGlob::parse(text).map_err(|why| Wrong::at("servers", format!("`servers`: `{text}`: {why}")))
    };
    let wants = Wants {
        sink: name.to_owned(),
        severity: table.severity.unwrap_or_default(),
        types: table.types.clone().unwrap_or_default(),
        servers: table.servers.iter().flatten().map(glob).collect::<Result<_, _>>()?,
        kinds: table.kinds.clone().unwrap_or_default(),
    };
    let (format, redact) = (table.format.unwrap_or_default(), table.redact.clone().unwrap_or_default());
    Ok((Spec { name: name.to_owned(), format, redact, output }, wants))
}

/// Keys that are not for all types, and for which they are.
const KEYS: [(&[SinkKind], &[&str]); 9] = {
    use SinkKind::{File, Journald, Otlp, SplunkHec, Syslog, Webhook};
    [
        (&[File, Journald], &["path"]),
        (&[File], &["max_bytes", "keep"]),
        (&[Syslog], &["address", "facility", "app_name", "enterprise", "max_message"]),
        (&[SplunkHec, Otlp, Webhook], &["url", "allow_plaintext", "token", "headers", "batch", "timeout"]),
        (&[Webhook], &["hmac_key"]),
        (&[SplunkHec], &["index", "source", "sourcetype"]),
        (&[Otlp], &["encoding"]),
        (&[Syslog, SplunkHec, Otlp, Webhook], &["ca", "cert", "server_name"]),
        (&[Syslog, SplunkHec, Otlp, Webhook], &["key"]),
    ]
};

fn belongs(kind: SinkKind, table: &SinkTable) -> Result<(), Wrong> {
    let written = toml::Table::try_from(table).map_err(|e| Wrong::all(e.to_string()))?;
    for (kinds, keys) in KEYS.iter().filter(|(kinds, _)| !kinds.contains(&kind)) {
        if let Some(key) = keys.iter().find(|key| written.contains_key(**key)) {
            let names: Vec<String> = kinds
                .iter()
                .filter_map(|kind| {
                    Some(format!("`type = \"{}\"`", serde_json::to_value(kind).ok()?.as_str()?))
                })
                .collect();
            return Err(Wrong::at(key, format!("`{key}` is for {}", names.join(", "))));
        }
    }
    Ok(())
}
