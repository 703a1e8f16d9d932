//! Dimension by dimension: what is permitted to whom, and what is listed instead.

use super::{World, connect, dns, exec, file, holders, listed, listen, tool, unix};
use crate::{
    act::{Access, Act},
    baseline::{ScopeKey, roots::Roots},
    input::Identity,
    output::SyscallAbi,
    policy::{Family, backtest, scope},
    rules::Day,
};

#[test]
fn only_ratified_members_permit_and_only_in_their_scope() {
    let mut w = World::new();
    let host = connect("203.0.113.7:443/tcp");
    w.did(&tool("a"), &host).did(&ScopeKey::Whole, &connect("203.0.113.9:443/tcp"));
    assert_eq!(holders(&w.policy(), &host), "");
    w.ratify().did(&tool("b"), &host);
    let policy = w.policy();
    assert_eq!(holders(&policy, &host), "a");
    assert_eq!(holders(&policy, &connect("203.0.113.9:443/tcp")), "", "the whole widens no tool");
    assert_eq!(holders(&policy, &connect("203.0.113.7:80/tcp")), "");
    assert_eq!(holders(&policy, &connect("203.0.113.7:443/udp")), "");
    assert!(listed(&policy, "tool b").contains("connect: 1 more: denied in the kernel: learned after"));
}

#[test]
fn ranges_classes_ports_and_protocols_of_rules() {
    let mut w = World::new();
    w.did(&tool("a"), &connect("192.0.2.1:1/tcp")).ratify().rules(
        "rules:\n  - id: out\n    match: {tool: a}\n    allow: {network: {connect: ['public:443/tcp', '10.0.0.0/8:8000-8999']}}\n\
         \x20 - id: no\n    deny: {network: {connect: ['10.9.0.0/16', '203.0.113.66']}}\n",
        "",
    );
    let policy = w.policy();
    for (peer, who) in [
        ("198.51.100.1:443/tcp", "a"),
        ("198.51.100.1:443/udp", ""),
        ("198.51.100.1:444/tcp", ""),
        ("192.168.0.1:443/tcp", ""),
        ("127.0.0.1:443/tcp", ""),
        ("2001:db8::1:443/tcp", "a"),
        ("fd00::1:443/tcp", ""),
        ("10.8.0.1:8080/udp", "a"),
        ("10.8.0.1:9000/udp", ""),
        ("10.9.0.1:8080/udp", ""),
        ("203.0.113.66:443/tcp", ""),
        ("2002:a09:1::1:443/tcp", ""),
        ("2002:a08:1::1:443/tcp", "a"),
        ("::ffff:10.8.0.1:8080/tcp", "a"),
    ] {
        assert_eq!(holders(&policy, &connect(peer)), who, "{peer}");
    }
    let zero = policy.connect.iter().filter(|r| r.mask == 0);
    assert!(zero.clone().any(|r| r.prefix == 16), "{:?}", zero.collect::<Vec<_>>());
}

#[test]
fn names_exact_and_by_suffix_and_a_denied_address_stays_denied() {
    let mut w = World::new();
    w.did(&tool("a"), &connect("api.example.com=203.0.113.7:443/tcp"))
        .did(&tool("b"), &connect("s3-7.eu.example.net=203.0.113.8:443/tcp"))
        .did(&ScopeKey::Ambient, &dns("time.example.org"))
        .ratify()
        .rules("rules:\n  - id: no\n    deny: {network: {connect: ['10.0.0.0/8', '*.evil.example']}}\n", "");
    let policy = w.policy();
    assert_eq!(holders(&policy, &connect("api.example.com=198.51.100.9:443/tcp")), "a");
    assert_eq!(holders(&policy, &connect("API.example.com.=198.51.100.9:443/tcp")), "a");
    assert_eq!(holders(&policy, &connect("api.example.com=10.1.1.1:443/tcp")), "");
    assert_eq!(holders(&policy, &connect("b.evil.example=198.51.100.9:443/tcp")), "");
    assert_eq!(holders(&policy, &connect("other.example.com=198.51.100.9:443/tcp")), "");
    assert_eq!(holders(&policy, &dns("api.example.com")), "a");
    assert_eq!(holders(&policy, &dns("time.example.org")), "ambient");
    assert_eq!(holders(&policy, &connect("time.example.org=198.51.100.9:443/tcp")), "");
    // Numbers in a name are kinds: the suffix around it, listed.
    assert_eq!(holders(&policy, &connect("s3-9.eu.example.net=198.51.100.9:443/tcp")), "b");
    assert!(listed(&policy, "tool b").contains("wider in the kernel: *.eu.example.net"));
    // Who may ask needs somebody to ask.
    assert_eq!(holders(&policy, &connect("127.0.0.53:53/udp")), "ambient a b");
}

#[test]
fn listeners_by_class() {
    let mut w = World::new();
    w.did(&ScopeKey::Startup, &listen("127.0.0.1:40000/tcp"))
        .did(&tool("a"), &listen("203.0.113.1:80/tcp"))
        .ratify();
    let policy = w.policy();
    for (own, who) in [
        ("127.7.7.7:0/tcp", "startup"),
        ("::1:60000/tcp", "startup"),
        ("127.0.0.1:80/tcp", ""),
        ("0.0.0.0:0/tcp", ""),
        ("198.51.100.1:80/tcp", "a"),
        ("192.168.1.1:80/tcp", ""),
    ] {
        assert_eq!(holders(&policy, &listen(own)), who, "{own}");
    }
}

#[test]
fn files_by_area_of_their_roots_and_secrets_in_them_denied() {
    let mut w = World::new();
    w.did(&tool("a"), &file(Access::Read, "/srv/repo/src/a.rs"))
        .did(&tool("b"), &file(Access::Write, "/home/dev/.cache/git/x/y"))
        .ratify()
        .rules(
            "",
            "rules:\n  - id: secrets\n    deny: {files: {read: ['**/.env', '~/.ssh/**', '**/*.pem']}}\n",
        );
    let policy = w.policy();
    for (access, path, who) in [
        (Access::Read, "/srv/repo/lib/other.rs", "a"),
        (Access::Write, "/srv/repo/lib/other.rs", ""),
        (Access::Read, "/srv/repo/.env", ""),
        (Access::Read, "/srv/repolib/x", ""),
        (Access::Read, "/home/dev/.ssh/id_rsa", ""),
        (Access::Write, "/home/dev/.cache/git/z/1", "b"),
        (Access::Write, "/home/dev/.cache/other/z", ""),
        (Access::Read, "/dev/null", "startup ambient a b"),
    ] {
        assert_eq!(holders(&policy, &file(access, path)), who, "{path}");
    }
    let told = listed(&policy, "secrets");
    assert!(told.contains("**/*.pem: told, not denied: no path says it\n"), "{told}");
    assert!(told.contains("but for /home/dev/.env, /srv/repo/.env"), "{told}");
    assert!(listed(&policy, "tool a").contains("${root}/**: wider in the kernel: with what is hidden"));
}

#[test]
fn members_without_a_known_place_wait_for_a_server() {
    let mut w = World::new();
    w.did(&tool("a"), &file(Access::Read, "/srv/repo/src/a.rs")).ratify();
    w.roots.clear();
    let policy = w.policy();
    assert_eq!(holders(&policy, &file(Access::Read, "/srv/repo/src/a.rs")), "");
    assert!(listed(&policy, "tool a").contains("until a server of it runs"), "{:#?}", policy.alert_only);
}

#[test]
fn programs_scripts_and_sockets() {
    let mut w = World::new();
    let script =
        |file, script| Act::Exec { file, argv: &[], script: Some(script), memfd: false, deleted: false };
    w.did(&tool("a"), &exec("/usr/bin/git"))
        .did(&tool("a"), &script("/bin/sh", "/opt/git/hook"))
        .did(&tool("a"), &unix("/run/bus"))
        .did(&tool("a"), &unix("@bus"))
        .ratify()
        .rules("rules:\n  - id: args\n    deny: {exec: {paths: [/usr/bin/git], args: [push]}}\n", "");
    let policy = w.policy();
    assert_eq!(holders(&policy, &exec("/usr/bin/git")), "a");
    assert_eq!(holders(&policy, &exec("/usr/bin/curl")), "");
    assert_eq!(holders(&policy, &script("/bin/sh", "/opt/git/hook")), "a");
    assert_eq!(holders(&policy, &exec("/bin/sh")), "");
    assert_eq!(
        holders(
            &policy,
            &Act::Exec { file: "/usr/bin/git", argv: &[], script: None, memfd: false, deleted: true }
        ),
        ""
    );
    assert_eq!(holders(&policy, &unix("/run/bus")), "a");
    assert_eq!(holders(&policy, &unix("@bus")), "a");
    assert_eq!(holders(&policy, &unix("@other")), "");
    assert!(listed(&policy, "args").contains("told, not denied: the kernel does not look at arguments"));
    w.rules("rules:\n  - id: sh\n    deny: {exec: {paths: ['/bin/sh']}}\n", "");
    assert_eq!(holders(&w.policy(), &script("/bin/sh", "/opt/git/hook")), "");
}

#[test]
fn what_rules_say_of_the_baseline_is_honoured() {
    let host = connect("203.0.113.7:443/tcp");
    let other = connect("203.0.113.8:443/tcp");
    let allow = "  - id: allow\n    allow: {network: {connect: ['203.0.113.8']}}\n";
    for (learned, member, allowed) in
        [("merge", "a", "startup ambient a"), ("ignore", "", "startup ambient a"), ("only", "a", "")]
    {
        let mut w = World::new();
        let text = format!("rules:\n  - id: l\n    learned: {learned}\n{allow}");
        w.did(&tool("a"), &host).ratify().rules(&text, "");
        assert_eq!(holders(&w.policy(), &host), member, "{learned}");
        assert_eq!(holders(&w.policy(), &other), allowed, "{learned}");
    }
}

#[test]
fn an_exception_ends_on_its_day() {
    let mut w = World::new();
    w.did(&tool("a"), &connect("203.0.113.7:443/tcp")).ratify().rules(
        "rules:\n  - id: no\n    deny: {network: {connect: [any]}}\n    exceptions:\n      \
         - {reason: x, expires: 2026-12-01, network: {connect: ['203.0.113.7']}}\n",
        "",
    );
    assert_eq!(holders(&w.policy(), &connect("203.0.113.7:443/tcp")), "startup ambient a");
    w.day = Day::parse("2026-12-01").expect("a day");
    assert_eq!(holders(&w.policy(), &connect("203.0.113.7:443/tcp")), "");
}

#[test]
fn families_that_are_not_enforced_are_listed_rule_by_rule() {
    let mut w = World::new();
    w.families = [Family::Network, Family::Listen].into();
    w.did(&tool("a"), &exec("/usr/bin/git")).ratify().rules(
        "",
        "rules:\n  - id: keys\n    deny: {files: {read: ['~/.ssh/**', '/etc/shadow']}, syscalls: [ptrace]}\n    limits: {connects: 3}\n",
    );
    let policy = w.policy();
    assert_eq!(holders(&policy, &exec("/usr/bin/curl")), "not decided");
    assert!(policy.permits(&exec("/usr/bin/curl"), scope::AMBIENT));
    let told = listed(&policy, "keys (pack.yaml:2)");
    assert!(
        told.contains("read: 2 patterns: told, not denied: the family `file` is observed only"),
        "{told}"
    );
    assert!(told.contains("syscalls: ptrace") && told.contains("limits"), "{told}");
    // The rights are there all the same.
    assert!(policy.paths.iter().any(|r| r.path == "/usr/bin/git"));
}

#[test]
fn a_ratified_ptrace_leaves_the_family_observed() {
    let mut w = World::new();
    let ptrace = Act::Special { name: "ptrace", result: 0 };
    w.did(&tool("a"), &ptrace).ratify();
    let policy = w.policy();
    assert!(!policy.families.contains(&Family::Dangerous) && policy.permits(&ptrace, 1));
    assert!(listed(&policy, "tool a").contains("`dangerous` is observed only"));
    let other = World::new().policy();
    assert!(!other.permits(&ptrace, u64::MAX));
    assert!(other.permits(&Act::Syscall { abi: SyscallAbi::X86_64, nr: 101 }, 0), "calls are not decided");
}

#[test]
fn tools_beyond_the_bits_share_the_last_one() {
    let mut w = World::new();
    for n in 0..62 {
        w.did(&tool(&format!("t{n:02}")), &connect(&format!("203.0.113.{n}:443/tcp")));
    }
    w.ratify();
    let policy = w.policy();
    assert_eq!(holders(&policy, &connect("203.0.113.58:443/tcp")), "t58");
    assert_eq!(holders(&policy, &connect("203.0.113.61:443/tcp")), "t59 t60 t61");
    assert!(listed(&policy, "tools").contains("t59, t60, t61: wider in the kernel"));
}

#[test]
fn a_later_tool_takes_no_bit_of_another() {
    let mut w = World::new();
    w.did(&tool("z"), &connect("203.0.113.1:443/tcp")).ratify();
    let bit = |w: &World, name: &str| w.policy().tools.iter().find(|t| t.name == name).map(|t| t.bit);
    assert_eq!(bit(&w, "z"), Some(0));
    let item = crate::baseline::item(&connect("203.0.113.2:443/tcp"), &w.roots[0]).expect("an item");
    let when = crate::baseline::family::When { session: 1, utc: 9, first_call: false, count: 1 };
    let limits = crate::baseline::Limits { set: 9, server: 99, tools: 9 };
    w.baseline.learn(&tool("a"), std::iter::once((&item, 1)), when, limits);
    assert_eq!((bit(&w, "z"), bit(&w, "a")), (Some(0), Some(1)));
}

#[test]
fn the_back_test_tells_the_runtime_from_the_rest() {
    let mut w = World::new();
    w.did(&ScopeKey::Startup, &exec("/usr/bin/node"))
        .did(&ScopeKey::Startup, &file(Access::Read, "/usr/lib/libc.so.6"))
        .did(&tool("a"), &connect("203.0.113.7:443/tcp"))
        .ratify();
    let would = |w: &World| backtest::would_deny(&w.policy(), &w.baseline, &w.roots);
    assert_eq!(would(&w), []);
    w.rules("rules:\n  - id: no\n    deny: {exec: {paths: ['/usr/bin/*']}, network: {connect: [any]}}\n", "");
    let denied = would(&w);
    let short: Vec<_> = denied.iter().map(|d| (d.scope.as_str(), d.family, d.runtime)).collect();
    assert_eq!(short, [("startup", Family::Exec, true), ("tool a", Family::Network, false)], "{denied:?}");
}

#[test]
fn servers_with_other_directories_share_them_and_it_is_listed() {
    let mut w = World::new();
    w.did(&tool("a"), &file(Access::Read, "/srv/repo/a")).ratify();
    let identity = Identity { roots: vec!["/srv/two".into()], ..Identity::default() };
    w.roots.push(Roots::new(&identity, None));
    let policy = w.policy();
    assert_eq!(holders(&policy, &file(Access::Read, "/srv/two/x")), "a");
    assert!(!listed(&policy, "roots").is_empty());
}
