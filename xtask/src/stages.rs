//! The stages of `cargo xtask test`.

use std::{fs, process::Command, time::Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::ValueEnum;

use crate::{
    programs,
    setup::{self, Part},
    steps::{seconds, shown},
    toolchain,
    toolchain_file::{BUILD_ARGS, NOT_SET_UP, Toolchain},
    tools, vm,
    workspace::{Workspace, output, require_root},
};

/// What can be asked for by `--only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// rustfmt, clippy for both targets, cargo-deny
    Lint,
    /// Unit, property and golden-replay tests
    Unit,
    /// Each fuzz target for a while
    Fuzz,
    /// Real servers and the oracle on this kernel
    E2e,
    /// That it loads, denies and contains on other kernels, in emulated machines
    Kernels,
}

/// From what fails soonest to what takes longest.
const ORDER: [Stage; 5] = [Stage::Lint, Stage::Unit, Stage::Fuzz, Stage::E2e, Stage::Kernels];
/// Runs when it is asked for: it was not tried yet on a machine that has nothing, and must not fail there for want of a package.
const ASKED: Stage = Stage::Kernels;

/// Sets up, runs the stages, stops at the first that fails.
pub(crate) fn run(workspace: &Workspace, only: &[Stage], fuzz_seconds: u32) -> Result<()> {
    let stages: Vec<Stage> =
        ORDER.into_iter().filter(|s| only.contains(s) || only.is_empty() && *s != ASKED).collect();
    if stages.contains(&Stage::E2e) {
        require_root("the end-to-end stage")
            .context("leave it out with `--only lint,unit,fuzz`, or be root")?;
    }
    let started = Instant::now();
    headed("set-up", || setup::run(workspace, parts(&stages)))?;
    for stage in &stages {
        match stage {
            Stage::Lint => lint(workspace)?,
            Stage::Unit => unit(workspace)?,
            Stage::Fuzz => fuzz(workspace, fuzz_seconds)?,
            Stage::E2e => e2e(workspace)?,
            Stage::Kernels => headed("other kernels", || vm::smoke(workspace))?,
        }
    }
    println!("\nall green ({})", seconds(started.elapsed()));
    if only.is_empty() {
        println!("left out: other kernels (`cargo xtask test --only kernels`)");
    }
    Ok(())
}

/// What these stages need of the set-up.
fn parts(stages: &[Stage]) -> Vec<&'static Part> {
    let mut parts: Vec<&Part> = Vec::new();
    for stage in stages {
        let needed: &[Part] = match stage {
            Stage::Lint => &setup::LINT,
            Stage::Unit | Stage::Kernels => &setup::BUILD,
            Stage::Fuzz => &setup::FUZZING,
            Stage::E2e => &setup::E2E,
        };
        for part in needed {
            if !parts.iter().any(|known| known.name() == part.name()) {
                parts.push(part);
            }
        }
    }
    parts
}

fn lint(workspace: &Workspace) -> Result<()> {
    headed("format", || check(workspace.cargo().args(["fmt", "--all", "--check"])))?;
    headed("clippy", || {
        check(workspace.cargo().args([
            "clippy",
            "--workspace",
            "--exclude=ebpf",
            "--all-targets",
            "--",
            "-Dwarnings",
        ]))
    })?;
    headed("clippy for the BPF target", || {
        let toolchain = Toolchain::read(&workspace.root).map_err(|e| anyhow!(e))?.context(NOT_SET_UP)?;
        let clippy = toolchain::cargo_clippy(&toolchain).context("no clippy for BPF")?;
        check(
            toolchain
                .command(&clippy)
                .current_dir(&workspace.root)
                .args(["clippy", "--package", "ebpf", "--target-dir"])
                .arg(workspace.target.join("bpf"))
                .args(BUILD_ARGS)
                .args(["--", "-Dwarnings"]),
        )
    })?;
    // Not `advisories`: they are not in the registry but in a git repository on another host, and
    // a test must give the same answer tomorrow. DEVELOPING.md says how to look at them.
    headed("licences, bans and sources of dependencies", || {
        check(workspace.cargo_tool(tools::DENY).args(["check", "bans", "licenses", "sources"]))
    })
}

fn unit(workspace: &Workspace) -> Result<()> {
    headed("unit, property and golden tests", || {
        check(workspace.cargo().args(["test", "--workspace", "--exclude=ebpf", "--exclude=e2e"]))
    })
}

fn fuzz(workspace: &Workspace, duration: u32) -> Result<()> {
    let fuzz = workspace.root.join("fuzz");
    let list = output(workspace.cargo_tool(tools::FUZZ).arg("list"))
        .with_context(|| format!("no fuzz targets in {}", fuzz.display()))?;
    ensure!(!list.is_empty(), "no fuzz targets in {}", fuzz.display());
    for target in list.lines() {
        headed(&format!("fuzz {target} for {duration} s"), || {
            let corpus = fuzz.join("corpus").join(target);
            fs::create_dir_all(&corpus)?;
            let seeds = fuzz.join("seeds").join(target);
            ensure!(seeds.is_dir(), "{} has no seeds at {}", target, seeds.display());
            check(
                workspace
                    .cargo_tool(tools::FUZZ)
                    // Coverage and sanitizer flags are unstable; a stable compiler has them too.
                    .env("RUSTC_BOOTSTRAP", "1")
                    .args(["run", target])
                    .args([&corpus, &seeds])
                    .arg("--")
                    .arg(format!("-max_total_time={duration}"))
                    .arg("-print_final_stats=1"),
            )
        })?;
    }
    Ok(())
}

fn e2e(workspace: &Workspace) -> Result<()> {
    headed("build for the end-to-end tests", || programs::build(workspace))?;
    headed("end-to-end tests", || {
        // The same packages as were just built: cargo unifies features over the selected ones, and
        // another selection would compile half of the dependencies again.
        check(workspace.cargo().args([
            "test",
            "--package=agent",
            "--package=e2e",
            "--release",
            "--",
            "--test-threads=1",
        ]))
    })
}

/// Runs one part of a stage under a header and says how long it took.
fn headed(title: &str, stage: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("\n== {title}");
    let started = Instant::now();
    stage().with_context(|| format!("{title}: failed after {}", seconds(started.elapsed())))?;
    println!("== {title}: ok ({})", seconds(started.elapsed()));
    Ok(())
}

/// Runs a command with its output where the person looks.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run `{}`", shown(command)))?;
    ensure!(status.success(), "`{}`: {status}", shown(command));
    Ok(())
}
