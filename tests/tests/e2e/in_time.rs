//! How long it takes until a server that steps out of line does nothing any more. It counts all the time that it runs, in
//! memory that this process reads: the last number is its last instruction.

use std::{
    io::Write as _,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    pace::patient,
    scenario::program,
    sys::{self, Pidfd},
};
use engine::{
    output::Line,
    respond::{Action, ResponseLine, Verdict},
};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{
    place::{Place, SECOND, soon},
    story::known,
};

/// Nobody is there, and the kernel lets nobody try.
const DENIED: &str = "127.75.0.2:7";
/// As in `contained`.
const RAN: usize = 0;
const ACTED: usize = 1;
/// Who counts and has not for this long stands still, also on a busy machine.
const STILL: Duration = Duration::from_millis(150);

fn rounds() -> u32 {
    e2e::pace::rounds(10) as u32
}

/// A server of the same name with another digest: it is held to what the first one was ratified for, and what is done about
/// it is counted for itself, because that is limited.
fn server(place: &Place, n: &str) -> Result<Client> {
    let dir = place.path().join(n);
    std::fs::create_dir(&dir)?;
    let to = dir.join("victim");
    std::fs::copy(program("contained")?, &to)?;
    std::fs::OpenOptions::new().append(true).open(&to)?.write_all(n.as_bytes())?;
    Client::start(Command::new(to), Manner::default())
}

/// Each act that the rule names has the response. It names nothing that another server of this host does.
fn enforcing(place: &Place, response: &str) -> Result<Agent> {
    let watched = place.path().join("watched/**");
    let rule = json!({"rules": [{"id": "in-time", "response": [response], "deny": {
        "files": {"read": [watched]}, "network": {"connect": [DENIED]}}}]});
    place.rule("in-time.yaml", &rule.to_string())?;
    let agent = place.start()?;
    let mut first = server(place, "first")?;
    let row = known(place, first.pid())?;
    let identity = row["identity"].as_str().context("an identity")?.to_owned();
    for _ in 0..5 {
        first.call("quiet", &json!({"acts": []}))?;
        thread::sleep(Duration::from_millis(30));
    }
    drop(first);
    soon("it is learned", || {
        let all = place.ask(&["baseline", "list", "--format", "json"])?.json()?;
        let is = |b: &Value| b["identity"] == identity.as_str() && b["sessions"] == 1;
        Ok(all.as_array().is_some_and(|a| a.iter().any(is)).then_some(()))
    })?;
    place.person(&["baseline", "ratify", &identity])?.good()?;
    place.person(&["mode", "victim", "enforce"])?.good()?;
    Ok(agent)
}

/// Waits until nothing of it runs any more; gives when it did last.
fn stands_still(ran: &AtomicU64) -> Result<u64> {
    let end = Instant::now() + patient(8 * SECOND);
    let mut last = (ran.load(Ordering::Relaxed), Instant::now());
    while last.1.elapsed() < STILL {
        ensure!(Instant::now() < end, "it goes on");
        thread::sleep(Duration::from_millis(1));
        let now = ran.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    Ok(last.0)
}

/// What one round gives, ns.
struct Round {
    /// From the act to the last instruction of anybody of the tree.
    stopped: u64,
    /// From the finding to the return of the last signal.
    signalled: u64,
    /// From the act to the end of the process, as the kernel tells it.
    ended: Option<u64>,
}

fn round(place: &Place, agent: &Agent, action: Action, act: &Value, n: u32) -> Result<Round> {
    let mut client = server(place, &format!("{}-{n}", act["do"].as_str().unwrap_or_default()))?;
    known(place, client.pid())?;
    let id = agent.server(client.pid())?.server.id.clone();
    let file = place.path().join(format!("shared-{n}"));
    let numbers = sys::shared(&file)?;
    let spin = json!({"acts": [{"do": "spin", "file": file}]});
    ensure!(client.call("quiet", &spin)?.1.is_ok(), "it does not count");
    thread::sleep(Duration::from_millis(30));
    let acts = json!([{"do": "marked", "file": file, "act": act}]);
    let pid = Pidfd::open(client.pid())?;
    let (_, line) = client.compose("quiet", &json!({"acts": acts}));
    let waits = (action == Action::KillServer).then(|| thread::spawn(move || pid.ended(8000)));
    client.send(&line)?;
    let ran = stands_still(&numbers[RAN])?;
    let acted = numbers[ACTED].load(Ordering::Relaxed);
    let is = |r: &ResponseLine| r.server.id == id && r.action == action;
    let line = agent.wait_for(patient(8 * SECOND), |l| matches!(l, Line::Response(r) if is(r)))?;
    let Line::Response(told) = line else { anyhow::bail!("{line:?}") };
    ensure!(matches!(told.verdict, Verdict::Done | Verdict::Partly), "{told:?}");
    // It may be stopped within the act: then that was its last instruction.
    ensure!(acted > 0 && acted < ran + 1_000_000_000, "it did not act, or did not count: {told:?}");
    let stopped = ran.saturating_sub(acted);
    let ended = match waits.map(thread::JoinHandle::join) {
        Some(at) => Some(at.map_err(|_panic| anyhow::anyhow!("a thread panicked"))??.saturating_sub(acted)),
        None => None,
    };
    if action == Action::Freeze {
        // For good, not only late: it runs again when it is let go.
        ensure!(numbers[RAN].load(Ordering::Relaxed) == ran, "it ran on");
    }
    Ok(Round { stopped, signalled: told.took_ns, ended })
}

fn told(what: &str, all: &Histogram<u64>) {
    let ms = |ns: u64| ns as f64 / 1e6;
    println!(
        "{what}: p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms ({} rounds)",
        ms(all.value_at_quantile(0.5)),
        ms(all.value_at_quantile(0.99)),
        ms(all.max()),
        all.len()
    );
}

fn load() -> String {
    let text = std::fs::read_to_string(Path::new("/proc/loadavg")).unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// `E2E_ROUNDS=200` measures it; how long it takes on a busy machine has no limit, so only that it happens is asserted, and
/// that the middle of all rounds is not far off.
fn measure(response: &str, action: Action) -> Result<()> {
    let place = Place::new()?;
    std::fs::create_dir(place.path().join("watched"))?;
    std::fs::write(place.path().join("watched/secret"), "secret")?;
    let agent = enforcing(&place, response)?;
    let read = json!({"do": "file-read", "path": place.path().join("watched/secret")});
    let connect = json!({"do": "tcp", "to": DENIED});
    for (what, act) in [("a denied act", &connect), ("an act that is only seen", &read)] {
        let new = || Histogram::<u64>::new(3);
        let (mut stopped, mut signalled, mut ended) = (new()?, new()?, new()?);
        for n in 0..rounds() {
            let r = round(&place, &agent, action, act, n).with_context(|| format!("round {n}"))?;
            stopped.record(r.stopped)?;
            signalled.record(r.signalled)?;
            if let Some(ns) = r.ended {
                ended.record(ns)?;
            }
        }
        println!("{response} after {what}, load {}:", load());
        told("  finding to the last signal delivered", &signalled);
        told("  act to the last instruction", &stopped);
        if !ended.is_empty() {
            told("  act to the end of the process", &ended);
        }
        let middle = Duration::from_nanos(stopped.value_at_quantile(0.5));
        ensure!(middle < patient(Duration::from_millis(100)), "{middle:?} in the middle of all rounds");
    }
    Ok(())
}

#[test]
fn who_is_killed_runs_no_further() -> Result<()> {
    measure("kill", Action::KillServer)
}

#[test]
fn who_is_frozen_runs_no_further() -> Result<()> {
    measure("freeze", Action::Freeze)
}
