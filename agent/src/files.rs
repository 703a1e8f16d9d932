//! Files that others may have made: read without trusting their kind, their size or their owner.

use std::{
    fs::{File, Metadata},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};

/// The text of a regular file of at most `max` bytes, and what was opened.
pub(crate) fn text(path: &Path, max: usize) -> Result<(String, Metadata)> {
    // Without O_NONBLOCK a FIFO would hold us before we can see that it is one.
    read(path, max, rustix::fs::OFlags::NONBLOCK)
}

/// The same of a file that is no link: it is sent to others, so nobody else may choose which it is.
pub(crate) fn secret(path: &Path, max: usize) -> Result<(String, Metadata)> {
    read(path, max, rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW)
}

fn read(path: &Path, max: usize, flags: rustix::fs::OFlags) -> Result<(String, Metadata)> {
    let cannot = || format!("cannot read {}", path.display());
    let flags = flags.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).with_context(cannot)?;
    // Of the opened file: the name may lead elsewhere by now.
    let meta = file.metadata().with_context(cannot)?;
    ensure!(meta.is_file(), "{} is not a regular file", path.display());
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).with_context(cannot)?;
    ensure!(bytes.len() <= max, "{} is larger than {max} bytes", path.display());
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::Error::new(error).context(format!("{} is not UTF-8, at byte {at}", path.display()))
    })?;
    Ok((text, meta))
}

/// Why others than root can change it, and what to do.
pub(crate) fn not_only_roots(path: &Path, meta: &Metadata) -> Option<(String, String)> {
    let why = match (meta.uid(), meta.mode() & 0o022) {
        (0, 0) => return None,
        (0, _) => format!("can be written by others (mode {:o})", meta.mode() & 0o7777),
        (uid, _) => format!("belongs to user {uid}"),
    };
    Some((why, format!("chown root {0} && chmod go-w {0}", path.display())))
}

/// Why others than owner and group can read it, and what to do.
pub(crate) fn readable_by_others(path: &Path, meta: &Metadata) -> Option<(String, String)> {
    let open = meta.mode() & 0o007 != 0;
    open.then(|| {
        (
            format!("can be read by everybody (mode {:o})", meta.mode() & 0o7777),
            format!("chmod o-rwx {}", path.display()),
        )
    })
}

/// Files of a directory that have one of these endings and are not hidden, in the order of their names.
pub(crate) fn of(dir: &Path, endings: &[&str], max: usize) -> Result<Vec<std::path::PathBuf>> {
    let cannot = || format!("cannot list {}", dir.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let wanted = path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending));
        if wanted && !hidden {
            files.push(path);
        }
        ensure!(files.len() <= max, "{} has more than {max} files", dir.display());
    }
    files.sort();
    Ok(files)
}
