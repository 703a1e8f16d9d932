//! Application Lifecycle (6002): the agent itself, and events that a sink will never get.

use serde_json::{Map, Value, json};

use super::{
    super::{
        about::About,
        read::{number, text},
    },
    Class, base, product, with,
};

pub(super) fn build(about: &About<'_>) -> Value {
    let event = about.value;
    let is_gap = about.head.what == "gap";
    let activity = match text(event, "/life") {
        "started" => (3, "Start".to_owned()),
        "stopped" => (4, "Stop".to_owned()),
        _ if is_gap => (99, "Gap".to_owned()),
        "" => (99, "Other".to_owned()),
        other => (99, capital(&about.fit(other))),
    };
    let class =
        Class { category: (6, "Application Activity"), class: (6002, "Application Lifecycle"), activity };
    let (status_id, status) = if is_gap { (2, "Failure") } else { (1, "Success") };
    let told = if is_gap { "gap" } else { "agent" };
    let unmapped = if is_gap { event } else { event.get("agent").unwrap_or(event) };
    let more = json!({
        "app": product(), "status_id": status_id, "status": status,
        "count": if is_gap { number(event, "/count").max(1) } else { 1 },
        "unmapped": { "toolwarden": { told: bounded(about, unmapped, 0) } },
    });
    with(base(about, class), more)
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// All of it that fits: counts of a heartbeat are few, hooks and sinks are many.
fn bounded(about: &About<'_>, value: &Value, depth: usize) -> Value {
    match value {
        Value::String(text) => about.fit(text).into(),
        Value::Array(all) if depth < 4 => {
            about.some(all, about.bounds.acts * 4).iter().map(|v| bounded(about, v, depth + 1)).collect()
        }
        Value::Object(fields) if depth < 4 => {
            let most = about.bounds.acts * 8;
            // Counts first: they are what a heartbeat is for.
            let order = |v: &Value| u8::from(v.is_object()) + 2 * u8::from(v.is_array());
            let mut kept: Vec<(&String, &Value)> = fields.iter().collect();
            kept.sort_by_key(|(_, v)| order(v));
            let kept = about.some(&kept, most).iter();
            kept.map(|(k, v)| (about.fit(k), bounded(about, v, depth + 1))).collect::<Map<_, _>>().into()
        }
        Value::Array(_) | Value::Object(_) => Value::Null,
        other => other.clone(),
    }
}
