//! Events that no format should choke on.

use std::sync::Arc;

use engine::{
    finding::{Kind, Seen},
    output::{CallRef, Candidate, Effect, Scope, ScopeKind, Source},
};
use serde_json::{Value, json};

use super::samples::{finding, process, scope, time};

/// A text that is hostile to every format.
const HOSTILE: &str = "a|b=c\\d\"e]f\n g\r\th\u{1b}[2J\u{202e}i\u{0}j CEF:0|x <é…𝄞>";

/// Events that nothing should choke on: too large, hostile, empty, of another version, or no event at all.
pub(crate) fn odd() -> Vec<Value> {
    let mut large = finding(Kind::NewExec, 0);
    large.sentence = format!("{} {}", "x".repeat(20_000), HOSTILE);
    let act = Effect::Exec {
        path: format!("/{}", "p/".repeat(2_000)),
        truncated: true,
        source: Source::Kernel,
        argv: vec!["ä".repeat(4_000); 16],
        argv_truncated: true,
        cwd: "/".repeat(4_000),
        script: Some("s".repeat(4_000)),
        memfd: true,
        deleted: true,
        env: vec!["LD_PRELOAD".into(); 18],
        env_truncated: true,
    };
    large.evidence.effects =
        vec![
            Seen { time: time(0), process: process(1, &"e".repeat(4_000)), effect: Arc::new(act), count: 1 };
            64
        ];
    large.evidence.processes = vec![process(1, &"e".repeat(4_000)); 64];
    large.scope = Arc::new(Scope {
        candidates: (0..500)
            .map(|n| {
                Arc::new(Candidate {
                    kind: ScopeKind::Call,
                    tool: Some("t".repeat(200)),
                    call: Some(CallRef { number: n, request_id: json!("i".repeat(500)) }),
                })
            })
            .collect(),
        ..scope(3)
    });
    let mut hostile = json!(finding(Kind::RuleHit, 1));
    fill(&mut hostile, HOSTILE);
    let mut empty = json!(finding(Kind::RuleHit, 1));
    fill(&mut empty, "");
    let tagged = |mut value: Value| {
        value["type"] = "finding".into();
        value
    };
    let hooks = vec![json!({ "hook": "h".repeat(300), "state": "blind", "because": "b".repeat(3_000) }); 100];
    let mut lost = serde_json::Map::new();
    (0..2_000).for_each(|n| drop(lost.insert(format!("cause {n}"), json!(n))));
    vec![
        tagged(json!(large)),
        tagged(hostile),
        tagged(empty),
        json!({ "type": "finding" }),
        json!({ "type": "response" }),
        json!({ "type": "effect" }),
        json!({ "type": "effect", "effect": { "kind": "dns_query" }, "process": { "pid": -1 } }),
        json!({ "type": "agent", "life": "started", "agent": { "coverage": hooks, "lost": lost } }),
        json!({ "type": "gap" }),
        json!({ "type": "of tomorrow", "x": [[[[[[1]]]]]] }),
        json!({ "type": "finding", "kind": "of-tomorrow", "uid": "x", "evidence": 7, "scope": [], "severity": "dire" }),
        json!({}),
    ]
}

/// Puts a text in place of all texts that are names of others.
fn fill(value: &mut Value, with: &str) {
    const OURS: [&str; 12] = [
        "utc",
        "kind",
        "severity",
        "certainty",
        "basis",
        "by",
        "op",
        "source",
        "abi",
        "family",
        "protocol",
        "id",
    ];
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if !OURS.contains(&key.as_str()) {
                    fill(value, with);
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|v| fill(v, with)),
        Value::String(text) => with.clone_into(text),
        _ => {}
    }
}
