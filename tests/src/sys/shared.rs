//! Memory that two processes share, and the end of another process.

use std::{
    ffi::{c_int, c_long},
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    sync::atomic::AtomicU64,
};

use super::{boot_ns, check, owned};

/// Numbers in a file, for every process that maps it. They stay mapped.
///
/// # Errors
/// errno.
pub fn shared(path: &Path) -> io::Result<&'static [AtomicU64; 8]> {
    let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.set_len(size_of::<[AtomicU64; 8]>() as u64)?;
    // SAFETY: a new mapping of a file that is as long; it is never unmapped, and only atomics are made of it.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            size_of::<[AtomicU64; 8]>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(&*at.cast::<[AtomicU64; 8]>())
    }
}

/// A process by pidfd.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Takes hold of a process.
    ///
    /// # Errors
    /// errno.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: numbers only.
        owned(check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })).map(Self)
    }

    /// Waits until it has ended; gives when.
    ///
    /// # Errors
    /// errno, or that it did not end in time.
    pub fn ended(&self, limit_ms: c_int) -> io::Result<u64> {
        let mut at = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the pointer is to a live pollfd.
        match check(c_long::from(unsafe { libc::poll(&raw mut at, 1, limit_ms) }))? {
            0 => Err(io::Error::other("it did not end")),
            _ => Ok(boot_ns()),
        }
    }
}
