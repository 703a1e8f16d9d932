//! What every format keeps to: one line, bounded, with where it is from; and what is redacted is nowhere in it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Head, body, flat, line, ocsf, odd, samples};
use crate::sinks::{
    host::Host,
    redact::{Redact, Redactor},
    spec::Format,
    wire::Event,
};

const FORMATS: [Format; 4] = [Format::Json, Format::Flat, Format::Ocsf, Format::Cef];

fn host() -> Host {
    Host { name: "host-1".into(), id: Some("0123456789abcdef".into()), cluster: Some("prod".into()) }
}

fn event(json: String) -> Event {
    Event { seq: 9, boot: "boot-1".into(), number: 7, stored_ns: 1_795_324_390_000_000_000, json }
}

fn all() -> impl Iterator<Item = Value> {
    samples::events().into_iter().chain(odd::odd())
}

fn read(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

#[test]
fn every_event_is_one_line_that_says_where_it_is_from() {
    for json in all() {
        for format in FORMATS {
            let line = line(format, &host(), &event(json.to_string()));
            let text = String::from_utf8(line).expect("utf-8");
            assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "{format:?}: {text}");
            assert!(!text.trim_end().chars().any(char::is_control), "{format:?}: {text}");
            for origin in ["host-1", "0123456789abcdef", "prod", "boot-1", "boot-1-7"] {
                assert!(text.contains(origin), "{format:?} lacks {origin}: {text}");
            }
        }
    }
}

#[test]
fn a_container_is_told_in_every_format() {
    for json in samples::events().into_iter().filter(|e| e.get("container").is_some()) {
        for format in FORMATS {
            let text = String::from_utf8(body(format, &host(), &event(json.to_string()))).expect("utf-8");
            assert!(text.contains("3f4e0a8a3b1c5d6e7f80"), "{format:?}: {text}");
        }
    }
}

#[test]
fn events_of_other_formats_are_bounded_and_say_that_they_are_cut() {
    for json in all() {
        let event = event(json.to_string());
        let cef = body(Format::Cef, &host(), &event);
        assert!(cef.len() < 8_000, "{} bytes of CEF", cef.len());
        let flat = body(Format::Flat, &host(), &event);
        assert!(flat.len() < flat::MOST + 100, "{} bytes, flat", flat.len());
        let bytes = body(Format::Ocsf, &host(), &event);
        assert!(bytes.len() <= ocsf::MOST, "{} bytes: {}", bytes.len(), String::from_utf8_lossy(&bytes));
        let ocsf = read(&bytes);
        if json.to_string().len() > 30_000 {
            assert_eq!(ocsf["metadata"]["is_truncated"], true);
            assert!(ocsf["metadata"]["untruncated_size"].as_u64() > Some(29), "{}", ocsf["metadata"]);
        }
    }
    let small = event(json!(samples::events()[0]).to_string());
    assert_eq!(read(&body(Format::Ocsf, &host(), &small))["metadata"].get("is_truncated"), None);
}

#[test]
fn a_finding_and_its_response_can_be_joined() {
    let mut finding = json!(samples::finding(engine::finding::Kind::NewExec, 0));
    (finding["type"], finding["id"]) = ("finding".into(), "00000000000000aa".into());
    let mut response = json!(samples::responses()[0]);
    response["type"] = "response".into();
    let of = |value: Value| read(&body(Format::Ocsf, &host(), &event(value.to_string())));
    let (finding, response) = (of(finding), of(response));
    assert_eq!(finding["metadata"]["correlation_uid"], "00000000000000aa");
    assert_eq!(response["metadata"]["correlation_uid"], "00000000000000aa");
    assert_eq!((finding["class_uid"].as_u64(), response["class_uid"].as_u64()), (Some(2004), Some(7003)));
    assert_eq!(finding["metadata"]["uid"], "boot-1-7");
    assert_eq!(finding["metadata"]["sequence"], 7);
    assert_eq!(finding["anomaly_analyses"][0]["baselines"][0]["observations"][0]["count"], 412);
    assert_eq!(
        finding["evidences"][0]["process"]["cmd_line"].as_str().map(|c| c.starts_with("curl ")),
        Some(true)
    );
    assert_eq!(finding["severity_id"], 1);
}

#[test]
fn a_later_revision_is_an_update_and_a_denied_act_was_blocked() {
    let mut finding = json!(samples::finding(engine::finding::Kind::NewExec, 0));
    finding["type"] = "finding".into();
    let of = |value: &Value| read(&body(Format::Ocsf, &host(), &event(value.to_string())));
    let first = of(&finding);
    assert_eq!((first["activity_id"].as_u64(), first["disposition_id"].as_u64()), (Some(1), Some(19)));
    finding["revision"] = 2.into();
    finding["evidence"]["effects"][0]["effect"] =
        json!({ "kind": "denied", "family": "exec", "op": "exec", "object": "/x", "dry_run": false });
    let later = of(&finding);
    assert_eq!((later["activity_id"].as_u64(), later["disposition_id"].as_u64()), (Some(2), Some(2)));
    assert_eq!(first["finding_info"]["uid"], later["finding_info"]["uid"]);
    finding["evidence"]["effects"][0]["effect"]["dry_run"] = true.into();
    assert_eq!(of(&finding)["disposition_id"], 19, "it was only told");
}

/// What each class of redaction takes out.
fn secrets(what: Redact) -> Vec<String> {
    use samples::{ADDRESS, HOST, PATH, PROGRAM, UID, WORD};
    let own = |all: &[&str]| all.iter().map(|&s| s.to_owned()).collect();
    match what {
        Redact::Paths => own(&[PATH, PROGRAM, "id_rsa", "/home/", "wombat", "/run/user"]),
        Redact::Addresses => own(&[ADDRESS, HOST, "evil"]),
        Redact::CommandLines => own(&[WORD]),
        Redact::Users => vec!["alice".to_owned(), UID.to_string()],
    }
}

#[test]
fn what_is_redacted_is_nowhere_in_any_format() {
    use Redact::{Addresses, CommandLines, Paths, Users};
    let redactor = Redactor::new(&[7; 32]);
    let sets: [&[Redact]; 6] = [
        &[Paths],
        &[Addresses],
        &[CommandLines],
        &[Users],
        &[Paths, Users],
        &[Paths, Addresses, CommandLines, Users],
    ];
    for json in samples::events() {
        for set in sets {
            let event = event(redactor.event(json.to_string(), set));
            let mut texts: Vec<String> = FORMATS
                .iter()
                .map(|format| String::from_utf8(body(*format, &host(), &event)).expect("utf-8"))
                .collect();
            texts.push(format!("{:?}", Head::of(&event)));
            for secret in set.iter().flat_map(|what| secrets(*what)) {
                for text in &texts {
                    assert!(!text.contains(&secret), "{set:?}: {secret} is in {text}");
                }
            }
        }
    }
}

#[test]
fn without_redaction_all_of_it_is_told() {
    use Redact::{Addresses, CommandLines, Paths, Users};
    // The search above looks for what is really there.
    let texts: Vec<String> = samples::events()
        .iter()
        .map(|json| String::from_utf8(body(Format::Json, &host(), &event(json.to_string()))).expect("utf-8"))
        .collect();
    for what in [Paths, Addresses, CommandLines, Users] {
        for secret in secrets(what) {
            assert!(texts.iter().filter(|text| text.contains(&secret)).count() > 20, "{secret}");
        }
    }
    let json = samples::events()[0].to_string();
    assert_eq!(Redactor::new(&[7; 32]).event(json.clone(), &[]), json);
}

#[test]
fn markers_are_stable_on_a_host_and_differ_between_hosts() {
    let json = samples::events()[0].to_string();
    let at = |key: [u8; 32]| read(Redactor::new(&key).event(json.clone(), &[Redact::Paths]).as_bytes());
    let (one, same, other) = (at([1; 32]), at([1; 32]), at([2; 32]));
    assert_eq!(one, same);
    let client = |v: &Value| v["client"].as_str().map(str::to_owned);
    assert!(client(&one).is_some_and(|c| c.starts_with("[redacted:")), "{one}");
    assert_ne!(client(&one), client(&other));
    assert_eq!(format!("{:?}", Redactor::new(&[9; 32])), "Redactor");
}

#[test]
fn redaction_leaves_what_else_there_is() {
    let finding = json!(samples::finding(engine::finding::Kind::NewDestination, 5));
    let redactor = Redactor::new(&[7; 32]);
    let read = |without| read(redactor.event(finding.to_string(), without).as_bytes());
    let paths = read(&[Redact::Paths]);
    assert_eq!(paths["object"], format!("{}:443/tcp", samples::ADDRESS));
    assert_eq!(
        (&paths["server"], &paths["scope"], &paths["uid"]),
        (&finding["server"], &finding["scope"], &finding["uid"])
    );
    let users = read(&[Redact::Users]);
    assert!(users["client"].as_str().is_some_and(|c| c.ends_with("/bin/claude")), "{}", users["client"]);
    assert_eq!(users["object"], finding["object"]);
}

/// Header and extension of CEF, read as its definition says.
fn parse(cef: &str) -> (Vec<String>, Vec<(String, String)>) {
    let (mut header, mut field, mut chars) = (Vec::new(), String::new(), cef.chars());
    while header.len() < 7 {
        match chars.next() {
            Some('\\') => field.extend(chars.next()),
            Some('|') => header.push(std::mem::take(&mut field)),
            Some(c) => field.push(c),
            None => break,
        }
    }
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut word = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => word.push('\n'),
                Some('r') => word.push('\r'),
                other => word.extend(other),
            },
            // What stands before it since the last space is the next key.
            '=' => {
                let (value, key) = word.rsplit_once(' ').unwrap_or(("", &word));
                let (value, key) = (value.to_owned(), key.to_owned());
                if let Some(last) = fields.last_mut() {
                    last.1 = value;
                }
                fields.push((key, String::new()));
                word.clear();
            }
            c => word.push(c),
        }
    }
    if let Some(last) = fields.last_mut() {
        last.1 = word;
    }
    (header, fields)
}

#[test]
fn cef_says_who_did_what() {
    let mut finding = json!(samples::finding(engine::finding::Kind::NewDestination, 0));
    finding["type"] = "finding".into();
    finding["evidence"]["effects"][0]["effect"] = json!(samples::effects()[5]);
    let text = String::from_utf8(body(Format::Cef, &host(), &event(finding.to_string()))).expect("utf-8");
    let (header, fields) = parse(&text);
    assert_eq!(header[..3], ["CEF:0", "Toolwarden", "Toolwarden"]);
    assert_eq!(header[4..], ["new-destination", "New network destination", "1"]);
    let field = |key: &str| fields.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    for (key, value) in [
        ("externalId", "boot-1-7"),
        ("rt", "1795324380123"),
        ("dvchost", "host-1"),
        ("cs1Label", "mcpServer"),
        ("cs1", "git"),
        ("cs2", "git_log"),
        ("cs3", "T1041,T1071,AML.T0086,MCP03:2025"),
        ("cs4", "prod"),
        ("dst", samples::ADDRESS),
        ("dpt", "443"),
        ("proto", "tcp"),
        ("dhost", samples::HOST),
        ("act", "observed"),
        ("spid", "4242"),
        ("cnt", "6"),
    ] {
        assert_eq!(field(key), Some(value), "{key} in {text}");
    }
    let unique: std::collections::BTreeSet<_> = fields.iter().map(|(key, _)| key).collect();
    assert_eq!(unique.len(), fields.len(), "a key twice: {text}");
}

/// As it is read again: line ends and all other text, but control characters are written out.
fn shown(text: &str) -> String {
    let line = |line: &str| line.split('\r').map(crate::print::safe).collect::<Vec<_>>().join("\r");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn cef_gives_back_what_went_in(object in "\\PC{0,40}|[|=\\\\\n\r a-c]{0,40}", server in "[|=\\\\ a-c\u{1b}é]{1,20}") {
        let mut finding = json!(samples::finding(engine::finding::Kind::RuleHit, 2));
        finding["type"] = "finding".into();
        finding["object"] = object.clone().into();
        finding["server"]["name"] = server.clone().into();
        finding["kind"] = "a|b\\c".into();
        let text = String::from_utf8(body(Format::Cef, &host(), &event(finding.to_string()))).expect("utf-8");
        let (header, fields) = parse(&text);
        prop_assert_eq!(header.len(), 7);
        prop_assert_eq!(&header[4], "a|b\\c");
        let field = |key: &str| fields.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone()).unwrap_or_default();
        prop_assert_eq!(field("flexString2"), shown(&object));
        prop_assert_eq!(field("cs1"), shown(&server));
        let known = ["msg", "cs1", "cs1Label", "rt", "act"];
        prop_assert!(known.iter().all(|key| fields.iter().any(|(k, _)| k == key)), "{}", text);
    }

    #[test]
    fn no_event_makes_a_format_panic(json in json_value()) {
        let mut json = json;
        if let Some(fields) = json.as_object_mut() {
            fields.entry("type").or_insert("finding".into());
        }
        let redactor = Redactor::new(&[7; 32]);
        for text in [json.to_string(), redactor.event(json.to_string(), &[Redact::Paths, Redact::Users])] {
            let event = event(text);
            for format in FORMATS {
                let _bytes = body(format, &host(), &event);
            }
            let head = Head::of(&event);
            prop_assert!(head.title.len() < 2_000 && !head.title.chars().any(char::is_control));
        }
    }
}

/// Events with our words at odd places.
fn json_value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "type",
        "finding",
        "kind",
        "denied",
        "effect",
        "evidence",
        "effects",
        "object",
        "process",
        "pid",
        "address",
        "path",
        "argv",
        "scope",
        "server",
        "name",
        "time",
        "utc",
        "boot_ns",
        "uid",
        "container",
        "id",
        "pod",
        "agent",
        "life",
        "taxonomy",
        "attack",
        "T1071.004",
        "family",
        "network",
        "[::]:1/tcp",
    ]);
    let leaf = prop_oneof![
        word.clone().prop_map(|w| json!(w)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<u64>().prop_map(|n| json!(n)),
        "\\PC{0,8}".prop_map(|s| json!(s)),
        Just(Value::Null),
    ];
    let tree = leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|fields| json!(fields)),
        ]
    });
    prop::collection::btree_map("[a-z]{1,3}|type|time|server|evidence|scope|kind", tree, 0..8)
        .prop_map(|fields| json!(fields))
}
