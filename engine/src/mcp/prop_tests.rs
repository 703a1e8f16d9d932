//! The framer against serde_json, and against itself.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use super::{Frame, Framer, Id, Message};
use crate::input::Digest;

/// Values of all kinds, with keys and texts that try to look like the protocol.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        select(vec![0.5, -1.25e10, 3e-5, 1e300]).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        telling().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((telling(), inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn telling() -> impl Strategy<Value = String> {
    select(vec![
        "id",
        "method",
        "params",
        "result",
        "error",
        "name",
        "arguments",
        "requestId",
        "_meta",
        "tools",
        "protocolVersion",
        "clientInfo",
        "version",
        "serverInfo",
        "resultType",
        "isError",
        "taskId",
        "status",
        "task",
        "jsonrpc",
        "capabilities",
        "io.modelcontextprotocol/clientInfo",
        "\"}",
        "\\",
        "\"id\":1}",
        "{\"id\":1}",
        "",
    ])
    .prop_map(String::from)
}

/// An object whose members are mostly those that count.
fn object(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    vec((select(keys), value()), 0..5)
        .prop_map(|members| Value::Object(members.into_iter().map(|(key, v)| (key.into(), v)).collect()))
}

const ROOT: &[&str] = &["id", "method", "jsonrpc", "params", "result", "error", "x"];
const PARAMS: &[&str] = &["name", "arguments", "requestId", "taskId", "protocolVersion", "clientInfo"];
const RESULT: &[&str] = &["resultType", "isError", "tools", "serverInfo", "content", "task"];

/// A message, as JSON.
pub(crate) fn message() -> impl Strategy<Value = Value> {
    let params = (object(PARAMS), object(&["a", "b", "id", "name"])).prop_map(|(mut params, arguments)| {
        params["arguments"] = arguments;
        params
    });
    let tools = vec((telling(), value()).prop_map(|(name, v)| json!({"name": name, "schema": v})), 0..3);
    let result = (object(RESULT), tools).prop_map(|(mut result, tools)| {
        result["tools"] = tools.into();
        result
    });
    (object(ROOT), any::<bool>(), params, result, telling()).prop_map(
        |(mut root, request, params, result, method)| {
            if request {
                root["params"] = params;
                root["method"] = method.into();
                if let Some(root) = root.as_object_mut() {
                    root.remove("result");
                }
            } else {
                root["result"] = result;
                if let Some(root) = root.as_object_mut() {
                    root.remove("params");
                }
            }
            root
        },
    )
}

/// Bytes that are nearly JSON.
pub(crate) fn noise() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        select(vec![
            "{", "}", "[", "]", ":", ",", "\"", "\\", "\n", "\r", " ", "1", "-", "e", "true", "null", "x"
        ])
        .prop_map(|token| token.as_bytes().to_vec()),
        select(vec![
            "{\"params\":{\"arguments\":{\"a\":",
            "\"id\":",
            ",\"id\":7}\n",
            "\"id\":\"",
            "{\"id\":1}\n",
            "[{\"id\":1},",
            "{\"result\":[",
            "\\\"id\":",
            "{\"method\":\"m\",\"params\":{\"name\":",
        ])
        .prop_map(|token| token.as_bytes().to_vec()),
        vec(any::<u8>(), 0..3),
        message().prop_map(|message| format!("{message}\n").into_bytes()),
    ];
    vec(token, 0..30).prop_map(|tokens| tokens.concat())
}

/// How to cut bytes: lengths, and gaps after some pieces.
pub(crate) fn cuts() -> impl Strategy<Value = Vec<(usize, Option<u64>)>> {
    vec((1_usize..40, prop_oneof![8 => Just(None), 1 => (0_u64..3).prop_map(Some)]), 0..40)
}

/// Calls `piece` and `gap` as `cuts` says.
pub(crate) fn cut<'a>(
    mut bytes: &'a [u8],
    cuts: &[(usize, Option<u64>)],
    mut each: impl FnMut(&'a [u8], Option<u64>),
) {
    for (len, gap) in cuts {
        let (piece, rest) = bytes.split_at((*len).min(bytes.len()));
        each(piece, *gap);
        bytes = rest;
    }
    each(bytes, None);
}

fn text(value: &Value) -> Option<Box<str>> {
    value.as_str().map(Box::from)
}

fn id(value: Option<&Value>) -> Option<Id> {
    match value? {
        Value::Null => Some(Id::Null),
        Value::String(text) => Some(Id::Text(text.as_str().into())),
        Value::Number(number) => {
            Some(number.as_i64().map_or_else(|| Id::Raw(number.to_string().into()), Id::Number))
        }
        _ => None,
    }
}

/// What serde_json makes of a line, as far as messages go.
fn expected(line: &str, root: &Map<String, Value>) -> Message {
    let none = Value::Null;
    let at = |pointer: &str| {
        let (first, rest) = pointer.split_once('/').unwrap_or((pointer, ""));
        let value = root.get(first).unwrap_or(&none);
        let rest = if rest.is_empty() { String::new() } else { format!("/{rest}") };
        value.pointer(&rest).filter(|_| value.is_object() || rest.is_empty()).unwrap_or(&none)
    };
    let either = |a: &str, b: &str| text(at(a)).or(text(at(b)));
    let keys = |pointer: &str| at(pointer).as_object().cloned().unwrap_or_default();
    let tools = at("result/tools").as_array().cloned().unwrap_or_default();
    Message {
        bytes: line.len() as u64,
        id: id(root.get("id")),
        method: text(at("method")),
        has_result: root.contains_key("result"),
        has_error: root.get("error").is_some_and(|error| !error.is_null()),
        tool: text(at("params/name")),
        cancelled: id(keys("params").get("requestId")).filter(|id| *id != Id::Null),
        protocol: text(at("params/protocolVersion")),
        client_name: text(at("params/clientInfo/name")),
        client_version: text(at("params/clientInfo/version")),
        server_name: text(at("result/serverInfo/name")),
        server_version: text(at("result/serverInfo/version")),
        result_type: text(at("result/resultType")),
        is_error: *at("result/isError") == Value::Bool(true),
        task_id: either("params/taskId", "result/task/taskId"),
        task_status: text(at("result/task/status")),
        tools: tools.iter().filter_map(|tool| text(tool.as_object()?.get("name")?)).collect(),
        ..Message::default()
    }
}

fn run(bytes: &[u8], cuts: &[(usize, Option<u64>)]) -> Vec<Frame> {
    let mut framer = Framer::new(true);
    let mut out = Vec::new();
    cut(bytes, cuts, |piece, _| {
        framer.push(piece, &[], &mut out);
        assert!(framer.held() < 1 << 20);
    });
    out
}

proptest! {
    #[test]
    fn as_serde_json_sees_it(message in message(), pretty in any::<bool>()) {
        let mut line = message.to_string();
        if pretty {
            line = serde_json::to_string_pretty(&message).unwrap_or_default().replace('\n', " ");
        }
        let Some(root) = message.as_object() else { unreachable!() };
        let frames = run(format!("{line}\n").as_bytes(), &[]);
        let [Frame::Message(got)] = frames.as_slice() else {
            return Err(TestCaseError::fail(format!("{frames:?}")));
        };
        let mut got = (**got).clone();
        let arguments = message.pointer("/params/arguments").and_then(Value::as_object);
        let arguments = arguments.cloned().unwrap_or_default();
        prop_assert_eq!(got.arguments.len(), arguments.len());
        for argument in &got.arguments {
            let value: Option<Value> =
                argument.value.as_ref().and_then(|value| serde_json::from_str(value).ok());
            prop_assert_eq!(value.as_ref(), arguments.get(&*argument.name));
            let value = argument.value.as_ref().map_or(0, |value| value.len());
            prop_assert_eq!(argument.bytes, value as u64);
        }
        prop_assert!(got.is_mcp() || !got.hints.meta_protocol);
        got.arguments.clear();
        got.line_hash = [0; 16];
        got.hints = Default::default();
        prop_assert_eq!(got, expected(&line, root));
    }

    #[test]
    fn splitting_changes_nothing(bytes in noise(), cuts in cuts()) {
        prop_assert_eq!(run(&bytes, &[]), run(&bytes, &cuts));
    }

    #[test]
    fn lines_are_frames_as_serde_json_sees_them(bytes in noise()) {
        // Strictly valid lines are messages; lines that are not even bracketed are garbage.
        let frames = run(&bytes, &[]);
        let valid = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| line.ends_with(b"\n"))
            .filter(|line| serde_json::from_slice::<Map<String, Value>>(line).is_ok())
            .count();
        let whole = |frame: &&Frame| matches!(frame, Frame::Message(message) if !message.batch);
        prop_assert!(frames.iter().filter(whole).count() >= valid);
    }

    #[test]
    fn gaps_never_panic_and_framing_goes_on(bytes in noise(), cuts in cuts()) {
        let mut framer = Framer::new(false);
        let mut out = Vec::new();
        let digests: [Digest; 2] = [[1; 16], [2; 16]];
        cut(&bytes, &cuts, |piece, gap| {
            framer.push(piece, &digests, &mut out);
            if let Some(n) = gap {
                framer.gap(n, &mut out);
            }
        });
        out.clear();
        framer.push(b"\n{\"id\":\"last\"}\n", &[], &mut out);
        let last = matches!(out.last(), Some(Frame::Message(message))
            if message.id == Some(Id::Text("last".into())) && !message.cut);
        prop_assert!(last, "{:?}", out);
        prop_assert_eq!(framer.pending(), 0);
    }
}
