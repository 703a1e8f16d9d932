//! A guest whose process 1 is systemd: a small Debian on a disk, made once.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::kernels::Kernel;
use crate::{apt, archive::Archive, machine::path_with_sbin, steps::Steps, workspace::Workspace};

/// The release in the guest; which kernel runs it does not matter.
const SUITE: &str = "trixie";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,procps,rsyslog";
const SIZE: &str = "1500M";

/// The service that runs what the guest is for.
const UNIT: &str = "[Unit]
Description=What this guest is for
[Service]
ExecStart=/run-job
Delegate=yes
[Install]
WantedBy=multi-user.target
";

fn place(workspace: &Workspace) -> PathBuf {
    workspace.target.join("vm/systemd/root.ext4")
}

/// The file system image, if it was made.
pub(super) fn image_there(workspace: &Workspace) -> Option<PathBuf> {
    Some(place(workspace)).filter(|image| image.is_file())
}

/// The file system image, made unless it is there. To have newer packages, delete it.
pub(super) fn image(workspace: &Workspace, steps: &Steps) -> Result<PathBuf> {
    if let Some(there) = image_there(workspace) {
        return Ok(there);
    }
    let image = place(workspace);
    let dir = workspace.target.join("vm/systemd");
    let root = dir.join("root");
    fs::create_dir_all(&dir)?;
    apt::install(steps, &["mmdebstrap", "e2fsprogs"], "the guest with systemd")?;
    steps.again("a system with systemd", || {
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let apt = workspace.target.join("vm/apt").join(SUITE);
        let archive = Archive::open(steps, &apt, Kernel::V6_12.suites())?;
        steps.run(
            Command::new("mmdebstrap")
                .args(["--variant=minbase", "--mode=root", "--include", PACKAGES, "--aptopt"])
                .arg(archive.acquire())
                .args([SUITE])
                .arg(&root)
                .arg(archive.sources()),
        )
    })?;
    let units = root.join("etc/systemd/system");
    fs::write(units.join("job.service"), UNIT)?;
    fs::create_dir_all(units.join("multi-user.target.wants"))?;
    let wanted = units.join("multi-user.target.wants/job.service");
    std::os::unix::fs::symlink("../job.service", &wanted)
        .with_context(|| format!("cannot make {}", wanted.display()))?;
    fs::write(root.join("etc/hostname"), "guest\n")?;
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    let fresh = dir.join("root.new");
    if fresh.exists() {
        fs::remove_file(&fresh)?;
    }
    steps.run(
        Command::new("mke2fs")
            .env("PATH", path_with_sbin()?)
            .args(["-q", "-F", "-t", "ext4", "-d"])
            .arg(&root)
            .arg(&fresh)
            .arg(SIZE),
    )?;
    fs::remove_dir_all(&root)?;
    fs::rename(&fresh, &image)?;
    Ok(image)
}

/// What the guest must say of itself before its program runs.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) running: String,
    pub(super) controllers: String,
}

impl State {
    /// Takes a line that tells it.
    pub(super) fn take(&mut self, line: &str) -> bool {
        for (prefix, field) in [("systemd: ", &mut self.running), ("controllers: ", &mut self.controllers)] {
            if let Some(text) = line.strip_prefix(prefix) {
                text.clone_into(field);
                return true;
            }
        }
        false
    }

    /// Everything started, and every controller is there.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.running == "running", "systemd says `{}`: see the guest's console", self.running);
        for wanted in ["cpuset", "cpu", "io", "memory", "pids"] {
            ensure!(
                self.controllers.split(' ').any(|c| c == wanted),
                "no controller {wanted} among `{}`",
                self.controllers
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_did_not_come_up_is_refused() {
        let mut state = State::default();
        assert!(state.take("systemd: running"));
        assert!(state.take("controllers: cpuset cpu io memory hugetlb pids"));
        assert!(!state.take("test a ... ok"));
        assert!(state.check().is_ok());
        assert!(state.take("controllers: cpu memory"));
        assert!(state.check().is_err());
        assert!(State { running: "degraded".into(), ..state }.check().is_err());
    }
}
