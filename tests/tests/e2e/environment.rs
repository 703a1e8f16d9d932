//! Environment variables that inject code are told by name, and nothing else of the environment is.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    scenario::{Oracle, program},
    world::World,
};
use engine::output::Effect;
use serde_json::json;

/// Starts an oracle in this environment and lets it run a child; what is told of the two of them.
fn told(
    agent: &Agent,
    world: &World,
    name: &str,
    more: impl FnOnce(&mut Command),
) -> Result<Vec<(Vec<String>, bool)>> {
    let (mut command, _) = Oracle::command(world, name, &program("oracle")?)?;
    command.env_clear();
    more(&mut command);
    let mut client = Client::start(command, Manner::default())?;
    let (_, reply) = client.call("exec", &json!({}))?;
    ensure!(reply.is_ok(), "{reply:?}");
    let server = agent.server(client.pid())?.server;
    agent.settle(Duration::from_millis(300));
    let lines = agent.lines()?;
    ensure!(!lines.iter().any(|p| p.text.contains("a-value-of-mine")), "a value is shown");
    let observed = agent.observed(&server.id)?;
    let execs = observed.effects.iter().filter_map(|e| match &*e.effect {
        Effect::Exec { env, env_truncated, .. } => Some((env.clone(), *env_truncated)),
        _ => None,
    });
    Ok(execs.collect())
}

#[test]
fn environment() -> Result<()> {
    let agent = Agent::start(&[])?;
    let world = World::new()?;
    let both = |env: &[&str], cut: bool| {
        let env: Vec<String> = env.iter().map(|&n| n.to_owned()).collect();
        vec![(env.clone(), cut), (env, cut)]
    };
    let plain = told(&agent, &world, "plain", |c| {
        // Names that only resemble, and values that look like names.
        c.env("LD_PRELOADED", "1").env("XLD_PRELOAD", "1").env("PATH", "LD_PRELOAD=1").env("EMPTY", "");
    })?;
    ensure!(plain == both(&[], false), "{plain:?}");
    let set = told(&agent, &world, "set", |c| {
        // The loader complains, and goes on.
        c.env("LD_PRELOAD", "/a-value-of-mine.so")
            .env("GIT_EXTERNAL_DIFF", "")
            .env("DOTNET_STARTUP_HOOKS", "x");
    })?;
    ensure!(set == both(&["LD_PRELOAD", "DOTNET_STARTUP_HOOKS", "GIT_EXTERNAL_DIFF"], false), "{set:?}");
    // Behind strings that are longer than what is read at once; the second piece of the first begins
    // like a name.
    let long = told(&agent, &world, "long", |c| {
        c.env("A", format!("{}LD_AUDIT=1", "x".repeat(4093)));
        c.env("B", "y".repeat(100_000)).env("C", "z".repeat(4093)).env("RUBYOPT", "1");
    })?;
    ensure!(long == both(&["RUBYOPT"], false), "{long:?}");
    let many = told(&agent, &world, "many", |c| {
        c.env("BASH_ENV", "1").env("ZZ", "1");
        (0..1100).for_each(|n| drop(c.env(format!("V{n:04}"), "1")));
    })?;
    ensure!(many == both(&["BASH_ENV"], true), "{many:?}");
    let lost = agent.lost()?.into_iter().find(|l| l.cause.starts_with("fault"));
    ensure!(lost.is_none(), "{lost:?}");
    let (_, child) = many.split_first().context("the server")?;
    println!("names told of servers and their children; cut after 1024 strings: {child:?}");
    Ok(())
}
