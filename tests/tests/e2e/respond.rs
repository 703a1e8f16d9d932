//! Servers are stopped, go on, and end: by people, by time, and when the agent is gone.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    scenario::Oracle,
    world::World,
};
use engine::{
    output::Line,
    respond::{Action, Cause, ResponseLine, Verdict},
};
use serde_json::{Value, json};

use super::place::{Place, SECOND, Said, soon};

const MS: Duration = Duration::from_millis(1);

/// A person at a shell that no MCP client started, for many verbs.
pub(crate) struct Operator {
    dir: tempfile::TempDir,
    to: fs::File,
    shell: Child,
    next: u64,
}

impl Operator {
    pub(crate) fn new(place: &Place) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let pipe = dir.path().join("verbs");
        ensure!(Command::new("mkfifo").arg(&pipe).status()?.success(), "mkfifo");
        // It works when its parent has gone.
        let script = r#"d=$1; ( sleep 0.2; while read -r n verb; do "$2" $verb --control "$3" >"$d/$n.out" 2>"$d/$n.err" </dev/null; echo $? >"$d/$n.new"; mv "$d/$n.new" "$d/$n.rc"; done <"$d/verbs" ) >/dev/null 2>&1 &"#;
        let mut sh = Command::new("setsid");
        sh.args(["sh", "-c", script, "sh"]).arg(dir.path()).arg(place.program());
        sh.arg(place.path().join("control.sock")).stdin(Stdio::null());
        let mut shell = sh.spawn()?;
        ensure!(shell.wait()?.success(), "sh");
        let to = fs::OpenOptions::new().write(true).open(&pipe)?;
        Ok(Self { dir, to, shell, next: 0 })
    }

    pub(crate) fn says(&mut self, verb: &str) -> Result<Said> {
        self.next += 1;
        let at = |end: &str| self.dir.path().join(format!("{}.{end}", self.next));
        writeln!(self.to, "{} {verb}", self.next)?;
        let end = Instant::now() + 20 * SECOND;
        while !at("rc").exists() {
            ensure!(Instant::now() < end, "{verb} does not end");
            std::thread::sleep(MS);
        }
        let text = |end: &str| fs::read_to_string(at(end));
        Ok(Said { code: text("rc")?.trim().parse()?, out: text("out")?, err: text("err")? })
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // The shell that reads ends with its input; this one has ended already.
        drop(self.shell.wait());
    }
}

/// Its cgroups, in all hierarchies.
pub(crate) fn places(pid: u32) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/cgroup"))?)
}

/// Directories of ours that hold something of this server.
fn left(id: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let cgroups = mounts.lines().filter_map(|l| {
        let mut words = l.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        kind.starts_with("cgroup").then(|| Path::new(at).join("toolwarden"))
    });
    let entries = cgroups.flat_map(|at| fs::read_dir(at).into_iter().flatten().flatten());
    entries.map(|e| e.path()).filter(|p| p.to_string_lossy().ends_with(&format!("-{id}"))).collect()
}

fn response(agent: &Agent, wanted: impl Fn(&ResponseLine) -> bool) -> Result<ResponseLine> {
    let line = agent.wait_for(8 * SECOND, |l| matches!(l, Line::Response(r) if wanted(r)))?;
    let Line::Response(r) = line else { anyhow::bail!("{line:?}") };
    Ok(*r)
}

/// A server that answers everything, of one process.
fn server() -> Result<Client> {
    let script = r#"while read -r line; do id=${line#*\"id\":}; id=${id%%[,\}]*}; case $line in *'"id"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id";; esac; done"#;
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Client::start(command, Manner::default())
}

/// Whether a call is answered now.
fn answers(client: &mut Client) -> Result<bool> {
    let (id, line) = client.compose("noop", &json!({}));
    client.send(&line)?;
    client.patience = 700 * MS;
    Ok(client.wait(&id).is_ok())
}

/// Waits until it is known who a server is.
pub(crate) fn known(place: &Place, pid: u32) -> Result<()> {
    soon("it is known who it is", || {
        let all = place.ask(&["servers", "--format", "json"])?.json()?;
        let is = |s: &Value| s["pid"] == pid && s["identity"].as_str().is_some_and(|i| !i.is_empty());
        Ok(all.as_array().is_some_and(|a| a.iter().any(is)).then_some(()))
    })
}

#[test]
fn people_freeze_release_and_end_servers() -> Result<()> {
    let place = Place::new()?;
    let agent = place.start()?;
    let mut person = Operator::new(&place)?;
    let mut client = server()?;
    let pid = client.pid();
    known(&place, pid)?;
    let server = agent.server(pid)?;
    let (id, name) = (server.server.id.as_str(), server.server.name.as_str());
    let before = places(pid)?;

    // Its own client, and what that started, may not.
    let refused = place.ask(&["respond", "freeze", name])?;
    ensure!(refused.code == 4 && refused.err.contains("MCP client"), "{}: {}", refused.code, refused.err);
    let none = person.says("respond freeze nobody")?;
    ensure!(none.code == 1 && none.err.contains("nobody"), "{}: {}", none.code, none.err);
    let usage = person.says(&format!("respond freeze {name} --for ever"))?;
    ensure!(usage.code == 2, "{}: {}", usage.code, usage.err);
    let cut = person.says(&format!("respond cut {name}"))?;
    let cut = cut.good()?;
    ensure!(cut.contains("network"), "{cut}");
    ensure!(answers(&mut client)?, "it does not answer on its channel while its network is cut off");
    person.says(&format!("respond release {name}"))?.good()?;

    let dry = person.says(&format!("respond kill {name} --dry-run"))?.good()?;
    ensure!(dry.contains("would end 1 processes"), "{dry}");
    ensure!(places(pid)? == before && answers(&mut client)?, "a dry run did something");

    let said = person.says(&format!("respond freeze {name} --for 5m"))?.good()?;
    ensure!(said.contains("1 processes stand still"), "{said}");
    ensure!(places(pid)?.contains(&format!("-{id}")) && left(id).len() == 1, "{}", places(pid)?);
    ensure!(!answers(&mut client)?, "it answers while it is frozen");
    let status = place.ask(&["status", "--format", "json"])?.json()?;
    ensure!(status["responses"]["held"][0]["in_force"] == json!(["freeze"]), "{status}");

    let said = person.says(&format!("respond release {name}"))?.good()?;
    ensure!(said.contains("1 processes are where they were"), "{said}");
    ensure!(places(pid)? == before && left(id).is_empty(), "{}", places(pid)?);
    ensure!(answers(&mut client)?, "it does not answer again");

    let said = person.says(&format!("respond throttle {name}"))?.good()?;
    ensure!(said.contains("cpu 10 %") && said.contains("network"), "{said}");
    ensure!(answers(&mut client)?, "it does not answer while it is throttled");
    person.says(&format!("respond release {name}"))?.good()?;
    ensure!(places(pid)? == before && left(id).is_empty(), "{}", places(pid)?);

    let all = soon("responses are stored", || {
        let all = place.ask(&["responses", "list", "--format", "json"])?.json()?;
        Ok((all.as_array().is_some_and(|a| a.len() >= 7)).then_some(all))
    })?;
    let actions: Vec<&str> =
        all.as_array().into_iter().flatten().filter_map(|r| r["action"].as_str()).collect();
    ensure!(
        actions == ["release", "throttle", "release", "freeze", "kill-server", "release", "cut-network"],
        "latest first: {actions:?}"
    );
    let freeze = &all[3];
    ensure!(
        freeze["verdict"] == "done" && freeze["cause"] == json!({"by": "person", "who": "uid 0"}),
        "{freeze}"
    );
    ensure!(all[6]["verdict"] == "done" && all[4]["verdict"] == "would", "{all}");
    let shown = place.ask(&["responses", "show", freeze["id"].as_str().context("id")?])?.good()?;
    ensure!(shown.contains("stand still") && shown.contains("respond release"), "{shown}");
    ensure!(place.ask(&["responses", "show", "beef"])?.code == 1, "there is such a response");

    ends_and_stays_quarantined(&agent, &mut person, client, name)?;
    let trail = place.ask(&["audit", "--format", "json"])?.json()?;
    let audited = |outcome: &str| {
        let is = |r: &Value| {
            r["verb"] == "respond" && r["outcome"].as_str().is_some_and(|o| o.starts_with(outcome))
        };
        trail.as_array().is_some_and(|rows| rows.iter().any(is))
    };
    ensure!(audited("ok") && audited("refused") && audited("failed"), "{trail}");
    Ok(())
}

/// Who was killed is frozen when its client starts it again, until a person lets it.
fn ends_and_stays_quarantined(
    agent: &Agent,
    person: &mut Operator,
    mut client: Client,
    name: &str,
) -> Result<()> {
    let said = person.says(&format!("respond kill {name}"))?.good()?;
    ensure!(said.contains("1 processes got a SIGKILL"), "{said}");
    soon("it ends", || client.ended())?;
    let mut again = server()?;
    let frozen = response(agent, |r| matches!(r.cause, Cause::Quarantine { .. }))?;
    ensure!(frozen.action == Action::Freeze && frozen.verdict == Verdict::Done, "{frozen:?}");
    let Cause::Quarantine { starts: 1, before, .. } = &frozen.cause else { anyhow::bail!("{frozen:?}") };
    println!("frozen at its start; before that, {before}");
    ensure!(!answers(&mut again)?, "it answers in quarantine");
    person.says(&format!("respond release {}", frozen.server.id))?.good()?;
    ensure!(answers(&mut again)?, "it does not answer when it is let go");
    // It may start again.
    drop(again);
    let mut free = server()?;
    agent.server(free.pid())?;
    std::thread::sleep(SECOND);
    ensure!(answers(&mut free)?, "the quarantine was lifted");
    Ok(())
}

#[test]
fn a_freeze_ends_in_time_although_the_agent_was_killed() -> Result<()> {
    let place = Place::new()?;
    let mut agent = place.start()?;
    let mut person = Operator::new(&place)?;
    let mut client = server()?;
    let pid = client.pid();
    known(&place, pid)?;
    let server = agent.server(pid)?;
    let (id, before) = (server.server.id.as_str(), places(pid)?);
    person.says(&format!("respond freeze {id} --for 3s"))?.good()?;
    let began = Instant::now();
    agent.stop(libc::SIGKILL)?;
    ensure!(!answers(&mut client)?, "it answers while it is frozen");
    while places(pid)? != before {
        ensure!(began.elapsed() < 10 * SECOND, "nobody released it: {}", places(pid)?);
        std::thread::sleep(10 * MS);
    }
    println!("released {:.1} s after the freeze, which was for 3 s", began.elapsed().as_secs_f64());
    ensure!(began.elapsed() > 2 * SECOND, "too early");
    ensure!(answers(&mut client)?, "it does not answer");
    soon("the watchdog leaves nothing", || {
        let dir = place.path().join("state/contain");
        let records =
            fs::read_dir(dir)?.flatten().filter(|e| e.file_name().to_string_lossy().ends_with("json"));
        Ok((records.count() == 0 && left(id).is_empty()).then_some(()))
    })?;
    soon("it ends when nothing is left", || Ok(watchdogs(&place).is_empty().then_some(())))?;

    // What an agent held that was killed, the next one releases when it is asked to, or stops.
    let agent = place.start()?;
    ensure!(answers(&mut client)?, "it does not answer");
    let id = agent.server(pid)?.server.id.clone();
    person.says(&format!("respond freeze {id} --for 5m"))?.good()?;
    ensure!(watchdogs(&place).len() == 1, "{:?}", watchdogs(&place));
    let mut agent = agent;
    agent.stop(libc::SIGKILL)?;
    let mut agent = place.start()?;
    person.says(&format!("respond release {}", server.server.name))?.good()?;
    ensure!(places(pid)? == before, "{}", places(pid)?);
    ensure!(answers(&mut client)?, "it does not answer");
    let id = agent.server(pid)?.server.id.clone();
    person.says(&format!("respond freeze {id} --for 5m"))?.good()?;
    agent.stop(libc::SIGINT)?;
    ensure!(places(pid)? == before && left(&id).is_empty(), "a clean stop left it frozen: {}", places(pid)?);
    ensure!(answers(&mut client)?, "it does not answer");
    Ok(())
}

/// Processes that watch over this place.
fn watchdogs(place: &Place) -> Vec<u32> {
    let state = place.path().join("state");
    let is = |pid: &u32| {
        let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.contains("watchdog") && text.contains(&*state.to_string_lossy())
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(is).collect()
}

#[test]
fn disarmed_nothing_is_done() -> Result<()> {
    let place = Place::new()?;
    let agent = place.start()?;
    let mut person = Operator::new(&place)?;
    let mut client = server()?;
    let pid = client.pid();
    known(&place, pid)?;
    let (id, before) = (agent.server(pid)?.server.id.clone(), places(pid)?);
    person.says(&format!("respond freeze {id} --for 0"))?.good()?;
    ensure!(places(pid)? != before, "it is not frozen");
    ensure!(place.ask(&["disarm"])?.code == 4, "an MCP client disarms");
    person.says("disarm")?.good()?;
    let released = response(&agent, |r| r.cause == Cause::Disarmed)?;
    // The watchdog may have been faster.
    ensure!(matches!(released.verdict, Verdict::Done | Verdict::Nothing), "{released:?}");
    ensure!(places(pid)? == before, "{}", places(pid)?);
    ensure!(answers(&mut client)?, "it does not answer");
    let refused = person.says(&format!("respond kill {id}"))?;
    ensure!(refused.code == 5 && refused.err.contains("disarmed"), "{}: {}", refused.code, refused.err);
    person.says("arm")?.good()?;
    soon("it is armed again", || {
        let said = person.says(&format!("respond freeze {id}"))?;
        Ok((said.code == 0).then_some(()))
    })?;
    person.says(&format!("respond release {id}"))?.good()?;
    ensure!(answers(&mut client)?, "it does not answer");
    Ok(())
}

const RULE: &str = "rules:\n  - id: no-reading\n    response: [kill]\n    deny:\n      files:\n        read: ['**/watched/**']\n";

#[test]
fn in_mode_watch_a_finding_tells_what_would_be_done() -> Result<()> {
    let (world, place) = (World::new()?, Place::new()?);
    place.rule("kill.yaml", RULE)?;
    let agent = place.start()?;
    let mut oracle = Oracle::start(&world, "watched", Manner::default())?;
    oracle.call("open_read")?;
    let told = response(&agent, |r| r.dry_run)?;
    ensure!(told.verdict == Verdict::Would && told.action == Action::KillServer, "{told:?}");
    let Cause::Finding { finding, rule: Some(rule), .. } = &told.cause else { anyhow::bail!("{told:?}") };
    ensure!(rule == "no-reading", "{rule}");
    soon("its finding is stored", || Ok(place.finding(finding).ok()))?;
    oracle.call("open_read").context("it was ended")?;
    Ok(())
}

fn percentile(times: &mut [u64], p: usize) -> f64 {
    times.sort_unstable();
    times.get((times.len().max(1) - 1) * p / 100).copied().unwrap_or(u64::MAX) as f64 / 1e6
}

/// Every one is carried out. How long that takes in the agent, from the engine's order to the return of the system call
/// that has effect, is printed: `E2E_ROUNDS=200` measures it. A busy host makes it slower without end, so no limit is set.
#[test]
fn every_response_is_carried_out() -> Result<()> {
    let rounds = e2e::pace::rounds(30);
    let place = Place::new()?;
    let agent = place.start()?;
    let mut person = Operator::new(&place)?;
    for _ in 0..rounds {
        let client = server()?;
        let id = agent.server(client.pid())?.server.id.clone();
        person.says(&format!("respond freeze {id}"))?.good()?;
        // 0: it may start again.
        person.says(&format!("respond kill {id} --for 0"))?.good()?;
    }
    let lines = agent.lines()?;
    let took = |action: Action| -> Result<(f64, f64)> {
        let of = |p: &e2e::agent::Printed| match &p.line {
            Line::Response(r) if r.action == action && r.verdict == Verdict::Done => Some(r.took_ns),
            _ => None,
        };
        let mut times: Vec<u64> = lines.iter().filter_map(of).collect();
        // A process may be in the middle of a system call; a round that is only partly done has no time.
        ensure!(times.len() * 10 >= rounds * 9, "{} of {rounds} were done", times.len());
        Ok((percentile(&mut times, 50), percentile(&mut times, 99)))
    };
    let ((freeze, freeze99), (kill, kill99)) = (took(Action::Freeze)?, took(Action::KillServer)?);
    println!(
        "{rounds} rounds: to SIGKILL p50 {kill:.3} ms, p99 {kill99:.3} ms; to standing still p50 {freeze:.3} ms, \
         p99 {freeze99:.3} ms"
    );
    Ok(())
}
