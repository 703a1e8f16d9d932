//! What was learned, exported and imported, permits the same acts.

use proptest::prelude::*;

use super::*;
use crate::{
    act::{Access, Act},
    baseline::{self, Key, Limits, family::When, roots::Roots},
    input::Identity,
    rules::{Day, Origin, RuleSet, Source, Verdict},
};

const LIMITS: Limits = Limits { set: 4096, server: 100_000, tools: 64 };

fn identity() -> Identity {
    Identity {
        name: "git hub*".into(),
        entry: Some("/opt/pkg/lib/index.js".into()),
        roots: vec!["/srv/repo".into(), "/home/dev".into(), "/work/dir".into(), "/opt/pkg".into()],
        ..Identity::default()
    }
}

/// One act, with what it borrows from.
#[derive(Clone, Debug)]
enum Did {
    File(Access, String),
    Exec(String, Vec<String>),
    Connect(IpAddr, Option<String>, u16, &'static str),
    Listen(IpAddr, u16),
    Dns(String),
    Unix(String, bool),
    Syscall(u32),
    Uring(&'static str),
}

impl Did {
    fn act(&self) -> Act<'_> {
        match self {
            Self::File(access, path) => {
                Act::File { access: *access, path, directory: false, truncated: false }
            }
            Self::Exec(file, argv) => Act::Exec { file, argv, script: None, memfd: false, deleted: false },
            Self::Connect(address, name, port, protocol) => {
                Act::Connect { address: *address, name: name.as_deref(), port: *port, protocol }
            }
            Self::Listen(address, port) => Act::Listen { address: *address, port: *port, protocol: "tcp" },
            Self::Dns(name) => Act::Dns { name, record: "A" },
            Self::Unix(path, listen) => Act::Unix { path, listen: *listen },
            Self::Syscall(nr) => Act::Syscall { abi: SyscallAbi::X86_64, nr: *nr },
            Self::Uring(name) => Act::Uring { name },
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "[a-zA-Z0-9._ -]{1,12}",
        "[0-9a-f]{8,40}",
        "[a-z{}*?\\\\\\[\\]$~…]{1,6}",
        Just("550e8400-e29b-41d4-a716-446655440000.log".to_owned()),
    ]
    .prop_filter("a name", |n| n != "." && n != "..");
    let base = prop_oneof![
        Just("/srv/repo"),
        Just("/home/dev"),
        Just("/work/dir"),
        Just("/opt/pkg"),
        Just("/usr/lib"),
        Just("")
    ];
    (base, prop::collection::vec(name, 0..5)).prop_map(|(base, names)| {
        let path = names.iter().fold(base.to_owned(), |path, name| format!("{path}/{name}"));
        if path.is_empty() { "/".into() } else { path }
    })
}

fn host() -> impl Strategy<Value = String> {
    "([a-z0-9-]{1,10}\\.){0,3}[a-z]{2,6}"
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u16; 8]>().prop_map(IpAddr::from),
        Just(IpAddr::from([127, 0, 0, 1])),
        Just(IpAddr::from([10, 0, 0, 1])),
        Just(IpAddr::from([0, 0, 0, 0])),
    ]
}

fn did() -> impl Strategy<Value = Did> {
    let access =
        prop_oneof![Just(Access::Read), Just(Access::Write), Just(Access::Delete), Just(Access::Change)];
    prop_oneof![
        4 => (access, path()).prop_map(|(access, path)| Did::File(access, path)),
        1 => (path(), prop::collection::vec("[a-z/ -]{0,9}", 0..4)).prop_map(|(f, a)| Did::Exec(f, a)),
        1 => (address(), prop::option::of(host()), any::<u16>(), prop_oneof![Just("tcp"), Just("raw")])
            .prop_map(|(a, n, p, proto)| Did::Connect(a, n, p, proto)),
        1 => (address(), any::<u16>()).prop_map(|(a, p)| Did::Listen(a, p)),
        1 => host().prop_map(Did::Dns),
        1 => (path(), any::<bool>()).prop_map(|(p, l)| Did::Unix(p, l)),
        1 => ("@[a-zA-Z0-9*-]{0,6}(/[a-z*]{1,4}){0,2}", any::<bool>()).prop_map(|(p, l)| Did::Unix(p, l)),
        1 => (0..400_u32).prop_map(Did::Syscall),
        1 => prop_oneof![Just("connect"), Just("openat")].prop_map(Did::Uring),
    ]
}

fn learned(acts: &[(ScopeKey, Did)], roots: &Roots) -> Baseline {
    let key = Key { uid: 1000, name: identity().name, digest: "d".into() };
    let mut b = Baseline::new(key, &identity());
    for (scope, did) in acts {
        if let Some(item) = baseline::item(&did.act(), roots) {
            let when = When { session: 1, utc: 1, first_call: false, count: 1 };
            b.learn(scope, [(&item, 1)].into_iter(), when, LIMITS);
        }
    }
    b
}

fn check(acts: &[(ScopeKey, Did)]) -> Result<usize, TestCaseError> {
    let roots = Roots::new(&identity(), Some("/work/dir"));
    let b = learned(acts, &roots);
    let exported = export(&b);
    let source = Source { name: "e.yaml".into(), text: exported.text.clone(), origin: Origin::Person };
    let set = RuleSet::compile(&[source], Day::default());
    prop_assert!(set.is_ok(), "{:?}\n{}", set.err(), exported.text);
    let set = std::sync::Arc::new(set.unwrap_or_default());
    let mut permitted = 0;
    for (scope, did) in acts {
        let act = did.act();
        let Some(item) = baseline::item(&act, &roots) else { continue };
        let line = format!("{scope}: {} {}", word(item.dimension), item.levels[0]);
        if exported.left_out.contains(&line) {
            continue;
        }
        let who = Who {
            server: b.key.name.clone(),
            home: roots.home().map(str::to_owned),
            roots: roots.given().map(str::to_owned).collect(),
            ..Who::default()
        };
        let who = super::super::policy::at(&who, scope);
        let selected = set.for_who(&who);
        let verdict = selected.decide(&act, Day::default()).verdict;
        prop_assert_eq!(verdict, Verdict::Allow, "{:?} ({})\n{}", did, line, exported.text);
        permitted += 1;
    }
    Ok(permitted)
}

fn scope() -> impl Strategy<Value = ScopeKey> {
    prop_oneof![Just(ScopeKey::Startup), Just(ScopeKey::Ambient), "[a-z_@*]{1,8}".prop_map(ScopeKey::Tool)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn what_was_learned_is_permitted_elsewhere(acts in prop::collection::vec((scope(), did()), 0..24)) {
        check(&acts)?;
    }
}

#[test]
fn names_are_written_as_patterns() {
    let tool = || ScopeKey::Tool("git_log".into());
    let acts = [
        (tool(), Did::File(Access::Read, "/srv/repo/src/a-17.rs".into())),
        (tool(), Did::File(Access::Read, "/work/dir/.git/HEAD".into())),
        (tool(), Did::File(Access::Read, "/opt/pkg/lib/index.js".into())),
        (tool(), Did::Connect([1, 2, 3, 4].into(), Some("api-3.github.com".into()), 443, "tcp")),
        (tool(), Did::File(Access::Read, "not/resolved\n- id: evil".into())),
    ];
    assert_eq!(check(&acts).ok(), Some(4));
    let exported = export(&learned(&acts, &Roots::new(&identity(), Some("/work/dir"))));
    for part in ["${root}/src/a-*.rs", "${root}/.git/HEAD", "**/lib/index.js", "api-*.github.com:443/tcp"] {
        assert!(exported.text.contains(part), "{part}\n{}", exported.text);
    }
    assert_eq!(exported.left_out.len(), 1);
    assert!(exported.text.contains("#   tool git_log: read not/resolved?- id: evil"), "{}", exported.text);
}

#[test]
fn what_would_permit_everything_is_left_out() {
    let acts = [
        (ScopeKey::Startup, Did::File(Access::Read, "/opt/pkg/77".into())),
        (ScopeKey::Startup, Did::Dns("7.8".into())),
        (ScopeKey::Startup, Did::Exec("/memfd:x".into(), Vec::new())),
    ];
    let exported = export(&learned(&acts, &Roots::new(&identity(), None)));
    assert_eq!(exported.left_out.len(), 3, "{}", exported.text);
}
