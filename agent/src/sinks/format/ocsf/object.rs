//! Processes, files and endpoints.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::{
    about::{About, file_name},
    read::{number, text},
};
use crate::sinks::redact::NO_USER;

/// Regular, folder, socket, executable.
pub(super) const REGULAR: u32 = 1;
pub(super) const FOLDER: u32 = 2;
pub(super) const SOCKET: u32 = 5;
pub(super) const EXECUTABLE: u32 = 8;
pub(super) const UNKNOWN: u32 = 0;

/// A process of an event.
pub(super) fn process(about: &About<'_>, process: &Value) -> Value {
    let (pid, start_ns) = (number(process, "/pid"), number(process, "/start_ns"));
    let exe = text(process, "/exe");
    json!({
        "pid": pid,
        "uid": format!("{}:{pid}:{start_ns}", about.event.boot),
        "created_time": about.at_ms(start_ns),
        "name": about.fit(file_name(exe)),
        "file": file(about, exe, EXECUTABLE),
        "user": user(about),
        "container": container(about),
    })
}

/// User of the server.
pub(super) fn user(about: &About<'_>) -> Option<Value> {
    let uid = number(about.value, "/uid");
    (about.value.get("uid").is_some() && uid != u64::from(NO_USER)).then(|| json!({ "uid": uid.to_string() }))
}

/// Container of the server.
pub(super) fn container(about: &About<'_>) -> Option<Value> {
    let container = about.value.get("container")?;
    let pod = text(container, "/pod");
    // Static pods have another kind of id.
    let pod = (pod.len() == 36).then_some(pod);
    let orchestrator = container.get("pod").is_some().then_some("kubernetes");
    Some(json!({
        "uid": text(container, "/id"), "runtime": text(container, "/runtime"), "pod_uuid": pod,
        "orchestrator": orchestrator,
    }))
}

/// A file; nothing when it has no name.
pub(super) fn file(about: &About<'_>, path: &str, kind: u32) -> Option<Value> {
    (!path.is_empty())
        .then(|| json!({ "name": about.fit(file_name(path)), "path": about.fit(path), "type_id": kind }))
}

/// An end of a connection; nothing when it is not known.
pub(super) fn endpoint(about: &About<'_>, address: &str, port: u64, name: &str) -> Option<Value> {
    let is_address = address.parse::<IpAddr>().is_ok();
    let (ip, other) = if is_address { (address, "") } else { ("", address) };
    let port = u16::try_from(port).ok();
    (!address.is_empty() || !name.is_empty())
        .then(|| json!({ "ip": ip, "name": about.fit(other), "port": port, "hostname": about.fit(name) }))
}

/// A connection.
pub(super) fn connection(address: &str, protocol: &str, direction: u32) -> Value {
    let number = match protocol {
        "icmp" => Some(1),
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmpv6" => Some(58),
        "sctp" => Some(132),
        "mptcp" => Some(262),
        other => other.parse().ok(),
    };
    let version = address.parse::<IpAddr>().ok().map(|ip| if ip.is_ipv4() { 4 } else { 6 });
    json!({
        "direction_id": direction, "protocol_name": protocol, "protocol_num": number, "protocol_ver_id": version,
    })
}

/// The tool and the server.
pub(super) fn resources(about: &About<'_>) -> Vec<Value> {
    let (server, tool) = (about.fit(&about.head.server), about.fit(&about.head.tool));
    let of_server = json!({
        "uid": format!("mcp://{server}"), "name": server, "type": "MCP server", "namespace": about.text("/identity"),
    });
    let of_tool = json!({ "uid": format!("mcp://{server}/{tool}"), "name": tool, "type": "MCP tool" });
    if about.head.server.is_empty() {
        return Vec::new();
    }
    (!about.head.tool.is_empty()).then_some(of_tool).into_iter().chain([of_server]).collect()
}
