//! A small world of records: what the kernel programs would tell.

use abi::{ABI, Chunk, Exec, Exit, Fork, Header, Open, exec_flag, flag, kind, side};
use engine::{
    Engine, Input, Output,
    input::Fact,
    output::{CallLine, EffectLine, Line, Request, Scope, ServerLine},
};
use zerocopy::IntoBytes as _;

pub const MS: u64 = 1_000_000;
pub const TREE: u64 = 0x77;
pub const ROOT: u32 = 100;
pub const STDIN: u64 = 501;
pub const STDOUT: u64 = 502;
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","serverInfo":{"name":"s","version":"1"}}}"#;

/// An engine, its clock, and everything that it said.
#[derive(Default)]
pub struct World {
    pub engine: Engine,
    pub now: u64,
    pub outputs: Vec<Output>,
    positions: [u64; 4],
    id: u64,
    calls: u64,
}

impl World {
    /// One process with a pipe for stdin and stdout each.
    pub fn candidate() -> Self {
        Self::starting(|w| w.fact(&Fact::Attached))
    }

    /// One process as in [`Self::candidate`], while no syscall hook is attached.
    pub fn unattached() -> Self {
        Self::starting(|_| {})
    }

    /// The same; the hooks are attached `late` ns after the exec, and that is told before the exec is.
    pub fn unattached_until_after_exec(late: u64) -> Self {
        Self::starting(|w| {
            w.now += late;
            w.fact(&Fact::Attached);
            w.now -= late;
        })
    }

    /// Nothing runs yet, the hooks are attached.
    pub fn bare() -> Self {
        let mut w = Self { now: 1000 * MS, ..Self::default() };
        w.fact(&Fact::Start {
            utc_minus_boot_ns: 1_700_000_000_000_000_000,
            settle_ns: 20 * MS,
            host: "h".into(),
            include_arguments: false,
            in_flight_ns: engine::input::IN_FLIGHT_NS,
        });
        w.fact(&Fact::Attached);
        w
    }

    /// A server starts and is asked to initialize.
    pub fn begin(&mut self) {
        self.positions = [0; 4];
        self.exec(ROOT, TREE, STDIN, STDOUT, exec_flag::NEW_TREE, "srv/bin/");
        self.ask(INITIALIZE);
        self.answer(INITIALIZED);
        self.wait(30);
    }

    pub fn next_call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    fn starting(before_exec: impl Fn(&mut Self)) -> Self {
        let mut w = Self { now: 1000 * MS, ..Self::default() };
        w.fact(&Fact::Start {
            utc_minus_boot_ns: 0,
            settle_ns: 20 * MS,
            host: "h".into(),
            include_arguments: false,
            in_flight_ns: engine::input::IN_FLIGHT_NS,
        });
        before_exec(&mut w);
        w.exec(ROOT, TREE, STDIN, STDOUT, exec_flag::NEW_TREE, "srv/bin/");
        w
    }

    /// A process as in [`Self::candidate`] that ran for two seconds when it was found.
    pub fn running() -> Self {
        Self::found(false, false)
    }

    /// The same; whether an agent before this one held it, and whether it began while none ran.
    pub fn found(held: bool, unwatched: bool) -> Self {
        let mut w = Self { now: 3000 * MS, ..Self::default() };
        w.fact(&Fact::Start {
            utc_minus_boot_ns: 0,
            settle_ns: 20 * MS,
            host: "h".into(),
            include_arguments: false,
            in_flight_ns: 60_000 * MS,
        });
        w.fact(&Fact::Attached);
        w.existing(engine::input::Existing { held, unwatched, ..Self::process(ROOT, 1, true) });
        w
    }

    /// A process of the tree that ran before it was found.
    pub fn exists(&mut self, tgid: u32, parent: u32, root: bool) {
        self.existing(Self::process(tgid, parent, root));
    }

    fn existing(&mut self, process: engine::input::Existing) {
        self.fact(&Fact::Existing(process));
    }

    fn process(tgid: u32, parent: u32, root: bool) -> engine::input::Existing {
        engine::input::Existing {
            tree: TREE,
            root,
            tgid,
            parent,
            start_ns: 1000 * MS,
            stdin: STDIN,
            stdout: STDOUT,
            uid: 1000,
            exe: Some("/bin/srv".into()),
            argv: vec!["srv".into()],
            cwd: "/".into(),
            ..Default::default()
        }
    }

    /// The same, after `initialize` was answered and has settled.
    pub fn server() -> Self {
        let mut w = Self::candidate();
        w.ask(INITIALIZE);
        w.answer(INITIALIZED);
        w.identify();
        w.wait(100);
        w
    }

    /// It is known now who the server is: lines go out.
    pub fn identify(&mut self) {
        let identity =
            engine::input::Identity { tree: TREE, tgid: ROOT, name: "srv".into(), ..Default::default() };
        self.fact(&Fact::Identity(identity));
    }

    pub fn header(&mut self, kind: u16, tgid: u32, tree: u64) -> Header {
        self.now += 1000;
        self.id += 1;
        Header {
            abi: ABI,
            kind,
            tgid,
            tid: tgid,
            at_ns: self.now,
            id: self.id,
            tree,
            uid: 1000,
            ..Header::default()
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.engine.apply(Input::Record { bytes, digests: &[] }, &mut self.outputs);
    }

    pub fn fact(&mut self, fact: &Fact) {
        self.engine.apply(Input::Fact { now_ns: self.now, fact }, &mut self.outputs);
    }

    /// Lets milliseconds pass, looking every five.
    pub fn wait(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(5) {
            self.now += 5 * MS;
            self.engine.apply(Input::Tick { now_ns: self.now }, &mut self.outputs);
        }
    }

    /// Hands in counts and usage, so that settled calls are summed up.
    pub fn close(&mut self) {
        self.wait(50);
        self.fact(&Fact::Usage(engine::input::Usage {
            tgid: ROOT,
            cpu_ns: 7 * MS,
            rss: 4096,
            peak_rss: 8192,
            ..Default::default()
        }));
        let up_to_ns = self.now;
        self.fact(&Fact::Drained { up_to_ns });
    }

    pub fn exec(&mut self, tgid: u32, tree: u64, stdin: u64, stdout: u64, flags: u32, path: &str) {
        let header = self.header(kind::EXEC, tgid, tree);
        let exec = Exec {
            header,
            flags,
            parent: 1,
            start_ns: 5,
            stdin,
            stdout,
            login_uid: u32::MAX,
            path_len: path.len() as u32,
            argv_len: 4,
            ..Exec::default()
        };
        let bytes = [exec.as_bytes(), path.as_bytes(), b"srv\0"].concat();
        self.feed(&bytes);
    }

    pub fn fork(&mut self, parent: u32, child: u32) {
        let header = self.header(kind::FORK, parent, TREE);
        self.feed(Fork { header, child, child_start_ns: self.now, ..Fork::default() }.as_bytes());
    }

    pub fn exit(&mut self, tgid: u32) {
        let header = self.header(kind::EXIT, tgid, TREE);
        self.feed(Exit { header, cpu_ns: 3 * MS, max_rss: 1 << 20, ..Exit::default() }.as_bytes());
    }

    fn chunk(&mut self, tgid: u32, channel: u64, which: u32, bytes: &[u8]) {
        let header = self.header(kind::CHUNK, tgid, TREE);
        let position = self.positions[which as usize];
        self.positions[which as usize] += bytes.len() as u64;
        let chunk = Chunk {
            header,
            channel,
            position,
            side: which,
            len: bytes.len() as u32,
            cpu_ns: MS,
            ..Chunk::default()
        };
        self.feed(&[chunk.as_bytes(), bytes].concat());
    }

    /// The server reads this line.
    pub fn ask(&mut self, line: &str) {
        self.chunk(ROOT, STDIN, side::REQUEST, format!("{line}\n").as_bytes());
    }

    /// The server reads these bytes, whatever they are.
    pub fn ask_bytes(&mut self, bytes: &[u8]) {
        self.chunk(ROOT, STDIN, side::REQUEST, bytes);
    }

    /// Bytes of the request side are missed.
    pub fn miss(&mut self, n: u64) {
        self.positions[side::REQUEST as usize] += n;
    }

    /// The server writes this line.
    pub fn answer(&mut self, line: &str) {
        self.chunk(ROOT, STDOUT, side::REPLY, format!("{line}\n").as_bytes());
    }

    /// The client is seen to write this line.
    pub fn client_writes(&mut self, line: &str) {
        self.chunk(9, STDIN, side::PROOF, format!("{line}\n").as_bytes());
    }

    pub fn call(&mut self, id: u64, tool: &str) {
        self.ask(&call_line(id, tool));
    }

    pub fn reply(&mut self, id: u64) {
        self.answer(&format!(r#"{{"result":{{"content":[]}},"jsonrpc":"2.0","id":{id}}}"#));
    }

    /// A process opens a file; returns what it is charged to.
    pub fn open(&mut self, tgid: u32, name: &str) -> Scope {
        self.open_with(tgid, name, 0, 0);
        (*self.last_effect().scope).clone()
    }

    pub fn open_with(&mut self, tgid: u32, name: &str, flags: u32, request_channel: u32) -> u64 {
        let mut header = self.header(kind::OPEN, tgid, TREE);
        header.flags = flags;
        let path = format!("{name}/");
        let open = Open { header, path_len: path.len() as u32, request_channel, nlink: 1, ..Open::default() };
        self.feed(&[open.as_bytes(), path.as_bytes()].concat());
        header.id
    }

    /// The same, by a record that tells of a lost message or process before it.
    pub fn open_after_loss(&mut self, tgid: u32, name: &str) {
        let mut header = self.header(kind::OPEN, tgid, TREE);
        header.vital_lost_before = 1;
        let path = format!("{name}/");
        let open = Open { header, path_len: path.len() as u32, nlink: 1, ..Open::default() };
        self.feed(&[open.as_bytes(), path.as_bytes()].concat());
    }

    /// An open that the kernel counts further occurrences of; returns its id.
    pub fn open_announced(&mut self, tgid: u32, name: &str) -> u64 {
        self.open_with(tgid, name, flag::AGGREGATED, 0)
    }

    pub fn last_effect(&self) -> &EffectLine {
        self.effects().last().expect("an effect")
    }

    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.outputs.iter().filter_map(|o| match o {
            Output::Line(line) => Some(&**line),
            Output::Request(_) | Output::Answer(_) | Output::Policy(_) | Output::Respond(_) => None,
        })
    }

    pub fn effects(&self) -> impl Iterator<Item = &EffectLine> {
        self.lines().filter_map(|l| if let Line::Effect(e) = l { Some(e) } else { None })
    }

    pub fn calls(&self) -> Vec<&CallLine> {
        self.lines().filter_map(|l| if let Line::Call(c) = l { Some(c) } else { None }).collect()
    }

    pub fn servers(&self) -> Vec<&ServerLine> {
        self.lines().filter_map(|l| if let Line::Server(s) = l { Some(s) } else { None }).collect()
    }

    pub fn asked_for(&self, wanted: Request) -> bool {
        self.outputs.contains(&Output::Request(wanted))
    }
}

pub fn call_line(id: u64, tool: &str) -> String {
    format!(
        r#"{{"method":"tools/call","params":{{"name":"{tool}","arguments":{{}}}},"jsonrpc":"2.0","id":{id}}}"#
    )
}
