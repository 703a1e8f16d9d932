//! A file that is rotated. What counts as delivered is on the disk.
//!
//! A line is in the file wholly or not at all: half a line, of a full disk or of a process that was killed, is cut off before the next one.
//! Its event was not acknowledged, so it comes again.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{deliver::Failure, spec};

/// Bytes looked through for the end of the last whole line at a time.
const PIECE: u64 = 64 << 10;

/// An open file.
#[derive(Debug)]
pub(super) struct Rotated {
    spec: spec::File,
    open: Option<(File, u64)>,
}

impl Rotated {
    pub(super) fn new(spec: spec::File) -> Self {
        Self { spec, open: None }
    }

    /// Appends whole lines and waits until they are on the disk.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        self.try_write(lines).map_err(|e| {
            // It is opened anew, and cut, next time.
            self.open = None;
            Failure::later(format!("{}: {e}", self.spec.path.display()))
        })
    }

    fn try_write(&mut self, lines: &[u8]) -> io::Result<()> {
        let full = |length: u64| length > 0 && length + lines.len() as u64 > self.spec.max_bytes;
        let (mut file, mut length) = match self.open.take() {
            // Somebody else may rotate it, too: then the name has no file or another one.
            Some((file, length)) if is_there(&file, &self.spec.path) => (file, length),
            _ => open(&self.spec.path)?,
        };
        if full(length) {
            drop(file);
            self.rotate()?;
            (file, length) = open(&self.spec.path)?;
        }
        if let Err(e) = file.write_all(lines).and_then(|()| file.sync_data()) {
            // A full disk takes a part. If it cannot be cut now, it is cut at the next opening.
            let _unused = file.set_len(length);
            return Err(e);
        }
        self.open = Some((file, length + lines.len() as u64));
        Ok(())
    }

    /// `path.1` becomes `path.2`, and so on; the oldest goes.
    fn rotate(&self) -> io::Result<()> {
        let name = |n: u64| -> PathBuf {
            let mut name = self.spec.path.clone().into_os_string();
            if n > 0 {
                name.push(format!(".{n}"));
            }
            name.into()
        };
        if self.spec.keep == 0 {
            return std::fs::remove_file(&self.spec.path);
        }
        for n in (0..self.spec.keep).rev() {
            match std::fs::rename(name(n), name(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The directory of a file must be there, and the process's if we make it.
pub(super) fn prepare(path: &Path, (uid, gid): (u32, u32)) -> anyhow::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, chown};

    use anyhow::Context as _;

    let Some(dir) = path.parent().filter(|dir| !dir.exists()) else { return Ok(()) };
    let cannot = || format!("cannot make {}", dir.display());
    std::fs::DirBuilder::new().mode(0o750).create(dir).with_context(cannot)?;
    chown(dir, Some(uid), Some(gid)).with_context(cannot)
}

fn is_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    matches!((file.metadata(), path.symlink_metadata()), (Ok(a), Ok(b)) if same(&a, &b))
}

/// Opens it for appending, without half a line at its end; says how long it is.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut end = meta.len();
    while end > 0 {
        let start = end.saturating_sub(PIECE);
        let mut piece = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        (&mut file).take(end - start).read_to_end(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < meta.len() {
        file.set_len(end)?;
    }
    Ok((file, end))
}
