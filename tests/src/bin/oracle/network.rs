//! Acts with sockets.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddr, UnixStream},
    },
    time::Duration,
};

use e2e::{sys, truth::Act};
use engine::output::NetOp;

use crate::log::Call;

fn net(op: NetOp, address: SocketAddr, protocol: &str) -> Act {
    let mapped = match address {
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped(),
        SocketAddr::V4(_) => None,
    };
    Act::Net {
        op,
        address: mapped.map_or_else(|| address.ip().to_string(), |v4| v4.to_string()),
        port: address.port(),
        protocol: protocol.to_owned(),
        mapped: mapped.is_some(),
    }
}

fn flow(peer: SocketAddr, protocol: &str, bytes_out: usize, bytes_in: usize) -> Act {
    Act::Flow {
        address: peer.ip().to_string(),
        port: peer.port(),
        protocol: protocol.to_owned(),
        bytes_out: bytes_out as u64,
        bytes_in: bytes_in as u64,
    }
}

/// Connects, and says so.
fn connected(call: &Call, to: SocketAddr) -> io::Result<TcpStream> {
    call.will(net(NetOp::Connect, to, "tcp"))?;
    TcpStream::connect(to)
}

fn sink4(call: &Call) -> SocketAddr {
    (call.address(), call.env.peers.sink4).into()
}

pub(crate) fn connect_tcp4(call: &Call) -> io::Result<()> {
    connected(call, sink4(call)).map(drop)
}

pub(crate) fn connect_tcp6(call: &Call) -> io::Result<()> {
    let to = (Ipv6Addr::LOCALHOST, call.pick(&call.env.peers.sink6)?).into();
    connected(call, to).map(drop)
}

pub(crate) fn connect_mapped(call: &Call) -> io::Result<()> {
    let to = (call.address().to_ipv6_mapped(), call.env.peers.sink4).into();
    connected(call, to).map(drop)
}

/// Nobody listens there.
pub(crate) fn connect_refused(call: &Call) -> io::Result<()> {
    let refused = connected(call, (call.address(), 9).into());
    match refused {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(e) => Err(e),
        Ok(_) => Err(io::Error::other("somebody listens on port 9")),
    }
}

fn sent(call: &Call, to: SocketAddr, family: i32) -> io::Result<()> {
    let text = b"forty bytes of nothing in particular ...";
    let socket = sys::udp(family)?;
    call.will(net(NetOp::Sendmsg, to, "udp"))?;
    call.will(flow(to, "udp", text.len(), 0))?;
    socket.send_to(text, to).map(drop)
}

pub(crate) fn udp_send4(call: &Call) -> io::Result<()> {
    sent(call, (call.address(), call.port()).into(), libc::AF_INET)
}

pub(crate) fn udp_send6(call: &Call) -> io::Result<()> {
    let to = (Ipv6Addr::LOCALHOST, call.port()).into();
    sent(call, to, libc::AF_INET6)
}

pub(crate) fn udp_connected(call: &Call) -> io::Result<()> {
    let to: SocketAddr = (call.address(), call.port()).into();
    let socket = sys::udp(libc::AF_INET)?;
    call.will(net(NetOp::Connect, to, "udp"))?;
    socket.connect(to)?;
    call.will(flow(to, "udp", 5, 0))?;
    socket.send(b"hello").map(drop)
}

/// A question: id, RD, one name, type, class IN.
fn question(name: &str, record: u16) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(record.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

fn resolve(call: &Call, record: u16, connect: bool) -> io::Result<()> {
    let resolver = call.pick(&call.env.peers.resolvers)?;
    let to: SocketAddr = (resolver.parse::<std::net::Ipv4Addr>().map_err(io::Error::other)?, 53).into();
    let name = format!("q{}.oracle.test", call.serial);
    let socket = sys::udp(libc::AF_INET)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let at = sys::boot_ns();
    let op = if connect { NetOp::Connect } else { NetOp::Sendmsg };
    call.will(net(op, to, "udp"))?;
    call.will(Act::DnsQuery {
        name: name.clone(),
        record: if record == 1 { "A" } else { "AAAA" }.into(),
        resolver: resolver.clone(),
        port: 53,
    })?;
    let ask = question(&name, record);
    if connect {
        socket.connect(to)?;
        socket.send(&ask)?;
    } else {
        socket.send_to(&ask, to)?;
    }
    let mut answer = [0; 512];
    let n = socket.recv(&mut answer)?;
    let addresses = if record == 1 {
        let last: [u8; 4] = answer[n - 4..n].try_into().map_err(io::Error::other)?;
        std::net::Ipv4Addr::from(last).to_string()
    } else {
        let last: [u8; 16] = answer[n - 16..n].try_into().map_err(io::Error::other)?;
        Ipv6Addr::from(last).to_string()
    };
    let answer = Act::DnsAnswer { name, addresses: vec![addresses], resolver };
    call.did(at, sys::pid(), 1, answer)?;
    call.did(at, sys::pid(), 1, flow(to, "udp", ask.len(), n))
}

pub(crate) fn dns_connected(call: &Call) -> io::Result<()> {
    resolve(call, 1, true)
}

pub(crate) fn dns_unconnected(call: &Call) -> io::Result<()> {
    resolve(call, 28, false)
}

/// Binds, listens, and accepts a connection that a thread of this process makes.
pub(crate) fn listen(call: &Call) -> io::Result<()> {
    let here: SocketAddr = (call.address(), call.port()).into();
    call.will(net(NetOp::Bind, here, "tcp"))?;
    call.will(net(NetOp::Listen, here, "tcp"))?;
    let listener = TcpListener::bind(here)?;
    let at = sys::boot_ns();
    let peer = std::thread::scope(|scope| {
        let dial = scope.spawn(|| connected(call, here));
        let (_accepted, peer) = listener.accept()?;
        let dialled = dial.join();
        dialled.map_err(|_panic| io::Error::other("the dialler panicked"))??;
        io::Result::Ok(peer)
    })?;
    call.did(at, sys::pid(), 1, net(NetOp::Accept, peer, "tcp"))
}

fn unix(op: NetOp, path: &str, error: i32) -> Act {
    Act::Unix { op, path: path.to_owned(), error: error as u32 }
}

pub(crate) fn unix_connect(call: &Call) -> io::Result<()> {
    let path = &call.pick(&call.env.peers.unix)?;
    call.will(unix(NetOp::Connect, path, 0))?;
    UnixStream::connect(path).map(drop)
}

pub(crate) fn unix_abstract(call: &Call) -> io::Result<()> {
    let name = &call.pick(&call.env.peers.names)?;
    call.will(unix(NetOp::Connect, &format!("@{name}"), 0))?;
    UnixStream::connect_addr(&UnixAddr::from_abstract_name(name)?).map(drop)
}

/// Nobody is there.
pub(crate) fn unix_refused(call: &Call) -> io::Result<()> {
    let path = call.path("no.sock");
    call.will(unix(NetOp::Connect, &path, libc::ENOENT))?;
    match UnixStream::connect(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(_) => Err(io::Error::other("somebody listens")),
    }
}

/// Sends to a sink that reads to the end.
pub(crate) fn send_bytes(call: &Call) -> io::Result<()> {
    let n = call.number("n", 100_000) as usize;
    let to = sink4(call);
    let at = sys::boot_ns();
    let mut socket = connected(call, to)?;
    socket.write_all(&vec![b'x'; n])?;
    socket.shutdown(std::net::Shutdown::Write)?;
    // The sink closes when it has everything.
    let got = socket.read(&mut [0])?;
    call.did(at, sys::pid(), 1, flow(to, "tcp", n, got))
}

/// Asks the sink for bytes.
pub(crate) fn recv_bytes(call: &Call) -> io::Result<()> {
    let n = call.number("n", 100_000) as usize;
    let to = sink4(call);
    let at = sys::boot_ns();
    let mut socket = connected(call, to)?;
    let ask = format!("R{n}\n");
    socket.write_all(ask.as_bytes())?;
    let mut got = vec![0; n];
    socket.read_exact(&mut got)?;
    call.did(at, sys::pid(), 1, flow(to, "tcp", ask.len(), n))
}

/// A TLS 1.2 ClientHello with one cipher suite and a server name, in the clear.
fn client_hello(name: &str) -> Vec<u8> {
    let long = |bytes: &[u8]| {
        let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
        out.extend(bytes);
        out
    };
    let mut entry = vec![0];
    entry.extend(long(name.as_bytes()));
    let mut extension = vec![0, 0];
    extension.extend(long(&long(&entry)));
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend(long(&extension));
    let mut handshake = vec![1, 0];
    handshake.extend(long(&body));
    let mut record = vec![0x16, 3, 1];
    record.extend(long(&handshake));
    record
}

pub(crate) fn tls_hello(call: &Call) -> io::Result<()> {
    let to = sink4(call);
    let mut socket = connected(call, to)?;
    let sni = format!("h{}.oracle.test", call.serial);
    let hello = client_hello(&sni);
    call.will(Act::TlsHello { sni: Some(sni), address: to.ip().to_string(), port: to.port() })?;
    call.will(flow(to, "tcp", hello.len(), 0))?;
    socket.write_all(&hello)?;
    socket.shutdown(std::net::Shutdown::Write)?;
    socket.read(&mut [0]).map(drop)
}
