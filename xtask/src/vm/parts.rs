//! What guests are made of: an emulator, busybox, kernels, a disk with systemd. Fetched and made once.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{
    kernels::{self, Kernel, Unpacked},
    systemd,
};
use crate::{
    apt, machine,
    steps::Steps,
    workspace::{Workspace, on_path},
};

/// Programs that each run needs, and their packages. A small machine lacks some of them.
const PROGRAMS: [(&str, &str); 3] = [("strip", "binutils"), ("dpkg-deb", "dpkg"), ("xz", "xz-utils")];

/// All of it.
pub(super) struct Parts {
    pub(super) qemu: PathBuf,
    pub(super) busybox: PathBuf,
    pub(super) kernels: Vec<(Kernel, Unpacked)>,
    pub(super) disk: Option<PathBuf>,
}

impl Parts {
    pub(super) fn fetch(
        workspace: &Workspace,
        steps: &Steps,
        kernels: &[Kernel],
        systemd: bool,
    ) -> Result<Self> {
        let qemu = machine::emulator(workspace, steps, "booting other kernels")?;
        let lacking = PROGRAMS.iter().filter(|(program, _)| on_path(program).is_none());
        let packages: Vec<&str> = lacking.map(|(_, package)| *package).collect();
        apt::install(steps, &packages, "booting other kernels")?;
        let busybox = kernels::busybox(workspace, steps)?;
        let mut unpacked = Vec::new();
        for &kernel in kernels {
            unpacked.push((kernel, kernels::fetch(workspace, steps, kernel)?));
        }
        let disk = systemd.then(|| systemd::image(workspace, steps)).transpose()?;
        Ok(Self { qemu, busybox, kernels: unpacked, disk })
    }

    pub(super) fn kernel(&self, kernel: Kernel) -> Result<&Unpacked> {
        let found = self.kernels.iter().find(|(k, _)| *k == kernel);
        Ok(&found.with_context(|| format!("{} was not fetched", kernel.name()))?.1)
    }
}

/// These kernels' releases, if [`Parts::fetch`] of them and of the disk has nothing to fetch.
pub(super) fn there(workspace: &Workspace, kernels: &[Kernel]) -> Option<String> {
    machine::emulator_there()?;
    PROGRAMS.iter().map(|(program, _)| on_path(program)).collect::<Option<Vec<_>>>()?;
    kernels::busybox_there(workspace)?;
    systemd::image_there(workspace)?;
    let releases = kernels.iter().map(|&k| Some(kernels::there(workspace, k)?.release));
    Some(releases.collect::<Option<Vec<_>>>()?.join(", "))
}
