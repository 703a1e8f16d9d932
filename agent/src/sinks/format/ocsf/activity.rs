//! What servers do, where a sink asks for it: process (1007), file (1001), network (4001) and DNS activity (4003).

use serde_json::{Map, Value, json};

use super::{
    super::{
        about::{About, file_name},
        read::{flag, number, text, texts},
        words,
    },
    Class, base,
    evidence::{evidence, mcp},
    known, with,
};

const SYSTEM: (u32, &str) = (1, "System Activity");
const NETWORK: (u32, &str) = (4, "Network Activity");
const PROCESS: (u32, &str) = (1007, "Process Activity");
const FILE: (u32, &str) = (1001, "File System Activity");
const TRAFFIC: (u32, &str) = (4001, "Network Activity");
const DNS: (u32, &str) = (4003, "DNS Activity");

pub(super) fn build(about: &About<'_>) -> Value {
    let nothing = Value::Null;
    let effect = about.value.get("effect").unwrap_or(&nothing);
    let parts = evidence(about, about.value);
    let class = class(effect, &parts);
    let is_process = class.class == PROCESS;
    let (action, disposition, status) = match words::denied(effect) {
        Some(true) => ((2, "Denied"), (2, "Blocked"), (2, "Failure")),
        _ => ((1, "Allowed"), (17, "Logged"), (1, "Success")),
    };
    let client = about.fit(file_name(text(about.value, "/client")));
    let process = parts.get("process").cloned().unwrap_or_default();
    let mut built = with(
        base(about, class),
        json!({
            "actor": { "app_name": client, "process": process },
            "count": number(about.value, "/count").max(1),
            "action_id": action.0, "action": action.1,
            "disposition_id": disposition.0, "disposition": disposition.1,
            "status_id": status.0, "status": status.1,
            "unmapped": { "toolwarden": rest(about) },
        }),
    );
    // Which of the parts a class has follows from its choice.
    let names = ["file", "src_endpoint", "dst_endpoint", "connection_info", "query"];
    let parts: Map<String, Value> =
        names.iter().filter_map(|name| Some(((*name).to_owned(), parts.get(*name)?.clone()))).collect();
    if is_process {
        built = with(built, of_process(about, effect, process));
    } else {
        built = with(built, parts.into());
        built = with(built, details(about, effect));
    }
    built
}

/// What a class is chosen by: its kind, and whether it has what the class must have.
fn class(effect: &Value, parts: &Value) -> Class {
    let has = |part| parts.get(part).is_some_and(|p: &Value| !p.is_null());
    let name = |id, name: &str| (id, name.to_owned());
    let (kind, op) = (text(effect, "/kind"), text(effect, "/op"));
    let of = |category, class, activity| Class { category, class, activity };
    if has("query") && has("dst_endpoint") {
        let activity = if kind == "dns_answer" { name(2, "Response") } else { name(1, "Query") };
        return of(NETWORK, DNS, activity);
    }
    if has("dst_endpoint") || has("src_endpoint") {
        let activity = match (kind, op) {
            ("denied", _) => name(5, "Refuse"),
            ("net", "connect" | "accept") => name(1, "Open"),
            ("net", "bind" | "listen") => name(7, "Listen"),
            _ => name(6, "Traffic"),
        };
        return of(NETWORK, TRAFFIC, activity);
    }
    if has("file") && !matches!(kind, "exec" | "") {
        let activity = match (kind, op) {
            ("open", _) if flag(effect, "/create") => name(1, "Create"),
            ("open", _) if flag(effect, "/write") => name(3, "Update"),
            ("path", "unlink" | "rmdir") => name(4, "Delete"),
            ("path", "rename") => name(5, "Rename"),
            ("path", "chmod" | "chown") => name(7, "Set Security"),
            ("path", "truncate") => name(3, "Update"),
            ("path", "mkdir" | "symlink" | "link" | "mknod") => name(1, "Create"),
            _ => name(14, "Open"),
        };
        return of(SYSTEM, FILE, activity);
    }
    let activity = match kind {
        "exec" | "fork" => name(1, "Launch"),
        "exit" => name(2, "Terminate"),
        "syscall" => name(99, "System call"),
        "special" => name(99, &format!("System call {}", text(effect, "/name"))),
        "uring" => name(99, &format!("io_uring {}", text(effect, "/name"))),
        _ => name(99, "Other"),
    };
    of(SYSTEM, PROCESS, activity)
}

/// Process, how it came to be, and the call, which OCSF knows of processes only.
fn of_process(about: &About<'_>, effect: &Value, process: Value) -> Value {
    let launch = match text(effect, "/kind") {
        "fork" => Some((2, "Fork")),
        "exec" => Some((3, "Exec")),
        _ => None,
    };
    // A child has its parent's program until it executes another.
    let process = match text(effect, "/kind") {
        "fork" => json!({ "pid": number(effect, "/child"), "parent_process": process }),
        _ => process,
    };
    let code = effect.get("code").and_then(Value::as_u64);
    let call = about.value.pointer("/scope/call/number").map(|n| format!("call-{n}"));
    let metadata = super::metadata(about);
    let profiles: Vec<&str> = texts(&metadata, "/profiles").chain(["ai_operation"]).collect();
    json!({
        "process": process, "exit_code": code,
        "launch_type_id": launch.map(|l| l.0), "launch_type": launch.map(|l| l.1),
        "message_context": {
            "ai_role_id": 3, "ai_role": "Tool", "name": about.fit(&about.head.tool), "uid": call,
            "service": { "name": about.fit(known(&about.head.server)) },
        },
        "metadata": with(metadata.clone(), json!({ "profiles": profiles })),
    })
}

fn details(about: &About<'_>, effect: &Value) -> Value {
    let kind = text(effect, "/kind");
    let answers = || -> Vec<Value> {
        texts(effect, "/addresses").take(16).map(|address| json!({ "rdata": about.fit(address) })).collect()
    };
    match kind {
        "flow" => json!({
            "traffic": { "bytes_out": number(effect, "/bytes_out"), "bytes_in": number(effect, "/bytes_in") },
        }),
        "dns_answer" => {
            let code = number(effect, "/rcode");
            // 12 to 15 are not assigned.
            let known = code <= 11 || (16..=23).contains(&code);
            json!({ "answers": answers(), "rcode_id": if known { code } else { 99 }, "rcode": code.to_string() })
        }
        "path" if text(effect, "/op") == "rename" => {
            let to = text(effect, "/to");
            let to = super::object::file(about, to, super::object::UNKNOWN);
            json!({ "file_result": to })
        }
        _ => Value::Null,
    }
}

fn rest(about: &About<'_>) -> Value {
    let line = about.value;
    json!({
        "act": mcp(about, line), "id": line.get("id"), "repeat": line.get("repeat"), "outlived": line.get("outlived"),
        "left_out": line.get("left_out"), "server_id": about.text("/server/id"),
        "scope": {
            "kind": text(line, "/scope/kind"), "certainty": text(line, "/scope/certainty"),
            "basis": text(line, "/scope/basis"), "call": line.pointer("/scope/call/number"),
        },
    })
}
