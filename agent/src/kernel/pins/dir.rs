//! The directory of pins: on a bpf file system, root's, and one agent's at a time.

use std::{
    ffi::CString,
    fs::{self, DirBuilder},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, MetadataExt as _},
        },
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, statfs},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

/// Where bpf file systems say what they are.
const BPF_FS: u64 = 0xcafe_4a11;
const OBJ_PIN: libc::c_int = 6;

/// The directory, which no other agent uses meanwhile.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    lock: OwnedFd,
}

fn is_bpf(path: &Path) -> bool {
    statfs(path).is_ok_and(|s| u64::try_from(s.f_type) == Ok(BPF_FS))
}

/// Nobody but root may put anything there: what is pinned is adopted.
fn trusted(path: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    if !meta.is_dir() || meta.uid() != 0 || meta.mode() & 0o077 != 0 {
        bail!(
            "{} must be a directory of root's with mode 0700: what is pinned there decides what is denied. Look who made it, and \
             remove it, or give another one (--pin-dir)",
            path.display()
        );
    }
    Ok(())
}

impl Dir {
    /// The directory, if something may be pinned there.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot use {} (--pin-dir)", path.display())),
            Ok(_) if !is_bpf(path) => return Ok(None),
            Ok(_) => {}
        }
        trusted(path)?;
        let context = || format!("cannot use {} (--pin-dir)", path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::open(path, flags, Mode::empty()).with_context(context)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), lock })),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                bail!(
                    "another agent uses {}: give this one a directory of its own (--pin-dir)",
                    path.display()
                )
            }
            Err(e) => Err(e).with_context(context),
        }
    }

    /// The same; makes it, and mounts a bpf file system where there is none.
    pub(super) fn make(path: &Path) -> Result<Self> {
        let context = || format!("nothing can be pinned in {} (--pin-dir)", path.display());
        if !is_bpf(path) {
            let above = path.parent().unwrap_or(Path::new("/"));
            let own = DirBuilder::new().recursive(true).mode(0o700).create(path);
            match own {
                // Below a bpf file system.
                Ok(()) if is_bpf(path) => {}
                Ok(()) => mount_at(path).with_context(context)?,
                // Where systemd would have mounted one.
                Err(_) if above.is_dir() && !is_bpf(above) => {
                    mount_at(above).with_context(context)?;
                    DirBuilder::new().mode(0o700).create(path).with_context(context)?;
                }
                Err(e) => return Err(e).with_context(context),
            }
        }
        Self::open(path)?.with_context(context)
    }

    /// Layouts that something is pinned of.
    pub(super) fn layouts(&self) -> Vec<String> {
        layouts(&self.path)
    }

    pub(super) fn at(&self, layout: &str) -> PathBuf {
        self.path.join(layout)
    }

    /// Takes everything away, and the directory with it.
    pub(super) fn remove(self) -> Result<()> {
        for layout in self.layouts() {
            remove_layout(&self.at(&layout))?;
        }
        let Self { path, lock } = self;
        let device = |p: &Path| fs::metadata(p).map(|m| m.dev()).ok();
        drop(lock);
        if path.parent().and_then(device) != device(&path) {
            unmount(&path, UnmountFlags::empty())
                .with_context(|| format!("cannot unmount {}", path.display()))?;
        }
        fs::remove_dir(&path).with_context(|| format!("cannot remove {}", path.display()))
    }
}

fn mount_at(path: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("bpf", path, "bpf", flags, c"mode=0700")?)
}

/// The kernel puts files of its own into the root of a bpf file system.
pub(super) fn layouts(path: &Path) -> Vec<String> {
    names(path).into_iter().filter(|name| path.join(name).is_dir()).collect()
}

/// What is in a directory. One that is not there is empty.
pub(super) fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Links first: maps without them deny nothing.
pub(super) fn remove_layout(path: &Path) -> Result<()> {
    for part in [super::LINKS, super::MAPS] {
        match fs::remove_dir_all(path.join(part)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("cannot remove {}", path.join(part).display()));
            }
            _ => {}
        }
    }
    fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))
}

pub(super) fn make_dir(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make {}", path.display()))
}

/// Pins a map or link of ours.
pub(super) fn pin(fd: i32, path: &Path) -> Result<()> {
    let name = CString::new(path.as_os_str().as_bytes()).context("a path with a zero byte")?;
    // pathname | bpf_fd, file_flags
    let mut attr = [name.as_ptr() as u64, u64::from(fd.cast_unsigned())];
    // SAFETY: the kernel reads at most the given size of a live array; the path in it lives until after the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, OBJ_PIN, attr.as_mut_ptr(), size_of_val(&attr)) };
    if done < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("cannot pin {}", path.display()));
    }
    Ok(())
}
