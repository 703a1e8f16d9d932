//! CEF, as ArcSight defined it: `CEF:0|vendor|product|version|id|name|severity|key=value key=value`.
//!
//! In the header `|` and `\` are escaped; in values `=`, `\` and line ends. Other control characters are written out (`\u{1b}`) in both.

use std::fmt::Write as _;

use engine::finding::Severity;
use serde_json::Value;

use super::{
    about::{destination, file_name, ms},
    head::Head,
    json::uid,
    read::{cut, list, number, text, texts},
    words,
};
use crate::{
    print::safe,
    sinks::{host::Host, redact::NO_USER, wire::Event},
};

/// Bytes of a value; dictionaries allow more only for `cs1` to `cs6`.
const VALUE: usize = 1_000;
/// Bytes of the header's fields.
const HEADER: usize = 255;

pub(super) fn body(host: &Host, event: &Event) -> Vec<u8> {
    let value: Value = serde_json::from_str(&event.json).unwrap_or_default();
    let head = Head::read(&value, event);
    let (id, name) = match head.what.as_str() {
        "finding" => (head.kind.clone(), words::title(&head.kind).to_owned()),
        "response" => (format!("response.{}", head.kind), format!("Response {}", head.kind)),
        "gap" => ("gap".to_owned(), "Events lost".to_owned()),
        "effect" => (format!("effect.{}", head.kind), format!("Effect {}", head.kind)),
        _ => (format!("agent.{}", head.kind), format!("Agent {}", head.kind)),
    };
    let severity = match head.severity {
        Severity::Info => 1,
        Severity::Low => 3,
        Severity::Medium => 5,
        Severity::High => 8,
        Severity::Critical => 10,
    };
    let mut out = format!(
        "CEF:0|Toolwarden|Toolwarden|{}|{}|{}|{severity}|",
        env!("CARGO_PKG_VERSION"),
        header(&id),
        header(&name)
    );
    let mut fields = Fields(&mut out, true);
    origin(&mut fields, host, event, &head);
    match head.what.as_str() {
        "finding" => finding(&mut fields, &value, &head),
        "response" => response(&mut fields, &value),
        "gap" => fields.put("cnt", &number(&value, "/count").to_string()),
        "effect" => effect(&mut fields, &value),
        _ => life(&mut fields, &value),
    }
    fields.put("msg", &head.title);
    out.into_bytes()
}

/// Where it is from.
fn origin(fields: &mut Fields<'_>, host: &Host, event: &Event, head: &Head) {
    fields.put("rt", &ms(head.time_ns).to_string());
    fields.put("externalId", &uid(event));
    fields.put("cat", &head.what);
    fields.put("dvchost", &host.name);
    fields.put("deviceExternalId", host.id.as_deref().unwrap_or_default());
    fields.labelled("cn1", "eventNumber", &event.number.to_string());
    fields.labelled("flexString1", "bootId", &event.boot);
    fields.labelled("cs1", "mcpServer", &head.server);
    fields.labelled("cs2", "mcpTool", &head.tool);
    fields.labelled("cs4", "cluster", host.cluster.as_deref().unwrap_or_default());
}

fn finding(fields: &mut Fields<'_>, value: &Value, head: &Head) {
    let ids: Vec<&str> = ["attack", "atlas", "owasp_mcp"]
        .iter()
        .flat_map(|catalogue| texts(value, &format!("/taxonomy/{catalogue}")).collect::<Vec<_>>())
        .collect();
    fields.labelled("cs3", "mitre", &ids.join(","));
    fields.labelled("cs6", "findingId", text(value, "/id"));
    fields.labelled("flexString2", "object", text(value, "/object"));
    if let Some(call) = value.pointer("/scope/call/number").and_then(Value::as_u64) {
        fields.labelled("cn2", "mcpCall", &call.to_string());
    }
    fields.labelled("cn3", "revision", &number(value, "/revision").to_string());
    fields.put("cnt", &number(value, "/count").to_string());
    fields.put("reason", if head.rule.is_empty() { text(value, "/origin/by") } else { &head.rule });
    who(fields, value);
    let acts = list(value, "/evidence/effects");
    let denied = acts.iter().filter_map(|act| words::denied(act.get("effect")?)).any(|denied| denied);
    fields.put("act", if denied { "denied" } else { "observed" });
    if let Some(act) = acts.first() {
        self::act(fields, act);
    }
}

fn response(fields: &mut Fields<'_>, value: &Value) {
    fields.put("act", text(value, "/action"));
    fields.put("outcome", text(value, "/verdict"));
    fields.put("reason", text(value, "/cause/kind"));
    fields.put("cnt", &number(value, "/processes").to_string());
    fields.labelled("cs6", "findingId", text(value, "/cause/finding"));
    who(fields, value);
}

fn life(fields: &mut Fields<'_>, value: &Value) {
    fields.put("act", text(value, "/life"));
    fields.labelled("cn2", "mcpServers", &number(value, "/agent/servers").to_string());
    fields.labelled("cn3", "mcpTools", &number(value, "/agent/tools").to_string());
}

fn effect(fields: &mut Fields<'_>, value: &Value) {
    fields.put("cnt", &number(value, "/count").to_string());
    who(fields, value);
    let denied = value.get("effect").and_then(words::denied) == Some(true);
    fields.put("act", if denied { "denied" } else { "observed" });
    act(fields, value);
}

/// User and container of the server.
fn who(fields: &mut Fields<'_>, value: &Value) {
    let uid = number(value, "/uid");
    if value.get("uid").is_some() && uid != u64::from(NO_USER) {
        fields.put("suid", &uid.to_string());
    }
    fields.labelled("cs5", "container", text(value, "/container/id"));
}

/// The first act: the process, and what it was about.
fn act(fields: &mut Fields<'_>, act: &Value) {
    let exe = text(act, "/process/exe");
    fields.put("sproc", exe);
    fields.put("spid", &number(act, "/process/pid").to_string());
    let Some(effect) = act.get("effect") else { return };
    let path = text(effect, "/path");
    fields.put("filePath", path);
    fields.put("fname", file_name(path));
    let object = text(effect, "/object");
    let (address, port, protocol) = match destination(object) {
        Some((address, port, protocol)) if text(effect, "/family") == "network" => {
            (address, u64::from(port), protocol)
        }
        _ => (text(effect, "/address"), number(effect, "/port"), text(effect, "/protocol")),
    };
    // `dst` and `src` are addresses and nothing else: a redacted one is left out.
    let address = if address.parse::<std::net::IpAddr>().is_ok() { address } else { "" };
    let (end, its_port) = match text(effect, "/op") {
        "bind" | "listen" | "accept" => ("src", "spt"),
        _ => ("dst", "dpt"),
    };
    fields.put(end, address);
    if port > 0 {
        fields.put(its_port, &port.to_string());
    }
    fields.put("proto", protocol);
    let name = [text(effect, "/sni"), text(effect, "/name")].into_iter().find(|name| !name.is_empty());
    if matches!(text(effect, "/kind"), "net" | "tls_hello" | "dns_query" | "dns_answer") {
        fields.put("dhost", name.unwrap_or_default());
    }
}

/// Extension fields; empty ones are left out.
struct Fields<'a>(&'a mut String, bool);

impl Fields<'_> {
    fn put(&mut self, key: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        let Self(out, first) = self;
        if !std::mem::take(first) {
            out.push(' ');
        }
        // Writing into memory cannot fail.
        let _unused = write!(out, "{key}={}", value(text));
    }

    /// A field whose meaning is told beside it.
    fn labelled(&mut self, key: &str, label: &str, text: &str) {
        if !text.is_empty() {
            self.put(&format!("{key}Label"), label);
            self.put(key, text);
        }
    }
}

fn header(text: &str) -> String {
    cut(&safe(text), HEADER).replace('\\', "\\\\").replace('|', "\\|")
}

fn value(text: &str) -> String {
    let lines: Vec<String> = cut(text, VALUE).split('\n').map(safe_line).collect();
    lines.join("\\n")
}

/// A line of a value; `\r` is CEF's own escape.
fn safe_line(line: &str) -> String {
    let parts: Vec<String> =
        line.split('\r').map(|part| safe(part).replace('\\', "\\\\").replace('=', "\\=")).collect();
    parts.join("\\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_field_is_escaped() {
        assert_eq!(header("a|b\\c\nd"), "a\\|b\\\\c\\\\nd");
        assert_eq!(value("a=b c\\d|e\nf\rg\u{1b}[2J"), "a\\=b c\\\\d|e\\nf\\rg\\\\u{1b}[2J");
        let mut out = String::new();
        let mut fields = Fields(&mut out, true);
        fields.put("a", "");
        fields.put("b", "1 c=2");
        fields.labelled("cs1", "x", "y");
        assert_eq!(out, "b=1 c\\=2 cs1Label=x cs1=y");
    }
}
