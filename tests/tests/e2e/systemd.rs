//! Where systemd is process 1: servers live in scopes, and the controllers of cgroup v2 are real.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    not_tested,
    pace::patient,
    scenario::{Oracle, program},
    world::World,
};
use engine::output::Effect;
use serde_json::json;

use super::{
    place::{Place, SECOND, soon},
    respond::{Operator, known, places},
};

const SCOPE: &str = "toolwarden-e2e.scope";

/// Whether systemd is process 1 and answers. Where it is not, nobody must listen where it would, or the test fails.
pub(crate) fn booted() -> Result<bool> {
    let first = fs::read_to_string("/proc/1/comm")?;
    let first = first.trim();
    let Err(e) = UnixStream::connect("/run/systemd/private") else {
        ensure!(first == "systemd", "systemd answers, and process 1 is {first}");
        return Ok(true);
    };
    ensure!(
        first != "systemd" && e.raw_os_error() == Some(libc::ENOENT),
        "process 1 is {first}, and systemd does not answer: {e}"
    );
    not_tested(&format!("scopes: process 1 is {first}, and where systemd would answer: {e}"));
    Ok(false)
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
    // systemd-run moves into the scope and becomes the server: the command line is what the client started.
    ensure!(server.pid == server.root_pid, "{server:?}");
    ensure!(server.argv.first().is_some_and(|a| a.ends_with("systemd-run")), "{:?}", server.argv);
    agent.settle(Duration::from_millis(300));
    let opened =
        agent.observed(&server.server.id)?.effects.into_iter().find(|e| {
            matches!(&*e.effect, Effect::Open { .. }) && e.scope.tool.as_deref() == Some("open_read")
        });
    let process = opened.context("what the tool opened is not seen")?.process;
    let exe = process.exe.as_deref().unwrap_or_default();
    ensure!(process.pid == client.pid() && exe.ends_with("/oracle"), "{process:?}");

    let groups = fs::read_to_string(format!("/proc/{}/cgroup", client.pid()))?;
    let group = groups.lines().find_map(|l| l.strip_prefix("0::/")).context("no v2 group")?;
    ensure!(group.ends_with(SCOPE), "{group}");
    let limit = |file: &str| fs::read_to_string(root.join(group).join(file));
    ensure!(limit("cpu.max")?.trim() == "20000 100000", "{}", limit("cpu.max")?);
    ensure!(limit("pids.max")?.trim() == "77", "{}", limit("pids.max")?);
    println!("{group}: watched, and limited by the controllers");
    Ok(())
}

/// The one cgroup of a process under systemd.
fn group(pid: u32) -> Result<PathBuf> {
    let text = places(pid)?;
    let path = text.lines().find_map(|l| l.strip_prefix("0::/")).context("no v2 group")?;
    Ok(Path::new("/sys/fs/cgroup").join(path))
}

/// CPU that a cgroup has used.
fn used(group: &Path) -> Result<Duration> {
    let text = fs::read_to_string(group.join("cpu.stat"))?;
    let us = text.lines().find_map(|l| l.strip_prefix("usage_usec ")).context("usage_usec")?;
    Ok(Duration::from_micros(us.trim().parse()?))
}

/// What systemd says of a unit.
fn shown(unit: &str, property: &str) -> Result<String> {
    let said = Command::new("systemctl").args(["show", "--value", "--property", property, unit]).output()?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// systemd knows of the cgroup of a throttled server, keeps to its limits, and forgets it when it is released.
#[test]
fn throttled_in_a_scope() -> Result<()> {
    if !booted()? {
        return Ok(());
    }
    let place = Place::new()?;
    let agent = place.start()?;
    let mut person = Operator::new(&place)?;
    // A server that answers everything, and has a child that does nothing but burn CPU.
    let script = r#"( while :; do :; done ) & while read -r line; do id=${line#*\"id\":}; id=${id%%[,\}]*}; case $line in *'"id"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id";; esac; done"#;
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let client = Client::start(command, Manner::default())?;
    let pid = client.pid();
    known(&place, pid)?;
    let name = agent.server(pid)?.server.name.clone();
    let before = group(pid)?;

    let said = person.says(&format!("respond throttle {name}"))?.good()?;
    println!("{}", said.trim());
    ensure!(said.contains("2 processes are limited (toolwarden-"), "{said}");
    let scope = group(pid)?;
    let unit = scope.file_name().context("a name")?.to_string_lossy().into_owned();
    ensure!(scope.parent().is_some_and(|p| p.ends_with("toolwarden.slice")), "{}", scope.display());
    ensure!(fs::read_to_string(scope.join("cgroup.procs"))?.lines().count() == 2, "its child is elsewhere");
    ensure!(shown(&unit, "ActiveState")? == "active", "{unit}: {}", shown(&unit, "ActiveState")?);
    ensure!(shown(&unit, "CPUQuotaPerSecUSec")? == "100ms", "{}", shown(&unit, "CPUQuotaPerSecUSec")?);
    // What a reload makes of it is no less.
    ensure!(Command::new("systemctl").arg("daemon-reload").status()?.success(), "daemon-reload");
    let limit = |file: &str| fs::read_to_string(scope.join(file));
    ensure!(limit("cpu.max")?.trim() == "10000 100000", "{}", limit("cpu.max")?);
    ensure!(limit("pids.max")?.trim() != "max" && limit("memory.high")?.trim() != "max", "no limits");
    std::thread::sleep(Duration::from_millis(500));
    let (from, began) = (used(&scope)?, Instant::now());
    std::thread::sleep(8 * SECOND);
    let share = (used(&scope)? - from).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("throttled to {:.1} % of a CPU, quota 10 %", share * 100.0);
    ensure!((0.09..=0.11).contains(&share), "{share}");

    // What is frozen meanwhile is frozen there.
    let said = person.says(&format!("respond freeze {name}"))?.good()?;
    ensure!(group(pid)? == scope, "{said}");
    // Who has used up its quota stands still anyhow, and enters the freezer when it would run again.
    soon("it is frozen", || Ok(limit("cgroup.events")?.contains("frozen 1").then_some(())))
        .with_context(|| said.clone())?;
    let said = person.says(&format!("respond release {name}"))?.good()?;
    ensure!(
        group(pid)? == before,
        "{said}: it was in {}, and is in {}",
        before.display(),
        group(pid)?.display()
    );
    let state = || -> Result<(String, String)> {
        let left = fs::read_to_string(scope.join("cgroup.procs")).unwrap_or_else(|_gone| "gone".into());
        Ok((shown(&unit, "ActiveState")?, left))
    };
    // When systemd hears of it is its own affair; a loaded machine takes many seconds.
    let end = Instant::now() + patient(30 * SECOND);
    loop {
        let (active, left) = state()?;
        if active == "inactive" && left == "gone" {
            break;
        }
        ensure!(Instant::now() < end, "systemd keeps the scope: {active}, {left:?}; {said}");
        std::thread::sleep(Duration::from_millis(100));
    }
    person.says(&format!("respond kill {name}"))?.good()?;
    Ok(())
}
