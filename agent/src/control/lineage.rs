//! Where a process comes from, by `/proc`.
//!
//! Parents end while one looks, and their numbers are used again; so each process is held by a
//! handle of its directory, and a step up counts only if the child still has the same parent after
//! the parent's handle was opened.

use std::{
    fs::File,
    io::Read as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use super::{
    Peer,
    authorise::{Ancestor, Lineage, Role},
};
use crate::clients;

/// Deepest lineage that is followed; real ones have up to 20 steps.
const MAX_DEPTH: usize = 256;
/// How often a step is tried anew when the parent changed meanwhile.
const TRIES: usize = 4;
/// Of a command line, only the program and its script matter.
const MAX_ARGV: u64 = 16 << 10;

/// When a process started, in the kernel's ticks.
pub(super) fn started(pid: u32) -> Option<u64> {
    Some(Process::open(Path::new("/proc"), pid)?.stat()?.started)
}

/// The lineage of a peer. May block: a hostile process can stall a look at its command line.
pub(crate) fn of(peer: &Peer, role: &dyn Fn(u32) -> Role) -> Lineage {
    if peer.pid == 0 || !peer.alive() {
        return Lineage::Unreadable("the process that asked has ended".into());
    }
    let lineage = walk(Path::new("/proc"), peer.pid, role);
    // Only now is it certain that the number meant the peer all the time.
    if !peer.alive() {
        return Lineage::Unreadable("the process that asked has ended".into());
    }
    lineage
}

fn walk(proc: &Path, pid: u32, role: &dyn Fn(u32) -> Role) -> Lineage {
    let unreadable = |pid: u32| Lineage::Unreadable(format!("cannot read process {pid}"));
    let mut ancestors = Vec::new();
    let Some(mut process) = Process::open(proc, pid) else {
        return unreadable(pid);
    };
    loop {
        let Some(ancestor) = process.describe(role) else {
            return unreadable(process.pid);
        };
        ancestors.push(ancestor);
        if process.pid == 1 {
            return Lineage::Known(ancestors);
        }
        if ancestors.len() >= MAX_DEPTH {
            return Lineage::Unreadable(format!("more than {MAX_DEPTH} ancestors"));
        }
        process = match process.parent(proc) {
            Ok(parent) => parent,
            Err(why) => return Lineage::Unreadable(why),
        };
    }
}

struct Process {
    pid: u32,
    dir: OwnedFd,
}

struct Stat {
    parent: u32,
    started: u64,
}

impl Process {
    fn open(proc: &Path, pid: u32) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(proc.join(pid.to_string()), flags, Mode::empty()).ok()?;
        Some(Self { pid, dir })
    }

    fn parent(&self, proc: &Path) -> Result<Self, String> {
        let gone = || format!("process {} ended meanwhile", self.pid);
        for _ in 0..TRIES {
            let before = self.stat().ok_or_else(gone)?;
            if before.parent == 0 {
                // A shell that was put into our PID namespace from outside.
                return Err(format!("the parent of process {} is in another PID namespace", self.pid));
            }
            let Some(parent) = Self::open(proc, before.parent) else { continue };
            let Some(of_parent) = parent.stat() else { continue };
            let after = self.stat().ok_or_else(gone)?;
            if after.parent == before.parent && of_parent.started <= before.started {
                return Ok(parent);
            }
        }
        Err(format!("cannot read the parent of process {}", self.pid))
    }

    fn describe(&self, role: &dyn Fn(u32) -> Role) -> Option<Ancestor> {
        // Kernel threads and pid 1 of some containers have no executable that we may read; what
        // they are is still known by number.
        let exe = rustix::fs::readlinkat(&self.dir, "exe", Vec::new())
            .map(|target| String::from_utf8_lossy(target.as_bytes()).into_owned());
        let exe = match exe {
            Ok(exe) => exe,
            Err(_) if self.pid == 1 => String::new(),
            Err(_) => return None,
        };
        let mut role = role(self.pid);
        if role == Role::Other
            && let Some(client) = clients::known_client(&exe, &self.argv()?)
        {
            role = Role::Client(client);
        }
        // The number meant this process while its role was asked.
        self.stat()?;
        Some(Ancestor { pid: self.pid, exe, role })
    }

    /// Parent and start time. The name in it is in parentheses and may hold anything, parentheses
    /// too: what follows the last one is the kernel's.
    fn stat(&self) -> Option<Stat> {
        let text = self.text("stat", 4096)?;
        let end = text.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        // After the name: state (3), parent (4), ... start time (22).
        let parent = fields.nth(1)?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Stat { parent, started })
    }

    fn argv(&self) -> Option<Vec<String>> {
        let text = self.text("cmdline", MAX_ARGV)?;
        let words = text.split(|&byte| byte == 0).filter(|word| !word.is_empty());
        Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
    }

    fn text(&self, name: &str, max: u64) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, PathBuf::from(name), flags, Mode::empty()).ok()?;
        let mut text = Vec::new();
        File::from(file).take(max).read_to_end(&mut text).ok()?;
        Some(text)
    }
}
