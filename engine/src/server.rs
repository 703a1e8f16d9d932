//! One MCP server: its calls in flight, and the window that effects fall into.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    call::{Call, Closing, Stage},
    charge::{Base, CallInfo, Charge, is_open},
    input::{Identity, Usage},
    mcp::{Id, Message},
    output::{Argument, Basis, CallStatus, Certainty, ChannelState, Context, ServerRef},
};

/// Calls and requests in flight that are kept; beyond that the oldest counts as never answered.
const IN_FLIGHT: usize = 1024;
/// A cancelled call stays a candidate this long, unless it is answered: servers need not stop.
const CANCELLED_NS: u64 = 5_000_000_000;
/// After bytes of the request side were missed, a call may run that nobody saw begin.
const BLUR_NS: u64 = 1_000_000_000;
/// A settled call waits this long for counts and usage.
const CLOSING_NS: u64 = 1_000_000_000;
/// Replies that wait for the kernel's counts, to be learned from.
const WATCHES: usize = 64;
/// Lines of client writes remembered as proof.
const PROOFS: usize = 4096;

/// A request other than `tools/call`: work on its behalf is not a tool's.
#[derive(Debug)]
struct Other {
    id: Id,
    base: Base,
    /// Settled at this time; `u64::MAX` while unanswered.
    until: u64,
}

/// What a channel needs into which its own tree can write: a line opens a call only when the client
/// provably wrote it.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// Lines that the client wrote and nobody has read yet.
    written: VecDeque<[u8; 16]>,
    /// Lines that the server read and nobody is known to have written.
    held: VecDeque<Held>,
}

/// A line that waits for its proof. What the client writes is seen when the system call ends, which on a busy machine may
/// be after the server has read it, worked and replied.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) heard: Heard,
    /// The reply that came meanwhile, and when.
    pub(crate) reply: Option<(Message, u64)>,
}

/// A reply with nothing else running: what happens after it is its tool's.
#[derive(Debug)]
struct Watch {
    number: u64,
    tool: Arc<str>,
    replied: u64,
    /// The learned time, if that is in use.
    learned: Option<u64>,
    until: u64,
    /// The latest effect, ns after the reply.
    latest: u64,
}

impl Watch {
    /// What was learned is not to be relied on once it was wrong; the judge hears of it when the call is
    /// summed up.
    fn distrust(&self, settling: &mut HashMap<Arc<str>, u64>) {
        if self.learned.is_some_and(|learned| self.latest >= learned) {
            settling.remove(&self.tool);
        }
    }
}

/// What was seen after a reply with nothing else running.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) tool: Arc<str>,
    pub(crate) latest_ns: u64,
}

/// Effects of a server, and how many of them were ambiguous: now, and had no settling time been learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ambiguity {
    pub(crate) effects: u64,
    pub(crate) before: u64,
    pub(crate) after: u64,
}

impl Ambiguity {
    pub(crate) fn add(&mut self, other: Self) {
        self.effects = self.effects.saturating_add(other.effects);
        self.before = self.before.saturating_add(other.before);
        self.after = self.after.saturating_add(other.after);
    }

    pub(crate) fn count(&mut self, charge: &Charge, n: u64) {
        self.effects = self.effects.saturating_add(n);
        if charge.scope.certainty == Certainty::Ambiguous {
            self.after = self.after.saturating_add(n);
        }
        if charge.ambiguous_before {
            self.before = self.before.saturating_add(n);
        }
    }
}

/// A message and the circumstances in which it was read.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) message: Message,
    pub(crate) at: u64,
    pub(crate) tgid: u32,
    pub(crate) cpu_ns: u64,
}

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) shown: Arc<ServerRef>,
    pub(crate) context: Arc<Context>,
    pub(crate) identity: Option<Identity>,
    pub(crate) found_ns: u64,
    /// Lines go out at once; before, they wait for the identity.
    pub(crate) announced: bool,
    pub(crate) reader: u32,
    pub(crate) protocol: Option<String>,
    pub(crate) claimed_version: Option<String>,
    pub(crate) channel: ChannelState,
    /// Calls that effects may still belong to by time.
    pub(crate) calls: Vec<Call>,
    /// Settled calls by number, until they are summed up.
    pub(crate) closing: BTreeMap<u64, Closing>,
    /// Those of `closing` that wait for a measurement, in the order in which they settled, which
    /// need not be that of their numbers.
    unmeasured: Vec<u64>,
    next_number: u64,
    others: Vec<Other>,
    startup: bool,
    heard_request: bool,
    blur_until: u64,
    /// Until then a request may be worked on that was in flight when the running server was found.
    unseen_until: u64,
    /// It ran already when it was found.
    was_running: bool,
    window: Option<(u64, Charge)>,
    /// Learned settling times, by tool: after so long, a call that was replied to is no possibility beside
    /// others any more. Alone it is one until the configured time has passed: nothing would be gained, and
    /// what comes late after all would be taken for work that no call asked for.
    ///
    /// The kernel does not know these times: its epochs end when the *configured* time has passed, or with a
    /// message. Counts are not wrongly certain for that: within an epoch no message comes, so the set of
    /// possibilities only shrinks, earlier than by the configured time but never to one that it did not hold.
    /// What is counted under a first record is charged to that record's set, which holds all that the count
    /// may belong to. But such a count does not say when it was: for what is learned it counts as one at the
    /// very end of the epoch ([`Server::repeated`]).
    settling: HashMap<Arc<str>, u64>,
    /// Replies that are learned from, until they are summed up; the last one may be under way.
    watches: VecDeque<Watch>,
    pub(crate) ambiguity: Ambiguity,
    pub(crate) proof: Option<Proof>,
    /// Highest resident set known of the reader.
    pub(crate) peak_rss: u64,
    /// Names that the server's own questions to a resolver were answered with.
    pub(crate) names: HashMap<IpAddr, String>,
    pub(crate) questions: VecDeque<(u64, u16, [u8; 16])>,
}

impl Server {
    pub(crate) fn new(shown: ServerRef, context: Context, reader: u32, now: u64) -> Self {
        Self {
            shown: Arc::new(shown),
            context: Arc::new(context),
            identity: None,
            found_ns: now,
            announced: false,
            reader,
            protocol: None,
            claimed_version: None,
            channel: ChannelState::Followed,
            calls: Vec::new(),
            closing: BTreeMap::new(),
            unmeasured: Vec::new(),
            next_number: 1,
            others: Vec::new(),
            startup: true,
            heard_request: false,
            blur_until: 0,
            unseen_until: 0,
            was_running: false,
            window: None,
            settling: HashMap::new(),
            watches: VecDeque::new(),
            ambiguity: Ambiguity::default(),
            proof: None,
            peak_rss: 0,
            names: HashMap::new(),
            questions: VecDeque::new(),
        }
    }

    /// It ran before it was found: until this time, requests may be in flight that nobody saw.
    pub(crate) fn was_running(&mut self, unseen_until: u64) {
        self.was_running = true;
        self.startup = false;
        self.unseen_until = unseen_until;
        self.window = None;
    }

    /// The settling times that were learned.
    pub(crate) fn settle_by(&mut self, learned: HashMap<Arc<str>, u64>) {
        self.settling = learned;
    }

    /// A settling time was learned for a tool, or does not hold any more.
    pub(crate) fn set_settling(&mut self, tool: Arc<str>, ns: Option<u64>) {
        match ns {
            Some(ns) => self.settling.insert(tool, ns),
            None => self.settling.remove(&tool),
        };
    }

    /// Something happens that is charged by time.
    pub(crate) fn acts(&mut self, now: u64) {
        let Some(w) = self.watches.back_mut().filter(|w| w.replied <= now && now < w.until) else {
            return;
        };
        w.latest = w.latest.max((now - w.replied).max(1));
        w.distrust(&mut self.settling);
    }

    /// Further occurrences of an effect are told, from some time between it and the end of its epoch.
    pub(crate) fn repeated(&mut self, first_ns: u64) {
        let watch = self.watches.iter_mut().rev().find(|w| w.replied <= first_ns && first_ns < w.until);
        if let Some(w) = watch {
            w.latest = w.until - w.replied;
            w.distrust(&mut self.settling);
        }
    }

    /// Takes what was seen after the reply of a call that is summed up.
    fn observed(&mut self, number: u64, drained: bool) -> Option<Observed> {
        let at = self.watches.iter().position(|w| w.number == number)?;
        let w = self.watches.remove(at).filter(|_| drained)?;
        Some(Observed { tool: w.tool, latest_ns: w.latest })
    }

    /// What an effect at this time may belong to.
    pub(crate) fn window(&mut self, now: u64) -> Charge {
        if let Some((until, charge)) = &self.window
            && now < *until
        {
            return charge.clone();
        }
        let mut until = u64::MAX;
        let mut bound = |t: u64| {
            if t > now {
                until = until.min(t);
            }
        };
        self.others.retain(|o| now < o.until);
        self.others.iter().for_each(|o| bound(o.until));
        bound(self.blur_until);
        bound(self.unseen_until);
        let mut calls: Vec<Arc<CallInfo>> = Vec::new();
        for call in self.calls.iter().filter(|c| c.is_candidate(now)) {
            if let Stage::Settling { until, .. } | Stage::Cancelled { until } = call.stage {
                bound(until);
            }
            calls.push(Arc::clone(&call.info));
        }
        let mut before: Vec<&Arc<CallInfo>> = Vec::new();
        for call in self.calls.iter().filter(|c| c.was_candidate(now)) {
            if let Stage::Settling { configured, .. } = call.stage {
                bound(configured);
            }
            before.push(&call.info);
        }
        if calls.is_empty() && self.others.is_empty() {
            calls.extend(before.iter().map(|call| Arc::clone(call)));
        }
        if self.startup && self.heard_request && self.others.is_empty() {
            self.startup = false;
        }
        let base = |alone: bool| {
            if now < self.unseen_until {
                Some(Base::UnknownStart)
            } else if alone {
                Some(if self.startup { Base::Startup } else { Base::Ambient })
            } else if now < self.blur_until {
                Some(Base::Ambient)
            } else {
                self.others.first().map(|o| o.base)
            }
        };
        let ambiguous_before = is_open(base(before.is_empty()), &before);
        let charge = Charge { ambiguous_before, ..Charge::new(base(calls.is_empty()), calls, Basis::Window) };
        self.window = Some((until, charge.clone()));
        charge
    }

    /// Bytes of the request side were missed.
    pub(crate) fn blur(&mut self, now: u64) {
        self.unwatch(now);
        self.blur_until = now.saturating_add(BLUR_NS);
        self.window = None;
    }

    /// A message that the client sent. Returns a call that fell out of the bounded set.
    pub(crate) fn on_request(&mut self, heard: Heard, settle_ns: u64) -> Option<Call> {
        let Heard { message: m, at, tgid, cpu_ns } = heard;
        self.window = None;
        self.unwatch(at);
        if self.was_running && !self.heard_request && m.method.as_deref() == Some("initialize") {
            // The first message of a session: nothing was in flight before.
            self.unseen_until = 0;
            self.startup = true;
        }
        self.heard_request |= m.method.is_some();
        if self.protocol.is_none() {
            self.protocol = m.protocol.as_deref().map(Into::into);
        }
        let method = m.method.as_deref()?;
        match (method, m.id) {
            ("tools/call", Some(id)) => {
                self.startup = false;
                let info =
                    CallInfo::new(self.next_number, m.tool.as_deref().unwrap_or_default(), id_value(&id));
                self.next_number += 1;
                let mut overlapped = false;
                for other in &mut self.calls {
                    if matches!(other.stage, Stage::InFlight | Stage::Cancelled { .. }) {
                        other.overlapped = true;
                        overlapped = true;
                    }
                }
                let arguments = m
                    .arguments
                    .into_iter()
                    .map(|a| Argument {
                        name: a.name.into(),
                        bytes: a.bytes,
                        hash: a.digest.iter().map(|b| format!("{b:02x}")).collect(),
                        value: a.value.map(Into::into),
                    })
                    .collect();
                self.calls.push(Call {
                    info: Arc::new(info),
                    id,
                    stage: Stage::InFlight,
                    began_ns: at,
                    ended_ns: at,
                    status: CallStatus::NoReply,
                    request_bytes: m.bytes,
                    reply_bytes: 0,
                    overlapped,
                    arguments,
                    tally: crate::call::Tally::default(),
                    reader: tgid,
                    cpu_start_ns: cpu_ns,
                    cpu_end_ns: None,
                    usage: Usage::default(),
                });
                (self.calls.len() > IN_FLIGHT).then(|| self.calls.remove(0))
            }
            ("ping", Some(_)) => None,
            (_, Some(id)) => {
                let base = if self.startup { Base::Startup } else { Base::Ambient };
                self.others.push(Other { id, base, until: u64::MAX });
                if self.others.len() > IN_FLIGHT {
                    self.others.remove(0);
                }
                None
            }
            ("notifications/cancelled", None) => {
                let id = m.cancelled?;
                if let Some(call) = self.calls.iter_mut().find(|c| c.id == id && c.stage == Stage::InFlight) {
                    call.stage = Stage::Cancelled { until: at.saturating_add(CANCELLED_NS) };
                    call.status = CallStatus::Cancelled;
                    call.ended_ns = at;
                } else if let Some(other) = self.others.iter_mut().find(|o| o.id == id) {
                    other.until = at.saturating_add(settle_ns);
                }
                None
            }
            _ => None,
        }
    }

    /// Calls in flight: see [`crate::Engine::in_flight`].
    pub(crate) fn in_flight(&self) -> Vec<(u64, Arc<str>)> {
        let waiting = self.calls.iter().filter(|c| c.stage == Stage::InFlight);
        waiting.filter_map(|c| Some((kernel_hash(&c.id)?, Arc::clone(&c.info.tool)))).collect()
    }

    /// A message that the server sent.
    pub(crate) fn on_reply(&mut self, m: &Message, at: u64, settle_ns: u64) {
        if m.method.is_some() {
            // A notification, or a request to the client: it still works.
            self.acts(at);
            return;
        }
        let Some(id) = &m.id else { return };
        if self.protocol.is_none() || m.server_name.is_some() {
            if let Some(p) = m.protocol.as_deref() {
                self.protocol = Some(p.into());
            }
            if let Some(v) = m.server_version.as_deref() {
                self.claimed_version = Some(v.into());
            }
        }
        self.window = None;
        let waiting =
            |c: &&mut Call| c.id == *id && matches!(c.stage, Stage::InFlight | Stage::Cancelled { .. });
        if let Some(call) = self.calls.iter_mut().find(waiting) {
            if call.stage == Stage::InFlight {
                call.ended_ns = at;
                call.status = match (m.has_error, m.is_error) {
                    (true, _) => CallStatus::Error,
                    (false, true) => CallStatus::ToolError,
                    (false, false) => CallStatus::Ok,
                };
            }
            call.reply_bytes = m.bytes;
            let configured = at.saturating_add(settle_ns);
            let cancelled = call.stage != Stage::InFlight;
            let learned =
                self.settling.get(&call.info.tool).copied().filter(|ns| *ns < settle_ns && !cancelled);
            let until = learned.map_or(configured, |ns| at.saturating_add(ns));
            call.stage = Stage::Settling { until, configured };
            let (number, tool) = (call.info.number, Arc::clone(&call.info.tool));
            self.unwatch(at);
            let alone = self.calls.iter().filter(|c| c.was_candidate(at)).count() == 1
                && self.others.iter().all(|o| o.until <= at)
                && at >= self.blur_until.max(self.unseen_until);
            if alone && !cancelled {
                if self.watches.len() >= WATCHES {
                    self.watches.pop_front();
                }
                let watch = Watch { number, tool, replied: at, learned, until: configured, latest: 0 };
                self.watches.push_back(watch);
            }
        } else if let Some(other) = self.others.iter_mut().find(|o| o.id == *id && o.until == u64::MAX) {
            other.until = at.saturating_add(settle_ns);
        } else if let Some(held) = self.unproved(id) {
            held.reply = Some((m.clone(), at));
        } else if self.was_running {
            // Nobody saw it asked: what was done for it settles.
            self.unseen_until = self.unseen_until.max(at.saturating_add(settle_ns));
        }
    }

    /// Something else may work from now on: what was seen after the last reply so far says nothing.
    fn unwatch(&mut self, now: u64) {
        if self.watches.back().is_some_and(|w| now < w.until) {
            self.watches.pop_back();
        }
    }

    /// A call that is not summed up yet, by number.
    pub(crate) fn find(&mut self, number: u64) -> Option<(&mut Call, bool)> {
        if let Some(c) = self.closing.get_mut(&number) {
            return Some((&mut c.call, true));
        }
        let call = self.calls.iter_mut().find(|c| c.info.number == number)?;
        let replied = matches!(call.stage, Stage::Settling { .. });
        Some((call, replied))
    }

    /// Moves calls that have settled on. Returns the processes to be measured for them.
    pub(crate) fn settle(&mut self, now: u64) -> Vec<u32> {
        let mut readers = Vec::new();
        let mut i = 0;
        while i < self.calls.len() {
            if self.calls[i].stage != Stage::InFlight && !self.calls[i].was_candidate(now) {
                let call = self.calls.remove(i);
                if !readers.contains(&call.reader) {
                    readers.push(call.reader);
                }
                let closing = Closing { settled_ns: now, drained: false, measured: false, call };
                self.unmeasured.push(closing.call.info.number);
                self.closing.insert(closing.call.info.number, closing);
            } else {
                i += 1;
            }
        }
        readers
    }

    /// The reader used this much CPU time until now, all of it before the message that it reads now:
    /// what is settling or settled ends here.
    pub(crate) fn end_cpu(&mut self, tgid: u32, cpu_ns: u64) {
        for call in self.calls.iter_mut().filter(|c| matches!(c.stage, Stage::Settling { .. })) {
            call.end_cpu(tgid, cpu_ns);
        }
        // One that waited too long has been told without its figures.
        self.unmeasured.retain(|n| {
            let Some(c) = self.closing.get_mut(n) else { return false };
            c.call.end_cpu(tgid, cpu_ns);
            true
        });
    }

    /// The reader was measured: what has settled has its figures.
    pub(crate) fn measured(&mut self, usage: Usage) {
        for n in self.unmeasured.drain(..) {
            if let Some(c) = self.closing.get_mut(&n) {
                c.measured = true;
                c.call.cpu_end_ns.get_or_insert(usage.cpu_ns);
                c.call.usage = usage;
            }
        }
    }

    /// Takes the next call that is complete, or has waited long enough; and what was seen after its reply.
    pub(crate) fn complete(&mut self, now: u64) -> Option<(Call, Option<Observed>)> {
        let first = self.closing.first_entry()?;
        let c = first.get();
        let late = now >= c.settled_ns.saturating_add(CLOSING_NS);
        if !(c.drained && c.measured || late) {
            return None;
        }
        let c = first.remove();
        let observed = self.observed(c.call.info.number, c.drained);
        Some((c.call, observed))
    }

    /// Ends all calls that still wait: the server is gone.
    pub(crate) fn abandon(&mut self, now: u64) {
        self.window = None;
        self.unwatch(now);
        self.others.clear();
        for call in &mut self.calls {
            if matches!(call.stage, Stage::InFlight | Stage::Cancelled { .. } | Stage::Settling { .. }) {
                if call.stage == Stage::InFlight {
                    call.ended_ns = now;
                }
                call.stage = Stage::Settling { until: now, configured: now };
            }
        }
    }

    /// A line that the client wrote into a channel under proof. Returns a held message that it proves.
    pub(crate) fn prove(&mut self, line: [u8; 16]) -> Option<Held> {
        let proof = self.proof.as_mut()?;
        if let Some(at) = proof.held.iter().position(|h| h.heard.message.line_hash == line) {
            return proof.held.remove(at);
        }
        proof.written.push_back(line);
        if proof.written.len() > PROOFS {
            proof.written.pop_front();
        }
        None
    }

    /// The request of this id that waits for its proof and has no reply yet.
    fn unproved(&mut self, id: &Id) -> Option<&mut Held> {
        let held = &mut self.proof.as_mut()?.held;
        held.iter_mut().find(|h| h.reply.is_none() && h.heard.message.id.as_ref() == Some(id))
    }

    /// Takes a message only if it is proved; keeps it for later otherwise.
    pub(crate) fn check(&mut self, heard: Heard) -> Option<Heard> {
        let Some(proof) = &mut self.proof else {
            return Some(heard);
        };
        if let Some(at) = proof.written.iter().position(|l| *l == heard.message.line_hash) {
            proof.written.remove(at);
            return Some(heard);
        }
        proof.held.push_back(Held { heard, reply: None });
        if proof.held.len() > PROOFS {
            proof.held.pop_front();
        }
        None
    }
}

/// An id as JSON.
/// Hash of an id as the kernel programs have it: of what is written. `None`: it is not kept, or has escapes that they do not
/// understand.
fn kernel_hash(id: &Id) -> Option<u64> {
    match id {
        Id::Number(n) => Some(abi::scan::id_hash(n.to_string().as_bytes(), false)),
        Id::Raw(text) => Some(abi::scan::id_hash(text.as_bytes(), false)),
        Id::Text(text) => Some(abi::scan::id_hash(text.as_bytes(), true)),
        Id::Hash(_) | Id::Null => None,
    }
}

fn id_value(id: &Id) -> serde_json::Value {
    match id {
        Id::Number(n) => (*n).into(),
        Id::Null => serde_json::Value::Null,
        other => other.to_string().into(),
    }
}
