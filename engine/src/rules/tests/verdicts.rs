//! Whom rules are about, and acts of all sorts.

use super::{compile, file, person, who};
use crate::{
    act::{Access, Act},
    output::SyscallAbi,
    rules::{Metric, Verdict, Where, Who, written::Learned},
};

fn denied(rule: &str, who: &Who, act: &Act<'_>) -> bool {
    let set = compile(&[person(&format!("rules:\n- id: r\n{rule}"))]);
    set.decide(who, act).verdict == Verdict::Deny
}

fn about(matches: &str, change: impl Fn(&mut Who)) -> bool {
    let mut who = who();
    change(&mut who);
    denied(&format!("  match: {matches}\n  deny: {{files: {{read: /a}}}}"), &who, &file(Access::Read, "/a"))
}

#[test]
fn rules_are_about_servers_tools_packages_and_users() {
    let same = |_: &mut Who| {};
    let startup = |who: &mut Who| who.scope = Where::Startup;
    let ambient = |who: &mut Who| who.scope = Where::Ambient;
    assert!(about("{server: git}", same));
    assert!(about("{server: [x, \"g*\"]}", same));
    assert!(!about("{server: github}", same));
    assert!(about("{tool: \"git_*\"}", same));
    assert!(!about("{tool: \"git_*\"}", startup));
    assert!(about("{tool: \"*\"}", startup));
    assert!(!about("{tool: \"?*\"}", startup));
    assert!(about("{tool: \"@startup\"}", startup));
    assert!(!about("{tool: \"@startup\"}", ambient));
    assert!(about("{tool: [x, \"@ambient\"]}", ambient));
    assert!(about("{package: \"pypi:*\", user: dev}", same));
    assert!(!about("{package: \"pypi:*\"}", |who| who.package = None));
    assert!(!about("{server: git, user: eve}", same));
    // A hostile tool may call itself like a scope.
    let forged = |who: &mut Who| who.scope = Where::Tool("@startup".into());
    assert!(!about("{tool: \"@startup\"}", forged));
    assert!(about("{tool: '\\@startup'}", forged));
}

#[test]
fn files_are_told_by_access_and_filled_in_for_the_server() {
    let rule = "  deny: {files: {write: \"${root}/**\", delete: [\"~/x\", \"/run/user/${user}/y\"], change: \"${home}/z\"}}";
    for (access, path, expected) in [
        (Access::Write, "/srv/project/a", true),
        (Access::Write, "/srv/other/a", false),
        (Access::Read, "/srv/project/a", false),
        (Access::Delete, "/home/eve/x", true),
        (Access::Delete, "/run/user/dev/y", true),
        (Access::Delete, "/run/user/eve/y", false),
        (Access::Change, "/home/dev/z", true),
        (Access::Change, "/home/eve/z", false),
    ] {
        assert_eq!(denied(rule, &who(), &file(access, path)), expected, "{access:?} {path}");
    }
}

fn exec<'a>(path: &'a str, argv: &'a [String], script: Option<&'a str>) -> Act<'a> {
    Act::Exec { file: path, argv, script, memfd: false, deleted: false }
}

#[test]
fn programs_are_permitted_by_script_and_forbidden_by_either() {
    let set = compile(&[person(
        "rules: [{id: r, allow: {exec: {paths: [/usr/bin/python3, /opt/tool]}}}, {id: d, deny: {exec: {paths: /usr/bin/perl}}}]",
    )]);
    let verdict = |file, script| set.decide(&who(), &exec(file, &[], script)).verdict;
    assert_eq!(verdict("/usr/bin/python3", None), Verdict::Allow);
    assert_eq!(verdict("/usr/bin/python3", Some("/opt/tool")), Verdict::Allow);
    assert_eq!(verdict("/usr/bin/python3", Some("/tmp/evil")), Verdict::None);
    assert_eq!(verdict("/usr/bin/perl", Some("/opt/tool")), Verdict::Deny);
    let memfd = Act::Exec { file: "/opt/tool", argv: &[], script: None, memfd: true, deleted: true };
    assert_eq!(set.decide(&who(), &memfd).verdict, Verdict::None);
}

#[test]
fn arguments_narrow_programs() {
    let argv = |args: &[&str]| args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
    let deny = "  deny: {exec: {paths: \"/bin/{sh,bash}\", args: \"-*c\"}}";
    assert!(denied(deny, &who(), &exec("/bin/sh", &argv(&["sh", "-c", "x"]), None)));
    assert!(!denied(deny, &who(), &exec("/bin/sh", &argv(&["-c", "x"]), None)));
    assert!(!denied(deny, &who(), &exec("/bin/ls", &argv(&["ls", "-c"]), None)));
    let set =
        compile(&[person("rules: [{id: r, allow: {exec: {paths: \"${home}/git\", args: [log, \"-n*\"]}}}]")]);
    let verdict = |args: &[&str]| set.decide(&who(), &exec("/home/dev/git", &argv(args), None)).verdict;
    assert_eq!(verdict(&["git", "log", "-n5"]), Verdict::Allow);
    assert_eq!(verdict(&["git", "log", "--exec=x"]), Verdict::None);
    let any = "  deny: {exec: {args: \"*evil*\"}}";
    assert!(denied(any, &who(), &exec("/bin/ls", &argv(&["ls", "an-evil-one"]), None)));
}

#[test]
fn flags_forbid_programs_without_files() {
    let memfd = |memfd, deleted| Act::Exec { file: "/memfd:x", argv: &[], script: None, memfd, deleted };
    assert!(denied("  deny: {exec: {memfd: true}}", &who(), &memfd(true, false)));
    assert!(!denied("  deny: {exec: {memfd: true}}", &who(), &memfd(false, true)));
    assert!(denied("  deny: {exec: {deleted: true}}", &who(), &memfd(false, true)));
    let set = compile(&[person("rules: [{id: r, allow: {exec: {memfd: true}}}]")]);
    assert_eq!(set.decide(&who(), &memfd(true, true)).verdict, Verdict::Allow);
    assert_eq!(set.decide(&who(), &memfd(false, false)).verdict, Verdict::None);
}

#[test]
fn system_calls_are_told_once_and_by_table() {
    let call = |abi, nr| Act::Syscall { abi, nr };
    let special = Act::Special { name: "ptrace", result: -1 };
    let deny = |list: &str, act: &Act<'_>| denied(&format!("  deny: {{syscalls: {list}}}"), &who(), act);
    assert!(deny("ptrace", &special));
    assert!(deny("\"x86_64:ptrace\"", &special));
    // ptrace has a record of its own; the plain count of it would tell it twice.
    assert!(!deny("ptrace", &call(SyscallAbi::X86_64, 101)));
    assert!(deny("\"i386:ptrace\"", &call(SyscallAbi::I386, 26)));
    assert!(deny("iopl", &call(SyscallAbi::X86_64, 172)));
    assert!(!deny("iopl", &call(SyscallAbi::X86_64, 173)));
    assert!(deny("iopl", &call(SyscallAbi::I386, 110)));
    assert!(!deny("\"x86_64:iopl\"", &call(SyscallAbi::I386, 110)));
    assert!(deny("\"i386:*\"", &call(SyscallAbi::I386, 9999)));
    assert!(!deny("\"i386:*\"", &call(SyscallAbi::X86_64, 1)));
    assert!(deny("\"x86_64:9999\"", &call(SyscallAbi::X86_64, 9999)));
    let set = compile(&[person("rules: [{id: r, allow: {syscalls: [\"x86_64:ptrace\"]}}]")]);
    assert_eq!(set.decide(&who(), &call(SyscallAbi::X86_64, 101)).verdict, Verdict::Allow);
    assert_eq!(set.decide(&who(), &special).verdict, Verdict::Allow);
}

#[test]
fn a_handshake_can_be_forbidden_and_never_permitted() {
    let sni = Act::Sni { name: "API.evil.example", address: std::net::Ipv4Addr::LOCALHOST.into(), port: 443 };
    assert!(denied("  deny: {network: {dns: \"*.evil.example\"}}", &who(), &sni));
    let set = compile(&[person("rules: [{id: r, allow: {network: {dns: \"*.evil.example\"}}}]")]);
    assert_eq!(set.decide(&who(), &sni).verdict, Verdict::None);
    assert_eq!(
        set.decide(&who(), &Act::Dns { name: "a.evil.example", record: "TXT" }).verdict,
        Verdict::Allow
    );
}

#[test]
fn sockets_are_told_by_side_and_name() {
    let unix = |path, listen| Act::Unix { path, listen };
    let rule = "  deny: {unix: [/run/docker.sock, \"@/tmp/dbus-*\"], unix_listen: /tmp/x}";
    assert!(denied(rule, &who(), &unix("/run/docker.sock", false)));
    assert!(!denied(rule, &who(), &unix("/run/docker.sock", true)));
    assert!(denied(rule, &who(), &unix("@/tmp/dbus-1", false)));
    assert!(denied(rule, &who(), &unix("/tmp/x", true)));
    assert!(!denied(rule, &who(), &unix("", false)));
}

#[test]
fn limits_are_kept_by_the_tightest() {
    let set = compile(&[person(
        "rules: [{id: a, limits: {duration: 30s, bytes_out: 1MiB}}, {id: b, match: {tool: \"git_*\"}, limits: {duration: 5s, connects: 0}}, {id: c, match: {tool: other}, limits: {duration: 1s}}]",
    )]);
    let selected = set.for_who(&who());
    let line = r#"{"type":"call","time":{"utc":"2026-11-22T00:00:00Z","boot_ns":0},"server":{"id":"1","name":"git"},"uid":0,
        "scope":{"kind":"call","tool":"git_log","certainty":"certain","basis":"window","candidates":[]},"status":"ok",
        "duration_ns":31000000000,"cpu_ns":0,"peak_rss":0,"bytes_out":1048576,"bytes_in":0,"files":0,"execs":0,"connects":1,
        "children":0,"effects":0,"ambiguous_effects":0,"request_bytes":0,"reply_bytes":0,"overlapped":false,"arguments":[],"syscalls":[]}"#;
    let crate::output::Line::Call(call) = serde_json::from_str(line).expect("a call") else {
        unreachable!("it is a call")
    };
    let hits: Vec<_> =
        selected.exceeded(&call).iter().map(|e| (e.rule.id.as_str(), e.metric, e.limit, e.value)).collect();
    assert_eq!(hits, [("b", Metric::Duration, 5_000_000_000, 31_000_000_000), ("b", Metric::Connects, 0, 1)]);
    assert_eq!(Metric::Duration.show(5_000_000_000), "5s");
}

#[test]
fn a_persons_word_on_learning_comes_before_a_packs() {
    let set = compile(&[
        person("rules: [{id: a, match: {server: git}, learned: only}]"),
        super::pack("rules: [{id: b, learned: ignore}]"),
    ]);
    assert_eq!(set.for_who(&who()).learned(), Learned::Only);
    let mut other = who();
    other.server = "x".into();
    assert_eq!(set.for_who(&other).learned(), Learned::Ignore);
}
