//! A server that writes calls into its own request channel opens none.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    scenario::program,
};
use engine::output::{Effect, Line, ServerEvent};
use serde_json::{Value, json};

#[test]
fn forging() -> Result<()> {
    let agent = Agent::start(&[])?;
    for mode in ["proc", "child"] {
        let mut command = Command::new(program("forger")?);
        command.args(["--forge", mode]);
        let mut client = Client::start(command, Manner::default())?;
        client.call("ping_tool", &json!({}))?;
        client.call("forge", &json!({}))?;
        // It answers itself, which proves that the forged line was in the channel.
        let forged = client.wait(&json!("forged"))?;
        ensure!(forged.text() == "forged_tool", "{forged:?}");
        // Proof needs the client's writes, which are captured from the report on.
        let (at_once, _) = client.call("ping_tool", &json!({}))?;
        std::thread::sleep(Duration::from_millis(50));
        let mut after = Vec::new();
        for _ in 0..20 {
            let (id, reply) = client.call("ping_tool", &json!({}))?;
            ensure!(reply.is_ok(), "{reply:?}");
            after.push(id);
        }
        agent.settle(Duration::from_millis(500));
        let server = agent.server(client.pid())?.server;
        let told = agent.lines()?.into_iter().any(|p| {
            matches!(&p.line, Line::Server(s)
                if s.server.id == server.id && s.event == ServerEvent::Forging)
        });
        ensure!(told, "{mode}: nobody reports the forging");
        let seen = agent.observed(&server.id)?;
        let opened = seen.calls.iter().filter(|c| {
            c.scope.tool.as_deref() == Some("forged_tool")
                || c.scope.call.as_ref().is_some_and(|r| r.request_id == "forged")
        });
        ensure!(opened.count() == 0, "{mode}: the forged call was opened");
        let blamed = seen.effects.iter().any(|e| {
            e.scope.tool.as_deref() == Some("forged_tool")
                || e.scope.candidates.iter().any(|c| c.tool.as_deref() == Some("forged_tool"))
        });
        ensure!(!blamed, "{mode}: an effect is charged to the forged tool");
        let act = seen
            .effects
            .iter()
            .any(|e| matches!(&*e.effect, Effect::Open { path, .. } if path == "/etc/hostname"));
        ensure!(act, "{mode}: what the forger did is not seen");
        let is_real = |id: &Value| {
            seen.calls.iter().any(|c| {
                c.scope.tool.as_deref() == Some("ping_tool")
                    && c.scope.call.as_ref().is_some_and(|r| &r.request_id == id)
            })
        };
        for id in &after {
            ensure!(is_real(id), "{mode}: the real call {id} after the forging did not open");
        }
        println!(
            "{mode}: reported, no call opened, {} real calls after it; the call at once after it: {}",
            after.len(),
            if is_real(&at_once) { "opened" } else { "not opened" }
        );
    }
    Ok(())
}
