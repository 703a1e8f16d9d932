//! Builds the BPF object that the agent carries inside itself, as `OUT_DIR/toolwarden-bpf.o`.
//!
//! The object needs another compiler than the agent: one that has the sources of core, and a
//! linker for BPF. `cargo xtask setup` chooses them once and writes the choice down; this script
//! only follows it, so that `cargo build` neither searches nor installs anything.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

#[path = "../xtask/src/toolchain_file.rs"]
mod toolchain_file;

use toolchain_file::{BUILD_ARGS, NOT_SET_UP, Toolchain};

/// A ready object to embed instead, for builds on machines without the BPF toolchain.
const READY_OBJECT: &str = "TOOLWARDEN_BPF_OBJECT";
/// How the message begins when the object's own source is at fault.
const BROKEN: &str = "the BPF object does not build";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Fails the build as `error: agent@...: message`. A failing exit code would add the
            // whole output of this script, which helps only where the nested cargo spoke in it.
            println!("cargo::error={}", message.replace('\n', " "));
            ExitCode::from(u8::from(message.starts_with(BROKEN)))
        }
    }
}

fn build() -> Result<(), String> {
    println!("cargo::rerun-if-env-changed={READY_OBJECT}");
    let out = PathBuf::from(variable("OUT_DIR")?).join("toolwarden-bpf.o");
    if let Some(ready) = env::var_os(READY_OBJECT) {
        let ready = PathBuf::from(ready);
        println!("cargo::rerun-if-changed={}", ready.display());
        return copy(&ready, &out);
    }

    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace =
        manifest.parent().ok_or_else(|| format!("{} is not in a workspace", manifest.display()))?;
    let choice = Toolchain::file(workspace);
    println!("cargo::rerun-if-changed={}", choice.display());
    for input in ["ebpf", "abi/src", "abi/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }

    let toolchain = Toolchain::read(workspace)?.ok_or(NOT_SET_UP)?;
    for tool in [&toolchain.cargo, &toolchain.rustc, &toolchain.linker] {
        if !tool.exists() {
            return Err(format!("{} is gone: run `cargo xtask setup` again", tool.display()));
        }
    }
    let target = workspace.join("target/bpf");
    let mut cargo = toolchain.command(&toolchain.cargo);
    cargo
        .current_dir(workspace)
        .args(["build", "--package", "ebpf", "--target-dir"])
        .arg(&target)
        .args(BUILD_ARGS);
    run(&mut cargo, &toolchain.version)?;
    copy(&target.join("bpfel-unknown-none/release/toolwarden-bpf"), &out)
}

fn run(cargo: &mut Command, version: &str) -> Result<(), String> {
    let status = cargo.status().map_err(|e| format!("cannot run {}: {e}", cargo.get_program().display()))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{BROKEN} with {version} ({status}): see below"))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to)
        .map(|_bytes| ())
        .map_err(|e| format!("cannot copy {} to {}: {e}", from.display(), to.display()))
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this script runs under cargo"))
}
