//! Events of every kind, for tests: those of the formats, and those that hand them to validators.

use std::sync::Arc;

use engine::{
    finding::{Evidence, Finding, Kind, Origin, Seen, Severity},
    output::{
        Basis, CallRef, Candidate, Certainty, Container, Context, Effect, EffectLine, NetOp, PathOpKind,
        Process, Scope, ScopeKind, ServerRef, Source, SyscallAbi, Time,
    },
    policy::Family,
    respond::{Action, Cause, ResponseLine, Spared, Verdict},
};
use serde_json::{Value, json};

/// What must not be told, by what is redacted. Each stands in every event that can hold it.
pub(crate) const PATH: &str = "/home/alice/.ssh/id_rsa";
pub(crate) const PROGRAM: &str = "/opt/wombat/bin/curl";
pub(crate) const ADDRESS: &str = "203.0.113.77";
pub(crate) const HOST: &str = "drop.evil.example";
pub(crate) const WORD: &str = "quokka-7731";
pub(crate) const UID: u32 = 48_213;
pub(crate) fn time(n: u64) -> Time {
    Time { utc: 1_795_324_380_123_456_789 + n as i64, boot_ns: 8_406_151_589_031 + n }
}

/// Every effect there is.
pub(crate) fn effects() -> Vec<Effect> {
    let path = || PATH.to_owned();
    let net = |op| Effect::Net {
        op,
        address: ADDRESS.into(),
        port: 443,
        protocol: "tcp".into(),
        mapped: false,
        name: Some(HOST.into()),
        source: Source::Kernel,
    };
    let denied = |family, op: &str, object: String, dry_run| Effect::Denied {
        family,
        op: op.into(),
        object,
        dry_run,
        live: 1,
        held: 0,
    };
    let ops = [PathOpKind::Unlink, PathOpKind::Rename, PathOpKind::Chown, PathOpKind::Chmod];
    let mut all = vec![
        Effect::Exec {
            path: PROGRAM.into(),
            truncated: false,
            source: Source::Kernel,
            argv: vec!["curl".into(), WORD.into(), PATH.into(), format!("https://{HOST}/")],
            argv_truncated: false,
            cwd: "/home/alice/work".into(),
            script: Some(PATH.into()),
            memfd: false,
            deleted: false,
            env: vec!["LD_PRELOAD".into()],
            env_truncated: false,
        },
        Effect::Fork { child: 4243 },
        Effect::Exit { code: Some(0), signal: None, cpu_ns: 5, peak_rss: 6 },
        Effect::Open {
            path: path(),
            truncated: false,
            source: Source::FdAtExit,
            read: true,
            write: false,
            create: false,
            truncate: false,
            directory: false,
            deleted: false,
        },
        Effect::Open {
            path: "/home/alice".into(),
            truncated: true,
            source: Source::FdAtExit,
            read: true,
            write: true,
            create: true,
            truncate: true,
            directory: true,
            deleted: false,
        },
        net(NetOp::Connect),
        net(NetOp::Sendmsg),
        net(NetOp::Bind),
        net(NetOp::Accept),
        Effect::Unix {
            op: NetOp::Connect,
            path: format!("/run/user/{UID}/bus"),
            error: 0,
            source: Source::Kernel,
        },
        Effect::Unix { op: NetOp::Connect, path: String::new(), error: 0, source: Source::Kernel },
        Effect::DnsQuery { name: HOST.into(), record: "A".into(), resolver: ADDRESS.into(), port: 53 },
        Effect::DnsAnswer {
            name: HOST.into(),
            addresses: vec![ADDRESS.into()],
            rcode: 0,
            resolver: ADDRESS.into(),
        },
        Effect::TlsHello { sni: Some(HOST.into()), address: ADDRESS.into(), port: 443 },
        Effect::TlsHello { sni: None, address: "2001:db8::1".into(), port: 443 },
        Effect::Flow {
            address: ADDRESS.into(),
            port: 443,
            protocol: "tcp".into(),
            bytes_out: 10,
            bytes_in: 20,
        },
        Effect::Syscall { abi: SyscallAbi::X86_64, nr: 135 },
        Effect::Special {
            name: "setuid".into(),
            abi: SyscallAbi::X86_64,
            nr: 105,
            args: vec![u64::from(UID), 0, 0, 0, 0, 0],
            result: 0,
            text: Some(PATH.into()),
        },
        Effect::Uring { opcode: 18, name: "openat".into() },
        denied(Family::Network, "connect", format!("{ADDRESS}:443/tcp"), false),
        denied(Family::Network, "dns", HOST.into(), true),
        denied(Family::Network, "connect", "2001:db8::1:443/tcp".into(), true),
        denied(Family::Listen, "bind", format!("{ADDRESS}:8080/tcp"), false),
        denied(Family::Exec, "exec", PROGRAM.into(), false),
        denied(Family::File, "read", path(), true),
        denied(Family::Unix, "connect-unix", format!("/run/user/{UID}/bus"), false),
        denied(Family::Dangerous, "ptrace", String::new(), false),
    ];
    all.extend(ops.map(|op| Effect::PathOp {
        op,
        path: path(),
        to: Some(format!("{PATH}.old")),
        arg: (op == PathOpKind::Chown).then_some(UID.into()),
        group: (op == PathOpKind::Chown).then_some(UID),
        truncated: false,
        source: Source::Argument,
    }));
    all
}

pub(crate) fn scope(n: usize) -> Scope {
    let call = |number| CallRef { number, request_id: json!(number) };
    let candidate = |number: u64| {
        Arc::new(Candidate {
            kind: ScopeKind::Call,
            tool: Some(format!("tool_{number}")),
            call: Some(call(number)),
        })
    };
    let certain = |basis| Scope {
        kind: ScopeKind::Call,
        tool: Some("git_log".into()),
        call: Some(call(7)),
        certainty: Certainty::Certain,
        basis,
        candidates: Vec::new(),
    };
    match n % 4 {
        0 => certain(Basis::Lineage),
        1 => certain(Basis::Window),
        2 => Scope { kind: ScopeKind::Ambient, tool: None, call: None, ..certain(Basis::Lineage) },
        _ => Scope {
            kind: ScopeKind::Ambiguous,
            tool: None,
            call: None,
            certainty: Certainty::Ambiguous,
            basis: Basis::Window,
            candidates: vec![candidate(1), candidate(2)],
        },
    }
}

fn server() -> Arc<ServerRef> {
    Arc::new(ServerRef { id: "20da".into(), name: "git".into() })
}

fn context(n: usize) -> Arc<Context> {
    let container = Container {
        id: "3f4e0a8a3b1c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6".into(),
        runtime: Some("containerd".into()),
        pod: Some("8c2f5a1e-0b7d-4c55-9f3a-1d2e3f405162".into()),
    };
    Arc::new(Context {
        uid: UID,
        login_uid: Some(UID),
        client: Some("/home/alice/bin/claude".into()),
        project: Some("/home/alice/work".into()),
        container: n.is_multiple_of(3).then_some(container),
    })
}

pub(crate) fn process(pid: u32, exe: &str) -> Arc<Process> {
    Arc::new(Process { pid, start_ns: 8_406_000_000_000, exe: Some(exe.to_owned()) })
}

/// What a finding of this kind is about.
fn object(kind: Kind, n: usize) -> String {
    let all = [PATH.to_owned(), format!("{HOST}:443/tcp"), PROGRAM.to_owned(), format!("ports of {ADDRESS}")];
    match kind {
        Kind::NewExec | Kind::MemfdExec => PROGRAM.into(),
        Kind::NewFileArea | Kind::NewWrite | Kind::ProtectedObject | Kind::Persistence => PATH.into(),
        Kind::NewUnixPeer | Kind::DeputySocket => format!("/run/user/{UID}/bus"),
        Kind::NewDestination | Kind::AmbientNetwork | Kind::Beacon | Kind::PrivateRange => {
            format!("{ADDRESS}:443/tcp")
        }
        Kind::NewName | Kind::DnsTunnel => HOST.into(),
        Kind::NewListener | Kind::MetadataService => format!("{ADDRESS}:80/tcp"),
        Kind::SniUnbound => format!("{HOST} at {ADDRESS}"),
        Kind::Volume | Kind::SlowExfiltration => "bytes_out".into(),
        Kind::UnusualSyscall | Kind::Namespace | Kind::Privilege => "setns".into(),
        Kind::CoverageLost => "cgroup/connect4".into(),
        _ => all[n % all.len()].clone(),
    }
}

/// A finding of a kind; `n` varies the rest.
pub(crate) fn finding(kind: Kind, n: usize) -> Finding {
    let effects = effects();
    let origin = match n % 3 {
        0 => Origin::Baseline { sessions: 100, calls: 412, bound: 0.064 },
        1 => Origin::Rule { rule: "no-keys".into(), place: "/home/alice/rules/keys.yaml:12".into() },
        _ => Origin::Detector,
    };
    let acts = if n % 5 == 4 { 0 } else { 3 };
    let seen = (0..acts).map(|k| Seen {
        time: time(k as u64 * 1_000_000),
        process: process(4242, PROGRAM),
        effect: Arc::new(effects[(n * 3 + k) % effects.len()].clone()),
        count: 2,
    });
    let severities = [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    Finding {
        id: format!("{n:016x}"),
        revision: 1 + (n % 2) as u32,
        time: time(0),
        server: server(),
        context: context(n),
        identity: format!("{UID}/git@3f4e"),
        scope: Arc::new(scope(n)),
        kind,
        severity: severities[n % severities.len()],
        origin,
        object: object(kind, n),
        sentence: format!(
            "During call 7 {PROGRAM} `{WORD}` read {PATH} and connected to {ADDRESS} ({HOST}), uid {UID}."
        ),
        count: 6,
        evidence: Evidence {
            effects: seen.collect(),
            more: 4,
            processes: vec![process(4242, PROGRAM), process(4000, "/home/alice/bin/node")],
            calls_before: vec!["call 6 of git_log: 12 ms, 4 effects".into()],
            baseline: Some(format!(
                "412 calls, read {{{PATH}}}, destinations {{{ADDRESS}:443/tcp, {HOST}}} by {WORD}"
            )),
        },
        taxonomy: kind.taxonomy(),
        permit: format!(
            "allow: {{ files: {{ read: ['{PATH}'] }}, network: ['{HOST}', '{ADDRESS}'], exec: ['{WORD}'] }}"
        ),
    }
}

fn acted(n: usize, effect: Effect) -> EffectLine {
    EffectLine {
        time: time(0),
        server: server(),
        context: context(n),
        scope: Arc::new(scope(n)),
        process: process(4242, PROGRAM),
        effect: Arc::new(effect),
        id: n as u64,
        count: 2,
        repeat: n.is_multiple_of(2),
        outlived: false,
    }
}

/// Every response with every outcome and every cause.
pub(crate) fn responses() -> Vec<ResponseLine> {
    let actions = [
        Action::Throttle,
        Action::CutNetwork,
        Action::Freeze,
        Action::KillChild,
        Action::KillServer,
        Action::Release,
    ];
    let verdicts =
        [Verdict::Done, Verdict::Partly, Verdict::Would, Verdict::Refused, Verdict::Failed, Verdict::Nothing];
    let causes = [
        Cause::Finding {
            finding: "00000000000000aa".into(),
            kind: Kind::NewExec,
            rule: Some("no-exec".into()),
        },
        Cause::Person { who: format!("uid {UID}") },
        Cause::Quarantine { response: "r-1".into(), starts: 3, before: format!("read {PATH}, {HOST}") },
        Cause::TimeUp,
        Cause::Ended,
        Cause::Disarmed,
        Cause::Stopped,
    ];
    let mut all = Vec::new();
    for (n, action) in actions.into_iter().enumerate() {
        for (k, verdict) in verdicts.into_iter().enumerate() {
            all.push(ResponseLine {
                time: time(0),
                server: server(),
                context: context(n + k),
                identity: format!("{UID}/git@3f4e"),
                id: format!("r-{n}-{k}"),
                cause: causes[(n * verdicts.len() + k) % causes.len()].clone(),
                action,
                only: (action == Action::Release).then_some(Action::Freeze),
                instead_of: None,
                dry_run: verdict == Verdict::Would,
                until: Some(time(60_000_000_000)),
                verdict,
                result: format!("6 processes of {PROGRAM}, {PATH}, {ADDRESS}, {WORD}"),
                before: format!("in {PATH}"),
                after: format!("{HOST} {UID}"),
                processes: 6,
                spared: vec![Spared { pid: 1, because: format!("{PATH} is not its own, {HOST}") }],
                took_ns: 1_234_567,
                undo: Some(format!("toolwarden release {PATH}")),
            });
        }
    }
    all
}

/// All of these, as the outbox has them, with what the agent says of itself and a gap.
pub(crate) fn events() -> Vec<Value> {
    let tagged = |kind: &str, mut value: Value| {
        value["type"] = kind.into();
        value
    };
    let rounds = (0..4).flat_map(|round| Kind::ALL.iter().map(move |kind| (round, *kind)));
    let findings = rounds.enumerate().map(|(n, (round, kind))| json!(finding(kind, n + round)));
    let mut all: Vec<Value> = findings.map(|f| tagged("finding", f)).collect();
    all.extend(responses().into_iter().map(|r| tagged("response", json!(r))));
    for (n, effect) in effects().into_iter().enumerate() {
        all.push(tagged("effect", json!(acted(n, effect))));
    }
    for life in ["started", "stopped", "heartbeat"] {
        all.push(json!({
            "type": "agent", "time": time(0), "life": life,
            "agent": {
                "version": "0.1.0", "pid": 99, "servers": 7, "tools": 31, "lost": { "ring:open": 3 },
                "findings": { "high": 2 }, "ambiguous_share": null,
                "sinks": { "sinks": { "siem": { "state": "failing", "because": format!("{PATH}: {HOST} {ADDRESS} {WORD}") } } },
                "coverage": [{ "hook": "lifecycle", "state": "observing", "because": format!("{PATH} {HOST}") }],
                "responses": { "quarantined": [format!("{UID}/git@3f4e")] },
            },
        }));
    }
    all.push(json!({
        "type": "gap", "sink": "siem", "first": 3, "last": 900, "count": 897, "worst": "critical",
        "because": "more waited than the outbox may hold",
    }));
    all
}
