//! Channel bytes to calls: candidates become servers or are dismissed, requests open calls, replies
//! end them.

use abi::{channel_mode, side};

use super::{
    Birth, Engine, NAMES,
    lines::{emit, finish},
};
use crate::{
    charge::Base,
    effect,
    input::Digest,
    mcp::Frame,
    output::{ChannelState, Line, Output, Request, ServerEvent},
    server::{Heard, Held, Proof},
    text,
    tree::Tree,
};

impl Engine {
    pub(super) fn on_chunk(
        &mut self,
        chunk: &abi::Chunk,
        bytes: &[u8],
        digests: &[Digest],
        out: &mut Vec<Output>,
    ) {
        let h = &chunk.header;
        let settle = self.settle_ns;
        // A client belongs to no tree: what it writes is told by channel.
        let proof = chunk.side == side::PROOF;
        let under_proof = |t: &&Tree| proof && t.proof.channel == chunk.channel && t.server.is_some();
        let id = self.trees.values().find(under_proof).map_or(h.tree, |t| t.id);
        let Some(tree) = self.trees.get_mut(&id) else {
            return;
        };
        if chunk.side == side::FORGED {
            self.on_forging(h.tree, "wrote into its own request channel", out);
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
            stream.framer.gap(if gap > u64::from(u32::MAX) { 0 } else { gap }, &mut frames);
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
                        && let Some(server) = self.trees.get_mut(&id).and_then(|t| t.server.as_mut())
                        && let Some(Held { heard, reply }) = server.prove(m.line_hash)
                    {
                        server.on_request(heard, settle);
                        if let Some((reply, at)) = reply {
                            server.on_reply(&reply, at, settle);
                        }
                    }
                }
            }
        }
        frames.clear();
        self.frames = frames;
    }

    pub(super) fn on_request_frames(
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
            server.end_cpu(tgid, cpu_ns);
        }
        for frame in frames.drain(..) {
            let Some(tree) = self.trees.get_mut(&id) else {
                return;
            };
            match (frame, &mut tree.server) {
                (Frame::Message(m), Some(server)) => {
                    if let Some(heard) = server.check(Heard { message: *m, at, tgid, cpu_ns })
                        && let Some(dropped) = server.on_request(heard, settle)
                    {
                        finish(self.utc_minus_boot_ns, tree, dropped, out);
                    }
                }
                (Frame::Message(m), None) if m.is_mcp() => {
                    self.promote(id, tgid, at, out);
                    if let Some(server) = self.trees.get_mut(&id).and_then(|t| t.server.as_mut())
                        && let Some(heard) = server.check(Heard { message: *m, at, tgid, cpu_ns })
                    {
                        server.on_request(heard, settle);
                    }
                }
                (_, Some(_)) => {}
                // Of a server that ran before: the rest of a line that began before it was found, or the
                // client's answer to a request of the server. Neither decides.
                (Frame::Message(m), None)
                    if tree.pre_existing && (m.cut || m.is_reply() && m.hints.jsonrpc) => {}
                // It was known before; what it may have written into its own request channel does not free it.
                (_, None) if tree.kept => {}
                (_, None) => {
                    self.dismiss(id, out);
                    return;
                }
            }
        }
    }

    pub(super) fn promote(&mut self, id: u64, tgid: u32, at: u64, out: &mut Vec<Output>) {
        let Some(tree) = self.trees.get_mut(&id) else {
            return;
        };
        tree.promote(tgid, at, self.in_flight_ns);
        let others = if tree.pre_existing { Base::UnknownStart } else { Base::Startup };
        for channel in [tree.request.channel, tree.reply.channel] {
            out.push(Output::Request(Request::Channel { channel, mode: channel_mode::FOLLOWED }));
        }
        let (root, client) = (tree.root, tree.client);
        out.push(Output::Request(Request::Identify { tree: id, tgid, root, client }));
        out.push(Output::Request(Request::Measure { tgid }));
        // Its processes are its own now, not those of the server that it was started by.
        for (pid, p) in self.procs.iter_mut().filter(|(_, p)| p.tree == id) {
            p.birth = if *pid == tgid { Birth::Window } else { Birth::Worker(others) };
        }
    }

    /// Not MCP.
    pub(super) fn dismiss(&mut self, id: u64, out: &mut Vec<Output>) {
        let Some(tree) = self.trees.get_mut(&id) else {
            return;
        };
        if tree.kept {
            return;
        }
        tree.dismissed = true;
        let held = std::mem::take(&mut tree.held);
        for channel in [tree.request.channel, tree.reply.channel] {
            out.push(Output::Request(Request::Channel { channel, mode: channel_mode::IGNORED }));
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

    pub(super) fn forget(&mut self, id: u64, out: &mut Vec<Output>) {
        let Some(tree) = self.trees.remove(&id) else {
            return;
        };
        if let Some(server) = &tree.server {
            self.ambiguity.add(server.ambiguity);
        }
        self.procs.retain(|_, p| p.tree != id);
        for channel in [tree.request.channel, tree.reply.channel] {
            // Another tree may share it: a shell that launched several.
            if !self.trees.values().any(|t| t.request.channel == channel || t.reply.channel == channel) {
                out.push(Output::Request(Request::ForgetChannel { channel }));
            }
        }
        out.push(Output::Request(Request::Forget { tree: id }));
    }

    pub(super) fn on_forging(&mut self, id: u64, how: &str, out: &mut Vec<Output>) {
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
        out.push(Output::Request(Request::Channel { channel, mode: channel_mode::PROVED }));
        out.push(Output::Request(Request::Prove { client }));
        let detail = format!("{how}: from now on only lines that the client provably wrote open calls");
        if let Some(line) = tree.line(ServerEvent::Forging, Some(detail), time) {
            emit(tree, Line::Server(line), out);
        }
    }

    pub(super) fn on_blind(&mut self, id: u64, how: u32, out: &mut Vec<Output>) {
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
        let detail =
            format!("bytes of its channel move by {way}, which is not followed: calls may be missed");
        if let Some(line) = tree.line(ServerEvent::Blind, Some(detail), time) {
            emit(tree, Line::Server(line), out);
        }
    }

    pub(super) fn learn_name(&mut self, id: u64, packet: &abi::Packet, bytes: &[u8]) {
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
}
