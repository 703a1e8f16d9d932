//! Logs of OpenTelemetry over HTTP, as protobuf or JSON. Of the protocol's many messages we need four, so they are written by hand
//! (`opentelemetry/proto/logs/v1/logs.proto`, `collector/logs/v1/logs_service.proto`).

use engine::finding::Severity;
use serde_json::{Value, json};

use super::Content;
use crate::sinks::{format::Head, host::Host, spec::Encoding, wire::Event};

pub(super) fn content(encoding: Encoding, host: &Host, events: &[(Head, &Event, Vec<u8>)]) -> Content {
    let resource: Vec<(&str, &str)> = [
        ("service.name", "toolwarden"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("host.name", &host.name),
        ("host.id", host.id.as_deref().unwrap_or_default()),
        ("k8s.cluster.name", host.cluster.as_deref().unwrap_or_default()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .collect();
    match encoding {
        Encoding::Json => {
            let records: Vec<Value> = events.iter().map(json_record).collect();
            let body = json!({ "resourceLogs": [{
                "resource": { "attributes": json_attributes(&resource) },
                "scopeLogs": [{ "scope": { "name": "toolwarden" }, "logRecords": records }],
            }]});
            Content { kind: "application/json", body: body.to_string().into(), headers: Vec::new() }
        }
        Encoding::Protobuf => {
            let mut scope_logs = message(1, &text(1, "toolwarden"));
            for event in events {
                scope_logs.extend(message(2, &record(event)));
            }
            let resource = [message(1, &attributes(1, &resource)), message(2, &scope_logs)].concat();
            let body = message(1, &resource);
            Content { kind: "application/x-protobuf", body: body.into(), headers: Vec::new() }
        }
    }
}

/// `SeverityNumber`.
fn number(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 9,
        Severity::Low => 10,
        Severity::Medium => 13,
        Severity::High => 17,
        Severity::Critical => 21,
    }
}

fn about<'a>(head: &'a Head, uid: &'a str) -> Vec<(&'static str, &'a str)> {
    let all = [
        ("toolwarden.uid", uid),
        ("toolwarden.kind", &head.kind),
        ("toolwarden.rule", &head.rule),
        ("mcp.server.name", &head.server),
        ("gen_ai.tool.name", &head.tool),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn nanoseconds(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0)
}

fn json_record((head, event, body): &(Head, &Event, Vec<u8>)) -> Value {
    json!({
        "timeUnixNano": nanoseconds(head.time_ns).to_string(),
        "observedTimeUnixNano": nanoseconds(event.stored_ns).to_string(),
        "severityNumber": number(head.severity),
        "severityText": head.severity.name(),
        "eventName": format!("toolwarden.{}", head.what),
        "body": { "stringValue": String::from_utf8_lossy(body) },
        "attributes": json_attributes(&about(head, &event.uid())),
    })
}

fn json_attributes(all: &[(&str, &str)]) -> Value {
    all.iter().map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } })).collect()
}

/// `LogRecord`.
fn record((head, event, body): &(Head, &Event, Vec<u8>)) -> Vec<u8> {
    let uid = event.uid();
    [
        fixed(1, nanoseconds(head.time_ns)),
        varint_field(2, number(head.severity).into()),
        text(3, head.severity.name()),
        message(5, &text(1, &String::from_utf8_lossy(body))),
        attributes(6, &about(head, &uid)),
        fixed(11, nanoseconds(event.stored_ns)),
        text(12, &format!("toolwarden.{}", head.what)),
    ]
    .concat()
}

/// Repeated `KeyValue` with an `AnyValue` that is a string.
fn attributes(number: u8, all: &[(&str, &str)]) -> Vec<u8> {
    let one =
        |(key, value): &(&str, &str)| message(number, &[text(1, key), message(2, &text(1, value))].concat());
    all.iter().flat_map(one).collect()
}

fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(n & 0x7f).unwrap_or(0);
        n >>= 7;
        if n == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Numbers of fields are below 16 here, so a tag is one byte.
fn varint_field(number: u8, value: u64) -> Vec<u8> {
    [vec![number << 3], varint(value)].concat()
}

fn fixed(number: u8, value: u64) -> Vec<u8> {
    [vec![number << 3 | 1], value.to_le_bytes().to_vec()].concat()
}

fn message(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn text(number: u8, text: &str) -> Vec<u8> {
    message(number, text.as_bytes())
}

/// How many records an answer says were dropped: `partial_success.rejected_log_records`. They must not be sent again.
pub(super) fn rejected(encoding: Encoding, answer: &[u8]) -> u64 {
    match encoding {
        Encoding::Json => {
            let said: Value = serde_json::from_slice(answer).unwrap_or_default();
            // 64-bit numbers are text in JSON of protobuf; not everybody knows.
            let n = &said["partialSuccess"]["rejectedLogRecords"];
            n.as_u64().or_else(|| n.as_str()?.parse().ok()).unwrap_or(0)
        }
        Encoding::Protobuf => {
            let partial = fields(answer).find_map(|(number, value)| match value {
                Wire::Bytes(bytes) if number == 1 => Some(bytes),
                _ => None,
            });
            let count = fields(partial.unwrap_or_default()).find_map(|(number, value)| match value {
                Wire::Number(n) if number == 1 => Some(n),
                _ => None,
            });
            // Signed in the protocol: less than none is none.
            count.filter(|n| i64::try_from(*n).is_ok()).unwrap_or(0)
        }
    }
}

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message, up to the first that is none.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, Wire<'_>)> {
    std::iter::from_fn(move || {
        let tag = read_varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Wire::Number(read_varint(&mut bytes)?),
            1 => skip(&mut bytes, 8)?,
            2 => {
                let length = usize::try_from(read_varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Wire::Bytes(value)
            }
            5 => skip(&mut bytes, 4)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    })
}

fn skip<'a>(bytes: &mut &'a [u8], length: usize) -> Option<Wire<'a>> {
    *bytes = bytes.get(length..)?;
    Some(Wire::Other)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}
