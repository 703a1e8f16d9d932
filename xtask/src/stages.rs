//! The stages of `cargo xtask test`.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::ValueEnum;

use crate::{
    package,
    setup::{self, Part},
    steps::{seconds, shown, tail},
    toolchain,
    toolchain_file::{BUILD_ARGS, NOT_SET_UP, Toolchain},
    tools, vm,
    workspace::{Workspace, output, processors, require_root},
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
    /// The Debian package, and what lintian says of it
    Package,
    /// That it loads, denies and contains on other kernels, in emulated machines
    Kernels,
}

/// From what fails soonest to what takes longest.
const ORDER: [Stage; 6] = [Stage::Lint, Stage::Unit, Stage::Fuzz, Stage::E2e, Stage::Package, Stage::Kernels];

/// Sets up, runs the stages, stops at the first that fails.
pub(crate) fn run(workspace: &Workspace, only: &[Stage], fuzz_seconds: u32) -> Result<()> {
    let stages: Vec<Stage> = ORDER.into_iter().filter(|s| only.contains(s) || only.is_empty()).collect();
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
            Stage::Package => headed("package", || package::checked(workspace).map(drop))?,
            Stage::Kernels => headed("other kernels", || vm::stage::run(workspace, !only.is_empty()))?,
        }
    }
    println!("\nall green ({})", seconds(started.elapsed()));
    let left_out: Vec<String> =
        ORDER.iter().filter(|s| !stages.contains(s)).map(|s| format!("{s:?}").to_lowercase()).collect();
    if !left_out.is_empty() {
        println!("left out: {}", left_out.join(", "));
    }
    Ok(())
}

/// What these stages need of the set-up.
fn parts(stages: &[Stage]) -> Vec<&'static Part> {
    let mut parts: Vec<&Part> = Vec::new();
    for stage in stages {
        let needed: &[Part] = match stage {
            Stage::Lint => &setup::LINT,
            Stage::Unit => &setup::BUILD,
            Stage::Kernels => &setup::KERNELS,
            Stage::Fuzz => &setup::FUZZING,
            Stage::E2e => &setup::E2E,
            Stage::Package => &setup::PACKAGE,
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
        check(workspace.cargo().args(["test", "--workspace", "--exclude=ebpf", "--exclude=e2e"]))?;
        // Of what the end-to-end tests rest on.
        check(workspace.cargo().args(["test", "--package=e2e", "--lib"]))
    })
}

/// Builds all targets, then runs as many at a time as there are processors: each is one thread.
fn fuzz(workspace: &Workspace, duration: u32) -> Result<()> {
    let fuzz = workspace.root.join("fuzz");
    let list = output(workspace.cargo_tool(tools::FUZZ).arg("list"))
        .with_context(|| format!("no fuzz targets in {}", fuzz.display()))?;
    ensure!(!list.is_empty(), "no fuzz targets in {}", fuzz.display());
    headed("build of the fuzz targets", || {
        // Coverage and sanitizer flags are unstable; a stable compiler has them too.
        check(workspace.cargo_tool(tools::FUZZ).env("RUSTC_BOOTSTRAP", "1").arg("build"))
    })?;
    let targets: Vec<&str> = list.lines().collect();
    for together in targets.chunks(processors()) {
        headed(&format!("fuzz {} for {duration} s", together.join(", ")), || {
            let ended: Vec<Result<()>> = thread::scope(|scope| {
                let running: Vec<_> = together
                    .iter()
                    .map(|target| scope.spawn(|| fuzz_one(workspace, &fuzz, target, duration)))
                    .collect();
                let ended = running.into_iter().map(thread::ScopedJoinHandle::join);
                ended.map(|r| r.unwrap_or_else(|_panic| bail!("a thread that fuzzes panicked"))).collect()
            });
            ended.into_iter().collect::<Result<()>>()
        })?;
    }
    Ok(())
}

fn fuzz_one(workspace: &Workspace, fuzz: &Path, target: &str, duration: u32) -> Result<()> {
    let corpus = fuzz.join("corpus").join(target);
    fs::create_dir_all(&corpus)?;
    let seeds = fuzz.join("seeds").join(target);
    ensure!(seeds.is_dir(), "{target} has no seeds at {}", seeds.display());
    let log = workspace.target.join(format!("fuzz-{target}.log"));
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut run = workspace.cargo_tool(tools::FUZZ);
    run.env("RUSTC_BOOTSTRAP", "1").args(["run", target]).args([&corpus, &seeds]).arg("--");
    run.arg(format!("-max_total_time={duration}")).arg("-print_final_stats=1");
    let ended = check(run.stdout(file.try_clone()?).stderr(file));
    // Of a crash the last lines tell all; of a run without one, how much was done.
    let lines = if ended.is_ok() { 3 } else { 60 };
    println!("{target}: the end of {}:\n{}", log.display(), tail(&log, lines));
    ended
}

fn e2e(workspace: &Workspace) -> Result<()> {
    let mut tests = headed("build for the end-to-end tests", || vm::programs::tests(workspace))?;
    headed("end-to-end tests", || check(&mut tests))
}

/// Runs one part of a stage under a header and says how long it took.
fn headed<T>(title: &str, stage: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n== {title}");
    let started = Instant::now();
    let done = stage().with_context(|| format!("{title}: failed after {}", seconds(started.elapsed())))?;
    println!("== {title}: ok ({})", seconds(started.elapsed()));
    Ok(done)
}

/// Runs a command with its output where the person looks.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run `{}`", shown(command)))?;
    ensure!(status.success(), "`{}`: {status}", shown(command));
    Ok(())
}
