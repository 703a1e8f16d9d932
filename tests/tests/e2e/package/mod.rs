//! The Debian package where systemd is process 1: installed as the README says, at work, restarted with the machine, upgraded, purged.

mod readme;
mod servers;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{pace::patient, person::person, sys};
use serde_json::Value;

use super::{
    place::{SECOND, Said, said},
    systemd::booted,
};

const DEB: &str = "/t/toolwarden.deb";
const UNIT: &str = "toolwarden.service";
/// What the test knew before the machine was restarted.
const MARK: &str = "/var/lib/e2e-package";
const EVENTS: &str = "/var/log/toolwarden/events.ndjson";
/// What the machine's rsyslog was sent.
const SYSLOG: &str = "/var/log/from-toolwarden.log";
const SINKS: &str = "[sinks.file]\ntype = 'file'\npath = '/var/log/toolwarden/events.ndjson'\n\
                     [sinks.siem]\ntype = 'syslog'\naddress = 'tcp://127.0.0.1:5514'\nformat = 'ocsf'\n";
const RSYSLOG: &str = "global(maxMessageSize=\"256k\")
module(load=\"imtcp\")
input(type=\"imtcp\" address=\"127.0.0.1\" port=\"5514\" ruleset=\"toolwarden\")
template(name=\"body\" type=\"string\" string=\"%msg%\\n\")
ruleset(name=\"toolwarden\") { action(type=\"omfile\" file=\"/var/log/from-toolwarden.log\" template=\"body\") }
";
const DENY: &str = "rules:\n  - id: no-reading\n    severity: high\n    deny:\n      files:\n        read: ['**/package/**']\n";

/// At once, and not when the test has ended: an emulated machine that says nothing for minutes is taken for one that hangs.
fn says(text: impl std::fmt::Display) {
    drop(writeln!(std::io::stderr(), "# {text}"));
}

fn run(words: &[&str]) -> Result<Said> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive").env("SYSTEMD_PAGER", "cat");
    said(command)
}

/// Runs what must succeed.
fn does(words: &[&str]) -> Result<String> {
    run(words)?.good().with_context(|| words.join(" "))
}

/// A verb that only asks.
fn asks(verb: &[&str]) -> Result<Value> {
    run(&[&["toolwarden"], verb, &["--format", "json"]].concat())?.json()
}

/// A verb that changes something: not by this test, which is an MCP client.
fn changes(verb: &[&str]) -> Result<()> {
    let mut command = Command::new("toolwarden");
    let done = person(command.args(verb))?;
    ensure!(done.code == 0, "{verb:?}: {}{}", done.out, done.err);
    Ok(())
}

fn property(name: &str) -> Result<String> {
    Ok(does(&["systemctl", "show", "--value", "--property", name, UNIT])?.trim().to_owned())
}

fn soon<T>(what: &str, mut f: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + patient(30 * SECOND);
    loop {
        if let Some(found) = f()? {
            return Ok(found);
        }
        if Instant::now() > end {
            let log = run(&["journalctl", "--no-pager", "-n", "40", "-u", UNIT])?.out;
            bail!("{what}: not in time\n{log}");
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The service works: READY was said, and the hooks are proved.
fn works() -> Result<u32> {
    soon("the service works", || Ok((property("ActiveState")? == "active").then_some(())))?;
    let status = asks(&["status"])?;
    let hooks = status["coverage"].as_array().cloned().unwrap_or_default();
    let blind: Vec<&Value> = hooks.iter().filter(|h| h["state"] == "blind").collect();
    ensure!(!hooks.is_empty() && blind.iter().all(|h| h["hook"] == "io_uring"), "{blind:?}");
    let pid: u32 = property("MainPID")?.parse()?;
    ensure!(status["pid"] == pid, "{status}");
    Ok(pid)
}

#[test]
fn installed_restarted_upgraded_purged() -> Result<()> {
    if !booted()? {
        return Ok(());
    }
    ensure!(Path::new(DEB).is_file(), "no {DEB}: `cargo xtask vm --systemd` puts it there");
    match fs::read_to_string(MARK) {
        Err(_) => before(),
        Ok(id) => after(id.trim()),
    }
}

fn before() -> Result<()> {
    let began = Instant::now();
    readme::five_minutes()?;
    says(format_args!("five minutes of the README took {:.0} s", began.elapsed().as_secs_f64()));
    let first = works()?;
    ensure!(does(&["systemctl", "is-enabled", UNIT])?.trim() == "enabled", "it is not enabled");
    let told = property("StatusText")?;
    says(&told);
    ensure!(told.contains(" server") && told.contains("enforcing 0, ") && told.contains(" lost"), "{told}");
    let rated = run(&["systemd-analyze", "security", "--threshold=40", UNIT])?;
    says(rated.out.lines().last().unwrap_or_default());
    ensure!(rated.code == 0, "{}", rated.out);
    ensure!(catalogued()?, "no catalog");
    let socket = fs::metadata("/run/toolwarden/control.sock")?;
    ensure!(socket.gid() != 0 && socket.mode() & 0o777 == 0o660, "{:o} {}", socket.mode(), socket.gid());
    ensure!(fs::metadata("/var/lib/toolwarden")?.mode() & 0o777 == 0o700, "others may read the state");

    fs::write("/etc/toolwarden/conf.d/50-test.toml", SINKS)?;
    fs::write("/etc/toolwarden/rules.d/test.yaml", DENY)?;
    fs::write("/etc/rsyslog.d/toolwarden.conf", RSYSLOG)?;
    does(&["systemctl", "restart", "rsyslog.service"])?;
    let reloaded = run(&["systemctl", "reload", UNIT])?;
    ensure!(reloaded.code == 0, "{}", reloaded.err);
    does(&["systemctl", "restart", UNIT])?;
    let second = works()?;
    ensure!(second != first, "the same process");
    says("configured");
    let (oracle, id) = servers::detects(0)?;
    says("detected, and rsyslog has it");
    servers::contains(oracle.client.pid())?;
    drop(oracle);
    says("throttled, frozen, released");
    servers::denies()?;
    says("learned, ratified, denied in the kernel, and rsyslog has it");
    broken()?;
    says("a broken configuration was refused");
    hung()?;
    says("hung, and started again");

    // Killed, it is started again.
    does(&["systemctl", "reset-failed", UNIT])?;
    let pid = works()?;
    sys::kill(pid, libc::SIGKILL)?;
    soon("it is started again", || Ok((property("MainPID")? != pid.to_string()).then_some(())))?;
    ensure!(works()? != pid, "the same process");
    fs::write(MARK, &id)?;
    says("killed, and started again; now the machine");
    does(&["sync"])?;
    does(&["systemctl", "reboot"])?;
    thread::sleep(patient(120 * SECOND));
    bail!("the machine does not restart")
}

/// The catalog has the subject of a finding, under its id.
fn catalogued() -> Result<bool> {
    let id = fs::read_to_string("/usr/lib/systemd/catalog/toolwarden.catalog")?;
    let id = id.lines().find_map(|l| l.strip_prefix("-- ")).context("an id")?.to_owned();
    Ok(run(&["journalctl", "--dump-catalog", &id])?.out.contains("stepped out of line"))
}

/// What is wrong is told by the reload, and changes nothing.
fn broken() -> Result<()> {
    let path = "/etc/toolwarden/conf.d/60-broken.toml";
    fs::write(path, "[detection]\nbudget_a_day = 3\n")?;
    let refused = run(&["systemctl", "reload", UNIT])?;
    let log = does(&["journalctl", "--no-pager", "-n", "20", "-u", UNIT])?;
    fs::remove_file(path)?;
    ensure!(refused.code != 0, "a broken configuration is reloaded");
    ensure!(log.contains("60-broken.toml:2:1") && log.contains("budget_per_day"), "{log}");
    works().map(drop)
}

/// A process that hangs is ended by the service manager, and another one takes over.
fn hung() -> Result<()> {
    let dir = "/run/systemd/system/toolwarden.service.d";
    fs::create_dir_all(dir)?;
    let seconds = patient(3 * SECOND).as_secs();
    fs::write(format!("{dir}/test.conf"), format!("[Service]\nWatchdogSec={seconds}s\n"))?;
    does(&["systemctl", "daemon-reload"])?;
    does(&["systemctl", "restart", UNIT])?;
    let pid = works()?;
    thread::sleep(2 * Duration::from_secs(seconds));
    ensure!(works()? == pid, "the watchdog ends what is alive");
    sys::kill(pid, libc::SIGSTOP)?;
    soon("the watchdog ends it", || Ok((property("MainPID")? != pid.to_string()).then_some(())))?;
    ensure!(works()? != pid, "the same process");
    fs::remove_dir_all(dir)?;
    does(&["systemctl", "daemon-reload"]).map(drop)
}

fn after(id: &str) -> Result<()> {
    // It came up with the machine, by itself.
    let pid = works()?;
    let known = |id: &str| -> Result<bool> {
        let all = asks(&["findings", "list", "--all"])?;
        Ok(all.as_array().is_some_and(|a| a.iter().any(|f| f["id"] == id)))
    };
    ensure!(known(id)?, "what was found before the restart is gone");
    says("it came up by itself, with what it knew");
    let (oracle, second) = servers::detects(1)?;
    drop(oracle);

    // The next version is this one under another number; packed quickly, for the machine is slow.
    let dir = "/var/tmp/next";
    does(&["dpkg-deb", "--raw-extract", DEB, dir])?;
    let control = format!("{dir}/DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    fs::write(&control, text.replace("\nVersion: ", "\nVersion: 1:"))?;
    does(&["dpkg-deb", "--build", "-Znone", dir, "/var/tmp/next.deb"])?;
    does(&["dpkg", "-i", "/var/tmp/next.deb"])?;
    ensure!(works()? != pid, "the old version still runs");
    ensure!(known(id)? && known(&second)?, "an upgrade loses state");
    ensure!(
        fs::read_to_string("/etc/toolwarden/conf.d/50-test.toml")? == SINKS,
        "an upgrade loses configuration"
    );

    says("upgraded");
    does(&["dpkg", "--remove", "toolwarden"])?;
    says("removed");
    ensure!(Path::new("/var/lib/toolwarden").is_dir(), "a removal takes the state away");
    ensure!(processes()?.is_empty(), "{:?}", processes()?);
    does(&["dpkg", "--purge", "toolwarden"])?;
    for path in [
        "/var/lib/toolwarden",
        "/etc/toolwarden",
        "/var/log/toolwarden",
        "/run/toolwarden",
        "/usr/bin/toolwarden",
    ] {
        ensure!(!Path::new(path).exists(), "{path} is left");
    }
    ensure!(!Path::new("/sys/fs/bpf/toolwarden").exists(), "pins are left");
    ensure!(run(&["systemctl", "cat", UNIT])?.code != 0, "the unit is left");
    Ok(())
}

/// Processes of the agent.
fn processes() -> Result<Vec<String>> {
    let end = Instant::now() + patient(10 * SECOND);
    loop {
        let all =
            fs::read_dir("/proc")?.flatten().filter_map(|e| fs::read_to_string(e.path().join("comm")).ok());
        let left: Vec<String> = all.filter(|name| name.trim() == "toolwarden").collect();
        if left.is_empty() || Instant::now() > end {
            return Ok(left);
        }
        thread::sleep(Duration::from_millis(100));
    }
}
