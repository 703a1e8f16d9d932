//! `findings explain`: all about one finding, to be read from top to bottom.

use std::io;

use engine::output::Effect;
use owo_colors::{OwoColorize as _, Style};
use serde_json::Value;

use super::{
    findings::server,
    show::{Screen, at, list, some, style, text, time, time_at},
    taxonomy,
};
use crate::print::{describe, safe, safe_lines};

pub(super) fn page(f: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let severity = at(f, "severity");
    let title = format!("{} {} {}", safe(&severity).to_uppercase(), safe(&at(f, "kind")), safe(&at(f, "id")));
    to.line(title.style(style(&severity).bold()).to_string())?;

    to.heading("What happened")?;
    to.line(safe(&at(f, "sentence")))?;
    to.field("first", &time_at(f, "time"))?;
    to.field("count", &at(f, "count"))?;
    to.field("object", &at(f, "object"))?;

    charged(f, to)?;
    let nothing = Value::Null;
    let evidence = f.get("evidence").unwrap_or(&nothing);
    effects(evidence, to)?;
    processes(evidence, to)?;
    let calls = list(evidence, "calls_before");
    if !calls.is_empty() {
        to.heading("Calls before it, latest first")?;
        calls.iter().try_for_each(|call| to.line(format!("  {}", safe(&text(call)))))?;
    }
    to.heading("What was normal")?;
    to.line(safe(
        &some(evidence, "baseline").unwrap_or_else(|| "nothing was learned about this yet".into()),
    ))?;

    to.heading("Why it counts")?;
    to.line(safe(&origin(f.get("origin").unwrap_or(&nothing))))?;
    taxonomy(f.get("taxonomy").unwrap_or(&nothing), to)?;

    to.heading("To permit it")?;
    match some(f, "permit") {
        Some(yaml) => {
            to.line(safe_lines(&yaml))?;
            let id = safe(&at(f, "id"));
            to.line(format!("\n`toolwarden findings permit {id} --reason TEXT` writes this rule"))?;
        }
        None => to.line("no rule permits this")?,
    }

    to.heading("What was done")?;
    let denied = list(evidence, "effects").iter().any(|e| {
        let effect = e.get("effect").unwrap_or(&nothing);
        at(effect, "kind") == "denied" && effect.get("dry_run") != Some(&Value::Bool(true))
    });
    let responses = list(f, "responses");
    if denied {
        to.field("in the kernel", "the act was denied")?;
    } else if responses.is_empty() {
        to.field("response", "told, nothing was stopped")?;
    }
    for r in responses {
        to.field("response", &format!("{} ({}): {}", at(r, "action"), at(r, "verdict"), at(r, "result")))?;
    }
    to.field("seen", &acked(f))
}

/// Whether a person has seen it.
pub(super) fn acked(f: &Value) -> String {
    let Some(acked) = f.get("acked").filter(|acked| acked.is_object()) else {
        return "nobody has acknowledged it".into();
    };
    let expected = if acked.get("expected") == Some(&Value::Bool(true)) { ", as expected" } else { "" };
    let note = some(acked, "note").map(|note| format!(": {note}")).unwrap_or_default();
    format!("by {} at {}{expected}{note}", at(acked, "by"), time_at(acked, "at"))
}

fn charged(f: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    to.heading("Whom it is charged to")?;
    let of_client = some(f, "client").map(|client| format!(", started by {client}")).unwrap_or_default();
    let uid = some(f, "uid").map(|uid| format!(", uid {uid}")).unwrap_or_default();
    to.field("server", &format!("{}{uid}{of_client}", server(f)))?;
    to.field("identity", &at(f, "identity"))?;
    let Some(scope) = f.get("scope") else { return Ok(()) };
    to.field("charged to", &part(scope))?;
    let basis = match scope.get("basis").and_then(Value::as_str) {
        Some("lineage") => ", because the call's own process, or a child of it, did it",
        Some("window") => ", because it was the only call that ran then",
        _ => "",
    };
    let sure = match scope.get("certainty").and_then(Value::as_str) {
        Some("certain") => format!("certain{basis}"),
        Some("certain_tool") => "the tool is certain, which call of it is not".into(),
        Some("ambiguous") => "ambiguous: it was one of these, and nothing tells which".into(),
        _ => at(scope, "certainty"),
    };
    to.field("certainty", &sure)?;
    list(scope, "candidates")
        .iter()
        .try_for_each(|candidate| to.line(format!("  - {}", safe(&part(candidate)))))
}

/// A scope or a candidate in words.
fn part(scope: &Value) -> String {
    let call = scope.get("call").filter(|call| call.is_object());
    match (some(scope, "tool"), call) {
        (Some(tool), Some(call)) => format!("{tool}, call #{}", at(call, "number")),
        (Some(tool), None) => format!("{tool}, no single call of it"),
        (None, _) => match scope.get("kind").and_then(Value::as_str) {
            Some("startup") => "the server's start, before its first call".into(),
            Some("ambient") => "the server while no call ran".into(),
            Some("ambiguous") => "no single call".into(),
            _ => at(scope, "kind"),
        },
    }
}

fn effects(evidence: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    to.heading("What it rests on")?;
    let seen = list(evidence, "effects");
    if seen.is_empty() {
        to.line("no single effect; see the numbers in the sentence")?;
    }
    for act in seen {
        let effect = act.get("effect").cloned().unwrap_or_default();
        let words = serde_json::from_value::<Effect>(effect.clone()).ok().as_ref().and_then(describe);
        let words = words.unwrap_or_else(|| effect.to_string());
        let times = some(act, "count").filter(|n| n != "1").map(|n| format!("  × {n}")).unwrap_or_default();
        let pid = act.get("process").map_or_else(|| "-".into(), |process| at(process, "pid"));
        let at = time(act.get("time").unwrap_or(&Value::Null));
        to.line(format!("  {}  pid {:<8} {}{}", safe(&at), safe(&pid), safe(&words), safe(&times)))?;
    }
    match evidence.get("more").and_then(Value::as_u64) {
        Some(more) if more > 0 => to.line(format!("  … and {more} more")),
        _ => Ok(()),
    }
}

fn processes(evidence: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let processes = list(evidence, "processes");
    if processes.is_empty() {
        return Ok(());
    }
    to.heading("Processes, from the server down to the one that acted")?;
    for (depth, process) in processes.iter().rev().enumerate() {
        let branch =
            if depth == 0 { String::new() } else { format!("{}└ ", "  ".repeat(depth.min(32) - 1)) };
        let exe = some(process, "exe").unwrap_or_else(|| "(unknown program)".into());
        let line = format!("  {branch}{} {}", safe(&at(process, "pid")), safe(&exe));
        let last = depth + 1 == processes.len();
        to.line(if last { line.style(Style::new().bold()).to_string() } else { line })?;
    }
    Ok(())
}

fn origin(origin: &Value) -> String {
    match origin.get("by").and_then(Value::as_str) {
        Some("rule") => format!("the rule `{}` says so ({})", at(origin, "rule"), at(origin, "place")),
        Some("baseline") => {
            let bound = origin.get("bound").and_then(Value::as_f64).unwrap_or(1.0);
            format!(
                "it was not done once in {} sessions with {} calls; from that, with 95 % confidence, at most \
                 {:.2} % of sessions do anything new of this kind by chance",
                at(origin, "sessions"),
                at(origin, "calls"),
                bound * 100.0
            )
        }
        Some("detector") => "no tool should do this unseen, whatever was learned".into(),
        _ => "the agent does not say".into(),
    }
}

fn taxonomy(ids: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    for (key, catalogue) in [("attack", "ATT&CK"), ("atlas", "ATLAS"), ("owasp_mcp", "OWASP MCP")] {
        for id in list(ids, key) {
            let id = text(id);
            to.field(catalogue, &format!("{id}  {}", taxonomy::name(&id).unwrap_or_default()))?;
        }
    }
    Ok(())
}
