//! The static programs that run in the guests.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::workspace::Workspace;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Programs that the tests start.
const BINS: [&str; 7] = ["toolwarden", "oracle", "forger", "flooder", "garbler", "contained", "caller"];
/// Files of the workspace that the tests read.
const FILES: [&str; 2] = ["docs/schema/event.schema.json", "docs/schema/doctor.schema.json"];

/// Builds them; where each goes in the guest, and its bytes.
pub(super) fn build(workspace: &Workspace) -> Result<Vec<(String, Vec<u8>)>> {
    let mut cargo = workspace.cargo();
    cargo
        // Of its own: other flags would have the usual build begin anew each time.
        .args(["build", "--release", "--package=agent", "--package=e2e", "--target", TARGET, "--target-dir"])
        .arg(workspace.target.join("vm/build"))
        .arg("--config")
        .arg(format!("target.{TARGET}.rustflags=[\"-Ctarget-feature=+crt-static\"]"))
        .args(["--test=e2e", "--message-format=json-render-diagnostics"])
        .args(BINS.map(|bin| format!("--bin={bin}")))
        .stderr(Stdio::inherit());
    let build = cargo.output().context("cannot run cargo")?;
    ensure!(build.status.success(), "the programs for the guests do not build");
    let built: HashMap<String, PathBuf> = String::from_utf8_lossy(&build.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| {
            let executable = message["executable"].as_str()?;
            Some((message["target"]["name"].as_str()?.to_owned(), executable.into()))
        })
        .collect();
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
