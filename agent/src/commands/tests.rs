//! What people read, when names are hostile; and what scripts get told.

use std::io;

use clap::Parser as _;
use serde_json::{Value, json};

use super::{
    args::{Format, Remote},
    baseline, client, diff,
    exit::Exit,
    explain, findings,
    show::{self, Screen},
    state,
};
use crate::{
    cli::{Cli, Command},
    control::{
        Mode, SOCKET,
        tests::{Agent, Made, Result, rights::as_user},
    },
};

/// Clears the screen, sets the title, turns text, forges lines.
const EVIL: &str = "e\u{1b}[2J\u{9b}31m\u{202e}\u{7}v\r\nil";
const SHOWN: &str = "e\\u{1b}[2J\\u{9b}31m\\u{202e}\\u{7}v\\r\\nil";

fn page(value: &Value, draw: impl Fn(&Value, &mut Screen<'_>) -> io::Result<()>) -> Result<String> {
    let mut out = Vec::new();
    draw(value, &mut Screen::new(&mut out))?;
    let painted = String::from_utf8(out)?;
    let plain = anstream::adapter::strip_str(&painted).to_string();
    // Only our own colours were control sequences: nothing else went missing, nothing is left.
    assert!(!plain.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{plain:?}");
    assert!(!painted.contains("[2J") || painted.contains("\\u{1b}[2J"), "{painted:?}");
    Ok(plain)
}

fn finding() -> Value {
    json!({
        "id": "f-1", "revision": 2, "time": { "utc": "2026-11-22T10:00:00.123456789Z", "boot_ns": 5 },
        "server": { "id": "s1", "name": EVIL }, "uid": 1000, "client": "Claude Code", "project": null,
        "identity": "1000/git@ab12",
        "scope": { "kind": "ambiguous", "tool": null, "call": null, "certainty": "ambiguous", "basis": "window",
            "candidates": [
                { "kind": "call", "tool": "read", "call": { "number": 7, "request_id": 1 } },
                { "kind": "call", "tool": EVIL, "call": { "number": 8, "request_id": 2 } },
            ] },
        "kind": "new-exec", "severity": "high",
        "origin": { "by": "baseline", "sessions": 31, "calls": 412, "bound": 0.0123 },
        "object": EVIL, "sentence": format!("{EVIL} executed /bin/sh"), "count": 3,
        "evidence": {
            "effects": [{
                "time": { "utc": "2026-11-22T10:00:00Z", "boot_ns": 5 }, "count": 3,
                "process": { "pid": 42, "start_ns": 1, "exe": "/bin/sh" },
                "effect": { "kind": "exec", "path": "/bin/sh", "truncated": false, "source": "kernel",
                    "argv": ["sh", "-c", EVIL], "argv_truncated": false, "cwd": "/", "script": null,
                    "memfd": false, "deleted": false },
            }],
            "more": 5,
            "processes": [
                { "pid": 42, "start_ns": 1, "exe": EVIL }, { "pid": 41, "start_ns": 1, "exe": "/usr/bin/node" },
            ],
            "calls_before": [EVIL, "read #6"],
            "baseline": "412 calls since 2026-05-03, programs {git}",
        },
        "taxonomy": { "attack": ["T1059", "T9999"], "atlas": ["AML.T0050"], "owasp_mcp": ["MCP05:2025"] },
        "permit": format!("exceptions:\n  - exec: \"{EVIL}\"\n"),
        "acked": { "by": "root", "at": "2026-11-22T11:00:00Z", "note": EVIL, "expected": true },
    })
}

#[test]
fn a_finding_is_explained() -> Result {
    let shown = page(&finding(), explain::page)?;
    let expected = format!(
        "HIGH new-exec f-1

What happened
{SHOWN} executed /bin/sh
first        2026-11-22 10:00:00Z
count        3
object       {SHOWN}

Whom it is charged to
server       {SHOWN}, uid 1000, started by Claude Code
identity     1000/git@ab12
charged to   no single call
certainty    ambiguous: it was one of these, and nothing tells which
  - read, call #7
  - {SHOWN}, call #8

What it rests on
  2026-11-22 10:00:00Z  pid 42       exec   /bin/sh  sh -c {SHOWN}  × 3
  … and 5 more

Processes, from the server down to the one that acted
  41 /usr/bin/node
  └ 42 {SHOWN}

Calls before it, latest first
  {SHOWN}
  read #6

What was normal
412 calls since 2026-05-03, programs {{git}}

Why it counts
it was not done once in 31 sessions with 412 calls; from that, with 95 % confidence, at most 1.23 % of sessions \
do anything new of this kind by chance
ATT&CK       T1059  Command and Scripting Interpreter
ATT&CK       T9999
ATLAS        AML.T0050  Command and Scripting Interpreter
OWASP MCP    MCP05:2025  Command Injection & Execution

To permit it
exceptions:
  - exec: \"e\\u{{1b}}[2J\\u{{9b}}31m\\u{{202e}}\\u{{7}}v
il\"

`toolwarden findings permit f-1 --reason TEXT` writes this rule

What was done
response     told, nothing was stopped
seen         by root at 2026-11-22 11:00:00Z, as expected: {SHOWN}
"
    );
    assert_eq!(shown, expected);
    Ok(())
}

#[test]
fn tables_show_hostile_names() -> Result {
    let list = page(&json!([finding()]), findings::list_page)?;
    assert!(list.starts_with("ID"), "{list}");
    assert!(list.contains(SHOWN) && list.lines().count() == 2, "{list}");
    let servers =
        json!([{ "name": EVIL, "id": "s1", "pid": 4, "uid": 0, "state": "learning", "mode": "learn" }]);
    let shown = page(&servers, state::servers_page)?;
    assert!(shown.contains(SHOWN) && shown.lines().count() == 2, "{shown}");
    let tools = json!([{ "server": "git", "tool": "x".repeat(500), "settle_ms": 20, "late_share": 0.5 }]);
    let shown = page(&tools, state::tools_page)?;
    assert!(shown.contains('…') && shown.contains("SETTLE MS"), "{shown}");
    assert_eq!(page(&json!([]), state::tools_page)?, "none\n");
    Ok(())
}

#[test]
fn missing_fields_are_dashes_and_never_errors() -> Result {
    for value in [json!({}), json!(null), json!([]), json!("x"), json!([{}]), json!([null, 5])] {
        let pages: [fn(&Value, &mut Screen<'_>) -> io::Result<()>; 10] = [
            explain::page,
            findings::list_page,
            findings::show_page,
            baseline::list_page,
            baseline::show_page,
            diff::page,
            state::status_page,
            state::servers_page,
            state::tools_page,
            state::audit_page,
        ];
        for draw in pages {
            assert!(!page(&value, draw)?.is_empty());
        }
    }
    Ok(())
}

#[test]
fn a_baseline_is_shown_by_scope() -> Result {
    let summary = json!({ "identity": "1000/git@ab", "name": "git", "state": "learning", "needs_sessions": 12,
        "mode": "learn", "ratified": null, "sessions": 8, "calls": 40, "since": 1_777_766_400 });
    let baseline = json!({ "summary": summary, "scopes": [{
        "scope": "tool push", "sessions": 8, "calls": 40, "testable": false, "because": "needs 12 more sessions",
        "dimensions": [{ "dimension": "destination", "testable": true, "members": [
            { "member": "github.com:443/tcp", "count": 40, "sessions": 8,
              "first": "2026-05-03T00:00:00Z", "last": 1_777_766_400_000_000_000_i64 },
            { "member": EVIL, "count": 1, "sessions": 1 },
        ] }],
        "numbers": [{ "metric": "duration_ms", "p50": 3, "p99": 9, "max": 11, "n": 40 }],
    }] });
    let shown = page(&baseline, baseline::show_page)?;
    for part in [
        "state        learning: needs 12 more sessions",
        "ratified     no: it permits nothing in `enforce`",
        "learned      40 calls in 8 sessions since 2026-05-03 00:00:00Z",
        "tool push: 40 calls in 8 sessions, not yet testable: needs 12 more sessions",
        "2026-05-03 00:00:00Z  2026-05-03 00:00:00Z",
        "duration_ms",
        SHOWN,
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(page(&json!([summary]), baseline::list_page)?.contains("learning: needs 12 more sessions"));
    Ok(())
}

#[test]
fn a_difference_reads_like_one() -> Result {
    let data = json!({ "a": "git@1", "b": "git@2", "same": false, "changes": [
        { "scope": "tool push", "dimension": "exec", "member": "/usr/bin/git push", "change": "removed" },
        { "scope": "tool push", "dimension": "exec", "member": EVIL, "change": "added" },
    ] });
    let expected = format!(
        "--- git@1\n+++ git@2\n@@ tool push @@\n- exec         /usr/bin/git push\n+ exec         {SHOWN}\n"
    );
    assert_eq!(page(&data, diff::page)?, expected);
    assert!(!diff::same(&data) && !diff::same(&json!({})) && diff::same(&json!({ "same": true })));
    Ok(())
}

#[test]
fn json_on_a_terminal_is_inert_and_the_same() -> Result {
    let value = json!({ "path": format!("{EVIL}grün") });
    let text = show::inert(&serde_json::to_string_pretty(&value)?);
    assert!(!text.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    assert!(text.contains("grün"));
    assert_eq!(serde_json::from_str::<Value>(&text)?, value);
    Ok(())
}

fn remote(control: &std::path::Path) -> Remote {
    Remote { control: control.to_owned(), format: Format::Table }
}

#[test]
fn failures_have_an_exit_code_and_a_remedy() -> Result {
    let agent = Agent::start(Made::default(), None)?;
    let remote = remote(&agent.path);
    let (identity, odd) = (json!({ "identity": "x" }), "a/b?c=d&e%20\u{1b}ü");
    assert_eq!(client::get(&remote, "/v1/status", &[])?["verb"], "status");
    assert_eq!(client::get(&remote, "/v1/baseline", &[("identity", odd)])?["target"], odd);
    assert_eq!(client::post(&remote, "/v1/baseline/ratify", &identity)?["verb"], "ratify");
    let stop =
        |answer: std::result::Result<Value, super::Stop>| answer.err().map(|stop| (stop.exit, stop.message));
    let (exit, why) = stop(client::get(&remote, "/v1/findings/nope", &[])).ok_or("done")?;
    assert_eq!((exit, why.as_str()), (Exit::No, "no such finding"));
    let import = json!({ "name": "n", "text": "t" });
    let (exit, why) = stop(client::post(&remote, "/v1/baseline/import", &import)).ok_or("done")?;
    assert_eq!((exit, why.as_str()), (Exit::Invalid, "line 3: no"));
    let refused = as_user(5, &[], || stop(client::get(&remote, "/v1/status", &[])))?.ok_or("done")?;
    assert_eq!(refused.0, Exit::Refused);
    assert!(refused.1.contains("member of the group toolwarden"), "{refused:?}");
    drop(agent);
    let (exit, why) = stop(client::get(&remote, "/v1/status", &[])).ok_or("done")?;
    assert_eq!(exit, Exit::Unreachable);
    assert!(why.contains("is `toolwarden run` running"), "{why}");
    Ok(())
}

#[test]
fn what_is_no_agent_is_told_from_one() -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path)?;
    for reply in ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "SSH-2.0-x\r\n\r\n", ""] {
        let answer = std::thread::scope(|scope| {
            let asked = scope.spawn(|| client::get(&remote(&path), "/v1/status", &[]));
            if let Ok((mut stream, _)) = listener.accept() {
                let _unused = io::Read::read(&mut stream, &mut [0; 4096]);
                let _unused = io::Write::write_all(&mut stream, reply.as_bytes());
            }
            asked.join()
        });
        let answer = answer.map_err(|panic| format!("{panic:?}"))?;
        assert_eq!(answer.map_err(|stop| stop.exit).err(), Some(Exit::Unreachable), "{reply:?}");
    }
    Ok(())
}

#[test]
fn command_lines_mean_what_they_say() -> Result {
    let parse = |line: &str| Cli::try_parse_from(line.split(' '));
    let modes = [
        ("toolwarden mode", Ok((None, None))),
        ("toolwarden mode git", Ok((None, None))),
        ("toolwarden mode git watch", Ok((None, Some(Mode::Watch)))),
        ("toolwarden mode git push", Ok((Some("push"), None))),
        ("toolwarden mode git push enforce", Ok((Some("push"), Some(Mode::Enforce)))),
        ("toolwarden mode git --tool learn enforce", Ok((Some("learn"), Some(Mode::Enforce)))),
        ("toolwarden mode git push off", Err(())),
    ];
    for (line, wanted) in modes {
        let Command::Mode(options) = parse(line)?.command else { return Err(line.into()) };
        assert_eq!(options.wanted().map_err(drop), wanted, "{line}");
    }
    // The socket and the format are understood behind each verb.
    let line = "toolwarden findings list --severity high --control /x --format json";
    let Command::Findings(options) = parse(line)?.command else { return Err(line.into()) };
    assert_eq!((options.remote.control.to_str(), options.remote.format), (Some("/x"), Format::Json));
    let Command::Status(options) = parse("toolwarden status")?.command else { return Err("status".into()) };
    assert_eq!(options.control.to_str(), Some(SOCKET));
    for line in ["toolwarden purge", "toolwarden findings", "toolwarden status --format xml"] {
        assert_eq!(parse(line).err().map(|e| e.exit_code()), Some(2), "{line}");
    }
    let now = "2026-11-22T12:00:00Z".parse()?;
    let since = |text: &str| findings::since(text, now).map(|at| at.to_string()).map_err(|stop| stop.exit);
    assert_eq!(since("24h").as_deref(), Ok("2026-11-21T12:00:00Z"));
    assert_eq!(since("2026-05-03").as_deref(), Ok("2026-05-03T00:00:00Z"));
    assert_eq!(since("2026-05-03T01:00:00Z").as_deref(), Ok("2026-05-03T01:00:00Z"));
    for wrong in ["", "h", "-1h", "99999999999999999d", "soon", "5ü"] {
        assert_eq!(since(wrong), Err(Exit::Usage), "{wrong}");
    }
    Ok(())
}

#[test]
fn a_policy_is_shown_with_who_may_do_what_and_what_is_only_told() -> Result {
    let policy = serde_json::from_str(include_str!("../../../engine/tests/engine/golden/policy.json"))?;
    let shown = page(&policy, super::policy::show_page)?;
    for part in [
        "generation 1700000002250, holds 1 servers",
        "nobody: a rule denies it",
        "told, not denied: no path says it",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    Ok(())
}
