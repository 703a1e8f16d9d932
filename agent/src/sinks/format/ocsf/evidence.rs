//! Acts in evidence.

use serde_json::{Value, json};

use super::{
    super::{
        about::{About, destination, file_name},
        json::uid,
        read::{flag, list, number, text, texts},
    },
    object::{EXECUTABLE, FOLDER, REGULAR, SOCKET, UNKNOWN, connection, container, endpoint, file, process},
    with,
};

/// In, out, not known.
const IN: u32 = 1;
const OUT: u32 = 2;
const OPEN: u32 = 0;
/// What can be searched for, by where it stands: name of the type, id, place.
const OBSERVABLES: [(&str, u32, &str); 6] = [
    ("IP Address", 2, "/dst_endpoint/ip"),
    ("IP Address", 2, "/src_endpoint/ip"),
    ("Hostname", 1, "/dst_endpoint/hostname"),
    ("Hostname", 1, "/query/hostname"),
    ("File Path", 45, "/file/path"),
    ("Command Line", 13, "/process/cmd_line"),
];
const MOST_OBSERVABLES: usize = 12;

/// Acts of a finding. There is always one, which says whose act it was.
pub(super) fn evidences(about: &About<'_>) -> Vec<Value> {
    let acts = about.some(list(about.value, "/evidence/effects"), about.bounds.acts);
    let client = json!({ "app_name": about.fit(file_name(text(about.value, "/client"))) });
    let mut all: Vec<Value> = acts.iter().map(|act| evidence(about, act)).collect();
    if all.is_empty() {
        all.push(json!({ "name": about.head.kind }));
    }
    for (n, one) in all.iter_mut().enumerate() {
        let data = mcp(about, acts.get(n).unwrap_or(&Value::Null));
        let more = json!({ "actor": client, "container": container(about), "data": data });
        *one = with(one.take(), more);
    }
    all
}

/// What OCSF has no attribute for.
pub(super) fn mcp(about: &About<'_>, act: &Value) -> Value {
    let kept = |fields: &serde_json::Map<String, Value>| {
        let long = ["argv", "path", "cwd", "script", "to"];
        // Attributes have these.
        fields
            .iter()
            .filter(|(k, _)| !long.contains(&k.as_str()))
            .map(|(k, v)| (k.clone(), fitted(about, v)))
            .collect()
    };
    let effect: Option<serde_json::Map<String, Value>> =
        act.get("effect").and_then(Value::as_object).map(kept);
    json!({
        "mcp": {
            "server": about.fit(&about.head.server), "tool": about.fit(&about.head.tool),
            "call": about.value.pointer("/scope/call/number"),
            "to": about.fit(text(act, "/effect/to")), "script": about.fit(text(act, "/effect/script")),
        },
        // There in any case: evidence must have something.
        "event": uid(about.event), "effect": effect, "count": act.get("count"), "time": act.pointer("/time/utc"),
    })
}

/// Texts and short lists of them, as far as they fit.
fn fitted(about: &About<'_>, value: &Value) -> Value {
    match value {
        Value::String(text) => about.fit(text).into(),
        Value::Array(all) => {
            about.some(all, about.bounds.acts * 2).iter().map(|v| fitted(about, v)).collect()
        }
        other => other.clone(),
    }
}

pub(super) fn evidence(about: &About<'_>, act: &Value) -> Value {
    let nothing = Value::Null;
    let effect = act.get("effect").unwrap_or(&nothing);
    let kind = text(effect, "/kind");
    let of = with(
        process(about, act.get("process").unwrap_or(&nothing)),
        json!({ "ancestry": ancestry(about, number(act, "/process/pid")) }),
    );
    let more = match kind {
        "exec" => return executed(about, effect, of),
        "open" => {
            let kind = if flag(effect, "/directory") { FOLDER } else { REGULAR };
            json!({ "file": file(about, text(effect, "/path"), kind) })
        }
        "path" => json!({ "file": file(about, text(effect, "/path"), UNKNOWN) }),
        "unix" => json!({ "file": file(about, text(effect, "/path"), SOCKET) }),
        "net" => net(about, effect),
        "flow" | "tls_hello" => {
            let (address, protocol) = (text(effect, "/address"), text(effect, "/protocol"));
            let peer = endpoint(about, address, number(effect, "/port"), text(effect, "/sni"));
            let protocol = if protocol.is_empty() { "tcp" } else { protocol };
            json!({ "dst_endpoint": peer, "connection_info": connection(address, protocol, OUT) })
        }
        "dns_query" | "dns_answer" => {
            let port = number(effect, "/port");
            let port = if port == 0 { 53 } else { port };
            json!({
                "query": query(about, effect),
                "dst_endpoint": endpoint(about, text(effect, "/resolver"), port, ""),
            })
        }
        "syscall" => json!({ "api": { "operation": format!("system call {}", number(effect, "/nr")) } }),
        "special" | "uring" => {
            json!({ "api": { "operation": about.fit(&format!("{kind} {}", text(effect, "/name"))) } })
        }
        "denied" => denied(about, effect),
        _ => Value::Null,
    };
    with(json!({ "name": kind, "process": of }), more)
}

fn query(about: &About<'_>, effect: &Value) -> Option<Value> {
    let name = text(effect, "/name");
    (!name.is_empty())
        .then(|| json!({ "hostname": about.fit(name), "type": text(effect, "/record"), "opcode_id": 0 }))
}

/// The process is then what it executed.
fn executed(about: &About<'_>, effect: &Value, process: Value) -> Value {
    let path = text(effect, "/path");
    let line = texts(effect, "/argv").collect::<Vec<_>>().join(" ");
    let now = json!({
        "name": about.fit(file_name(path)),
        "file": file(about, path, EXECUTABLE),
        "cmd_line": about.fit(&line),
        "working_directory": about.fit(text(effect, "/cwd")),
    });
    json!({ "name": "exec", "process": with(process, now) })
}

fn net(about: &About<'_>, effect: &Value) -> Value {
    let (address, protocol) = (text(effect, "/address"), text(effect, "/protocol"));
    let end = endpoint(about, address, number(effect, "/port"), text(effect, "/name"));
    match text(effect, "/op") {
        "connect" | "sendmsg" => {
            json!({ "dst_endpoint": end, "connection_info": connection(address, protocol, OUT) })
        }
        "accept" => json!({ "src_endpoint": end, "connection_info": connection(address, protocol, IN) }),
        // Its own end.
        _ => json!({ "src_endpoint": end, "connection_info": connection(address, protocol, OPEN) }),
    }
}

fn denied(about: &About<'_>, effect: &Value) -> Value {
    let object = text(effect, "/object");
    match (text(effect, "/family"), destination(object)) {
        ("network", Some((address, port, protocol))) => json!({
            "dst_endpoint": endpoint(about, address, port.into(), ""),
            "connection_info": connection(address, protocol, OUT),
        }),
        // A name was asked for.
        ("network", None) if !object.is_empty() => {
            json!({ "query": { "hostname": about.fit(object), "opcode_id": 0 } })
        }
        ("exec", _) => json!({ "file": file(about, object, EXECUTABLE) }),
        ("file", _) => json!({ "file": file(about, object, UNKNOWN) }),
        ("unix", _) => json!({ "file": file(about, object, SOCKET) }),
        _ => json!({ "api": { "operation": about.fit(&format!("{} {object}", text(effect, "/op"))) } }),
    }
}

/// Ancestors within the server, nearest first, of the process that acted.
fn ancestry(about: &About<'_>, pid: u64) -> Vec<Value> {
    let processes = list(about.value, "/evidence/processes");
    if processes.first().is_none_or(|first| number(first, "/pid") != pid) {
        return Vec::new();
    }
    let above = about.some(processes.get(1..).unwrap_or_default(), about.bounds.acts);
    above
        .iter()
        .map(|p| {
            let exe = text(p, "/exe");
            json!({
                "pid": number(p, "/pid"), "name": about.fit(file_name(exe)), "path": about.fit(exe),
                "created_time": about.at_ms(number(p, "/start_ns")),
            })
        })
        .collect()
}

/// What can be searched for in these.
pub(super) fn observables(evidences: &[Value]) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for (n, evidence) in evidences.iter().enumerate() {
        for (name, id, at) in OBSERVABLES {
            let value = text(evidence, at);
            let known = all.iter().any(|one| text(one, "/value") == value);
            if value.is_empty() || known || all.len() >= MOST_OBSERVABLES {
                continue;
            }
            let place = format!("evidences[{n}]{}", at.replace('/', "."));
            all.push(json!({ "name": place, "type_id": id, "type": name, "value": value }));
        }
    }
    all
}
