//! What the end-to-end tests watch and compare with: MCP servers that we did not write, and an
//! independent observer. Versions are pinned: a test must not change because a server did.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    apt,
    steps::Steps,
    workspace::{Workspace, on_path, output},
};

const NPM_SERVERS: [(&str, &str); 4] = [
    ("@modelcontextprotocol/server-filesystem", "2026.8.31"),
    ("@modelcontextprotocol/server-everything", "2026.8.31"),
    ("@modelcontextprotocol/server-memory", "2026.8.31"),
    ("@modelcontextprotocol/server-sequential-thinking", "2026.8.31"),
];
const PYPI_SERVERS: [(&str, &str); 3] =
    [("mcp-server-git", "2026.10.19"), ("mcp-server-fetch", "2026.10.24"), ("mcp-server-time", "2026.10.19")];
/// What tests check with: who validates events, by a schema that we did not write.
const PYPI_CHECKERS: [(&str, &str); 1] = [("ocsf-json-schema", "1.2.0")];
/// What the servers' own manifests ask for.
const NODE: u32 = 18;
const PYTHON: (u32, u32) = (3, 10);

/// Programs that tests start, and their packages.
const PROGRAMS: [(&str, &str); 4] =
    [("git", "git"), ("strace", "strace"), ("ip", "iproute2"), ("hostname", "hostname")];

pub(crate) fn observer_there(_: &Workspace) -> Option<String> {
    let found: Option<Vec<_>> = PROGRAMS.iter().map(|(program, _)| on_path(program)).collect();
    Some(found?.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))
}

pub(crate) fn make_observer(_: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.begin("git, strace, ip and hostname");
    let lacking = PROGRAMS.iter().filter(|(program, _)| on_path(program).is_none());
    let wanted: Vec<&str> = lacking.map(|(_, package)| *package).collect();
    apt::install(steps, &wanted, "the end-to-end stage")
}

fn npm_dir(workspace: &Workspace) -> PathBuf {
    workspace.target.join("e2e/npm")
}

pub(crate) fn npm_there(workspace: &Workspace) -> Option<String> {
    node().ok().flatten()?;
    for (name, version) in NPM_SERVERS {
        let manifest = npm_dir(workspace).join("node_modules").join(name).join("package.json");
        let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest).ok()?).ok()?;
        (manifest.get("version")?.as_str()? == version).then_some(())?;
    }
    Some(described(&NPM_SERVERS))
}

pub(crate) fn make_npm(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.begin("MCP servers from npm");
    if node()?.is_none() || on_path("npm").is_none() {
        let wanted: Vec<&str> = [("node", "nodejs"), ("npm", "npm")]
            .into_iter()
            .filter(|(program, _)| on_path(program).is_none())
            .map(|(_, package)| package)
            .collect();
        apt::install(steps, &wanted, "running npm's MCP servers")?;
        ensure!(node()?.is_some(), "nodejs is installed, but `node` is not on PATH");
    }
    let dir = npm_dir(workspace);
    fs::create_dir_all(&dir)?;
    // Without a manifest of its own npm would climb to one in a directory above.
    fs::write(dir.join("package.json"), "{ \"private\": true }\n")?;
    let mut npm = Command::new("npm");
    npm.current_dir(&dir)
        .args(["install", "--no-audit", "--no-fund", "--save-exact", "--ignore-scripts"])
        .args(NPM_SERVERS.map(|(name, version)| format!("{name}@{version}")));
    steps.run(&mut npm).context("npm cannot install the servers (is its registry reachable?)")?;
    ensure!(npm_there(workspace).is_some(), "npm succeeded, but not all servers are there");
    Ok(())
}

/// The version of node, an error when it is too old, `None` when there is none.
fn node() -> Result<Option<u32>> {
    let Some(version) = output(Command::new("node").arg("--version")) else {
        return Ok(None);
    };
    let major = version.trim_start_matches('v').split('.').next();
    let major: u32 = major.and_then(|m| m.parse().ok()).unwrap_or(0);
    ensure!(
        major >= NODE,
        "node {version} is too old: the MCP servers need node {NODE} or later; put one first on \
         PATH and run this command again"
    );
    Ok(Some(major))
}

fn venv(workspace: &Workspace) -> PathBuf {
    workspace.target.join("e2e/venv")
}

pub(crate) fn pypi_there(workspace: &Workspace) -> Option<String> {
    let venv = venv(workspace);
    let lib = fs::read_dir(venv.join("lib")).ok()?.next()?.ok()?.path();
    for (name, version) in PYPI_SERVERS.into_iter().chain(PYPI_CHECKERS) {
        let info = format!("{}-{version}.dist-info", name.replace('-', "_"));
        lib.join("site-packages").join(info).exists().then_some(())?;
    }
    // The interpreter is a link to the system's, which an upgrade may have taken away.
    venv.join("bin/python")
        .exists()
        .then(|| format!("{}, {}", described(&PYPI_SERVERS), described(&PYPI_CHECKERS)))
}

pub(crate) fn make_pypi(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.begin("MCP servers from PyPI");
    let python = some_python(steps, "running PyPI's MCP servers")?;
    let venv = venv(workspace);
    steps.run(Command::new(&python).args(["-m", "venv", "--clear"]).arg(&venv))?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(PYPI_SERVERS.map(|(name, version)| format!("{name}=={version}")))
        .args(PYPI_CHECKERS.map(|(name, version)| format!("{name}=={version}")));
    steps.run(&mut pip).context("pip cannot install the servers (is its index reachable?)")?;
    if pypi_there(workspace).is_none() {
        bail!("pip succeeded, but not all servers are there");
    }
    Ok(())
}

/// A python, installed if there is none.
pub(crate) fn some_python(steps: &Steps, why: &str) -> Result<PathBuf> {
    if let Some(python) = python() {
        return Ok(python);
    }
    apt::install(steps, &["python3", "python3-venv"], why)?;
    python().with_context(|| {
        let (major, minor) = PYTHON;
        format!("no python3 here is {major}.{minor} or later and has venv and ensurepip")
    })
}

/// A python that is new enough and can make a venv with pip; Debian splits that off.
fn python() -> Option<PathBuf> {
    let (major, minor) = PYTHON;
    let test = format!("import sys, venv, ensurepip; sys.exit(sys.version_info < ({major}, {minor}))");
    [Path::new("python3"), Path::new("/usr/bin/python3")]
        .into_iter()
        .find(|python| output(Command::new(python).args(["-c", &test])).is_some())
        .map(Path::to_owned)
}

fn described(servers: &[(&str, &str)]) -> String {
    let names: Vec<String> = servers
        .iter()
        .map(|(name, version)| format!("{} {version}", name.rsplit('/').next().unwrap_or(name)))
        .collect();
    names.join(", ")
}
