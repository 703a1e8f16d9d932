//! Splunk's HTTP Event Collector: objects one after the other.

use serde::Serialize;
use serde_json::value::RawValue;

use super::Content;
use crate::sinks::{format::Head, host::Host, spec::Format, wire::Event};

/// Codes of Splunk that are not about events: incorrect index, data channels, acknowledgements, authorisation in the query.
const SETTINGS: [u64; 5] = [7, 10, 11, 14, 16];

#[derive(Serialize)]
struct Envelope<'a> {
    /// Seconds since 1970, with fractions.
    time: Box<RawValue>,
    host: &'a str,
    source: &'a str,
    sourcetype: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<&'a str>,
    event: Body<'a>,
    fields: Fields,
}

/// Indexed beside the event.
#[derive(Serialize)]
struct Fields {
    toolwarden_uid: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Json(&'a RawValue),
    Text(std::borrow::Cow<'a, str>),
}

pub(super) fn content(
    host: &Host,
    [index, source, sourcetype]: [Option<&str>; 3],
    format: Format,
    events: &[(Head, &Event, Vec<u8>)],
) -> Content {
    let kind = serde_json::to_value(format).unwrap_or_default();
    let usual = format!("toolwarden:{}", kind.as_str().unwrap_or("json"));
    let mut body = Vec::new();
    for (head, event, bytes) in events {
        let ns = head.time_ns;
        let time =
            format!("{}.{:03}", ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000) / 1_000_000);
        let envelope = Envelope {
            // Digits and a point: a number.
            time: RawValue::from_string(time).unwrap_or_else(|_| RawValue::NULL.to_owned()),
            host: &host.name,
            source: source.unwrap_or("toolwarden"),
            sourcetype: sourcetype.unwrap_or(&usual),
            index,
            event: serde_json::from_slice::<&RawValue>(bytes)
                .map_or_else(|_| Body::Text(String::from_utf8_lossy(bytes)), Body::Json),
            fields: Fields { toolwarden_uid: event.uid() },
        };
        // Plain data: serialising it into memory cannot fail.
        let _unused = serde_json::to_writer(&mut body, &envelope);
        body.push(b'\n');
    }
    Content { kind: "application/json", body: body.into(), headers: Vec::new() }
}

/// Whether what Splunk says is not about an event.
pub(super) fn is_about_settings(answer: &[u8]) -> bool {
    let said: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    said["code"].as_u64().is_some_and(|code| SETTINGS.contains(&code))
}
