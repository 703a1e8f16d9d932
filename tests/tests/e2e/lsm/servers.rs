//! Servers as the engine knows them: what they do to the agent, and how they live under a policy that was learned.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    pace::patient,
    scenario::program,
};
use engine::{
    finding::{Finding, Kind, Severity},
    output::{Effect, Line},
};
use serde_json::{Value, json};

use super::{
    super::{
        place::{Place, SECOND, soon},
        story::{is_held, known},
    },
    Dir, NO_MEMORY, all, copy, is_alive, one, told,
};

#[test]
fn a_server_leaves_the_agent_alone() -> Result<()> {
    let dir = Dir::new()?;
    let agent = Agent::start_in(&dir.at, &[])?;
    if !is_alive(&agent)? {
        return Ok(());
    }
    let mut client = Client::start(Command::new(program("contained")?), Manner::default())?;
    agent.server(client.pid())?;
    let pid = agent.pid();
    let state = dir.path("state");
    let kept = fs::read_dir(&state)?.next().context("the agent keeps nothing")??.path();
    fs::write(dir.path("beside"), "x")?;
    all(
        &mut client,
        &[
            ("net", json!({"do": "kill", "pid": pid, "signal": 0}), "EPERM"),
            ("net", json!({"do": "kill", "pid": pid, "signal": libc::SIGSTOP}), "EPERM"),
            ("net", json!({"do": "memory", "pid": pid}), NO_MEMORY),
            ("net", json!({"do": "file-write", "path": kept}), "EPERM"),
            ("net", json!({"do": "file-delete", "path": kept}), "EPERM"),
            ("net", json!({"do": "file-make", "path": format!("{state}/disarm")}), "EPERM"),
            ("net", json!({"do": "file-rename", "path": state, "to": dir.path("gone")}), "EPERM"),
            ("net", json!({"do": "file-rename", "path": dir.at, "to": "/tmp/gone"}), "EPERM"),
            ("net", json!({"do": "file-write", "path": dir.path("beside")}), "ok"),
            ("net", json!({"do": "kill", "pid": std::process::id(), "signal": 0}), "ok"),
        ],
    )?;
    told(&agent, "signal", &format!("the agent, signal {}", libc::SIGSTOP), false)?;
    told(&agent, "trace", "the agent", false)?;
    told(&agent, "alter", &format!("{state}/disarm"), false)?;
    let finding = |l: &Line| matches!(l, Line::Finding(f) if f.kind == Kind::Tampering);
    let line = agent.wait_for(patient(8 * SECOND), finding)?;
    let Line::Finding(found) = line else { unreachable!("just matched") };
    println!("{}", found.sentence);
    ensure!(found.severity == Severity::Critical, "{found:?}");
    // Others, such as a person's shell, may.
    e2e::sys::kill(pid, 0)?;
    Ok(())
}

/// What was denied so far, with the scopes that were live and those that hold a right: why, when it should not have been.
fn denials(agent: &Agent) -> String {
    thread::sleep(patient(Duration::from_millis(500)));
    let lines = agent.lines().unwrap_or_default();
    let effects = lines.iter().filter_map(|p| match &p.line {
        Line::Effect(e) if matches!(&*e.effect, Effect::Denied { .. }) => Some(&e.effect),
        _ => None,
    });
    let all: Vec<String> = effects.map(|e| format!("{e:?}")).collect();
    all.join("\n")
}

/// What the kernel and the agent know of its calls.
fn known_of_calls(place: &Place, name: &str) -> String {
    let asks = [&["policy", "exposure", name, "--format", "json"][..], &["calls", "--format", "ndjson"]];
    let told = asks.iter().map(|ask| place.ask(ask).map_or_else(|e| format!("{e:#}"), |told| told.out));
    told.collect::<Vec<_>>().join("\n")
}

/// Learned, ratified, and held to it: what it did it does, and nothing else.
#[test]
fn a_server_works_on_under_all_families() -> Result<()> {
    let (dir, other, place) = (Dir::named("lsm-own")?, Dir::named("lsm-other")?, Place::new()?);
    let agent = place.start()?;
    if !is_alive(&agent)? {
        return Ok(());
    }
    fs::create_dir(dir.path("data"))?;
    for file in [dir.path("data/a"), other.path("secret")] {
        fs::write(file, "x")?;
    }
    let helper = copy(&dir, "helper")?;
    let usual = |tool: &str| match tool {
        "reader" => json!({"do": "file-read", "path": dir.path("data/a")}),
        _ => json!({"do": "exec", "path": helper}),
    };
    let start = || Client::start(Command::new(program("contained")?), Manner::default());
    let mut client = start()?;
    let row = known(&place, client.pid())?;
    let name = row["name"].as_str().context("a name")?.to_owned();
    for _ in 0..5 {
        ensure!(one(&mut client, "reader", usual("reader"))? == "ok");
        ensure!(one(&mut client, "runner", usual("runner"))? == "ok");
    }
    drop(client);
    let mut client = start()?;
    soon("its calls are learned", || {
        let shown = place.ask(&["baseline", "show", &name, "--format", "json"])?;
        Ok((shown.code == 0 && shown.out.contains("/data") && shown.out.contains("/helper")).then_some(()))
    })?;
    place.person(&["baseline", "ratify", &name])?.good()?;
    println!("{}", place.person(&["mode", &name, "enforce"])?.good()?);
    let shown = place.ask(&["policy", "show", &name, "--format", "json"])?.json()?;
    for family in ["exec", "file", "unix", "dangerous", "network", "listen"] {
        ensure!(
            shown["families"].as_array().is_some_and(|f| f.iter().any(|f| f == family)),
            "{family}: {shown:#}"
        );
    }
    // What runs, and what starts from now on, does its usual work.
    for round in 0..2 {
        all(
            &mut client,
            &[
                ("reader", usual("reader"), "ok"),
                ("runner", usual("runner"), "ok"),
                ("runner", usual("reader"), "EPERM"),
                ("reader", json!({"do": "file-read", "path": other.path("secret")}), "EPERM"),
                ("reader", usual("runner"), "EPERM"),
            ],
        )
        .with_context(|| {
            format!("round {round}; it was told:\n{}\n{}", denials(&agent), known_of_calls(&place, &name))
        })?;
        drop(client);
        client = start()?;
        soon("it is held, and no other", || {
            let all = place.ask(&["servers", "--format", "json"])?.json()?;
            let ours = |a: &Vec<Value>| a.len() == 1 && a.iter().all(|s| s["pid"] == client.pid());
            Ok((is_held(&place, &name)? && all.as_array().is_some_and(ours)).then_some(()))
        })?;
        thread::sleep(patient(Duration::from_millis(200)));
    }
    let secret = other.path("secret");
    let about = |f: &Finding| f.sentence.contains(&secret) && f.sentence.contains("denied in the kernel");
    let line = agent.wait_for(patient(8 * SECOND), |l| matches!(l, Line::Finding(f) if about(f)))?;
    let Line::Finding(found) = line else { unreachable!("just matched") };
    println!("{}", found.sentence);
    ensure!(found.scope.tool.as_deref() == Some("reader"), "{found:#?}");
    Ok(())
}
