//! Sockets in ways that std has no words for.

use std::{
    io,
    mem::size_of,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
};

use super::{
    check, owned,
    socket::{send_to, sockaddr, socket},
};

/// A socket address as the kernel wants it, IPv4 only.
pub(crate) fn address(to: SocketAddr) -> io::Result<libc::sockaddr_in> {
    let IpAddr::V4(four) = to.ip() else {
        return Err(io::Error::other("IPv4 only"));
    };
    Ok(libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(four.octets()) },
        sin_zero: [0; 8],
    })
}

/// An unconnected TCP socket.
///
/// # Errors
/// errno.
pub fn tcp() -> io::Result<OwnedFd> {
    socket(libc::AF_INET, libc::SOCK_STREAM, 0)
}

/// Connects and sends in one, without connect.
///
/// # Errors
/// errno.
pub fn fast_open(to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    send_to(&tcp()?, bytes, &sockaddr(to), libc::MSG_FASTOPEN)
}

/// Sends an ICMP echo request on a raw socket.
///
/// # Errors
/// errno.
pub fn raw_icmp(to: IpAddr) -> io::Result<()> {
    let socket = socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?;
    send_to(&socket, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0], &sockaddr(SocketAddr::new(to, 0)), 0)
}

/// Nothing that comes to it is heard, until it is not deaf any more: its peer sends again and again.
///
/// # Errors
/// errno.
pub fn deaf(socket: &TcpStream, deaf: bool) -> io::Result<()> {
    // BPF_RET | BPF_K: nothing is kept.
    let mut nothing = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 };
    let filter = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    let option = if deaf { libc::SO_ATTACH_FILTER } else { libc::SO_DETACH_FILTER };
    let (at, size) = ((&raw const filter).cast(), size_of_val(&filter) as libc::socklen_t);
    // SAFETY: a live program of one instruction; to detach one, its value is not looked at.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, at, size) };
    check(i64::from(done)).map(drop)
}

/// How many packets to it were dropped.
///
/// # Errors
/// errno.
pub fn dropped(socket: &TcpStream) -> io::Result<u32> {
    /// SO_MEMINFO, and the place of the drops in what it gives (SK_MEMINFO_DROPS).
    const OPTION: libc::c_int = 55;
    const DROPS: usize = 8;
    let mut numbers = [0u32; 9];
    let mut size = size_of_val(&numbers) as libc::socklen_t;
    let at = (&raw mut numbers).cast();
    // SAFETY: room for as many bytes as are said.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, OPTION, at, &raw mut size) };
    check(i64::from(done))?;
    Ok(numbers[DROPS])
}

/// Room for one descriptor, aligned as control messages are.
type Control = [u64; 4];

fn message(control: &mut Control, byte: &mut [u8; 1], iov: &mut libc::iovec) -> libc::msghdr {
    *iov = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: all zero is a valid msghdr.
    let mut m: libc::msghdr = unsafe { std::mem::zeroed() };
    m.msg_iov = iov;
    m.msg_iovlen = 1;
    m.msg_control = control.as_mut_ptr().cast();
    m.msg_controllen = size_of::<Control>();
    m
}

/// Passes a descriptor over a unix socket.
///
/// # Errors
/// errno.
pub fn pass_fd(socket: RawFd, fd: RawFd) -> io::Result<()> {
    let (mut control, mut byte) = ([0; 4], [1]);
    let mut iov = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut m = message(&mut control, &mut byte, &mut iov);
    // SAFETY: the header's parts are live; the control buffer has room for one descriptor.
    unsafe {
        m.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let c = libc::CMSG_FIRSTHDR(&raw const m);
        (*c).cmsg_level = libc::SOL_SOCKET;
        (*c).cmsg_type = libc::SCM_RIGHTS;
        (*c).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(c).cast::<RawFd>().write_unaligned(fd);
        check(libc::sendmsg(socket, &raw const m, 0) as i64).map(drop)
    }
}

/// Receives one.
///
/// # Errors
/// errno, or that none came.
pub fn receive_fd(socket: RawFd) -> io::Result<OwnedFd> {
    let (mut control, mut byte) = ([0; 4], [0]);
    let mut iov = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut m = message(&mut control, &mut byte, &mut iov);
    // SAFETY: the header's parts are live; what the kernel wrote into the control buffer is checked.
    unsafe {
        check(libc::recvmsg(socket, &raw mut m, libc::MSG_CMSG_CLOEXEC) as i64)?;
        let c = libc::CMSG_FIRSTHDR(&raw const m);
        if c.is_null() || (*c).cmsg_type != libc::SCM_RIGHTS {
            return Err(io::Error::other("no descriptor came"));
        }
        owned(Ok(i64::from(libc::CMSG_DATA(c).cast::<RawFd>().read_unaligned())))
    }
}

/// A mount namespace of this thread's own, in which one file stands in for another.
///
/// # Errors
/// errno.
pub fn replace_file(with: &str, target: &str) -> io::Result<()> {
    // SAFETY: numbers only.
    check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) }))?;
    super::mount("none", "/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    super::mount(with, target, None, libc::MS_BIND)
}
