//! One MCP server: its calls in flight, and the window that effects fall into.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    call::{Call, Closing, Stage},
    charge::{Base, CallInfo, Charge},
    input::Identity,
    mcp::{Id, Message},
    output::{Argument, Basis, CallStatus, ChannelState, Context, ServerRef},
};

/// Calls and requests in flight that are kept; beyond that the oldest counts as never answered.
const IN_FLIGHT: usize = 1024;
/// A cancelled call stays a candidate this long, unless it is answered: servers need not stop.
const CANCELLED_NS: u64 = 5_000_000_000;
/// After bytes of the request side were missed, a call may run that nobody saw begin.
const BLUR_NS: u64 = 1_000_000_000;
/// A settled call waits this long for counts and usage.
const CLOSING_NS: u64 = 1_000_000_000;
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
    pub(crate) held: VecDeque<Heard>,
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
    window: Option<(u64, Charge)>,
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
            window: None,
            proof: None,
            peak_rss: 0,
            names: HashMap::new(),
            questions: VecDeque::new(),
        }
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
        let mut calls: Vec<Arc<CallInfo>> = Vec::new();
        for call in self.calls.iter().filter(|c| c.is_candidate(now)) {
            if let Stage::Settling { until } | Stage::Cancelled { until } = call.stage {
                bound(until);
            }
            calls.push(Arc::clone(&call.info));
        }
        if self.startup && self.heard_request && self.others.is_empty() {
            self.startup = false;
        }
        let base = if calls.is_empty() {
            Some(if self.startup { Base::Startup } else { Base::Ambient })
        } else if now < self.blur_until {
            Some(Base::Ambient)
        } else {
            self.others.first().map(|o| o.base)
        };
        let charge = Charge::new(base, calls, Basis::Window);
        self.window = Some((until, charge.clone()));
        charge
    }

    /// Bytes of the request side were missed.
    pub(crate) fn blur(&mut self, now: u64) {
        self.blur_until = now.saturating_add(BLUR_NS);
        self.window = None;
    }

    /// A message that the client sent. Returns a call that fell out of the bounded set.
    pub(crate) fn on_request(&mut self, heard: Heard, settle_ns: u64) -> Option<Call> {
        let Heard { message: m, at, tgid, cpu_ns } = heard;
        self.window = None;
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
                    peak_rss: 0,
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

    /// A message that the server sent.
    pub(crate) fn on_reply(&mut self, m: &Message, at: u64, settle_ns: u64) {
        if m.method.is_some() {
            // A notification, or a request to the client.
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
            call.stage = Stage::Settling { until: at.saturating_add(settle_ns) };
        } else if let Some(other) = self.others.iter_mut().find(|o| o.id == *id && o.until == u64::MAX) {
            other.until = at.saturating_add(settle_ns);
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
            if self.calls[i].stage != Stage::InFlight && !self.calls[i].is_candidate(now) {
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
    pub(crate) fn measured(&mut self, cpu_ns: u64, peak_rss: u64) {
        for n in self.unmeasured.drain(..) {
            if let Some(c) = self.closing.get_mut(&n) {
                c.measured = true;
                c.call.peak_rss = peak_rss;
                c.call.cpu_end_ns.get_or_insert(cpu_ns);
            }
        }
    }

    /// Takes the next call that is complete, or has waited long enough.
    pub(crate) fn complete(&mut self, now: u64) -> Option<Call> {
        let first = self.closing.first_entry()?;
        let c = first.get();
        let late = now >= c.settled_ns.saturating_add(CLOSING_NS);
        (c.drained && c.measured || late).then(|| first.remove().call)
    }

    /// Ends all calls that still wait: the server is gone.
    pub(crate) fn abandon(&mut self, now: u64) {
        self.window = None;
        self.others.clear();
        for call in &mut self.calls {
            if matches!(call.stage, Stage::InFlight | Stage::Cancelled { .. } | Stage::Settling { .. }) {
                if call.stage == Stage::InFlight {
                    call.ended_ns = now;
                }
                call.stage = Stage::Settling { until: now };
            }
        }
    }

    /// A line that the client wrote into a channel under proof. Returns a held message that it proves.
    pub(crate) fn prove(&mut self, line: [u8; 16]) -> Option<Heard> {
        let proof = self.proof.as_mut()?;
        if let Some(at) = proof.held.iter().position(|h| h.message.line_hash == line) {
            return proof.held.remove(at);
        }
        proof.written.push_back(line);
        if proof.written.len() > PROOFS {
            proof.written.pop_front();
        }
        None
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
        proof.held.push_back(heard);
        if proof.held.len() > PROOFS {
            proof.held.pop_front();
        }
        None
    }
}

/// An id as JSON.
fn id_value(id: &Id) -> serde_json::Value {
    match id {
        Id::Number(n) => (*n).into(),
        Id::Null => serde_json::Value::Null,
        other => other.to_string().into(),
    }
}
