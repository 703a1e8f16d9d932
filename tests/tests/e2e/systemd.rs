//! Where systemd is process 1: servers live in scopes, and the controllers of cgroup v2 are real.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    scenario::{Oracle, program},
    world::World,
};
use serde_json::json;

const SCOPE: &str = "toolwarden-e2e.scope";

/// Where sd_booted(3) looks. Without it, process 1 must be something else indeed.
fn booted() -> Result<bool> {
    let booted = Path::new("/run/systemd/system").is_dir();
    if !booted {
        let first = fs::read_to_string("/proc/1/comm")?;
        ensure!(first.trim() != "systemd", "systemd is process 1 and /run/systemd/system is not there");
        println!("process 1 is {}: there are no scopes here", first.trim());
    }
    Ok(booted)
}

#[test]
fn server_in_a_scope() -> Result<()> {
    if !booted()? {
        return Ok(());
    }
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    for wanted in ["cpu", "io", "memory", "pids"] {
        ensure!(controllers.split_whitespace().any(|c| c == wanted), "no {wanted} in {controllers}");
    }
    let world = World::new()?;
    let agent = Agent::start(&[])?;
    let (direct, _) = Oracle::command(&world, "scope", &program("oracle")?)?;
    let mut command = Command::new("systemd-run");
    command.args([
        "--scope",
        "--quiet",
        "--unit",
        SCOPE,
        "--property=CPUQuota=20%",
        "--property=TasksMax=77",
    ]);
    command.arg(direct.get_program()).args(direct.get_args());
    let mut client = Client::start(command, Manner::default())?;
    let (_, reply) = client.call("open_read", &json!({}))?;
    ensure!(reply.is_ok(), "{reply:?}");
    let server = agent.server(client.pid())?;
    ensure!(server.argv.first().is_some_and(|a| a.ends_with("oracle")), "{:?}", server.argv);

    let groups = fs::read_to_string(format!("/proc/{}/cgroup", client.pid()))?;
    let group = groups.lines().find_map(|l| l.strip_prefix("0::/")).context("no v2 group")?;
    ensure!(group.ends_with(SCOPE), "{group}");
    let limit = |file: &str| fs::read_to_string(root.join(group).join(file));
    ensure!(limit("cpu.max")?.trim() == "20000 100000", "{}", limit("cpu.max")?);
    ensure!(limit("pids.max")?.trim() == "77", "{}", limit("pids.max")?);
    println!("{group}: watched, and limited by the controllers");
    Ok(())
}
