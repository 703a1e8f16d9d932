//! A host with many servers, as records: what the kernel programs would tell of it.
//!
//! One server is trained through the engine; its baseline is stored, and restored under the names of all
//! the others, so that what is loaded was really learned.

#![expect(unreachable_pub, reason = "shared by two binaries, each of which uses a part")]

use std::time::Duration;

use abi::{
    ABI, Chunk, Exec, Exit, Flow, Header, Net, Open, PathOp, Syscall, exec_flag, kind, net_op, path_op, side,
};
use engine::{
    Engine, Input, Output,
    finding::Kind,
    input::{Fact, IN_FLIGHT_NS, Identity},
    judge::{Command, Config, RuleText, Stored},
    output::{Line, Request},
    rules::packs,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

pub const SERVERS: u64 = 100;
pub const TOOLS: u64 = 30;
const MS: u64 = 1_000_000;
/// Sessions of training: enough for a budget of one half a session.
const SESSIONS: u64 = 14;
/// Records of one call, without its messages.
const EFFECTS: usize = 36;

pub struct World {
    pub engine: Engine,
    pub now: u64,
    out: Vec<Output>,
    positions: Vec<[u64; 2]>,
    calls: u64,
    pub findings: u64,
    pub first: Option<String>,
    pub inputs: u64,
    lines: u64,
    measured: Vec<u32>,
    drain: bool,
}

/// CPU time of this thread: other load on the machine does not count.
pub fn cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// The kernel gives names from the file up.
fn reversed(path: &str) -> String {
    path.split('/').rev().map(|p| format!("{p}/")).collect()
}

fn root(server: u64) -> u32 {
    1000 + server as u32
}

/// The files of a tool: its own, the server's, and the system's.
fn file(tool: u64, n: u64) -> String {
    let l = |i: u64| format!("{}{}", char::from(b'a' + (i % 26) as u8), char::from(b'a' + (i / 26) as u8));
    match n % 6 {
        0..=2 => format!("srv/data/project-{}/src/module_{}/part_{}.rs", l(tool), l(n % 5), l(n)),
        3 => format!("home/dev/.cache/tool-{}/entry-{}.json", l(tool), l(n)),
        4 => format!("usr/lib/node_modules/server/dist/{}/index-{}.js", l(n), l(tool)),
        _ => format!("usr/lib/x86_64-linux-gnu/lib{}.so.1", l(n)),
    }
}

impl World {
    fn new() -> Self {
        let mut w = Self {
            engine: Engine::new(),
            now: 1000 * MS,
            out: Vec::new(),
            positions: vec![[0; 2]; SERVERS as usize],
            calls: 0,
            findings: 0,
            first: None,
            inputs: 0,
            lines: 0,
            measured: Vec::new(),
            drain: false,
        };
        w.fact(&Fact::Start {
            utc_minus_boot_ns: 1_700_000_000_000_000_000,
            settle_ns: 20 * MS,
            host: "h".into(),
            include_arguments: false,
            in_flight_ns: IN_FLIGHT_NS,
        });
        w.fact(&Fact::Attached);
        let config = Config { sessions_per_day: Some(0.02), ..Config::default() };
        w.fact(&Fact::Command(Command::Configure { config }));
        let files = packs().into_iter().map(|s| RuleText { name: s.name, text: s.text, shipped: true });
        w.fact(&Fact::Command(Command::Rules { files: files.collect() }));
        w
    }

    /// What one server taught, under the names of all.
    pub fn learned() -> Stored {
        let mut w = Self::new();
        for _ in 0..SESSIONS {
            w.begin(0);
            for tool in 0..TOOLS {
                for half in 0..2 {
                    w.open_call(0, tool);
                    for n in 0..EFFECTS {
                        w.effect(0, tool, half, n);
                    }
                    w.end_call(0);
                    w.pass(30);
                }
            }
            w.pass(100);
            let header = w.header(kind::EXIT, 0);
            w.feed(Exit { header, cpu_ns: 3 * MS, max_rss: 1 << 20, ..Exit::default() }.as_bytes());
            w.pass(1200);
        }
        let stored = w.engine.judge().stored();
        let text = serde_json::to_string(&stored).expect("json");
        let mut all = Stored::default();
        for server in 0..SERVERS {
            let own = text.replace("\"name\":\"srv-0\"", &format!("\"name\":\"srv-{server}\""));
            let own: Stored = serde_json::from_str(&own).expect("the same");
            all.baselines.extend(own.baselines);
        }
        all
    }

    /// A host that knows all servers, and runs them.
    pub fn loaded(stored: Stored) -> Self {
        let mut w = Self::new();
        w.fact(&Fact::Restore(Box::new(stored)));
        for server in 0..SERVERS {
            w.begin(server);
        }
        w.pass(30);
        w.inputs = 0;
        w.findings = 0;
        w
    }

    pub fn members(&self) -> u64 {
        self.engine.judge().baselines().map(|b| b.members).sum()
    }

    pub fn active(&self) -> usize {
        let active = |b: &&engine::baseline::Baseline| b.state == engine::baseline::State::Active;
        self.engine.judge().baselines().filter(active).count()
    }

    /// As the agent does: what comes of an input is dealt with before the next one.
    fn apply(&mut self, input: Input<'_>) {
        self.inputs += 1;
        self.engine.apply(input, &mut self.out);
        for output in self.out.drain(..) {
            match output {
                Output::Line(line) => {
                    self.lines += 1;
                    if let Line::Finding(f) = &*line
                        && f.kind != Kind::NewServer
                    {
                        self.findings += 1;
                        self.first.get_or_insert_with(|| f.sentence.clone());
                    }
                }
                Output::Request(Request::Measure { tgid }) => self.measured.push(tgid),
                Output::Request(Request::Drain) => self.drain = true,
                Output::Request(_) | Output::Policy(_) | Output::Respond(_) => {}
                Output::Answer(answer) => assert!(answer.is_ok(), "{answer:?}"),
            }
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.apply(Input::Record { bytes, digests: &[] });
    }

    fn fact(&mut self, fact: &Fact) {
        let now_ns = self.now;
        self.apply(Input::Fact { now_ns, fact });
    }

    /// Time passes, and the agent answers what the engine asked.
    pub fn tick(&mut self) {
        self.apply(Input::Tick { now_ns: self.now });
        for tgid in std::mem::take(&mut self.measured) {
            self.fact(&Fact::Usage(engine::input::Usage {
                tgid,
                cpu_ns: 7 * MS,
                rss: 4096,
                peak_rss: 8192,
                ..Default::default()
            }));
        }
        if std::mem::take(&mut self.drain) {
            self.fact(&Fact::Drained { up_to_ns: self.now });
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.now += 10 * MS;
            self.tick();
        }
    }

    fn header(&mut self, kind: u16, server: u64) -> Header {
        self.now += 1000;
        let tgid = root(server);
        let tree = 0x1000 + server;
        Header {
            abi: ABI,
            kind,
            tgid,
            tid: tgid,
            at_ns: self.now,
            id: self.now,
            tree,
            uid: 1000,
            ..Header::default()
        }
    }

    fn begin(&mut self, server: u64) {
        self.positions[server as usize] = [0; 2];
        let header = self.header(kind::EXEC, server);
        let path = "srv/bin/";
        let exec = Exec {
            header,
            flags: exec_flag::NEW_TREE,
            parent: 1,
            start_ns: 5,
            stdin: 500_000 + server,
            stdout: 600_000 + server,
            login_uid: u32::MAX,
            path_len: path.len() as u32,
            argv_len: 4,
            ..Exec::default()
        };
        self.feed(&[exec.as_bytes(), path.as_bytes(), b"srv\0"].concat());
        self.ask(server, r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#);
        self.answer(server, r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","serverInfo":{"name":"s","version":"1"}}}"#);
        self.pass(30);
        self.fact(&Fact::Identity(Identity {
            tree: 0x1000 + server,
            tgid: root(server),
            name: format!("srv-{server}"),
            roots: vec!["/srv/data".into(), "/home/dev".into()],
            ..Identity::default()
        }));
    }

    fn chunk(&mut self, server: u64, which: u32, line: &str) -> Vec<u8> {
        let header = self.header(kind::CHUNK, server);
        let side_at = usize::from(which == side::REPLY);
        let position = self.positions[server as usize][side_at];
        let len = line.len() as u32 + 1;
        self.positions[server as usize][side_at] += u64::from(len);
        let channel = if side_at == 0 { 500_000 } else { 600_000 } + server;
        let chunk = Chunk { header, channel, position, side: which, len, cpu_ns: MS, ..Chunk::default() };
        [chunk.as_bytes(), line.as_bytes(), b"\n"].concat()
    }

    fn ask(&mut self, server: u64, line: &str) {
        let bytes = self.chunk(server, side::REQUEST, line);
        self.feed(&bytes);
    }

    fn answer(&mut self, server: u64, line: &str) {
        let bytes = self.chunk(server, side::REPLY, line);
        self.feed(&bytes);
    }

    fn call_line(&mut self, tool: u64) -> String {
        self.calls += 1;
        let id = self.calls;
        format!(
            r#"{{"method":"tools/call","params":{{"name":"tool_{tool}","arguments":{{"path":"/srv/data/x"}}}},"jsonrpc":"2.0","id":{id}}}"#
        )
    }

    fn reply_line(&self) -> String {
        let id = self.calls;
        format!(r#"{{"result":{{"content":[{{"type":"text","text":"done"}}]}},"jsonrpc":"2.0","id":{id}}}"#)
    }

    fn open_call(&mut self, server: u64, tool: u64) {
        let line = self.call_line(tool);
        self.ask(server, &line);
    }

    fn end_call(&mut self, server: u64) {
        let line = self.reply_line();
        self.answer(server, &line);
    }

    fn effect(&mut self, server: u64, tool: u64, half: u64, n: usize) {
        let bytes = self.record(server, tool, half, n);
        self.feed(&bytes);
    }

    /// One effect of a call: of 36, 24 opens, 6 system calls, 2 connects, 2 flows, 2 path operations.
    fn record(&mut self, server: u64, tool: u64, half: u64, n: usize) -> Vec<u8> {
        let addr = |n: u64| {
            let mut addr = [0; 16];
            addr[..4].copy_from_slice(&[198, 51, 100, (n % 200) as u8]);
            addr
        };
        match n % 18 {
            0..=11 => {
                let file = file(tool, half * 24 + (n as u64 / 18) * 12 + (n as u64 % 18));
                let path = reversed(&file);
                let header = self.header(kind::OPEN, server);
                let open = Open { header, path_len: path.len() as u32, nlink: 1, ..Open::default() };
                [open.as_bytes(), path.as_bytes()].concat()
            }
            12..=14 => {
                let header = self.header(kind::SYSCALL, server);
                let nr = [0, 1, 3, 9, 12, 257, 262, 202, 39, 96][((tool + n as u64) % 10) as usize];
                Syscall { header, nr, ..Syscall::default() }.as_bytes().to_vec()
            }
            15 => {
                let header = self.header(kind::NET, server);
                let addr = addr(tool + n as u64 / 18);
                Net { header, cookie: 7, addr, op: net_op::CONNECT, family: 2, protocol: 6, port: 443 }
                    .as_bytes()
                    .to_vec()
            }
            16 => {
                let header = self.header(kind::FLOW, server);
                let addr = addr(tool + n as u64 / 18);
                let flow = Flow {
                    header,
                    cookie: 7,
                    addr,
                    family: 2,
                    protocol: 6,
                    port: 443,
                    local_port: 40_000,
                    bytes_out: 300,
                    bytes_in: 9000,
                };
                flow.as_bytes().to_vec()
            }
            _ => {
                let header = self.header(kind::PATH_OP, server);
                let name = format!("/srv/data/out/result-{tool}.json");
                let op = if n < 18 { path_op::UNLINK } else { path_op::MKDIR };
                let op = PathOp { header, op, name_len: name.len() as u32, ..PathOp::default() };
                [op.as_bytes(), name.as_bytes()].concat()
            }
        }
    }

    /// Records of a stretch of time: each server calls each of its tools once, four servers at a time.
    pub fn tape(&mut self) -> Tape {
        let mut tape = Tape { began: self.now, ..Tape::default() };
        let before = self.positions.clone();
        for tool in 0..TOOLS {
            for group in 0..SERVERS / 4 {
                let servers: Vec<u64> = (group * 4..group * 4 + 4).collect();
                let mut ids = Vec::new();
                for &s in &servers {
                    let line = self.call_line((tool * 7 + s) % TOOLS);
                    ids.push(self.reply_line());
                    let bytes = self.chunk(s, side::REQUEST, &line);
                    tape.push(&bytes);
                }
                for n in 0..EFFECTS {
                    for &s in &servers {
                        let bytes = self.record(s, (tool * 7 + s) % TOOLS, tool % 2, n);
                        tape.push(&bytes);
                    }
                }
                for (&s, line) in servers.iter().zip(&ids) {
                    let bytes = self.chunk(s, side::REPLY, line);
                    tape.push(&bytes);
                }
            }
        }
        self.now += 2000 * MS;
        tape.span = self.now - tape.began;
        tape.moved = self.positions.iter().zip(&before).map(|(a, b)| [a[0] - b[0], a[1] - b[1]]).collect();
        // Positions and time move as the tape is played.
        self.now = tape.began;
        self.positions = before;
        tape
    }

    /// Plays a tape from now on.
    pub fn play(&mut self, tape: &mut Tape) {
        let ends = std::mem::take(&mut tape.ends);
        let mut from = 0;
        for (n, &end) in ends.iter().enumerate() {
            let bytes = &mut tape.bytes[from..end];
            self.now = Header::read_from_prefix(bytes).expect("a header").0.at_ns;
            self.feed(bytes);
            if n % 250 == 0 {
                self.tick();
            }
            // It will be played again, later.
            if let Ok((header, _)) = Header::mut_from_prefix(bytes) {
                header.at_ns += tape.span;
                header.id += tape.span;
            }
            if let Ok((chunk, _)) = Chunk::mut_from_prefix(bytes)
                && chunk.header.kind == kind::CHUNK
            {
                let server = (chunk.header.tree - 0x1000) as usize;
                chunk.position += tape.moved[server][usize::from(chunk.side == side::REPLY)];
            }
            from = end;
        }
        tape.ends = ends;
        tape.began += tape.span;
        self.now = tape.began - 1000 * MS;
        self.tick();
        self.now = tape.began;
        self.tick();
    }
}

/// Records, ready to be fed.
#[derive(Default)]
pub struct Tape {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    began: u64,
    span: u64,
    moved: Vec<[u64; 2]>,
}

impl Tape {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Records stay aligned, as they are in the ring.
        while !self.bytes.len().is_multiple_of(8) {
            self.bytes.push(0);
        }
        self.ends.push(self.bytes.len());
    }

    pub fn len(&self) -> u64 {
        self.ends.len() as u64
    }
}
