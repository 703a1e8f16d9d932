//! systemd's journal, in a mount namespace of its own, so that it is nobody else's.

use std::{fs, path::Path, process::Command, thread};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Running, Scene};
use crate::{
    place::{Place, SECOND, soon},
    sinks::CALLS,
};

const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// Its socket and its files are in the place; `/run` and the rest are its own.
fn start(place: &Path) -> Result<Running> {
    for name in ["journal-run", "journal-log"] {
        fs::create_dir_all(place.join(name))?;
    }
    fs::write(
        place.join("journald.conf"),
        "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=\nRateLimitIntervalSec=0\nForwardToWall=no\n",
    )?;
    // Only what is really to be seen by others stays where it was.
    let script = format!(
        "set -e
        mount --make-rprivate /
        mount -t tmpfs none /run
        mkdir -p /run/systemd/journal /run/log/journal
        mount --bind \"$1/journal-run\" /run/systemd/journal
        mount --bind \"$1/journal-log\" /run/log/journal
        mount --bind \"$1/journald.conf\" /etc/systemd/journald.conf
        exec {JOURNALD}"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(place);
    let running = Running::start(&mut command, &place.join("journald.log"))?;
    soon("the socket of journald", || {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        Ok(socket.connect(place.join("journal-run/socket")).ok())
    })
    .with_context(|| fs::read_to_string(place.join("journald.log")).unwrap_or_default())?;
    Ok(running)
}

/// What `journalctl` tells of our entries, in order.
fn entries(place: &Path) -> Result<Vec<Value>> {
    let done = Command::new("journalctl")
        .arg("--directory")
        .arg(place.join("journal-log"))
        .args(["--output=json", "--all", "--no-pager", "--quiet", "SYSLOG_IDENTIFIER=toolwarden"])
        .output()
        .context("journalctl")?;
    let text = String::from_utf8(done.stdout)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn bodies(place: &Path) -> Result<Vec<String>> {
    let body = |entry: &Value| entry["TOOLWARDEN_EVENT"].as_str().map(str::to_owned);
    entries(place)?.iter().map(|entry| body(entry).with_context(|| format!("no event: {entry}"))).collect()
}

#[test]
fn it_has_every_event_with_its_fields_and_may_be_killed() -> Result<()> {
    let place = Place::new()?;
    let mut journald = start(place.path())?;
    let sinks = "[sinks.journal]\ntype = 'journald'\npath = '@/journal-run/socket'\n";
    let mut scene = Scene::new(place, sinks)?;
    for _ in 0..3 {
        scene.calls(CALLS / 2)?;
        journald.kill()?;
        scene.calls(CALLS / 2)?;
        thread::sleep(SECOND);
        journald = start(scene.place.path())?;
    }
    scene.drained(&["journal"])?;
    let place = scene.place.path().to_owned();
    scene.same("journald", || bodies(&place))?;
    for entry in entries(&place)? {
        let event: Value = serde_json::from_str(entry["TOOLWARDEN_EVENT"].as_str().unwrap_or_default())?;
        let kind = event["type"].as_str().context("type")?;
        ensure!(
            entry["TOOLWARDEN_TYPE"] == kind && entry["TOOLWARDEN_UID"] == event["event"]["uid"],
            "{entry}"
        );
        ensure!(entry["MESSAGE_ID"].as_str().is_some_and(|id| id.len() == 32), "{entry}");
        if kind == "finding" {
            ensure!(entry["MESSAGE"] == event["sentence"], "{entry}");
            ensure!(entry["TOOLWARDEN_SERVER"] == event["server"]["name"], "{entry}");
            let level = match event["severity"].as_str() {
                Some("critical") => "2",
                Some("high") => "3",
                Some("medium") => "4",
                Some("low") => "5",
                _ => "6",
            };
            ensure!(entry["PRIORITY"] == level, "{entry}");
        }
    }
    scene.agent.stop(libc::SIGTERM)?;
    Ok(())
}
