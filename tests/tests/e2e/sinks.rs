//! Events to other systems: what is stored arrives, in order, whoever is killed; and a dead sink holds up nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    client::Client,
    pace::{patient, rounds},
    sys,
};
use serde_json::{Value, json};

use super::place::{Place, SECOND, shell};

/// Calls of a round, each of another tool: each makes a finding, and one in ten a severe one, too.
pub(crate) const CALLS: usize = 40;

/// Every read below `low` and `high` is a finding.
pub(crate) const DENY: &str = "rules:
  - id: low
    severity: low
    deny:
      files:
        read: ['**/sinks-low/**']
  - id: high
    severity: high
    deny:
      files:
        read: ['**/sinks-high/**']
";

/// A server whose tool reads the files of a name.
pub(crate) fn reader(place: &Place) -> Result<Client> {
    let calls = r#"*'"tools/call"'*)
      name=$(printf '%s' "$line" | sed -n 's/.*"file":"n\([0-9]*\)".*/\1/p')
      cat "$1"/sinks-*/"$name" >/dev/null;;"#;
    shell(calls, &[place.path().as_os_str()])
}

pub(crate) fn files(place: &Place) -> Result<()> {
    for (name, every) in [("sinks-low", 1), ("sinks-high", 10)] {
        let dir = place.path().join(name);
        fs::create_dir_all(&dir)?;
        for n in (0..CALLS).step_by(every) {
            fs::write(dir.join(n.to_string()), "x")?;
        }
    }
    Ok(())
}

/// A configuration with these sinks; `@` is the place.
pub(crate) fn configured(place: &Place, sinks: &str) -> Result<String> {
    let path = place.path().join("toolwarden.toml");
    fs::write(&path, sinks.replace('@', place.path().to_str().context("utf-8")?))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
    Ok(path.to_str().context("utf-8")?.to_owned())
}

/// Process of the sinks of this agent.
fn process_of(agent: u32) -> Result<u32> {
    let end = Instant::now() + patient(5 * SECOND);
    loop {
        let children = fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap_or_default();
        let threads = fs::read_dir(format!("/proc/{agent}/task"))?.flatten();
        let all = threads.map(|t| fs::read_to_string(t.path().join("children")).unwrap_or_default());
        for pid in std::iter::once(children)
            .chain(all)
            .flat_map(|c| c.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line == b"toolwarden\0sinks\0" {
                return Ok(pid.parse()?);
            }
        }
        ensure!(Instant::now() < end, "the agent has no process for its sinks");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Events of a file, in order.
pub(crate) fn events(path: &Path) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for n in (0..10).rev() {
        let mut name = path.as_os_str().to_owned();
        if n > 0 {
            name.push(format!(".{n}"));
        }
        for line in fs::read_to_string(&name).unwrap_or_default().lines() {
            all.push(serde_json::from_str(line).with_context(|| format!("half a line: {line}"))?);
        }
    }
    Ok(all)
}

pub(crate) fn state(place: &Place, sink: &str) -> Result<Value> {
    let status = place.ask(&["status", "--format", "json"])?.json()?;
    Ok(status["sinks"]["sinks"][sink].clone())
}

/// Until a sink has everything.
pub(crate) fn drained(place: &Place, sink: &str) -> Result<()> {
    let end = Instant::now() + patient(60 * SECOND);
    // What was found a moment ago is stored first.
    thread::sleep(patient(SECOND));
    loop {
        let state = state(place, sink)?;
        if state["state"] == "working" && state["waiting"] == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{sink}: {state}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Numbers of a boot, without repeats: in order, and none is missing.
pub(crate) fn whole(events: &[Value]) -> Result<u64> {
    let (mut seen, mut last, mut repeats) = (BTreeSet::new(), 0, 0);
    for event in events {
        let number = event["event"]["number"].as_u64().with_context(|| format!("no number: {event}"))?;
        if !seen.insert(number) {
            repeats += 1;
            continue;
        }
        ensure!(number == last + 1, "{number} comes after {last}");
        last = number;
    }
    println!("{last} events, {repeats} came twice");
    Ok(last)
}

/// All that is stored.
pub(crate) fn findings(place: &Place) -> Result<Vec<Value>> {
    let all = place.ask(&["findings", "list", "--all", "--limit", "10000", "--format", "json"])?.json()?;
    Ok(all.as_array().cloned().unwrap_or_default())
}

/// The latest revision of each finding.
fn revisions(findings: impl IntoIterator<Item = Value>) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for f in findings {
        if let (Some(id), Some(revision)) = (f["id"].as_str(), f["revision"].as_u64()) {
            let known = all.entry(id.to_owned()).or_default();
            *known = revision.max(*known);
        }
    }
    all
}

/// Each of these is among those, at least as new.
fn within(these: &BTreeMap<String, u64>, those: &BTreeMap<String, u64>) -> Result<()> {
    let lacking: Vec<_> = these.iter().filter(|(id, revision)| those.get(*id) < Some(revision)).collect();
    ensure!(lacking.is_empty(), "{lacking:?} of {}", these.len());
    Ok(())
}

const SINKS: &str = "[sinks.all]
type = 'file'
path = '@/log/all'
max_bytes = '64KiB'
keep = 1000
[sinks.high]
type = 'file'
path = '@/log/high'
severity = 'high'
types = ['finding']
[sinks.dead]
type = 'file'
path = '/proc/no/such'
";

#[test]
fn nothing_is_lost_whoever_is_killed() -> Result<()> {
    let place = Place::new()?;
    place.rule("deny.yaml", DENY)?;
    let config = configured(&place, &SINKS.replace("keep = 1000", "keep = 9").replace("64KiB", "1GiB"))?;
    let options = ["--config", &config];
    let mut agent = place.start_with(&options)?;
    let mut server = reader(&place)?;
    files(&place)?;
    for round in 0..rounds(8) as u32 {
        let mut ids = Vec::new();
        for n in 0..CALLS {
            let (id, line) = server.compose(&format!("read_{round}_{n}"), &json!({"file": format!("n{n}")}));
            server.send(&line)?;
            ids.push(id);
        }
        // Somewhere within the load.
        thread::sleep(patient(Duration::from_millis(50) * (round % 16)));
        if round % 2 == 0 {
            agent.stop(libc::SIGKILL)?;
            agent = place.start_with(&options)?;
        } else {
            sys::kill(process_of(agent.pid())?, libc::SIGKILL)?;
        }
        for id in &ids {
            server.wait(id)?;
        }
    }
    // Servers of others may be at work on this host: what was stored before has arrived, and what arrived is stored after.
    let before = revisions(findings(&place)?);
    drained(&place, "all")?;
    drained(&place, "high")?;
    let dead = state(&place, "dead")?;
    ensure!(dead["state"] == "failing" && dead["waiting"].as_u64() > Some(0), "{dead}");
    ensure!(dead["because"].as_str().is_some_and(|b| b.contains("/proc/no/such")), "{dead}");

    let all = events(&place.path().join("log/all"))?;
    whole(&all)?;
    let high = events(&place.path().join("log/high"))?;
    let after = findings(&place)?;
    println!("{} findings were stored", before.len());
    ensure!(before.len() >= 2 * CALLS, "the load made {} findings only", before.len());
    let some = place.ask(&["findings", "list", "--all", "--limit", "5"])?;
    ensure!(some.err.contains("more than these 5"), "that there are more is not told: {}", some.err);
    let of = |all: &[Value]| revisions(all.iter().filter(|e| e["type"] == "finding").cloned());
    within(&before, &of(&all)).context("what is stored and did not arrive")?;
    within(&of(&all), &revisions(after.clone())).context("what arrived and is not stored")?;
    ensure!(
        all.iter().all(|e| e["host"]["name"].is_string() && e["event"]["boot"].is_string()),
        "{:?}",
        all.first()
    );
    let severe = |f: &Value| f["severity"] == "high" || f["severity"] == "critical";
    ensure!(
        high.iter().all(|e| e["type"] == "finding" && severe(e)),
        "the sink of severe findings has others"
    );
    let wanted: Vec<Value> = after
        .into_iter()
        .filter(|f| severe(f) && before.contains_key(f["id"].as_str().unwrap_or_default()))
        .collect();
    ensure!(!wanted.is_empty(), "no severe finding");
    let got = of(&high);
    ensure!(wanted.iter().all(|f| f["id"].as_str().is_some_and(|id| got.contains_key(id))), "{got:?}");
    let said: Vec<&str> =
        all.iter().filter_map(|e| (e["type"] == "agent").then(|| e["event"]["uid"].as_str())?).collect();
    ensure!(said.len() >= 5, "each start is told: {said:?}");
    agent.stop(libc::SIGTERM)?;
    Ok(())
}

/// Sinks come, change and go while the agent runs: none lacks anything, and what is wrong changes nothing.
#[test]
fn sinks_change_while_the_agent_runs() -> Result<()> {
    let sink = |name: &str, file: &str| format!("[sinks.{name}]\ntype = 'file'\npath = '@/log/{file}'\n");
    let place = Place::new()?;
    place.rule("deny.yaml", DENY)?;
    let agent = place.start_with(&["--config", &configured(&place, "")?])?;
    let mut server = reader(&place)?;
    files(&place)?;
    let mut round = 0;
    let mut finds = || -> Result<()> {
        round += 1;
        for n in 0..CALLS {
            server.call(&format!("read_{round}_{n}"), &json!({"file": format!("n{n}")}))?;
        }
        Ok(())
    };
    let reload = |sinks: &[String]| -> Result<Value> {
        configured(&place, &sinks.concat())?;
        place.person(&["reload", "--wait", "--format", "json"])?.json()
    };
    let of = |file: &str| events(&place.path().join("log").join(file));
    finds()?;

    // From none to one: what comes from now on.
    let changed = reload(&[sink("a", "a")])?;
    ensure!(changed["settings"] == json!(["sinks.a.path", "sinks.a.type"]), "{changed}");
    ensure!(changed["restart"] == json!([]), "{changed}");
    finds()?;
    drained(&place, "a")?;
    let first = process_of(agent.pid())?;
    ensure!(
        reload(&[sink("a", "a")])?["settings"] == json!([]) && process_of(agent.pid())? == first,
        "for nothing"
    );

    // Another one, and the first elsewhere, while there is work.
    let busy = thread::spawn({
        let mut other = reader(&place)?;
        move || -> Result<()> {
            for n in 0..3 * CALLS {
                other.call(&format!("busy_{n}"), &json!({"file": format!("n{}", n % CALLS)}))?;
            }
            Ok(())
        }
    });
    reload(&[sink("a", "a2"), sink("b", "b")])?;
    busy.join().map_err(|_panic| anyhow::anyhow!("the load panicked"))??;
    finds()?;
    drained(&place, "a")?;
    drained(&place, "b")?;
    let all = [of("a")?, of("a2")?].concat();
    let end = whole(&all)?;
    ensure!(of("a")?.len() > CALLS && of("a2")?.len() > CALLS, "one of its files has next to nothing");
    let later = of("b")?;
    let begin = later.first().context("nothing")?["event"]["number"].as_u64().context("a number")?;
    ensure!(begin > 1 && later.len() as u64 >= end - begin, "{} events from {begin} to {end}", later.len());

    // Wrong ones change nothing; one that goes is not spoken of any more, and without any there is no process.
    let path = configured(&place, "[sinks.b]\ntype = 'fil'\n")?;
    let wrong = place.person(&["reload", "--wait"])?;
    ensure!(wrong.code == 5 && wrong.err.contains(&path), "{}", wrong.err);
    finds()?;
    drained(&place, "a")?;
    reload(&[sink("b", "b")])?;
    super::place::soon("it is gone", || Ok(state(&place, "a")?.is_null().then_some(())))?;
    reload(&[])?;
    let status = place.ask(&["status", "--format", "json"])?.json()?;
    ensure!(status["sinks"] == json!({}), "{}", status["sinks"]);
    super::place::soon("the process is gone", || {
        Ok(fs::read_to_string(format!("/proc/{first}/comm")).is_err().then_some(()))
    })
}
