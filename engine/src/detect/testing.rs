//! Hand-made lines for the detectors' tests.

use std::sync::Arc;

use super::{Detectors, Hit};
use crate::output::{
    Basis, CallLine, CallRef, CallStatus, Certainty, ChannelState, Effect, EffectLine, LostLine, NetOp,
    Process, Scope, ScopeKind, ServerEvent, ServerLine, Source, Startup, Time,
};

pub(super) const S: u64 = 1_000_000_000;
pub(super) const MINUTE: u64 = 60 * S;

pub(super) fn time(boot_ns: u64) -> Time {
    Time { utc: boot_ns as i64, boot_ns }
}

fn scope(kind: ScopeKind, call: Option<u64>, basis: Basis) -> Arc<Scope> {
    Arc::new(Scope {
        kind,
        tool: call.map(|_| "tool".into()),
        call: call.map(|number| CallRef { number, request_id: number.into() }),
        certainty: Certainty::Certain,
        basis,
        candidates: Vec::new(),
    })
}

pub(super) fn ambient() -> Arc<Scope> {
    scope(ScopeKind::Ambient, None, Basis::Window)
}

pub(super) fn in_call(number: u64) -> Arc<Scope> {
    scope(ScopeKind::Call, Some(number), Basis::Window)
}

pub(super) fn born_in(number: u64) -> Arc<Scope> {
    scope(ScopeKind::Call, Some(number), Basis::Lineage)
}

pub(super) fn line(at: u64, scope: Arc<Scope>, effect: Effect) -> EffectLine {
    EffectLine {
        time: time(at),
        server: Arc::default(),
        context: Arc::default(),
        scope,
        process: Arc::new(Process { pid: 42, start_ns: 7, exe: Some("/usr/bin/node".into()) }),
        effect: Arc::new(effect),
        id: at,
        count: 1,
        repeat: false,
        outlived: false,
    }
}

pub(super) fn outlived(at: u64, number: u64, effect: Effect) -> EffectLine {
    EffectLine { outlived: true, ..line(at, born_in(number), effect) }
}

/// `count` more of an earlier line.
pub(super) fn more(first: &EffectLine, count: u64) -> EffectLine {
    EffectLine { count, repeat: true, ..first.clone() }
}

pub(super) fn call(number: u64, began: u64, duration_ns: u64) -> CallLine {
    CallLine {
        time: time(began),
        server: Arc::default(),
        context: Arc::default(),
        scope: in_call(number),
        status: CallStatus::Ok,
        duration_ns,
        cpu_ns: 0,
        peak_rss: 0,
        threads: 0,
        fd_slots: 0,
        bytes_out: 0,
        bytes_in: 0,
        files: 0,
        execs: 0,
        connects: 0,
        children: 0,
        effects: 0,
        ambiguous_effects: 0,
        request_bytes: 0,
        reply_bytes: 0,
        overlapped: false,
        arguments: Vec::new(),
        syscalls: Vec::new(),
    }
}

pub(super) fn server(event: ServerEvent, startup: Startup) -> ServerLine {
    ServerLine {
        time: time(0),
        server: Arc::default(),
        context: Arc::default(),
        event,
        detail: None,
        pid: 1,
        root_pid: 1,
        argv: Vec::new(),
        name_source: crate::input::NameSource::default(),
        package: None,
        version: None,
        entry: None,
        digest: None,
        protocol: None,
        startup,
        channel: ChannelState::Followed,
    }
}

pub(super) fn lost(at: u64, cause: &str, count: u64) -> LostLine {
    LostLine { time: time(at), cause: cause.into(), count, total: count }
}

pub(super) fn net(op: NetOp, address: &str, port: u16, protocol: &str, name: Option<&str>) -> Effect {
    Effect::Net {
        op,
        address: address.into(),
        port,
        protocol: protocol.into(),
        mapped: false,
        name: name.map(Into::into),
        source: Source::Kernel,
    }
}

pub(super) fn connect(address: &str, port: u16) -> Effect {
    net(NetOp::Connect, address, port, "tcp", None)
}

pub(super) fn flow(address: &str, port: u16, protocol: &str, bytes_out: u64) -> Effect {
    Effect::Flow { address: address.into(), port, protocol: protocol.into(), bytes_out, bytes_in: 0 }
}

pub(super) fn query(name: &str, record: &str) -> Effect {
    Effect::DnsQuery { name: name.into(), record: record.into(), resolver: "127.0.0.53".into(), port: 53 }
}

pub(super) fn answer(name: &str, addresses: &[&str]) -> Effect {
    Effect::DnsAnswer {
        name: name.into(),
        addresses: addresses.iter().map(|&a| a.into()).collect(),
        rcode: 0,
        resolver: "127.0.0.53".into(),
    }
}

pub(super) fn hello(sni: &str, address: &str) -> Effect {
    Effect::TlsHello { sni: Some(sni.into()), address: address.into(), port: 443 }
}

pub(super) fn unix(path: &str, error: u32) -> Effect {
    Effect::Unix { op: NetOp::Connect, path: path.into(), error, source: Source::Kernel }
}

pub(super) fn open(path: &str, write: bool, create: bool) -> Effect {
    Effect::Open {
        path: path.into(),
        truncated: false,
        source: Source::Kernel,
        read: !write,
        write,
        create,
        truncate: false,
        directory: false,
        deleted: false,
    }
}

pub(super) fn exec(path: &str) -> Effect {
    Effect::Exec {
        path: path.into(),
        truncated: false,
        source: Source::Kernel,
        argv: vec![path.into()],
        argv_truncated: false,
        cwd: "/".into(),
        script: None,
        memfd: false,
        deleted: false,
        env: Vec::new(),
        env_truncated: false,
    }
}

/// What the lines give together.
pub(super) fn hits(detectors: &mut Detectors, lines: impl IntoIterator<Item = EffectLine>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for line in lines {
        detectors.effect(&line, &mut hits);
    }
    hits
}
