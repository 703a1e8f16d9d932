//! One agent a host: two would both count, and both freeze and kill.
//!
//! A lock on a file below `/run/toolwarden`, which only root can open: the kernel drops it with the process, however
//! that ends. An abstract socket would be seen from every mount namespace, but any user could take its name first, and
//! so keep the agent from starting.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};

/// Where it is unless told otherwise.
pub(crate) const PATH: &str = "/run/toolwarden/agent.lock";

/// Held as long as the agent lives.
#[derive(Debug)]
pub(crate) struct Guard {
    _lock: File,
}

impl Guard {
    /// Takes it, or says who has it.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let context = || format!("cannot use the lock {} (--guard)", path.display());
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match DirBuilder::new().mode(0o755).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e).with_context(context),
            _ => {}
        }
        let meta = std::fs::metadata(dir).with_context(context)?;
        let own = rustix::process::geteuid().as_raw();
        if meta.uid() != own && meta.uid() != 0 || meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0 {
            bail!("others may write to {}: it must be root's, mode 0755", dir.display());
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock =
            options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path).with_context(context)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = written(&lock)
                    .map_or_else(|| "that is just starting".into(), |pid| format!("(process {pid})"));
                bail!(
                    "another agent {holder} runs on this host: two would both count and both kill; stop it first, or, to \
                     run this one beside it, give it a lock, a state directory and a control socket of its own (--guard, \
                     --state-dir, --control)"
                );
            }
            Err(e) => return Err(e).with_context(context),
        }
        let text = format!("{}\n", std::process::id());
        lock.write_all_at(text.as_bytes(), 0).with_context(context)?;
        lock.set_len(text.len() as u64).with_context(context)?;
        Ok(Self { _lock: lock })
    }
}

fn written(mut lock: &File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Who holds a guard. Takes it for a moment, shared, which holds up nobody who asks once more.
pub(crate) fn holder(path: &Path) -> io::Result<Option<u32>> {
    let lock = match File::open(path) {
        Ok(lock) => lock,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(written(&lock).unwrap_or(0))),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_of_the_first_and_the_dead_hold_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run/agent.lock");
        assert_eq!(holder(&path).expect("not there"), None);
        let guard = Guard::take(&path).expect("free");
        assert_eq!(holder(&path).expect("readable"), Some(std::process::id()));
        let refused = format!("{:#}", Guard::take(&path).expect_err("held"));
        assert!(refused.contains(&format!("(process {})", std::process::id())), "{refused}");
        drop(guard);
        assert_eq!(holder(&path).expect("readable"), None);
        drop(Guard::take(&path).expect("free again"));
        // A link in its place, and a directory that others write to, are traps.
        std::fs::remove_file(&path).expect("own file");
        std::os::unix::fs::symlink("/etc/passwd", &path).expect("a link");
        Guard::take(&path).expect_err("a link");
        std::fs::remove_file(&path).expect("own link");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(path.parent().expect("a parent"), open).expect("own directory");
        Guard::take(&path).expect_err("others may write there");
    }
}
