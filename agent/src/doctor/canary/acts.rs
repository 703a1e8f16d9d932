//! The child's side: does the acts, one by one, and says of each whether it could be done.
//!
//! It runs as `toolwarden canary`, with the request pipe as descriptor 0 and the report pipe as descriptor 2.
//! Descriptor 1 is no pipe: so no agent on the host, this one included, takes it for a server.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt as _,
        unix::{
            net::{SocketAddr as SocketAddrUnix, UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    process::Command,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, sockopt::socket_cookie};

use super::{
    proof::Act,
    space::{loopback_up, own_network},
};

/// A loopback packet arrives at once, or not at all.
const ARRIVES: Duration = Duration::from_secs(1);
/// A question for the address of `toolwarden.invalid`, which no resolver ever gets.
const QUESTION: &[u8] =
    b"\x74\x77\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0atoolwarden\x07invalid\x00\x00\x01\x00\x01";

/// Waits to be tracked, then executes itself anew: that is the first act.
pub(crate) fn wait(dns: bool) -> io::Result<()> {
    next()?;
    let mut again = Command::new("/proc/self/exe");
    again.args(["canary", "acts"]).args(dns.then_some("--dns"));
    Err(again.exec())
}

/// Does the acts.
pub(crate) fn all(dns: bool) -> io::Result<()> {
    let opened = File::open("/dev/null").map(drop);
    let same = match &opened {
        Ok(()) => Ok(()),
        Err(e) => Err(copy(e)),
    };
    report(Act::LsmOpen, same)?;
    report(Act::Open, opened)?;
    report(Act::LsmUnix, unix())?;
    report(Act::LsmPtrace, look_into_child())?;
    report(Act::Uring, super::space::submit_nop())?;
    let [v4, v6] = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
    network(v4, [Act::Bind4, Act::Connect4, Act::Sendmsg4])?;
    network(v6, [Act::Bind6, Act::Connect6, Act::Sendmsg6])?;
    socket()?;
    report(Act::Fork, fork())?;
    if dns {
        report(Act::Dns, question())?;
    }
    Ok(())
}

/// The line is the act of writing to the reply channel as well.
fn report(act: Act, done: io::Result<()>) -> io::Result<()> {
    let line = match done {
        Ok(()) => format!("ok {}\n", act.name()),
        Err(e) => format!("no {} {} {e}\n", act.name(), e.raw_os_error().unwrap_or(0)),
    };
    io::stderr().write_all(line.as_bytes())
}

fn copy(e: &io::Error) -> io::Error {
    io::Error::from_raw_os_error(e.raw_os_error().unwrap_or(0))
}

/// Connects to a socket of its own, in the abstract namespace: nothing is left behind.
fn unix() -> io::Result<()> {
    let name = format!("toolwarden-canary-{}", std::process::id());
    let address = SocketAddrUnix::from_abstract_name(name)?;
    let _listener = UnixListener::bind_addr(&address)?;
    UnixStream::connect_addr(&address).map(drop)
}

/// Opens the memory of a child of its own, which waits meanwhile.
fn look_into_child() -> io::Result<()> {
    // SAFETY: this process has one thread; the child only waits to be killed.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let looked = File::open(format!("/proc/{child}/mem")).map(drop);
    let mut status = 0;
    // SAFETY: a child of this process that nobody has waited for; a live integer.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, &raw mut status, 0);
    }
    looked
}

/// Waits for the parent's word. Byte by byte: what comes after it is for the program that is executed next.
fn next() -> io::Result<()> {
    let mut byte = [0];
    let mut stdin = File::from(rustix::io::dup(rustix::stdio::stdin())?);
    loop {
        stdin.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(());
        }
    }
}

fn network(any: SocketAddr, [bind, connect, sendmsg]: [Act; 3]) -> io::Result<()> {
    let receiver = match UdpSocket::bind(any) {
        Ok(receiver) => receiver,
        Err(e) => {
            let code = || io::Error::from_raw_os_error(e.raw_os_error().unwrap_or(0));
            report(bind, Err(code()))?;
            report(connect, Err(code()))?;
            return report(sendmsg, Err(code()));
        }
    };
    report(bind, Ok(()))?;
    report(connect, TcpListener::bind(any).and_then(|l| TcpStream::connect(l.local_addr()?)).map(drop))?;
    let sent = send(any, &receiver);
    if any.is_ipv4() {
        // The same packet, going out and coming in.
        report(Act::Egress, sent.as_ref().map(|_| ()).map_err(copy))?;
        report(Act::Ingress, sent.as_ref().map(|_| ()).map_err(copy))?;
    }
    report(sendmsg, sent)
}

fn send(any: SocketAddr, receiver: &UdpSocket) -> io::Result<()> {
    let sender = UdpSocket::bind(any)?;
    receiver.set_read_timeout(Some(ARRIVES))?;
    sender.send_to(b"toolwarden", receiver.local_addr()?)?;
    receiver.recv_from(&mut [0; 16]).map(drop)
}

/// A socket that nothing is done with: who owns it is known from its making alone.
fn socket() -> io::Result<()> {
    let made: io::Result<(OwnedFd, u64)> =
        rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(Into::into).and_then(|s| {
            let cookie = socket_cookie(&s)?;
            Ok((s, cookie))
        });
    match made {
        Ok((socket, cookie)) => {
            io::stderr().write_all(format!("socket {cookie}\n").as_bytes())?;
            next()?;
            drop(socket);
            io::stderr().write_all(b"closed\n")?;
            next()
        }
        Err(e) => {
            report(Act::Socket, Err(io::Error::from_raw_os_error(e.raw_os_error().unwrap_or(0))))?;
            report(Act::Release, Err(e))
        }
    }
}

fn fork() -> io::Result<()> {
    // SAFETY: this process has one thread; the child only ends.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the process without running anything of the parent's.
        0 => unsafe { libc::_exit(0) },
        _ => {
            let mut status = 0;
            // SAFETY: a live integer.
            let gone = unsafe { libc::waitpid(child, &raw mut status, 0) };
            if gone == child { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
    }
}

/// To port 53 of an own network: on the host's, a resolver may listen there.
fn question() -> io::Result<()> {
    own_network()?;
    loopback_up()?;
    let resolver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53))?;
    resolver.set_read_timeout(Some(ARRIVES))?;
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    client.send_to(QUESTION, (Ipv4Addr::LOCALHOST, 53))?;
    resolver.recv_from(&mut [0; 64]).map(drop)
}
