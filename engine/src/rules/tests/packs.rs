//! The shipped packs.

use super::{TODAY, compile, file, who};
use crate::{
    act::{Access, Act},
    finding::Kind,
    rules::{Verdict, Where, explain, lint, packs, run_tests},
};

#[test]
fn packs_compile_lint_clean_and_pass_their_tests() {
    let set = compile(&packs());
    let found: Vec<String> = lint(&set).iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    let failed: Vec<_> = run_tests(&set).into_iter().filter(|t| !t.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    for rule in set.rules() {
        assert!(rule.written.tests.len() >= 2, "{}", rule.id);
        assert!(rule.written.name.is_some(), "{}", rule.id);
        assert_ne!(rule.kind, Kind::RuleHit, "{}", rule.id);
    }
    for source in packs() {
        assert!(source.text.starts_with(crate::rules::write::EDITOR_LINE), "{}", source.name);
    }
}

/// A pattern that does nothing would make every test of `expect: none` pass.
#[test]
fn inline_tests_can_fail() {
    for (from, to) in [("expect: deny", "expect: none"), ("expect: none", "expect: deny")] {
        let mut sources = packs();
        let mut tests = 0;
        for source in &mut sources {
            tests += source.text.matches(from).count();
            source.text = source.text.replace(from, to);
        }
        let failed = run_tests(&compile(&sources)).iter().filter(|t| !t.passed).count();
        assert_eq!(failed, tests);
        assert!(tests > 40);
    }
}

/// What runtimes do when they start (node, python, git, dash).
#[test]
fn an_honest_start_hits_nothing() {
    let set = compile(&packs());
    let mut starting = who();
    starting.scope = Where::Startup;
    let selected = set.for_who(&starting);
    for path in [
        "/etc/ld.so.cache",
        "/etc/passwd",
        "/etc/group",
        "/etc/nsswitch.conf",
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/localtime",
        "/etc/ssl/openssl.cnf",
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/gitconfig",
        "/etc/profile",
        "/home/dev/.gitconfig",
        "/home/dev/.config/git/config",
        "/home/dev/.config/git/ignore",
        "/home/dev/.npmrc",
        "/home/dev/.bashrc",
        "/home/dev/.profile",
        "/home/dev/.npm/_cacache/index-v5/aa/bb",
        "/home/dev/.npm/_npx/0a1b/node_modules/.bin/x",
        "/home/dev/.cache/uv/archive-v0/x/lib/python3.13/site-packages/mcp/__init__.py",
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/python3.13/site.py",
        "/usr/lib/python3.13/sitecustomize.py",
        "/proc/self/maps",
        "/proc/self/exe",
        "/proc/stat",
        "/proc/meminfo",
        "/proc/cpuinfo",
        "/proc/4711/cgroup",
        "/sys/fs/cgroup/memory.max",
        "/dev/null",
        "/dev/urandom",
        "/srv/project/.git/HEAD",
        "/srv/project/.git/config",
        "/srv/project/.env",
    ] {
        let decision = selected.decide(&file(Access::Read, path), TODAY);
        assert_eq!(decision.verdict, Verdict::None, "{path} {:?}", decision.rule.map(|r| &r.id));
    }
    for path in [
        "/dev/null",
        "/tmp/x",
        "/home/dev/.npm/_logs/x.log",
        "/home/dev/.npm/_cacache/tmp/x",
        "/home/dev/.cache/uv/archive-v0/x/lib/python3.13/site-packages/_virtualenv.pth",
        "/srv/project/.git/index.lock",
        "/srv/project/.git/config.lock",
        "/srv/project/.git/hooks/pre-commit.sample",
        "/srv/project/.git/hooks",
    ] {
        let decision = selected.decide(&file(Access::Write, path), TODAY);
        assert_eq!(decision.verdict, Verdict::None, "{path} {:?}", decision.rule.map(|r| &r.id));
    }
    for (name, act) in [
        (
            "resolver",
            Act::Connect { address: [192, 168, 0, 1].into(), name: None, port: 53, protocol: "udp" },
        ),
        ("ordering", Act::Connect { address: [10, 0, 0, 1].into(), name: None, port: 0, protocol: "udp" }),
        ("npm", Act::Connect { address: [104, 16, 0, 1].into(), name: None, port: 443, protocol: "tcp" }),
        ("nscd", Act::Unix { path: "/var/run/nscd/socket", listen: false }),
        ("unnamed", Act::Unix { path: "", listen: false }),
        ("seccomp", Act::Special { name: "seccomp", result: 0 }),
        ("personality", Act::Special { name: "personality", result: 0 }),
        ("memfd", Act::Special { name: "memfd_create", result: 3 }),
        ("drops rights", Act::Special { name: "setuid", result: 0 }),
        ("epoll", Act::Uring { name: "epoll_ctl" }),
    ] {
        let decision = selected.decide(&act, TODAY);
        assert_eq!(decision.verdict, Verdict::None, "{name} {:?}", decision.rule.map(|r| &r.id));
    }
    // A call of every number, as a program's count of them tells it.
    for nr in 0..500 {
        let act = Act::Syscall { abi: crate::output::SyscallAbi::X86_64, nr };
        let name = crate::rules::syscalls::name(crate::output::SyscallAbi::X86_64, nr).unwrap_or("");
        let rule = selected.decide(&act, TODAY).rule.map(|r| r.id.as_str());
        let expected = matches!(
            name,
            "kexec_load"
                | "iopl"
                | "ioperm"
                | "reboot"
                | "swapon"
                | "swapoff"
                | "acct"
                | "clock_settime"
                | "settimeofday"
                | "sethostname"
                | "fsconfig"
                | "fspick"
                | "open_by_handle_at"
        );
        assert_eq!(rule.is_some(), expected, "{nr} {name} {rule:?}");
    }
}

#[test]
fn an_explanation_names_rule_pattern_place_and_reason() {
    let set = compile(&packs());
    let text = explain(&set, &who(), &file(Access::Read, "/home/dev/.ssh/id_rsa"));
    assert!(text.contains("read of /home/dev/.ssh/id_rsa by server `git` in a call of `git_log`:"), "{text}");
    assert!(text.contains("deny: a finding `protected-object` of severity high"), "{text}");
    assert!(
        text.contains("because of `~/.ssh/**` in `ssh-keys` (a shipped rule, rules/protected.yaml:"),
        "{text}"
    );
    let text = explain(&set, &who(), &file(Access::Read, "/home/dev/.ssh/config"));
    assert!(text.contains("the rules say nothing"), "{text}");
    assert!(text.contains("takes its deny back: no secret"), "{text}");
    let text = explain(&set, &who(), &file(Access::Read, "/srv/\u{1b}[2J"));
    assert!(text.contains("none of the") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn the_example_of_the_readme_does_what_it_says() {
    let readme = include_str!("../../../../rules/README.md");
    let yaml =
        readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let set = compile(&[super::person(yaml)]);
    let results = run_tests(&set);
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|t| t.passed), "{results:#?}");
    assert!(lint(&set).is_empty(), "{:?}", lint(&set));
}
