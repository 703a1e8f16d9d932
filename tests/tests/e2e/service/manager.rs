//! What the service manager is told, and a reload.

use std::{
    os::unix::net::UnixDatagram,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{client::Manner, pace::patient, scenario::Oracle, sys, world::World};
use serde_json::Value;

use super::{
    super::place::{Place, SECOND},
    QUIET, Running, configured,
};

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(place: &Place) -> Result<Self> {
        let path = place.path().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        Ok(Self { socket, path })
    }

    /// The next message within this time.
    fn hears(&self, time: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(time)).ok()?;
        let mut buffer = [0; 4096];
        let n = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
    }

    /// The first message that is wanted, and those before it.
    fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<(String, Vec<String>)> {
        let (end, mut before) = (Instant::now() + patient(20 * SECOND), Vec::new());
        while Instant::now() < end {
            match self.hears(SECOND) {
                Some(message) if wanted(&message) => return Ok((message, before)),
                Some(message) => before.push(message),
                None => {}
            }
        }
        bail!("{what}: not among {before:?}")
    }

    fn silence(&self) {
        while self.hears(Duration::from_millis(1)).is_some() {}
    }
}

/// `3 servers, 5 tools, enforcing 0, 0 lost`: the first two numbers.
fn counts(status: &str) -> Option<(u64, u64)> {
    let mut parts = status.strip_prefix("STATUS=")?.split(", ");
    let mut number = |what: &str| {
        let (n, word) = parts.next()?.split_once(' ')?;
        (word.trim_end_matches('s') == what).then(|| n.parse().ok())?
    };
    let found = (number("server")?, number("tool")?);
    let rest: Vec<&str> = parts.collect();
    (rest.first()?.starts_with("enforcing ") && rest.get(1)?.ends_with(" lost")).then_some(found)
}

#[test]
fn the_service_manager_is_told() -> Result<()> {
    let (world, place) = (World::new()?, Place::new()?);
    let manager = Manager::new(&place)?;
    let socket = manager.path.to_str().context("utf-8")?;
    let asked = patient(1500 * Duration::from_millis(1)).as_micros().to_string();
    let config = format!("{QUIET}[detection]\nbudget_per_day = 2\n");
    let envs = [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", asked.as_str())];
    let mut agent = Running::start(&place, &[], &config, &envs)?;
    let (_, before) = manager.until("READY=1", |m| m == "READY=1")?;
    ensure!(before.first().is_some_and(|m| m == "STATUS=attaching"), "{before:?}");
    ensure!(before.iter().any(|m| counts(m).is_some()), "{before:?}");
    ensure!(!before.iter().any(|m| m == "WATCHDOG=1"), "{before:?}");
    // READY comes when the hooks are proved, not before.
    let status = place.ask(&["status", "--format", "json"])?.json()?;
    let hooks = status["coverage"].as_array().cloned().unwrap_or_default();
    let works = |name: &str| hooks.iter().any(|h| h["hook"] == name && h["state"] != "blind");
    ensure!(works("lifecycle") && works("syscalls"), "{hooks:?}");

    let (first, _) = manager.until("a status", |m| counts(m).is_some()).unwrap_or_default();
    let mut oracle = Oracle::start(&world, "service", Manner::default())?;
    oracle.call("open_read")?;
    let more = |m: &str| counts(m).is_some_and(|(servers, tools)| servers > 0 && tools > 0);
    let (status, _) = manager.until("a server is counted", more)?;
    println!("{first} -> {status}");

    // Alive only while it does its work.
    for _ in 0..3 {
        manager.until("WATCHDOG=1", |m| m == "WATCHDOG=1")?;
    }
    sys::kill(agent.pid(), libc::SIGSTOP)?;
    thread::sleep(patient(Duration::from_millis(200)));
    manager.silence();
    let heard = manager.hears(patient(2 * SECOND));
    sys::kill(agent.pid(), libc::SIGCONT)?;
    ensure!(heard.is_none(), "a stopped agent says {heard:?}");
    manager.until("WATCHDOG=1", |m| m == "WATCHDOG=1")?;

    sys::kill(agent.pid(), libc::SIGHUP)?;
    manager.until("RELOADING", |m| m.starts_with("RELOADING=1\nMONOTONIC_USEC="))?;
    manager.until("READY after a reload", |m| m == "READY=1")?;
    reloads(&place, &manager)?;

    ensure!(agent.stop()? == 0, "{}", agent.errors());
    manager.until("STOPPING", |m| m.starts_with("STOPPING=1"))?;
    Ok(())
}

/// What comes into force at once, what does not, and what is wrong.
fn reloads(place: &Place, manager: &Manager) -> Result<()> {
    let new = format!(
        "{QUIET}[detection]\nbudget_per_day = 3\n[respond]\nhigh = 'throttle'\n[capture]\nsettle_ms = 30\n[sinks.new]\n\
         type = 'stdout'\n"
    );
    configured(place, &new)?;
    let said = place.person(&["reload", "--wait"])?.good()?;
    let line = |what: &str| said.lines().find_map(|l| l.strip_prefix(what)).unwrap_or_default().to_owned();
    ensure!(line("changed: ") == "detection.budget_per_day, respond.high, sinks.new.type", "{said}");
    let later = line("changed, and in force only after a restart: ");
    ensure!(later == "capture.settle_ms", "{said}");
    // What waits for a restart is told each time, what is in force is not told again.
    let again: Value = place.person(&["reload", "--wait", "--format", "json"])?.json()?;
    ensure!(again["settings"] == serde_json::json!([]), "{again}");
    ensure!(again["restart"] == serde_json::json!(["capture.settle_ms"]), "{again}");
    manager.silence();
    configured(place, "[detection]\nbudget_a_day = 3\n")?;
    let broken = place.person(&["reload", "--wait"])?;
    ensure!(
        broken.code == 5 && broken.err.contains("toolwarden.toml:2:1"),
        "{}: {}",
        broken.code,
        broken.err
    );
    ensure!(broken.err.contains("budget_per_day"), "no remedy: {}", broken.err);
    // A service manager must not wait for the end of a reload that failed.
    manager.until("RELOADING", |m| m.starts_with("RELOADING=1"))?;
    manager.until("READY", |m| m == "READY=1")?;
    Ok(())
}
