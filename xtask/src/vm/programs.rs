//! The static programs that run in the guests.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::guest::File;
use crate::workspace::Workspace;

/// Named, although it is this machine's: flags for a named target do not reach build scripts and macros.
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Programs that the tests start in guests.
const BINS: [&str; 7] = ["toolwarden", "oracle", "forger", "flooder", "garbler", "contained", "caller"];
/// Files of the workspace that the tests read.
const FILES: [&str; 2] = ["docs/schema/event.schema.json", "docs/schema/doctor.schema.json"];

/// Executables by name: the agent, what the tests start, and the tests, in one go. What is shipped, what runs here and what runs in
/// guests is the same, and compiled once.
fn built(workspace: &Workspace) -> Result<HashMap<String, PathBuf>> {
    let target = target();
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--release", "--package=agent", "--package=e2e", "--bins", "--test=e2e"])
        // Of its own: other flags would have the usual build begin anew each time.
        .args(["--target", &target, "--target-dir"])
        .arg(workspace.target.join("vm/build"))
        .arg("--config")
        .arg(format!("target.{target}.rustflags=[\"-Ctarget-feature=+crt-static\"]"))
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let build = cargo.output().context("cannot run cargo")?;
    ensure!(build.status.success(), "the static programs do not build");
    Ok(String::from_utf8_lossy(&build.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| {
            let executable = message["executable"].as_str()?;
            Some((message["target"]["name"].as_str()?.to_owned(), executable.into()))
        })
        .collect())
}

/// The agent as a static program.
pub(crate) fn agent(workspace: &Workspace) -> Result<PathBuf> {
    one(workspace, "toolwarden")
}

/// The end-to-end tests, one at a time, with all that they start beside them: what is still to be said is which.
pub(crate) fn tests(workspace: &Workspace) -> Result<Command> {
    let mut tests = Command::new(one(workspace, "e2e")?);
    // Why a test failed is a line; where, forty more, that hide why the others did.
    tests.arg("--test-threads=1").env("RUST_BACKTRACE", "0").current_dir(workspace.root.join("tests"));
    Ok(tests)
}

/// One of them, by name.
pub(crate) fn one(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    built(workspace)?.remove(name).with_context(|| format!("cargo names no executable {name}"))
}

/// Builds them; where each goes in the guest, and its bytes.
pub(super) fn build(workspace: &Workspace) -> Result<Vec<File>> {
    let built = built(workspace)?;
    let mut files = Vec::new();
    for name in BINS.iter().copied().chain(["e2e"]) {
        let built = built.get(name).with_context(|| format!("cargo names no executable {name}"))?;
        // The tests look for the programs in their own directory and in the one above.
        let place = if name == "e2e" { "t/deps/e2e".to_owned() } else { format!("t/{name}") };
        files.push((place, stripped(workspace, built)?));
    }
    for name in FILES {
        let file = workspace.root.join(name);
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        files.push((file.display().to_string().trim_start_matches('/').to_owned(), bytes));
    }
    Ok(files)
}

/// A program without what only a debugger needs.
pub(super) fn stripped(workspace: &Workspace, program: &Path) -> Result<Vec<u8>> {
    let out = workspace.target.join("vm/stripped");
    let status = Command::new("strip").arg("--strip-debug").arg("-o").arg(&out).arg(program).status();
    let status = status.context("cannot run strip")?;
    ensure!(status.success(), "strip fails on {}", program.display());
    Ok(fs::read(out)?)
}
