//! The scanner against a real parser.
extern crate std;

use std::{
    format,
    string::{String, ToString as _},
    vec::Vec,
};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::scan::{CANCELLED, Scan, TOOLS_CALL, flag, fnv, id_hash};

/// All lines of some bytes.
fn lines(bytes: &[u8]) -> Vec<Scan> {
    let mut scan = Scan::default();
    let mut out = Vec::new();
    for byte in bytes {
        if scan.step(*byte) {
            out.push(scan);
            scan.begin();
        }
    }
    out
}

fn line(text: &str) -> Scan {
    let mut all = lines(format!("{text}\n").as_bytes());
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

fn sure(s: &Scan) -> bool {
    s.flags & (flag::UNSURE | flag::TORN) == 0
}

#[test]
fn any_order_and_any_space() {
    for text in [
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get","arguments":{}}}"#,
        r#"{"method":"tools/call","params":{"arguments":{"name":"x","a":[1,{"id":3}]},"name":"get"},"jsonrpc":"2.0","id":7}"#,
        " {\t\"id\" : 7 , \"params\" : { \"name\" : \"get\" } , \"method\":\"tools/call\" } \r",
        r#"{"id":7,"method":"tools/call","params":{"name":"get","arguments":{"t":"\"},\"method\":\"tools/call\",\"params\":{\"name\":\"rm\""}}}"#,
        r#"{"params":{"_meta":{"name":"a","x":["name","b"]},"name":"get"},"x":[{"id":1}],"id":7,"method":"tools/call"}"#,
    ] {
        let s = line(text);
        assert!(sure(&s), "{text}: {s:?}");
        assert_eq!((s.method, s.name, s.id), (TOOLS_CALL, fnv(b"get"), id_hash(b"7", false)), "{text}");
    }
    let s = line(r#"{"id":"7","result":{"id":9,"content":[{"text":"{\"id\":8}"}]}}"#);
    assert!(sure(&s));
    assert_eq!((s.method, s.id), (0, id_hash(b"7", true)));
    let s = line(r#"{"method":"notifications/cancelled","params":{"requestId":12,"reason":"x"}}"#);
    assert_eq!((s.method, s.request_id, sure(&s)), (CANCELLED, id_hash(b"12", false), true));
}

#[test]
fn what_cannot_be_sure_says_so() {
    for text in [
        r#"{"id":1,"method":"tools\/call","params":{"name":"get"}}"#,
        r#"{"id":1,"method":"tools/call","params":{"n\u0061me":"get"}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"g\u0065t"}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a"},"id":2}"#,
        r#"[{"id":1,"method":"tools/call","params":{"name":"a"}}]"#,
        r#"{"id":1}{"id":2,"method":"tools/call","params":{"name":"a"}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a"}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a}}"#,
        r#"7 {"id":1}"#,
    ] {
        let s = line(text);
        assert!(!sure(&s), "{text}: {s:?}");
    }
}

/// Strings that matter, and text that looks as if it did.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z\\\\\"/{}:,\\[\\] ]{0,12}",
        Just("tools/call".to_string()),
        Just("\"},\"method\":\"tools/call\",\"params\":{\"name\":\"rm\"".to_string()),
        Just("name".to_string()),
        Just("id".to_string()),
        Just("params".to_string()),
        Just("method".to_string()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn message() -> impl Strategy<Value = Value> {
    let name = prop_oneof![text().prop_map(Value::from), value()];
    let id = prop_oneof![any::<i64>().prop_map(Value::from), text().prop_map(Value::from), value()];
    let method = prop_oneof![Just(json!("tools/call")), text().prop_map(Value::from)];
    (name, id, method, value(), prop::collection::vec((text(), value()), 0..3)).prop_map(
        |(name, id, method, arguments, more)| {
            let mut all: Map<String, Value> = more.into_iter().collect();
            all.insert("method".into(), method);
            all.insert("params".into(), json!({"name": name, "arguments": arguments}));
            all.insert("id".into(), id);
            Value::Object(all)
        },
    )
}

/// Hash of a value that is a string or bare, as it is written; `None`: a composite.
fn hash_of(v: Option<&Value>) -> u64 {
    match v {
        None | Some(Value::Object(_) | Value::Array(_)) => 0,
        Some(Value::String(s)) => fnv(s.as_bytes()),
        Some(bare) => id_hash(bare.to_string().as_bytes(), false),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Either it is unsure, or it says what the parser says.
    #[test]
    fn it_says_what_a_parser_says(m in message(), pretty in any::<bool>()) {
        let text = if pretty {
            serde_json::to_string_pretty(&m).unwrap_or_default().replace('\n', " ")
        } else {
            m.to_string()
        };
        let s = line(&text);
        if sure(&s) {
            prop_assert_eq!(s.method, hash_of(m.get("method")), "{}", &text);
            prop_assert_eq!(s.id, hash_of(m.get("id")), "{}", &text);
            prop_assert_eq!(s.name, hash_of(m["params"].get("name")), "{}", &text);
        } else {
            // Only an escape where it matters excuses it: the writer escapes quotes, backslashes and controls.
            prop_assert!(text.contains('\\'), "{}", text);
        }
    }

    /// Whatever the bytes: lines end at line feeds, and the next one is not touched by the last.
    #[test]
    fn lines_do_not_leak(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = noise.clone();
        bytes.push(b'\n');
        let call = r#"{"id":7,"method":"tools/call","params":{"name":"get"}}"#;
        bytes.extend(call.as_bytes());
        bytes.push(b'\n');
        let all = lines(&bytes);
        prop_assert_eq!(all.len(), noise.iter().filter(|b| **b == b'\n').count() + 2);
        let last = all.last().copied().unwrap_or_default();
        prop_assert!(sure(&last));
        prop_assert_eq!((last.method, last.name, last.id), (TOOLS_CALL, fnv(b"get"), id_hash(b"7", false)));
    }
}
