//! The engine: one entry, all state.

use std::{collections::HashMap, sync::Arc};

use abi::{channel_mode, exec_flag, flag, side};

use crate::{
    call::Stage,
    charge::{Base, CallInfo, Charge},
    effect,
    input::{Digest, Fact, Identity, Input},
    mcp::Frame,
    output::{
        Basis, ChannelState, CoverageLine, Effect, EffectLine, Line, LostLine, Output, Process,
        Request, ServerEvent, Time,
    },
    record::{self, Event, Record},
    server::{Heard, Proof, Server},
    text,
    tree::{HELD_LINES, Stream, Tree},
};

/// A candidate that reads nothing for this long is let go: it costs every process of the host.
const QUIET_NS: u64 = 60_000_000_000;
/// A server is announced without its identity after this long.
const IDENTITY_NS: u64 = 500_000_000;
/// A call waits this long for counts and usage.
const CLOSING_NS: u64 = 1_000_000_000;
/// Records announced this long before a drain may still be counted after it.
const DRAIN_SLACK_NS: u64 = 100_000_000;
/// Names bound to addresses, and questions awaited, a server.
const NAMES: usize = 1024;

/// How a process's effects are charged.
#[derive(Clone, Debug)]
enum Birth {
    /// It serves the channel: by time.
    Window,
    /// Born while no call ran, and not the one that serves: may work for itself or for a call.
    Worker(Base),
    /// Born in these calls: theirs for life.
    Lineage(Charge),
}

#[derive(Debug)]
struct Proc {
    tree: u64,
    birth: Birth,
    shown: Arc<Process>,
}

/// Where counts go that the kernel made under a record's id.
#[derive(Debug)]
struct Announced {
    at_ns: u64,
    /// Tree whose lines they join.
    tree: u64,
    charge: Charge,
    process: Arc<Process>,
    effect: Arc<Effect>,
    id: u64,
}

/// The engine.
#[derive(Debug, Default)]
pub struct Engine {
    now_ns: u64,
    utc_minus_boot_ns: i64,
    settle_ns: u64,
    include_arguments: bool,
    attached_ns: Option<u64>,
    procs: HashMap<u32, Proc>,
    trees: HashMap<u64, Tree>,
    announced: HashMap<u64, Announced>,
    lost: HashMap<String, u64>,
    next_effect: u64,
    undecodable: u64,
    frames: Vec<Frame>,
}

impl Engine {
    /// An engine that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trees that are tracked: while there are none, the syscall hooks need not be attached.
    pub fn tracked(&self) -> usize {
        self.trees.len()
    }

    /// The one entry.
    pub fn apply(&mut self, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Record { bytes, digests } => match record::decode(bytes) {
                Ok(record) => self.on_record(&record, digests, out),
                Err(_) => {
                    self.undecodable += 1;
                    let total = self.undecodable;
                    self.on_lost("undecodable", total, out);
                }
            },
            Input::Tick { now_ns } => {
                self.now_ns = self.now_ns.max(now_ns);
                self.on_tick(out);
            }
            Input::Fact { now_ns, fact } => {
                self.now_ns = self.now_ns.max(now_ns);
                self.on_fact(fact, out);
            }
        }
    }

    fn time(&self, boot_ns: u64) -> Time {
        Time {
            utc: self.utc_minus_boot_ns.saturating_add(boot_ns as i64),
            boot_ns,
        }
    }

    fn on_fact(&mut self, fact: &Fact, out: &mut Vec<Output>) {
        match fact {
            Fact::Start {
                utc_minus_boot_ns,
                settle_ns,
                include_arguments,
                host: _,
            } => {
                self.utc_minus_boot_ns = *utc_minus_boot_ns;
                self.settle_ns = *settle_ns;
                self.include_arguments = *include_arguments;
            }
            Fact::Identity(identity) => self.on_identity(identity, out),
            Fact::Attached => {
                self.attached_ns = Some(self.now_ns);
                for tree in self.trees.values_mut().filter(|t| t.gap_ns == u64::MAX) {
                    tree.gap_ns = self.now_ns.saturating_sub(tree.began_ns);
                }
            }
            Fact::Detached => self.attached_ns = None,
            Fact::Aggregate {
                id,
                count,
                bytes_out,
                bytes_in,
            } => {
                self.on_aggregate(*id, *count, *bytes_out, *bytes_in, out);
            }
            Fact::Drained { up_to_ns } => {
                // A program may take the time before the switch of maps, and count after it.
                self.announced
                    .retain(|_, a| a.at_ns.saturating_add(DRAIN_SLACK_NS) >= *up_to_ns);
                for tree in self.trees.values_mut() {
                    tree.counted |= tree.ended_ns.is_some_and(|ended| ended <= *up_to_ns);
                }
                self.for_closing(out, |call| {
                    if let Stage::Closing { until, drained, .. } = &mut call.stage
                        && *until <= up_to_ns.saturating_add(CLOSING_NS)
                    {
                        *drained = true;
                    }
                });
            }
            Fact::Usage {
                tgid,
                cpu_ns,
                rss,
                peak_rss,
            } => self.on_usage(*tgid, *cpu_ns, *rss, *peak_rss, out),
            Fact::Lost { cause, total } => self.on_lost(cause, *total, out),
            Fact::Stop => self.on_stop(out),
            Fact::Coverage(coverage) => {
                let line = CoverageLine {
                    time: self.time(self.now_ns),
                    coverage: coverage.clone(),
                };
                out.push(Output::Line(Box::new(Line::Coverage(line))));
            }
        }
    }

    fn on_lost(&mut self, cause: &str, total: u64, out: &mut Vec<Output>) {
        let known = self.lost.entry(cause.to_owned()).or_default();
        let count = total.saturating_sub(*known);
        if count == 0 {
            return;
        }
        *known = total;
        let line = LostLine {
            time: self.time(self.now_ns),
            cause: cause.to_owned(),
            count,
            total,
        };
        out.push(Output::Line(Box::new(Line::Lost(line))));
    }

    // --- records ---------------------------------------------------------------------------------

    fn on_record(&mut self, record: &Record<'_>, digests: &[Digest], out: &mut Vec<Output>) {
        let h = &record.header;
        self.now_ns = self.now_ns.max(h.at_ns);
        match record.event {
            Event::Exec {
                exec,
                path,
                cwd,
                argv,
                ..
            } => self.on_exec(record, &exec, path, cwd, argv, out),
            Event::Chunk { chunk, bytes } => self.on_chunk(&chunk, bytes, digests, out),
            Event::Blind(b) => self.on_blind(h.tree, b.how, out),
            Event::Fork(f) => {
                let charge = self.charge(h.tgid, h.tree, h.at_ns);
                self.tell(record, charge.clone(), out);
                let birth = if charge.calls.is_empty() {
                    Birth::Worker(charge.base.unwrap_or(Base::Ambient))
                } else {
                    Birth::Lineage(charge.inherited())
                };
                let exe = self.procs.get(&h.tgid).and_then(|p| p.shown.exe.clone());
                let shown = Arc::new(Process {
                    pid: f.child,
                    start_ns: f.child_start_ns,
                    exe,
                });
                self.put(
                    f.child,
                    Proc {
                        tree: h.tree,
                        birth,
                        shown,
                    },
                );
            }
            Event::Exit(_) => {
                let charge = self.charge(h.tgid, h.tree, h.at_ns);
                self.tell(record, charge, out);
                if let Some(p) = self.procs.remove(&h.tgid) {
                    self.leave(p.tree, h.tgid, out);
                }
            }
            Event::Open { open, .. } if open.request_channel != 0 => {
                let charge = self.charge(h.tgid, h.tree, h.at_ns);
                self.tell(record, charge, out);
                self.on_forging(h.tree, "it opened its own request channel for writing", out);
            }
            Event::Packet { packet, bytes } => {
                let charge = self.charge(h.tgid, h.tree, h.at_ns);
                self.learn_name(h.tree, &packet, bytes);
                self.tell(record, charge, out);
            }
            _ => {
                let charge = self.charge(h.tgid, h.tree, h.at_ns);
                self.tell(record, charge, out);
            }
        }
    }

    /// Enters a process, counting it for its tree.
    fn put(&mut self, tgid: u32, proc: Proc) {
        let tree = proc.tree;
        if let Some(old) = self.procs.insert(tgid, proc) {
            if old.tree == tree {
                return;
            }
            if let Some(t) = self.trees.get_mut(&old.tree) {
                t.alive = t.alive.saturating_sub(1);
            }
        }
        if let Some(t) = self.trees.get_mut(&tree) {
            t.alive += 1;
        }
    }

    fn on_exec(
        &mut self,
        record: &Record<'_>,
        exec: &abi::Exec,
        path: &[u8],
        cwd: &[u8],
        argv: &[u8],
        out: &mut Vec<Output>,
    ) {
        let h = &record.header;
        let exe = text::kernel_path(path, exec.flags & exec_flag::PATH_CUT != 0);
        let shown = Arc::new(Process {
            pid: h.tgid,
            start_ns: exec.start_ns,
            exe: Some(exe),
        });
        let before = self.procs.get(&h.tgid).map(|p| (p.tree, p.birth.clone()));
        if exec.flags & exec_flag::NEW_TREE != 0 {
            let parent = before
                .as_ref()
                .map(|(tree, _)| *tree)
                .filter(|t| self.trees.contains_key(t));
            let partial = self.attached_ns.is_none();
            let tree = Tree {
                id: h.tree,
                parent,
                root: h.tgid,
                client: exec.parent,
                uid: h.uid,
                login_uid: exec.login_uid,
                cwd: text::kernel_path(cwd, exec.flags & exec_flag::CWD_CUT != 0),
                argv: text::argv(argv),
                request: Stream::new(exec.stdin, self.include_arguments),
                reply: Stream::new(exec.stdout, false),
                proof: Stream::new(exec.stdin, false),
                began_ns: h.at_ns,
                gap_ns: if partial { u64::MAX } else { 0 },
                alive: 0,
                dismissed: false,
                ended_ns: None,
                counted: false,
                held: Vec::new(),
                overflow: 0,
                server: None,
            };
            self.trees.insert(h.tree, tree);
            // Within a server its processes keep the charge that they were born with.
            let birth = match before {
                Some((_, birth)) if parent.is_some() => birth,
                _ => Birth::Window,
            };
            self.put(
                h.tgid,
                Proc {
                    tree: h.tree,
                    birth,
                    shown,
                },
            );
        } else if self.trees.contains_key(&h.tree) {
            let birth = before.map_or(Birth::Window, |(_, birth)| birth);
            self.put(
                h.tgid,
                Proc {
                    tree: h.tree,
                    birth,
                    shown,
                },
            );
        }
        let charge = self.charge(h.tgid, h.tree, h.at_ns);
        self.tell(record, charge, out);
    }

    /// A process left a tree; the last one ends it.
    fn leave(&mut self, tree: u64, tgid: u32, out: &mut Vec<Output>) {
        let now = self.now_ns;
        let Some(t) = self.trees.get_mut(&tree) else {
            return;
        };
        t.alive = t.alive.saturating_sub(1);
        let last = t.alive == 0;
        if let Some(server) = &mut t.server
            && (last || server.reader == tgid)
        {
            server.abandon(now);
        }
        if last && t.server.is_none() {
            self.forget(tree, out);
        }
    }

    /// The nearest tree whose lines these are: a server, or a candidate that may become one.
    fn home(&self, tree: u64) -> Option<u64> {
        let mut at = tree;
        let mut candidate = None;
        // Nested launchers are a few levels deep; the bound guards against a broken recording.
        for _ in 0..16 {
            let Some(t) = self.trees.get(&at) else { break };
            if t.server.is_some() {
                return Some(at);
            }
            if !t.dismissed {
                candidate = candidate.or(Some(at));
            }
            match t.parent {
                Some(parent) => at = parent,
                None => break,
            }
        }
        candidate
    }

    /// Whom an effect of this process is charged to.
    fn charge(&mut self, tgid: u32, tree: u64, at: u64) -> Charge {
        let birth = self
            .procs
            .get(&tgid)
            .map_or(Birth::Window, |p| p.birth.clone());
        if let Birth::Lineage(charge) = birth {
            return charge;
        }
        let server = self
            .home(tree)
            .and_then(|home| self.trees.get_mut(&home))
            .and_then(|t| t.server.as_mut());
        let window = match server {
            Some(server) => server.window(at),
            None => Charge::new(Some(Base::Startup), Vec::new(), Basis::Window),
        };
        match birth {
            Birth::Worker(base) if !window.calls.is_empty() => window.or(base),
            _ => window,
        }
    }

    /// Tells the effect of a record, and remembers it if the kernel counts more of it.
    fn tell(&mut self, record: &Record<'_>, charge: Charge, out: &mut Vec<Output>) {
        let h = &record.header;
        let Some(home) = self.home(h.tree) else {
            return;
        };
        let Some(mut effect) = effect::of(record) else {
            return;
        };
        if let Effect::Net { address, name, .. } = &mut effect
            && let Some(server) = self.trees.get(&home).and_then(|t| t.server.as_ref())
            && let Ok(ip) = address.parse()
        {
            *name = server.names.get(&ip).cloned();
        }
        self.next_effect += 1;
        let id = self.next_effect;
        let effect = Arc::new(effect);
        let process = match self.procs.get(&h.tgid) {
            Some(p) => Arc::clone(&p.shown),
            None => Arc::new(Process {
                pid: h.tgid,
                start_ns: 0,
                exe: None,
            }),
        };
        if h.flags & flag::AGGREGATED != 0 {
            let announced = Announced {
                at_ns: h.at_ns,
                tree: home,
                charge: charge.clone(),
                process: Arc::clone(&process),
                effect: Arc::clone(&effect),
                id,
            };
            self.announced.insert(h.id, announced);
        }
        self.say(home, charge, process, effect, id, 1, false, h.at_ns, out);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one line")]
    fn say(
        &mut self,
        home: u64,
        charge: Charge,
        process: Arc<Process>,
        effect: Arc<Effect>,
        id: u64,
        count: u64,
        repeat: bool,
        at_ns: u64,
        out: &mut Vec<Output>,
    ) {
        let time = self.time(at_ns);
        let Some(tree) = self.trees.get_mut(&home) else {
            return;
        };
        let mut outlived = false;
        if let Some(server) = &mut tree.server {
            outlived = tally(server, &charge, &effect, count);
        }
        let (shown, context) = match &tree.server {
            Some(s) => (Arc::clone(&s.shown), Arc::clone(&s.context)),
            None => Default::default(),
        };
        let line = EffectLine {
            time,
            server: shown,
            context,
            scope: charge.scope,
            process,
            effect,
            id,
            count,
            repeat,
            outlived,
        };
        emit(tree, Line::Effect(line), out);
    }

    fn on_aggregate(
        &mut self,
        id: u64,
        count: u64,
        bytes_out: u64,
        bytes_in: u64,
        out: &mut Vec<Output>,
    ) {
        let Some(a) = self.announced.get(&id) else {
            let total = self
                .lost
                .get("aggregate:unknown")
                .copied()
                .unwrap_or(0)
                .saturating_add(count);
            self.on_lost("aggregate:unknown", total, out);
            return;
        };
        let effect = match &*a.effect {
            Effect::Flow {
                address,
                port,
                protocol,
                ..
            } => Arc::new(Effect::Flow {
                address: address.clone(),
                port: *port,
                protocol: protocol.clone(),
                bytes_out,
                bytes_in,
            }),
            _ => Arc::clone(&a.effect),
        };
        let (tree, charge, process, number, at) = (
            a.tree,
            a.charge.clone(),
            Arc::clone(&a.process),
            a.id,
            a.at_ns,
        );
        self.say(tree, charge, process, effect, number, count, true, at, out);
    }

    // --- channels --------------------------------------------------------------------------------

    fn on_chunk(
        &mut self,
        chunk: &abi::Chunk,
        bytes: &[u8],
        digests: &[Digest],
        out: &mut Vec<Output>,
    ) {
        let h = &chunk.header;
        let settle = self.settle_ns;
        let Some(tree) = self.trees.get_mut(&h.tree) else {
            return;
        };
        if chunk.side == side::FORGED {
            self.on_forging(h.tree, "it wrote into its own request channel", out);
            return;
        }
        let stream = match chunk.side {
            side::REQUEST => &mut tree.request,
            side::REPLY => &mut tree.reply,
            side::PROOF => &mut tree.proof,
            _ => return,
        };
        if stream.channel != chunk.channel || tree.dismissed {
            return;
        }
        let mut frames = std::mem::take(&mut self.frames);
        let gap = chunk.position.wrapping_sub(stream.next);
        // The first client write under proof may come at any position.
        let first_proof = chunk.side == side::PROOF && stream.next == 0;
        if gap != 0 && !first_proof {
            // Backwards: the counters were reset, and how much is missing is not known.
            stream
                .framer
                .gap(if gap > u64::from(u32::MAX) { 0 } else { gap }, &mut frames);
            if chunk.side == side::REQUEST
                && let Some(server) = &mut tree.server
            {
                server.blur(h.at_ns);
            }
        }
        stream.framer.push(bytes, digests, &mut frames);
        stream.next = chunk.position.wrapping_add(bytes.len() as u64);
        match chunk.side {
            side::REQUEST => {
                self.on_request_frames(h.tree, h.tgid, h.at_ns, chunk.cpu_ns, &mut frames, out);
            }
            side::REPLY => {
                if let Some(server) = &mut tree.server {
                    for frame in &frames {
                        if let Frame::Message(m) = frame {
                            server.on_reply(m, h.at_ns, settle);
                        }
                    }
                }
            }
            _ => {
                for frame in &frames {
                    if let Frame::Message(m) = frame
                        && let Some(server) =
                            self.trees.get_mut(&h.tree).and_then(|t| t.server.as_mut())
                        && let Some(heard) = server.prove(m.line_hash)
                    {
                        server.on_request(heard, settle);
                    }
                }
            }
        }
        frames.clear();
        self.frames = frames;
    }

    fn on_request_frames(
        &mut self,
        id: u64,
        tgid: u32,
        at: u64,
        cpu_ns: u64,
        frames: &mut Vec<Frame>,
        out: &mut Vec<Output>,
    ) {
        let settle = self.settle_ns;
        let Some(tree) = self.trees.get_mut(&id) else {
            return;
        };
        // Who reads the channel serves it, however it was born.
        if let Some(p) = self.procs.get_mut(&tgid)
            && matches!(p.birth, Birth::Worker(_))
        {
            p.birth = Birth::Window;
        }
        if let Some(server) = &mut tree.server {
            for call in server
                .calls
                .iter_mut()
                .filter(|c| c.reader == tgid && c.cpu_end_ns.is_none())
            {
                if matches!(call.stage, Stage::Settling { .. } | Stage::Closing { .. }) {
                    call.cpu_end_ns = Some(cpu_ns);
                }
            }
        }
        for frame in frames.drain(..) {
            let Some(tree) = self.trees.get_mut(&id) else {
                return;
            };
            match (frame, &mut tree.server) {
                (Frame::Message(m), Some(server)) => {
                    if let Some(heard) = server.check(Heard {
                        message: *m,
                        at,
                        tgid,
                        cpu_ns,
                    }) && let Some(dropped) = server.on_request(heard, settle)
                    {
                        finish(self.utc_minus_boot_ns, tree, dropped, out);
                    }
                }
                (Frame::Message(m), None) if m.is_mcp() => {
                    self.promote(id, tgid, at, out);
                    if let Some(server) = self.trees.get_mut(&id).and_then(|t| t.server.as_mut())
                        && let Some(heard) = server.check(Heard {
                            message: *m,
                            at,
                            tgid,
                            cpu_ns,
                        })
                    {
                        server.on_request(heard, settle);
                    }
                }
                (_, Some(_)) => {}
                (_, None) => {
                    self.dismiss(id, out);
                    return;
                }
            }
        }
    }

    fn promote(&mut self, id: u64, tgid: u32, at: u64, out: &mut Vec<Output>) {
        let Some(tree) = self.trees.get_mut(&id) else {
            return;
        };
        tree.promote(tgid, at);
        for channel in [tree.request.channel, tree.reply.channel] {
            out.push(Output::Request(Request::Channel {
                channel,
                mode: channel_mode::FOLLOWED,
            }));
        }
        let (root, client) = (tree.root, tree.client);
        out.push(Output::Request(Request::Identify {
            tree: id,
            tgid,
            root,
            client,
        }));
        out.push(Output::Request(Request::Measure { tgid }));
        // Its processes are its own now, not those of the server that it was started by.
        for (pid, p) in self.procs.iter_mut().filter(|(_, p)| p.tree == id) {
            p.birth = if *pid == tgid {
                Birth::Window
            } else {
                Birth::Worker(Base::Startup)
            };
        }
    }

    /// Not MCP.
    fn dismiss(&mut self, id: u64, out: &mut Vec<Output>) {
        let Some(tree) = self.trees.get_mut(&id) else {
            return;
        };
        tree.dismissed = true;
        let held = std::mem::take(&mut tree.held);
        for channel in [tree.request.channel, tree.reply.channel] {
            out.push(Output::Request(Request::Channel {
                channel,
                mode: channel_mode::IGNORED,
            }));
        }
        match self.home(id) {
            // Part of a server, or of something that may still become one.
            Some(home) => {
                if let Some(t) = self.trees.get_mut(&home) {
                    for line in held {
                        emit(t, line, out);
                    }
                }
            }
            None => self.forget(id, out),
        }
    }

    fn forget(&mut self, id: u64, out: &mut Vec<Output>) {
        let Some(tree) = self.trees.remove(&id) else {
            return;
        };
        self.procs.retain(|_, p| p.tree != id);
        for channel in [tree.request.channel, tree.reply.channel] {
            // Another tree may share it: a shell that launched several.
            if !self
                .trees
                .values()
                .any(|t| t.request.channel == channel || t.reply.channel == channel)
            {
                out.push(Output::Request(Request::ForgetChannel { channel }));
            }
        }
        out.push(Output::Request(Request::Forget { tree: id }));
    }

    fn on_forging(&mut self, id: u64, how: &str, out: &mut Vec<Output>) {
        let time = self.time(self.now_ns);
        let Some(tree) = self.trees.get_mut(&id) else {
            return;
        };
        let (channel, client) = (tree.request.channel, tree.client);
        let Some(server) = &mut tree.server else {
            return;
        };
        if server.proof.is_some() {
            return;
        }
        server.proof = Some(Proof::default());
        if server.channel == ChannelState::Followed {
            server.channel = ChannelState::Proved;
        }
        out.push(Output::Request(Request::Channel {
            channel,
            mode: channel_mode::PROVED,
        }));
        out.push(Output::Request(Request::Prove { client, tree: id }));
        let detail =
            format!("{how}: from now on only lines that the client provably wrote open calls");
        if let Some(line) = tree.line(ServerEvent::Forging, Some(detail), time) {
            emit(tree, Line::Server(line), out);
        }
    }

    fn on_blind(&mut self, id: u64, how: u32, out: &mut Vec<Output>) {
        let time = self.time(self.now_ns);
        let Some(tree) = self.trees.get_mut(&id) else {
            return;
        };
        let Some(server) = &mut tree.server else {
            return;
        };
        if server.channel == ChannelState::Blind {
            return;
        }
        server.channel = ChannelState::Blind;
        let way = match how.checked_sub(0x10000) {
            Some(opcode) => format!("io_uring {}", text::uring_name(opcode)),
            None => format!("system call {how}"),
        };
        let detail = format!(
            "bytes of its channel move by {way}, which is not followed: calls may be missed"
        );
        if let Some(line) = tree.line(ServerEvent::Blind, Some(detail), time) {
            emit(tree, Line::Server(line), out);
        }
    }

    fn learn_name(&mut self, id: u64, packet: &abi::Packet, bytes: &[u8]) {
        let Some(home) = self.home(id) else { return };
        let Some(server) = self.trees.get_mut(&home).and_then(|t| t.server.as_mut()) else {
            return;
        };
        let Some(key) = effect::dns_key(packet, bytes) else {
            return;
        };
        if packet.what == abi::packet::DNS_QUERY {
            server.questions.push_back(key);
            if server.questions.len() > NAMES {
                server.questions.pop_front();
            }
        } else if packet.what == abi::packet::DNS_ANSWER {
            // Only an answer to a question that this server asked, from whom it asked.
            let Some(at) = server.questions.iter().position(|q| *q == key) else {
                return;
            };
            server.questions.remove(at);
            if server.names.len() > NAMES {
                server.names.clear();
            }
            for (address, name) in effect::answers(bytes) {
                server.names.insert(address, name);
            }
        }
    }

    // --- time ------------------------------------------------------------------------------------

    fn on_identity(&mut self, identity: &Identity, out: &mut Vec<Output>) {
        let time = self.time(self.now_ns);
        let Some(tree) = self.trees.get_mut(&identity.tree) else {
            return;
        };
        let Some(server) = &mut tree.server else {
            return;
        };
        let mut shown = (*server.shown).clone();
        if !identity.name.is_empty() {
            shown.name.clone_from(&identity.name);
        }
        server.shown = Arc::new(shown);
        let mut context = (*server.context).clone();
        context.client.clone_from(&identity.client);
        server.context = Arc::new(context);
        server.identity = Some(identity.clone());
        if server.announced {
            if let Some(line) = tree.line(ServerEvent::Identified, None, time) {
                emit(tree, Line::Server(line), out);
            }
        } else {
            announce(tree, self.utc_minus_boot_ns, out);
        }
    }

    fn on_usage(&mut self, tgid: u32, cpu_ns: u64, rss: u64, peak_rss: u64, out: &mut Vec<Output>) {
        for server in self
            .trees
            .values_mut()
            .filter_map(|t| t.server.as_mut())
            .filter(|s| s.reader == tgid)
        {
            let peak = if peak_rss > server.peak_rss {
                peak_rss
            } else {
                rss
            };
            server.peak_rss = server.peak_rss.max(peak_rss);
            for call in server.calls.iter_mut().filter(|c| c.reader == tgid) {
                if let Stage::Closing { measured, .. } = &mut call.stage
                    && !*measured
                {
                    *measured = true;
                    call.peak_rss = peak;
                    call.cpu_end_ns.get_or_insert(cpu_ns);
                }
            }
        }
        self.for_closing(out, |_| {});
    }

    /// Changes calls that are closing, and tells those that are complete.
    fn for_closing(
        &mut self,
        out: &mut Vec<Output>,
        mut change: impl FnMut(&mut crate::call::Call),
    ) {
        let now = self.now_ns;
        for tree in self.trees.values_mut() {
            let Some(server) = &mut tree.server else {
                continue;
            };
            let mut done = Vec::new();
            let mut i = 0;
            while i < server.calls.len() {
                change(&mut server.calls[i]);
                match server.calls[i].stage {
                    Stage::Closing {
                        until,
                        drained,
                        measured,
                    } if drained && measured || now >= until => {
                        done.push(server.calls.remove(i));
                    }
                    _ => i += 1,
                }
            }
            for call in done {
                finish(self.utc_minus_boot_ns, tree, call, out);
            }
        }
    }

    fn on_stop(&mut self, out: &mut Vec<Output>) {
        let now = self.now_ns;
        let mut ids: Vec<u64> = self.trees.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(tree) = self.trees.get_mut(&id) else {
                continue;
            };
            let Some(server) = &mut tree.server else {
                continue;
            };
            server.abandon(now);
            let calls = std::mem::take(&mut server.calls);
            if !server.announced {
                announce(tree, self.utc_minus_boot_ns, out);
            }
            for call in calls {
                finish(self.utc_minus_boot_ns, tree, call, out);
            }
        }
    }

    fn on_tick(&mut self, out: &mut Vec<Output>) {
        let now = self.now_ns;
        let mut drain = false;
        let mut quiet = Vec::new();
        let mut ended = Vec::new();
        // In order of age, so that the same inputs give the same outputs.
        let mut ids: Vec<u64> = self.trees.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(tree) = self.trees.get_mut(&id) else {
                continue;
            };
            let Some(server) = &mut tree.server else {
                if !tree.dismissed
                    && tree.request.next == 0
                    && now.saturating_sub(tree.began_ns) > QUIET_NS
                {
                    quiet.push(id);
                }
                continue;
            };
            for call in &mut server.calls {
                if let Stage::Settling { until } | Stage::Cancelled { until } = call.stage
                    && now >= until
                {
                    call.stage = Stage::Closing {
                        until: now.saturating_add(CLOSING_NS),
                        drained: false,
                        measured: false,
                    };
                    drain = true;
                    out.push(Output::Request(Request::Measure { tgid: call.reader }));
                }
            }
            if !server.announced && now.saturating_sub(server.found_ns) > IDENTITY_NS {
                announce(tree, self.utc_minus_boot_ns, out);
            }
            if let Some(server) = &tree.server
                && tree.alive == 0
                && server.announced
            {
                if tree.ended_ns.is_none() {
                    tree.ended_ns = Some(now);
                    drain = true;
                }
                if server.calls.is_empty() && tree.counted {
                    ended.push(id);
                }
            }
        }
        if drain {
            out.push(Output::Request(Request::Drain));
        }
        for id in quiet {
            self.dismiss(id, out);
        }
        self.for_closing(out, |_| {});
        for id in ended {
            let time = self.time(now);
            if let Some(tree) = self.trees.get_mut(&id)
                && let Some(line) = tree.line(ServerEvent::Ended, None, time)
            {
                emit(tree, Line::Server(line), out);
            }
            self.forget(id, out);
        }
    }
}

/// Counts an effect for the calls that it may belong to. True when it is certain to belong to one that
/// had replied before.
fn tally(server: &mut Server, charge: &Charge, effect: &Effect, count: u64) -> bool {
    let find = |calls: &mut Vec<crate::call::Call>, info: &Arc<CallInfo>| {
        calls.iter().position(|c| c.info.number == info.number)
    };
    if let Some(info) = charge.certain_call() {
        let Some(at) = find(&mut server.calls, info) else {
            return true;
        };
        let call = &mut server.calls[at];
        let window = charge.scope.basis == Basis::Window;
        // A server that ends within a call did not use all its CPU time for it.
        if !(window && matches!(effect, Effect::Exit { .. })) {
            call.tally.add(effect, count);
        }
        return matches!(call.stage, Stage::Settling { .. } | Stage::Closing { .. });
    }
    if !matches!(effect, Effect::Syscall { .. }) {
        for info in charge.calls.iter() {
            if let Some(at) = find(&mut server.calls, info) {
                let tally = &mut server.calls[at].tally;
                tally.ambiguous = tally.ambiguous.saturating_add(count);
            }
        }
    }
    false
}

/// Lines of a server that is known go out; others wait.
fn emit(tree: &mut Tree, mut line: Line, out: &mut Vec<Output>) {
    if let Some(server) = &tree.server
        && server.announced
    {
        stamp(&mut line, server);
        out.push(Output::Line(Box::new(line)));
    } else if tree.held.len() < HELD_LINES {
        tree.held.push(line);
    } else {
        tree.overflow += 1;
    }
}

/// Lines made before the server was known learn whose they are.
fn stamp(line: &mut Line, server: &Server) {
    let (shown, context) = match line {
        Line::Effect(l) => (&mut l.server, &mut l.context),
        Line::Call(l) => (&mut l.server, &mut l.context),
        Line::Server(l) => (&mut l.server, &mut l.context),
        Line::Lost(_) | Line::Coverage(_) => return,
    };
    if !Arc::ptr_eq(shown, &server.shown) {
        *shown = Arc::clone(&server.shown);
    }
    if !Arc::ptr_eq(context, &server.context) {
        *context = Arc::clone(&server.context);
    }
}

/// Tells that a server was found, then what it did until now.
fn announce(tree: &mut Tree, utc_minus_boot_ns: i64, out: &mut Vec<Output>) {
    let at = |boot_ns: u64| Time {
        utc: utc_minus_boot_ns.saturating_add(boot_ns as i64),
        boot_ns,
    };
    let Some(server) = &mut tree.server else {
        return;
    };
    server.announced = true;
    let found = at(server.found_ns);
    if let Some(line) = tree.line(ServerEvent::Found, None, found) {
        emit(tree, Line::Server(line), out);
    }
    for line in std::mem::take(&mut tree.held) {
        emit(tree, line, out);
    }
    if tree.overflow > 0 {
        let line = LostLine {
            time: found,
            cause: "candidate:held-lines".into(),
            count: tree.overflow,
            total: tree.overflow,
        };
        out.push(Output::Line(Box::new(Line::Lost(line))));
    }
}

/// Tells what a call did.
fn finish(utc_minus_boot_ns: i64, tree: &mut Tree, call: crate::call::Call, out: &mut Vec<Output>) {
    let Some(server) = &tree.server else { return };
    let boot_ns = call.began_ns;
    let time = Time {
        utc: utc_minus_boot_ns.saturating_add(boot_ns as i64),
        boot_ns,
    };
    let line = call.summary(time, Arc::clone(&server.shown), Arc::clone(&server.context));
    emit(tree, Line::Call(line), out);
}
