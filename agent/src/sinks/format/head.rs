//! What transports say about an event beside its body: priority, structured data, a line for people.

use engine::finding::Severity;
use serde_json::Value;

use super::{
    super::wire::Event,
    read::{line, severity, text, time},
    words,
};

/// Bytes of a name.
const NAME: usize = 256;
/// Bytes of the line for people.
const TITLE: usize = 1024;

/// The head of an event. Texts have no control characters and a bounded length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sinks) struct Head {
    /// When it happened, UTC, ns.
    pub(in crate::sinks) time_ns: i64,
    pub(in crate::sinks) severity: Severity,
    /// `finding`, `response`, `effect`, `agent` or `gap`.
    pub(in crate::sinks) what: String,
    /// What was found, done or said: `new-exec`, `freeze`, `heartbeat`; `gap` of a gap.
    pub(in crate::sinks) kind: String,
    /// Name of the server; empty when it is about none.
    pub(in crate::sinks) server: String,
    /// The tool, when it is certain.
    pub(in crate::sinks) tool: String,
    /// Id of the rule that says so or asks for it, if one does.
    pub(in crate::sinks) rule: String,
    /// For people.
    pub(in crate::sinks) title: String,
}

impl Head {
    pub(in crate::sinks) fn of(event: &Event) -> Self {
        // What cannot be read is told all the same.
        let value: Value = serde_json::from_str(&event.json).unwrap_or_default();
        Self::read(&value, event)
    }

    pub(super) fn read(value: &Value, event: &Event) -> Self {
        let what = text(value, "/type");
        let (kind, rule, title) = match what {
            "finding" => {
                (text(value, "/kind"), text(value, "/origin/rule"), text(value, "/sentence").to_owned())
            }
            "response" => (text(value, "/action"), text(value, "/cause/rule"), words::responded(value)),
            "effect" => (text(value, "/effect/kind"), "", words::acted(value)),
            "agent" => (text(value, "/life"), "", words::said(value)),
            "gap" => ("gap", "", words::missed(value)),
            _ => ("", "", String::new()),
        };
        let severity = match what {
            // As for filters: what was done is as important as what it was done about.
            "response" | "gap" => Severity::High,
            _ => severity(value, "/severity").unwrap_or_default(),
        };
        let title = if title.is_empty() { format!("event {}", event.number) } else { title };
        Self {
            time_ns: time(value, "/time/utc").unwrap_or(event.stored_ns),
            severity,
            what: line(what, NAME),
            kind: line(kind, NAME),
            server: line(text(value, "/server/name"), NAME),
            tool: line(text(value, "/scope/tool"), NAME),
            rule: line(rule, NAME),
            title: line(&title, TITLE),
        }
    }
}
