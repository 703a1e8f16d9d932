//! `status`, `servers`, `tools`, `calls`, `mode`, `reload`, `audit`, `purge`.

use std::io::{self, Write};

use owo_colors::Style;
use serde_json::{Value, json};

use super::{
    answer,
    args::{Audit, Calls, ModeOf, Purge, Reload, Remote, Tools},
    client,
    exit::{Exit, Stop},
    show::{Screen, at, list, rows, some, style, text, time_at},
};
use crate::print::safe;

pub(super) fn status(remote: &Remote, out: &mut dyn Write) -> Result<Exit, Stop> {
    let data = client::get(remote, "/v1/status", &[])?;
    answer(remote, &data, out, status_page)
}

pub(super) fn status_page(status: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    to.field("version", &at(status, "version"))?;
    to.field("pid", &at(status, "pid"))?;
    to.field("since", &time_at(status, "since"))?;
    for name in ["servers", "tools", "calls"] {
        to.field(name, &at(status, name))?;
    }
    to.field("findings", &pairs(status.get("findings")))?;
    to.field("lost", &pairs(status.get("lost")))?;
    to.field("rules", &pairs(status.get("rules")))?;
    to.field("store", &pairs(status.get("store")))?;
    let sinks = status.get("sinks").and_then(|s| s.get("sinks")).and_then(Value::as_object);
    for (name, sink) in sinks.into_iter().flatten() {
        to.field(&format!("sink {name}"), &pairs(Some(sink)))?;
    }
    if let Some(metrics) = status.get("metrics").filter(|m| m.is_object()) {
        to.field("metrics", &pairs(Some(metrics)))?;
    }
    if let Some(share) = status.get("ambiguous_share").filter(|s| s.is_object()) {
        let percent = |key: &str| {
            share
                .get(key)
                .and_then(Value::as_f64)
                .map_or_else(|| "-".into(), |s| format!("{:.2} %", s * 100.0))
        };
        to.field(
            "ambiguous",
            &format!("{}, {} before settling was learned", percent("after"), percent("before")),
        )?;
    }
    let coverage = list(status, "coverage");
    if !coverage.is_empty() {
        to.heading("Coverage")?;
        let row = |c: &Value| {
            let state = at(c, "state");
            let style = style(&state);
            (vec![at(c, "hook"), state, some(c, "because").unwrap_or_default()], style)
        };
        to.table(&["hook", "state", "because"], coverage.iter().map(row).collect())?;
    }
    Ok(())
}

/// `a 1, b 2`, or the value itself where it is no object.
fn pairs(value: Option<&Value>) -> String {
    match value {
        Some(Value::Object(fields)) if fields.is_empty() => "none".into(),
        Some(Value::Object(fields)) => {
            let pairs: Vec<_> = fields.iter().map(|(key, value)| format!("{key} {}", text(value))).collect();
            pairs.join(", ")
        }
        other => text(other.unwrap_or(&Value::Null)),
    }
}

pub(super) fn servers(remote: &Remote, out: &mut dyn Write) -> Result<Exit, Stop> {
    let data = client::get(remote, "/v1/servers", &[])?;
    answer(remote, &data, out, servers_page)
}

pub(super) fn servers_page(servers: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let columns =
        ["name", "id", "pid", "uid", "client", "tools", "calls", "mode", "state", "channel", "identity"];
    plain(servers, &columns, to)
}

pub(super) fn tools(options: &Tools, out: &mut dyn Write) -> Result<Exit, Stop> {
    let server = options.server.as_deref().map(|server| ("server", server));
    let data = client::get(&options.remote, "/v1/tools", server.as_slice())?;
    answer(&options.remote, &data, out, tools_page)
}

pub(super) fn tools_page(tools: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    plain(tools, &["server", "tool", "calls", "state", "findings", "settle_ms", "late_share"], to)
}

pub(super) fn calls(options: &Calls, out: &mut dyn Write) -> Result<Exit, Stop> {
    let limit = options.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    query.extend(options.server.as_deref().map(|server| ("server", server)));
    query.extend(options.tool.as_deref().map(|tool| ("tool", tool)));
    let data = client::get(&options.remote, "/v1/calls", &query)?;
    answer(&options.remote, &data, out, calls_page)
}

fn calls_page(calls: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let inner = |call: &Value, path: &str| text(call.pointer(path).unwrap_or(&Value::Null));
    let ms = |ns: &Value| ns.as_f64().map_or_else(|| "-".to_owned(), |ns| format!("{:.1}", ns / 1e6));
    let row = |call: &Value| {
        let status = at(call, "status");
        let style = style(&status);
        let row = vec![
            inner(call, "/time/utc"),
            inner(call, "/server/name"),
            inner(call, "/scope/tool"),
            inner(call, "/scope/call/number"),
            status,
            ms(call.get("duration_ns").unwrap_or(&Value::Null)),
        ];
        (row, style)
    };
    to.table(&["time", "server", "tool", "number", "status", "ms"], rows(calls).iter().map(row).collect())
}

/// A table with a column for each field.
fn plain(data: &Value, columns: &[&str], to: &mut Screen<'_>) -> io::Result<()> {
    let row = |row: &Value| {
        let style = some(row, "state").map_or_else(Style::new, |state| style(&state));
        (columns.iter().map(|column| at(row, column)).collect(), style)
    };
    to.table(columns, rows(data).iter().map(row).collect())
}

pub(super) fn mode(options: &ModeOf, out: &mut dyn Write) -> Result<Exit, Stop> {
    let (tool, mode) = options.wanted().map_err(|e| Stop::new(Exit::Usage, e))?;
    let remote = &options.remote;
    let Some(mode) = mode else {
        let mut data = client::get(remote, "/v1/mode", &[])?;
        if let (Some(wanted), Some(all)) = (&options.server, data.as_array_mut()) {
            let named = |row: &Value, key: &str| row.get(key).and_then(Value::as_str) == Some(wanted);
            all.retain(|row| ["server", "identity", "id"].iter().any(|key| named(row, key)));
            if let Some(tool) = tool {
                all.retain(|row| row.get("tool").and_then(Value::as_str).is_none_or(|t| t == tool));
            }
            if all.is_empty() {
                return Err(Stop::new(
                    Exit::No,
                    format!("no server `{wanted}`; `toolwarden servers` lists them"),
                ));
            }
        }
        return answer(remote, &data, out, |data, to| {
            let row = |row: &Value| {
                let mode = at(row, "mode");
                let style = style(&mode);
                (vec![at(row, "server"), some(row, "tool").unwrap_or_else(|| "(all)".into()), mode], style)
            };
            to.table(&["server", "tool", "mode"], rows(data).iter().map(row).collect())
        });
    };
    let mut body = json!({ "server": options.server, "tool": tool, "mode": mode });
    if let (true, Some(fields)) = (options.strict, body.as_object_mut()) {
        fields.insert("strict".into(), true.into());
    }
    let data = client::post(remote, "/v1/mode", &body)?;
    let of = tool.map(|tool| format!(" {}", safe(tool))).unwrap_or_default();
    let server = safe(options.server.as_deref().unwrap_or_default());
    let said = at(&data, "message");
    // What a person should know beside.
    let notes = said.split_once("; ").map(|(_, notes)| format!("; {}", safe(notes))).unwrap_or_default();
    answer(remote, &data, out, |_, to| to.line(format!("{server}{of} is in mode {} now{notes}", mode.name())))
}

pub(super) fn reload(options: &Reload, out: &mut dyn Write) -> Result<Exit, Stop> {
    let data = client::post(&options.remote, "/v1/reload", &json!({ "wait": options.wait }))?;
    answer(&options.remote, &data, out, reload_page)
}

pub(super) fn reload_page(data: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    if data.get("rules").is_none() {
        return to.line("asked to reload");
    }
    to.line(format!("reloaded: {} rules of {} files", at(data, "rules"), at(data, "files")))?;
    for (key, what) in [("settings", "changed"), ("restart", "changed, and in force only after a restart")] {
        let keys: Vec<&str> = list(data, key).iter().filter_map(Value::as_str).collect();
        if !keys.is_empty() {
            to.line(format!("{what}: {}", safe(&keys.join(", "))))?;
        }
    }
    Ok(())
}

pub(super) fn purge(options: &Purge, out: &mut dyn Write) -> Result<Exit, Stop> {
    let body = json!({ "before_days": options.before_days });
    let data = client::post(&options.remote, "/v1/purge", &body)?;
    answer(&options.remote, &data, out, |data, to| to.line(format!("purged: {}", safe(&pairs(Some(data))))))
}

pub(super) fn audit(options: &Audit, out: &mut dyn Write) -> Result<Exit, Stop> {
    let limit = options.limit.to_string();
    let data = client::get(&options.remote, "/v1/audit", &[("limit", limit.as_str())])?;
    answer(&options.remote, &data, out, audit_page)
}

pub(super) fn audit_page(trail: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let row = |row: &Value| {
        let outcome = at(row, "outcome");
        let style = if outcome == "ok" { Style::new() } else { Style::new().yellow() };
        let cells = vec![
            time_at(row, "utc_ns"),
            at(row, "uid"),
            at(row, "pid"),
            at(row, "exe"),
            at(row, "verb"),
            at(row, "target"),
            pairs(row.get("arguments")),
            outcome,
        ];
        (cells, style)
    };
    let columns = ["time", "uid", "pid", "exe", "verb", "target", "arguments", "outcome"];
    to.table(&columns, rows(trail).iter().map(row).collect())
}
