//! A tool that calls home in every way we know, while its server is held to what a person ratified.
//!
//! What counts is what passes the wire: a packet socket sees every frame of the loopback network, here and in a namespace beside it.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd as _,
        unix::{net::UnixListener, process::CommandExt as _},
    },
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    pace::patient,
    scenario::program,
    sys,
};
use serde_json::{Value, json};

use super::{
    place::{Place, soon},
    story::known,
};

const HOME: [u8; 4] = [127, 66, 0, 1];
const PERMITTED: &str = "127.67.0.1";
const RESOLVER: &str = "127.67.0.53:53";
const ROGUE: &str = "127.67.0.54:53";
/// What only BPF LSM could deny, and as what it is found, which is the least.
const NOT_DENIED_WITHOUT_LSM: [(&str, &str, &str); 3] = [
    ("packet-datagram", "unusual-syscall", "packet_socket"),
    ("packet-frame", "unusual-syscall", "packet_socket"),
    ("unix-proxy", "new-unix-peer", "/proxy"),
];

/// What reached the wire and should not have: marks, and packets to home.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<String>>>);

impl Wire {
    fn said(&self, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Captures on this thread's network namespace, for good.
    fn watch(&self, place: &'static str, port_six: u16) -> Result<()> {
        let mut frames = sys::capture().context("cannot capture packets")?;
        let wire = self.clone();
        thread::spawn(move || {
            let mut frame = vec![0; 1 << 17];
            while let Ok(n) = frames.read(&mut frame) {
                if let Some(what) = leak(&frame[..n], port_six) {
                    wire.said(format!("{place}: {what}"));
                }
            }
        });
        Ok(())
    }
}

/// What a frame carries home.
fn leak(frame: &[u8], port_six: u16) -> Option<String> {
    let marked = frame.windows(5).position(|w| w == b"home~").map(|at| {
        let end = frame.len().min(at + 12);
        format!("the mark {}", String::from_utf8_lossy(&frame[at..end]))
    });
    marked.or_else(|| to_home(frame.get(14..)?, port_six))
}

fn to_home(packet: &[u8], port_six: u16) -> Option<String> {
    let (protocol, inner) = match packet.first()? >> 4 {
        4 if packet.get(16..20)? == HOME => (*packet.get(9)?, packet.get(usize::from(packet[0] & 15) * 4..)?),
        6 if packet.get(42..44)? == port_six.to_be_bytes() => (*packet.get(6)?, packet.get(40..)?),
        _ => return None,
    };
    if protocol != 6 {
        return Some(format!("a packet of protocol {protocol} to home"));
    }
    // Connections that others made are acknowledged and ended.
    let (flags, header) = (*inner.get(13)?, usize::from(inner.get(12)? >> 4) * 4);
    let has_data = inner.len() > header;
    (flags & 2 != 0 || has_data).then(|| format!("a TCP packet to home, flags {flags:x}"))
}

/// Takes what comes, at both protocols.
fn listen(at: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind(at)?;
    let at = listener.local_addr()?;
    let udp = UdpSocket::bind(at)?;
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(std::result::Result::ok) {
            thread::spawn(move || {
                let mut all = Vec::new();
                // Who sent something and is done gets an answer.
                match stream.read_to_end(&mut all) {
                    Ok(n) if n > 0 => stream.write_all(b"."),
                    _ => Ok(()),
                }
            });
        }
    });
    thread::spawn(move || {
        let mut bytes = [0; 2048];
        while udp.recv(&mut bytes).is_ok() {}
    });
    Ok(at)
}

/// A process with rights of its own: sends on what it is told, and dials where it is told.
fn proxy(path: &Path, home: SocketAddr) -> Result<()> {
    let listener = UnixListener::bind(path)?;
    thread::spawn(move || -> Result<()> {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream?);
            let mut line = String::new();
            stream.read_line(&mut line)?;
            match line.trim().split_once(' ') {
                Some(("send", what)) => TcpStream::connect(home)?.write_all(what.as_bytes())?,
                Some(("dial", port)) => {
                    let at = SocketAddr::new([127, 0, 0, 1].into(), port.parse()?);
                    thread::spawn(move || {
                        let stream = TcpStream::connect_timeout(&at, Duration::from_secs(1));
                        stream.and_then(|mut s| s.read(&mut [0; 64]))
                    });
                }
                _ => {}
            }
            stream.get_mut().write_all(b".")?;
        }
        Ok(())
    });
    Ok(())
}

fn passer(path: &Path, stream: TcpStream) -> Result<()> {
    let listener = UnixListener::bind(path)?;
    thread::spawn(move || -> Result<()> {
        for client in listener.incoming() {
            sys::pass_fd(client?.as_raw_fd(), stream.as_raw_fd())?;
        }
        Ok(())
    });
    Ok(())
}

/// A network namespace in which home listens at the same address; where it is, and what keeps it.
fn namespace(wire: &Wire, home: SocketAddr, six: u16) -> Result<(String, mpsc::Sender<()>)> {
    let (wire, (told, hear), (keep, kept)) = (wire.clone(), mpsc::channel(), mpsc::channel::<()>());
    thread::spawn(move || {
        let there = || -> Result<String> {
            sys::plain(libc::SYS_unshare, [libc::CLONE_NEWNET as u64, 0, 0, 0])?;
            sys::loopback_up()?;
            listen(home)?;
            wire.watch("in the other namespace", six)?;
            let thread = sys::plain(libc::SYS_gettid, [0; 4])?;
            Ok(format!("/proc/{}/task/{thread}/ns/net", sys::pid()))
        };
        drop(told.send(there()));
        kept.recv()
    });
    Ok((hear.recv()??, keep))
}

/// The agent, for which this host's resolver is [`RESOLVER`].
fn agent(place: &Arc<Place>) -> Result<Agent> {
    let resolv = place.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.67.0.53\n")?;
    let place = Arc::clone(place);
    // A thread of its own, because its mount namespace is.
    let agent = thread::spawn(move || -> Result<Agent> {
        sys::replace_file(&resolv.display().to_string(), "/etc/resolv.conf")?;
        place.start()
    });
    agent.join().map_err(|_panic| anyhow::anyhow!("the starting thread panicked"))?
}

struct Server {
    client: Client,
    home: Value,
}

impl Server {
    fn say(&mut self, tool: &str, arguments: &Value) -> Result<String> {
        let (_, reply) = self.client.call(tool, arguments)?;
        ensure!(reply.is_ok(), "{tool}: {reply:?}");
        Ok(reply.text().to_owned())
    }

    /// After a forgery calls open on the agent's word, a little later than their request is read.
    fn fetch(&mut self, patience_ms: u64) -> Result<String> {
        let to = self.home["permitted"].clone();
        self.say("fetch", &json!({"to": to, "patience_ms": patience_ms}))
    }

    fn report(&mut self, way: Option<&str>, mark: &str) -> Result<String> {
        self.home["mark"] = mark.into();
        let arguments = json!({"way": way, "home": self.home});
        self.say("report", &arguments)
    }
}

fn settle() {
    thread::sleep(patient(Duration::from_millis(60)));
}

#[test]
fn nothing_gets_out_but_what_was_ratified() -> Result<()> {
    let place = Arc::new(Place::new()?);
    let wire = Wire::default();
    let home = listen(SocketAddr::new(HOME.into(), 0))?;
    let six = listen("[::1]:0".parse()?)?;
    let permitted = listen(format!("{PERMITTED}:0").parse()?)?;
    listen(RESOLVER.parse()?)?;
    listen(ROGUE.parse()?)?;
    let at = |name: &str| place.path().join(name);
    let (inherited, stolen) = (TcpStream::connect(home)?, TcpStream::connect(home)?);
    proxy(&at("proxy"), home)?;
    passer(&at("passer"), TcpStream::connect(home)?)?;
    wire.watch("here", six.port())?;
    let (namespace, _keep) = namespace(&wire, home, six.port())?;
    let agent = agent(&place)?;

    let mut command = Command::new(program("caller")?);
    let from = inherited.as_raw_fd();
    // SAFETY: dup2 is async-signal-safe.
    unsafe {
        command.pre_exec(move || match libc::dup2(from, 77) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let home = json!({"four": home, "six": six, "permitted": permitted, "resolver": RESOLVER, "rogue": ROGUE, "mark": "",
        "proxy": at("proxy"), "passer": at("passer"), "namespace": namespace, "pid": sys::pid(),
        "fd": stolen.as_raw_fd()});
    let mut server = Server { client: Client::start(command, Manner::default())?, home };

    // Learned and ratified: one tool talks to one host, the other asks for one name.
    let row = known(&place, server.client.pid())?;
    let name = row["name"].as_str().context("a name")?.to_owned();
    for _ in 0..5 {
        ensure!(server.fetch(0)? == "went out");
        settle();
        ensure!(server.report(None, "")? == "went out");
        settle();
    }
    let ways: Vec<Value> = serde_json::from_str(&server.say("ways", &json!({}))?)?;
    soon("its calls are learned", || {
        let shown = place.ask(&["baseline", "show", &name, "--format", "json"])?;
        Ok((shown.code == 0 && shown.out.contains(PERMITTED) && shown.out.contains("good.test"))
            .then_some(()))
    })?;
    place.person(&["baseline", "ratify", &name])?.good()?;
    place.person(&["mode", &name, "enforce"])?.good()?;
    ensure!(wire.take().is_empty(), "the test itself calls home");
    ensure!(server.report(None, "")? == "went out", "what was ratified is denied");

    let (mut tried, mut leaks) = (0, BTreeSet::new());
    for (i, way) in ways.iter().enumerate() {
        let name = way["name"].as_str().context("a way has a name")?;
        settle();
        let said = server.report(Some(name), &format!("home~{i:02}~{:04x}", sys::pid() & 0xffff))?;
        thread::sleep(patient(Duration::from_millis(if way["later"] == true { 500 } else { 40 })));
        let out = wire.take();
        println!("{name:<38} {said:<44} {}", if out.is_empty() { "nothing" } else { "GOT OUT" });
        if said.starts_with("unavailable") {
            ensure!(out.is_empty(), "{name}: {out:?}");
            continue;
        }
        tried += 1;
        if !out.is_empty() {
            leaks.insert(name.to_owned());
            println!("    {out:?}");
        }
        settle();
        let fetched = server.fetch(if name == "forged-call" { 2000 } else { 0 })?;
        ensure!(fetched == "went out", "after {name} the permitted host is out of reach: {fetched}");
    }
    thread::sleep(patient(Duration::from_secs(1)));
    let late = wire.take();
    ensure!(late.is_empty(), "later: {late:?}");
    ensure!(tried >= 40, "only {tried} ways were tried");
    println!("{tried} ways tried, {} got out", leaks.len());
    let lsm = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let has_lsm = lsm.trim().split(',').any(|name| name == "bpf");
    ensure!(!has_lsm || leaks.is_empty(), "BPF LSM is alive, and these got out: {leaks:?}");
    for leak in &leaks {
        let known = NOT_DENIED_WITHOUT_LSM.iter().find(|(name, ..)| leak == name);
        let (_, kind, object) = known.with_context(|| format!("{leak} got out"))?;
        let is_it =
            |f: &&Value| f["kind"] == *kind && f["object"].as_str().is_some_and(|o| o.ends_with(object));
        let found = soon(leak, || Ok(place.findings()?.iter().find(is_it).cloned()))?;
        println!("{leak}: {}", found["sentence"]);
    }
    drop(agent);
    Ok(())
}
