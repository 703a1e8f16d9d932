//! What events are called, in words for people.

use engine::finding::Kind;
use serde_json::Value;

use super::read::{flag, number, text};

/// The kind of a finding, as a title.
pub(super) fn title(kind: &str) -> &str {
    match Kind::ALL.iter().find(|known| known.id() == kind) {
        Some(known) => name(*known),
        // Of a newer agent.
        None => kind,
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::NewServer => "New MCP server",
        Kind::ServerChanged => "MCP server changed",
        Kind::NewTool => "New MCP tool",
        Kind::NewExec => "New program executed",
        Kind::NewDestination => "New network destination",
        Kind::NewName => "New DNS name",
        Kind::NewListener => "New listening port",
        Kind::NewUnixPeer => "New unix socket peer",
        Kind::NewFileArea => "New part of the file system read",
        Kind::NewWrite => "New kind of write",
        Kind::ProtectedObject => "Protected object accessed",
        Kind::Persistence => "Persistence",
        Kind::DeputySocket => "Socket with other rights used",
        Kind::MetadataService => "Cloud metadata service contacted",
        Kind::PrivateRange => "Private address contacted",
        Kind::DnsTunnel => "Data in DNS questions",
        Kind::SniUnbound => "Unbound TLS server name",
        Kind::Beacon => "Beacon",
        Kind::AmbientNetwork => "Network use without a call",
        Kind::Volume => "Unusual volume sent",
        Kind::SlowExfiltration => "Slow exfiltration",
        Kind::Exhaustion => "Resource exhaustion",
        Kind::Outlived => "Process outlived its call",
        Kind::ForgedCall => "Forged call",
        Kind::UnusualSyscall => "Unusual system call",
        Kind::Compat => "32-bit system call",
        Kind::IoUring => "io_uring used",
        Kind::MemfdExec => "Program without a file executed",
        Kind::Injection => "Injection into a process",
        Kind::Namespace => "Namespace or mount changed",
        Kind::Privilege => "Privileges changed",
        Kind::Blinded => "Not everything was seen",
        Kind::TooLarge => "Baseline too large",
        Kind::RespawnLoop => "Killed server starts again",
        Kind::RuleHit => "Rule hit",
        Kind::LimitHit => "Limit exceeded",
        Kind::Tampering => "Tampering with the agent",
        Kind::CoverageLost => "Coverage lost",
    }
}

/// What became of a response.
pub(super) fn responded(event: &Value) -> String {
    let action = text(event, "/action");
    let verdict = match text(event, "/verdict") {
        "done" => "done",
        "partly" => "partly done",
        "would" => "would have been done",
        "refused" => "refused",
        "failed" => "failed",
        "nothing" => "there was nothing to do",
        other => other,
    };
    let because = match text(event, "/cause/by") {
        "finding" => {
            format!(" because of {} (finding {})", text(event, "/cause/kind"), text(event, "/cause/finding"))
        }
        "person" => format!(", ordered by {}", text(event, "/cause/who")),
        "quarantine" => " because it is in quarantine".to_owned(),
        "time_up" => " because its time was up".to_owned(),
        "ended" => " because the server has ended".to_owned(),
        "disarmed" => " because responses were disarmed".to_owned(),
        "stopped" => " because the agent stops".to_owned(),
        _ => String::new(),
    };
    let result = text(event, "/result");
    let result = if result.is_empty() { String::new() } else { format!(": {result}") };
    format!("{action} of server `{}`{because}: {verdict}{result}", text(event, "/server/name"))
}

/// What a server did.
pub(super) fn acted(event: &Value) -> String {
    let effect = |at| text(event, at);
    let all = ["/effect/path", "/effect/object", "/effect/name", "/effect/address"];
    let about = all.into_iter().map(effect).find(|t| !t.is_empty()).unwrap_or_default();
    let what = [effect("/effect/kind"), effect("/effect/op"), about];
    let what: Vec<&str> = what.into_iter().filter(|word| !word.is_empty()).collect();
    let tool = text(event, "/scope/tool");
    let tool = if tool.is_empty() { String::new() } else { format!(", tool `{tool}`") };
    format!("Server `{}`{tool}: {}", text(event, "/server/name"), what.join(" "))
}

/// What the agent says of itself.
pub(super) fn said(event: &Value) -> String {
    let count = |at| number(event, at);
    let counts = || format!("{} servers, {} tools", count("/agent/servers"), count("/agent/tools"));
    match text(event, "/life") {
        "started" => format!("Toolwarden {} watches", text(event, "/agent/version")),
        "stopped" => "Toolwarden was told to stop".to_owned(),
        "heartbeat" => format!("Toolwarden lives: {}", counts()),
        other => format!("Toolwarden: {other}"),
    }
}

/// What a sink will never get.
pub(super) fn missed(event: &Value) -> String {
    format!(
        "{} events will never reach the sink {}: {}",
        number(event, "/count"),
        text(event, "/sink"),
        text(event, "/because")
    )
}

/// What became of the act, where the kernel had a say.
pub(super) fn denied(effect: &Value) -> Option<bool> {
    (text(effect, "/kind") == "denied").then(|| !flag(effect, "/dry_run"))
}
