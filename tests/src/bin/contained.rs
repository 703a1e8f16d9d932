//! A server whose tools do what they are told, and say what came of it: for tests of what is denied. Every tool takes a list of
//! `acts`; the reply is a JSON list of results, `ok` or the name of an error.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use e2e::{local, raw_server, sys, uring::Ring};
use serde_json::{Value, json};

/// Of the numbers that a test shares with it: when it ran last, and when it began to act, ns since boot.
const RAN: usize = 0;
const ACTED: usize = 1;

/// Who has acted goes on for so long.
const SPINS_NS: u64 = 2_000_000_000;

/// Says all the time that it runs.
fn spin(at: &[AtomicU64; 8], until: u64) {
    loop {
        let now = sys::boot_ns();
        at[RAN].fetch_max(now, Ordering::Relaxed);
        if now > until {
            return;
        }
    }
}

type Results = Arc<Mutex<Vec<String>>>;

#[derive(Default)]
struct State {
    later: Results,
    threads: Vec<std::thread::JoinHandle<()>>,
    children: Vec<u32>,
    streams: HashMap<String, TcpStream>,
}

fn named(r: io::Result<String>) -> String {
    match r {
        Ok(text) => text,
        Err(e) => match e.raw_os_error() {
            Some(libc::EPERM) => "EPERM".into(),
            Some(libc::ECONNREFUSED) => "ECONNREFUSED".into(),
            _ => e.to_string(),
        },
    }
}

fn text<'a>(act: &'a Value, key: &str) -> io::Result<&'a str> {
    act[key].as_str().ok_or_else(|| io::Error::other(format!("no {key}")))
}

fn to(act: &Value) -> io::Result<SocketAddr> {
    text(act, "to")?.parse().map_err(io::Error::other)
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, Duration::from_secs(2))
}

fn ok<T>(r: io::Result<T>) -> io::Result<String> {
    r.map(|_| "ok".into())
}

fn unspecified(to: SocketAddr) -> SocketAddr {
    SocketAddr::new(if to.is_ipv4() { [0, 0, 0, 0].into() } else { IpAddr::from([0u16; 8]) }, 0)
}

fn mapped(to: SocketAddr) -> io::Result<SocketAddr> {
    match to.ip() {
        IpAddr::V4(a) => Ok(SocketAddr::new(a.to_ipv6_mapped().into(), to.port())),
        IpAddr::V6(_) => Err(io::Error::other("IPv4 only")),
    }
}

/// A question for an A record.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut q = id.to_be_bytes().to_vec();
    q.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        q.push(label.len() as u8);
        q.extend(label.as_bytes());
    }
    q.extend([0, 0, 1, 0, 1]);
    q
}

/// The first address of an answer whose question has the same name.
fn first_address(answer: &[u8]) -> Option<IpAddr> {
    let four: [u8; 4] = answer.get(answer.len().checked_sub(4)?..)?.try_into().ok()?;
    Some(IpAddr::from(four))
}

/// Asks, connects to what is answered at once, and again.
fn resolve_and_connect(act: &Value) -> io::Result<String> {
    let resolver: SocketAddr = text(act, "resolver")?.parse().map_err(io::Error::other)?;
    let (name, port) = (text(act, "name")?, act["port"].as_u64().unwrap_or(0) as u16);
    let socket = UdpSocket::bind(unspecified(resolver))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(resolver)?;
    let mut bytes = [0; 512];
    let times = act["times"].as_u64().unwrap_or(1);
    let (mut good, mut last) = (0, String::new());
    for i in 0..times {
        socket.send(&question(i as u16, name))?;
        let n = socket.recv(&mut bytes)?;
        let address = bytes.get(..n).and_then(first_address).ok_or_else(|| io::Error::other("no answer"))?;
        match connect(SocketAddr::new(address, port)) {
            Ok(_) => good += 1,
            Err(e) => last = named(Err(e)),
        }
    }
    Ok(if good == times { "ok".into() } else { format!("{good} of {times}: {last}") })
}

/// Receives a descriptor over a unix socket and writes into it.
fn passed(path: &str) -> io::Result<String> {
    let stream = UnixStream::connect(path)?;
    let fd = sys::receive_fd(stream.as_raw_fd())?;
    sys::write(fd.as_raw_fd(), b"passed")?;
    Ok("ok".into())
}

fn act(state: &mut State, a: &Value) -> io::Result<String> {
    match text(a, "do")? {
        "tcp" => ok(connect(to(a)?)),
        "mapped" => ok(connect(mapped(to(a)?)?)),
        "udp" => ok(UdpSocket::bind(unspecified(to(a)?))?.send_to(b"datagram", to(a)?)),
        "udp-mapped" => {
            let socket = UdpSocket::bind("[::]:0")?;
            ok(socket.send_to(b"datagram", mapped(to(a)?)?))
        }
        "udp-connected" => {
            let socket = UdpSocket::bind(unspecified(to(a)?))?;
            socket.connect(to(a)?)?;
            ok(socket.send(b"datagram"))
        }
        "bind" => ok(TcpListener::bind(to(a)?)),
        "bind-udp" => ok(UdpSocket::bind(to(a)?)),
        "fastopen" => ok(sys::fast_open(to(a)?, b"fast open")),
        "uring" => ok(sys::tcp().and_then(|s| Ring::new()?.connect(s.as_raw_fd(), to(a)?))),
        "raw" => ok(sys::raw_icmp(to(a)?.ip())),
        "create" => {
            let first = a["first"].as_u64().unwrap_or(0);
            for n in first..first + a["count"].as_u64().unwrap_or(1) {
                std::fs::File::create(format!("{}/{n}", text(a, "dir")?))?;
            }
            Ok("ok".into())
        }
        "hold" => {
            state.streams.insert(text(a, "as")?.to_owned(), connect(to(a)?)?);
            Ok("ok".into())
        }
        "write" | "read" => {
            let stream = state.streams.get_mut(text(a, "as")?).ok_or_else(|| io::Error::other("none"))?;
            stream.set_read_timeout(Some(Duration::from_millis(500)))?;
            if a["do"] == "write" {
                let bytes = vec![7; a["bytes"].as_u64().unwrap_or(1) as usize];
                ok(stream.write_all(&bytes))
            } else {
                ok(stream.read_exact(&mut [0]))
            }
        }
        "fd" => {
            let fd = a["fd"].as_i64().unwrap_or(-1) as i32;
            ok(sys::write(fd, b"inherited"))
        }
        "forge" => {
            let own = sys::open("/proc/self/fd/0", libc::O_WRONLY)?;
            ok(sys::write(own.as_raw_fd(), format!("{}\n", text(a, "line")?).as_bytes()))
        }
        "passed" => passed(text(a, "path")?),
        "dns" => resolve_and_connect(a),
        "ask" => {
            let resolver: SocketAddr = text(a, "resolver")?.parse().map_err(io::Error::other)?;
            let socket = UdpSocket::bind(unspecified(resolver))?;
            ok(socket.send_to(&question(1, text(a, "name")?), resolver))
        }
        "child" => {
            let (to, ms) = (to(a)?, a["ms"].as_u64().unwrap_or(0));
            let child = sys::fork(move || {
                sys::sleep_us(ms * 1000);
                match connect(to) {
                    Ok(_) => 0,
                    Err(e) => e.raw_os_error().unwrap_or(255),
                }
            })?;
            state.children.push(child);
            Ok("ok".into())
        }
        "nested" => {
            // A program with a request channel of its own, that replies where this server does.
            let mut child = std::process::Command::new(text(a, "path")?);
            let status = child.stdin(std::process::Stdio::piped()).status()?;
            Ok(if status.success() { "ok".into() } else { status.to_string() })
        }
        "reap" => {
            let codes: io::Result<Vec<i32>> = state.children.drain(..).map(sys::wait).collect();
            Ok(format!("{:?}", codes?))
        }
        "later" => {
            let (what, ms, results) =
                (a["act"].clone(), a["ms"].as_u64().unwrap_or(0), Arc::clone(&state.later));
            state.threads.push(std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(ms));
                let result = named(act(&mut State::default(), &what));
                results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
            }));
            Ok("ok".into())
        }
        "results" => {
            for thread in state.threads.drain(..) {
                thread.join().map_err(|_panic| io::Error::other("a thread panicked"))?;
            }
            Ok(std::mem::take(&mut *state.later.lock().unwrap_or_else(PoisonError::into_inner)).join(","))
        }
        "drain" => {
            // The name of the stream that is read, and for how long; gives how many bytes came.
            let stream = state.streams.get_mut(text(a, "as")?).ok_or_else(|| io::Error::other("none"))?;
            stream.set_read_timeout(Some(Duration::from_millis(500)))?;
            let end = Instant::now() + Duration::from_millis(a["ms"].as_u64().unwrap_or(0));
            let (mut buffer, mut got) = (vec![0; 1 << 16], 0);
            while Instant::now() < end {
                match stream.read(&mut buffer) {
                    Ok(n) => got += n,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(got.to_string())
        }
        "pour" => {
            let mut stream = state.streams.remove(text(a, "as")?).ok_or_else(|| io::Error::other("none"))?;
            std::thread::spawn(move || while stream.write_all(&[7; 1 << 14]).is_ok() {});
            Ok("ok".into())
        }
        "spin" => {
            let at = sys::shared(Path::new(text(a, "file")?))?;
            std::thread::spawn(move || spin(at, u64::MAX));
            Ok("ok".into())
        }
        "marked" => {
            let at = sys::shared(Path::new(text(a, "file")?))?;
            let now = sys::boot_ns();
            at[ACTED].store(now, Ordering::Relaxed);
            let result = act(state, &a["act"]);
            spin(at, now + SPINS_NS);
            result
        }
        "many" => {
            // So often, or for so long.
            let times = a["times"].as_u64().unwrap_or(if a["ms"].is_null() { 1 } else { u64::MAX });
            let end = a["ms"].as_u64().map(|ms| Instant::now() + Duration::from_millis(ms));
            let mut results: BTreeMap<String, u64> = BTreeMap::new();
            for _ in 0..times {
                if end.is_some_and(|end| Instant::now() > end) {
                    break;
                }
                *results.entry(named(act(state, &a["act"]))).or_default() += 1;
            }
            Ok(format!("{results:?}"))
        }
        "sleep" => {
            std::thread::sleep(Duration::from_millis(a["ms"].as_u64().unwrap_or(0)));
            Ok("ok".into())
        }
        other => local::act(a).unwrap_or_else(|| Err(io::Error::other(format!("no such act: {other}")))),
    }
}

fn main() -> io::Result<()> {
    let mut state = State::default();
    // What is done before anybody asks.
    let first = std::env::args().nth(1).map(|text| serde_json::from_str::<Value>(&text)).transpose()?;
    let first = first.map(|a| named(act(&mut state, &a)));
    raw_server::serve("contained", &["net", "other"], move |_, arguments| {
        if arguments["first"] == true {
            return Ok(first.clone().unwrap_or_default());
        }
        let acts = arguments["acts"].as_array().cloned().unwrap_or_default();
        let results: Vec<String> = acts.iter().map(|a| named(act(&mut state, a))).collect();
        Ok(json!(results).to_string())
    })
}
