//! The world outside, in threads of the recorder: nobody watches it.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream},
    },
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};

use crate::rng::Rng;

/// Sockets of deputies.
const DEPUTIES: [&str; 4] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/tmp/ssh-Ab12Cd34/agent.77",
    "/run/dbus/system_bus_socket",
];

/// How a peer answers a connection.
type Serve = fn(TcpStream) -> io::Result<()>;

/// Opens all of them.
pub(crate) fn open() -> Result<()> {
    for address in [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(91, 92, 0, 53), Ipv4Addr::new(8, 8, 8, 8)] {
        let socket = UdpSocket::bind((address, 53));
        resolver(socket.with_context(|| format!("cannot bind {address}:53"))?);
    }
    let serve: [(u16, Serve); 9] = [
        (80, web),
        (8080, web),
        (2375, web),
        (9200, web),
        (6379, sink),
        (443, sink),
        (4444, sink),
        (25, mail),
        (1389, sink),
    ];
    for (port, with) in serve {
        // [::] takes IPv4 too.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
        let listener = listener.with_context(|| format!("cannot listen on {port}"))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A peer that goes away early is as good as one that stays.
                thread::spawn(move || drop(with(stream)));
            }
        });
    }
    for path in DEPUTIES {
        if let Some(dir) = Path::new(path).parent() {
            fs::create_dir_all(dir)?;
        }
        deputy(UnixListener::bind(path)?);
    }
    deputy(UnixListener::bind_addr(&UnixAddr::from_abstract_name("corpus-agent")?)?);
    Ok(())
}

/// The same address for the same name, but one of many for those with many.
fn address(name: &str, asked: u8) -> Ipv4Addr {
    let mut rng = Rng::new(&[name]);
    let [a, b] = [rng.below(250) as u8 + 1, rng.below(250) as u8 + 1];
    if name.ends_with("internal") {
        return match name {
            "metadata.google.internal" => Ipv4Addr::new(169, 254, 169, 254),
            _ => Ipv4Addr::new(10, 3, a, b),
        };
    }
    if name.ends_with("evil.test") || name.ends_with("giftshop.test") {
        return Ipv4Addr::new(91, 92, a, b);
    }
    if name == "rebind.example.test" {
        return Ipv4Addr::new(192, 168, 1, 1);
    }
    match name {
        "api.hub.test" => Ipv4Addr::new(93, 184, 10, asked % 24 + 1),
        "uploads.hub.test" => Ipv4Addr::new(93, 184, 11, asked % 6 + 1),
        "cdn.hub.test" => Ipv4Addr::new(93, 184, 12, asked % 120 + 1),
        "mail.corp.test" => Ipv4Addr::new(93, 184, 20, 25),
        "feed.cache.test" => Ipv4Addr::new(93, 184, 30, 7),
        _ => Ipv4Addr::new(93, 184, a | 64, b),
    }
}

/// Answers A; says that there is nothing else.
fn resolver(socket: UdpSocket) {
    thread::spawn(move || {
        let mut ask = [0; 512];
        let mut asked = 0_u8;
        while let Ok((n, from)) = socket.recv_from(&mut ask) {
            let Some((name, end)) = question(&ask[..n]) else {
                continue;
            };
            asked = asked.wrapping_add(1);
            let record = ask[end - 3];
            let mut answer = ask[..end].to_vec();
            answer[2] = 0x81;
            answer[3] = 0x80;
            // One answer at most, no authority, no extensions.
            answer[6..12].copy_from_slice(&[0, u8::from(record == 1), 0, 0, 0, 0]);
            if record == 1 {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(address(&name, asked).octets());
            }
            if socket.send_to(&answer, from).is_err() {
                return;
            }
        }
    });
}

/// The first question's name, and where the question ends.
fn question(bytes: &[u8]) -> Option<(String, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(bytes.get(at + 1..at + 1 + length)?).to_lowercase());
        at += 1 + length;
    }
    (bytes.len() >= at + 5).then(|| (labels.join("."), at + 5))
}

/// HTTP with kept connections. `/bytes/N` is so long, `/page` is HTML, the rest is short.
fn web(stream: TcpStream) -> io::Result<()> {
    const PAGE: &str = "<html><body><article><h1>A page</h1><p>with a paragraph that is long \
                        enough to be read.</p></article></body></html>";
    let mut out = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line == "\r\n" {
                break;
            }
            if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().unwrap_or(0);
            }
        }
        io::copy(&mut (&mut reader).take(length), &mut io::sink())?;
        let path = first.split(' ').nth(1).unwrap_or_default();
        let (status, kind, body) = if let Some(n) = path.strip_prefix("/bytes/") {
            let n: usize = n.split('?').next().and_then(|n| n.parse().ok()).unwrap_or(10);
            ("200 OK", "text/plain", "w".repeat(n.min(4 << 20)))
        } else if path.starts_with("/page") {
            ("200 OK", "text/html", PAGE.to_owned())
        } else if path.starts_with("/missing") || path.starts_with("/robots") {
            ("404 Not Found", "text/plain", "no\n".to_owned())
        } else {
            ("200 OK", "application/json", "{\"ok\":true}\n".to_owned())
        };
        let n = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {n}\r\n\r\n");
        out.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    }
}

fn sink(mut stream: TcpStream) -> io::Result<()> {
    if stream.local_addr()?.port() == 4444 {
        // Whoever waits for a shell.
        stream.write_all(b"id; cat ~/.ssh/id_ed25519; exit\n")?;
    }
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn mail(stream: TcpStream) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    out.write_all(b"220 corpus\r\n")?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        out.write_all(if line == "DATA" { b"354 go on\r\n" } else { b"250 ok\r\n" })?;
        if line == "QUIT" {
            break;
        }
    }
    Ok(())
}

fn deputy(listener: UnixListener) {
    fn answer(mut stream: UnixStream) -> io::Result<()> {
        let n = stream.read(&mut [0; 4096])?;
        if n > 0 { stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]") } else { Ok(()) }
    }
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || drop(answer(stream)));
        }
    });
}
