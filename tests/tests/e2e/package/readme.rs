//! The five minutes of the README, word by word, as a new user types them on a machine that has nothing.

use std::{process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{client::Manner, pace::patient, person::person, scenario::Oracle, world::World};

use super::{DEB, SECOND, says};

const README: &str = include_str!("../../../../README.md");
/// What the reader builds or downloads elsewhere.
const BUILD: &str = "cargo xtask package";
const FILE: &str = "./target/package/toolwarden_*_amd64.deb";

/// The commands, without what is said about them.
fn commands() -> Result<Vec<String>> {
    let section = README.split("\n## Five minutes\n").nth(1).context("no `Five minutes`")?;
    let block = section.split("```").nth(1).context("no commands")?;
    let command = |line: &str| line.split(" #").next().unwrap_or_default().trim().to_owned();
    Ok(block.lines().map(command).filter(|c| !c.is_empty() && c != BUILD).collect())
}

pub(super) fn five_minutes() -> Result<()> {
    let commands = commands()?;
    let verbs = ["apt install", "systemctl status", "doctor", "selftest", "findings list", "watch"];
    ensure!(commands.len() == verbs.len(), "{commands:?}");
    for (command, verb) in commands.iter().zip(verbs) {
        ensure!(command.contains(verb), "{command}");
        says(format_args!("$ {command}"));
        if verb == "watch" {
            watch(command)?;
            continue;
        }
        let out = types(command, if verb == "doctor" { &[0, 1] } else { &[0] })?;
        let wanted = match verb {
            "systemctl status" => "active (running)",
            "doctor" => "lifecycle/exec",
            "selftest" => "detection",
            // What the self-test read.
            "findings list" => "/etc/shadow",
            _ => "",
        };
        ensure!(out.to_lowercase().contains(wanted), "{command}: {out}");
    }
    Ok(())
}

/// Root needs no sudo, and nobody is there to answer apt.
fn types(command: &str, codes: &[i32]) -> Result<String> {
    let line = command.trim_start_matches("sudo ").replace(FILE, DEB);
    let line = format!("export DEBIAN_FRONTEND=noninteractive SYSTEMD_PAGER=cat; {line}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]);
    let said = person(&shell)?;
    ensure!(codes.contains(&said.code), "{command}: exit {}\n{}{}", said.code, said.out, said.err);
    Ok(said.out)
}

/// What happens, as it happens: until the person has seen enough.
fn watch(command: &str) -> Result<()> {
    let seconds = patient(10 * SECOND).as_secs();
    let command = format!("timeout --signal=INT {seconds} {}", command.trim_start_matches("sudo "));
    let watching = thread::spawn(move || types(&command, &[0, 124]));
    thread::sleep(patient(2 * SECOND));
    let world = World::new()?;
    let mut oracle = Oracle::start(&world, "readme", Manner::default())?;
    oracle.call("open_read")?;
    thread::sleep(Duration::from_millis(500));
    let seen = watching.join().ok().context("the watcher panicked")??;
    ensure!(seen.contains("open_read"), "{seen}");
    Ok(())
}
