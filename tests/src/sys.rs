//! System calls, each in a safe coat. Nothing here opens, resolves or starts anything on its own.

mod net;
mod objects;
mod process;
mod programs;
mod shared;
mod socket;

use std::{
    ffi::{CString, c_int, c_long, c_uint, c_void},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

pub(crate) use net::address;
pub use net::{deaf, dropped, fast_open, pass_fd, raw_icmp, receive_fd, replace_file, tcp};
pub use objects::{pinned_map, programs_with};
pub use process::{drop_capability, exec_fd, fork, kill, same_limit, sleep_us, spawn, wait};
pub use programs::{BpfProgram, bpf_program};
pub use shared::{Pidfd, shared};
pub use socket::{
    at_link, at_vsock, capture, connect, listen_any, loopback_up, option, send, send_many, send_marked,
    send_to, sockaddr, socket,
};

/// Turns -1 into errno.
pub(crate) fn check(ret: c_long) -> io::Result<c_long> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

fn owned(ret: io::Result<c_long>) -> io::Result<OwnedFd> {
    // SAFETY: a non-negative result of a call that makes a descriptor is a descriptor that
    // nobody else owns.
    ret.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A path as C wants it.
///
/// # Errors
/// When it holds a NUL.
pub fn c(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(io::Error::other)
}

fn clock_ns(id: libc::clockid_t) -> i64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    unsafe { libc::clock_gettime(id, &raw mut t) };
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

/// CLOCK_BOOTTIME in ns.
#[must_use]
pub fn boot_ns() -> u64 {
    clock_ns(libc::CLOCK_BOOTTIME) as u64
}

/// CLOCK_REALTIME in ns.
#[must_use]
pub fn wall_ns() -> i64 {
    clock_ns(libc::CLOCK_REALTIME)
}

/// Sets CLOCK_REALTIME, of the whole machine.
///
/// # Errors
/// errno.
pub fn set_wall_ns(ns: i64) -> io::Result<()> {
    let t = libc::timespec { tv_sec: ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 };
    // SAFETY: the pointer is to a live timespec.
    check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const t) }.into()).map(drop)
}

/// CPU time of this thread in ns.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID) as u64
}

/// Process id.
#[must_use]
pub fn pid() -> u32 {
    std::process::id()
}

/// A system call whose arguments are plain numbers.
///
/// # Errors
/// errno.
pub fn plain(nr: c_long, args: [u64; 4]) -> io::Result<c_long> {
    // SAFETY: callers pass numbers, descriptors and flags only; pointers go through the other
    // functions of this file.
    check(unsafe { libc::syscall(nr, args[0], args[1], args[2], args[3]) })
}

/// A system call on one path: `nr(first, path, a, b, 0)`, or `nr(path, a, b)` without `first`.
///
/// # Errors
/// errno.
pub fn on_path(nr: c_long, first: Option<c_int>, path: &str, a: u64, b: u64) -> io::Result<c_long> {
    let path = c(path)?;
    // SAFETY: the path is NUL-terminated and lives through the call; the rest are numbers.
    check(unsafe {
        match first {
            Some(first) => libc::syscall(nr, first, path.as_ptr(), a, b, 0),
            None => libc::syscall(nr, path.as_ptr(), a, b),
        }
    })
}

/// A system call on two paths: `nr(from, to)`, or `nr(AT_FDCWD, from, AT_FDCWD, to, flags)`.
///
/// # Errors
/// errno.
pub fn on_paths(nr: c_long, at: bool, from: &str, to: &str) -> io::Result<c_long> {
    let (from, to) = (c(from)?, c(to)?);
    let cwd = libc::AT_FDCWD;
    // SAFETY: both paths are NUL-terminated and live through the call.
    check(unsafe {
        if at {
            libc::syscall(nr, cwd, from.as_ptr(), cwd, to.as_ptr(), 0)
        } else {
            libc::syscall(nr, from.as_ptr(), to.as_ptr())
        }
    })
}

/// symlinkat(target, AT_FDCWD, path).
///
/// # Errors
/// errno.
pub fn symlinkat(target: &str, path: &str) -> io::Result<()> {
    let (target, path) = (c(target)?, c(path)?);
    // SAFETY: both strings are NUL-terminated and live through the call.
    check(c_long::from(unsafe { libc::symlinkat(target.as_ptr(), libc::AT_FDCWD, path.as_ptr()) })).map(drop)
}

/// openat(dir, path, flags | O_CLOEXEC, 0600).
///
/// # Errors
/// errno.
pub fn open_at(dir: c_int, path: &str, flags: c_int) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC;
    owned(on_path(libc::SYS_openat, Some(dir), path, flags as u64, 0o600))
}

/// openat(AT_FDCWD, ..).
///
/// # Errors
/// errno.
pub fn open(path: &str, flags: c_int) -> io::Result<OwnedFd> {
    open_at(libc::AT_FDCWD, path, flags)
}

/// open(2) itself, and creat(2).
///
/// # Errors
/// errno.
pub fn open_old(path: &str, flags: Option<c_int>) -> io::Result<OwnedFd> {
    owned(match flags {
        Some(flags) => on_path(libc::SYS_open, None, path, flags as u64, 0o600),
        None => on_path(libc::SYS_creat, None, path, 0o600, 0),
    })
}

/// openat2(AT_FDCWD, path, {flags}).
///
/// # Errors
/// errno.
pub fn openat2(path: &str, flags: c_int) -> io::Result<OwnedFd> {
    let path = c(path)?;
    let how: [u64; 3] = [(flags | libc::O_CLOEXEC) as u64, 0, 0];
    // SAFETY: path and open_how (three u64) live through the call, the size is theirs.
    owned(check(unsafe {
        libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how.as_ptr(), size_of_val(&how))
    }))
}

/// write(2), whole or not at all.
///
/// # Errors
/// errno, or a short write.
pub fn write(fd: RawFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length are those of a live slice.
    let n = check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as c_long)?;
    if n as usize == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// memfd_create(name, MFD_CLOEXEC).
///
/// # Errors
/// errno.
pub fn memfd(name: &str) -> io::Result<OwnedFd> {
    let name = c(name)?;
    // SAFETY: the name is NUL-terminated and lives through the call.
    owned(check(c_long::from(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })))
}

/// A fresh pipe, both ends close-on-exec.
///
/// # Errors
/// errno.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array takes two descriptors, which nobody else owns afterwards.
    unsafe {
        check(c_long::from(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC)))?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// A connected pair of unix stream sockets, both close-on-exec.
///
/// # Errors
/// errno.
pub fn socketpair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: as in `pipe`.
    unsafe {
        check(c_long::from(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr())))?;
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// A UDP socket that is neither bound nor connected.
///
/// # Errors
/// errno.
pub fn udp(family: c_int) -> io::Result<std::net::UdpSocket> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: numbers only.
    owned(check(c_long::from(unsafe { libc::socket(family, kind, 0) }))).map(Into::into)
}

/// Makes closing it a reset for the other side.
///
/// # Errors
/// errno.
pub fn reset_on_close(socket: &std::net::TcpStream) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = libc::socklen_t::try_from(size_of_val(&linger)).map_err(io::Error::other)?;
    // SAFETY: the option is a live `linger` of that size.
    check(c_long::from(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size,
        )
    }))
    .map(drop)
}

/// mount(source, target, type, flags, NULL).
///
/// # Errors
/// errno.
pub fn mount(source: &str, target: &str, kind: Option<&str>, flags: u64) -> io::Result<()> {
    let (source, target) = (c(source)?, c(target)?);
    let kind = kind.map(c).transpose()?;
    let kind = kind.as_ref().map_or(std::ptr::null(), |k| k.as_ptr());
    // SAFETY: all strings are NUL-terminated and live through the call; data may be NULL.
    check(c_long::from(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, std::ptr::null())
    }))
    .map(drop)
}

/// bpf(2) with a command and an attribute block.
///
/// # Errors
/// errno.
pub fn bpf(command: c_int, attr: &mut [u64; 16]) -> io::Result<c_long> {
    // SAFETY: the kernel reads and writes at most the given size of a live array; the commands
    // used here hold no pointers, but for OBJ_GET_INFO_BY_FD's to a live array of the length beside it, and OBJ_GET's to a path.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) })
}

/// Ids of all BPF programs (11), maps (12) or links (31) that are loaded, by command.
#[must_use]
pub fn bpf_ids(command: c_int) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut attr = [0u64; 16];
    // struct { u32 start_id; u32 next_id; u32 flags }: a shorter block is refused for no one.
    while bpf(command, &mut attr).is_ok() {
        let next = (attr[0] >> 32) as u32;
        ids.push(next);
        attr = [0; 16];
        attr[0] = u64::from(next);
    }
    ids
}

/// A private anonymous page below 4 GB that begins with `bytes`, for the 32-bit ABI.
///
/// # Errors
/// errno.
pub fn low_page(bytes: &[u8]) -> io::Result<u32> {
    let size = 4096;
    assert!(bytes.len() <= size, "one page");
    // SAFETY: a new mapping; the bytes fit and do not overlap it.
    unsafe {
        let p = libc::mmap(
            std::ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        );
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        p.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        u32::try_from(p as usize).map_err(io::Error::other)
    }
}

/// Frees what [`low_page`] made.
pub fn free_low_page(page: u32) {
    // SAFETY: the page came from `low_page` and is not used any more.
    unsafe { libc::munmap(page as usize as *mut c_void, 4096) };
}

/// A system call through `int 0x80`: the 32-bit ABI.
///
/// # Errors
/// errno.
pub fn int80(nr: u32, args: [u32; 4]) -> io::Result<u32> {
    let mut ret = u64::from(nr);
    // SAFETY: rbx is saved and restored by hand (LLVM keeps it for itself); the kernel may clobber
    // r8 to r11. Callers pass numbers, or addresses from `low_page`.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {b}",
            "int 0x80",
            "xchg rbx, {b}",
            b = inout(reg) u64::from(args[0]) => _,
            inout("rax") ret,
            in("rcx") u64::from(args[1]),
            in("rdx") u64::from(args[2]),
            in("rsi") u64::from(args[3]),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    let ret = ret as i32;
    if ret < 0 { Err(io::Error::from_raw_os_error(-ret)) } else { Ok(ret as u32) }
}

/// Closes a raw descriptor that no [`OwnedFd`] holds.
pub fn close_raw(fd: u32) {
    // SAFETY: the caller got the number from a call that made a descriptor and gives it up here.
    drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
}

/// Takes over a descriptor that a call of plain numbers made.
///
/// # Errors
/// When it is none.
pub fn adopt(fd: u32) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the caller got the number from a call that made a descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes malloc use one arena: glibc reads /proc/sys/vm/overcommit_memory when it shrinks another.
pub fn one_arena() {
    // SAFETY: a plain setting, made before any thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Number of an open descriptor, for system calls that take it as a number.
#[must_use]
pub fn number(fd: &OwnedFd) -> u64 {
    fd.as_raw_fd() as c_uint as u64
}
