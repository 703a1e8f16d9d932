//! Whom effects are charged to: one test a rule of docs/ARCHITECTURE.md, section "Charging".

use crate::common::{MS, ROOT, TREE, World, call_line};
use engine::output::{Basis, CallStatus, Certainty, ChannelState, Request, Scope, ScopeKind, ServerEvent};

fn certain_call(scope: &Scope, id: u64) {
    assert_eq!((scope.kind, scope.certainty), (ScopeKind::Call, Certainty::Certain), "{scope:?}");
    assert_eq!(scope.call.as_ref().map(|c| &c.request_id), Some(&id.into()));
}

fn candidates(scope: &Scope) -> Vec<String> {
    assert_eq!((scope.kind, scope.certainty), (ScopeKind::Ambiguous, Certainty::Ambiguous), "{scope:?}");
    assert_eq!((&scope.tool, &scope.call), (&None, &None));
    scope.candidates.iter().map(|c| c.tool.clone().unwrap_or_else(|| format!("{:?}", c.kind))).collect()
}

#[test]
fn one_call_in_flight_is_certain_by_window() {
    let mut w = World::server();
    w.call(1, "read");
    let scope = w.open(ROOT, "a");
    certain_call(&scope, 1);
    assert_eq!((scope.basis, scope.tool.as_deref()), (Basis::Window, Some("read")));
}

#[test]
fn startup_lasts_until_the_first_request_has_settled_then_comes_ambient() {
    let mut w = World::server();
    assert_eq!(w.open(ROOT, "a").kind, ScopeKind::Ambient);
    // What happened before was told once the server was known, as startup.
    let exec = w.effects().next().expect("the exec");
    assert_eq!(exec.scope.kind, ScopeKind::Startup);
    assert_eq!(exec.server.name, "srv");
}

#[test]
fn work_after_the_reply_belongs_to_the_call_until_it_has_settled() {
    let mut w = World::server();
    w.call(1, "read");
    w.reply(1);
    w.now += 19 * MS;
    certain_call(&w.open(ROOT, "late"), 1);
    assert!(w.last_effect().outlived);
    w.now += 2 * MS;
    assert_eq!(w.open(ROOT, "later").kind, ScopeKind::Ambient);
}

#[test]
fn a_call_within_the_settling_time_of_another_tool_is_ambiguous() {
    let mut w = World::server();
    w.call(1, "read");
    w.reply(1);
    w.call(2, "write");
    assert_eq!(candidates(&w.open(ROOT, "x")), ["read", "write"]);
    w.now += 21 * MS;
    certain_call(&w.open(ROOT, "y"), 2);
}

#[test]
fn two_calls_of_one_tool_are_certain_for_the_tool() {
    let mut w = World::server();
    w.call(1, "read");
    w.call(2, "read");
    let scope = w.open(ROOT, "x");
    assert_eq!((scope.kind, scope.certainty), (ScopeKind::Call, Certainty::CertainTool));
    assert_eq!((scope.tool.as_deref(), scope.call, scope.candidates.len()), (Some("read"), None, 2));
}

#[test]
fn a_child_keeps_the_calls_that_it_was_born_in_for_life() {
    let mut w = World::server();
    w.call(1, "spawn");
    w.fork(ROOT, 101);
    w.fork(101, 102);
    w.reply(1);
    w.wait(500);
    w.call(2, "other");
    let scope = w.open(102, "x");
    certain_call(&scope, 1);
    assert_eq!(scope.basis, Basis::Lineage);
    assert!(w.last_effect().outlived);
    certain_call(&w.open(ROOT, "y"), 2);
}

#[test]
fn a_child_of_an_ambiguous_moment_stays_ambiguous() {
    let mut w = World::server();
    w.call(1, "a");
    w.call(2, "b");
    w.fork(ROOT, 101);
    w.reply(1);
    w.reply(2);
    w.wait(500);
    w.call(3, "c");
    assert_eq!(candidates(&w.open(101, "x")), ["a", "b"]);
}

#[test]
fn a_worker_born_while_no_call_ran_may_work_for_itself_or_for_a_call() {
    let mut w = World::server();
    w.fork(ROOT, 101);
    assert_eq!(w.open(101, "x").kind, ScopeKind::Ambient);
    w.call(1, "a");
    assert_eq!(candidates(&w.open(101, "x")), ["a", "Ambient"]);
}

#[test]
fn another_request_in_flight_is_a_possibility_but_ping_is_not() {
    let mut w = World::server();
    w.ask(r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
    w.call(1, "a");
    certain_call(&w.open(ROOT, "x"), 1);
    w.ask(r#"{"jsonrpc":"2.0","id":"r","method":"resources/read","params":{"uri":"x"}}"#);
    assert_eq!(candidates(&w.open(ROOT, "x")), ["a", "Ambient"]);
    w.answer(r#"{"jsonrpc":"2.0","id":"r","result":{}}"#);
    w.now += 21 * MS;
    certain_call(&w.open(ROOT, "x"), 1);
}

#[test]
fn a_cancelled_call_stays_a_candidate_until_its_reply_or_five_seconds() {
    let mut w = World::server();
    w.call(1, "slow");
    w.ask(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#);
    w.call(2, "next");
    assert_eq!(candidates(&w.open(ROOT, "x")), ["slow", "next"]);
    w.wait(5000);
    certain_call(&w.open(ROOT, "x"), 2);
    w.close();
    assert_eq!(w.calls()[0].status, CallStatus::Cancelled);
}

#[test]
fn after_missed_request_bytes_nothing_is_certain_for_a_while() {
    let mut w = World::server();
    w.call(1, "a");
    w.miss(300);
    w.ask_bytes(b"...\"id\":9}\n");
    assert_eq!(candidates(&w.open(ROOT, "x")), ["a", "Ambient"]);
    w.now += 1001 * MS;
    certain_call(&w.open(ROOT, "x"), 1);
}

#[test]
fn ids_of_all_forms_match_their_replies() {
    let mut w = World::server();
    for id in ["0", "\"abc\"", "-3", "1.5"] {
        w.ask(&format!(r#"{{"id":{id},"method":"tools/call","params":{{"name":"t"}},"jsonrpc":"2.0"}}"#));
        w.answer(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":1,"message":"m"}}}}"#));
        w.close();
    }
    let calls = w.calls();
    assert_eq!(calls.len(), 4);
    assert!(calls.iter().all(|c| c.status == CallStatus::Error), "{calls:?}");
    assert_eq!(calls[0].cpu_ns, 6 * MS);
    assert_eq!(calls[0].peak_rss, 8192);
}

#[test]
fn a_batch_opens_each_of_its_calls() {
    let mut w = World::server();
    w.ask(&format!("[{},{}]", call_line(1, "a"), call_line(2, "b")));
    assert_eq!(candidates(&w.open(ROOT, "x")), ["a", "b"]);
    w.answer(r#"[{"jsonrpc":"2.0","id":2,"result":{}},{"jsonrpc":"2.0","id":1,"result":{}}]"#);
    w.close();
    assert_eq!(w.calls().len(), 2);
    assert!(w.calls().iter().all(|c| c.overlapped && c.status == CallStatus::Ok));
}

#[test]
fn a_call_that_settles_after_a_later_one_is_measured_too() {
    let mut w = World::server();
    w.call(1, "slow");
    w.call(2, "fast");
    w.reply(2);
    w.wait(50);
    w.fact(&engine::input::Fact::Usage(engine::input::Usage {
        tgid: ROOT,
        cpu_ns: 3 * MS,
        rss: 4096,
        peak_rss: 4096,
        ..Default::default()
    }));
    w.reply(1);
    w.close();
    let slow = w.calls().into_iter().find(|c| c.scope.tool.as_deref() == Some("slow")).expect("ended");
    assert_eq!(slow.cpu_ns, 6 * MS, "7 ms when it had settled, less 1 ms when it began");
}

#[test]
fn counts_join_the_call_that_their_record_was_charged_to() {
    let mut w = World::server();
    w.call(1, "a");
    let id = w.open_announced(ROOT, "f");
    w.reply(1);
    w.wait(30);
    w.fact(&engine::input::Fact::Aggregate { id, count: 41, bytes_out: 0, bytes_in: 0 });
    w.close();
    let call = w.calls()[0];
    assert_eq!((call.files, call.effects), (42, 42));
    let repeat = w.effects().find(|e| e.repeat).expect("a repeat line");
    assert_eq!(repeat.count, 41);
    certain_call(&repeat.scope, 1);
}

#[test]
fn forged_lines_open_no_call_and_proved_ones_do() {
    let mut w = World::server();
    w.open_with(ROOT, "pipe", 0, 1);
    let forging = *w.servers().last().expect("a line");
    assert_eq!((forging.event, forging.channel), (ServerEvent::Forging, ChannelState::Proved));
    assert!(w.asked_for(Request::Prove { client: 1 }));
    w.call(1, "forged");
    assert_eq!(w.open(ROOT, "x").kind, ScopeKind::Ambient);
    // The client's write may be seen before the server's read, or after it.
    w.client_writes(&call_line(2, "real"));
    w.call(2, "real");
    certain_call(&w.open(ROOT, "x"), 2);
    w.reply(2);
    w.close();
    w.call(3, "real");
    w.client_writes(&call_line(3, "real"));
    certain_call(&w.open(ROOT, "x"), 3);
    w.reply(3);
    w.close();
    // Even after the reply.
    w.call(4, "real");
    w.reply(4);
    w.client_writes(&call_line(4, "real"));
    w.close();
    assert!(w.calls().iter().all(|c| c.scope.tool.as_deref() == Some("real")));
    let ended: Vec<_> =
        w.calls().iter().map(|c| (c.scope.call.as_ref().map(|r| r.request_id.clone()), c.status)).collect();
    assert_eq!(ended, [2, 3, 4].map(|id| (Some(id.into()), CallStatus::Ok)));
}

#[test]
fn what_is_not_mcp_is_forgotten_at_its_first_line() {
    for line in [
        "Content-Length: 52\r",
        "hello",
        r#"{"jsonrpc":"2.0","id":1,"method":"textDocument/hover"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"processId":1,"rootUri":null,"capabilities":{}}}"#,
    ] {
        let mut w = World::candidate();
        w.ask(line);
        assert!(w.asked_for(Request::Forget { tree: TREE }), "{line}");
        assert_eq!(w.engine.tracked(), 0);
        assert_eq!(w.lines().count(), 0, "{line}");
    }
}

#[test]
fn garbage_on_stdout_drops_nobody() {
    let mut w = World::candidate();
    w.answer("Starting server on stdio...");
    w.ask(r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#);
    assert_eq!(w.engine.tracked(), 1);
    assert!(!w.asked_for(Request::Forget { tree: TREE }));
}

#[test]
fn a_silent_candidate_is_let_go_after_a_minute() {
    let mut w = World::candidate();
    w.wait(59_000);
    assert_eq!(w.engine.tracked(), 1);
    w.wait(2_000);
    assert_eq!(w.engine.tracked(), 0);
}

#[test]
fn a_server_that_ends_leaves_its_calls_without_reply() {
    let mut w = World::server();
    w.call(1, "a");
    w.exit(ROOT);
    w.close();
    w.close();
    assert_eq!(w.calls()[0].status, CallStatus::NoReply);
    assert_eq!(w.servers().last().expect("a line").event, ServerEvent::Ended);
    assert_eq!(w.engine.tracked(), 0);
}

#[test]
fn a_start_that_the_hooks_missed_in_part_says_so_and_by_how_much() {
    // Attached because of this very exec: 3 ms after it.
    let mut w = World::unattached();
    w.now += 3 * MS;
    w.fact(&engine::input::Fact::Attached);
    w.ask(r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#);
    w.wait(600);
    let startup = w.servers()[0].startup;
    assert!(startup.partial && (3.0..3.1).contains(&startup.gap_ms), "{startup:?}");
    // The agent attaches before it hands in the exec that made it do so.
    let mut w = World::unattached_until_after_exec(2 * MS);
    w.ask(r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#);
    w.wait(600);
    let startup = w.servers()[0].startup;
    assert!(startup.partial && (1.9..2.1).contains(&startup.gap_ms), "{startup:?}");
    assert!(!World::server().servers()[0].startup.partial);
}

#[test]
fn after_a_loss_that_matters_nothing_is_certain_for_a_while() {
    let mut w = World::server();
    w.call(1, "a");
    w.open_after_loss(ROOT, "x");
    assert_eq!(candidates(&w.last_effect().scope), ["a", "Ambient"]);
    w.now += 1001 * MS;
    certain_call(&w.open(ROOT, "x"), 1);
}

#[test]
fn a_process_whose_birth_was_not_seen_is_never_certain_in_a_call() {
    let mut w = World::server();
    w.call(1, "a");
    assert_eq!(candidates(&w.open(4711, "x")), ["a", "Ambient"]);
}
