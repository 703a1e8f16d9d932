//! Messages as clients really send them: coalesced, split, large, cancelled, with any id.

use std::{collections::HashMap, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    pace::{patient_ms, slowness},
    scenario::Oracle,
    world::World,
};
use engine::output::{CallLine, CallStatus};
use serde_json::{Value, json};

struct Made {
    tool: &'static str,
    status: CallStatus,
    request_bytes: u64,
}

#[test]
fn protocol() -> Result<()> {
    let world = World::new()?;
    let agent = Agent::start(&[])?;
    for (n, manner) in super::spaced::manners().into_iter().enumerate() {
        let mut oracle = Oracle::start(&world, &format!("protocol{n}"), manner)?;
        let mut made: HashMap<String, Made> = HashMap::new();
        let mut compose = |oracle: &mut Oracle, tool, arguments: &Value, status| {
            let (id, line) = oracle.client.compose(tool, arguments);
            let request_bytes = line.len() as u64 - 1;
            made.insert(id.to_string(), Made { tool, status, request_bytes });
            (id, line)
        };
        // Text that looks like a call, in an argument.
        let trap = json!({"a": "\"method\":\"tools/call\",\"params\":{\"name\":\"bait\"}}\n{",
            "name": "bait", "id": 77, "params": {"name": "bait"}});
        // Several requests in one write.
        let mut ids = Vec::new();
        let mut burst = Vec::new();
        for tool in ["echo", "open_read", "noop", "echo"] {
            let (id, line) = compose(&mut oracle, tool, &trap, CallStatus::Ok);
            ids.push(id);
            burst.extend(line);
        }
        oracle.client.send(&burst)?;
        for id in &ids {
            oracle.client.wait(id)?;
        }
        // One request in several writes, cut anywhere.
        for step in [1, 7, 40] {
            let (id, line) = compose(&mut oracle, "echo", &trap, CallStatus::Ok);
            for part in line.chunks(line.len().div_ceil(step)) {
                oracle.client.send(part)?;
                thread::sleep(patient_ms(1));
            }
            oracle.client.wait(&id)?;
        }
        // Large both ways.
        for bytes in [70_000, 3_000_000] {
            let big = json!({"text": "x\"\\y".repeat(bytes / 4)});
            let (id, line) = compose(&mut oracle, "echo", &big, CallStatus::Ok);
            oracle.client.send(&line)?;
            let reply = oracle.client.wait(&id)?;
            ensure!(reply.text().len() > bytes, "the echo is whole");
            let size = json!({"bytes": bytes});
            let (id, line) = compose(&mut oracle, "big_reply", &size, CallStatus::Ok);
            oracle.client.send(&line)?;
            oracle.client.wait(&id)?;
        }
        // Errors, progress, cancellation.
        for (tool, status) in
            [("error_tool", CallStatus::ToolError), ("fail", CallStatus::Error), ("progress", CallStatus::Ok)]
        {
            let (id, line) = compose(&mut oracle, tool, &json!({}), status);
            oracle.client.send(&line)?;
            oracle.client.wait(&id)?;
        }
        let long = json!({"ms": 20_000});
        let (id, line) = compose(&mut oracle, "slow", &long, CallStatus::Cancelled);
        oracle.client.send(&line)?;
        thread::sleep(patient_ms(50));
        oracle.client.cancel(&id)?;
        thread::sleep(patient_ms(50));
        // Replies out of order.
        let (slow, mut lines) = compose(&mut oracle, "slow", &json!({"ms": 60 * slowness()}), CallStatus::Ok);
        let (fast, line) = compose(&mut oracle, "noop", &json!({}), CallStatus::Ok);
        lines.extend(line);
        oracle.client.send(&lines)?;
        oracle.client.wait(&slow)?;
        oracle.client.wait(&fast)?;

        // A cancelled call that is never answered counts as running for 5 s more.
        thread::sleep(Duration::from_secs(2));
        agent.rest();
        let server = agent.server(oracle.client.pid())?;
        let seen = agent.observed(&server.server.id)?;
        let mut unseen: Vec<_> = made.keys().cloned().collect();
        for line in &seen.calls {
            check(line, &made)?;
            let id = line.scope.call.as_ref().map(|c| c.request_id.to_string());
            unseen.retain(|u| Some(u) != id.as_ref());
        }
        ensure!(unseen.is_empty(), "{manner:?}: not reported: {unseen:?}");
        ensure!(seen.calls.len() == made.len(), "{} for {}", seen.calls.len(), made.len());
        println!("{manner:?}: {} calls, all as made", made.len());
    }
    Ok(())
}

fn check(line: &CallLine, made: &HashMap<String, Made>) -> Result<()> {
    let call = line.scope.call.as_ref().context("a call without a call")?;
    let made = made.get(&call.request_id.to_string()).with_context(|| format!("never called: {line:?}"))?;
    ensure!(
        line.scope.tool.as_deref() == Some(made.tool)
            && line.status == made.status
            && line.request_bytes.abs_diff(made.request_bytes) <= 1,
        "{} with {} bytes: {line:?}",
        made.tool,
        made.request_bytes
    );
    let echoed = line.arguments.iter().map(|a| a.bytes).sum::<u64>();
    let whole = made.tool != "echo" || line.reply_bytes >= echoed;
    ensure!(whole, "the reply is smaller than what it echoes: {line:?}");
    Ok(())
}
