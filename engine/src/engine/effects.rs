//! Records to effects: who acted, whom it is charged to, and the line that says so.

use std::sync::Arc;

use abi::{exec_flag, flag};

use super::{
    Announced, Birth, Engine, Proc,
    lines::{emit, tally},
};
use crate::{
    charge::{Base, Charge},
    effect,
    input::{Digest, Existing},
    output::{Basis, Effect, EffectLine, Line, Output, Process, SyscallAbi},
    record::{Event, Record},
    text,
    tree::{Stream, Tree},
};

impl Engine {
    pub(super) fn on_record(&mut self, record: &Record<'_>, digests: &[Digest], out: &mut Vec<Output>) {
        let h = &record.header;
        self.now_ns = self.now_ns.max(h.at_ns);
        if h.vital_lost_before > 0 {
            // Some server's request may be among them.
            for server in self.trees.values_mut().filter_map(|t| t.server.as_mut()) {
                server.blur(h.at_ns);
            }
        }
        match record.event {
            Event::Exec { exec, path, cwd, argv, .. } => self.on_exec(record, &exec, path, cwd, argv, out),
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
                let shown = Arc::new(Process { pid: f.child, start_ns: f.child_start_ns, exe });
                self.put(f.child, Proc { tree: h.tree, birth, shown });
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
                self.on_forging(h.tree, "opened its own request channel for writing", out);
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
    pub(super) fn put(&mut self, tgid: u32, proc: Proc) {
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

    pub(super) fn on_exec(
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
        let shown = Arc::new(Process { pid: h.tgid, start_ns: exec.start_ns, exe: Some(exe) });
        let before = self.procs.get(&h.tgid).map(|p| (p.tree, p.birth.clone()));
        if exec.flags & exec_flag::NEW_TREE != 0 {
            let parent = before.as_ref().map(|(tree, _)| *tree).filter(|t| self.trees.contains_key(t));
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
                // Not attached yet, or because of this very exec.
                gap_ns: self.attached_ns.map_or(u64::MAX, |attached| attached.saturating_sub(h.at_ns)),
                pre_existing: false,
                kept: false,
                unwatched: false,
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
            self.put(h.tgid, Proc { tree: h.tree, birth, shown });
        } else if self.trees.contains_key(&h.tree) {
            let birth = before.map_or(Birth::Window, |(_, birth)| birth);
            self.put(h.tgid, Proc { tree: h.tree, birth, shown });
        }
        let charge = self.charge(h.tgid, h.tree, h.at_ns);
        self.tell(record, charge, out);
    }

    /// A process that ran before it was tracked. What it was born for is not known, and stays so unless
    /// it turns out to be the one that reads the channel.
    pub(super) fn on_existing(&mut self, e: &Existing) {
        if e.root && !self.trees.contains_key(&e.tree) {
            let mut tree = Tree {
                id: e.tree,
                parent: e.parent_tree.filter(|t| self.trees.contains_key(t)),
                root: e.tgid,
                client: e.parent,
                uid: e.uid,
                login_uid: e.login_uid.unwrap_or(u32::MAX),
                cwd: e.cwd.clone(),
                argv: e.argv.clone(),
                request: Stream::new(e.stdin, self.include_arguments),
                reply: Stream::new(e.stdout, false),
                proof: Stream::new(e.stdin, false),
                began_ns: self.now_ns,
                gap_ns: self.now_ns.saturating_sub(e.start_ns).max(1),
                pre_existing: true,
                kept: e.held,
                unwatched: e.unwatched,
                alive: 0,
                dismissed: false,
                ended_ns: None,
                counted: false,
                held: Vec::new(),
                overflow: 0,
                server: None,
            };
            // The first bytes may be the rest of a line: framed like the bytes after a gap.
            for stream in [&mut tree.request, &mut tree.reply] {
                stream.framer.gap(0, &mut Vec::new());
            }
            self.trees.insert(e.tree, tree);
        }
        if self.trees.contains_key(&e.tree) {
            let shown = Arc::new(Process { pid: e.tgid, start_ns: e.start_ns, exe: e.exe.clone() });
            self.put(e.tgid, Proc { tree: e.tree, birth: Birth::Worker(Base::UnknownStart), shown });
        }
    }

    /// A process left a tree; the last one ends it.
    pub(super) fn leave(&mut self, tree: u64, tgid: u32, out: &mut Vec<Output>) {
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
    pub(super) fn home(&self, tree: u64) -> Option<u64> {
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
    pub(super) fn charge(&mut self, tgid: u32, tree: u64, at: u64) -> Charge {
        // A process whose birth was lost, or that is gone while its packets still travel, may belong to
        // any of its tree's calls, or to none.
        let birth = self.procs.get(&tgid).map(|p| p.birth.clone());
        if let Some(Birth::Lineage(charge)) = birth {
            return charge;
        }
        let home = self.home(tree).and_then(|home| self.trees.get_mut(&home));
        let running = home.as_ref().is_some_and(|t| t.pre_existing);
        let window = match home.and_then(|t| t.server.as_mut()) {
            Some(server) => {
                server.acts(at);
                server.window(at)
            }
            None => {
                let base = if running { Base::UnknownStart } else { Base::Startup };
                Charge::new(Some(base), Vec::new(), Basis::Window)
            }
        };
        let lost = if running { Base::UnknownStart } else { Base::Ambient };
        match birth.unwrap_or(Birth::Worker(lost)) {
            Birth::Worker(Base::UnknownStart) => window.or(Base::UnknownStart),
            Birth::Worker(base) if !window.calls.is_empty() => window.or(base),
            _ => window,
        }
    }

    /// Tells the effect of a record, and remembers it if the kernel counts more of it.
    pub(super) fn tell(&mut self, record: &Record<'_>, charge: Charge, out: &mut Vec<Output>) {
        let h = &record.header;
        // Counts of a forgotten tree must still be known for what they are: of no interest.
        let home = self.home(h.tree).unwrap_or(h.tree);
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
        let process = match self.procs.get(&h.tgid) {
            Some(p) => Arc::clone(&p.shown),
            None => Arc::new(Process { pid: h.tgid, start_ns: 0, exe: None }),
        };
        let mut first = Announced {
            at_ns: h.at_ns,
            tree: home,
            charge,
            process,
            effect: Arc::new(effect),
            id,
            outlived: false,
        };
        first.outlived = self.say(&first, Arc::clone(&first.effect), 1, false, out);
        if h.flags & flag::AGGREGATED != 0 {
            self.announced.insert(h.id, first);
        }
    }

    /// Tells an effect, or further occurrences of it; returns whether its call had ended before.
    pub(super) fn say(
        &mut self,
        said: &Announced,
        effect: Arc<Effect>,
        count: u64,
        repeat: bool,
        out: &mut Vec<Output>,
    ) -> bool {
        let time = self.time(said.at_ns);
        let Some(tree) = self.trees.get_mut(&said.tree) else {
            return false;
        };
        let mut outlived = false;
        if let Some(server) = &mut tree.server {
            outlived = tally(server, &said.charge, &effect, count);
            if !matches!(*effect, Effect::Syscall { .. }) {
                server.ambiguity.count(&said.charge, count);
            }
            if repeat && said.charge.scope.basis == Basis::Window && !waits(&effect) {
                server.repeated(said.at_ns);
            }
        }
        if repeat {
            outlived = said.outlived;
        }
        let (shown, context) = match &tree.server {
            Some(s) => (Arc::clone(&s.shown), Arc::clone(&s.context)),
            None => Default::default(),
        };
        let line = EffectLine {
            time,
            server: shown,
            context,
            scope: Arc::clone(&said.charge.scope),
            process: Arc::clone(&said.process),
            effect,
            id: said.id,
            count,
            repeat,
            outlived,
        };
        emit(tree, Line::Effect(line), out);
        outlived
    }

    pub(super) fn on_aggregate(
        &mut self,
        id: u64,
        count: u64,
        bytes_out: u64,
        bytes_in: u64,
        out: &mut Vec<Output>,
    ) {
        let Some(first) = self.announced.get(&id).cloned() else {
            let known = self.lost.get("aggregate:unknown").copied().unwrap_or(0);
            self.on_lost("aggregate:unknown", known.saturating_add(count), out);
            return;
        };
        let effect = match &*first.effect {
            Effect::Flow { address, port, protocol, .. } => Arc::new(Effect::Flow {
                address: address.clone(),
                port: *port,
                protocol: protocol.clone(),
                bytes_out,
                bytes_in,
            }),
            _ => Arc::clone(&first.effect),
        };
        self.say(&first, effect, count, true, out);
    }
}

/// System calls by which a thread waits or wakes another. What a woken thread does is an effect of its own, so
/// how often it woke says nothing of when the work ended.
fn waits(effect: &Effect) -> bool {
    // poll, select, sched_yield, nanosleep, futex, restart_syscall, clock_nanosleep, epoll_wait, pselect6,
    // ppoll, epoll_pwait, epoll_pwait2
    const WAITING: [u32; 12] = [7, 23, 24, 35, 202, 219, 230, 232, 270, 271, 281, 441];
    matches!(effect, Effect::Syscall { abi: SyscallAbi::X86_64, nr } if WAITING.contains(nr))
}
