//! What the framer makes of nasty lines.

use super::{ArgumentValue, Frame, Framer, Id, Message};

/// All frames of `bytes`, pushed at once.
pub(crate) fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut framer = Framer::new(true);
    let mut out = Vec::new();
    framer.push(bytes, &[], &mut out);
    out
}

/// The only message of one line.
fn one(line: &str) -> Message {
    let mut frames = frames(format!("{line}\n").as_bytes());
    assert_eq!(frames.len(), 1, "{line}: {frames:?}");
    match frames.pop() {
        Some(Frame::Message(message)) => *message,
        other => unreachable!("{line}: {other:?}"),
    }
}

fn text(value: &Option<Box<str>>) -> Option<&str> {
    value.as_deref()
}

#[test]
fn key_order_of_both_sdks() {
    for line in [
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t","arguments":{"a":1}}}"#,
        r#"{"method":"tools/call","params":{"arguments":{"a":1},"name":"t"},"jsonrpc":"2.0","id":7}"#,
        "\t{ \"method\" : \"tools/call\" , \"params\" : { \"name\" : \"t\", \"arguments\" : { \"a\" : 1 } } , \"id\" : 7 , \"jsonrpc\" : \"2.0\" } \r",
    ] {
        let message = one(line);
        assert_eq!(message.id, Some(Id::Number(7)));
        assert_eq!(text(&message.method), Some("tools/call"));
        assert_eq!(text(&message.tool), Some("t"));
        assert!(message.is_request() && message.is_mcp() && message.hints.jsonrpc, "{line}");
        assert_eq!(message.bytes, line.len() as u64);
        assert_eq!(message.line_hash, blake3::hash(line.as_bytes()).as_bytes()[..16]);
        let [argument] = &message.arguments[..] else { unreachable!("{line}") };
        assert_eq!((&*argument.name, argument.bytes, text(&argument.value)), ("a", 1, Some("1")));
    }
}

#[test]
fn text_inside_strings_is_not_structure() {
    let message = one(concat!(
        r#"{"id":1,"method":"m","params":{"name":"real","#,
        r#""arguments":{"a":"\"},\"method\":\"tools/call\",\"name\":\"fake\"}\\","b":"}{]["}}}"#
    ));
    assert_eq!(text(&message.method), Some("m"));
    assert_eq!(text(&message.tool), Some("real"));
    assert_eq!(message.arguments.len(), 2);
    assert_eq!(text(&message.arguments[1].value), Some(r#""}{][""#));
}

#[test]
fn keys_count_only_in_their_place() {
    let message = one(concat!(
        r#"{"x":{"id":1,"method":"a","params":{"name":"b"}},"name":"c","params":{"id":2,"method":"d","#,
        r#""meta":{"name":"e"},"arguments":{"name":"f","requestId":3},"_meta":{"name":"g"}},"#,
        r#""result":{"content":[{"name":"h","isError":true}],"params":{"name":"i"}},"id":9}"#
    ));
    assert_eq!(message.id, Some(Id::Number(9)));
    assert_eq!((message.method, message.tool, message.cancelled), (None, None, None));
    assert!(!message.is_error && !message.duplicate_keys);
    let names: Vec<_> = message.arguments.iter().map(|argument| &*argument.name).collect();
    assert_eq!(names, ["name", "requestId"]);
}

#[test]
fn params_that_are_not_objects() {
    for params in ["[{\"name\":\"t\"}]", "\"name\"", "null", "3", "{\"name\":{\"name\":\"t\"}}"] {
        let message = one(&format!(r#"{{"method":"tools/call","params":{params},"id":0}}"#));
        assert_eq!((message.tool, message.id), (None, Some(Id::Number(0))), "{params}");
    }
    let message = one(r#"{"method":"tools/call","params":{"arguments":[{"a":1}],"name":"t"},"id":0}"#);
    assert_eq!((text(&message.tool), message.arguments.len()), (Some("t"), 0));
}

#[test]
fn duplicate_keys_last_wins() {
    let message = one(r#"{"id":1,"method":"a","id":"x","method":"b","params":{}}"#);
    assert_eq!(message.id, Some(Id::Text("x".into())));
    assert_eq!(text(&message.method), Some("b"));
    assert!(message.duplicate_keys);
    // A whole object that comes again takes everything with it.
    let message = one(concat!(
        r#"{"method":"tools/call","params":{"name":"a","arguments":{"x":1},"requestId":4},"#,
        r#""params":{"arguments":{"y":1,"z":2,"y":33}},"id":1,"method":7}"#
    ));
    assert_eq!((message.tool, message.cancelled, message.method), (None, None, None));
    let arguments: Vec<_> =
        message.arguments.iter().map(|argument| (&*argument.name, argument.bytes)).collect();
    assert_eq!(arguments, [("z", 1), ("y", 2)]);
    // The same keys in different objects are no duplicates.
    let message = one(
        r#"{"id":1,"result":{"tools":[{"name":"a"},{"name":"b"},{"name":1},{"x":1},{"name":"c","name":"d"},[]]}}"#,
    );
    assert_eq!(message.tools, ["a", "b", "d"].map(Box::from));
    assert!(message.duplicate_keys);
    assert!(!one(r#"{"id":1,"result":{"tools":[{"name":"a"},{"name":"b"}]}}"#).duplicate_keys);
}

#[test]
fn escapes_in_keys_and_values() {
    let message = one(
        r#"{"\u006dethod":"tools\/c\u0061ll","\u0069d":"\ud83d\ude00\n\ud83dx","p\u0061rams":{"name":"\u00fc"}}"#,
    );
    assert_eq!(text(&message.method), Some("tools/call"));
    assert_eq!(message.id, Some(Id::Text("\u{1f600}\n\u{fffd}x".into())));
    assert_eq!(text(&message.tool), Some("ü"));
}

#[test]
fn ids() {
    let long = "9".repeat(400);
    for (raw, id) in [
        ("0", Some(Id::Number(0))),
        ("-0", Some(Id::Number(0))),
        ("-5", Some(Id::Number(-5))),
        ("9223372036854775807", Some(Id::Number(i64::MAX))),
        ("9223372036854775808", Some(Id::Raw("9223372036854775808".into()))),
        ("1.0", Some(Id::Raw("1.0".into()))),
        ("1e3", Some(Id::Raw("1e3".into()))),
        ("null", Some(Id::Null)),
        ("\"\"", Some(Id::Text("".into()))),
        ("\"7\"", Some(Id::Text("7".into()))),
        ("true", None),
        ("{\"id\":1}", None),
        ("[1]", None),
        (&long, Some(Id::Hash(hash(long.as_bytes())))),
        (&format!("\"{}\"", "\\u0041".repeat(129)), Some(Id::Hash(hash(&[b'A'; 129])))),
        (&format!("\"{}\"", "\\u0041".repeat(128)), Some(Id::Text("A".repeat(128).into()))),
    ] {
        for line in [format!(r#"{{"id":{raw},"result":{{}}}}"#), format!(r#"{{"result":1,"id":{raw}}}"#)] {
            let message = one(&line);
            assert_eq!(message.id, id, "{line}");
            assert!(message.is_reply() && !message.is_request() && !message.is_notification());
        }
        let cancel =
            one(&format!(r#"{{"method":"notifications/cancelled","params":{{"requestId":{raw}}}}}"#));
        assert_eq!(cancel.cancelled, id.filter(|id| *id != Id::Null), "{raw}");
        assert!(cancel.is_notification() && cancel.is_mcp());
    }
}

fn hash(bytes: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    first
}

#[test]
fn long_names_still_compare() {
    let name = |text: &str| one(&format!(r#"{{"method":"tools/call","params":{{"name":"{text}"}}}}"#)).tool;
    let (long, other) = ("n".repeat(257), "m".repeat(257));
    assert_eq!(name(&long), name(&long));
    assert_ne!(name(&long), name(&other));
    assert!(name(&long).is_some_and(|name| name.starts_with("blake3:") && name.len() == 39));
    // A long key is never a known one.
    let key = format!(r#"{{"id{}":1,"id":2}}"#, "x".repeat(200));
    assert_eq!(one(&key).id, Some(Id::Number(2)));
}

#[test]
fn both_eras() {
    let message = one(concat!(
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","#,
        r#""capabilities":{},"clientInfo":{"name":"c","version":"1","title":"T"}}}"#
    ));
    assert!(message.is_mcp());
    assert_eq!(text(&message.protocol), Some("2025-11-25"));
    assert_eq!((text(&message.client_name), text(&message.client_version)), (Some("c"), Some("1")));
    let message = one(concat!(
        r#"{"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","#,
        r#""version":"2"}},"jsonrpc":"2.0","id":0}"#
    ));
    assert_eq!((text(&message.server_name), text(&message.server_version)), (Some("s"), Some("2")));
    let message = one(concat!(
        r#"{"jsonrpc":"2.0","id":"a","method":"x/y","params":{"name":"t","_meta":{"#,
        r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
        r#""io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}}}}"#
    ));
    assert!(message.is_mcp() && message.hints.meta_protocol);
    assert_eq!(text(&message.protocol), Some("2026-07-28"));
    assert_eq!(text(&message.client_name), Some("c"));
    let message = one(concat!(
        r#"{"id":"a","result":{"resultType":"task","taskId":"t1","status":"working","isError":true,"#,
        r#""_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"2"}}}}"#
    ));
    assert_eq!((text(&message.result_type), text(&message.task_id)), (Some("task"), Some("t1")));
    assert_eq!((text(&message.task_status), text(&message.server_name)), (Some("working"), Some("s")));
    assert!(message.is_error && message.has_result);
    let message = one(r#"{"id":"a","result":{"task":{"taskId":"t2","status":"completed"}}}"#);
    assert_eq!((text(&message.task_id), text(&message.task_status)), (Some("t2"), Some("completed")));
}

#[test]
fn what_is_mcp() {
    for (line, mcp) in [
        (r#"{"method":"server/discover","id":1}"#, true),
        (r#"{"method":"tools/list","id":1}"#, true),
        (r#"{"method":"notifications/initialized"}"#, true),
        (r#"{"method":"notifications/progress"}"#, true),
        (r#"{"method":"resources/read","id":1}"#, true),
        (r#"{"jsonrpc":"2.0","method":"ping","id":1}"#, true),
        (r#"{"method":"ping","id":1}"#, false),
        (r#"{"method":"initialize","id":1,"params":{"protocolVersion":"2024-11-05"}}"#, true),
        (
            r#"{"jsonrpc":"2.0","method":"initialize","id":1,"params":{"capabilities":{},"clientInfo":{"name":"x"}}}"#,
            true,
        ),
        // LSP, ACP and an app server: they say `initialize`, too.
        (
            r#"{"jsonrpc":"2.0","method":"initialize","id":1,"params":{"processId":1,"rootUri":null,"capabilities":{},"clientInfo":{"name":"x"}}}"#,
            false,
        ),
        (
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":1,"clientCapabilities":{}}}"#,
            false,
        ),
        (r#"{"method":"initialize","id":0,"params":{"clientInfo":{"name":"x"},"capabilities":{}}}"#, false),
        (r#"{"method":"initialize","id":1,"params":{}}"#, false),
        (r#"{"method":"textDocument/didOpen"}"#, false),
        (r#"{"method":"tools/callme","id":1}"#, false),
        (r#"{"id":1,"result":{}}"#, false),
        (r#"{"level":"info","msg":"tools/call"}"#, false),
        ("{}", false),
    ] {
        assert_eq!(one(line).is_mcp(), mcp, "{line}");
    }
}

#[test]
fn no_more_than_so_many_arguments_and_tools() {
    let members: Vec<_> = (0..70).map(|n| format!(r#""a{n}":[{n}]"#)).collect();
    let message = one(&format!(r#"{{"params":{{"arguments":{{{}}}}}}}"#, members.join(",")));
    assert_eq!((message.arguments.len(), message.arguments_dropped), (64, 6));
    let tools: Vec<_> = (0..600).map(|n| format!(r#"{{"name":"t{n}"}}"#)).collect();
    let message = one(&format!(r#"{{"result":{{"tools":[{}]}}}}"#, tools.join(",")));
    assert_eq!((message.tools.len(), message.tools_dropped), (512, 88));
    // Each message has so many.
    let lines = "{\"params\":{\"arguments\":{\"a\":1}}}\n".repeat(70);
    assert!(
        frames(lines.as_bytes())
            .iter()
            .all(|frame| matches!(frame, Frame::Message(message) if message.arguments.len() == 1))
    );
}

#[test]
fn digests_follow_their_arguments() {
    let line = br#"{"params":{"arguments":{"a":{"x":[1]},"b":12 ,"c":"s","a":true}}}"#;
    let mut framer = Framer::new(false);
    let mut out = Vec::new();
    framer.push(line, &[[1; 16], [2; 16], [3; 16], [4; 16]], &mut out);
    framer.push(b"\n", &[], &mut out);
    let Some(Frame::Message(message)) = out.pop() else { unreachable!() };
    let argument = |name: &str, bytes, digest| ArgumentValue {
        name: name.into(),
        bytes,
        digest: [digest; 16],
        value: None,
    };
    assert_eq!(message.arguments, [argument("b", 2, 2), argument("c", 3, 3), argument("a", 4, 4)]);
    assert!(message.duplicate_keys);
}
