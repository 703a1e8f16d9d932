//! What `/proc/PID` says about a process.
//!
//! The directory is opened once and held: when the process ends and its number is used again,
//! reads through the old handle fail instead of telling about somebody else.

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

/// Longest command line or environment looked at; the kernel allows 2 MB.
const MAX_TEXT: u64 = 256 << 10;
/// Longest way from a leaf to the root of its tree; real ones have up to 5 steps.
const MAX_CHAIN: usize = 32;

pub(super) struct Process {
    pub(super) pid: u32,
    dir: OwnedFd,
}

impl Process {
    pub(super) fn open(proc: &Path, pid: u32) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(proc.join(pid.to_string()), flags, Mode::empty()).ok()?;
        Some(Self { pid, dir })
    }

    /// The processes from `root` down to `leaf`, or what is left of them.
    pub(super) fn chain(proc: &Path, leaf: u32, root: u32) -> Vec<Self> {
        let mut chain = Vec::new();
        let mut pid = leaf;
        while chain.len() < MAX_CHAIN {
            let Some(process) = Self::open(proc, pid) else {
                break;
            };
            let parent = process.parent();
            chain.push(process);
            match parent {
                _ if pid == root => break,
                Some(parent) if parent > 1 => pid = parent,
                // The tree's upper part is gone: whoever adopted the leaf is no part of it.
                _ => {
                    chain.truncate(1);
                    chain.extend(Self::open(proc, root));
                    break;
                }
            }
        }
        if chain.is_empty() {
            chain.extend(Self::open(proc, root));
        }
        chain.reverse();
        chain
    }

    fn parent(&self) -> Option<u32> {
        self.status("PPid:")?.parse().ok()
    }

    /// Real user id: the user who started it, whatever a setuid bit made of it.
    pub(super) fn user(&self) -> Option<u32> {
        self.status("Uid:")?.parse().ok()
    }

    /// First word of a line of `status`. The name in it is escaped, so no line is forged.
    fn status(&self, key: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.text("status")?).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next().map(str::to_owned)
    }

    /// The cgroups that it is in.
    pub(super) fn cgroups(&self) -> Option<String> {
        self.text("cgroup").map(|text| String::from_utf8_lossy(&text).into_owned())
    }

    pub(super) fn argv(&self) -> Vec<String> {
        let text = self.text("cmdline").unwrap_or_default();
        // A process that wrote its title into its argv pads it with NULs.
        let end = text.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        // One NUL at the end ends the last argument; empty last arguments are lost, by choice.
        let text = text.get(..end).unwrap_or_default();
        if text.is_empty() {
            return Vec::new();
        }
        text.split(|&byte| byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    }

    /// One variable of the environment it started with. The rest is not looked at.
    pub(super) fn variable(&self, name: &str) -> Option<OsString> {
        let text = self.text("environ")?;
        text.split(|&byte| byte == 0).find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(OsString::from_vec(value.to_vec()))
        })
    }

    /// Where `exe`, `cwd` or `root` points.
    pub(super) fn link(&self, name: &str) -> Option<PathBuf> {
        let target = rustix::fs::readlinkat(&self.dir, name, Vec::new()).ok()?;
        let mut target = target.into_bytes();
        if let Some(end) = target.len().checked_sub(b" (deleted)".len())
            && target.ends_with(b" (deleted)")
        {
            target.truncate(end);
        }
        Some(PathBuf::from(OsString::from_vec(target)))
    }

    /// The executable itself, even when its name is gone.
    pub(super) fn executable(&self) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = File::from(rustix::fs::openat(&self.dir, "exe", flags, Mode::empty()).ok()?);
        file.metadata().ok()?.is_file().then_some(file)
    }

    /// Its root directory: a path only.
    pub(super) fn root(&self) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, "root", flags, Mode::empty()).ok()
    }

    fn text(&self, name: &str) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, name, flags, Mode::empty()).ok()?;
        let mut text = Vec::new();
        File::from(file).take(MAX_TEXT).read_to_end(&mut text).ok()?;
        Some(text)
    }
}
