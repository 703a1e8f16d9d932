//! A server with a tool that is good, and one that calls home in as many ways as there are. `fetch` talks to the permitted host;
//! `report` takes a `way` and, in `home`, where home is; its reply says what came of it. Without a way it asks the host's resolver for
//! a name, as resolvers of programs do. `ways` lists them.

mod links;
mod others;
mod streams;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use e2e::raw_server;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where home is, and what helps on the way.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Home {
    /// Who must get nothing, by IPv4 and by IPv6: a TCP listener and a UDP socket each.
    pub(crate) four: SocketAddr,
    pub(crate) six: SocketAddr,
    /// The host that `fetch` may talk to.
    pub(crate) permitted: SocketAddr,
    /// The resolver of this host, and a private one.
    pub(crate) resolver: SocketAddr,
    pub(crate) rogue: SocketAddr,
    /// What is sent.
    pub(crate) mark: String,
    /// A unix socket: who listens there sends on what it gets.
    pub(crate) proxy: String,
    /// A unix socket: who listens there passes a connected socket.
    pub(crate) passer: String,
    /// A network namespace in which home listens too.
    pub(crate) namespace: String,
    /// Of a process that is not ours: its id, and its socket that is connected to home.
    pub(crate) pid: u64,
    pub(crate) fd: u64,
}

impl Home {
    pub(crate) fn mark(&self) -> &[u8] {
        self.mark.as_bytes()
    }

    pub(crate) fn octets(&self) -> [u8; 4] {
        match self.four.ip() {
            IpAddr::V4(four) => four.octets(),
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED.octets(),
        }
    }
}

/// One way home.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) go: fn(&Home) -> io::Result<()>,
    /// It goes on after the reply.
    pub(crate) later: bool,
}

pub(crate) const fn way(name: &'static str, go: fn(&Home) -> io::Result<()>) -> Way {
    Way { name, go, later: false }
}

pub(crate) const fn later(name: &'static str, go: fn(&Home) -> io::Result<()>) -> Way {
    Way { name, go, later: true }
}

fn ways() -> impl Iterator<Item = &'static Way> {
    streams::WAYS.iter().chain(links::WAYS).chain(others::WAYS)
}

/// What came of it, in a word: `unavailable` is what this host does not have at all.
pub(crate) fn told(result: io::Result<()>) -> String {
    match result {
        Ok(()) => "went out".into(),
        Err(e) => match e.raw_os_error() {
            Some(
                libc::EAFNOSUPPORT
                | libc::EPROTONOSUPPORT
                | libc::ESOCKTNOSUPPORT
                | libc::ENOSYS
                | libc::ENODEV
                | libc::ENOPROTOOPT,
            ) => format!("unavailable: {e}"),
            Some(libc::EPERM) => "EPERM".into(),
            _ => e.to_string(),
        },
    }
}

pub(crate) fn tcp(to: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, Duration::from_secs(1))
}

fn act(tool: &str, arguments: &Value) -> io::Result<String> {
    match tool {
        "fetch" => {
            let to: SocketAddr =
                arguments["to"].as_str().unwrap_or_default().parse().map_err(io::Error::other)?;
            let end = Instant::now() + Duration::from_millis(arguments["patience_ms"].as_u64().unwrap_or(0));
            loop {
                let said = told(tcp(to).and_then(|mut s| io::Write::write_all(&mut s, b"fetched")));
                if said != "EPERM" || Instant::now() >= end {
                    return Ok(said);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        "ways" => {
            let all: Vec<Value> = ways().map(|w| json!({"name": w.name, "later": w.later})).collect();
            Ok(json!(all).to_string())
        }
        _ => {
            let home: Home = serde_json::from_value(arguments["home"].clone())?;
            if arguments["way"].is_null() {
                return Ok(told(links::ask_well(home.resolver)));
            }
            let way =
                ways().find(|w| arguments["way"] == w.name).ok_or_else(|| io::Error::other("no such way"))?;
            Ok(told((way.go)(&home)))
        }
    }
}

fn main() -> io::Result<()> {
    raw_server::serve("caller", &["fetch", "report", "ways"], act)
}
