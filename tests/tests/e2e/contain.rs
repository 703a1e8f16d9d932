//! What a policy denies, and what it never does: on this kernel, with real sockets on addresses of the loopback network.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd as _,
        unix::{net::UnixListener, process::CommandExt as _},
    },
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    scenario::program,
    sys,
};
use engine::{
    output::{Effect, Line},
    policy::{Family, NameRight, NetRight, Policy, Ports, Tool, scope},
};
use serde_json::{Value, json};

/// Permitted to the tool `net`.
const ALLOWED: &str = "127.71.0.1";
/// Permitted to nobody.
const OTHER: &str = "127.71.0.2";
/// The resolver that this host is configured with, as far as the agent knows.
const RESOLVER: &str = "127.71.0.53:53";
/// Another one.
const ROGUE: &str = "127.71.0.54:53";
const NET: u64 = 1;

fn ports(protocol: u8) -> Ports {
    Ports { from: 1, to: 65535, protocol }
}

fn policy() -> Result<Policy> {
    let net = |address: &str, prefix, mask| -> Result<NetRight> {
        Ok(NetRight { address: address.parse()?, prefix, ports: ports(0), mask })
    };
    let name = |name: &str, below, ports, mask| NameRight { name: name.into(), below, ports, mask };
    let tool = |name: &str, bit| Tool { name: name.into(), bit, settle_ns: 50_000_000 };
    Ok(Policy {
        identity: "0/contained@test".into(),
        generation: 1,
        tools: vec![tool("net", 0), tool("other", 1)],
        connect: vec![net(ALLOWED, 32, NET)?, net("127.71.0.9", 32, scope::AMBIENT)?],
        listen: vec![NetRight {
            address: ALLOWED.parse()?,
            prefix: 32,
            ports: Ports { from: 7100, to: 7100, protocol: 6 },
            mask: NET,
        }],
        names: vec![
            name("good.test", false, Some(ports(6)), NET),
            name("cdn.test", true, Some(ports(6)), NET),
            name("good.test", false, None, NET),
            name("cdn.test", true, None, NET),
            name("ask.test", false, None, NET),
        ],
        families: vec![Family::Network, Family::Listen],
        ..Policy::default()
    })
}

/// The agent, every server held to the policy; this host's resolver is [`RESOLVER`].
fn held(more: &Value) -> Result<(Agent, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("hold.json");
    let mut hold = json!({"policy": serde_json::to_value(policy()?)?});
    if let (Some(to), Some(from)) = (hold.as_object_mut(), more.as_object()) {
        to.extend(from.clone());
    }
    std::fs::write(&file, hold.to_string())?;
    let resolv = dir.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.71.0.53\n")?;
    let (file, resolv) = (file.display().to_string(), resolv.display().to_string());
    // A thread of its own, because its mount namespace is.
    let agent = std::thread::spawn(move || -> Result<Agent> {
        sys::replace_file(&resolv, "/etc/resolv.conf")?;
        Agent::start(&["--hold", &file])
    });
    let agent = agent.join().map_err(|_panic| anyhow::anyhow!("the starting thread panicked"))??;
    Ok((agent, dir))
}

/// A TCP listener that counts what it gets, and a UDP socket at the same port that does.
struct Peer {
    at: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Peer {
    fn new(address: &str) -> Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        let at = listener.local_addr()?;
        let udp = UdpSocket::bind(at)?;
        let bytes = Arc::<AtomicU64>::default();
        let (streams, datagrams) = (Arc::clone(&bytes), Arc::clone(&bytes));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(std::result::Result::ok) {
                let bytes = Arc::clone(&streams);
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(n) = stream.read(&mut buffer) {
                        if n == 0 {
                            break;
                        }
                        bytes.fetch_add(n as u64, Ordering::Relaxed);
                    }
                });
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(n) = udp.recv(&mut buffer) {
                datagrams.fetch_add(n as u64, Ordering::Relaxed);
            }
        });
        Ok(Self { at, bytes })
    }

    fn got(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn server(first: Option<&Value>) -> Result<Client> {
    let mut command = Command::new(program("contained")?);
    command.args(first.map(ToString::to_string));
    let client = Client::start(command, Manner::default())?;
    // The agent binds a tree when it reads of its exec.
    std::thread::sleep(Duration::from_millis(100));
    Ok(client)
}

/// Calls a tool with acts; gives their results.
fn call(client: &mut Client, tool: &str, acts: &Value) -> Result<Vec<String>> {
    let (_, reply) = client.call(tool, &json!({"acts": acts}))?;
    ensure!(reply.is_ok(), "{reply:?}");
    Ok(serde_json::from_str(reply.text())?)
}

fn one(client: &mut Client, tool: &str, act: Value) -> Result<String> {
    Ok(call(client, tool, &json!([act]))?.remove(0))
}

fn unsettled() {
    std::thread::sleep(Duration::from_millis(120));
}

fn denied(agent: &Agent, limit: Duration, wanted: impl Fn(&Effect) -> bool) -> Result<Effect> {
    let line = agent.wait_for(
        limit,
        |l| matches!(l, Line::Effect(e) if matches!(&*e.effect, Effect::Denied { .. }) && wanted(&e.effect)),
    );
    match line.context("nobody tells of the denial")? {
        Line::Effect(e) => Ok(Effect::clone(&e.effect)),
        other => anyhow::bail!("{other:?}"),
    }
}

fn is(effect: &Effect, what: &str, to: &str) -> bool {
    matches!(effect, Effect::Denied { op, object, .. } if op == what && object.starts_with(&format!("{to}:")))
}

#[test]
fn denied_acts_fail_and_permitted_ones_do_not() -> Result<()> {
    let (agent, _dir) = held(&json!({}))?;
    let (allowed, other) = (Peer::new(ALLOWED)?, Peer::new(OTHER)?);
    let mut client = server(None)?;
    for how in ["tcp", "mapped", "udp", "udp-mapped", "udp-connected", "fastopen", "uring"] {
        let act = |peer: &Peer| json!({"do": how, "to": peer.at});
        ensure!(one(&mut client, "net", act(&allowed))? == "ok", "{how} to the permitted host");
        unsettled();
        let said = one(&mut client, "net", act(&other))?;
        ensure!(said == "EPERM", "{how} to another host: {said}");
        unsettled();
        let said = one(&mut client, "other", act(&allowed))?;
        // A datagram on a connected socket is judged by the ceiling where it leaves.
        ensure!(said == "EPERM", "{how} by a tool that has no right: {said}");
        unsettled();
    }
    let said = one(&mut client, "net", json!({"do": "raw", "to": other.at}))?;
    ensure!(said == "EPERM", "a raw socket: {said}");
    let said = one(&mut client, "net", json!({"do": "bind", "to": "127.71.0.1:7100"}))?;
    ensure!(said == "ok", "{said}");
    for how in ["bind", "bind-udp"] {
        let said = one(&mut client, "net", json!({"do": how, "to": "127.71.0.1:7101"}))?;
        ensure!(said == "EPERM", "{how}: {said}");
    }
    std::thread::sleep(Duration::from_millis(200));
    ensure!(other.got() == 0, "{} bytes reached the other host", other.got());
    ensure!(allowed.got() > 0, "nothing reached the permitted host");
    let limit = Duration::from_secs(5);
    let e = denied(&agent, limit, |e| is(e, "connect", ALLOWED))?;
    let Effect::Denied { held, live, dry_run: false, family: Family::Network, .. } = e else {
        anyhow::bail!("{e:?}");
    };
    ensure!(held == NET && live & 3 == 2, "the tools are not named: held {held:x}, live {live:x}");
    for (op, to) in [("connect", OTHER), ("sendmsg", OTHER), ("packet", OTHER), ("bind", ALLOWED)] {
        denied(&agent, limit, |e| is(e, op, to)).with_context(|| format!("{op:?} {to}"))?;
    }
    Ok(())
}

/// Denial is part of the act: it fails each time, however often it is tried.
#[test]
fn ten_thousand_acts_of_ten_thousand_are_denied() -> Result<()> {
    const TIMES: usize = 5_000;
    let (_agent, _dir) = held(&json!({}))?;
    let other = Peer::new(OTHER)?;
    let mut client = server(None)?;
    client.patience = Duration::from_secs(60);
    let mut all = 0;
    for how in ["tcp", "udp"] {
        let many = json!({"do": "many", "times": TIMES, "act": {"do": how, "to": other.at}});
        let said = one(&mut client, "net", many)?;
        ensure!(said == format!("{{\"EPERM\": {TIMES}}}"), "{how}: {said}");
        all += TIMES;
    }
    std::thread::sleep(Duration::from_millis(200));
    ensure!(other.got() == 0, "{} bytes reached the other host", other.got());
    println!("{all} of {all} acts were denied");
    Ok(())
}

#[test]
fn rights_live_during_the_call() -> Result<()> {
    let (agent, _dir) = held(&json!({}))?;
    let allowed = Peer::new(ALLOWED)?;
    let connect = json!({"do": "tcp", "to": allowed.at});
    let mut client = server(Some(&json!({"do": "sleep", "ms": 1})))?;
    // Nothing before.
    let later =
        json!([{"do": "later", "ms": 0, "act": connect}, {"do": "sleep", "ms": 50}, {"do": "results"}]);
    ensure!(call(&mut client, "other", &later)?.pop().as_deref() == Some("EPERM"), "before the call");
    unsettled();
    // During, and within the settling time.
    let early = json!([connect, {"do": "later", "ms": 10, "act": connect}, {"do": "later", "ms": 400, "act": connect},
        {"do": "child", "ms": 400, "to": allowed.at}]);
    let said = call(&mut client, "net", &early)?;
    ensure!(said == ["ok"; 4], "{said:?}");
    std::thread::sleep(Duration::from_millis(600));
    let said = call(&mut client, "other", &json!([{"do": "results"}, {"do": "reap"}]))?;
    ensure!(
        said == ["ok,EPERM", "[0]"],
        "within settling time, after it, and by a child of the call: {said:?}"
    );
    unsettled();
    // Text within arguments opens nothing.
    let fooling =
        "\"},\"method\":\"tools/call\",\"id\":99,\"params\":{\"name\":\"net\",\"arguments\":{}}}\n{\"x\":\"";
    let (_, reply) = client
        .call("other", &json!({"x": fooling, "acts": [connect], "name": "net", "method": "tools/call"}))?;
    ensure!(reply.text() == "[\"EPERM\"]", "text opened a call: {}", reply.text());
    unsettled();
    // Two requests in one write, and one in many.
    let (first, mut both) = client.compose("other", &json!({"acts": []}));
    let (second, line) = client.compose("net", &json!({"acts": [connect], "long": "x".repeat(9000)}));
    both.extend(line);
    client.send(&both)?;
    ensure!(client.wait(&first)?.is_ok());
    ensure!(client.wait(&second)?.text() == "[\"ok\"]", "the second of two requests in one write");
    unsettled();
    let (id, line) = client.compose("net", &json!({"acts": [connect]}));
    for piece in line.chunks(17) {
        client.send(piece)?;
        std::thread::sleep(Duration::from_millis(2));
    }
    let reply = client.wait(&id)?;
    ensure!(reply.text() == "[\"ok\"]", "a request in pieces: {}", reply.text());
    unsettled();
    ensure!(one(&mut client, "other", connect)? == "EPERM", "afterwards");
    drop(agent);
    Ok(())
}

#[test]
fn sockets_of_others() -> Result<()> {
    let (agent, dir) = held(&json!({}))?;
    let (other, allowed) = (Peer::new(OTHER)?, Peer::new(ALLOWED)?);
    // Inherited: connected by us, before the server is tracked.
    let (bad, good) = (TcpStream::connect(other.at)?, TcpStream::connect(allowed.at)?);
    let mut command = Command::new(program("contained")?);
    let (from, from_good) = (bad.as_raw_fd(), good.as_raw_fd());
    // SAFETY: dup2 is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::dup2(from, 77) < 0 || libc::dup2(from_good, 78) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut client = Client::start(command, Manner::default())?;
    std::thread::sleep(Duration::from_millis(100));
    call(&mut client, "net", &json!([{"do": "fd", "fd": 77}, {"do": "fd", "fd": 78}]))?;
    // Passed.
    let path = dir.path().join("pass.sock");
    let listener = UnixListener::bind(&path)?;
    let passed = TcpStream::connect(other.at)?;
    let passing = std::thread::spawn(move || -> Result<()> {
        let (stream, _) = listener.accept()?;
        sys::pass_fd(stream.as_raw_fd(), passed.as_raw_fd())?;
        Ok(())
    });
    let said = one(&mut client, "net", json!({"do": "passed", "path": path}))?;
    passing.join().map_err(|_panic| anyhow::anyhow!("the passing thread panicked"))??;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(other.got() == 0, "{} bytes got out by a socket of others ({said})", other.got());
    ensure!(allowed.got() == 9, "the permitted host got {} bytes of 9", allowed.got());
    denied(&agent, Duration::from_secs(5), |e| is(e, "packet", OTHER))?;
    // What we send ourselves on sockets that nobody touched is nobody's business.
    TcpStream::connect(other.at)?.write_all(b"ours")?;
    std::thread::sleep(Duration::from_millis(100));
    ensure!(other.got() == 4, "an innocent's bytes: {}", other.got());
    Ok(())
}

/// Answers every question with an address that changes each time, TTL 0.
fn resolver(at: &str, pool: &'static [u8]) -> Result<()> {
    let socket = UdpSocket::bind(at)?;
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        let mut n = 0u32;
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let mut answer = bytes[..len].to_vec();
            answer[2] = 0x81;
            answer[3] = 0x80;
            answer[7] = 1;
            answer.extend([
                0xc0,
                12,
                0,
                1,
                0,
                1,
                0,
                0,
                0,
                0,
                0,
                4,
                127,
                pool[0],
                (n >> 8) as u8,
                n as u8 | 1,
            ]);
            n = n.wrapping_add(2);
            drop(socket.send_to(&answer, from));
        }
    });
    Ok(())
}

#[test]
fn a_name_is_usable_when_the_answer_is_there() -> Result<()> {
    let (agent, _dir) = held(&json!({}))?;
    resolver(RESOLVER, &[72])?;
    resolver(ROGUE, &[73])?;
    let web = TcpListener::bind("0.0.0.0:0")?;
    let port = web.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in web.incoming() {
            drop(stream);
        }
    });
    let mut client = server(None)?;
    client.patience = Duration::from_secs(120);
    let ask = |resolver: &str, name: &str, times: u32| json!({"do": "dns", "resolver": resolver, "name": name, "port": port, "times": times});
    let began = Instant::now();
    let said = one(&mut client, "net", ask(RESOLVER, "good.test", 10_000))?;
    ensure!(said == "ok", "{said}");
    println!("10,000 of 10,000 connects to a rotating name in {:?}", began.elapsed());
    ensure!(one(&mut client, "net", ask(RESOLVER, "Edge-7.CDN.test", 3))? == "ok", "a name below");
    for (name, tool, resolver) in [
        ("cdn.test", "net", RESOLVER),
        ("evil.test", "net", RESOLVER),
        ("ZGF0YQ.evil.test", "net", RESOLVER),
        ("xgood.test", "net", RESOLVER),
        ("good.test.evil", "net", RESOLVER),
        ("good.test", "other", RESOLVER),
    ] {
        unsettled();
        let act = json!({"do": "ask", "resolver": resolver, "name": name});
        let said = one(&mut client, tool, act)?;
        ensure!(said == "EPERM", "{tool} asks for {name}: {said}");
    }
    unsettled();
    let said = one(&mut client, "net", ask(ROGUE, "good.test", 1))?;
    ensure!(said == "EPERM", "a private resolver: {said}");
    // It may be asked for, but permits no connection.
    let said = one(&mut client, "net", ask(RESOLVER, "ask.test", 1))?;
    ensure!(said == "0 of 1: EPERM", "a name that may only be asked for: {said}");
    let e = denied(
        &agent,
        Duration::from_secs(5),
        |e| matches!(e, Effect::Denied { op, object, .. } if op == "dns" && object == "zgf0yq.evil.test"),
    );
    e.context("the tunnel's question")?;
    Ok(())
}

#[test]
fn a_dry_run_denies_nothing() -> Result<()> {
    let (agent, _dir) = held(&json!({"dry_run": true}))?;
    let other = Peer::new(OTHER)?;
    let mut client = server(None)?;
    for how in ["tcp", "udp", "udp-connected", "fastopen"] {
        let said = one(&mut client, "other", json!({"do": how, "to": other.at}))?;
        ensure!(said == "ok", "{how}: {said}");
    }
    let said = one(&mut client, "other", json!({"do": "ask", "resolver": RESOLVER, "name": "evil.test"}))?;
    ensure!(said == "ok", "{said}");
    let e = denied(&agent, Duration::from_secs(5), |e| is(e, "connect", OTHER))?;
    ensure!(matches!(e, Effect::Denied { dry_run: true, .. }), "{e:?}");
    denied(
        &agent,
        Duration::from_secs(5),
        |e| matches!(e, Effect::Denied { op, dry_run: true, .. } if op == "dns"),
    )?;
    Ok(())
}

#[test]
fn a_cut_stops_what_flows() -> Result<()> {
    let (agent, _dir) = held(&json!({"cut_after_ms": 2000}))?;
    let listener = TcpListener::bind((ALLOWED, 0))?;
    let at = listener.local_addr()?;
    let mut client = server(None)?;
    let began = Instant::now();
    let said = one(&mut client, "net", json!({"do": "hold", "as": "a", "to": at}))?;
    ensure!(said == "ok", "{said}");
    let (mut peer, _) = listener.accept()?;
    peer.set_read_timeout(Some(Duration::from_millis(1500)))?;
    ensure!(one(&mut client, "net", json!({"do": "write", "as": "a"}))? == "ok");
    peer.read_exact(&mut [0])?;
    peer.write_all(b"x")?;
    ensure!(one(&mut client, "net", json!({"do": "read", "as": "a"}))? == "ok", "before the cut");
    ensure!(began.elapsed() < Duration::from_millis(1800), "too slow for this test");
    std::thread::sleep(Duration::from_millis(2500));
    call(&mut client, "net", &json!([{"do": "write", "as": "a", "bytes": 100}]))?;
    ensure!(peer.read(&mut [0]).is_err(), "bytes got out after the cut");
    peer.write_all(b"y")?;
    let said = one(&mut client, "net", json!({"do": "read", "as": "a"}))?;
    ensure!(said != "ok", "bytes got in after the cut");
    let said = one(&mut client, "net", json!({"do": "udp", "to": at}))?;
    ensure!(said == "EPERM", "a datagram after the cut: {said}");
    denied(&agent, Duration::from_secs(5), |e| is(e, "cut-out", ALLOWED))?;
    denied(&agent, Duration::from_secs(5), |e| is(e, "cut-in", ALLOWED))?;
    Ok(())
}

/// A peer that writes as fast as it can.
fn source(address: &str) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0))?;
    let at = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(std::result::Result::ok) {
            std::thread::spawn(move || while stream.write_all(&[7; 1 << 14]).is_ok() {});
        }
    });
    Ok(at)
}

/// In no 10 s more than 1.1 times the rate gets through, and TCP uses most of it: both ways at once, at a high rate and at that of
/// `respond throttle`.
#[test]
fn a_rate_is_kept() -> Result<()> {
    /// Bytes a second, and the bucket.
    const RATES: [(u64, u64); 2] = [(2_000_000, 1_500_000), (128 << 10, 56 << 10)];
    const SHARE: f64 = 0.7;
    const STEP: Duration = Duration::from_millis(250);
    const WINDOW: usize = 40;
    for (rate, burst) in RATES {
        let (agent, _dir) = held(&json!({"rate": [rate, burst]}))?;
        let (sink, from) = (Peer::new(ALLOWED)?, source(ALLOWED)?);
        let mut client = server(None)?;
        client.patience = Duration::from_secs(60);
        // The full bucket is in the first window, and what waits in a socket before its tool reads it came after this moment.
        let mut sums: Vec<(Instant, u64)> = vec![(Instant::now(), sink.got())];
        let connected = Instant::now();
        let out = json!([{"do": "hold", "as": "out", "to": sink.at}, {"do": "hold", "as": "in", "to": from},
            {"do": "pour", "as": "out"}]);
        ensure!(call(&mut client, "net", &out)? == ["ok"; 3]);
        let drain = json!({"acts": [{"do": "drain", "as": "in", "ms": 10_000}]});
        let (id, line) = client.compose("net", &drain);
        client.send(&line)?;
        let inward = std::thread::spawn(move || -> Result<(f64, f64, Client)> {
            let reply = client.wait(&id)?;
            let took = connected.elapsed().as_secs_f64();
            let got: Vec<String> = serde_json::from_str(reply.text())?;
            Ok((got.first().context("no result")?.parse::<f64>()? / (rate as f64 * took), took, client))
        });
        for _ in 0..WINDOW + 8 {
            std::thread::sleep(STEP);
            let got = sink.got();
            sums.push((Instant::now(), got));
        }
        let windows = sums.iter().zip(sums.iter().skip(WINDOW));
        let share = |((t0, n0), (t1, n1)): (&(Instant, u64), &(Instant, u64))| {
            (n1 - n0) as f64 / (rate as f64 * (*t1 - *t0).as_secs_f64())
        };
        let shares: Vec<f64> = windows.map(share).collect();
        let most = shares.iter().copied().fold(0.0, f64::max);
        let least = shares.iter().copied().fold(f64::MAX, f64::min);
        let (inward, took, _client) =
            inward.join().map_err(|_panic| anyhow::anyhow!("the waiting thread panicked"))??;
        println!("{rate} B/s: out {least:.3} to {most:.3} of it over 10 s, in {inward:.3} over {took:.1} s");
        ensure!(most <= 1.1 && least >= SHARE, "out {least:.3} to {most:.3} of the rate");
        ensure!((SHARE..=1.1).contains(&inward), "in {inward:.3} of the rate");
        drop(agent);
    }
    Ok(())
}

/// Where an address of the loopback network says nothing: IPv6 and the unspecified address.
#[test]
fn canonical_addresses() -> Result<()> {
    let (_agent, _dir) = held(&json!({}))?;
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let port = listener.local_addr()?.port();
    let six = TcpListener::bind("[::1]:0")?.local_addr()?;
    let mut client = server(None)?;
    for to in [
        SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port),
        SocketAddr::new(IpAddr::from([0u16; 8]), port),
        SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port),
        six,
    ] {
        let said = one(&mut client, "net", json!({"do": "tcp", "to": to}))?;
        ensure!(said == "EPERM", "{to}: {said}");
    }
    Ok(())
}

#[test]
fn what_the_kernel_cannot_read_user_space_clears_up() -> Result<()> {
    let (agent, _dir) = held(&json!({}))?;
    let allowed = Peer::new(ALLOWED)?;
    let mut client = server(None)?;
    let acts = json!([{"do": "sleep", "ms": 400}, {"do": "tcp", "to": allowed.at}]);
    let mut escaped = |tool: &str, acts: &Value| -> Result<String> {
        let (id, line) = client.compose(tool, &json!({"acts": acts}));
        let line = String::from_utf8(line)?.replace("tools/call", "tools\\/call");
        client.send(line.as_bytes())?;
        Ok(client.wait(&id)?.text().to_owned())
    };
    // At once the ceiling is live; later what user space says.
    let at_once = json!([{"do": "tcp", "to": allowed.at}]);
    ensure!(escaped("net", &at_once)? == "[\"ok\"]", "the ceiling is not live");
    unsettled();
    let said = escaped("other", &acts)?;
    ensure!(said == "[\"ok\",\"EPERM\"]", "the ceiling stays live: {said}");
    unsettled();
    let said = escaped("net", &acts)?;
    ensure!(said == "[\"ok\",\"ok\"]", "user space opened no call: {said}");
    drop(agent);
    Ok(())
}

/// A child that is a server for all that the kernel knows, and writes where its parent replies, is over: replies still end calls.
#[test]
fn a_nested_server_that_ends_leaves_no_call_open() -> Result<()> {
    let (agent, _dir) = held(&json!({}))?;
    let allowed = Peer::new(ALLOWED)?;
    let mut client = server(None)?;
    let connect = json!({"do": "tcp", "to": allowed.at});
    for round in 0..3 {
        ensure!(one(&mut client, "other", json!({"do": "nested", "path": "/bin/true"}))? == "ok");
        // The agent forgets it.
        std::thread::sleep(e2e::pace::patient_ms(500));
        ensure!(one(&mut client, "net", connect.clone())? == "ok", "round {round}");
        unsettled();
        let said = one(&mut client, "other", connect.clone())?;
        ensure!(said == "EPERM", "round {round}: the call is over, and its right is not: {said}");
    }
    drop(agent);
    Ok(())
}

#[test]
fn a_forged_call_gives_no_rights() -> Result<()> {
    let (agent, _dir) = held(&json!({}))?;
    let allowed = Peer::new(ALLOWED)?;
    let mut client = server(None)?;
    let acts = json!([{"do": "tcp", "to": allowed.at}]);
    let line = json!({"jsonrpc": "2.0", "id": "forged", "method": "tools/call",
        "params": {"name": "net", "arguments": {"acts": acts}}});
    let said = one(&mut client, "other", json!({"do": "forge", "line": line.to_string()}))?;
    ensure!(said == "ok", "{said}");
    let reply = client.wait(&json!("forged"))?;
    ensure!(reply.text() == "[\"EPERM\"]", "a forged call got rights: {}", reply.text());
    // A real one gets them, when the client is known to have written it.
    let (_, _) = client.call("other", &json!({"acts": []}))?;
    std::thread::sleep(Duration::from_millis(300));
    let real = json!([{"do": "sleep", "ms": 300}, {"do": "tcp", "to": allowed.at}]);
    let said = call(&mut client, "net", &real)?;
    ensure!(said == ["ok", "ok"], "a real call after the forging: {said:?}");
    drop(agent);
    Ok(())
}
