//! Environment variables that inject code are told by name, and nothing else of the environment is.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
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
    // The oracle gives its own children no environment at all.
    let names = |env: &[&str]| -> Vec<String> { env.iter().map(|&n| n.to_owned()).collect() };
    let both = |env: &[&str], cut: bool| vec![(names(env), cut), (Vec::new(), false)];
    let plain = told(&agent, &world, "plain", |c| {
        // Names that only resemble, and values that look like names.
        c.env("LD_PRELOADED", "1").env("XLD_PRELOAD", "1").env("PATH", "LD_PRELOAD=1").env("EMPTY", "");
    })?;
    ensure!(plain == both(&[], false), "plain: {plain:?}");
    let set = told(&agent, &world, "set", |c| {
        // The loader complains, and goes on.
        c.env("LD_PRELOAD", "/a-value-of-mine.so")
            .env("GIT_EXTERNAL_DIFF", "")
            .env("DOTNET_STARTUP_HOOKS", "x");
    })?;
    ensure!(set == both(&["LD_PRELOAD", "DOTNET_STARTUP_HOOKS", "GIT_EXTERNAL_DIFF"], false), "set: {set:?}");
    // Behind strings that are longer than what is read at once; the second piece of the first begins
    // like a name.
    let long = told(&agent, &world, "long", |c| {
        c.env("A", format!("{}LD_AUDIT=1", "x".repeat(4093)));
        c.env("B", "y".repeat(100_000)).env("C", "z".repeat(4093)).env("RUBYOPT", "1");
    })?;
    ensure!(long == both(&["RUBYOPT"], false), "long: {long:?}");
    let many = told(&agent, &world, "many", |c| {
        c.env("BASH_ENV", "1").env("ZZ", "1");
        c.envs((0..1100).map(|n| (format!("V{n:04}"), "1")));
    })?;
    ensure!(many == both(&["BASH_ENV"], true), "many: {many:?}");
    // A child of its own.
    let (direct, _) = Oracle::command(&world, "child", &program("oracle")?)?;
    let mut command = Command::new("sh");
    let script = r#"LD_PRELOAD=/a-value-of-mine.so PERL5LIB=x /bin/true; exec "$0" "$@""#;
    command.args(["-c", script]).arg(direct.get_program()).args(direct.get_args());
    // Cargo sets it for what it runs.
    command.env_remove("LD_LIBRARY_PATH");
    let mut client = Client::start(command, Manner::default())?;
    client.call("noop", &json!({}))?;
    let server = agent.server(client.pid())?.server;
    agent.settle(Duration::from_millis(300));
    let child = agent.observed(&server.id)?.effects.into_iter().find_map(|e| match &*e.effect {
        Effect::Exec { path, env, .. } if path.ends_with("/true") => Some(env.clone()),
        _ => None,
    });
    ensure!(child == Some(names(&["LD_PRELOAD", "PERL5LIB"])), "{child:?}");
    let lost = agent.lost()?.into_iter().find(|l| l.cause.starts_with("fault"));
    ensure!(lost.is_none(), "{lost:?}");
    println!("names told of servers and their children; cut after 1024 strings");
    Ok(())
}
