//! Disks that are full or cannot be written, and requests that are too large: told, and nothing is lost.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use e2e::sys;
use serde_json::{Value, json};

use super::{
    place::{Place, SECOND, said, soon, within},
    sinks::{CALLS, DENY, configured, drained, events, files, findings, reader, whole},
};

/// A file system of its own for the state. Dropped, it is gone.
struct Disk(PathBuf);

impl Disk {
    fn of(place: &Place, size: &str) -> Result<Self> {
        let at = place.path().join("state");
        fs::create_dir(&at)?;
        let options = format!("size={size},mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&at).status()?;
        ensure!(mounted.success(), "mount: {mounted}");
        Ok(Self(at))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Until there is no room for another byte.
    fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filler())?;
        while file.write_all(&[0; 4096]).is_ok() {}
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // An agent that still runs keeps it until it ends.
        if let Err(e) = Command::new("umount").arg("-l").arg(&self.0).status() {
            eprintln!("{} stays mounted: {e}", self.0.display());
        }
    }
}

/// An agent that should not start: what it said.
fn refused(place: &Place) -> Result<String> {
    let at = |name: &str| place.path().join(name);
    let mut command = Command::new(place.program());
    command.args(["run", "--print", "none", "--state-dir"]).arg(at("state"));
    command.arg("--control").arg(at("control.sock")).arg("--guard").arg(at("agent.lock"));
    command.arg("--pin-dir").arg(e2e::agent::pins(place.path())).arg("--rules").arg(at("rules"));
    command.stdin(Stdio::null());
    let done = said(command)?;
    ensure!(done.code != 0 && !at("control.sock").exists(), "it runs: {}", done.err);
    ensure!(done.err.lines().count() == 1, "not one message: {}", done.err);
    Ok(done.err)
}

fn store(place: &Place) -> Result<Value> {
    Ok(place.ask(&["status", "--format", "json"])?.json()?["store"].clone())
}

#[test]
fn a_full_disk_is_told_and_what_was_found_meanwhile_is_stored_later() -> Result<()> {
    let place = Place::new()?;
    let disk = Disk::of(&place, "16m")?;
    place.rule("deny.yaml", DENY)?;
    let config = configured(&place, "[sinks.all]\ntype = 'file'\npath = '@/log/all'\n")?;
    let agent = place.start_with(&["--config", &config])?;
    let mut server = reader(&place)?;
    files(&place)?;
    let mut finds = |round: u32| -> Result<()> {
        for n in 0..CALLS {
            server.call(&format!("read_{round}_{n}"), &json!({"file": format!("n{n}")}))?;
        }
        Ok(())
    };
    finds(1)?;
    let hits =
        || -> Result<usize> { Ok(findings(&place)?.iter().filter(|f| f["kind"] == "rule-hit").count()) };
    let first = soon("the first are stored", || Ok(Some(hits()?).filter(|n| *n >= CALLS / 2)))?;
    soon("all of them", || Ok((store(&place)?["queued"] == 0).then_some(())))?;
    disk.fill()?;
    finds(2)?;
    let degraded = soon("it is told", || {
        let store = store(&place)?;
        Ok((store["state"] == "degraded").then_some(store))
    })?;
    println!("{degraded}");
    ensure!(degraded["because"].as_str().is_some_and(|b| b.contains("full")), "{degraded}");
    fs::remove_file(disk.filler())?;
    // The store tries again after 10 s at the latest.
    let all = within(15 * SECOND, "what was found meanwhile is stored", || {
        let store = store(&place)?;
        Ok(Some(hits()?).filter(|n| *n >= first + CALLS / 2 && store["state"] == "working"))
    })?;
    println!("{first} findings before the disk was full, {all} after");
    let after = store(&place)?;
    ensure!(after["refused"] == 0 && after["failed"] == 0, "{after}");
    drained(&place, "all")?;
    whole(&events(&place.path().join("log/all"))?)?;
    // No room even to begin.
    drop(agent);
    disk.fill()?;
    let why = refused(&place)?;
    println!("{why}");
    ensure!(why.contains("full") && why.contains(&disk.0.display().to_string()), "{why}");
    Ok(())
}

#[test]
fn state_that_cannot_be_written_is_refused() -> Result<()> {
    let place = Place::new()?;
    let disk = Disk::of(&place, "16m")?;
    let at = disk.0.to_str().unwrap_or_default().to_owned();
    sys::mount("none", &at, None, (libc::MS_REMOUNT | libc::MS_RDONLY) as _)?;
    let why = refused(&place)?;
    println!("{why}");
    ensure!(why.to_lowercase().contains("read-only") && why.contains(&at), "{why}");
    Ok(())
}

#[test]
fn filters_that_are_too_large_are_refused_with_one_message() -> Result<()> {
    let place = Place::new()?;
    let agent = place.start()?;
    let huge = "x".repeat(100_000);
    for verb in [
        &["watch", "--server", &huge][..],
        &["watch", "--type", &huge],
        &["calls", "--tool", &huge],
        &["findings", "list", "--server", &huge],
        &["findings", "show", &huge],
    ] {
        let done = place.ask(verb)?;
        let what = &verb[..2];
        ensure!(done.code != 0, "{what:?} is taken");
        ensure!(done.err.lines().count() == 1 && done.err.len() < 1000, "{what:?}: {} bytes", done.err.len());
        println!("{what:?}: {} {}", done.code, done.err.trim());
    }
    // Of a configuration, the line is named.
    let path = configured(&place, &format!("[sinks.a]\ntype = 'stdout'\nservers = ['{huge}']\n"))?;
    let wrong = place.ask_alone(&["config", "check", "--config", &path])?;
    ensure!(
        wrong.code == 5 && wrong.err.contains(&format!("{path}:3:")),
        "{}: {:.500}",
        wrong.code,
        wrong.err
    );
    ensure!(wrong.err.len() < 2000, "{} bytes", wrong.err.len());
    ensure!(Path::new(&format!("/proc/{}", agent.pid())).exists(), "the agent has ended");
    ensure!(place.ask(&["status"])?.code == 0, "it does not answer");
    Ok(())
}
