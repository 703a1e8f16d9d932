//! OCSF 1.8.0: <https://schema.ocsf.io/1.8.0>. That is the newest version that an independent strict validator knows.
//!
//! # Layout
//! - [`finding`]: Detection Finding (2004)
//! - [`response`]: Process Remediation Activity (7003)
//! - [`life`]: Application Lifecycle (6002): the agent itself, and gaps
//! - [`activity`]: what servers do (1001, 1007, 4001, 4003), where a sink asks for it
//! - [`evidence`]: acts in evidence; [`object`]: processes, files, endpoints
//! - [`attack`]: what the field calls it
//!
//! Attributes are written as the schema has them; what is empty is left out at the end ([`tidy`]), so what is required must never be.

mod activity;
mod attack;
mod evidence;
mod finding;
mod life;
mod object;
mod response;

use engine::finding::Severity;
use serde_json::{Value, json};

use super::{
    about::{About, Bounds, ms},
    head::Head,
    json::uid,
};
use crate::sinks::{host::Host, wire::Event};

const VERSION: &str = "1.8.0";
/// rsyslog takes 8 KiB a message by default, with what syslog puts before it.
pub(super) const MOST: usize = 7_500;
/// Tried one after the other until the event is short enough.
const BOUNDS: [Bounds; 4] = [
    Bounds { acts: 8, text: 2_048 },
    Bounds { acts: 4, text: 512 },
    Bounds { acts: 2, text: 256 },
    Bounds { acts: 1, text: 100 },
];

/// A class of events, and what happened in it.
struct Class {
    category: (u32, &'static str),
    class: (u32, &'static str),
    /// 99 is anything else, by its name.
    activity: (u32, String),
}

pub(super) fn body(host: &Host, event: &Event) -> Vec<u8> {
    let value: Value = serde_json::from_str(&event.json).unwrap_or_default();
    let head = Head::read(&value, event);
    let mut bytes = Vec::new();
    for bounds in BOUNDS {
        bytes = write(&About::new(&value, event, host, &head, bounds));
        if bytes.len() <= MOST {
            break;
        }
    }
    bytes
}

fn write(about: &About<'_>) -> Vec<u8> {
    let mut built = match about.head.what.as_str() {
        "finding" => finding::build(about),
        "response" => response::build(about),
        "effect" => activity::build(about),
        _ => life::build(about),
    };
    if about.is_cut()
        && let Some(metadata) = built.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("is_truncated".into(), true.into());
        metadata.insert("untruncated_size".into(), about.event.json.len().div_ceil(1024).into());
    }
    tidy(&mut built);
    // First, so that it is there when a receiver cuts the rest off.
    let message = built.as_object_mut().and_then(|fields| fields.remove("message")).unwrap_or_default();
    let (message, rest) = (message.to_string(), built.to_string());
    format!("{{\"message\":{message},{}", rest.strip_prefix('{').unwrap_or_default()).into_bytes()
}

/// What all classes have.
fn base(about: &About<'_>, class: Class) -> Value {
    let Class { category, class, activity } = class;
    let (severity_id, severity) = match about.head.severity {
        Severity::Info => (1, "Informational"),
        Severity::Low => (2, "Low"),
        Severity::Medium => (3, "Medium"),
        Severity::High => (4, "High"),
        Severity::Critical => (5, "Critical"),
    };
    json!({
        "activity_id": activity.0, "activity_name": activity.1,
        "category_uid": category.0, "category_name": category.1,
        "class_uid": class.0, "class_name": class.1,
        "type_uid": class.0 * 100 + activity.0, "type_name": format!("{}: {}", class.1, activity.1),
        "severity_id": severity_id, "severity": severity,
        "time": ms(about.head.time_ns),
        "message": about.fit(&about.head.title),
        "metadata": metadata(about),
        "device": device(about),
    })
}

fn metadata(about: &About<'_>) -> Value {
    let label = |what: &str, name: &str| (!name.is_empty()).then(|| format!("{what}:{name}"));
    let cluster = about.host.cluster.as_deref().unwrap_or_default();
    let labels = [
        label("server", &about.fit(&about.head.server)),
        label("tool", &about.fit(&about.head.tool)),
        label("cluster", cluster),
    ];
    let container = about.value.get("container").is_some();
    let profiles: Vec<&str> =
        ["host", "security_control"].into_iter().chain(container.then_some("container")).collect();
    json!({
        "version": VERSION,
        "uid": uid(about.event),
        "sequence": about.event.number,
        "event_code": about.head.kind,
        "correlation_uid": correlation(about),
        "logged_time": ms(about.event.stored_ns),
        "log_name": about.head.what,
        "profiles": profiles,
        "product": product(),
        "labels": labels,
    })
}

/// A text that must be there.
fn known(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

/// A finding and what was done about it have the same.
fn correlation(about: &About<'_>) -> String {
    match about.head.what.as_str() {
        "finding" => about.text("/id"),
        _ => about.text("/cause/finding"),
    }
}

fn product() -> Value {
    json!({ "name": "Toolwarden", "vendor_name": "Toolwarden", "version": env!("CARGO_PKG_VERSION") })
}

fn device(about: &About<'_>) -> Value {
    let Host { name, id, cluster } = about.host;
    let cluster = cluster.as_ref().map(|name| json!([{ "name": about.fit(name), "type": "cluster" }]));
    json!({
        "type_id": 0, "type": "Unknown", "hostname": about.fit(known(name)), "uid": id, "boot_uid": about.event.boot,
        "os": { "name": "Linux", "type_id": 200 }, "groups": cluster,
    })
}

/// Takes out what is empty.
fn tidy(value: &mut Value) {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    match value {
        Value::Array(all) => {
            all.iter_mut().for_each(tidy);
            all.retain(|value| !empty(value));
        }
        Value::Object(fields) => {
            fields.values_mut().for_each(tidy);
            fields.retain(|_, value| !empty(value));
        }
        _ => {}
    }
}

/// Puts more attributes in.
fn with(mut base: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (base.as_object_mut(), more) {
        fields.extend(more);
    }
    base
}
