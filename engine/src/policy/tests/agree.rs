//! Whatever baseline and rules say, the policy says as well, or lists that it does not.

use proptest::prelude::*;

use super::{World, connect, dns, exec, file, holders, listen, tool, unix};
use crate::{
    act::{Access, Act},
    baseline::{self, Dimension, ScopeKey},
    judge::is_incidental,
    policy::{Policy, backtest},
    rules::{Verdict, Where, Who, written::Learned},
};

const PEERS: [&str; 18] = [
    "203.0.113.7:443/tcp",
    "203.0.113.7:80/tcp",
    "203.0.113.9:40001/udp",
    "10.1.2.3:443/tcp",
    "10.1.2.3:22/tcp",
    "127.0.0.1:8080/tcp",
    "0.0.0.0:40000/tcp",
    "169.254.169.254:80/tcp",
    "::1:8080/tcp",
    "64:ff9b::a01:203:443/tcp",
    "2001:db8::7:443/sctp",
    "fd12::1:443/tcp",
    "api.example.com=203.0.113.7:443/tcp",
    "api.example.com=10.1.2.3:443/tcp",
    "cdn7.example.com=203.0.113.8:443/tcp",
    "evil.example=203.0.113.66:443/tcp",
    "a.b.example.com=198.51.100.1:8443/tcp",
    "127.0.0.53:53/udp",
];
const PATHS: [&str; 18] = [
    "/srv/repo/src/a.rs",
    "/srv/repo/README",
    "/srv/repo/.git/config",
    "/srv/repo/.env",
    "/srv/repo",
    "/home/dev/.ssh/id_rsa",
    "/home/dev/.cache/git/x",
    "/home/other/.ssh/id_rsa",
    "/etc/passwd",
    "/etc/ssl/cert.pem",
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/bin/git",
    "/usr/bin/python3.11",
    "/tmp/tmp1234/x",
    "/proc/4711/environ",
    "/var/run/docker.sock",
    "/dev/null",
    "/opt/git/lib/index.js",
];
const NAMES: [&str; 5] =
    ["api.example.com", "cdn7.example.com", "evil.example", "example.com", "a.b.example.com"];

/// Rules of a person; `ID` is made unique.
const SNIPPETS: [&str; 22] = [
    "allow: {network: {connect: [any]}}",
    "allow: {network: {connect: ['public:443/tcp', 'loopback']}}",
    "deny: {network: {connect: [private]}}",
    "deny: {network: {connect: ['10.0.0.0/8:443', '203.0.113.0/24:1-99/tcp']}}",
    "deny: {network: {connect: ['*.example.com']}}\n    match: {tool: a}",
    "allow: {network: {connect: ['*.example.com:443', 'cdn*.example.com'], dns: ['{,*.}example.com']}}",
    "deny: {network: {dns: [evil.example], connect: ['evil.*']}}",
    "allow: {network: {listen: [any]}}\n    match: {tool: '@startup'}",
    "deny: {network: {listen: ['0.0.0.0', '[::]', 'public']}}",
    "allow: {files: {read: ['${root}/**', '/etc/*'], write: ['${root}/src/*']}}",
    "deny: {files: {read: ['~/.ssh/**', '**/.env', '/proc/*/environ'], write: ['~/.ssh/**', '/etc/**']}}",
    "deny: {files: {read: ['${home}/**']}}\n    exceptions: [{reason: x, files: {read: ['${home}/.cache/**']}}]",
    "allow: {files: {read: ['/home/*/.ssh/id_rsa', '/etc/ssl/*.pem', '/proc/*/environ']}}",
    "allow: {exec: {paths: [/usr/bin/git, '/usr/bin/python3*']}}\n    match: {tool: b}",
    "allow: {exec: {paths: [/usr/bin/git], args: ['log']}}",
    "deny: {exec: {paths: ['/usr/bin/*']}}",
    "deny: {unix: ['/var/run/docker.sock', '@evil']}",
    "allow: {unix: ['/var/run/*', '@bus']}",
    "learned: ignore",
    "learned: only\n    match: {tool: a}",
    "deny: {network: {connect: [private]}}\n    exceptions: [{reason: x, network: {connect: ['10.1.2.3:22']}}]",
    "deny: {network: {connect: [any]}}\n    exceptions: [{reason: old, expires: 2026-01-01, network: {connect: [any]}}]",
];

fn act(n: usize) -> Act<'static> {
    let accesses = [Access::Read, Access::Write, Access::Delete];
    let all = PEERS.len() * 2 + PATHS.len() * 5 + NAMES.len();
    let n = n % all;
    if n < PEERS.len() {
        return connect(PEERS[n]);
    }
    let n = n - PEERS.len();
    if n < PEERS.len() {
        return listen(PEERS[n].split_once('=').map_or(PEERS[n], |(_, address)| address));
    }
    let n = n - PEERS.len();
    if n < NAMES.len() {
        return dns(NAMES[n]);
    }
    let n = n - NAMES.len();
    let path = PATHS[n / 5];
    match n % 5 {
        3 => exec(path),
        4 => unix(if path.contains("etc") { "@bus" } else { path }),
        k => file(accesses[k], path),
    }
}

fn all_acts() -> impl Iterator<Item = Act<'static>> {
    (0..PEERS.len() * 2 + PATHS.len() * 5 + NAMES.len()).map(act)
}

fn scopes() -> [ScopeKey; 5] {
    [ScopeKey::Startup, ScopeKey::Ambient, tool("a"), tool("b"), ScopeKey::Whole]
}

/// What rules and baseline say of an act in one scope, said without the compiler.
fn expected(world: &World, scope: &ScopeKey, act: &Act<'_>) -> (Verdict, bool, Option<String>) {
    let at = match scope {
        ScopeKey::Startup => Where::Startup,
        ScopeKey::Tool(tool) => Where::Tool(tool.clone()),
        _ => Where::Ambient,
    };
    let selected = world.rules.for_who(&Who { scope: at, ..world.who.clone() });
    let decision = selected.decide(act, world.day);
    let member = match baseline::item(act, &world.roots[0]) {
        // Nobody looks at `/dev/null`, but taking it away is not using it.
        None => !matches!(act, Act::File { access: Access::Delete | Access::Change, .. }),
        Some(item) => {
            let level = match item.dimension {
                Dimension::Exec => 1,
                Dimension::Read | Dimension::Write | Dimension::Delete | Dimension::Change => 2,
                _ => 0,
            };
            let has = |scope: &ScopeKey| {
                world.baseline.ratified_members().any(|r| {
                    r.scope == scope
                        && r.dimension == item.dimension
                        && r.names.contains(&&*item.levels[level])
                })
            };
            if is_incidental(&item) { scopes().iter().any(has) } else { has(scope) }
        }
    };
    let permitted = match (decision.verdict, selected.learned()) {
        (Verdict::Deny, _) => false,
        (Verdict::Allow, Learned::Merge | Learned::Ignore) => true,
        (_, Learned::Ignore) => false,
        _ => member,
    };
    (decision.verdict, permitted, decision.rule.map(|r| r.id.clone()))
}

/// Whether a difference is told.
fn is_listed(policy: &Policy, scope: &ScopeKey, act: &Act<'_>, permitted: bool, rules: &[String]) -> bool {
    let named = matches!(act, Act::Connect { name: Some(_), .. });
    policy.alert_only.iter().any(|a| {
        let kind = if permitted { ["wider in", "told, not"] } else { ["denied in", "denied in"] };
        let about = a.rule == scope.to_string()
            || rules.iter().any(|id| a.rule.split(' ').next() == Some(id))
            || a.rule == "names" && named
            || a.rule == "resolvers" && matches!(act, Act::Connect { port: 53, .. } | Act::Dns { .. });
        about && kind.iter().any(|k| a.why.contains(k))
    })
}

fn check(world: &World) -> Result<(), TestCaseError> {
    let policy = world.policy();
    let rules: Vec<String> = world.rules.rules().iter().map(|r| r.id.clone()).collect();
    for act in all_acts() {
        for scope in &scopes()[..4] {
            let Some(bit) = backtest::bit(&policy, scope) else { continue };
            let (verdict, permitted, rule) = expected(world, scope, &act);
            let said = policy.permits(&act, bit);
            if said == permitted {
                continue;
            }
            // The rule that decided, or for what is permitted by the kernel, any that may have been widened.
            let of: Vec<String> = match (said, &rule, verdict) {
                (true, Some(rule), Verdict::Deny) => vec![rule.clone()],
                (false, Some(rule), Verdict::Allow) => vec![rule.clone()],
                _ => rules.clone(),
            };
            prop_assert!(
                is_listed(&policy, scope, &act, said, &of),
                "{scope}: {act:?}: {verdict:?} by {rule:?}, permitted {permitted}, the kernel {said} ({})\n{:#?}\n{}",
                holders(&policy, &act),
                policy.alert_only,
                near(&policy, &act),
            );
        }
    }
    Ok(())
}

/// The rights that an act is decided by, for the message.
fn near(policy: &Policy, act: &Act<'_>) -> String {
    match act {
        Act::Connect { .. } | Act::Dns { .. } => format!("{:?}\n{:?}", policy.connect, policy.names),
        Act::Listen { .. } => format!("{:?}", policy.listen),
        _ => format!("{:?}", policy.paths),
    }
}

fn text(picked: &[usize], id: &str) -> String {
    if picked.is_empty() {
        return String::new();
    }
    let rule =
        |(n, which): (usize, &usize)| format!("  - id: {id}{n}\n    {}\n", SNIPPETS[which % SNIPPETS.len()]);
    format!("rules:\n{}", picked.iter().enumerate().map(rule).collect::<String>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_says_what_rules_and_baseline_say_or_it_is_listed(
        done in prop::collection::vec((0_usize..5, 0_usize..1000), 0..60),
        later in prop::collection::vec((0_usize..5, 0_usize..1000), 0..5),
        person in prop::collection::vec(0_usize..100, 0..4),
        pack in prop::collection::vec(0_usize..18, 0..3),
    ) {
        let mut world = World::new();
        for (scope, n) in done {
            world.did(&scopes()[scope], &act(n));
        }
        world.ratify();
        for (scope, n) in later {
            world.did(&scopes()[scope], &act(n));
        }
        world.rules(&text(&person, "own"), &text(&pack, "pack"));
        check(&world)?;
    }
}
