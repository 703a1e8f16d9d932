//! What no server may touch: the agent's processes, files, cgroups and BPF objects. Written into maps that the LSM programs look
//! at; where there is no LSM, such acts are only told. The maps outlive the agent: what it keeps stays guarded while it is dead.

use std::{
    collections::HashSet,
    os::{linux::fs::MetadataExt as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use abi::paths::{GuardedTask, InodeKey, TICK_NS, guarded, object};
use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData};
use engine::output::CoverageState;

use super::{Kernel, links, take};
use crate::running;

/// The maps.
pub(super) struct Maps {
    tasks: HashMap<MapData, u32, GuardedTask>,
    files: HashMap<MapData, InodeKey, u64>,
    objects: HashMap<MapData, u64, u64>,
    watchdog: Option<u32>,
    /// Acts against processes are denied, not only told.
    denied: bool,
    /// Files of this agent's. What else there is was one's before it.
    own: HashSet<InodeKey>,
}

impl Maps {
    pub(super) fn new(ebpf: &mut aya::Ebpf) -> Result<Self> {
        Ok(Self {
            tasks: take(ebpf, "GUARDED_TASKS")?,
            files: take(ebpf, "GUARDED_FILES")?,
            objects: take(ebpf, "GUARDED_BPF")?,
            watchdog: None,
            denied: false,
            own: HashSet::new(),
        })
    }

    fn add(&mut self, key: InodeKey, how: u64) -> Result<()> {
        let known = if self.own.insert(key) { 0 } else { self.files.get(&key, 0).unwrap_or(0) };
        if known | how != known {
            let full = "more files to guard than the kernel programs hold";
            self.files.insert(key, known | how, 0).context(full)?;
        }
        Ok(())
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

/// Number of the namespace of mounts that servers must leave as it is: the host's, where people and the next agent look for our
/// files. A service manager gives us one of our own, which no server can reach. 0 if it cannot be told.
pub(super) fn mount_namespace() -> u32 {
    let of = |process: &str| std::fs::metadata(format!("/proc/{process}/ns/mnt")).map(|m| m.ino());
    let found = of("1").or_else(|_| of("self")).unwrap_or(0);
    u32::try_from(found).unwrap_or(0)
}

impl Kernel {
    /// Guards these files and directories, with all that is in them. What is not there is not guarded.
    pub(crate) fn guard_files(&mut self, paths: &[PathBuf]) -> Result<()> {
        for path in paths {
            for holder in above(path).filter_map(|dir| key(&dir)) {
                self.guarded.add(holder, guarded::NAME)?;
            }
            if let Some(own) = key(path) {
                self.guarded.add(own, guarded::SUBTREE | guarded::NAME)?;
            }
        }
        Ok(())
    }

    /// Guards the files of these directories, by which cgroups that we are in are frozen, limited and killed.
    pub(crate) fn guard_inside(&mut self, dirs: &[PathBuf]) -> Result<()> {
        let keys = dirs.iter().filter_map(|dir| key(dir));
        keys.into_iter().try_for_each(|dir| self.guarded.add(dir, guarded::INSIDE))
    }

    /// This agent guards what it wants to: what one before it did is over.
    pub(crate) fn guard_nothing_else(&mut self) {
        let all: Vec<InodeKey> = self.guarded.files.keys().filter_map(Result::ok).collect();
        for old in all.iter().filter(|k| !self.guarded.own.contains(k)) {
            let _gone = self.guarded.files.remove(old);
        }
        // The watchdog of an agent before this one may be at work still.
        let tasks: Vec<(u32, GuardedTask)> = self.guarded.tasks.iter().filter_map(Result::ok).collect();
        for (pid, task) in tasks {
            if running::start_of(pid).is_none_or(|start| start / TICK_NS != task.start_ns / TICK_NS) {
                let _gone = self.guarded.tasks.remove(&pid);
            }
        }
    }

    /// Guards a process, or no longer.
    pub(crate) fn guard_task(&mut self, pid: u32, on: bool) -> Result<()> {
        if !on {
            // It may be gone already.
            let _gone = self.guarded.tasks.remove(&pid);
            return Ok(());
        }
        // It may have ended: nobody need be guarded then.
        let Some(start_ns) = running::start_of(pid) else { return Ok(()) };
        let denies =
            |hook: &str| self.coverage.iter().any(|c| c.hook == hook && c.state == CoverageState::Enforcing);
        self.guarded.denied |= denies("lsm/task_kill") && denies("lsm/ptrace_access_check");
        let task = GuardedTask { start_ns, denied: u64::from(self.guarded.denied) };
        self.guarded.tasks.insert(pid, task, 0).context("more processes to guard than there is room")
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

    /// Guards the maps, programs and links that this process holds, and no others.
    pub(super) fn guard_objects(&mut self) {
        let done = links::objects().and_then(|all| {
            let full = "more BPF objects to guard than there is room";
            let new: HashSet<u64> = all.into_iter().collect();
            let known: HashSet<u64> = self.guarded.objects.keys().filter_map(Result::ok).collect();
            for object in new.difference(&known) {
                self.guarded.objects.insert(object, 1, 0).context(full)?;
            }
            for gone in known.difference(&new) {
                let _gone = self.guarded.objects.remove(gone);
            }
            Ok(())
        });
        if let Err(e) = done {
            tracing::warn!("servers may reach maps and links of the agent: {e:#}");
        }
    }

    /// A tree is a server's: it must leave the agent alone.
    pub(crate) fn is_server(&mut self, tree: u64) -> Result<()> {
        self.trees.get(&tree, 0).with_context(|| format!("tree {tree} has ended"))?;
        self.mark_server(tree)
    }
}

/// Key of what a descriptor's fdinfo tells of a BPF object. A link tells of its program, too.
pub(super) fn object_of(fdinfo: &str) -> Option<u64> {
    let number = |name: &str| {
        let mut found = fdinfo.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.next()?.trim().parse::<u32>().ok().map(u64::from)
    };
    let link = number("link_id").map(|id| object::LINK | id);
    let program = || number("prog_id").map(|id| object::PROGRAM | id);
    link.or_else(|| number("map_id").map(|id| object::MAP | id)).or_else(program)
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
        assert_ne!(mount_namespace(), 0);
    }

    #[test]
    fn an_object_is_known_by_its_fdinfo() {
        let link = "pos:\t0\nlink_type:\ttracing\nlink_id:\t41\nprog_tag:\ta2\nprog_id:\t77\n";
        assert_eq!(object_of(link), Some(object::LINK | 41));
        assert_eq!(object_of("map_type:\t1\nmap_id:\t5\nfrozen:\t0\n"), Some(object::MAP | 5));
        assert_eq!(object_of("prog_type:\t3\nprog_id:\t6\n"), Some(object::PROGRAM | 6));
        assert_eq!(object_of("pos:\t0\n"), None);
    }
}
