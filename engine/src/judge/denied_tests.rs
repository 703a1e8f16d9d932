//! Sentences about denied acts, from lines as the engine makes them.

use std::sync::Arc;

use super::super::{Command, Judge, RuleText};
use crate::{
    finding::{Finding, Kind, Origin},
    input::{Identity, NameSource},
    output::{
        Basis, CallRef, Certainty, ChannelState, Context, Effect, EffectLine, Line, Process, Scope,
        ScopeKind, ServerEvent, ServerLine, ServerRef, Startup, Time,
    },
    policy::Family,
};

fn server() -> Arc<ServerRef> {
    Arc::new(ServerRef { id: "2a".into(), name: "git".into() })
}

fn judge(rules: &str) -> Judge {
    let mut judge = Judge::default();
    let file = RuleText { name: "own.yaml".into(), text: rules.into(), shipped: false };
    let files = if rules.is_empty() { Vec::new() } else { vec![file] };
    judge.command(&Command::Rules { files }).expect("rules");
    let identity = Identity { name: "git".into(), digest: Some("d".into()), ..Identity::default() };
    judge.identify("2a".into(), &identity);
    let line = ServerLine {
        time: Time::default(),
        server: server(),
        context: Arc::new(Context { uid: 1000, ..Context::default() }),
        event: ServerEvent::Found,
        detail: None,
        pid: 7,
        root_pid: 7,
        argv: Vec::new(),
        name_source: NameSource::Executable,
        package: None,
        version: None,
        entry: None,
        digest: None,
        protocol: None,
        startup: Startup::default(),
        channel: ChannelState::Followed,
    };
    judge.observe(&Line::Server(line), &mut Vec::new());
    judge
}

fn denied(judge: &mut Judge, family: Family, op: &str, object: &str, dry_run: bool) -> Finding {
    let scope = Scope {
        kind: ScopeKind::Call,
        tool: Some("git_log".into()),
        call: Some(CallRef { number: 7, request_id: 7.into() }),
        certainty: Certainty::Certain,
        basis: Basis::Window,
        candidates: Vec::new(),
    };
    let line = EffectLine {
        time: Time { utc: 5, boot_ns: 5 },
        server: server(),
        context: Arc::default(),
        scope: Arc::new(scope),
        process: Arc::new(Process { pid: 9, start_ns: 1, exe: None }),
        effect: Arc::new(Effect::Denied {
            family,
            op: op.into(),
            object: object.into(),
            dry_run,
            live: 0,
            held: 0,
        }),
        id: 1,
        count: 1,
        repeat: false,
        outlived: false,
    };
    let mut out = Vec::new();
    judge.observe(&Line::Effect(line), &mut out);
    judge.tick(10_000_000_000, &mut out);
    out.retain(|f| !matches!(f.kind, Kind::NewServer | Kind::NewTool));
    out.pop().expect("a finding")
}

#[test]
fn the_sentence_names_tool_and_baseline_and_says_that_it_was_denied() {
    let f = denied(&mut judge(""), Family::Network, "connect", "203.0.113.7:443/tcp", false);
    assert!(
        f.sentence.starts_with(
            "During call 7 of tool `git_log`, server `git` tried to connect to 203.0.113.7:443/tcp, which the ratified \
             baseline 1000/git@d does not permit"
        ),
        "{}",
        f.sentence
    );
    assert!(f.sentence.ends_with("The connect was denied in the kernel."), "{}", f.sentence);
    assert_eq!((f.kind, f.object.as_str()), (Kind::NewDestination, "203.0.113.7:443/tcp"));
    assert!(f.permit.contains("203.0.113.7:443/tcp"), "{}", f.permit);
}

#[test]
fn a_rule_that_denies_is_named() {
    let mut judge = judge("rules:\n  - id: no-curl\n    deny: {exec: {paths: [/usr/bin/curl]}}\n");
    let f = denied(&mut judge, Family::Exec, "exec", "/usr/bin/curl", false);
    assert!(
        f.sentence.contains("which rule `no-curl` (own.yaml:2) forbids. The exec was denied"),
        "{}",
        f.sentence
    );
    assert!(matches!(&f.origin, Origin::Rule { rule, .. } if rule == "no-curl"));
}

#[test]
fn whoever_goes_for_the_agent_is_told_as_such() {
    for (op, object) in [
        ("signal", "the agent, signal 9"),
        ("trace", "the agent"),
        ("alter", "/var/lib/toolwarden"),
        ("move", "the agent into another cgroup"),
        ("limit", "the agent's resources"),
        ("reach", "a link of the agent"),
        ("mount over", "/var/lib/toolwarden"),
    ] {
        // One judge tells of several acts of a kind in one finding.
        let f = denied(&mut judge(""), Family::Dangerous, op, object, false);
        assert_eq!((f.kind, f.object.as_str()), (Kind::Tampering, object));
        assert!(
            f.sentence.contains(&format!("tried to {op} {object}, which no server may.")),
            "{}",
            f.sentence
        );
        let f = denied(&mut judge(""), Family::Dangerous, op, object, true);
        assert!(f.kind == Kind::Tampering && f.sentence.contains("It was not denied"), "{}", f.sentence);
    }
}

#[test]
fn a_dry_run_says_what_would_have_been() {
    for (family, op, object, kind) in [
        (Family::Listen, "bind", "0.0.0.0:8080/tcp", Kind::NewListener),
        (Family::File, "unlink", "/srv/x", Kind::NewWrite),
        (Family::File, "read", "/srv/y", Kind::NewFileArea),
        (Family::Unix, "connect", "/run/docker.sock", Kind::NewUnixPeer),
        (Family::Network, "dns", "evil.example", Kind::NewName),
        (Family::Network, "sendmsg", "[2001:db8::7]:53/udp", Kind::NewDestination),
        (Family::Dangerous, "ptrace", "", Kind::Injection),
        (Family::Dangerous, "mount", "", Kind::Namespace),
        (Family::File, "delete", "/srv/z", Kind::NewWrite),
        (Family::Unix, "connect-unix", "@bus", Kind::NewUnixPeer),
        (Family::Dangerous, "socket", "address family 17", Kind::UnusualSyscall),
    ] {
        // One judge tells of several acts of a kind in one finding.
        let f = denied(&mut judge(""), family, op, object, true);
        assert!(
            f.sentence.ends_with(&format!("The {op} would have been denied in the kernel.")),
            "{}",
            f.sentence
        );
        assert_eq!(f.kind, kind, "{op} {object}");
    }
}
