//! Where things are, and who we are.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{toolchain_file::scrub, tools::Tool};

/// The paths that the tasks share.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// `target/` of the workspace: tools, servers and the BPF build live here, whatever
    /// `CARGO_TARGET_DIR` says, so that they are made once.
    pub(crate) target: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask is not in a workspace")?.to_owned();
        let target = root.join("target");
        Ok(Self { root, target })
    }

    /// The cargo that runs this task, in the workspace.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }

    /// A cargo for building something else: it must not inherit how we were built.
    pub(crate) fn clean_cargo(&self) -> Command {
        self.clean(&env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// A cargo subcommand that we installed; named by path, for PATH may hold another version.
    pub(crate) fn cargo_tool(&self, tool: Tool) -> Command {
        let mut command = self.clean(self.tool(tool.name).as_os_str());
        command.arg(tool.name.trim_start_matches("cargo-"));
        command
    }

    fn clean(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        scrub(&mut command);
        if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
            command.env("RUSTUP_TOOLCHAIN", toolchain);
        }
        command.current_dir(&self.root);
        command
    }

    /// A tool that was installed by us.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.target.join("tools/bin").join(name)
    }
}

/// Whether BPF programs can be loaded and packages installed.
pub(crate) fn is_root() -> Result<bool> {
    // The owner of /proc/self is the effective user; std has no geteuid.
    Ok(fs::metadata("/proc/self").context("cannot read /proc/self")?.uid() == 0)
}

/// Refuses early, and not after ten minutes of building.
pub(crate) fn require_root(what: &str) -> Result<()> {
    ensure!(
        is_root()?,
        "{what} loads BPF programs and needs root: run `sudo -E env \"PATH=$PATH\" cargo xtask ...`"
    );
    Ok(())
}

/// The first program of this name on PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_program(file))
}

/// How many programs can work at a time.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

pub(crate) fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0)
}

/// What a short command prints, if it succeeds.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
