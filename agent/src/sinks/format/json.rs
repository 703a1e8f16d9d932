//! As `--print json` has it, with where it is from.

use schemars::JsonSchema;
use serde::Serialize;

use crate::sinks::{host::Host, wire::Event};

/// What every event has besides what it tells.
#[derive(Serialize, JsonSchema)]
pub(super) struct Envelope<'a> {
    /// Which event.
    event: Id<'a>,
    /// Which host it is from.
    host: &'a Host,
}

/// Which event.
#[derive(Serialize, JsonSchema)]
struct Id<'a> {
    /// The same whenever it is sent again: receivers tell duplicates by it.
    uid: String,
    /// Boot of the host.
    boot: &'a str,
    /// Counts the events of that boot from 1: what is missing was lost on the way, or is in a gap.
    number: u64,
    /// When it became durable.
    stored: String,
}

/// The same whenever it is sent again.
pub(super) fn uid(event: &Event) -> String {
    event.uid()
}

pub(super) fn body(host: &Host, event: &Event) -> Vec<u8> {
    let Event { boot, number, stored_ns, json, .. } = event;
    let stored = jiff::Timestamp::from_nanosecond(i128::from(*stored_ns)).unwrap_or_default();
    let id = Id { uid: uid(event), boot, number: *number, stored: format!("{stored:.9}") };
    let mut bytes = json.strip_suffix('}').unwrap_or("{").as_bytes().to_vec();
    if bytes.len() > 1 {
        bytes.push(b',');
    }
    // Plain data: serialising it into memory cannot fail.
    let envelope = serde_json::to_string(&Envelope { event: id, host }).unwrap_or_default();
    bytes.extend_from_slice(envelope.strip_prefix('{').unwrap_or_default().as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::{super::line, *};
    use crate::sinks::spec::Format;

    #[test]
    fn an_event_keeps_what_it_tells_and_says_where_it_is_from() {
        let event = Event {
            seq: 9,
            boot: "b".into(),
            number: 7,
            stored_ns: 1_700_000_000_000_000_001,
            json: r#"{"type":"finding","a":{"b":{"c":"}"}}}"#.into(),
        };
        let host = Host { name: "h\"\n".into(), id: None, cluster: Some("c".into()) };
        let line = line(Format::Json, &host, &event);
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1, "one line");
        let read: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(read["a"]["b"]["c"], "}");
        assert_eq!(read["event"]["uid"], "b-7");
        assert_eq!(read["event"]["stored"], "2023-11-14T22:13:20.000000001Z");
        assert_eq!(read["host"]["cluster"], "c");
        assert_eq!(read["host"]["name"], "h\"\n");
    }
}
