//! Sockets as the system calls have them, of any family.

use std::{
    io,
    mem::size_of,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use super::{check, owned};

/// socket(2), close-on-exec.
///
/// # Errors
/// errno.
pub fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    owned(check(i64::from(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })))
}

/// A socket address as the kernel wants it.
#[must_use]
pub fn sockaddr(to: SocketAddr) -> Vec<u8> {
    let port = to.port().to_be_bytes();
    let mut bytes = match to.ip() {
        IpAddr::V4(_) => (libc::AF_INET as u16).to_ne_bytes().to_vec(),
        IpAddr::V6(_) => (libc::AF_INET6 as u16).to_ne_bytes().to_vec(),
    };
    bytes.extend(port);
    match to.ip() {
        IpAddr::V4(four) => bytes.extend(four.octets()),
        IpAddr::V6(six) => {
            bytes.extend([0; 4]);
            bytes.extend(six.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes.resize(bytes.len().max(size_of::<libc::sockaddr_in>()), 0);
    bytes
}

/// The link layer of the loopback interface, for packet sockets.
#[must_use]
pub fn at_link() -> Vec<u8> {
    // struct sockaddr_ll { family, protocol, ifindex, hatype, pkttype, halen, addr[8] }
    let mut bytes = (libc::AF_PACKET as u16).to_ne_bytes().to_vec();
    bytes.extend((libc::ETH_P_IP as u16).to_be_bytes());
    bytes.extend(1i32.to_ne_bytes());
    bytes.extend([0, 0, 0, 6]);
    bytes.extend([0; 8]);
    bytes
}

/// The host's own side of vsock.
#[must_use]
pub fn at_vsock(port: u32) -> Vec<u8> {
    // struct sockaddr_vm { family, reserved, port, cid, flags, zero[3] }
    let mut bytes = (libc::AF_VSOCK as u16).to_ne_bytes().to_vec();
    bytes.extend([0; 2]);
    bytes.extend(port.to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// connect(2).
///
/// # Errors
/// errno.
pub fn connect(fd: &OwnedFd, to: &[u8]) -> io::Result<()> {
    // SAFETY: a live buffer of the length that is given.
    check(i64::from(unsafe { libc::connect(fd.as_raw_fd(), to.as_ptr().cast(), to.len() as u32) })).map(drop)
}

/// listen(2) on a TCP socket that was bound to nothing: the kernel chooses a port.
///
/// # Errors
/// errno.
pub fn listen_any() -> io::Result<std::net::TcpListener> {
    let fd = socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    // SAFETY: numbers only.
    check(i64::from(unsafe { libc::listen(fd.as_raw_fd(), 8) }))?;
    Ok(fd.into())
}

/// setsockopt(2) with a number.
///
/// # Errors
/// errno.
pub fn option(fd: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let value = &raw const value;
    // SAFETY: a live int.
    let done =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.cast(), size_of::<i32>() as u32) };
    check(i64::from(done)).map(drop)
}

/// sendto(2) without a destination.
///
/// # Errors
/// errno.
pub fn send(fd: &OwnedFd, bytes: &[u8], flags: i32) -> io::Result<()> {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: a live buffer of the length that is given.
    check(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) } as i64).map(drop)
}

/// sendto(2).
///
/// # Errors
/// errno.
pub fn send_to(fd: &OwnedFd, bytes: &[u8], to: &[u8], flags: i32) -> io::Result<()> {
    let flags = flags | libc::MSG_NOSIGNAL;
    let (data, len) = (bytes.as_ptr().cast(), bytes.len());
    // SAFETY: live buffers of the lengths that are given.
    let n = unsafe { libc::sendto(fd.as_raw_fd(), data, len, flags, to.as_ptr().cast(), to.len() as u32) };
    check(n as i64).map(drop)
}

fn message(bytes: &[u8], to: &mut [u8], iov: &mut libc::iovec) -> libc::msghdr {
    *iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all zero is a valid msghdr.
    let mut m: libc::msghdr = unsafe { std::mem::zeroed() };
    m.msg_name = to.as_mut_ptr().cast();
    m.msg_namelen = to.len() as u32;
    m.msg_iov = iov;
    m.msg_iovlen = 1;
    m
}

/// sendmmsg(2): the same datagram twice in one call.
///
/// # Errors
/// errno.
pub fn send_many(fd: &OwnedFd, bytes: &[u8], to: &[u8]) -> io::Result<()> {
    let (mut first, mut second) = (to.to_vec(), to.to_vec());
    let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let (mut a, mut b) = (none, none);
    let mut both = [
        libc::mmsghdr { msg_hdr: message(bytes, &mut first, &mut a), msg_len: 0 },
        libc::mmsghdr { msg_hdr: message(bytes, &mut second, &mut b), msg_len: 0 },
    ];
    // SAFETY: two live headers, whose parts live as long.
    check(i64::from(unsafe { libc::sendmmsg(fd.as_raw_fd(), both.as_mut_ptr(), 2, 0) })).map(drop)
}

/// sendmsg(2) with a control message that chooses the source address (IP_PKTINFO).
///
/// # Errors
/// errno.
pub fn send_marked(fd: &OwnedFd, bytes: &[u8], to: &[u8], source: [u8; 4]) -> io::Result<()> {
    let mut name = to.to_vec();
    let mut iov = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut m = message(bytes, &mut name, &mut iov);
    let mut control = [0u64; 8];
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source) },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let size = size_of::<libc::in_pktinfo>() as u32;
    // SAFETY: the header's parts are live; the control buffer has room for one in_pktinfo.
    unsafe {
        m.msg_control = control.as_mut_ptr().cast();
        m.msg_controllen = libc::CMSG_SPACE(size) as usize;
        let c = libc::CMSG_FIRSTHDR(&raw const m);
        (*c).cmsg_level = libc::IPPROTO_IP;
        (*c).cmsg_type = libc::IP_PKTINFO;
        (*c).cmsg_len = libc::CMSG_LEN(size) as usize;
        libc::CMSG_DATA(c).cast::<libc::in_pktinfo>().write_unaligned(info);
        check(libc::sendmsg(fd.as_raw_fd(), &raw const m, 0) as i64).map(drop)
    }
}

/// Brings the loopback interface up in the network namespace of this thread.
///
/// # Errors
/// errno.
pub fn loopback_up() -> io::Result<()> {
    let s = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // struct ifreq: a name of 16 bytes, then the flags.
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&(libc::IFF_UP as u16).to_ne_bytes());
    // SAFETY: a live block of the size of struct ifreq.
    check(i64::from(unsafe { libc::ioctl(s.as_raw_fd(), libc::SIOCSIFFLAGS, request.as_ptr()) })).map(drop)
}

/// All that passes the loopback interface of this thread's network namespace: a packet socket, for reading.
///
/// # Errors
/// errno.
pub fn capture() -> io::Result<std::fs::File> {
    let s = socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from((libc::ETH_P_ALL as u16).to_be()))?;
    option(&s, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 1 << 24)?;
    Ok(s.into())
}
