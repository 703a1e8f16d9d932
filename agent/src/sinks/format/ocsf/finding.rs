//! Detection Finding (2004).

use engine::finding::Kind;
use serde_json::{Value, json};

use super::{
    super::{
        about::{About, ms},
        read::{list, number, text, texts, time},
        words,
    },
    Class, attack, base,
    evidence::{evidences, observables},
    known,
    object::resources,
    with,
};

pub(super) fn build(about: &About<'_>) -> Value {
    let finding = about.value;
    let first = number(finding, "/revision") <= 1;
    let activity = if first { (1, "Create".to_owned()) } else { (2, "Update".to_owned()) };
    let class = Class { category: (2, "Findings"), class: (2004, "Detection Finding"), activity };
    let acts = list(finding, "/evidence/effects");
    let last = acts.iter().filter_map(|act| time(act, "/time/utc")).max().unwrap_or(about.head.time_ns);
    let (action, disposition) = acted(acts);
    let confidence = confidence(finding);
    let evidences = evidences(about);
    // An update is news of the time when it became known.
    let at = if first { about.head.time_ns } else { about.event.stored_ns };
    let more = json!({
        "time": ms(at), "start_time": ms(about.head.time_ns), "end_time": ms(last.max(about.head.time_ns)),
        "count": number(finding, "/count"),
        "is_alert": true, "status_id": 1, "status": "New",
        "confidence_id": confidence.0, "confidence": confidence.1,
        "action_id": action.0, "action": action.1, "disposition_id": disposition.0, "disposition": disposition.1,
        "finding_info": info(about, at, last),
        "anomaly_analyses": anomaly(about),
        "observables": observables(&evidences),
        "evidences": evidences,
        "resources": resources(about),
        "unmapped": { "toolwarden": rest(about) },
    });
    with(base(about, class), more)
}

fn info(about: &About<'_>, at: i64, last: i64) -> Value {
    let finding = about.value;
    let (server, tool) = (&about.head.server, &about.head.tool);
    let title = words::title(text(finding, "/kind"));
    let title = match (server.is_empty(), tool.is_empty()) {
        (true, _) => title.to_owned(),
        (false, true) => format!("{title}: server {server}"),
        (false, false) => format!("{title}: tool {tool} of server {server}"),
    };
    let kind = match text(finding, "/origin/by") {
        "rule" => "Rule Hit",
        "baseline" => "Behavioral Deviation",
        _ => "Detection",
    };
    let first = ms(about.head.time_ns);
    json!({
        "uid": known(text(finding, "/id")), "title": about.fit(&title), "desc": about.fit(text(finding, "/sentence")),
        "types": [kind], "created_time": first, "modified_time": ms(at),
        "first_seen_time": first, "last_seen_time": ms(last.max(about.head.time_ns)),
        "analytic": analytic(about), "attacks": attack::attacks(finding), "data_sources": ["eBPF"],
    })
}

/// What says so.
fn analytic(about: &About<'_>) -> Value {
    let kind = text(about.value, "/kind");
    let by = text(about.value, "/origin/by");
    let (uid, name, type_id, type_name) = match by {
        "rule" => (about.text("/origin/rule"), about.text("/origin/rule"), 1, "Rule"),
        "baseline" => (kind.to_owned(), words::title(kind).to_owned(), 3, "Statistical"),
        _ => (kind.to_owned(), words::title(kind).to_owned(), 2, "Behavioral"),
    };
    json!({
        "uid": known(&uid), "name": name, "type_id": type_id, "type": type_name, "category": by,
        "desc": about.text("/origin/place"),
    })
}

/// What was normal, and what was not.
fn anomaly(about: &About<'_>) -> Option<Value> {
    let finding = about.value;
    if text(finding, "/origin/by") != "baseline" {
        return None;
    }
    let (server, tool) = (&about.head.server, &about.head.tool);
    let target = match tool.is_empty() {
        true => json!({ "name": about.fit(&format!("mcp://{server}")), "type": "MCP server" }),
        false => json!({ "name": about.fit(&format!("mcp://{server}/{tool}")), "type": "MCP tool" }),
    };
    let object = about.text("/object");
    let (parameter, kind) = parameter(text(finding, "/kind"), &object);
    let normal = about.text("/evidence/baseline");
    Some(json!([{
        "analysis_targets": [target],
        "anomalies": [{
            "observation_parameter": parameter, "observation_type": kind, "observed_pattern": "new",
            "observations": [{ "value": known(&object), "count": number(finding, "/count") }],
        }],
        "baselines": [{
            "observation_parameter": parameter, "observation_type": kind, "observed_pattern": normal,
            "observations": [
                { "value": "calls", "count": number(finding, "/origin/calls") },
                { "value": "sessions", "count": number(finding, "/origin/sessions") },
            ],
        }],
    }]))
}

/// What was compared, and how.
fn parameter(kind: &str, object: &str) -> (String, &'static str) {
    const SET: &str = "set membership";
    const NUMBER: &str = "quantity";
    let (parameter, how) = match Kind::ALL.iter().find(|one| one.id() == kind) {
        Some(Kind::NewExec | Kind::MemfdExec) => ("process.exec", SET),
        Some(Kind::NewDestination | Kind::AmbientNetwork | Kind::PrivateRange) => {
            ("network.destination", SET)
        }
        Some(Kind::NewName) => ("dns.name", SET),
        Some(Kind::NewListener) => ("network.listener", SET),
        Some(Kind::NewUnixPeer | Kind::DeputySocket) => ("unix.peer", SET),
        Some(Kind::NewFileArea) => ("file.read", SET),
        Some(Kind::NewWrite) => ("file.write", SET),
        Some(Kind::NewTool) => ("tool", SET),
        Some(Kind::UnusualSyscall | Kind::Namespace | Kind::Privilege | Kind::Injection) => ("syscall", SET),
        Some(Kind::IoUring) => ("io_uring", SET),
        // The object is the number's name.
        Some(Kind::Volume | Kind::SlowExfiltration | Kind::Exhaustion) if !object.is_empty() => {
            (object, NUMBER)
        }
        _ => (kind, SET),
    };
    (known(parameter).to_owned(), how)
}

/// How sure it is whose act it was.
fn confidence(finding: &Value) -> (u32, &'static str) {
    match (text(finding, "/scope/certainty"), text(finding, "/scope/basis")) {
        ("certain", "lineage") => (3, "High"),
        ("certain" | "certain_tool", _) => (2, "Medium"),
        ("ambiguous", _) => (1, "Low"),
        _ => (0, "Unknown"),
    }
}

/// Action and disposition: whether the kernel denied any of it.
fn acted(acts: &[Value]) -> ((u32, &'static str), (u32, &'static str)) {
    let denied = |act: &Value| act.get("effect").and_then(words::denied) == Some(true);
    if acts.iter().any(denied) { ((2, "Denied"), (2, "Blocked")) } else { ((3, "Observed"), (19, "Alert")) }
}

/// What OCSF has no attribute for.
fn rest(about: &About<'_>) -> Value {
    let finding = about.value;
    let candidates = about.some(list(finding, "/scope/candidates"), about.bounds.acts);
    let candidates: Vec<Value> = candidates
        .iter()
        .map(|c| json!({ "kind": text(c, "/kind"), "tool": about.fit(text(c, "/tool")), "call": c.pointer("/call/number") }))
        .collect();
    let before: Vec<String> = texts(finding, "/evidence/calls_before").map(|call| about.fit(call)).collect();
    json!({
        "kind": text(finding, "/kind"), "object": about.text("/object"), "revision": number(finding, "/revision"),
        "identity": about.text("/identity"), "server_id": about.text("/server/id"), "project": about.text("/project"),
        "login_uid": finding.get("login_uid"), "bound": finding.pointer("/origin/bound"),
        "scope": {
            "kind": text(finding, "/scope/kind"), "certainty": text(finding, "/scope/certainty"),
            "basis": text(finding, "/scope/basis"), "call": finding.pointer("/scope/call/number"),
            "candidates": candidates,
        },
        "calls_before": before, "acts_left_out": number(finding, "/evidence/more"),
        "owasp_mcp": texts(finding, "/taxonomy/owasp_mcp").collect::<Vec<_>>(),
    })
}
