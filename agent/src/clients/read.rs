//! Opening files that anyone may have put there.

use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
};

/// The largest real one known is a `~/.claude.json` with its history, below 1 MB.
const MAX_BYTES: u64 = 4 << 20;
/// Names looked at in one directory.
const MAX_NAMES: usize = 1024;
/// Files that one pattern gives.
const MAX_MATCHES: usize = 256;
/// Directories that one pattern with depth walks.
const MAX_DIRS: usize = 2048;

/// Read a regular file of this user (or one that everybody may read). `None`: it is not there.
pub(super) fn read(path: &Path, uid: u32) -> Result<Option<Vec<u8>>, String> {
    // A path only: opening a device or a fifo can act, looking at it cannot.
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let seen = match rustix::fs::open(path, look, Mode::empty()) {
        Ok(seen) => seen,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(format!("cannot be opened: {errno}")),
    };
    let seen = rustix::fs::fstat(seen).map_err(|errno| format!("cannot be examined: {errno}"))?;
    let kind = FileType::from_raw_mode(seen.st_mode);
    if kind.is_symlink() {
        return Err("a symbolic link, not followed".to_owned());
    }
    if !kind.is_file() {
        return Err("not a regular file".to_owned());
    }
    // A directory on the way may be a link into another user's home: reading there for this
    // user would lend out root's eyes.
    if seen.st_uid != uid && seen.st_mode & 0o004 == 0 {
        return Err("belongs to another user".to_owned());
    }
    if u64::try_from(seen.st_size).is_ok_and(|size| size > MAX_BYTES) {
        return Err(format!("larger than {MAX_BYTES} bytes"));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| format!("cannot be opened: {errno}"))?;
    let opened = rustix::fs::fstat(&file).map_err(|errno| format!("cannot be examined: {errno}"))?;
    if (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino) {
        return Err("changed while it was opened".to_owned());
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_BYTES) {
        return Err(format!("larger than {MAX_BYTES} bytes"));
    }
    Ok(Some(bytes))
}

/// The files that a pattern stands for. Those without a `*` need not exist.
pub(super) fn expand(base: &Path, pattern: &str, depth: usize) -> Vec<PathBuf> {
    if depth > 0 {
        return walk(base, pattern, depth);
    }
    let mut found = vec![base.to_path_buf()];
    for part in pattern.split('/') {
        let Some((head, tail)) = part.split_once('*') else {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        found = found
            .iter()
            .flat_map(|dir| names(dir).into_iter().map(|name| dir.join(name)))
            .filter(|path| {
                let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
                name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
            })
            .take(MAX_MATCHES)
            .collect();
    }
    found
}

/// Files of the pattern's last name, up to `depth` directories below the pattern's directory.
fn walk(base: &Path, pattern: &str, depth: usize) -> Vec<PathBuf> {
    let (dir, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    let mut level = vec![base.join(dir)];
    let mut found = Vec::new();
    let mut walked = 0;
    for _ in 0..=depth {
        let mut next = Vec::new();
        for dir in level {
            walked += 1;
            if walked > MAX_DIRS || found.len() >= MAX_MATCHES {
                return found;
            }
            for entry in names(&dir) {
                let path = dir.join(&entry);
                // The type without following: a link could lead round in circles.
                let is_dir = path.symlink_metadata().is_ok_and(|about| about.is_dir());
                if is_dir && entry != "node_modules" && entry != ".git" {
                    next.push(path);
                } else if !is_dir && entry == name {
                    found.push(path);
                }
            }
        }
        level = next;
    }
    found
}

/// Names in a directory, in order: what is found must not depend on the file system.
fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries.take(MAX_NAMES).flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    names
}
