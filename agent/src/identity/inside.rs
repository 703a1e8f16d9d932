//! Files as a process sees them.
//!
//! A server may live in another mount namespace, and every path it names may be a trap: a link
//! to a device, a fifo that blocks, a way out of its root. So paths are walked here, a component
//! at a time from the process's own root, links are followed by hand (an absolute one starts at
//! that root again), nothing but `O_PATH` is opened until it is known to be a regular file, and
//! that very file is what is read.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fmt::Write,
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::fs::{FileType, Mode, OFlags};
use sha2::{Digest, Sha256};

use super::process::Process;

/// Links on one way; the kernel's own limit.
const MAX_LINKS: usize = 40;
/// Directories in one path: each holds a descriptor while the path is walked.
const MAX_DEPTH: usize = 128;
/// Names looked at in one directory.
const MAX_NAMES: usize = 4096;

pub(super) struct Inside {
    root: OwnedFd,
    /// The root's own path, to cut it off from `cwd` and `exe` of a process in a chroot.
    outer: PathBuf,
}

/// Something that exists.
pub(super) struct Found {
    /// Where it really is, links resolved, from the process's root.
    pub(super) path: PathBuf,
    kind: FileType,
    fd: OwnedFd,
}

impl Inside {
    pub(super) fn of(process: &Process) -> Option<Self> {
        let outer = process.link("root").unwrap_or_else(|| PathBuf::from("/"));
        Some(Self { root: process.root()?, outer })
    }

    /// A path from the process's root, of a link below `/proc/PID`.
    pub(super) fn inner(&self, link: &Path) -> PathBuf {
        match link.strip_prefix(&self.outer) {
            Ok(rest) => Path::new("/").join(rest),
            // A file from elsewhere, say a mount that the process cannot name.
            Err(_) => link.to_path_buf(),
        }
    }

    /// Find what is at an absolute path.
    pub(super) fn look(&self, path: &Path) -> Option<Found> {
        if !path.is_absolute() {
            return None;
        }
        let mut ahead: VecDeque<OsString> = components(path).collect();
        let mut walked: Vec<(OsString, OwnedFd, FileType)> = Vec::new();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                walked.pop();
                continue;
            }
            let here = walked.last().map_or(self.root.as_fd(), |(_, fd, _)| fd.as_fd());
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(here, &name, flags, Mode::empty()).ok()?;
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd).ok()?.st_mode);
            if kind.is_symlink() {
                links += 1;
                let target = rustix::fs::readlinkat(&fd, "", Vec::new()).ok()?.into_bytes();
                let target = PathBuf::from(OsString::from_vec(target));
                if target.is_absolute() {
                    walked.clear();
                }
                components(&target).rev().for_each(|part| ahead.push_front(part));
                if links > MAX_LINKS || ahead.len() > MAX_DEPTH {
                    return None;
                }
            } else {
                walked.push((name, fd, kind));
                if walked.len() > MAX_DEPTH {
                    return None;
                }
            }
        }
        let mut path = PathBuf::from("/");
        path.extend(walked.iter().map(|(name, _, _)| name));
        match walked.pop() {
            Some((_, fd, kind)) => Some(Found { path, kind, fd }),
            None => {
                let fd = self.root.try_clone().ok()?;
                Some(Found { path, kind: FileType::Directory, fd })
            }
        }
    }

    /// A regular file.
    pub(super) fn file(&self, path: &Path) -> Option<Found> {
        self.look(path).filter(|found| found.kind.is_file())
    }

    /// A directory.
    pub(super) fn dir(&self, path: &Path) -> Option<Found> {
        self.look(path).filter(|found| found.kind.is_dir())
    }

    /// Text of a regular file, unless it is longer than `cap`.
    pub(super) fn text(&self, path: &Path, cap: u64) -> Option<String> {
        self.file(path)?.text(cap)
    }

    /// Names in a directory, in order.
    pub(super) fn names(&self, dir: &Path) -> Vec<String> {
        let Some(found) = self.dir(dir) else {
            return Vec::new();
        };
        let Ok(entries) = std::fs::read_dir(found.handle()) else {
            return Vec::new();
        };
        let names = entries.take(MAX_NAMES).flatten();
        let mut names: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

impl Found {
    pub(super) fn is_dir(&self) -> bool {
        self.kind.is_dir()
    }

    pub(super) fn is_file(&self) -> bool {
        self.kind.is_file()
    }

    /// The way to this very object. Our own `/proc`, whatever the mount that is read elsewhere.
    fn handle(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    pub(super) fn open(&self) -> Option<File> {
        if !self.is_file() {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::open(self.handle(), flags, Mode::empty()).ok().map(File::from)
    }

    pub(super) fn text(&self, cap: u64) -> Option<String> {
        let mut bytes = Vec::new();
        self.open()?.take(cap + 1).read_to_end(&mut bytes).ok()?;
        let fits = u64::try_from(bytes.len()).is_ok_and(|len| len <= cap);
        fits.then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// SHA-256 in hex, unless there are more than `cap` bytes: part of a file is no identity.
pub(super) fn digest(mut file: File, cap: u64) -> Option<String> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let read = file.read(&mut chunk).ok()?;
        if read == 0 {
            break;
        }
        total += u64::try_from(read).ok()?;
        if total > cap {
            return None;
        }
        hash.update(chunk.get(..read)?);
    }
    let mut hex = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        write!(hex, "{byte:02x}").ok()?;
    }
    Some(hex)
}

fn components(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Whether a path's bytes are fit for output: readable, no control characters.
pub(super) fn printable(path: &Path) -> Option<String> {
    let text = OsStr::from_bytes(path.as_os_str().as_bytes()).to_string_lossy().into_owned();
    (!text.chars().any(char::is_control)).then_some(text)
}
