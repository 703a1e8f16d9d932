//! What the standard library has no word for: an own network, one request to a ring.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::net::{AddressFamily, SocketType};

/// Leaves the host's network for an empty one.
pub(super) fn own_network() -> io::Result<()> {
    // SAFETY: numbers only; no other thread exists that would stay behind.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Switches the loopback interface on.
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: plain integers and arrays of them, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    // IFF_UP is 1: it fits.
    request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    // SAFETY: a live request of the type that this call reads.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// struct io_uring_params: entries, flags, .. | offsets of the submission queue: head, tail, .. | others
#[repr(C)]
#[derive(Default)]
struct Params {
    head: [u32; 10],
    submission: [u32; 10],
    completion: [u32; 10],
}

const _: () = assert!(size_of::<Params>() == 120);

/// Submits one request to a new ring: fresh memory is zero, and an entry of zeros is a NOP.
pub(super) fn submit_nop() -> io::Result<()> {
    let mut params = Params::default();
    // SAFETY: a live block of the size that the kernel expects.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut params) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let ring = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let tail = params.submission[1] as usize;
    // The queue begins with its indices; its array of entries follows them.
    let len = params.submission[6] as usize + params.head[0] as usize * 4;
    if !tail.is_multiple_of(4) || tail + 4 > len {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: a new shared mapping of the ring's memory, whose place the kernel chooses.
    let queue = unsafe {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(ptr::null_mut(), len, prot, libc::MAP_SHARED, ring.as_raw_fd(), 0)
    };
    if queue == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: inside the mapping and aligned, both just checked; the kernel reads the word atomically.
    unsafe { &*queue.cast::<u8>().add(tail).cast::<AtomicU32>() }.store(1, Ordering::Release);
    // SAFETY: numbers only, and no signal mask.
    let n =
        unsafe { libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 1, 0, 0, ptr::null::<u8>(), 0) };
    let failed = io::Error::last_os_error();
    // SAFETY: the mapping is ours, and nothing refers into it any more.
    unsafe { libc::munmap(queue, len) };
    match n {
        1 => Ok(()),
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Err(failed),
    }
}
