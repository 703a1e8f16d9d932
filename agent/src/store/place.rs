//! The state directory: who may touch it, who holds it, and where damaged databases go.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};

use super::error::{Error, Result};

/// Name of the database.
pub(super) const DATABASE: &str = "toolwarden.db";
/// Held by the one agent that writes. Not the database itself: closing any handle of a file drops
/// all POSIX locks that SQLite has on it.
const LOCK: &str = "toolwarden.lock";
/// Damaged databases that are kept. On a dying disk each start may make one.
const KEPT: usize = 3;

/// The state directory, held by this process until dropped.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    lock: File,
    /// An agent made a database here before, so that an absent one was taken away.
    pub(super) used: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Closing is not enough: a process that was just forked to run a program has the lock, too, until it runs it. If this
        // fails, it ends with that process.
        let _unused = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }
}

/// A database that was moved out of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aside {
    /// Where it is now; `None` if there was no file left to move.
    pub(crate) to: Option<PathBuf>,
    /// Older ones that were deleted to make room.
    pub(crate) dropped: Vec<PathBuf>,
}

impl Place {
    /// Makes the directory if it is absent, refuses it if others could have prepared it, holds it.
    pub(super) fn hold(dir: &Path) -> Result<Self> {
        match rustix::fs::mkdir(dir, Mode::RWXU) {
            // Its own name has to last, too.
            Ok(()) => sync(&dir.join(".."))?,
            Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::io("make the directory", dir)(e)),
        }
        let dir = checked(dir)?;
        let path = dir.join(LOCK);
        let mut lock = open(&path, OFlags::RDWR | OFlags::CREATE)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let named = lock.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if named { format!(" (process {})", holder.trim()) } else { String::new() };
                return Err(Error::Held { dir, holder });
            }
            Err(e) => return Err(Error::io("lock", path)(e)),
        }
        let used = lock.metadata().map_err(Error::io("look at", &path))?.len() > 0;
        Ok(Self { dir, lock, used })
    }

    /// Says who holds it, and that from now on a database is to be found here.
    pub(super) fn sign(&self) -> Result<()> {
        let text = format!("{}\n", std::process::id());
        let write = || {
            self.lock.write_all_at(text.as_bytes(), 0)?;
            self.lock.set_len(text.len() as u64)?;
            (&self.lock).flush()
        };
        write().map_err(Error::io("write", self.dir.join(LOCK)))
    }

    /// Path of the database.
    pub(super) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    /// The database file, if there is one; its mode is made 0600.
    pub(super) fn file(&self) -> Result<Option<File>> {
        match open(&self.database(), OFlags::RDONLY) {
            Ok(file) => Ok(Some(file)),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes an empty database file, mode 0600 whatever the umask: SQLite gives the WAL the same.
    pub(super) fn create(&self) -> Result<()> {
        open(&self.database(), OFlags::RDWR | OFlags::CREATE).map(drop)
    }

    /// Whether a WAL with content lies beside the database.
    pub(super) fn has_wal(&self) -> bool {
        fs::symlink_metadata(with_suffix(&self.database(), "-wal")).is_ok_and(|m| m.len() > 0)
    }

    /// Moves the database out of the way, its WAL with it: whoever looks at it needs both.
    pub(super) fn move_aside(&self, now_ns: i64) -> Result<Aside> {
        let database = self.database();
        let seconds = now_ns / 1_000_000_000;
        let to = (0..)
            .map(|n| if n == 0 { format!("{seconds}") } else { format!("{seconds}-{n}") })
            .map(|stamp| with_suffix(&database, &format!(".corrupt-{stamp}")))
            .find(|path| fs::symlink_metadata(path).is_err())
            .unwrap_or_else(|| with_suffix(&database, ".corrupt"));
        let mut moved = false;
        for suffix in ["", "-wal", "-shm"] {
            let (from, to) = (with_suffix(&database, suffix), with_suffix(&to, suffix));
            match fs::rename(&from, &to) {
                Ok(()) => moved = true,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io("move it aside", from)(e)),
            }
        }
        let dropped = self.drop_old()?;
        self.sync()?;
        Ok(Aside { to: moved.then_some(to), dropped })
    }

    fn drop_old(&self) -> Result<Vec<PathBuf>> {
        let prefix = format!("{DATABASE}.corrupt-");
        let list = || -> std::io::Result<Vec<_>> {
            let mut found = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(&prefix) && !name.ends_with("-wal") && !name.ends_with("-shm") {
                    found.push((entry.metadata()?.modified()?, entry.path()));
                }
            }
            found.sort();
            Ok(found)
        };
        let mut found = list().map_err(Error::io("list", &self.dir))?;
        found.truncate(found.len().saturating_sub(KEPT));
        let dropped: Vec<PathBuf> = found.into_iter().map(|(_, path)| path).collect();
        for path in &dropped {
            for suffix in ["", "-wal", "-shm"] {
                match fs::remove_file(with_suffix(path, suffix)) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("delete", path)(e));
                    }
                    _ => {}
                }
            }
        }
        Ok(dropped)
    }

    /// What SQLite calls an I/O error may have a plainer name.
    pub(super) fn explain(&self, error: Error) -> Error {
        match rustix::fs::statvfs(&self.dir) {
            Ok(disk) if matches!(error, Error::Sql { .. }) && disk.f_bavail == 0 => {
                Error::Full { dir: self.dir.clone(), source: Box::new(error) }
            }
            _ => error,
        }
    }

    /// Makes names durable: a database whose name is lost is lost.
    pub(super) fn sync(&self) -> Result<()> {
        sync(&self.dir)
    }
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("sync", dir))
}

/// The directory's real path, if only its owner can write into it.
pub(super) fn checked(dir: &Path) -> Result<PathBuf> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = match rustix::fs::open(dir, flags, Mode::empty()) {
        Ok(handle) => File::from(handle),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            return Err(Error::Kind { path: dir.into(), wanted: "a directory" });
        }
        Err(e) => return Err(Error::io("open", dir)(e)),
    };
    let meta = handle.metadata().map_err(Error::io("look at", dir))?;
    own(dir, meta.uid())?;
    if meta.mode() & 0o022 != 0 {
        return Err(Error::Writable { path: dir.into(), mode: meta.mode() & 0o7777 });
    }
    // SQLite's own refusal of links looks at every part of a path, and `/var` may well be one.
    dir.canonicalize().map_err(Error::io("find", dir))
}

/// Opens a regular file of our own without following a link or waiting for a FIFO.
fn open(path: &Path, flags: OFlags) -> Result<File> {
    let wanted = "a regular file with one name";
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let private = Mode::RUSR | Mode::WUSR;
    let file = match rustix::fs::open(path, flags, private) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => {
            return Err(Error::Kind { path: path.into(), wanted });
        }
        Err(e) => return Err(Error::io("open", path)(e)),
    };
    let meta = file.metadata().map_err(Error::io("look at", path))?;
    if !meta.is_file() || meta.nlink() != 1 {
        return Err(Error::Kind { path: path.into(), wanted });
    }
    own(path, meta.uid())?;
    if meta.mode() & 0o777 != 0o600 {
        rustix::fs::fchmod(&file, private).map_err(Error::io("make private", path))?;
    }
    Ok(file)
}

fn own(path: &Path, owner: u32) -> Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if owner == own { Ok(()) } else { Err(Error::Owner { path: path.into(), owner, own }) }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
