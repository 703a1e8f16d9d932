//! The question that the product answers, from beginning to end: a server is learned, a person vouches for it, it is held
//! to that in the kernel, a tool steps out of line, is denied, its server is frozen, explained, and released.

use std::{net::TcpListener, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    pace::patient,
    scenario::program,
};
use engine::{
    finding::Finding,
    output::Line,
    respond::{Action, Verdict},
};
use serde_json::{Value, json};

use super::place::{Place, SECOND, soon};

/// A peer that takes connections and says nothing.
fn peer(address: &str, port: u16) -> Result<u16> {
    let listener = TcpListener::bind((address, port))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    Ok(port)
}

struct Server(Client);

impl Server {
    fn start() -> Result<Self> {
        let client = Client::start(Command::new(program("contained")?), Manner::default())?;
        Ok(Self(client))
    }

    fn connect(&mut self, tool: &str, to: &str, port: u16) -> Result<String> {
        let acts = json!([{"do": "tcp", "to": format!("{to}:{port}")}]);
        let (_, reply) = self.0.call(tool, &json!({"acts": acts}))?;
        let results: Vec<String> = serde_json::from_str(reply.text())?;
        std::thread::sleep(patient(Duration::from_millis(60)));
        results.into_iter().next().context("no result")
    }
}

/// Which server it is, once that is known.
pub(crate) fn known(place: &Place, pid: u32) -> Result<Value> {
    soon("it is known who it is", || {
        let all = place.ask(&["servers", "--format", "json"])?.json()?;
        let is = |s: &&Value| s["pid"] == pid && s["identity"].as_str().is_some_and(|i| !i.is_empty());
        Ok(all.as_array().and_then(|a| a.iter().find(is).cloned()))
    })
}

/// Whether one server of that name, and no more, is held to its policy.
pub(crate) fn is_held(place: &Place, name: &str) -> Result<bool> {
    let told = place.ask(&["policy", "exposure", name, "--format", "json"])?;
    Ok(told.code == 0 && told.json()?["held"] == 1)
}

fn denial(agent: &Agent, object: &str) -> Result<Finding> {
    let about = |f: &Finding| f.object.starts_with(object) && f.sentence.contains("denied in the kernel");
    let told = |p: &e2e::agent::Printed| match &p.line {
        Line::Finding(f) => Some(format!("{} {}: {}", f.severity.name(), f.object, f.sentence)),
        _ => None,
    };
    let line = agent.wait_for(patient(8 * SECOND), |l| matches!(l, Line::Finding(f) if about(f)));
    let line = line.with_context(|| {
        let all = agent.lines().map(|all| all.iter().filter_map(told).collect::<Vec<_>>());
        format!("no denial of {object} among {all:#?}")
    })?;
    let Line::Finding(found) = line else { anyhow::bail!("{line:?}") };
    Ok(*found)
}

#[test]
fn learned_ratified_denied_frozen_explained_released() -> Result<()> {
    const ALLOWED: &str = "127.72.0.1";
    const OTHER: &str = "127.72.0.2";
    let place = Place::new()?;
    let port = peer(ALLOWED, 0)?;
    peer(OTHER, port)?;
    let mut agent = place.start_with(&["--respond", "medium=freeze", "--respond", "high=freeze"])?;

    // Learned: one tool talks to one host, another to nobody.
    let mut server = Server::start()?;
    let row = known(&place, server.0.pid())?;
    let name = row["name"].as_str().context("a name")?.to_owned();
    for _ in 0..5 {
        ensure!(server.connect("fetch", ALLOWED, port)? == "ok");
        server.0.call("quiet", &json!({"acts": []}))?;
    }
    let enforce = ["mode", name.as_str(), "enforce"];
    let early = place.person(&enforce)?;
    ensure!(early.code == 5 && early.err.contains("not ratified"), "{}: {}", early.code, early.err);
    soon("its calls are learned", || {
        let shown = place.ask(&["baseline", "show", &name, "--format", "json"])?;
        Ok((shown.code == 0 && shown.out.contains(ALLOWED)).then_some(()))
    })?;

    // Ratified, and held to it.
    place.person(&["baseline", "ratify", &name])?.good()?;
    place.person(&enforce)?.good()?;
    let policy = place.ask(&["policy", "show", &name, "--format", "json"])?.json()?;
    ensure!(policy.to_string().contains(ALLOWED), "{policy}");
    ensure!(server.connect("fetch", ALLOWED, port)? == "ok", "what was ratified is denied");

    // Out of line: denied at once, and then frozen, perhaps before it can answer.
    let act = json!({"acts": [{"do": "tcp", "to": format!("{OTHER}:{port}")}]});
    let (bad, request) = server.0.compose("quiet", &act);
    server.0.send(&request)?;
    let found = denial(&agent, &format!("{OTHER}:"))?;
    ensure!(found.scope.tool.as_deref() == Some("quiet"), "{found:#?}");
    println!("{}", found.sentence);
    let line = agent.wait_for(
        patient(8 * SECOND),
        |l| matches!(l, Line::Response(r) if r.action == Action::Freeze && r.verdict == Verdict::Done),
    )?;
    println!("{line:?}");
    let (id, request) = server.0.compose("fetch", &json!({"acts": []}));
    server.0.send(&request)?;
    server.0.patience = Duration::from_millis(700);
    ensure!(server.0.wait(&id).is_err(), "it answers while it is frozen");

    // Explained, and released: what waited is answered, and what it may do it may still.
    soon("the finding is stored", || Ok(place.finding(&found.id).ok()))?;
    let told = place.ask(&["findings", "explain", &found.id])?.good()?;
    ensure!(told.contains("denied in the kernel") && told.contains("quiet"), "{told}");
    ensure!(told.contains("the act was denied") && told.contains("freeze (done)"), "{told}");
    place.person(&["respond", "release", &name])?.good()?;
    server.0.patience = patient(5 * SECOND);
    let reply = server.0.wait(&bad)?;
    ensure!(reply.text() == "[\"EPERM\"]", "another host is not denied: {}", reply.text());
    ensure!(server.0.wait(&id)?.is_ok(), "it is not released");
    ensure!(server.connect("fetch", ALLOWED, port)? == "ok");

    // The next one of it is held from its start, also by the next agent.
    drop(server);
    agent.stop(libc::SIGTERM)?;
    let _agent = place.start()?;
    let mut server = Server::start()?;
    known(&place, server.0.pid())?;
    soon("it is held", || Ok((server.connect("quiet", OTHER, port)? == "EPERM").then_some(())))?;
    // A tool has its rights, not another's.
    ensure!(server.connect("quiet", ALLOWED, port)? == "EPERM", "another tool's right is of use to it");
    ensure!(server.connect("fetch", ALLOWED, port)? == "ok");

    // Back to watch: nothing is denied any more.
    place.person(&["mode", &name, "watch"])?.good()?;
    ensure!(server.connect("quiet", OTHER, port)? == "ok", "it is still held");
    Ok(())
}
