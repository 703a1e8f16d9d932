//! Just enough io_uring to submit one request at a time.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

/// IORING_OP_NOP
pub const NOP: u8 = 0;
/// IORING_OP_SENDMSG
const SENDMSG: u8 = 9;
/// IORING_OP_CONNECT
pub const CONNECT: u8 = 16;
/// IORING_OP_OPENAT
pub const OPENAT: u8 = 18;
/// IORING_OP_SOCKET
const SOCKET: u8 = 45;
/// IORING_SETUP_SQPOLL
const SQPOLL: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct Offsets {
    // head, tail, ring_mask, ring_entries, flags | overflow, dropped | cqes, array | flags
    at: [u32; 10],
}

#[repr(C)]
#[derive(Default)]
struct Params {
    // sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, resv[3]
    head: [u32; 10],
    sq: Offsets,
    cq: Offsets,
}

const _: () = assert!(size_of::<Params>() == 120);

/// The part of io_uring_sqe that we fill in; 64 bytes.
#[repr(C)]
#[derive(Default)]
struct Request {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    open_flags: u32,
    rest: [u64; 4],
}

const _: () = assert!(size_of::<Request>() == 64);

struct Map {
    at: *mut u8,
    len: usize,
}

impl Map {
    fn new(fd: RawFd, len: usize, offset: i64) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new shared mapping of the ring's memory; the kernel chooses the address.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, offset) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { at: at.cast(), len })
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + 4 <= self.len && offset.is_multiple_of(4), "inside the map");
        // SAFETY: inside the mapping and aligned (just checked); the kernel writes these words
        // atomically.
        unsafe { &*self.at.add(offset).cast::<AtomicU32>() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference into it outlives `self`.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// One ring.
pub struct Ring {
    fd: OwnedFd,
    queue: Map,
    requests: Map,
    params: Params,
}

impl Ring {
    /// Makes a ring with four entries.
    ///
    /// # Errors
    /// errno.
    pub fn new() -> io::Result<Self> {
        Self::with(0)
    }

    /// One whose requests a thread of the kernel's takes.
    ///
    /// # Errors
    /// errno.
    pub fn polled() -> io::Result<Self> {
        Self::with(SQPOLL)
    }

    fn with(flags: u32) -> io::Result<Self> {
        let mut params = Params::default();
        params.head[2] = flags;
        // SAFETY: the parameter block is live and of the size that the kernel expects.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, &raw mut params) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        // IORING_FEAT_SINGLE_MMAP (5.4): both queues in one map, no longer than the longer.
        let len = (params.sq.at[6] + params.head[0] * 4).max(params.cq.at[5] + params.head[1] * 16);
        let queue = Map::new(fd.as_raw_fd(), len as usize, 0)?;
        let requests = Map::new(fd.as_raw_fd(), params.head[0] as usize * 64, 0x1000_0000)?;
        Ok(Self { fd, queue, requests, params })
    }

    fn run(&self, request: Request) -> io::Result<i32> {
        let (sq, cq) = (&self.params.sq.at, &self.params.cq.at);
        let tail = self.queue.word(sq[1] as usize);
        let slot = tail.load(Ordering::Relaxed) & (self.params.head[0] - 1);
        // SAFETY: `slot` is below the number of entries; the kernel reads the entry only after
        // the tail has moved.
        unsafe {
            let entry = self.requests.at.cast::<Request>().add(slot as usize);
            entry.write(request);
        }
        let index = self.queue.word(sq[6] as usize + slot as usize * 4);
        index.store(slot, Ordering::Relaxed);
        tail.fetch_add(1, Ordering::Release);
        let fd = self.fd.as_raw_fd();
        // IORING_ENTER_GETEVENTS, and IORING_ENTER_SQ_WAKEUP
        let wait = if self.params.head[2] & SQPOLL == 0 { 1 } else { 3 };
        // SAFETY: numbers only, and no signal mask.
        let n: c_long =
            unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, 1, 1, wait, ptr::null::<u8>(), 0) };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        let head = self.queue.word(cq[0] as usize);
        let at = head.load(Ordering::Relaxed) & (self.params.head[1] - 1);
        assert!(
            self.queue.word(cq[1] as usize).load(Ordering::Acquire) != head.load(Ordering::Relaxed),
            "one completion was waited for"
        );
        // struct io_uring_cqe { u64 user_data; s32 res; u32 flags }
        let result = self.queue.word(cq[5] as usize + at as usize * 16 + 8);
        let result = result.load(Ordering::Relaxed) as i32;
        head.fetch_add(1, Ordering::Release);
        Ok(result)
    }

    /// Submits a NOP and waits for it.
    ///
    /// # Errors
    /// errno.
    pub fn nop(&self) -> io::Result<()> {
        let request = Request { opcode: NOP, fd: -1, ..Request::default() };
        self.run(request).map(drop)
    }

    /// Connects a socket, without a connect system call.
    ///
    /// # Errors
    /// errno.
    pub fn connect(&self, socket: RawFd, to: std::net::SocketAddr) -> io::Result<()> {
        let address = crate::sys::address(to)?;
        let result = self.run(Request {
            opcode: CONNECT,
            fd: socket,
            addr: (&raw const address) as u64,
            off: size_of::<libc::sockaddr_in>() as u64,
            ..Request::default()
        })?;
        done(result).map(drop)
    }

    /// Sends a datagram, without a send system call.
    ///
    /// # Errors
    /// errno.
    pub fn send_to(&self, socket: RawFd, bytes: &[u8], to: &[u8]) -> io::Result<()> {
        let mut name = to.to_vec();
        let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        // SAFETY: all zero is a valid msghdr.
        let mut m: libc::msghdr = unsafe { std::mem::zeroed() };
        m.msg_name = name.as_mut_ptr().cast();
        m.msg_namelen = name.len() as u32;
        m.msg_iov = &raw mut iov;
        m.msg_iovlen = 1;
        let addr = (&raw const m) as u64;
        done(self.run(Request { opcode: SENDMSG, fd: socket, addr, len: 1, ..Request::default() })?).map(drop)
    }

    /// Makes a TCP socket, without a socket system call.
    ///
    /// # Errors
    /// errno.
    pub fn tcp(&self) -> io::Result<OwnedFd> {
        let (fd, off) = (libc::AF_INET, libc::SOCK_STREAM as u64);
        let fd = done(self.run(Request { opcode: SOCKET, fd, off, ..Request::default() })?)?;
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Opens a file for reading, without an open system call.
    ///
    /// # Errors
    /// errno.
    pub fn open(&self, path: &str) -> io::Result<OwnedFd> {
        let path = crate::sys::c(path)?;
        let result = self.run(Request {
            opcode: OPENAT,
            fd: libc::AT_FDCWD,
            addr: path.as_ptr() as u64,
            open_flags: (libc::O_RDONLY | libc::O_CLOEXEC) as u32,
            ..Request::default()
        })?;
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(done(result)?) })
    }
}

/// The result of a completion.
fn done(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}
