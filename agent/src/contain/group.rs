//! One cgroup directory: its members, its freezer, its end.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::layout::Hierarchy;

/// Deepest nesting that is looked into; what is contained may make cgroups of its own.
const DEPTH: usize = 16;

/// See above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) dir: PathBuf,
    v2: bool,
}

impl Group {
    pub(crate) fn new(hierarchy: &Hierarchy, dir: PathBuf) -> Self {
        Self { dir, v2: hierarchy.is_v2() }
    }

    pub(crate) fn make(&self) -> io::Result<()> {
        /// Another agent, or its watchdog, may take the empty directory above away in between.
        const TRIES: usize = 16;
        for _ in 1..TRIES {
            match fs::create_dir_all(&self.dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                done => return done,
            }
        }
        fs::create_dir_all(&self.dir)
    }

    /// A process with all its threads enters.
    pub(crate) fn admit(&self, pid: u32) -> io::Result<()> {
        write(&self.dir.join("cgroup.procs"), &pid.to_string())
    }

    /// Processes in it and below.
    pub(crate) fn members(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for dir in self.all() {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|l| l.parse::<u32>().ok()));
        }
        pids
    }

    /// Itself and the groups in it, outer ones first.
    fn all(&self) -> Vec<PathBuf> {
        let mut dirs = vec![self.dir.clone()];
        let mut from = 0;
        for _ in 0..DEPTH {
            let to = dirs.len();
            for at in from..to {
                let Ok(entries) = fs::read_dir(&dirs[at]) else { continue };
                let below = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
                dirs.extend(below.map(|e| e.path()));
            }
            if to == dirs.len() {
                break;
            }
            from = to;
        }
        dirs
    }

    /// Has all in it stand still, or go on.
    pub(crate) fn freeze(&self, on: bool) -> io::Result<()> {
        match (self.v2, on) {
            (true, true) => write(&self.dir.join("cgroup.freeze"), "1"),
            (true, false) => write(&self.dir.join("cgroup.freeze"), "0"),
            (false, true) => write(&self.dir.join("freezer.state"), "FROZEN"),
            (false, false) => write(&self.dir.join("freezer.state"), "THAWED"),
        }
    }

    /// Whether all in it stand still.
    pub(crate) fn is_frozen(&self) -> bool {
        if self.v2 {
            let text = fs::read_to_string(self.dir.join("cgroup.events")).unwrap_or_default();
            return text.lines().any(|l| l == "frozen 1");
        }
        fs::read_to_string(self.dir.join("freezer.state")).is_ok_and(|s| s.trim() == "FROZEN")
    }

    /// Ends all in it, where the kernel can do that in one.
    pub(crate) fn kill(&self) -> io::Result<()> {
        write(&self.dir.join("cgroup.kill"), "1")
    }

    /// Removes it and the empty groups in it; one that is gone is removed.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for dir in self.all().iter().rev() {
            match fs::remove_dir(dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    pub(crate) fn set(&self, file: &str, value: &str) -> io::Result<()> {
        write(&self.dir.join(file), value)
    }

    pub(crate) fn get(&self, file: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.dir.join(file))?.trim().to_owned())
    }
}

/// One write call, without creating the file: each is a command to the kernel.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}
