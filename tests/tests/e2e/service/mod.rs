//! The agent as a service: what it tells the service manager, what it may do, and its numbers.

mod manager;
mod metrics;
mod unit;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{agent, client::Manner, pace::patient, scenario::Oracle, sys, world::World};
use serde_json::Value;

use super::place::{Place, SECOND, said, soon};

/// What the oracle's tool `open_read` does is a finding.
const DENY: &str = "rules:\n  - id: no-reading\n    severity: high\n    deny:\n      files:\n        read: ['**/service/**']\n";

/// A running agent that was started by hand. Dropped, it is stopped.
struct Running {
    child: Child,
    errors: PathBuf,
}

impl Running {
    /// `under`: a program that becomes the agent.
    fn start(place: &Place, under: &[&str], config: &str, envs: &[(&str, &str)]) -> Result<Self> {
        let errors = place.path().join("errors");
        let dir = |name: &str| place.path().join(name);
        let program = place.program().to_str().context("utf-8")?;
        let words = [under, &[program]].concat();
        let (first, rest) = words.split_first().context("a program")?;
        let mut command = Command::new(first);
        command.args(rest).args(["run", "--print", "none", "--config"]).arg(configured(place, config)?);
        command.arg("--state-dir").arg(dir("state")).arg("--control").arg(dir("control.sock"));
        command.arg("--guard").arg(dir("agent.lock")).arg("--pin-dir").arg(agent::pins(place.path()));
        command.arg("--rules").arg(dir("rules")).envs(envs.iter().copied());
        let child = command.stdin(Stdio::null()).stderr(fs::File::create(&errors)?).spawn()?;
        Ok(Self { child, errors })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Until the control socket answers, which it does when the agent watches, and the first server is watched from its first word.
    fn answers(&mut self, place: &Place) -> Result<Value> {
        let end = Instant::now() + patient(20 * SECOND);
        loop {
            let status = place.ask(&["status", "--format", "json"])?;
            if status.code == 0 {
                agent::warm()?;
                return status.json();
            }
            if let Some(ended) = self.child.try_wait()? {
                bail!("the agent ended ({ended}): {}", self.errors());
            }
            ensure!(Instant::now() < end, "the agent does not answer: {}{}", status.err, self.errors());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(&mut self) -> Result<i32> {
        sys::kill(self.pid(), libc::SIGTERM)?;
        // Less than TimeoutStopSec= of the unit; on a disk that others keep busy, each word of the state takes seconds.
        let end = Instant::now() + patient(40 * SECOND);
        while Instant::now() < end {
            if let Some(ended) = self.child.try_wait()? {
                return ended.code().context("ended by a signal");
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("it does not stop")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) && self.stop().is_err() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn configured(place: &Place, text: &str) -> Result<PathBuf> {
    let path = place.path().join("toolwarden.toml");
    fs::write(&path, text.replace('@', place.path().to_str().context("utf-8")?))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
    Ok(path)
}

const QUIET: &str = "[metrics]\nlisten = 'off'\n";

#[test]
fn what_hooks_cost() -> Result<()> {
    let (world, place) = (World::new()?, Place::new()?);
    let mut agent = Running::start(&place, &[], QUIET, &[])?;
    agent.answers(&place)?;
    let mut oracle = Oracle::start(&world, "service", Manner::default())?;
    oracle.call("open_read")?;
    let worker = thread::spawn(move || {
        let end = Instant::now() + patient(3 * SECOND);
        while Instant::now() < end && oracle.call("open_read").is_ok() {}
    });
    let costs = place.ask(&["profile", "--seconds", "2", "--format", "json"])?.json()?;
    ensure!(worker.join().is_ok(), "the calls");
    let hooks = costs["hooks"].as_array().cloned().unwrap_or_default();
    let exits = hooks.iter().find(|h| h["hook"] == "sys_exit").with_context(|| costs.to_string())?;
    ensure!(exits["runs"].as_u64() > Some(100) && exits["ns_per_run"].as_f64() > Some(1.0), "{exits}");
    ensure!(costs["of_one_cpu"].as_f64().is_some_and(|s| s > 0.0 && s < 2.0), "{costs}");
    let table = place.ask(&["profile", "--seconds", "1"])?.good()?;
    println!("{table}");
    ensure!(table.contains("NS PER RUN") && table.contains("of one CPU"), "{table}");
    ensure!(agent.stop()? == 0, "{}", agent.errors());
    Ok(())
}

/// Who looks on sees what goes by; a detection goes all the way to the sinks that work, and is told of those that do not.
#[test]
fn watched_and_tested() -> Result<()> {
    let (world, place) = (World::new()?, Place::new()?);
    place.rule("deny.yaml", DENY)?;
    fs::create_dir(place.path().join("log"))?;
    fs::set_permissions(place.path().join("log"), fs::Permissions::from_mode(0o777))?;
    let config = format!("{QUIET}[sinks.file]\ntype = 'file'\npath = '@/log/events'\n");
    let mut agent = Running::start(&place, &[], &config, &[])?;
    agent.answers(&place)?;
    let seen = place.path().join("seen");
    let mut watch =
        place.command(&["watch", "--type", "finding", "--severity", "high", "--format", "ndjson"]);
    let mut watch = watch.stdout(fs::File::create(&seen)?).spawn()?;
    let mut oracle = Oracle::start(&world, "service", Manner::default())?;
    oracle.call("open_read")?;
    let line = soon("it is seen", || {
        Ok(fs::read_to_string(&seen)?.lines().find(|l| l.contains("no-reading")).map(str::to_owned))
    });
    let told = place.ask(&["selftest", "--format", "json"])?;
    watch.kill()?;
    watch.wait()?;
    let line: Value = serde_json::from_str(&line?)?;
    ensure!(line["type"] == "finding" && line["severity"] == "high", "{line}");
    let all = fs::read_to_string(&seen)?;
    ensure!(
        all.lines().all(|l| l.starts_with("{\"type\":\"finding\"") || l.contains("\"type\":\"finding\"")),
        "{all}"
    );

    ensure!(told.code == 0, "{}: {}{}", told.code, told.out, told.err);
    let told = told.json()?;
    println!("{told}");
    let id = told["finding"].as_str().context("a finding")?;
    let file = fs::read_to_string(place.path().join("log/events"))?;
    ensure!(file.contains(id), "the sink has not {id}");
    let steps = told["steps"].as_array().cloned().unwrap_or_default();
    let ok = |of: &str| steps.iter().any(|s| s["of"] == of && s["state"] == "ok");
    ensure!(ok("detection") && ok("sink file"), "{steps:?}");
    ensure!(agent.stop()? == 0, "{}", agent.errors());

    let dead = format!("{config}[sinks.dead]\ntype = 'file'\npath = '/proc/no/such'\n");
    let mut agent = Running::start(&place, &[], &dead, &[])?;
    agent.answers(&place)?;
    let told = place.ask(&["selftest"])?;
    println!("{}", told.out);
    ensure!(
        told.code == 1 && told.out.contains("/proc/no/such") && told.out.contains("sink file"),
        "{}",
        told.out
    );
    ensure!(agent.stop()? == 0, "{}", agent.errors());
    Ok(())
}

#[test]
fn completions_are_scripts() -> Result<()> {
    let place = Place::new()?;
    let mut command = Command::new(place.program());
    command.args(["completions", "bash"]);
    let script = said(command)?.good()?;
    ensure!(script.contains("ratify") && !script.contains("selftest-server"), "{} bytes", script.len());
    let mut shell = Command::new("bash");
    shell.args(["-n", "-c", &script]);
    ensure!(said(shell)?.code == 0, "bash does not understand it");
    Ok(())
}

/// Verbs that ask no agent print rows as well, one JSON document a line.
#[test]
fn what_asks_no_agent_prints_lines_too() -> Result<()> {
    let place = Place::new()?;
    place.rule("deny.yaml", DENY)?;
    let rules = place.path().join("rules");
    let rules = rules.to_str().context("utf-8")?;
    let config = configured(&place, "[metrics]\nlisten = 'off'\n")?;
    let config = config.to_str().context("utf-8")?;
    let explain = ["rules", "explain", "--server", "git", "--tool", "log", "read=/x/service/y", rules];
    for (verb, key) in [
        (&["rules", "list", rules][..], "id"),
        (&["rules", "check", rules], "rules"),
        (&["rules", "lint", rules], "message"),
        (&explain[..], "verdict"),
        (&["config", "check", "--config", config], "files"),
        (&["config", "show", "--effective", "--config", config], "key"),
        (&["doctor"], "type"),
    ] {
        let said = place.ask_alone(&[verb, &["--format", "ndjson"]].concat())?;
        let mut lines = 0;
        for line in said.out.lines() {
            let row: Value = serde_json::from_str(line).with_context(|| format!("{verb:?}: {line}"))?;
            ensure!(row.get(key).is_some(), "{verb:?} has no `{key}`: {row}");
            lines += 1;
        }
        ensure!(lines > 0, "{verb:?}: {} {}", said.code, said.err);
    }
    let doctor = place.ask_alone(&["doctor", "--format", "ndjson"])?.out;
    let last: Value = serde_json::from_str(doctor.lines().last().context("no line")?)?;
    ensure!(last["type"] == "outcome" && last["outcome"].is_string(), "{last}");
    ensure!(doctor.lines().any(|l| l.contains("\"type\":\"hook\"")), "{doctor}");
    Ok(())
}
