//! A recording says again what was said, and holds nothing that it should not.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{agent::Agent, scenario::Oracle, world::World};
use serde_json::json;

/// Replays as a user without any rights.
fn replay(program: &Path, file: &Path) -> Result<Output> {
    Ok(Command::new(program)
        .arg("replay")
        .arg(file)
        .args(["--print", "json"])
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()?)
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).filter(|w| w == &needle).count()
}

#[test]
fn replay_is_byte_identical() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("session.twrec");
    // An older file with a wider mode must not keep it.
    fs::write(&file, "old")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let path = file.display().to_string();
    let mut agent = Agent::start(&["--record", &path])?;
    let world = World::new()?;
    let secrets = ["wombat-7731-in-the-clear", "Zq9-quite-secret-quokka"];
    for (n, manner) in super::spaced::manners().into_iter().enumerate() {
        let mut oracle = Oracle::start(&world, &format!("replay{n}"), manner)?;
        for tool in oracle.tools()? {
            oracle.call(&tool)?;
        }
        for secret in secrets {
            let arguments = json!({"text": secret, "deep": [{"er": secret}], "n": 918_273_645});
            let (_, reply) = oracle.client.call("echo", &arguments)?;
            ensure!(reply.text().contains(secret), "the echo is whole");
        }
    }
    agent.settle(Duration::from_secs(1));
    agent.stop(libc::SIGINT)?;
    let printed: Vec<String> = agent.lines()?.into_iter().map(|p| p.text + "\n").collect();
    let printed = printed.concat();
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "mode");
    let bytes = fs::read(&file)?;
    println!("{} bytes recorded, {} lines", bytes.len(), printed.lines().count());
    for secret in secrets.iter().copied().chain(["918273645"]) {
        ensure!(count(&bytes, secret.as_bytes()) == 0, "{secret} is in the recording");
        ensure!(!printed.contains(secret), "{secret} is in the output");
    }
    // The tool names are there: the search above looked at the right thing.
    ensure!(count(&bytes, b"open_read") > 0, "no channel bytes in the recording");

    let program = super::bad_input::open_copy(dir.path())?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let again = replay(&program, &file)?;
    ensure!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    if again.stdout != printed.as_bytes() {
        let again = String::from_utf8_lossy(&again.stdout);
        let first = printed.lines().zip(again.lines()).position(|(a, b)| a != b);
        let n = first.unwrap_or_else(|| printed.lines().count().min(again.lines().count()));
        anyhow::bail!(
            "{} lines then {}; line {n} differs:\n{:?}\n{:?}",
            printed.lines().count(),
            again.lines().count(),
            printed.lines().nth(n),
            again.lines().nth(n)
        );
    }
    refused(&program, dir.path(), &bytes)
}

/// Cut, damaged and foreign files are refused with where and why.
fn refused(program: &Path, dir: &Path, good: &[u8]) -> Result<()> {
    let mut version = good.to_vec();
    version[7] = version[7].wrapping_add(1);
    let mut damaged = good.to_vec();
    damaged[8] = 200;
    let half = good.len() / 2;
    let cases: [(&str, &[u8], &[&str]); 6] = [
        ("cut", &good[..good.len() - 1], &["cut", "byte"]),
        ("half", &good[..half], &["cut", "byte"]),
        ("head", &good[..7], &["cut"]),
        ("version", &version, &["version"]),
        ("damaged", &damaged, &["damaged", "byte 8"]),
        ("foreign", b"{\"type\":\"effect\"}\n", &["not a Toolwarden recording"]),
    ];
    for (name, bytes, words) in cases {
        let file = dir.join(format!("{name}.twrec"));
        fs::write(&file, bytes)?;
        let run = replay(program, &file)?;
        let said = String::from_utf8_lossy(&run.stderr);
        println!("{name}: {}", said.trim());
        ensure!(!run.status.success(), "{name}: accepted");
        ensure!(said.trim().lines().count() == 1, "{name}: one message, not {said}");
        ensure!(said.contains(&format!("{name}.twrec")), "{name}: which file? {said}");
        for word in words {
            ensure!(said.contains(word), "{name}: no {word:?} in {said}");
        }
        let numbers = said.chars().any(|c| c.is_ascii_digit());
        ensure!(numbers || name == "foreign", "{name}: no place in {said}");
    }
    let run = replay(program, &dir.join("nowhere.twrec"))?;
    let said = String::from_utf8(run.stderr).context("stderr")?;
    ensure!(!run.status.success() && said.contains("nowhere.twrec"), "{said}");
    Ok(())
}
