//! `baseline`: list, show, ratify, export, import, reset.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _, Read as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use owo_colors::Style;
use serde_json::{Value, json};

use super::{
    answer,
    args::{Baseline, BaselineVerb, Format, Remote},
    client, diff,
    exit::{Exit, Stop},
    show::{Screen, at, list, rows, some, style, time_at},
};
use crate::print::{safe, safe_lines};

/// Largest file that the agent takes, with room for the JSON around it.
const MAX_IMPORT: u64 = 1 << 20;

pub(super) fn run(options: &Baseline, out: &mut dyn Write) -> Result<Exit, Stop> {
    let remote = &options.remote;
    match &options.verb {
        BaselineVerb::List => answer(remote, &client::get(remote, "/v1/baselines", &[])?, out, list_page),
        BaselineVerb::Show { identity } => {
            let data = client::get(remote, "/v1/baseline", &[("identity", identity)])?;
            answer(remote, &data, out, show_page)
        }
        BaselineVerb::Diff { a, b } => {
            let data = client::get(remote, "/v1/baseline/diff", &[("a", a), ("b", b)])?;
            answer(remote, &data, out, diff::page)?;
            Ok(if diff::same(&data) { Exit::Ok } else { Exit::No })
        }
        BaselineVerb::Ratify { identity } => {
            let data = client::post(remote, "/v1/baseline/ratify", &json!({ "identity": identity }))?;
            answer(remote, &data, out, |_, to| to.line(format!("{} is ratified", safe(identity))))
        }
        BaselineVerb::Reset { identity } => {
            let data = client::post(remote, "/v1/baseline/reset", &json!({ "identity": identity }))?;
            answer(remote, &data, out, |_, to| {
                to.line(format!("{} is forgotten and learned anew", safe(identity)))
            })
        }
        BaselineVerb::Export { identity, output } => export(identity, output.as_deref(), remote),
        BaselineVerb::Import { file } => import(file, remote, out),
    }
}

/// Writes the text itself: what is imported must be what was exported.
fn export(identity: &str, output: Option<&Path>, remote: &Remote) -> Result<Exit, Stop> {
    let data = client::get(remote, "/v1/baseline/export", &[("identity", identity)])?;
    let nothing = || Stop::new(Exit::Unreachable, "the agent's answer holds no rule file");
    // The baseline itself, for `replay --baseline`.
    let stored = data.get("stored").filter(|_| remote.format != Format::Table).map(Value::to_string);
    let text = data.get("text").unwrap_or(&data).as_str();
    let text = stored.as_deref().or(text).ok_or_else(nothing)?;
    let Some(file) = output else {
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            writeln!(out, "{}", safe_lines(text))?;
        } else {
            out.write_all(text.as_bytes())?;
        }
        out.flush()?;
        return Ok(Exit::Ok);
    };
    let failed = |e| Stop::new(Exit::Invalid, format!("cannot write {}: {e}", file.display()));
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(file).map_err(failed)?;
    made.write_all(text.as_bytes()).map_err(failed)?;
    Ok(Exit::Ok)
}

fn import(file: &Path, remote: &Remote, out: &mut dyn Write) -> Result<Exit, Stop> {
    let failed = |why: &dyn std::fmt::Display| {
        Stop::new(Exit::Invalid, format!("cannot import {}: {why}", file.display()))
    };
    let mut text = String::new();
    let opened = File::open(file).map_err(|e| failed(&e))?;
    opened.take(MAX_IMPORT + 1).read_to_string(&mut text).map_err(|e| failed(&e))?;
    if text.len() as u64 > MAX_IMPORT {
        return Err(failed(&"it is larger than 1 MiB; split it by server"));
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let data = client::post(remote, "/v1/baseline/import", &json!({ "name": name, "text": text }))?;
    answer(remote, &data, out, |_, to| to.line(format!("{} is imported", safe(&name))))
}

pub(super) fn list_page(baselines: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let row = |b: &Value| {
        let state = at(b, "state");
        let style = style(&state);
        let ratified = b.get("ratified").filter(|r| r.is_object()).map_or("-".into(), |r| at(r, "by"));
        let cells = vec![
            at(b, "identity"),
            how_far(b),
            at(b, "mode"),
            ratified,
            at(b, "sessions"),
            at(b, "calls"),
            at(b, "tools"),
            at(b, "members"),
            time_at(b, "since"),
        ];
        (cells, style)
    };
    let columns = ["identity", "state", "mode", "ratified", "sessions", "calls", "tools", "members", "since"];
    to.table(&columns, rows(baselines).iter().map(row).collect())
}

/// The state, and what is missing.
fn how_far(summary: &Value) -> String {
    let state = at(summary, "state");
    match (some(summary, "needs_sessions"), some(summary, "because")) {
        (Some(n), _) if state == "learning" => format!("learning: needs {n} more sessions"),
        (_, Some(because)) => format!("{state}: {because}"),
        _ => state,
    }
}

pub(super) fn show_page(baseline: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let nothing = Value::Null;
    let summary = baseline.get("summary").unwrap_or(&nothing);
    for key in ["identity", "name", "uid", "package", "version", "digest"] {
        to.field(key, &at(summary, key))?;
    }
    to.field("state", &how_far(summary))?;
    to.field("mode", &at(summary, "mode"))?;
    let ratified = summary.get("ratified").filter(|r| r.is_object());
    let ratified = ratified.map_or_else(
        || "no: it permits nothing in `enforce`".to_owned(),
        |r| format!("by {} at {}", at(r, "by"), time_at(r, "at")),
    );
    to.field("ratified", &ratified)?;
    to.field(
        "learned",
        &format!(
            "{} calls in {} sessions since {}",
            at(summary, "calls"),
            at(summary, "sessions"),
            time_at(summary, "since")
        ),
    )?;
    list(baseline, "scopes").iter().try_for_each(|scope| show_scope(scope, to))
}

fn show_scope(scope: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let testable = |value: &Value| match value.get("testable") {
        Some(Value::Bool(false)) => some(value, "because")
            .map_or_else(|| "not yet testable".to_owned(), |b| format!("not yet testable: {b}")),
        _ => "testable".to_owned(),
    };
    let name = at(scope, "scope");
    to.heading(&format!(
        "{name}: {} calls in {} sessions, {}",
        at(scope, "calls"),
        at(scope, "sessions"),
        testable(scope)
    ))?;
    let mut members = Vec::new();
    for dimension in list(scope, "dimensions") {
        let tested = dimension.get("testable") != Some(&Value::Bool(false));
        let style = if tested { Style::new() } else { Style::new().dimmed() };
        for m in list(dimension, "members") {
            let cells = vec![
                at(dimension, "dimension"),
                at(m, "member"),
                at(m, "count"),
                at(m, "sessions"),
                time_at(m, "first"),
                time_at(m, "last"),
            ];
            members.push((cells, style));
        }
    }
    to.table(&["dimension", "member", "count", "sessions", "first", "last"], members)?;
    let columns = ["metric", "n", "p50", "p99", "max"];
    let row = |n: &Value| (columns.iter().map(|column| at(n, column)).collect(), Style::new());
    let numbers: Vec<_> = list(scope, "numbers").iter().map(row).collect();
    if numbers.is_empty() { Ok(()) } else { to.table(&columns, numbers) }
}
