//! Looks into events. They are our own, but another version of the agent may have stored them, and redaction may have put a marker where a
//! number was: what is not there, or is something else, is empty. Nothing here fails.

use engine::finding::Severity;
use serde_json::Value;

/// A text.
pub(super) fn text<'a>(value: &'a Value, at: &str) -> &'a str {
    value.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// A number that is not negative.
pub(super) fn number(value: &Value, at: &str) -> u64 {
    value.pointer(at).and_then(Value::as_u64).unwrap_or_default()
}

/// Whether something is so.
pub(super) fn flag(value: &Value, at: &str) -> bool {
    value.pointer(at).and_then(Value::as_bool).unwrap_or_default()
}

/// A list.
pub(super) fn list<'a>(value: &'a Value, at: &str) -> &'a [Value] {
    value.pointer(at).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The texts of a list.
pub(super) fn texts<'a>(value: &'a Value, at: &str) -> impl Iterator<Item = &'a str> {
    list(value, at).iter().filter_map(Value::as_str)
}

/// UTC, ns.
pub(super) fn time(value: &Value, at: &str) -> Option<i64> {
    let time: jiff::Timestamp = text(value, at).parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// How bad it is.
pub(super) fn severity(value: &Value, at: &str) -> Option<Severity> {
    value.pointer(at).and_then(|v| serde_json::from_value(v.clone()).ok())
}

/// At most so many bytes of it, and a mark when it was longer.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &text[..end])
}

/// One line that no terminal interprets, of at most so many bytes.
pub(super) fn line(text: &str, most: usize) -> String {
    cut(&crate::print::safe(text), most)
}
