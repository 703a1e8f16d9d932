//! What answers mean, what requests hold.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    hec, otlp,
    verdict::{Verdict, answer, verdict},
    webhook,
};
use crate::sinks::{
    format::Head,
    host::Host,
    secret::Secret,
    spec::{Encoding, Format, Profile},
    wire::Event,
};

const WEBHOOK: Profile = Profile::Webhook { hmac_key: None };
const HEC: Profile = Profile::SplunkHec { index: None, source: None, sourcetype: None };

fn otlp(encoding: Encoding) -> Profile {
    Profile::Otlp { encoding }
}

fn event(number: u64) -> Event {
    Event { seq: 1, boot: "b".into(), number, stored_ns: 2_000_000_000, json: "{}".into() }
}

fn head() -> Head {
    Head {
        severity: engine::finding::Severity::High,
        what: "finding".into(),
        kind: "new-exec".into(),
        rule: String::new(),
        server: "s".into(),
        tool: String::new(),
        title: "x".into(),
        time_ns: 1_700_000_000_120_000_000,
    }
}

#[test]
fn only_what_is_refused_by_itself_is_given_up() {
    let of = |profile: &Profile, status| verdict(profile, &answer(status, &[], b""), 2);
    for status in [200, 201, 202, 204] {
        assert_eq!(of(&WEBHOOK, status), Verdict::Taken { dropped: 0 }, "{status}");
    }
    for status in [400, 413, 422] {
        assert_eq!(of(&WEBHOOK, status), Verdict::Smaller, "{status}");
    }
    for status in [301, 302, 307, 401, 403, 404, 405, 407, 408, 409, 415, 418, 429, 500, 501, 502, 503, 504] {
        assert!(matches!(of(&WEBHOOK, status), Verdict::Later { after: None, .. }), "{status}");
    }
    let index = br#"{"text":"Incorrect index","code":7,"invalid-event-number":0}"#;
    assert!(matches!(verdict(&HEC, &answer(400, &[], index), 2), Verdict::Later { .. }));
    let event = br#"{"text":"Invalid data format","code":6,"invalid-event-number":0}"#;
    assert_eq!(verdict(&HEC, &answer(400, &[], event), 2), Verdict::Smaller);
}

#[test]
fn a_time_that_the_receiver_names_is_kept_to_within_bounds() {
    let after = |value: &str| match verdict(&WEBHOOK, &answer(429, &[("retry-after", value)], b""), 1) {
        Verdict::Later { after, .. } => after,
        other => unreachable!("{other:?}"),
    };
    assert_eq!(after("7"), Some(Duration::from_secs(7)));
    assert_eq!(after("99999999999"), Some(Duration::from_secs(300)));
    for nonsense in ["", "-3", "soon", "1e9", "999999999999999999999999"] {
        assert_eq!(after(nonsense), None, "{nonsense}");
    }
    let date = |seconds: i64| {
        let then = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        let text = then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        after(&text)
    };
    let soon = date(60).expect("a date");
    assert!((Duration::from_secs(57)..=Duration::from_secs(60)).contains(&soon), "{soon:?}");
    assert_eq!(date(-60), None, "it is over");
    assert_eq!(date(86_400), Some(Duration::from_secs(300)));
}

#[test]
fn what_otlp_drops_is_counted_and_not_sent_again() {
    let json = |n: Value| json!({"partialSuccess": {"rejectedLogRecords": n}}).to_string().into_bytes();
    let taken = |encoding, body: &[u8], events| verdict(&otlp(encoding), &answer(200, &[], body), events);
    for n in [json!(3), json!("3")] {
        assert_eq!(taken(Encoding::Json, &json(n), 5), Verdict::Taken { dropped: 3 });
    }
    assert_eq!(taken(Encoding::Json, b"not json", 5), Verdict::Taken { dropped: 0 });
    // partial_success (1) { rejected_log_records (1): 3, error_message (2): "no" }
    let partial = [0x0a, 6, 0x08, 3, 0x12, 2, b'n', b'o'];
    assert_eq!(taken(Encoding::Protobuf, &partial, 5), Verdict::Taken { dropped: 3 });
    assert_eq!(taken(Encoding::Protobuf, &partial, 3), Verdict::Smaller, "all of them");
    assert_eq!(taken(Encoding::Protobuf, b"", 5), Verdict::Taken { dropped: 0 });
    // -1, halves of fields, nonsense: never a panic.
    let minus = [&[0x0a, 11, 0x08][..], &[0xff; 9], &[1]].concat();
    assert_eq!(taken(Encoding::Protobuf, &minus, 5), Verdict::Taken { dropped: 0 });
    for end in 0..partial.len() {
        taken(Encoding::Protobuf, &partial[..end], 5);
    }
    for byte in 0..=255 {
        taken(Encoding::Protobuf, &[byte; 40], 5);
    }
}

#[test]
fn splunk_gets_objects_with_time_and_source() {
    let (one, two) = (event(1), event(2));
    let each = [(head(), &one, br#"{"a": 1.0}"#.to_vec()), (head(), &two, b"CEF:0|not json".to_vec())];
    let host = Host { name: "h".into(), ..Host::default() };
    let body = hec::content(&host, [Some("i"), None, None], Format::Json, &each).body;
    let lines: Vec<&str> = std::str::from_utf8(&body).expect("UTF-8").lines().collect();
    assert!(lines[0].contains(r#""event":{"a": 1.0}"#), "as it is: {}", lines[0]);
    let read: Vec<Value> = lines.iter().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(read[0]["time"], json!(1_700_000_000.120));
    assert_eq!(read[1]["event"], "CEF:0|not json");
    assert_eq!(
        (&read[1]["index"], &read[1]["sourcetype"], &read[1]["fields"]["toolwarden_uid"]),
        (&json!("i"), &json!("toolwarden:json"), &json!("b-2"))
    );
}

#[test]
fn a_signature_is_that_of_openssl() {
    // printf '%s' '1700000000.{}' | openssl dgst -sha256 -hmac key
    let known = "v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
    assert_eq!(webhook::signature(&Secret::new("key".into()), 1_700_000_000, b"{}"), known);
    let one = event(1);
    let each = [(head(), &one, b"{}".to_vec())];
    let key = Secret::new("key".into());
    let content = webhook::content(Some(&key), Format::Json, false, &each);
    assert_eq!((content.kind, &content.body[..]), ("application/x-ndjson", &b"{}\n"[..]));
    assert_eq!(content.headers.len(), 2);
    assert_eq!(webhook::content(None, Format::Json, true, &each).body, "{}");
}

#[test]
fn otlp_says_the_same_in_both_encodings() {
    let one = event(1);
    let each = [(head(), &one, b"{\"a\":1}".to_vec())];
    let host = Host { name: "h".into(), ..Host::default() };
    let json: Value =
        serde_json::from_slice(&otlp::content(Encoding::Json, &host, &each).body).expect("JSON");
    let record = &json["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    assert_eq!(record["timeUnixNano"], "1700000000120000000");
    assert_eq!(
        (&record["severityNumber"], &record["body"]["stringValue"]),
        (&json!(17), &json!("{\"a\":1}"))
    );
    let binary = otlp::content(Encoding::Protobuf, &host, &each).body;
    for text in ["{\"a\":1}", "toolwarden.finding", "b-1", "host.name", "high"] {
        assert!(binary.windows(text.len()).any(|w| w == text.as_bytes()), "{text}");
    }
}
