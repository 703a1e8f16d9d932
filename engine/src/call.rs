//! One call from request to summary.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::{
    charge::CallInfo,
    input::Usage,
    mcp::Id,
    output::{
        Argument, Basis, CallLine, CallStatus, Certainty, Context, Effect, Scope, ScopeKind, ServerRef,
        SyscallAbi, SyscallCount, Time,
    },
};

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Asked, no reply yet.
    InFlight,
    /// Cancelled by the client; the server may go on working, so it stays a candidate until the
    /// reply or this time.
    Cancelled { until: u64 },
    /// Replied: a candidate until the settling time has passed, the learned one of its tool; summed up
    /// when the configured one has.
    Settling { until: u64, configured: u64 },
}

/// A settled call that waits for the kernel's counts and the process's usage.
#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) call: Call,
    pub(crate) settled_ns: u64,
    pub(crate) drained: bool,
    pub(crate) measured: bool,
}

/// What was done in a call, as far as it is charged with certainty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) files: u64,
    pub(crate) execs: u64,
    pub(crate) connects: u64,
    pub(crate) children: u64,
    pub(crate) effects: u64,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) child_cpu_ns: u64,
    pub(crate) child_peak_rss: u64,
    pub(crate) syscalls: BTreeMap<(SyscallAbi, u32), u64>,
}

impl Tally {
    /// Counts `n` occurrences of an effect.
    pub(crate) fn add(&mut self, effect: &Effect, n: u64) {
        match effect {
            Effect::Syscall { abi, nr } => {
                let count = self.syscalls.entry((*abi, *nr)).or_default();
                *count = count.saturating_add(n);
                return;
            }
            Effect::Open { .. } => self.files = self.files.saturating_add(n),
            Effect::Exec { .. } => self.execs = self.execs.saturating_add(n),
            Effect::Net { op: crate::output::NetOp::Connect | crate::output::NetOp::Sendmsg, .. } => {
                self.connects = self.connects.saturating_add(n)
            }
            Effect::Fork { .. } => self.children = self.children.saturating_add(n),
            Effect::Flow { bytes_out, bytes_in, .. } => {
                self.bytes_out = self.bytes_out.saturating_add(*bytes_out);
                self.bytes_in = self.bytes_in.saturating_add(*bytes_in);
            }
            Effect::Exit { cpu_ns, peak_rss, .. } => {
                self.child_cpu_ns = self.child_cpu_ns.saturating_add(*cpu_ns);
                self.child_peak_rss = self.child_peak_rss.max(*peak_rss);
            }
            _ => {}
        }
        self.effects = self.effects.saturating_add(n);
    }
}

/// A call that has not been summed up yet.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) info: Arc<CallInfo>,
    pub(crate) id: Id,
    pub(crate) stage: Stage,
    pub(crate) began_ns: u64,
    pub(crate) ended_ns: u64,
    pub(crate) status: CallStatus,
    pub(crate) request_bytes: u64,
    pub(crate) reply_bytes: u64,
    pub(crate) overlapped: bool,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) tally: Tally,
    /// Process that read the request.
    pub(crate) reader: u32,
    /// Its CPU time then, and when the call had settled.
    pub(crate) cpu_start_ns: u64,
    pub(crate) cpu_end_ns: Option<u64>,
    /// Of that process, when the call had settled.
    pub(crate) usage: Usage,
}

impl Call {
    /// Its CPU time ends here, unless it did before.
    pub(crate) fn end_cpu(&mut self, tgid: u32, cpu_ns: u64) {
        if self.reader == tgid {
            self.cpu_end_ns.get_or_insert(cpu_ns);
        }
    }

    /// May an effect at this time belong to it?
    pub(crate) fn is_candidate(&self, now: u64) -> bool {
        match self.stage {
            Stage::InFlight => true,
            Stage::Cancelled { until } | Stage::Settling { until, .. } => now < until,
        }
    }

    /// The same, had nothing been learned of its tool.
    pub(crate) fn was_candidate(&self, now: u64) -> bool {
        match self.stage {
            Stage::Settling { configured, .. } => now < configured,
            _ => self.is_candidate(now),
        }
    }

    /// The line that sums it up.
    pub(crate) fn summary(self, time: Time, server: Arc<ServerRef>, context: Arc<Context>) -> CallLine {
        let t = self.tally;
        let own = self.cpu_end_ns.map_or(0, |end| end.saturating_sub(self.cpu_start_ns));
        let scope = Scope {
            kind: ScopeKind::Call,
            tool: Some(self.info.tool.to_string()),
            call: Some(self.info.call_ref()),
            certainty: Certainty::Certain,
            basis: Basis::Window,
            candidates: Vec::new(),
        };
        CallLine {
            time,
            server,
            context,
            scope: Arc::new(scope),
            status: self.status,
            duration_ns: self.ended_ns.saturating_sub(self.began_ns),
            cpu_ns: own.saturating_add(t.child_cpu_ns),
            peak_rss: self.usage.peak_rss.max(t.child_peak_rss),
            threads: self.usage.threads,
            fd_slots: self.usage.fd_slots,
            bytes_out: t.bytes_out,
            bytes_in: t.bytes_in,
            files: t.files,
            execs: t.execs,
            connects: t.connects,
            children: t.children,
            effects: t.effects,
            ambiguous_effects: self.info.ambiguous.load(Relaxed),
            request_bytes: self.request_bytes,
            reply_bytes: self.reply_bytes,
            overlapped: self.overlapped,
            arguments: self.arguments,
            syscalls: t
                .syscalls
                .into_iter()
                .map(|((abi, nr), count)| SyscallCount { abi, nr, count })
                .collect(),
        }
    }
}
