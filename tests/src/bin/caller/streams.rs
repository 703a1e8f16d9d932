//! Sockets that the tool makes itself: TCP, UDP and what resembles them.

use std::{
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use e2e::{
    sys::{self, sockaddr},
    uring::Ring,
};

use crate::{Home, Way, tcp, way};

const MPTCP: i32 = 262;
const FASTOPEN_CONNECT: i32 = 30;
const TCP_REPAIR: i32 = 19;
const UDP_SEGMENT: i32 = 103;

pub(crate) const WAYS: &[Way] = &[
    way("tcp", |h| say(tcp(h.four)?, h)),
    way("tcp-6", |h| say(tcp(h.six)?, h)),
    way("tcp-mapped", |h| say(tcp(six(h, |four| four.to_ipv6_mapped()))?, h)),
    way("tcp-compatible", |h| say(tcp(six(h, |four| four.to_ipv6_compatible()))?, h)),
    way("tcp-nat64", |h| {
        say(tcp(six(h, |f| Ipv6Addr::from(0x0064_ff9b_u128 << 96 | u128::from(u32::from(f)))))?, h)
    }),
    way("tcp-6to4", |h| {
        say(tcp(six(h, |f| Ipv6Addr::from(0x2002_u128 << 112 | u128::from(u32::from(f)) << 80)))?, h)
    }),
    way("tcp-nonblocking", nonblocking),
    way("tcp-fast-open", |h| sys::fast_open(h.four, h.mark())),
    way("tcp-fast-open-connect", |h| {
        let s = stream(0)?;
        sys::option(&s, libc::IPPROTO_TCP, FASTOPEN_CONNECT, 1)?;
        sys::connect(&s, &sockaddr(h.four))?;
        sys::send(&s, h.mark(), 0)
    }),
    way("tcp-repair", |h| {
        let s = stream(0)?;
        sys::option(&s, libc::IPPROTO_TCP, TCP_REPAIR, 1)?;
        sys::connect(&s, &sockaddr(h.four))?;
        sys::option(&s, libc::IPPROTO_TCP, TCP_REPAIR, 0)?;
        sys::send(&s, h.mark(), 0)
    }),
    way("tcp-again", |h| {
        // The address of another socket's connection, after the first one was undone.
        let s = stream(0)?;
        drop(sys::connect(&s, &sockaddr(h.permitted)));
        drop(sys::connect(&s, &[0; 16]));
        sys::connect(&s, &sockaddr(h.four))?;
        sys::send(&s, h.mark(), 0)
    }),
    way("mptcp", |h| {
        let s = stream(MPTCP)?;
        sys::connect(&s, &sockaddr(h.four))?;
        sys::send(&s, h.mark(), 0)
    }),
    way("sctp", |h| {
        let s = stream(libc::IPPROTO_SCTP)?;
        sys::connect(&s, &sockaddr(h.four))?;
        sys::send(&s, h.mark(), 0)
    }),
    way("tls-forged-name", |h| {
        let mut s = tcp(h.four)?;
        s.write_all(b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03permitted.test")?;
        s.write_all(h.mark())
    }),
    way("other-tools-host", |h| say(tcp(h.permitted)?, h)),
    way("other-port", |h| say(tcp(SocketAddr::new(h.permitted.ip(), h.four.port()))?, h)),
    way("udp", |h| sys::send_to(&udp()?, h.mark(), &sockaddr(h.four), 0)),
    way("udp-6", |h| sys::send_to(&datagrams(libc::AF_INET6, 0)?, h.mark(), &sockaddr(h.six), 0)),
    way("udp-mapped", |h| {
        let to = sockaddr(six(h, |f| f.to_ipv6_mapped()));
        sys::send_to(&datagrams(libc::AF_INET6, 0)?, h.mark(), &to, 0)
    }),
    way("udp-connected", |h| {
        let s = udp()?;
        sys::connect(&s, &sockaddr(h.four))?;
        sys::send(&s, h.mark(), 0)
    }),
    way("udp-connected-elsewhere", |h| {
        let s = udp()?;
        drop(sys::connect(&s, &sockaddr(h.permitted)));
        sys::send_to(&s, h.mark(), &sockaddr(h.four), 0)
    }),
    way("udp-many", |h| sys::send_many(&udp()?, h.mark(), &sockaddr(h.four))),
    way("udp-pktinfo", |h| sys::send_marked(&udp()?, h.mark(), &sockaddr(h.four), [127, 0, 0, 1])),
    way("udp-corked", |h| {
        let s = udp()?;
        sys::send_to(&s, h.mark(), &sockaddr(h.four), libc::MSG_MORE)?;
        sys::send_to(&s, h.mark(), &sockaddr(h.four), 0)
    }),
    way("udp-segments", |h| {
        let s = udp()?;
        sys::option(&s, libc::IPPROTO_UDP, UDP_SEGMENT, 8)?;
        sys::send_to(&s, h.mark(), &sockaddr(h.four), 0)
    }),
    way("udp-zero-copy", |h| {
        let s = udp()?;
        sys::option(&s, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?;
        sys::send_to(&s, h.mark(), &sockaddr(h.four), libc::MSG_ZEROCOPY)
    }),
    way("udp-from-port-53", |h| {
        let s = UdpSocket::bind("127.0.0.1:53")?;
        s.send_to(h.mark(), h.four).map(drop)
    }),
    way("udp-broadcast", |h| {
        let s = udp()?;
        sys::option(&s, libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?;
        sys::send_to(&s, h.mark(), &sockaddr(SocketAddr::new([127, 255, 255, 255].into(), h.four.port())), 0)
    }),
    way("udp-multicast", |h| {
        let s = udp()?;
        // struct in_addr of the interface that it leaves by: the loopback one.
        sys::option(&s, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, i32::from_ne_bytes([127, 0, 0, 1]))?;
        sys::send_to(&s, h.mark(), &sockaddr(SocketAddr::new([239, 66, 0, 1].into(), h.four.port())), 0)
    }),
    way("udp-lite", |h| sys::send_to(&datagrams(libc::AF_INET, 136)?, h.mark(), &sockaddr(h.four), 0)),
    way("uring-connect", |h| {
        let s = stream(0)?;
        Ring::new()?.connect(s.as_raw_fd(), h.four)?;
        sys::send(&s, h.mark(), 0)
    }),
    way("uring-socket", |h| {
        let ring = Ring::new()?;
        let s = ring.tcp()?;
        ring.connect(s.as_raw_fd(), h.four)?;
        sys::send(&s, h.mark(), 0)
    }),
    way("uring-datagram", |h| Ring::new()?.send_to(udp()?.as_raw_fd(), h.mark(), &sockaddr(h.four))),
    way("uring-kernel-thread", |h| {
        let s = stream(0)?;
        Ring::polled()?.connect(s.as_raw_fd(), h.four)?;
        sys::send(&s, h.mark(), 0)
    }),
    way("uring-kernel-thread-datagram", |h| {
        let s = udp()?;
        Ring::polled()?.send_to(s.as_raw_fd(), h.mark(), &sockaddr(h.four))
    }),
];

fn say(mut s: std::net::TcpStream, h: &Home) -> io::Result<()> {
    s.write_all(h.mark())
}

fn stream(protocol: i32) -> io::Result<OwnedFd> {
    sys::socket(libc::AF_INET, libc::SOCK_STREAM, protocol)
}

fn datagrams(family: i32, protocol: i32) -> io::Result<OwnedFd> {
    sys::socket(family, libc::SOCK_DGRAM, protocol)
}

fn udp() -> io::Result<OwnedFd> {
    datagrams(libc::AF_INET, 0)
}

/// The IPv4 address of home, in IPv6.
fn six(h: &Home, how: fn(Ipv4Addr) -> Ipv6Addr) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(how(Ipv4Addr::from(h.octets()))), h.four.port())
}

fn nonblocking(h: &Home) -> io::Result<()> {
    let s = sys::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
    match sys::connect(&s, &sockaddr(h.four)) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
        _ => std::thread::sleep(Duration::from_millis(20)),
    }
    sys::send(&s, h.mark(), 0)
}
