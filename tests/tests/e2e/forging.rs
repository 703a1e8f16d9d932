//! A server that writes calls into its own request channel opens none.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    compare::Observed,
    scenario::program,
};
use engine::output::{Effect, Line, ServerEvent};
use serde_json::{Value, json};

fn forger(mode: &str) -> Result<Client> {
    let mut command = Command::new(program("forger")?);
    command.args(["--forge", mode]);
    Client::start(command, Manner::default())
}

fn is_open(seen: &Observed, id: &Value) -> bool {
    seen.calls.iter().any(|c| {
        c.scope.tool.as_deref() == Some("ping_tool")
            && c.scope.call.as_ref().is_some_and(|r| &r.request_id == id)
    })
}

#[test]
fn forging_by_itself() -> Result<()> {
    forging("proc")
}

#[test]
fn forging_by_a_child() -> Result<()> {
    forging("child")
}

fn forging(mode: &str) -> Result<()> {
    let agent = Agent::start(&[])?;
    let mut client = forger(mode)?;
    client.call("ping_tool", &json!({}))?;
    client.call("forge", &json!({}))?;
    // It answers itself, which proves that the forged line was in the channel.
    let forged = client.wait(&json!("forged"))?;
    ensure!(forged.text() == "forged_tool", "{forged:?}");
    // Proof needs the client's writes, which are captured from the report on.
    let (at_once, _) = client.call("ping_tool", &json!({}))?;
    let server = agent.server(client.pid())?.server;
    agent
        .wait_for(
            Duration::from_secs(10),
            |l| matches!(l, Line::Server(s) if s.server.id == server.id && s.event == ServerEvent::Forging),
        )
        .context("nobody reports the forging")?;
    let mut after = Vec::new();
    for _ in 0..20 {
        let (id, reply) = client.call("ping_tool", &json!({}))?;
        ensure!(reply.is_ok(), "{reply:?}");
        after.push(id);
    }
    agent.rest();
    let seen = agent.observed(&server.id)?;
    let opened = seen.calls.iter().filter(|c| {
        c.scope.tool.as_deref() == Some("forged_tool")
            || c.scope.call.as_ref().is_some_and(|r| r.request_id == "forged")
    });
    ensure!(opened.count() == 0, "the forged call was opened");
    let blamed = seen.effects.iter().any(|e| {
        let candidates = e.scope.candidates.iter();
        let mut tools = candidates.filter_map(|c| c.tool.as_deref());
        e.scope.tool.as_deref() == Some("forged_tool") || tools.any(|t| t == "forged_tool")
    });
    ensure!(!blamed, "an effect is charged to the forged tool");
    let act = seen
        .effects
        .iter()
        .any(|e| matches!(&*e.effect, Effect::Open { path, .. } if path == "/etc/hostname"));
    ensure!(act, "what the forger did is not seen");
    for id in &after {
        ensure!(is_open(&seen, id), "the real call {id} after the forging did not open");
    }
    let at_once = if is_open(&seen, &at_once) { "opened" } else { "did not open" };
    println!(
        "reported, no call opened; {} real calls after it opened, the one at once after it {at_once}",
        after.len()
    );

    // The client is watched for its proof only: what it does itself is nobody's effect, and its
    // next server is a server like any other.
    let mut honest = forger("proc")?;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(honest.call("ping_tool", &json!({}))?.0);
    }
    agent.rest();
    let own = std::process::id();
    let mine =
        agent.lines()?.into_iter().find(|p| matches!(&p.line, Line::Effect(e) if e.process.pid == own));
    ensure!(mine.is_none(), "the client's own effect: {mine:?}");
    let stray = agent.lines()?.into_iter().find(|p| {
        matches!(&p.line, Line::Effect(e)
            if e.process.pid == honest.pid() && e.server.id == server.id)
    });
    ensure!(stray.is_none(), "an effect of the next server: {stray:?}");
    let next = agent.server(honest.pid())?.server;
    let seen = agent.observed(&next.id)?;
    let open = ids.iter().filter(|id| is_open(&seen, id)).count();
    ensure!(open == ids.len(), "{open} of {} calls of the next server", ids.len());
    Ok(())
}
