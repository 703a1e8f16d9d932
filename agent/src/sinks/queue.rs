//! What a socket still holds.

use std::{io, os::fd::AsFd};

use rustix::ioctl::{Getter, Opcode, ioctl};

/// `linux/sockios.h`: the number of `TIOCOUTQ`.
const SIOCOUTQ: Opcode = 0x5411;

/// Bytes that the other end has not taken: of TCP those that its kernel has not acknowledged, of a unix socket those that nobody has read.
pub(super) fn unsent(socket: impl AsFd) -> io::Result<usize> {
    // SAFETY: the kernel stores an `int` for this number, or fails (`tcp_ioctl`, `unix_ioctl`).
    let get = unsafe { Getter::<SIOCOUTQ, libc::c_int>::new() };
    // SAFETY: it reads a number of bytes and changes nothing.
    let bytes = unsafe { ioctl(socket, get) }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}
