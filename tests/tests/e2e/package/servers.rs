//! Servers of the test: one is found out, one is stopped, one is held to what it learned.

use std::{fs, net::TcpListener, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    client::{Client, Manner},
    scenario::{Oracle, program},
    world::World,
};
use serde_json::{Value, json};

use super::{EVENTS, SYSLOG, asks, changes, run, soon};

/// The file and the machine's rsyslog have it.
fn streamed(id: &str) -> Result<()> {
    for path in [EVENTS, SYSLOG] {
        soon(&format!("{path} has {id}"), || {
            Ok(fs::read_to_string(path).unwrap_or_default().contains(id).then_some(()))
        })?;
    }
    Ok(())
}

/// Which server it is, once that is known.
fn name_of(pid: u32) -> Result<String> {
    soon("the server is known", || {
        let all = asks(&["servers"])?;
        let of_it = all.as_array().and_then(|a| a.iter().find(|s| s["pid"] == pid));
        let known = of_it.filter(|s| s["identity"].as_str().is_some_and(|i| !i.is_empty()));
        Ok(known.and_then(|s| s["name"].as_str().map(str::to_owned)))
    })
}

/// A server does what a rule forbids: the finding's id.
pub(super) fn detects(before: usize) -> Result<(Oracle, String)> {
    let world = World::new()?;
    let mut oracle = Oracle::start(&world, "package", Manner::default())?;
    oracle.call("open_read")?;
    let hits = || -> Result<Vec<Value>> {
        let all = asks(&["findings", "list", "--all"])?;
        Ok(all.as_array().into_iter().flatten().filter(|f| f["kind"] == "rule-hit").cloned().collect())
    };
    let found = soon("a finding", || Ok(Some(hits()?).filter(|all| all.len() > before)))?;
    let id = found[0]["id"].as_str().context("an id")?.to_owned();
    streamed(&id)?;
    Ok((oracle, id))
}

/// Under the unit's rights, a server is stopped, and goes on.
pub(super) fn contains(pid: u32) -> Result<()> {
    let name = name_of(pid)?;
    let group = || fs::read_to_string(format!("/proc/{pid}/cgroup"));
    let was = group()?;
    changes(&["respond", "throttle", &name])?;
    let unit = group()?.lines().find_map(|l| l.rsplit('/').next().map(str::to_owned)).unwrap_or_default();
    ensure!(unit.starts_with("toolwarden-") && unit.ends_with(".scope"), "it is in {}", group()?);
    changes(&["respond", "freeze", &name])?;
    changes(&["respond", "release", &name])?;
    ensure!(group()? == was, "it was in {was}, and is in {}", group()?);
    Ok(())
}

/// What was learned and ratified is permitted; all else is denied in the kernel, and told.
pub(super) fn denies() -> Result<()> {
    const ALLOWED: &str = "127.77.0.1";
    const OTHER: &str = "127.77.0.2";
    let listener = TcpListener::bind((ALLOWED, 0))?;
    let port = listener.local_addr()?.port();
    let other = TcpListener::bind((OTHER, port))?;
    for listener in [listener, other] {
        thread::spawn(move || listener.incoming().for_each(drop));
    }
    let mut client = Client::start(Command::new(program("contained")?), Manner::default())?;
    let pid = client.pid();
    let mut connect = |to: &str| -> Result<String> {
        let acts = json!([{"do": "tcp", "to": format!("{to}:{port}")}]);
        let (_, reply) = client.call("fetch", &json!({"acts": acts}))?;
        let results: Vec<String> = serde_json::from_str(reply.text())?;
        thread::sleep(Duration::from_millis(300));
        results.into_iter().next().context("no result")
    };
    for _ in 0..5 {
        ensure!(connect(ALLOWED)? == "ok");
    }
    let name = name_of(pid)?;
    soon("its calls are learned", || {
        let shown = run(&["toolwarden", "baseline", "show", &name, "--format", "json"])?;
        Ok((shown.code == 0 && shown.out.contains(ALLOWED)).then_some(()))
    })?;
    changes(&["baseline", "ratify", &name])?;
    changes(&["mode", &name, "enforce"])?;
    soon("another host is denied", || Ok((connect(OTHER)? == "EPERM").then_some(())))?;
    ensure!(connect(ALLOWED)? == "ok", "what was ratified is denied");
    let id = soon("the denial is found", || {
        let all = asks(&["findings", "list"])?;
        let of_it = |f: &&Value| f["object"].as_str().is_some_and(|o| o.starts_with(OTHER));
        let found = all.as_array().and_then(|a| a.iter().find(of_it).cloned());
        Ok(found.and_then(|f| f["id"].as_str().map(str::to_owned)))
    })?;
    let told = run(&["toolwarden", "findings", "explain", &id])?.good()?;
    ensure!(told.contains("denied in the kernel"), "{told}");
    streamed(&id)
}
