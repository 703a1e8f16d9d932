//! What a policy would have denied of what its own baseline holds.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Family, Policy, permits::family, scope};
use crate::{
    act::{Access, Act},
    baseline::{Baseline, Dimension, ScopeKey, roots::Roots},
};

/// Something that was done, and would have been denied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct WouldDeny {
    /// Scope of the baseline.
    pub scope: String,
    /// Of which family.
    pub family: Family,
    /// In general terms.
    pub what: String,
    /// The server cannot run without it: what it does while it starts, its interpreter, its libraries.
    pub runtime: bool,
}

/// An act as a baseline remembers it, with something in place of what it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    dimension: Dimension,
    object: String,
    address: Option<IpAddr>,
    port: u16,
    protocol: String,
}

impl Sample {
    /// `None`: it is no object of this host, or none that can be written out.
    pub(crate) fn of(dimension: Dimension, name: &str, roots: &[Roots]) -> Option<Self> {
        let mut sample =
            Self { dimension, object: String::new(), address: None, port: 0, protocol: String::new() };
        match dimension {
            Dimension::Connect | Dimension::Listen => {
                let (rest, protocol) = name.rsplit_once('/')?;
                let (host, port) = rest.rsplit_once(':')?;
                sample.port = if port == "{high}" { 40_000 } else { port.parse().ok()? };
                protocol.clone_into(&mut sample.protocol);
                sample.address = host.parse().ok().or_else(|| class_member(host));
                if dimension == Dimension::Connect && sample.address.is_none() {
                    sample.object = filled(host)?;
                }
            }
            Dimension::Exec => sample.object = path(name.split(" · ").next()?, roots)?,
            Dimension::Unix if name.starts_with("bind ") => return None,
            Dimension::Dns => sample.object = filled(name)?,
            Dimension::Special => name.clone_into(&mut sample.object),
            _ if name.starts_with('@') => sample.object = filled(name)?,
            _ => sample.object = path(name, roots)?,
        }
        Some(sample)
    }

    pub(crate) fn act(&self) -> Option<Act<'_>> {
        let Self { dimension, object, address, port, protocol } = self;
        let file = |access| Act::File { access, path: object, directory: false, truncated: false };
        Some(match dimension {
            Dimension::Read => file(Access::Read),
            Dimension::Write => file(Access::Write),
            Dimension::Delete => file(Access::Delete),
            Dimension::Change => file(Access::Change),
            Dimension::Exec => {
                Act::Exec { file: object, argv: &[], script: None, memfd: false, deleted: false }
            }
            Dimension::Connect => Act::Connect {
                address: address.unwrap_or(IpAddr::from([198, 51, 100, 7])),
                name: address.is_none().then_some(object),
                port: *port,
                protocol,
            },
            Dimension::Listen => Act::Listen { address: (*address)?, port: *port, protocol },
            Dimension::Dns => Act::Dns { name: object, record: "A" },
            Dimension::Unix => Act::Unix { path: object, listen: false },
            Dimension::Special => Act::Special { name: object, result: 0 },
            Dimension::Syscall | Dimension::Uring => return None,
        })
    }
}

/// One of a class of addresses.
fn class_member(class: &str) -> Option<IpAddr> {
    Some(IpAddr::from(match class {
        "loopback" => [127, 0, 0, 1],
        "unspecified" => [0, 0, 0, 0],
        "link-local" => [169, 254, 7, 7],
        "private" => [10, 7, 7, 7],
        "multicast" => [224, 0, 0, 251],
        "public" => [198, 51, 100, 7],
        _ => return None,
    }))
}

/// Something of the kind in place of kinds.
fn filled(name: &str) -> Option<String> {
    let kinds = [
        ("{n}", "7"),
        ("{hash}", "0123abcd"),
        ("{uuid}", "01234567-89ab-4cde-8f01-23456789abcd"),
        ("{random}", "aB3dE5fG"),
    ];
    let text = kinds.iter().fold(name.to_owned(), |text, (kind, some)| text.replace(kind, some));
    (!text.contains(['{', '…'])).then_some(text)
}

fn path(name: &str, roots: &[Roots]) -> Option<String> {
    let name = match name.strip_prefix("${").and_then(|rest| rest.split_once('}')) {
        Some((root, rest)) => {
            let root = format!("${{{root}}}");
            let prefix = roots.iter().find_map(|r| r.named(&root).next().map(str::to_owned))?;
            format!("{prefix}{rest}")
        }
        None => name.to_owned(),
    };
    filled(&name).filter(|path| path.starts_with('/'))
}

/// The bits of a scope.
pub(crate) fn bit(policy: &Policy, scope: &ScopeKey) -> Option<u64> {
    match scope {
        ScopeKey::Startup => Some(scope::STARTUP),
        ScopeKey::Ambient => Some(scope::AMBIENT),
        ScopeKey::Tool(tool) => policy.tools.iter().find(|t| t.name == *tool).map(|t| 1 << t.bit),
        ScopeKey::Whole | ScopeKey::Session => None,
    }
}

/// Replays what a baseline holds against a policy.
#[must_use]
pub fn would_deny(policy: &Policy, baseline: &Baseline, roots: &[Roots]) -> Vec<WouldDeny> {
    let mut out = Vec::new();
    for (scope, members) in baseline.finest() {
        out.extend(members.into_iter().filter_map(|(of, name)| one(policy, roots, scope, of, name)));
    }
    out
}

/// One act, by its finest name.
pub(crate) fn one(
    policy: &Policy,
    roots: &[Roots],
    scope: &ScopeKey,
    dimension: Dimension,
    name: &str,
) -> Option<WouldDeny> {
    let live = bit(policy, scope)?;
    let sample = Sample::of(dimension, name, roots)?;
    let act = sample.act()?;
    let family = family(&act).filter(|_| !policy.permits(&act, live))?;
    let runtime = *scope == ScopeKey::Startup || is_runtime(dimension, name);
    let word = serde_json::to_value(dimension).ok();
    let word = word.as_ref().and_then(|w| w.as_str()).unwrap_or_default();
    Some(WouldDeny { scope: scope.to_string(), family, what: format!("{word} {name}"), runtime })
}

/// Interpreters, libraries, the loader, and what the server consists of.
fn is_runtime(dimension: Dimension, name: &str) -> bool {
    const OWN: [&str; 8] =
        ["/usr/lib", "/usr/bin/", "/usr/local/", "/lib", "/bin/", "/etc/ld.so", "/usr/share/", "${package}"];
    match dimension {
        Dimension::Read => OWN.iter().any(|own| name.starts_with(own)),
        _ => false,
    }
}
