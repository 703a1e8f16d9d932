//! The peers that the oracle talks to. They live in the test's own process, which nobody watches.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddr, UnixListener},
    },
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};

/// How many of each peer: calls that run side by side do not share one.
const EACH: u8 = 16;

/// Worlds of one process: what its resolvers' addresses have room for.
const WORLDS_MAX: u8 = 64;

static WORLDS: AtomicU8 = AtomicU8::new(0);

/// Sinks, resolvers and unix sockets.
pub struct World {
    dir: tempfile::TempDir,
    sink4: u16,
    sink6: Vec<u16>,
    resolvers: Vec<Ipv4Addr>,
    unix: Vec<PathBuf>,
    names: Vec<String>,
    web: u16,
}

impl World {
    /// Opens all of them.
    ///
    /// # Errors
    /// When something is in use already.
    pub fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let sink4 = sink(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?)?;
        let sink6 = (0..EACH)
            .map(|_| sink(TcpListener::bind((Ipv6Addr::LOCALHOST, 0))?))
            .collect::<io::Result<_>>()?;
        // Its own addresses for every world of every process: sockets live as long as the process.
        let world = WORLDS.fetch_add(1, Ordering::Relaxed);
        ensure!(world < WORLDS_MAX, "more than {WORLDS_MAX} worlds in one process");
        let first =
            0x7f80_0000 | ((std::process::id() & 0x1fff) << 10) | (u32::from(world) * u32::from(EACH));
        let resolvers: Vec<_> = (0..u32::from(EACH)).map(|n| Ipv4Addr::from(first + n)).collect();
        for &address in &resolvers {
            let socket = UdpSocket::bind((address, 53));
            resolver(socket.with_context(|| format!("cannot bind {address}:53"))?);
        }
        let mut unix = Vec::new();
        let mut names = Vec::new();
        for n in 0..EACH {
            let path = dir.path().join(format!("{n}.sock"));
            accept(UnixListener::bind(&path)?);
            unix.push(path);
            let name = format!("toolwarden-e2e-{}-{world}-{n}", std::process::id());
            let address = UnixAddr::from_abstract_name(&name)?;
            accept(UnixListener::bind_addr(&address)?);
            names.push(name);
        }
        Ok(Self {
            dir,
            sink4,
            sink6,
            resolvers,
            unix,
            names,
            web: web(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)?,
        })
    }

    /// Directory for files.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Port of a web server on 127.0.0.1.
    #[must_use]
    pub fn web(&self) -> u16 {
        self.web
    }

    /// Tells an oracle where they all are.
    pub fn introduce(&self, oracle: &mut Command) {
        let list = |items: Vec<String>| items.join(",");
        oracle
            .args(["--sink4", &self.sink4.to_string()])
            .args(["--sink6", &list(self.sink6.iter().map(u16::to_string).collect())])
            .args(["--resolver", &list(self.resolvers.iter().map(Ipv4Addr::to_string).collect())])
            .args(["--unix", &list(self.unix.iter().map(|p| p.display().to_string()).collect())])
            .args(["--abstract", &self.names.join(",")]);
    }
}

/// Reads to the end; or, asked by `R<n>\n`, sends n bytes.
fn sink(listener: TcpListener) -> io::Result<u16> {
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A peer that goes away early is as good as one that stays.
            thread::spawn(move || drop(serve(stream)));
        }
    });
    Ok(port)
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut first = [0];
    if stream.read(&mut first)? == 1 && first == *b"R" {
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let n: usize = line.trim().parse().map_err(io::Error::other)?;
        return stream.write_all(&vec![b'z'; n]);
    }
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

/// Answers A with 203.0.113.n and AAAA with 2001:db8::n, n being the last label's last byte.
fn resolver(socket: UdpSocket) {
    thread::spawn(move || {
        let mut ask = [0; 512];
        while let Ok((n, from)) = socket.recv_from(&mut ask) {
            if n < 17 {
                continue;
            }
            let record = ask[n - 3];
            let number = ask[..n].iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
            let mut answer = ask[..n].to_vec();
            answer[2] = 0x81;
            answer[3] = 0x80;
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, record, 0, 1, 0, 0, 0, 60, 0]);
            if record == 1 {
                answer.extend([4, 203, 0, 113, number]);
            } else {
                answer.push(16);
                answer.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).octets());
            }
            if socket.send_to(&answer, from).is_err() {
                return;
            }
        }
    });
}

fn accept(listener: UnixListener) {
    thread::spawn(move || listener.incoming().for_each(drop));
}

/// Answers every request with the same page.
fn web(listener: TcpListener) -> io::Result<u16> {
    const PAGE: &str = "<html><body><h1>A page</h1><p>with a paragraph.</p></body></html>";
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                if lines.take_while(|l| !l.is_empty()).count() == 0 {
                    return Ok(());
                }
                let n = PAGE.len();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {n}");
                write!(stream, "{head}\r\nconnection: close\r\n\r\n{PAGE}")
            });
        }
    });
    Ok(port)
}
