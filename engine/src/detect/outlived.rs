//! A process that a call started still works after the reply (ATT&CK T1543).
//!
//! Only processes *born* in the call: what the server itself does until it has settled is its call's by
//! time, and honest. To end, to fork and to wait is no work. Network and programs are high at once;
//! unix sockets medium; files low (writes medium), and only `GRACE_NS` after the reply: children tidy
//! up. When the reply came is known from the call's line, which follows it by a second at most; until
//! then files are within the grace.
//!
//! A call whose process left its session (`setsid`) has no grace: who tidies up does not do that.
//!
//! Payload counts only after the grace as well: a child that ends says goodbye on its connections.
//!
//! One hit a call and process, and another one when it gets worse. Worker pools and browsers that a
//! server starts in its first call and keeps are found too: a person permits them.

use super::{Hit, bounded::Lru, certain_call};
use crate::{
    finding::{Kind, Severity},
    output::{Basis, CallLine, Effect, EffectLine, NetOp, SyscallAbi},
};

/// Files and last payload are let pass for so long after the reply: a child that closes its database
/// and deletes its temporary files takes milliseconds, on a loaded host a second.
const GRACE_NS: u64 = 2_000_000_000;
/// Processes that are remembered, and calls whose reply is.
pub(super) const KEPT: usize = 512;

#[derive(Clone, Debug, Default)]
pub(super) struct Outlived {
    told: Lru<(u64, u32, u64), Option<Severity>, KEPT>,
    replied: Lru<u64, u64, KEPT>,
    /// Calls of which a process left its session.
    detached: Lru<u64, (), KEPT>,
    /// Highest call that was summed up.
    latest: u64,
}

impl Outlived {
    pub(super) fn held(&self) -> usize {
        self.told.len() + self.replied.len() + self.detached.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        // Replies of old calls are forgotten by intent.
        self.told.dropped
    }

    pub(super) fn call(&mut self, line: &CallLine) {
        let Some(number) = certain_call(&line.scope) else { return };
        *self.replied.entry(number) = line.time.boot_ns.saturating_add(line.duration_ns);
        self.latest = self.latest.max(number);
    }

    pub(super) fn syscall(&mut self, line: &EffectLine, abi: SyscallAbi, nr: u32) {
        const SETSID: u32 = 112;
        if let (SyscallAbi::X86_64, SETSID, Basis::Lineage, Some(number)) =
            (abi, nr, line.scope.basis, certain_call(&line.scope))
        {
            self.detached.entry(number);
        }
    }

    pub(super) fn effect(&mut self, line: &EffectLine, hits: &mut Vec<Hit>) {
        if !line.outlived || line.scope.basis != Basis::Lineage {
            return;
        }
        let Some(number) = certain_call(&line.scope) else { return };
        let Some((severity, at_once, what)) = weight(&line.effect) else { return };
        if !at_once && self.detached.get(&number).is_none() {
            let graced = match self.replied.get(&number) {
                Some(replied) => line.time.boot_ns < replied.saturating_add(GRACE_NS),
                // Its line has not come yet, or came so long ago that it is forgotten.
                None => number.saturating_add(KEPT as u64 / 2) > self.latest,
            };
            if graced {
                return;
            }
        }
        let p = &line.process;
        let told = self.told.entry((number, p.pid, p.start_ns));
        if told.is_some_and(|told| told >= severity) {
            return;
        }
        *told = Some(severity);
        let object = p.exe.clone().unwrap_or_else(|| format!("process {}", p.pid));
        hits.push(Hit {
            kind: Kind::Outlived,
            severity: Some(severity),
            object,
            why: format!("process {} was started by call {number} and {what} after the reply", p.pid),
        });
    }
}

/// How bad, whether at once, and what it is, in words.
fn weight(effect: &Effect) -> Option<(Severity, bool, &'static str)> {
    use Severity::{High, Low, Medium};
    Some(match effect {
        Effect::Exec { .. } => (High, true, "executed a program"),
        Effect::Net { op: NetOp::Connect | NetOp::Sendmsg, .. } => {
            (High, true, "contacted another host or service")
        }
        Effect::Net { op: NetOp::Listen | NetOp::Accept, .. } => (High, true, "served a port"),
        Effect::DnsQuery { .. } => (High, true, "asked for a name"),
        Effect::TlsHello { .. } => (High, true, "began a TLS handshake"),
        Effect::Flow { bytes_out: 1.., .. } => (High, false, "sent data"),
        Effect::Unix { error: 0, .. } => (Medium, false, "used a unix socket"),
        Effect::Open { write: true, .. } | Effect::Open { create: true, .. } | Effect::PathOp { .. } => {
            (Medium, false, "changed files")
        }
        Effect::Open { .. } => (Low, false, "read files"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Detectors,
            testing::{S, call, connect, exec, flow, hits, in_call, line, open, outlived},
        },
        *,
    };

    fn exit() -> Effect {
        Effect::Exit { code: Some(0), signal: None, cpu_ns: 1, peak_rss: 1 }
    }

    #[test]
    fn to_end_and_to_tidy_up_is_silent() {
        let mut d = Detectors::default();
        let mut told = hits(
            &mut d,
            [
                outlived(10 * S, 1, open("/tmp/x", true, true)),
                outlived(10 * S, 1, flow("192.0.2.1", 443, "tcp", 31)),
                outlived(10 * S, 1, Effect::Fork { child: 9 }),
                outlived(10 * S, 1, exit()),
            ],
        );
        d.call(&call(1, 8 * S, 2 * S), &mut told);
        told.extend(hits(
            &mut d,
            [outlived(11 * S, 1, open("/tmp/x", true, true)), outlived(99 * S, 1, exit())],
        ));
        assert_eq!(told, []);
    }

    #[test]
    fn who_left_its_session_has_no_grace() {
        let reads = || outlived(10 * S, 1, open("/srv/notes.db", false, false));
        let mut setsid = outlived(9 * S, 1, Effect::Syscall { abi: SyscallAbi::X86_64, nr: 112 });
        setsid.outlived = false;
        assert_eq!(hits(&mut Detectors::default(), [reads()]), []);
        let told = hits(&mut Detectors::default(), [setsid.clone(), reads()]);
        assert_eq!((told.len(), told[0].severity), (1, Some(Severity::Low)));
        // The server itself did so when it started.
        setsid.scope = in_call(1);
        assert_eq!(hits(&mut Detectors::default(), [setsid, reads()]), []);
    }

    #[test]
    fn what_the_server_itself_does_while_it_settles_is_silent() {
        let late = EffectLine { outlived: true, ..line(S, in_call(1), connect("192.0.2.1", 443)) };
        assert_eq!(hits(&mut Detectors::default(), [late]), []);
    }

    #[test]
    fn it_is_told_once_and_again_when_it_gets_worse() {
        let mut d = Detectors::default();
        let mut told = Vec::new();
        d.call(&call(1, 8 * S, 2 * S), &mut told);
        told.extend(hits(
            &mut d,
            [
                outlived(20 * S, 1, open("/home/u/a", false, false)),
                outlived(21 * S, 1, open("/home/u/b", false, false)),
                outlived(22 * S, 1, connect("192.0.2.1", 443)),
                outlived(23 * S, 1, exec("/bin/sh")),
            ],
        ));
        let severities: Vec<_> = told.iter().map(|h| (h.kind, h.severity)).collect();
        assert_eq!(
            severities,
            [(Kind::Outlived, Some(Severity::Low)), (Kind::Outlived, Some(Severity::High))]
        );
    }

    #[test]
    fn network_needs_no_grace() {
        let told = hits(&mut Detectors::default(), [outlived(S, 1, connect("192.0.2.1", 443))]);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].object, "/usr/bin/node");
    }
}
