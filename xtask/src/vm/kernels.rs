//! Debian's cloud kernels, fetched once and unpacked below `target/vm/`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::{archive::Archive, machine::only, steps::Steps, workspace::Workspace};

/// The kernels of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 11, the oldest that is supported
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13
    #[value(name = "6.12")]
    V6_12,
    /// The newest of Debian 13's backports
    Newest,
}

impl Kernel {
    /// What is run when nothing is asked for, and by CI.
    pub(crate) const USUAL: [Self; 2] = [Self::V6_1, Self::V6_12];
    pub(crate) const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::Newest];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }

    pub(super) fn suites(self) -> &'static [&'static str] {
        match self {
            Self::V5_10 => &["bullseye-security"],
            Self::V6_1 => &["bookworm", "bookworm-security"],
            Self::V6_12 => &["trixie", "trixie-security"],
            Self::Newest => &["trixie-backports"],
        }
    }
}

/// A virtio disk needs these, as far as they are not built in.
const DISK: [&str; 6] =
    ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"];

/// A kernel's packages, unpacked.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    pub(crate) kernel: PathBuf,
    modules: PathBuf,
    /// As `uname -r` says.
    pub(crate) release: String,
}

impl Unpacked {
    fn at(dir: &Path) -> Result<Self> {
        // Debian 13 has merged /usr.
        let places = ["lib/modules", "usr/lib/modules"].map(|place| dir.join(place));
        let place = places.into_iter().find(|place| place.is_dir());
        let modules = only(&place.with_context(|| format!("no modules in {}", dir.display()))?, "")?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // From 7.2 on it is beside the modules.
        let images = [dir.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
        let kernel = images.into_iter().find(|image| image.is_file());
        let kernel = kernel.with_context(|| format!("no vmlinuz of {release} in {}", dir.display()))?;
        Ok(Self { kernel, modules, release })
    }

    /// The modules without which there is no disk, in the order of loading. Which of them are built in is each
    /// kernel's own matter, but the last one never is.
    pub(crate) fn disk(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let mut found = Vec::new();
        for name in DISK {
            if let Some(file) = find(&self.modules.join("kernel"), name)? {
                found.push((name, module(&file)?));
            }
        }
        ensure!(
            found.last().is_some_and(|(name, _)| *name == DISK[DISK.len() - 1]),
            "{} has no module for virtio disks",
            self.release
        );
        Ok(found)
    }
}

/// A module's file, decompressed.
fn module(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|e| e != "xz") {
        return fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let done = Command::new("xz").args(["--decompress", "--stdout"]).arg(file).output();
    let done = done.context("modules of this kernel are compressed, and there is no xz")?;
    ensure!(done.status.success(), "xz fails on {}", file.display());
    Ok(done.stdout)
}

fn find(dir: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if entry.file_name().to_string_lossy().split(".ko").next() == Some(name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn place(workspace: &Workspace, kernel: Kernel) -> PathBuf {
    workspace.target.join("vm/kernels").join(kernel.name())
}

/// The kernel, if it was fetched.
pub(super) fn there(workspace: &Workspace, kernel: Kernel) -> Option<Unpacked> {
    Unpacked::at(&place(workspace, kernel)).ok()
}

/// The kernel, fetched unless it is there. To have a newer one, delete its directory.
pub(crate) fn fetch(workspace: &Workspace, steps: &Steps, kernel: Kernel) -> Result<Unpacked> {
    if let Some(there) = there(workspace, kernel) {
        return Ok(there);
    }
    let dir = place(workspace, kernel);
    let root = workspace.target.join("vm/apt").join(kernel.suites()[0]);
    steps.again(kernel.name(), || unpack_kernel(steps, &root, kernel, &dir))?;
    Unpacked::at(&dir)
}

fn unpack_kernel(steps: &Steps, root: &Path, kernel: Kernel, dir: &Path) -> Result<()> {
    let archive = Archive::open(steps, root, kernel.suites())?;
    let image = archive
        .depends("linux-image-cloud-amd64")?
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .context("linux-image-cloud-amd64 depends on no kernel")?;
    // From 7.2 on the image itself holds nothing.
    let parts = archive.depends(&image)?;
    let mut packages: Vec<String> = parts
        .into_iter()
        .filter(|p| p.starts_with("linux-binary-") || p.starts_with("linux-modules-"))
        .collect();
    packages.push(image);
    unpack(&archive, steps, &packages, dir)
}

/// A static busybox, if it was fetched.
pub(super) fn busybox_there(workspace: &Workspace) -> Option<PathBuf> {
    let dir = workspace.target.join("vm/busybox");
    ["usr/bin/busybox", "bin/busybox"].map(|p| dir.join(p)).into_iter().find(|p| p.is_file())
}

/// A static busybox, the guests' user space.
pub(crate) fn busybox(workspace: &Workspace, steps: &Steps) -> Result<PathBuf> {
    if let Some(there) = busybox_there(workspace) {
        return Ok(there);
    }
    let root = workspace.target.join("vm/apt/trixie");
    steps.again("busybox", || {
        let archive = Archive::open(steps, &root, Kernel::V6_12.suites())?;
        unpack(&archive, steps, &["busybox-static".to_owned()], &workspace.target.join("vm/busybox"))
    })?;
    busybox_there(workspace).context("the package busybox-static holds no busybox")
}

/// All or nothing: a directory that is there is complete.
fn unpack(archive: &Archive, steps: &Steps, packages: &[String], dir: &Path) -> Result<()> {
    let mut fresh = dir.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    for old in [&fresh, &dir.to_owned()] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    archive.unpack(steps, packages, &fresh)?;
    Ok(fs::rename(&fresh, dir)?)
}
