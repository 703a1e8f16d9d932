//! What people are shown of a policy: who may do what, and what is only told.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    AlertOnly, Family, NetRight, PathAccess, PathRight, Policy, Ports, Span, Tool, backtest::WouldDeny, scope,
};
use crate::judge::Mode;

/// A policy as people see it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Shown {
    /// Key of the baseline.
    pub identity: String,
    /// Of what is in force; 0 for what would be.
    pub generation: u64,
    /// Mode of the server.
    pub mode: Mode,
    /// A person ratified the baseline.
    pub ratified: bool,
    /// The agent was told to enforce it.
    pub in_force: bool,
    /// Servers that are held to it.
    pub held: usize,
    /// What is denied by default.
    pub families: Vec<Family>,
    /// Tools, and for how long after a reply they have rights.
    pub tools: Vec<ShownTool>,
    /// Rights.
    pub rights: Vec<Right>,
    /// What is only told, and where the kernel says more or less than rules and baseline.
    pub alert_only: Vec<AlertOnly>,
    /// What of its own past it would deny.
    pub would_deny: Vec<WouldDeny>,
    /// How often it will deny what is benign, by what the sessions differed so far.
    pub expected: Option<Expected>,
}

/// How often benign sessions will be denied something: each session that was learned is asked whether the others
/// had all that it had.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Expected {
    /// Sessions that were learned.
    pub sessions: u64,
    /// Those of which something would have been denied.
    pub denied: u64,
    /// At most this share of sessions, with a confidence of 95 % (Clopper and Pearson).
    pub at_most: f64,
}

/// A tool.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ShownTool {
    /// Its name.
    pub tool: String,
    /// Its bit in masks.
    pub bit: u32,
    /// Rights last this long after the reply, ms.
    pub settle_ms: f64,
}

/// A right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Right {
    /// Which family.
    pub family: Family,
    /// What is done.
    pub act: &'static str,
    /// To what.
    pub object: String,
    /// Who may; nobody when that is empty.
    pub scopes: Vec<String>,
    /// A rule denies it.
    pub denied: bool,
    /// The family is denied by default.
    pub enforced: bool,
}

/// A policy in words. What is not in it, the caller knows.
#[must_use]
pub fn show(policy: &Policy) -> Shown {
    let names = Names::new(&policy.tools);
    let mut rights = Vec::new();
    let mut add = |family: Family, act, object, mask| {
        let enforced = policy.families.contains(&family);
        rights.push(Right { family, act, object, scopes: names.of(mask), denied: mask == 0, enforced });
    };
    for r in &policy.connect {
        add(Family::Network, "connect", net(r), r.mask);
    }
    for r in &policy.names {
        let name = if r.below { format!("*.{}", r.name) } else { r.name.clone() };
        match r.ports {
            Some(p) => add(Family::Network, "connect", format!("{name}{}", ports(p)), r.mask),
            None => add(Family::Network, "ask", name, r.mask),
        }
    }
    for r in &policy.listen {
        add(Family::Listen, "listen", net(r), r.mask);
    }
    for r in &policy.paths {
        let (family, act) = of(r.access);
        add(family, act, path(r), r.mask);
    }
    Shown {
        identity: policy.identity.clone(),
        generation: policy.generation,
        mode: Mode::default(),
        ratified: false,
        in_force: false,
        held: 0,
        families: policy.families.clone(),
        tools: policy
            .tools
            .iter()
            .map(|t| ShownTool { tool: t.name.clone(), bit: t.bit, settle_ms: t.settle_ns as f64 / 1e6 })
            .collect(),
        rights,
        alert_only: policy.alert_only.clone(),
        would_deny: Vec::new(),
        expected: None,
    }
}

struct Names<'a>(BTreeMap<u32, Vec<&'a str>>);

impl<'a> Names<'a> {
    fn new(tools: &'a [Tool]) -> Self {
        let mut by_bit: BTreeMap<u32, Vec<&'a str>> = BTreeMap::new();
        for tool in tools {
            by_bit.entry(tool.bit).or_default().push(&tool.name);
        }
        Self(by_bit)
    }

    fn of(&self, mask: u64) -> Vec<String> {
        let mut out = Vec::new();
        for (bit, name) in [(scope::STARTUP, "startup"), (scope::AMBIENT, "ambient")] {
            if mask & bit != 0 {
                out.push(name.to_owned());
            }
        }
        let tools = self.0.iter().filter(|(bit, _)| mask >> **bit & 1 != 0);
        out.extend(tools.flat_map(|(_, names)| names.iter().map(|name| format!("tool {name}"))));
        out
    }
}

fn of(access: PathAccess) -> (Family, &'static str) {
    match access {
        PathAccess::Read => (Family::File, "read"),
        PathAccess::Write => (Family::File, "write"),
        PathAccess::Delete => (Family::File, "delete"),
        PathAccess::Change => (Family::File, "change"),
        PathAccess::Exec => (Family::Exec, "execute"),
        PathAccess::Unix => (Family::Unix, "connect"),
    }
}

fn path(right: &PathRight) -> String {
    let base = right.path.trim_end_matches('/');
    match right.span {
        Span::Exact => right.path.clone(),
        Span::Children => format!("{base}/*"),
        Span::Subtree => format!("{base}/**"),
    }
}

fn net(right: &NetRight) -> String {
    let whole = if right.address.is_ipv4() { 32 } else { 128 };
    let range = if right.prefix == whole { String::new() } else { format!("/{}", right.prefix) };
    let address = if right.address.is_ipv6() {
        format!("[{}{range}]", right.address)
    } else {
        format!("{}{range}", right.address)
    };
    format!("{address}{}", ports(right.ports))
}

fn ports(p: Ports) -> String {
    let protocol = match p.protocol {
        0 => String::new(),
        n => format!("/{}", crate::text::protocol(u32::from(n))),
    };
    match (p.from, p.to) {
        (0, u16::MAX) => format!(":*{protocol}"),
        (from, to) if from == to => format!(":{from}{protocol}"),
        (from, to) => format!(":{from}-{to}{protocol}"),
    }
}
