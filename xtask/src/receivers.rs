//! Receivers of events that we did not write.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    apt, servers,
    steps::Steps,
    workspace::{Workspace, on_path},
};

/// Files that tests use, and their packages.
const FILES: [(&str, &str); 4] = [
    ("/usr/sbin/rsyslogd", "rsyslog"),
    ("/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so", "rsyslog-gnutls"),
    ("/lib/systemd/systemd-journald", "systemd"),
    ("/usr/bin/journalctl", "systemd"),
];

pub(crate) fn there(_: &Workspace) -> Option<String> {
    on_path("openssl")?;
    FILES
        .iter()
        .all(|(file, _)| Path::new(file).exists())
        .then(|| "rsyslog with TLS, journald, openssl".to_owned())
}

/// Tests start them with their own files and addresses; a service of the same name is left alone.
pub(crate) fn make(_: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.begin("rsyslog, journald and openssl");
    let mut wanted: Vec<&str> =
        FILES.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package).collect();
    wanted.dedup();
    if on_path("openssl").is_none() {
        wanted.push("openssl");
    }
    apt::install(steps, &wanted, "the end-to-end stage")
}

/// Speaks HEC, OTLP and HTTP; 175 MB, so it is apart from what the servers need.
const TENZIR: &str = "6.20.0";

fn venv(workspace: &Workspace) -> PathBuf {
    workspace.target.join("e2e/tenzir")
}

pub(crate) fn tenzir_there(workspace: &Workspace) -> Option<String> {
    let venv = venv(workspace);
    let lib = std::fs::read_dir(venv.join("lib")).ok()?.next()?.ok()?.path();
    let info = lib.join(format!("site-packages/tenzir-{TENZIR}.dist-info"));
    (info.exists() && venv.join("bin/tenzir").exists()).then(|| TENZIR.to_owned())
}

pub(crate) fn make_tenzir(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.begin("Tenzir (175 MB, once)");
    let python = servers::some_python(steps, "running Tenzir")?;
    let venv = venv(workspace);
    steps.run(Command::new(&python).args(["-m", "venv", "--clear"]).arg(&venv))?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    steps
        .run(pip.arg(format!("tenzir=={TENZIR}")))
        .context("pip cannot install Tenzir (is its index reachable?)")?;
    ensure!(tenzir_there(workspace).is_some(), "pip succeeded, but Tenzir is not there");
    Ok(())
}
