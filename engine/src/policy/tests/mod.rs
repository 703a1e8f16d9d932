//! Baselines made of acts, and the rules about them.

mod agree;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Family, Given, Policy, compile, scope};
use crate::{
    act::{Access, Act},
    baseline::{self, Baseline, Item, Key, Limits, ScopeKey, family::When, roots::Roots},
    input::Identity,
    rules::{Day, Origin, RuleSet, Source, Who},
};

pub(super) const ALL: [Family; 6] =
    [Family::Network, Family::Listen, Family::Exec, Family::File, Family::Unix, Family::Dangerous];

/// A server whose directories are known, what it did, and the rules about it.
pub(super) struct World {
    pub(super) baseline: Baseline,
    pub(super) roots: Vec<Roots>,
    pub(super) who: Who,
    pub(super) rules: Arc<RuleSet>,
    pub(super) families: BTreeSet<Family>,
    pub(super) day: Day,
}

pub(super) fn tool(name: &str) -> ScopeKey {
    ScopeKey::Tool(name.into())
}

impl World {
    pub(super) fn new() -> Self {
        let identity = Identity {
            name: "git".into(),
            digest: Some("d1".into()),
            entry: Some("/opt/git/server.js".into()),
            roots: vec!["/opt/git".into(), "/home/dev".into(), "/srv/repo".into()],
            ..Identity::default()
        };
        let roots = Roots::new(&identity, None);
        let who = Who {
            server: "git".into(),
            user: Some("1000".into()),
            home: roots.home().map(str::to_owned),
            roots: roots.given().map(str::to_owned).collect(),
            ..Who::default()
        };
        let mut world = Self {
            baseline: Baseline::new(Key::of(&identity, 1000), &identity),
            roots: vec![roots],
            who,
            rules: Arc::default(),
            families: ALL.into(),
            day: Day::parse("2026-11-24").expect("a day"),
        };
        world.baseline.begin_session(1);
        world
    }

    pub(super) fn did(&mut self, scope: &ScopeKey, act: &Act<'_>) -> &mut Self {
        let Some(item) = baseline::item(act, &self.roots[0]) else { return self };
        self.learn(scope, &item);
        self
    }

    fn learn(&mut self, scope: &ScopeKey, item: &Item) {
        let when = When { session: 1, utc: 1, first_call: false, count: 1 };
        let limits = Limits { set: 999, server: 9999, tools: 99 };
        self.baseline.learn(scope, std::iter::once((item, 1)), when, limits);
    }

    pub(super) fn ratify(&mut self) -> &mut Self {
        self.baseline.ratify("uid 0", 2);
        self
    }

    /// A person's rules, then a pack's.
    pub(super) fn rules(&mut self, person: &str, pack: &str) -> &mut Self {
        let source = |name: &str, text: &str, origin| Source { name: name.into(), text: text.into(), origin };
        let mut sources = Vec::new();
        for (name, text, origin) in [("own.yaml", person, Origin::Person), ("pack.yaml", pack, Origin::Pack)]
        {
            if !text.is_empty() {
                sources.push(source(name, text, origin));
            }
        }
        self.rules = Arc::new(RuleSet::compile(&sources, self.day).expect("rules"));
        self
    }

    pub(super) fn policy(&self) -> Policy {
        compile(
            &self.baseline,
            Given {
                roots: &self.roots,
                rules: &self.rules,
                who: &self.who,
                today: self.day,
                families: &self.families,
                because: &BTreeMap::new(),
                resolvers: &[[127, 0, 0, 53].into()],
                settle_ns: 20_000_000,
            },
        )
    }
}

pub(super) fn connect<'a>(to: &'a str) -> Act<'a> {
    let (rest, protocol) = to.rsplit_once('/').expect("protocol");
    let (host, port) = rest.rsplit_once(':').expect("port");
    let port = port.parse().expect("a number");
    match host.split_once('=') {
        Some((name, address)) => {
            Act::Connect { address: address.parse().expect("address"), name: Some(name), port, protocol }
        }
        None => Act::Connect { address: host.parse().expect("address"), name: None, port, protocol },
    }
}

pub(super) fn listen<'a>(to: &'a str) -> Act<'a> {
    let Act::Connect { address, port, protocol, .. } = connect(to) else { unreachable!("a peer") };
    Act::Listen { address, port, protocol }
}

pub(super) fn file(access: Access, path: &str) -> Act<'_> {
    Act::File { access, path, directory: false, truncated: false }
}

pub(super) fn exec(file: &str) -> Act<'_> {
    Act::Exec { file, argv: &[], script: None, memfd: false, deleted: false }
}

pub(super) fn unix(path: &str) -> Act<'_> {
    Act::Unix { path, listen: false }
}

pub(super) fn dns(name: &str) -> Act<'_> {
    Act::Dns { name, record: "A" }
}

/// Scopes that may do it, by name.
pub(super) fn holders(policy: &Policy, act: &Act<'_>) -> String {
    let Some(mask) = policy.holders(act) else { return "not decided".into() };
    let mut names: Vec<&str> = Vec::new();
    for (bit, name) in [(scope::STARTUP, "startup"), (scope::AMBIENT, "ambient")] {
        if mask & bit != 0 {
            names.push(name);
        }
    }
    names.extend(policy.tools.iter().filter(|t| mask >> t.bit & 1 != 0).map(|t| t.name.as_str()));
    names.join(" ")
}

/// Lines of the list about a rule or scope.
pub(super) fn listed(policy: &Policy, rule: &str) -> String {
    let lines = policy.alert_only.iter().filter(|a| a.rule.starts_with(rule));
    lines.map(|a| format!("{}: {}\n", a.what, a.why)).collect()
}
