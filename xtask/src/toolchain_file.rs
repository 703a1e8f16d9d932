//! The BPF toolchain that `cargo xtask setup` chose, and how to call it.
//!
//! `agent/build.rs` includes this file as well, so it uses std only and one file says both what
//! `target/bpf-toolchain.toml` holds and which environment a BPF build needs.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// What every BPF build passes to cargo.
///
/// No distribution ships a compiled core for this target, hence `build-std`. `--locked`: a nested
/// cargo must never rewrite the lock file that the outer one is working from.
pub(crate) const BUILD_ARGS: [&str; 6] =
    ["--release", "--locked", "--target", "bpfel-unknown-none", "-Z", "build-std=core"];

/// The one sentence for whoever builds before setting up.
pub(crate) const NOT_SET_UP: &str =
    "the BPF toolchain is not set up: run `cargo xtask setup` once, then build again";

/// A compiler with the sources of core, its cargo, and a linker for its bitcode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) linker: PathBuf,
    /// First line of `rustc --version` at set-up: another one means that it must be proved anew.
    pub(crate) version: String,
}

impl Toolchain {
    /// Where the choice is kept: always the workspace's own target directory, so that builds with
    /// another `CARGO_TARGET_DIR` find it too.
    pub(crate) fn file(workspace: &Path) -> PathBuf {
        workspace.join("target/bpf-toolchain.toml")
    }

    /// Reads the choice; `Ok(None)` when nobody has set up yet.
    pub(crate) fn read(workspace: &Path) -> Result<Option<Self>, String> {
        let file = Self::file(workspace);
        match fs::read_to_string(&file) {
            Ok(text) => Self::parse(&text)
                .map(Some)
                .map_err(|what| format!("{}: {what}; run `cargo xtask setup`", file.display())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(format!("cannot read {}: {e}", file.display())),
        }
    }

    /// Only the flat `key = "value"` part of TOML: a build script should not compile a TOML parser.
    fn parse(text: &str) -> Result<Self, String> {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.trim() == key)
                .and_then(|(_, v)| v.trim().strip_prefix('"')?.strip_suffix('"'))
                .map(str::to_owned)
                .ok_or_else(|| format!("`{key} = \"...\"` is missing"))
        };
        Ok(Self {
            cargo: value("cargo")?.into(),
            rustc: value("rustc")?.into(),
            linker: value("linker")?.into(),
            version: value("version")?,
        })
    }

    /// A command of this toolchain: `program` is its cargo, or its cargo-clippy.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        scrub(&mut command);
        command
            .env("CARGO", &self.cargo)
            .env("RUSTC", &self.rustc)
            // `-Z build-std` and the BPF target's attributes are unstable; this lets a stable
            // compiler do what a nightly does.
            .env("RUSTC_BOOTSTRAP", "1")
            // BTF is made from debug info; the profile's own setting is for the agent.
            .env("RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf")
            .env("PATH", self.path());
        command
    }

    /// rustc looks for `bpf-linker` on PATH, and cargo-clippy for `cargo`.
    fn path(&self) -> OsString {
        let first = [&self.linker, &self.cargo].map(|tool| tool.parent().unwrap_or(Path::new("/")));
        let mut path = OsString::new();
        for dir in first {
            path.push(dir);
            path.push(":");
        }
        path.push(env::var_os("PATH").as_deref().unwrap_or(OsStr::new("")));
        path
    }
}

/// The text of the file; `Display` so that build.rs, which never writes it, sees it used nowhere.
impl std::fmt::Display for Toolchain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::from("# Written by `cargo xtask setup`; agent/build.rs reads it.\n");
        for (key, value) in [
            ("cargo", self.cargo.display().to_string()),
            ("rustc", self.rustc.display().to_string()),
            ("linker", self.linker.display().to_string()),
            ("version", self.version.clone()),
        ] {
            writeln!(text, "{key} = \"{value}\"")?;
        }
        f.write_str(&text)
    }
}

/// Takes the calling cargo's environment away from a nested one.
///
/// Left in place, `RUSTC_WORKSPACE_WRAPPER` would lint with the wrong clippy, `RUSTUP_TOOLCHAIN`
/// and `LD_LIBRARY_PATH` would mix two toolchains, and encoded flags would win over ours. How to
/// reach the registry stays.
pub(crate) fn scrub(command: &mut Command) {
    const KEPT: [&str; 6] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];
    const TAKEN: [&str; 7] =
        ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CLIPPY_", "LD_LIBRARY_PATH"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let starts = |prefixes: &[&str]| prefixes.iter().any(|p| text.starts_with(p));
        if starts(&TAKEN) && !starts(&KEPT) {
            command.env_remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let toolchain = Toolchain {
            cargo: "/usr/bin/cargo".into(),
            rustc: "/usr/bin/rustc".into(),
            linker: "/w/target/tools/bin/bpf-linker".into(),
            version: "rustc 1.96.0 (ac68faa20 2026-05-25)".to_owned(),
        };
        assert_eq!(Toolchain::parse(&toolchain.to_string()), Ok(toolchain));
    }

    #[test]
    fn a_missing_key_is_named() {
        let error = Toolchain::parse("cargo = \"/c\"\nrustc = \"/r\"\n");
        assert_eq!(error, Err("`linker = \"...\"` is missing".to_owned()));
    }
}
