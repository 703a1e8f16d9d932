//! The socket's place, its rights, and the lock of the agent that serves it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{
                DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
                PermissionsExt as _,
            },
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

use crate::accounts;

/// Members of it may read.
const GROUP: &str = "toolwarden";
/// Connections that the kernel holds until we take them.
const BACKLOG: i32 = 64;

/// A socket that listens, and is removed with this.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    inode: (u64, u64),
    listener: Option<UnixListener>,
    /// Held as long as the agent lives: the kernel drops it with the process, however that ends.
    _lock: File,
}

impl Socket {
    /// Makes the socket. One that a dead agent left is replaced, one that is served is not.
    pub(crate) fn bind(path: &Path, group: Option<u32>) -> Result<Self> {
        let context = || format!("cannot make the control socket {}", path.display());
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        directory(parent).with_context(context)?;
        let lock = lock(path).with_context(context)?;
        free(path).with_context(context)?;
        // Made under another name, so that it never stands there with other rights.
        let made = beside(path, &format!("{}.new", std::process::id()));
        let listener = listen(&made, path, group).inspect_err(|_| remove(&made)).with_context(context)?;
        let meta = fs::symlink_metadata(path).with_context(context)?;
        Ok(Self {
            path: path.to_owned(),
            inode: (meta.dev(), meta.ino()),
            listener: Some(listener),
            _lock: lock,
        })
    }

    /// What accepts connections. Once.
    pub(super) fn listener(&mut self) -> Result<tokio::net::UnixListener> {
        let listener = self.listener.take().context("the control socket is served already")?;
        listener.set_nonblocking(true).context("cannot serve the control socket")?;
        tokio::net::UnixListener::from_std(listener).context("cannot serve the control socket")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode);
        if ours {
            remove(&self.path);
        }
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot remove {}: {e}", path.display());
        }
        _ => {}
    }
}

/// `/run/toolwarden/.control.sock.SUFFIX`
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{suffix}"))
}

fn directory(dir: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(dir) {
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e).with_context(|| format!("cannot make {}", dir.display())),
    }
    let meta = fs::metadata(dir)?;
    let (own, mode) = (rustix::process::geteuid().as_raw(), meta.mode());
    if !meta.is_dir() {
        bail!("{} is not a directory", dir.display());
    }
    // In others' directories they could put their own socket in the place of ours.
    if (meta.uid() != own && meta.uid() != 0) || (mode & 0o022 != 0 && mode & 0o1000 == 0) {
        bail!("others may write to {}: it must be root's, mode 0755", dir.display());
    }
    Ok(())
}

/// One agent a socket. A lock, because a look at the socket and a bind are two steps.
fn lock(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(beside(path, "lock"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            bail!("another agent serves it; stop that one, or choose another place with --control PATH")
        }
        Err(e) => Err(e.into()),
    }
}

/// Makes sure that nothing is at the path but perhaps a dead agent's socket, which the bind replaces.
fn free(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e.into()),
        Ok(meta) if !meta.file_type().is_socket() => {
            bail!("there is something else, which is not a socket; remove it, or choose another place")
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => bail!("another process serves it; stop that one, or choose another place"),
            Err(_) => Ok(()),
        },
    }
}

fn listen(made: &Path, path: &Path, group: Option<u32>) -> Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(made).context("the path is too long for a socket")?;
    remove(made);
    rustix::net::bind(&socket, &address)?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(made, fs::Permissions::from_mode(mode))?;
    if group.is_some() {
        std::os::unix::fs::chown(made, None, group).context("cannot give it to the group toolwarden")?;
    }
    fs::rename(made, path)?;
    // Until here a connection is refused.
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// The number of the group whose members may read.
pub(crate) fn group() -> Option<u32> {
    let found = accounts::group(GROUP);
    if found.is_none() {
        tracing::warn!("no group {GROUP}: only root can use the control socket; `groupadd --system {GROUP}`");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

    #[test]
    fn a_dead_agents_socket_is_replaced_and_a_live_ones_is_not() -> Result {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("run/control.sock");
        let mode = |path: &Path| Ok::<_, io::Error>(fs::symlink_metadata(path)?.mode() & 0o777);
        let first = Socket::bind(&path, None)?;
        assert_eq!(mode(&path)?, 0o600);
        assert_eq!(mode(&dir.path().join("run"))?, 0o755);
        let error = Socket::bind(&path, None).err().map(|e| format!("{e:#}")).unwrap_or_default();
        assert!(error.contains("another agent serves it"), "{error}");
        drop(first);
        assert!(!path.exists(), "removed at the end");
        // As after kill -9: the socket is there, the lock is not held.
        drop(UnixListener::bind(&path)?);
        let second = Socket::bind(&path, Some(rustix::process::getegid().as_raw()))?;
        assert_eq!(mode(&path)?, 0o660);
        drop(second);
        // Another program's live socket, and what is no socket at all.
        let other = UnixListener::bind(&path)?;
        let error = Socket::bind(&path, None).err().map(|e| format!("{e:#}")).unwrap_or_default();
        assert!(error.contains("another process serves it"), "{error}");
        drop(other);
        fs::remove_file(&path)?;
        fs::write(&path, "precious")?;
        let error = Socket::bind(&path, None).err().map(|e| format!("{e:#}")).unwrap_or_default();
        assert!(error.contains("not a socket"), "{error}");
        assert_eq!(fs::read_to_string(&path)?, "precious");
        Ok(())
    }

    #[test]
    fn directories_that_others_write_to_are_refused() -> Result {
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
        let error =
            Socket::bind(&dir.path().join("s"), None).err().map(|e| format!("{e:#}")).unwrap_or_default();
        assert!(error.contains("others may write"), "{error}");
        let long = dir.path().join("x".repeat(200)).join("s");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700))?;
        let error = Socket::bind(&long, None).err().map(|e| format!("{e:#}")).unwrap_or_default();
        assert!(error.contains("too long"), "{error}");
        Ok(())
    }
}
