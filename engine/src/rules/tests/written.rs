//! Rules as text again.

use proptest::prelude::*;

use super::{compile, file, pack, person, who};
use crate::{
    act::{Access, Act},
    finding::Kind,
    output::SyscallAbi,
    rules::{
        Verdict, Where, Who, export, packs, parse, permit,
        value::Text,
        write::{match_of, sections},
        written::{Rule, RuleFile},
    },
};

#[test]
fn what_is_exported_is_read_again() {
    for source in packs() {
        let first = parse(&source.name, &source.text).expect("a pack");
        let text = export(&first);
        let second = parse("again", &text).unwrap_or_else(|p| unreachable!("{p}\n{text}"));
        assert_eq!(first, second);
        compile(&[person(&text)]);
    }
}

#[test]
fn a_permit_reads_well_and_permits() {
    let act = file(Access::Read, "/home/dev/.ssh/id_rsa");
    let text = permit(Kind::ProtectedObject, &who(), &act);
    assert_eq!(
        text.lines().filter(|l| !l.contains("id: permit")).collect::<Vec<_>>().join("\n"),
        "# yaml-language-server: $schema=./rule.schema.json\nrules:\n  \
         name: Permit one protected-object of git\n  match:\n    server: git\n    tool: git_log\n    \
         package: pypi:mcp-server-git\n  exceptions:\n  - reason: say why this is expected, and who says so\n    \
         files:\n      read: ${home}/.ssh/id_rsa",
        "{text}"
    );
    let mut sources = packs();
    sources.push(person(&text));
    let set = compile(&sources);
    assert_eq!(set.decide(&who(), &act).verdict, Verdict::Allow);
    assert_eq!(set.decide(&who(), &file(Access::Read, "/home/dev/.ssh/id_dsa")).verdict, Verdict::Deny);
    let mut other = who();
    other.scope = Where::Tool("git_status".into());
    assert_eq!(set.decide(&other, &act).verdict, Verdict::Deny);
    assert_eq!(permit(Kind::ProtectedObject, &who(), &act), text);
}

fn permits(who: &Who, act: &Act<'_>) {
    let text = permit(Kind::RuleHit, who, act);
    let everything = "rules: [{id: all, deny: {files: {read: /**, write: /**, delete: /**, change: /**}, \
        network: {connect: any, listen: any, dns: \"*\"}, exec: {paths: /**, memfd: true, deleted: true}, \
        unix: [/**, \"@*\"], unix_listen: [/**, \"@*\"], syscalls: \"*\", io_uring: \"*\"}}]";
    let set = compile(&[pack(everything), person(&text)]);
    assert_eq!(set.decide(who, act).verdict, Verdict::Allow, "{act:?}\n{text}");
}

#[test]
fn a_permit_permits_acts_of_all_sorts() {
    let v4: std::net::IpAddr = [203, 0, 113, 7].into();
    let v6: std::net::IpAddr = "2001:db8::1".parse().expect("an address");
    let exec = |file, script, memfd, deleted| Act::Exec { file, argv: &[], script, memfd, deleted };
    for act in [
        file(Access::Write, "/srv/project/a b/{c}*?[d]\\: #.txt"),
        file(Access::Delete, "/srv/project"),
        file(Access::Change, "/home/dev/- x"),
        Act::Connect { address: v4, name: None, port: 443, protocol: "tcp" },
        Act::Connect { address: v6, name: None, port: 53, protocol: "udp" },
        Act::Connect { address: v6, name: Some("a.example"), port: 53, protocol: "253" },
        Act::Listen { address: v6, port: 8080, protocol: "tcp" },
        Act::Dns { name: "_x.a.example", record: "TXT" },
        Act::Unix { path: "@/tmp/x*", listen: false },
        Act::Unix { path: "/run/x.sock", listen: true },
        Act::Syscall { abi: SyscallAbi::I386, nr: 26 },
        Act::Syscall { abi: SyscallAbi::X86_64, nr: 101 },
        Act::Syscall { abi: SyscallAbi::X86_64, nr: 5000 },
        Act::Special { name: "ptrace", result: 0 },
        Act::Uring { name: "connect" },
        exec("/usr/bin/git", None, false, false),
        exec("/usr/bin/python3", Some("/opt/x"), false, false),
        exec("/memfd:x", None, true, true),
        exec("/tmp/x", None, false, true),
    ] {
        permits(&who(), &act);
    }
}

/// YAML takes these for something else than strings.
#[test]
fn names_that_yaml_would_misread_are_quoted() {
    for name in [
        "y",
        "no",
        "on",
        "true",
        "null",
        "~",
        "1",
        "1.10",
        "0x10",
        "1e3",
        ".nan",
        "2027-01-01",
        "<<",
        "=",
        "- a",
        "a: b",
        "#",
        "' ",
        "*",
        "@x",
        "&a",
        "!t",
    ] {
        let who = Who { server: name.into(), scope: Where::Tool(name.into()), ..who() };
        permits(&who, &file(Access::Read, &format!("/{name}")));
    }
}

proptest! {
    /// Names come from servers: whatever they are, the text is a rule about them and nobody else.
    #[test]
    fn a_permit_for_hostile_names_compiles_and_permits(server in "\\PC{1,12}", tool in "\\PC{1,12}", path in "(/\\PC{1,8}){1,3}") {
        prop_assume!(!path.split('/').skip(1).any(|n| matches!(n, "" | "." | "..")));
        let who = Who { server, scope: Where::Tool(tool), ..who() };
        permits(&who, &file(Access::Read, &path));
        let matched = match_of(&who);
        let act = file(Access::Read, &path);
        let rule = Rule { id: Text::new("a"), matches: matched, allow: sections(&who, &act), ..Rule::default() };
        let text = export(&RuleFile { rules: vec![rule] });
        let mut other = who.clone();
        other.server.push('x');
        prop_assert_eq!(compile(&[person(&text)]).decide(&other, &act).verdict, Verdict::None);
    }
}
