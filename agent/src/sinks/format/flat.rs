//! Flat JSON: `"evidence.effects.0.effect.path": "..."`. For receivers that cannot look into lists of objects, such as Wazuh's decoder.
//!
//! Objects become dotted keys, and so do the first objects of a list, by their number; lists of plain values stay.

use serde_json::{Map, Value};

use super::{json, read::cut};
use crate::sinks::{host::Host, wire::Event};

/// Objects of a list that are shown.
const OBJECTS: usize = 4;
/// Values of a list.
const VALUES: usize = 32;
/// Keys of an event.
const KEYS: usize = 400;
/// Bytes of a text.
const TEXT: usize = 2_048;
/// Bytes of an event: Wazuh takes 64 KiB.
pub(super) const MOST: usize = 60_000;

pub(super) fn body(host: &Host, event: &Event) -> Vec<u8> {
    let value: Value = serde_json::from_slice(&json::body(host, event)).unwrap_or_default();
    let mut flat = Flat { fields: Map::new(), bytes: 0, left_out: 0 };
    // Where it is from finds room in any case.
    let fields = value.as_object();
    let first = |key: &str| matches!(key, "type" | "event" | "host" | "time" | "server" | "container");
    for wanted in [true, false] {
        for (key, value) in fields.into_iter().flatten().filter(|(key, _)| first(key) == wanted) {
            flat.put(key, value);
        }
    }
    let Flat { mut fields, left_out, .. } = flat;
    if left_out > 0 {
        fields.insert("not_shown".into(), left_out.into());
    }
    Value::Object(fields).to_string().into_bytes()
}

struct Flat {
    fields: Map<String, Value>,
    bytes: usize,
    /// Values that found no room.
    left_out: u64,
}

impl Flat {
    fn put(&mut self, key: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.put(&join(key, name), value);
                }
            }
            Value::Array(all) if all.iter().any(|v| v.is_object() || v.is_array()) => {
                self.left_out += all.len().saturating_sub(OBJECTS) as u64;
                for (n, value) in all.iter().take(OBJECTS).enumerate() {
                    self.put(&join(key, &n.to_string()), value);
                }
            }
            Value::Array(all) => {
                self.left_out += all.len().saturating_sub(VALUES) as u64;
                self.plain(key, all.iter().take(VALUES).map(plain).collect());
            }
            value => self.plain(key, plain(value)),
        }
    }

    fn plain(&mut self, key: &str, value: Value) {
        if value.is_null() {
            return;
        }
        // Quotes, colon and comma.
        let bytes = self.bytes + key.len() + 4 + value.to_string().len();
        if self.fields.len() >= KEYS || bytes > MOST {
            self.left_out += 1;
            return;
        }
        self.bytes = bytes;
        self.fields.insert(key.to_owned(), value);
    }
}

fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) => cut(text, TEXT).into(),
        other => other.clone(),
    }
}

fn join(key: &str, name: &str) -> String {
    // Keys are our own words but for names of sinks and causes of losses.
    let name = cut(&name.replace('.', "_"), 64);
    if key.is_empty() { name } else { format!("{key}.{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_is_nothing_within_anything() {
        let event = json!({
            "type": "finding", "a": { "b.c": 1, "none": null }, "list": ["x", "y"],
            "effects": (0..9).map(|n| json!({ "n": n, "deep": { "er": [{ "est": n }] } })).collect::<Vec<_>>(),
        });
        let event = Event { seq: 1, boot: "b".into(), number: 1, stored_ns: 0, json: event.to_string() };
        let flat: Value = serde_json::from_slice(&body(&Host::default(), &event)).expect("JSON");
        let fields = flat.as_object().expect("an object");
        for (key, value) in fields {
            let of_plain = |v: &Value| !v.is_object() && !v.is_array();
            assert!(
                value.as_array().map_or(of_plain(value), |all| all.iter().all(of_plain)),
                "{key}: {value}"
            );
        }
        assert_eq!(flat["a.b_c"], 1);
        assert_eq!(flat["effects.3.deep.er.0.est"], 3);
        assert_eq!(flat["list"], json!(["x", "y"]));
        assert_eq!(flat["event.uid"], "b-1");
        assert_eq!(flat["not_shown"], 5);
        assert!(flat.get("effects.4.n").is_none() && flat.get("a.none").is_none());
    }
}
