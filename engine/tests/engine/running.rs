//! Servers that ran before they were found: one test a rule of docs/ARCHITECTURE.md, section "Servers that
//! run already".

use crate::common::{ROOT, TREE, World, call_line};
use engine::{
    finding::Kind,
    input::Fact,
    judge::{Command, RuleText},
    output::{Certainty, Line, Request, Scope, ScopeKind},
};

fn candidates(scope: &Scope) -> Vec<String> {
    assert_eq!((scope.kind, scope.certainty), (ScopeKind::Ambiguous, Certainty::Ambiguous), "{scope:?}");
    scope.candidates.iter().map(|c| c.tool.clone().unwrap_or_else(|| format!("{:?}", c.kind))).collect()
}

fn certain(scope: &Scope, kind: ScopeKind) {
    assert_eq!((scope.kind, scope.certainty), (kind, Certainty::Certain), "{scope:?}");
}

#[test]
fn it_is_confirmed_by_its_next_message_and_says_that_it_ran() {
    let mut w = World::running();
    assert!(w.servers().is_empty());
    w.open_with(ROOT, "x", 0, 0);
    w.call(7, "read");
    assert!(w.asked_for(Request::Identify { tree: TREE, tgid: ROOT, root: ROOT, client: 1 }));
    w.wait(600);
    let startup = w.servers()[0].startup;
    assert!(startup.partial && startup.pre_existing && (2000.0..2001.0).contains(&startup.gap_ms));
    assert_eq!(w.servers()[0].argv, ["srv"]);
    assert_eq!(candidates(&w.last_effect().scope), ["UnknownStart", "Ambient"]);
    assert!(!World::server().servers()[0].startup.pre_existing);
}

#[test]
fn nothing_is_certain_while_a_request_may_be_in_flight_that_nobody_saw() {
    let mut w = World::running();
    w.call(7, "read");
    w.identify();
    assert_eq!(candidates(&w.open(ROOT, "x")), ["read", "UnknownStart"]);
    w.reply(7);
    w.wait(100);
    assert_eq!(candidates(&w.open(ROOT, "x")), ["UnknownStart", "Ambient"]);
    // A child born then is never certain, however long it lives.
    w.fork(ROOT, 101);
    w.wait(60_000);
    certain(&w.open(ROOT, "x"), ScopeKind::Ambient);
    assert_eq!(candidates(&w.open(101, "x")), ["UnknownStart", "Ambient"]);
    w.call(8, "write");
    certain(&w.open(ROOT, "x"), ScopeKind::Call);
    assert_eq!(candidates(&w.open(101, "x")), ["write", "UnknownStart"]);
}

#[test]
fn a_reply_that_nobody_saw_asked_for_is_no_call_and_settles() {
    let mut w = World::running();
    w.wait(61_000);
    w.call(8, "read");
    w.identify();
    w.reply(8);
    w.wait(100);
    certain(&w.open(ROOT, "x"), ScopeKind::Ambient);
    w.reply(3);
    assert_eq!(candidates(&w.open(ROOT, "x")), ["UnknownStart", "Ambient"]);
    w.wait(25);
    certain(&w.open(ROOT, "x"), ScopeKind::Ambient);
    w.close();
    assert_eq!(w.calls().len(), 1);
}

#[test]
fn a_session_that_begins_later_begins_like_any_other() {
    let mut w = World::running();
    w.ask(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#);
    w.identify();
    certain(&w.open(ROOT, "x"), ScopeKind::Startup);
    w.answer(r#"{"jsonrpc":"2.0","id":0,"result":{}}"#);
    w.wait(100);
    certain(&w.open(ROOT, "x"), ScopeKind::Ambient);
    w.call(1, "a");
    certain(&w.open(ROOT, "x"), ScopeKind::Call);
    // But not in the middle of one.
    let mut w = World::running();
    w.call(1, "a");
    w.identify();
    w.ask(r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#);
    assert_eq!(candidates(&w.open(ROOT, "x")), ["a", "UnknownStart"]);
}

#[test]
fn processes_that_ran_before_are_never_certain_but_for_the_one_that_reads() {
    let mut w = World::running();
    w.exists(101, ROOT, false);
    w.wait(61_000);
    w.call(1, "a");
    w.identify();
    certain(&w.open(ROOT, "x"), ScopeKind::Call);
    assert_eq!(candidates(&w.open(101, "x")), ["a", "UnknownStart"]);
    w.reply(1);
    w.wait(100);
    certain(&w.open(ROOT, "x"), ScopeKind::Ambient);
    assert_eq!(candidates(&w.open(101, "x")), ["UnknownStart", "Ambient"]);
    // Its child, and one that nobody knows.
    w.fork(101, 102);
    assert_eq!(candidates(&w.open(102, "x")), ["UnknownStart", "Ambient"]);
    assert_eq!(candidates(&w.open(4711, "x")), ["UnknownStart", "Ambient"]);
    w.exit(101);
    w.exit(102);
    w.exit(ROOT);
    w.close();
    w.close();
    assert_eq!(w.engine.tracked(), 0);
}

#[test]
fn the_rest_of_a_line_decides_nothing_and_the_next_line_does() {
    for rest in ["s\":{}},\"jsonrpc\":\"2.0\",\"id\":6}", "etc/passwd\"}}}", "ny text", "}", "\n"] {
        let mut w = World::running();
        w.ask(rest);
        assert_eq!(w.engine.tracked(), 1, "{rest}");
        w.call(7, "read");
        w.identify();
        w.reply(7);
        w.close();
        assert_eq!(w.calls().len(), 1, "{rest}");
        // And a line that is none of ours ends it.
        let mut w = World::running();
        w.ask(rest);
        w.ask("hello world");
        assert!(w.asked_for(Request::Forget { tree: TREE }), "{rest}");
    }
    let mut w = World::running();
    w.ask(r#"{"jsonrpc":"2.0","id":1,"method":"textDocument/hover"}"#);
    assert_eq!(w.engine.tracked(), 0);
    // An answer of the client may be what comes first.
    let mut w = World::running();
    w.ask(r#"{"jsonrpc":"2.0","id":1,"result":{"roots":[]}}"#);
    assert_eq!(w.engine.tracked(), 1);
    w.ask(&call_line(1, "a"));
    w.wait(600);
    assert_eq!(w.servers().len(), 1);
}

#[test]
fn a_running_candidate_may_be_silent_for_longer_and_is_waited_for() {
    let mut w = World::running();
    w.wait(119_000);
    assert_eq!(w.engine.tracked(), 1);
    w.wait(2_000);
    assert_eq!(w.engine.tracked(), 0);
    assert!(w.asked_for(Request::Await { tree: TREE }));
    // Who said something else is not.
    let mut w = World::running();
    w.ask("no");
    w.ask("no");
    w.wait(200_000);
    assert!(w.asked_for(Request::Forget { tree: TREE }) && !w.asked_for(Request::Await { tree: TREE }));
}

#[test]
fn who_was_held_is_let_go_neither_by_silence_nor_by_a_line_that_is_not_mcp() {
    let mut w = World::found(true, false);
    w.wait(200_000);
    // It may have written that itself.
    for line in ["no", "hello world", r#"{"jsonrpc":"2.0","id":1,"method":"textDocument/hover"}"#] {
        w.ask(line);
    }
    assert_eq!(w.engine.tracked(), 1);
    assert!(!w.asked_for(Request::Forget { tree: TREE }) && !w.asked_for(Request::Await { tree: TREE }));
    w.call(7, "read");
    w.identify();
    w.reply(7);
    w.close();
    assert_eq!(w.calls().len(), 1);
    assert!(!w.servers()[0].startup.unwatched);
    // Its end is its end.
    let mut w = World::found(true, false);
    w.exit(ROOT);
    assert_eq!(w.engine.tracked(), 0);
}

#[test]
fn a_server_that_began_while_no_agent_ran_says_so() {
    let mut w = World::found(false, true);
    w.call(7, "read");
    w.identify();
    w.wait(600);
    let startup = w.servers()[0].startup;
    assert!(startup.pre_existing && startup.unwatched, "{startup:?}");
}

/// A restart of the agent is no holiday from rules that hold whichever tool it is.
#[test]
fn what_is_forbidden_to_every_tool_is_found_while_the_tool_is_not_known() {
    const DENY: &str = "rules:\n  - id: no-keys\n    deny: {files: {read: ['/keys/**']}}\n";
    const PERMIT: &str =
        "rules:\n  - id: p\n    match: {tool: 'key_*'}\n    allow: {files: {read: ['/keys/a']}}\n";
    // The kernel tells names from the file upwards.
    let found = |shipped: &str, own: &str, path: &str| {
        let mut w = World::running();
        let file =
            |text: &str, shipped| RuleText { name: format!("{shipped}.yaml"), text: text.into(), shipped };
        w.fact(&Fact::Command(Command::Rules { files: vec![file(shipped, true), file(own, false)] }));
        w.call(7, "read");
        w.identify();
        assert_eq!(candidates(&w.open(ROOT, path)), ["read", "UnknownStart"]);
        w.lines().filter(|l| matches!(l, Line::Finding(f) if f.kind == Kind::RuleHit)).count()
    };
    assert_eq!(found(DENY, "rules: []", "a/keys"), 1);
    assert_eq!(found(DENY, "rules: []", "other"), 0);
    // It may have been the tool that may.
    assert_eq!(found(DENY, PERMIT, "a/keys"), 0);
    assert_eq!(found(DENY, PERMIT, "b/keys"), 1);
    let one = "rules:\n  - id: not-read\n    match: {tool: read}\n    deny: {files: {read: ['/keys/**']}}\n";
    assert_eq!(found("rules: []", one, "a/keys"), 0);
}
