//! What tests of the service need: systemd's own check of units, setpriv, and Prometheus' check of metrics, which is unpacked and not
//! installed, for its package starts a server. And what checks and makes packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    apt,
    steps::Steps,
    workspace::{Workspace, on_path},
};

/// Programs and their packages.
const PROGRAMS: [(&str, &str); 2] = [("systemd-analyze", "systemd"), ("setpriv", "util-linux")];
/// The same for packages.
const PACKAGING: [(&str, &str); 2] = [("strip", "binutils"), ("lintian", "lintian")];

fn promtool(workspace: &Workspace) -> PathBuf {
    workspace.target.join("e2e/prometheus/usr/bin/promtool")
}

pub(crate) fn there(workspace: &Workspace) -> Option<String> {
    let mut found: Vec<PathBuf> =
        PROGRAMS.iter().map(|(program, _)| on_path(program)).collect::<Option<_>>()?;
    found.push(Some(promtool(workspace)).filter(|p| p.is_file())?);
    Some(found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))
}

pub(crate) fn make(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.begin("systemd-analyze, setpriv and promtool");
    lacking(steps, &PROGRAMS, "the tests of the service")?;
    if promtool(workspace).is_file() {
        return Ok(());
    }
    let dir = workspace.target.join("e2e/prometheus");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir)?;
    if !apt::offers("prometheus") {
        apt::update(steps)?;
    }
    steps.again("prometheus", || {
        // Fetched as the user that we are, or apt warns that its own cannot write here.
        let download = ["-o", "APT::Sandbox::User=root", "download", "prometheus"];
        steps.run(Command::new("apt-get").args(download).current_dir(&dir))
    })?;
    let deb = package_in(&dir)?;
    steps.run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&dir))?;
    fs::remove_file(deb)?;
    Ok(())
}

pub(crate) fn packaging_there(_: &Workspace) -> Option<String> {
    let found: Option<Vec<_>> = PACKAGING.iter().map(|(program, _)| on_path(program)).collect();
    Some(found?.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))
}

pub(crate) fn make_packaging(_: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.begin("strip and lintian");
    lacking(steps, &PACKAGING, "making a package")
}

fn lacking(steps: &Steps, programs: &[(&str, &str)], why: &str) -> Result<()> {
    let lacking = programs.iter().filter(|(program, _)| on_path(program).is_none());
    let wanted: Vec<&str> = lacking.map(|(_, package)| *package).collect();
    apt::install(steps, &wanted, why)
}

fn package_in(dir: &Path) -> Result<PathBuf> {
    let mut files = fs::read_dir(dir)?.flatten().map(|e| e.path());
    let found = files.find(|file| file.extension().is_some_and(|e| e == "deb"));
    let found = found.with_context(|| format!("apt-get download left nothing in {}", dir.display()))?;
    ensure!(fs::metadata(&found)?.len() > 0, "{} is empty", found.display());
    Ok(found)
}
