//! Process Remediation Activity (7003): what was done about a server.

use serde_json::{Value, json};

use super::{
    super::{
        about::{About, ms},
        read::{flag, list, number, text, time},
    },
    Class, base, known,
    object::{container, user},
    with,
};

pub(super) fn build(about: &About<'_>) -> Value {
    let line = about.value;
    let action = text(line, "/action");
    let verdict = text(line, "/verdict");
    let class = Class {
        category: (7, "Remediation"),
        class: (7003, "Process Remediation Activity"),
        activity: activity(action),
    };
    let done = matches!(verdict, "done" | "partly");
    let (did, disposition) = became(action, verdict);
    let (status_id, status) = match verdict {
        "done" => (1, "Success"),
        "partly" => (4, "Partial"),
        "failed" => (2, "Failure"),
        "would" => (99, "Dry run"),
        "refused" => (99, "Refused"),
        "nothing" => (99, "Nothing to do"),
        _ => (0, "Unknown"),
    };
    let took = number(line, "/took_ns") / 1_000_000;
    let result = about.text("/result");
    let more = json!({
        "command_uid": known(&about.text("/id")),
        "process": process(about),
        "status_id": status_id, "status": status, "status_detail": result,
        "action_id": did.0, "action": did.1, "disposition_id": disposition.0, "disposition": disposition.1,
        "countermeasures": if done { countermeasure(action) } else { None },
        "duration": took, "count": number(line, "/processes").max(1),
        "unmapped": { "toolwarden": rest(about) },
    });
    with(base(about, class), more)
}

/// The server: its tree of processes has no single pid.
fn process(about: &About<'_>) -> Value {
    json!({
        "uid": format!("{}:tree:{}", about.event.boot, known(text(about.value, "/server/id"))),
        "name": about.fit(&about.head.server), "user": user(about), "container": container(about),
    })
}

fn activity(action: &str) -> (u32, String) {
    match action {
        "cut-network" | "freeze" => (1, "Isolate".to_owned()),
        "kill-child" | "kill-server" => (2, "Evict".to_owned()),
        "release" => (3, "Restore".to_owned()),
        "throttle" => (99, "Throttle".to_owned()),
        _ => (0, "Unknown".to_owned()),
    }
}

/// Action and disposition.
fn became(action: &str, verdict: &str) -> ((u32, &'static str), (u32, &'static str)) {
    const OBSERVED: (u32, &str) = (3, "Observed");
    match (verdict, action) {
        ("failed", _) => (OBSERVED, (27, "Error")),
        ("done" | "partly", "kill-child" | "kill-server") => ((2, "Denied"), (2, "Blocked")),
        ("done" | "partly", "cut-network") => ((2, "Denied"), (4, "Isolated")),
        ("done" | "partly", "freeze") => ((2, "Denied"), (14, "Delayed")),
        ("done" | "partly", "throttle") => ((4, "Modified"), (14, "Delayed")),
        ("done" | "partly", "release") => ((1, "Allowed"), (9, "Restored")),
        _ => (OBSERVED, (16, "No Action")),
    }
}

/// MITRE D3FEND.
fn countermeasure(action: &str) -> Option<Value> {
    let (tactic, technique) = match action {
        "kill-child" | "kill-server" => ("Evict", json!({ "uid": "D3-PT", "name": "Process Termination" })),
        "freeze" => ("Evict", json!({ "uid": "D3-PS", "name": "Process Suspension" })),
        "cut-network" => ("Isolate", json!({ "uid": "D3-NI", "name": "Network Isolation" })),
        "release" => ("Restore", Value::Null),
        _ => return None,
    };
    Some(json!([{ "d3f_tactic": { "name": tactic }, "d3f_technique": technique }]))
}

fn rest(about: &About<'_>) -> Value {
    let line = about.value;
    let spared: Vec<Value> = about
        .some(list(line, "/spared"), about.bounds.acts)
        .iter()
        .map(|s| json!({ "pid": number(s, "/pid"), "because": about.fit(text(s, "/because")) }))
        .collect();
    json!({
        "action": text(line, "/action"), "verdict": text(line, "/verdict"), "dry_run": flag(line, "/dry_run"),
        "only": text(line, "/only"), "instead_of": text(line, "/instead_of"),
        "cause": {
            "by": text(line, "/cause/by"), "finding": text(line, "/cause/finding"), "kind": text(line, "/cause/kind"),
            "rule": about.text("/cause/rule"), "who": about.text("/cause/who"),
            "response": about.text("/cause/response"), "starts": line.pointer("/cause/starts"),
        },
        "server_id": about.text("/server/id"), "identity": about.text("/identity"),
        "before": about.text("/before"), "after": about.text("/after"), "undo": about.text("/undo"),
        "until": time(line, "/until/utc").map(ms), "processes": number(line, "/processes"), "spared": spared,
    })
}
