//! Servers that ran before the agent: found, confirmed by their next message, and never charged with a
//! certainty that nobody can have.

use std::{
    collections::HashMap,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Link, Manner},
    compare::{EXCEPTIONS, Observed, judge},
    pace::{patient_ms, slowness},
    scenario::{Oracle, program, read_truths},
    sys,
    verdict::Verdict,
    world::World,
};
use engine::output::{Certainty, Effect, EffectLine, Line, ScopeKind, ServerEvent, ServerLine};
use serde_json::json;

use super::spaced::{manners, space};

/// The line of a server that the agent found.
fn found(agent: &Agent, pid: u32) -> Result<ServerLine> {
    let server = agent.server(pid)?;
    let lines = agent.lines()?;
    let events = lines
        .iter()
        .filter(|p| matches!(&p.line, Line::Server(s) if s.event == ServerEvent::Found && s.pid == pid));
    ensure!(events.count() == 1, "found more than once");
    ensure!(server.startup.partial && server.startup.pre_existing, "{:?}", server.startup);
    Ok(server)
}

/// What the oracle did from `since` on against what was seen.
fn judged(oracle: &Oracle, seen: &Observed, since: u64, replies: &HashMap<String, u64>) -> Result<Verdict> {
    let mut truths = oracle.truths()?;
    truths.retain(|t| t.at_boot_ns >= since);
    ensure!(!truths.is_empty(), "the oracle did nothing");
    Ok(judge(&truths, seen, replies))
}

#[test]
fn running_servers_are_found() -> Result<()> {
    let world = World::new()?;
    let mut all = Verdict::default();
    for (n, manner) in manners().into_iter().enumerate() {
        let mut oracle = Oracle::start(&world, &format!("running{n}"), manner)?;
        let tools: Vec<_> = oracle
            .tools()?
            .into_iter()
            .filter(|t| !EXCEPTIONS.contains(&t.as_str()) && t != "stop_timer")
            .collect();
        for _ in 0..3 {
            oracle.call("open_read")?;
        }
        let agent = Agent::start_with(&["--in-flight-s", "1"], |_| true)?;
        ensure!(agent.lines()?.iter().all(|p| !matches!(p.line, Line::Server(_))), "found by no message");
        thread::sleep(Duration::from_millis(1100));
        let since = sys::boot_ns();
        let mut replies = HashMap::new();
        for tool in &tools {
            let (id, reply) = oracle.call(tool)?;
            replies.insert(id.to_string(), reply.at_ns);
            thread::sleep(space());
        }
        agent.rest();
        let server = found(&agent, oracle.client.pid())?;
        ensure!(server.root_pid == oracle.client.pid() && server.digest.is_some(), "{server:?}");
        ensure!(server.argv.first().is_some_and(|a| a.ends_with("oracle")), "{:?}", server.argv);
        let seen = agent.observed(&server.server.id)?;
        ensure!(seen.calls.len() == replies.len(), "{} of {} calls", seen.calls.len(), replies.len());
        all.merge(judged(&oracle, &seen, since, &replies)?);
        println!("{manner:?}: found after {:.0} ms of its life", server.startup.gap_ms);
    }
    println!("{}", all.table());
    ensure!(all.total.seen == all.total.done, "not every effect was seen");
    ensure!(all.total.right == all.total.done, "not every charge is right");
    ensure!(all.lineage.right == all.lineage.done, "lineage is not right");
    Ok(())
}

/// The members of a chain share a pair of channels: one server, whose root is the outermost.
#[test]
fn running_chains() -> Result<()> {
    let world = World::new()?;
    let mut clients = Vec::new();
    for (n, (link, script)) in [
        (Link::Pipes, r#""$0" "$@"; exit $?"#),
        (Link::Sockets, r#"( sh -c '"$0" "$@"; exit $?' "$0" "$@" ); exit $?"#),
        (Link::Pipes, r#"sleep 60 & exec "$0" "$@""#),
    ]
    .into_iter()
    .enumerate()
    {
        let (direct, truth) = Oracle::command(&world, &format!("runchain{n}"), &program("oracle")?)?;
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(direct.get_program()).args(direct.get_args());
        let mut client = Client::start(command, Manner { link, ..Manner::default() })?;
        client.call("open_read", &json!({}))?;
        clients.push((client, truth, script));
    }
    let agent = Agent::start_with(&["--in-flight-s", "1"], |_| true)?;
    thread::sleep(Duration::from_millis(1100));
    for (client, truth, script) in &mut clients {
        for _ in 0..3 {
            client.call("child_open", &json!({}))?;
            thread::sleep(space());
        }
        agent.settle(Duration::from_millis(300));
        let truths = read_truths(truth)?;
        let leaf = truths.first().map(|t| t.pid).context("no truth")?;
        let server = found(&agent, leaf)?;
        ensure!(server.root_pid == client.pid(), "{script}: root {}", server.root_pid);
        let seen = agent.observed(&server.server.id)?;
        ensure!(seen.calls.len() == 3, "{script}: {} calls", seen.calls.len());
        let of_calls = seen.effects.iter().filter(|e| e.scope.kind == ScopeKind::Call);
        ensure!(of_calls.count() >= 6, "{script}: {:?}", seen.effects);
        println!("{script}: server {leaf}, root {}", server.root_pid);
    }
    let lines = agent.lines()?;
    let servers =
        lines.iter().filter(|p| matches!(&p.line, Line::Server(s) if s.event == ServerEvent::Found));
    ensure!(servers.count() == clients.len(), "one server a chain");
    Ok(())
}

/// A call that runs when the agent starts: what it does is charged to nothing with certainty.
#[test]
fn running_call_in_flight() -> Result<()> {
    let world = World::new()?;
    let mut oracle = Oracle::start(&world, "flight", Manner::default())?;
    oracle.call("open_read")?;
    let since = sys::boot_ns();
    let began = Instant::now();
    let (unseen, line) = oracle.client.compose("parallel_sleep", &json!({"ms": 3000 * slowness()}));
    oracle.client.send(&line)?;
    thread::sleep(patient_ms(100));
    let agent = Agent::start_with(&[], |_| true)?;
    ensure!(began.elapsed() < patient_ms(2500), "the agent took {:?} to start", began.elapsed());
    let mut replies = HashMap::new();
    for tool in ["open_write", "exec", "child_open"] {
        let (id, reply) = oracle.call(tool)?;
        replies.insert(id.to_string(), reply.at_ns);
        thread::sleep(space());
    }
    let reply = oracle.client.wait(&unseen)?;
    replies.insert(unseen.to_string(), reply.at_ns);
    let (id, reply) = oracle.call("child_outlives")?;
    replies.insert(id.to_string(), reply.at_ns);
    agent.rest();
    let server = found(&agent, oracle.client.pid())?;
    let seen = agent.observed(&server.server.id)?;
    ensure!(seen.calls.len() == 4, "{} calls: the one in flight is none", seen.calls.len());
    ensure!(seen.calls.iter().all(|c| c.scope.call.as_ref().is_some_and(|c| c.request_id != unseen)));
    let certain = seen.effects.iter().find(|e| e.scope.certainty != Certainty::Ambiguous);
    ensure!(certain.is_none(), "nobody can know that: {certain:?}");
    let slept = seen
        .effects
        .iter()
        .find(|e| matches!(&*e.effect, Effect::Open { path, .. } if path.contains("/slept")));
    let scope = &slept.context("what the call in flight did is not seen")?.scope;
    ensure!(scope.candidates.iter().any(|c| c.kind == ScopeKind::UnknownStart), "{scope:?}");
    let verdict = judged(&oracle, &seen, since, &replies)?;
    println!("{}", verdict.table());
    ensure!(verdict.total.wrong == 0 && verdict.lineage.wrong == 0, "{:?}", verdict.notes);
    ensure!(verdict.total.seen == verdict.total.done, "not every effect was seen");
    Ok(())
}

/// Killed and started again in the middle of a session.
#[test]
fn running_across_a_restart() -> Result<()> {
    let world = World::new()?;
    for link in [Link::Pipes, Link::Sockets] {
        let mut first = Agent::start(&[])?;
        let mut oracle =
            Oracle::start(&world, &format!("restart{link:?}"), Manner { link, ..Manner::default() })?;
        oracle.call("open_write")?;
        let known = first.server(oracle.client.pid())?;
        ensure!(!known.startup.pre_existing, "{known:?}");
        let (unseen, line) = oracle.client.compose("parallel_sleep", &json!({"ms": 1500 * slowness()}));
        oracle.client.send(&line)?;
        thread::sleep(Duration::from_millis(50));
        ensure!(!first.stop(libc::SIGKILL)?.success(), "it was to be killed");
        let agent = Agent::start_with(&["--in-flight-s", "3"], |_| true)?;
        let since = sys::boot_ns();
        let mut replies = HashMap::new();
        let call = |oracle: &mut Oracle, replies: &mut HashMap<String, u64>, tool: &str| -> Result<()> {
            let (id, reply) = oracle.call(tool)?;
            replies.insert(id.to_string(), reply.at_ns);
            thread::sleep(space());
            Ok(())
        };
        for tool in ["open_write", "exec", "fork_only"] {
            call(&mut oracle, &mut replies, tool)?;
        }
        let reply = oracle.client.wait(&unseen)?;
        replies.insert(unseen.to_string(), reply.at_ns);
        thread::sleep(Duration::from_millis(3100));
        let settled = sys::boot_ns();
        for tool in
            ["open_read", "open_write", "exec", "exec_script", "child_open", "double_fork", "connect_tcp4"]
        {
            call(&mut oracle, &mut replies, tool)?;
        }
        agent.rest();
        let server = found(&agent, oracle.client.pid())?;
        let seen = agent.observed(&server.server.id)?;
        let all = judged(&oracle, &seen, since, &replies)?;
        ensure!(all.total.wrong == 0 && all.lineage.wrong == 0, "{:?}", all.notes);
        let after = judged(&oracle, &seen, settled, &replies)?;
        println!("{link:?}: all {:?}\nafter what may be in flight {:?}", all.total, after.total);
        ensure!(after.total.right == after.total.done, "{:?}", after.notes);
        ensure!(after.lineage.right == after.lineage.done, "{:?}", after.notes);
        ensure!(seen.calls.len() == 10, "{} calls", seen.calls.len());
    }
    Ok(())
}

/// Processes that are born while the agent looks are missed by no one.
#[test]
fn running_while_it_forks() -> Result<()> {
    let world = World::new()?;
    let (direct, _) = Oracle::command(&world, "forks", &program("oracle")?)?;
    let mut command = Command::new("sh");
    let script = r#"(while [ -d "/proc/$$" ]; do (cat /etc/hostname >/dev/null) ; done) & exec "$0" "$@""#;
    command.args(["-c", script]).arg(direct.get_program()).args(direct.get_args());
    let mut client = Client::start(command, Manner::default())?;
    for _ in 0..8 {
        let agent = Agent::start_with(&["--in-flight-s", "0"], |_| true)?;
        client.call("open_read", &json!({}))?;
        let server = found(&agent, client.pid())?;
        let is_exec = |e: &&EffectLine| matches!(&*e.effect, Effect::Exec { .. });
        let end = Instant::now() + patient_ms(10_000);
        let (seen, execs) = loop {
            let seen = agent.observed(&server.server.id)?;
            let execs = seen.effects.iter().filter(is_exec).count();
            if execs > 20 {
                break (seen, execs);
            }
            ensure!(Instant::now() < end, "the loop is not followed: {execs} programs");
            thread::sleep(Duration::from_millis(50));
        };
        let stray = seen.effects.iter().find(|e| e.process.start_ns == 0);
        ensure!(stray.is_none(), "nobody knows its birth: {stray:?}");
        // The loop ran before: whether it works for a call nobody can tell.
        let own = |e: &&EffectLine| e.process.pid != client.pid();
        let certain = seen.effects.iter().filter(own).find(|e| e.scope.certainty != Certainty::Ambiguous);
        ensure!(certain.is_none(), "{certain:?}");
        println!("{execs} programs run by a loop that ran before, none of them a stray");
    }
    Ok(())
}

/// A server that is silent for so long that it is let go is found again.
#[test]
fn running_after_a_long_silence() -> Result<()> {
    let world = World::new()?;
    let mut oracle = Oracle::start(&world, "silence", Manner::default())?;
    oracle.call("open_read")?;
    let agent = Agent::start_with(&["--in-flight-s", "1"], |_| true)?;
    thread::sleep(Duration::from_secs(63));
    // Let go by now; this one is read unseen, and wakes it.
    oracle.call("open_read")?;
    thread::sleep(Duration::from_millis(3500));
    ensure!(agent.lines()?.iter().all(|p| !matches!(p.line, Line::Server(_))), "it was not let go");
    let (id, _) = oracle.call("open_write")?;
    let server = found(&agent, oracle.client.pid())?;
    agent.settle(Duration::from_millis(500));
    let seen = agent.observed(&server.server.id)?;
    let open = seen
        .effects
        .iter()
        .find(|e| matches!(&*e.effect, Effect::Open { path, .. } if path.contains("/written")));
    let scope = &open.context("not seen")?.scope;
    let call = scope.call.as_ref().with_context(|| format!("not certain: {scope:?}"))?;
    ensure!(call.request_id == id && seen.calls.len() == 1, "{scope:?}");
    Ok(())
}
