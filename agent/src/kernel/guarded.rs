//! What no server may touch: the agent's processes and files. Written into maps that the LSM programs look at; where there is no
//! LSM, such acts are only told.

use std::{
    os::{linux::fs::MetadataExt as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use abi::paths::{InodeKey, guarded};
use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData};

use super::{Kernel, take};

/// The maps.
pub(super) struct Maps {
    tasks: HashMap<MapData, u32, u64>,
    files: HashMap<MapData, InodeKey, u64>,
    watchdog: Option<u32>,
}

impl Maps {
    pub(super) fn new(ebpf: &mut aya::Ebpf) -> Result<Self> {
        Ok(Self { tasks: take(ebpf, "GUARDED_TASKS")?, files: take(ebpf, "GUARDED_FILES")?, watchdog: None })
    }
}

/// What the kernel knows a file by. Devices as it writes them: major << 20 | minor.
fn key(path: &Path) -> Option<InodeKey> {
    let found = std::fs::metadata(path).ok()?;
    let (major, minor) = (libc::major(found.st_dev()), libc::minor(found.st_dev()));
    Some(InodeKey { dev: u64::from(major << 20 | minor), ino: found.ino() })
}

/// The directories that hold a path: who renames one of them takes the path away.
fn above(path: &Path) -> impl Iterator<Item = PathBuf> {
    let real = std::fs::canonicalize(path).unwrap_or_default();
    let all: Vec<PathBuf> = real.ancestors().skip(1).map(Path::to_path_buf).collect();
    all.into_iter()
}

impl Kernel {
    /// Guards these files and directories, with all that is in them. What is not there is not guarded.
    pub(crate) fn guard_files(&mut self, paths: &[PathBuf]) -> Result<()> {
        let full = "more files to guard than the kernel programs hold";
        for path in paths {
            for holder in above(path).filter_map(|dir| key(&dir)) {
                let known = self.guarded.files.get(&holder, 0).unwrap_or(0);
                self.guarded.files.insert(holder, known | guarded::NAME, 0).context(full)?;
            }
            if let Some(own) = key(path) {
                let known = self.guarded.files.get(&own, 0).unwrap_or(0);
                self.guarded.files.insert(own, known | guarded::SUBTREE | guarded::NAME, 0).context(full)?;
            }
        }
        Ok(())
    }

    /// Guards a process, or no longer.
    pub(crate) fn guard_task(&mut self, pid: u32, on: bool) -> Result<()> {
        if on {
            return self
                .guarded
                .tasks
                .insert(pid, 1, 0)
                .context("more processes to guard than there is room");
        }
        // It may be gone already.
        let _gone = self.guarded.tasks.remove(&pid);
        Ok(())
    }

    /// Guards the watchdog that is at work, and with it the cgroups in its care.
    pub(crate) fn guard_watchdog(
        &mut self,
        pid: Option<u32>,
        cgroups: impl FnOnce() -> Vec<PathBuf>,
    ) -> Result<()> {
        if pid == self.guarded.watchdog {
            return Ok(());
        }
        if let Some(old) = self.guarded.watchdog.take() {
            self.guard_task(old, false)?;
        }
        self.guarded.watchdog = pid;
        let Some(pid) = pid else { return Ok(()) };
        self.guard_task(pid, true)?;
        self.guard_files(&cgroups())
    }

    /// A tree is a server's: it must leave the agent alone.
    pub(crate) fn is_server(&mut self, tree: u64) -> Result<()> {
        self.trees.get(&tree, 0).with_context(|| format!("tree {tree} has ended"))?;
        self.mark_server(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_as_the_kernel_knows_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let found = key(dir.path()).expect("there");
        let stat = std::fs::metadata(dir.path()).expect("there");
        assert_eq!(found.ino, stat.ino());
        assert_eq!(found.dev & 0xf_ffff, u64::from(libc::minor(stat.dev())));
        assert!(key(Path::new("/no/such/file")).is_none());
        assert_eq!(above(Path::new("/usr/bin")).collect::<Vec<_>>(), [Path::new("/usr"), Path::new("/")]);
    }
}
