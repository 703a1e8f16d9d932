//! An act that the kernel denied, as a finding.

use std::net::IpAddr;

use super::{
    Judge,
    effects::{Found, rests_on},
    policy, tampering, words,
};
use crate::{
    act::{Access, Act},
    baseline::{self, Dimension, ScopeKey},
    effect::NO_QUESTION,
    finding::{Kind, Origin, Severity},
    judge::instance::scopes,
    output::EffectLine,
    policy::Family,
    rules::{self, Verdict, units::Day},
};

/// What the kernel says of a denied act.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denial<'a> {
    pub(super) family: Family,
    pub(super) op: &'a str,
    pub(super) object: &'a str,
    pub(super) dry_run: bool,
}

impl Denial<'_> {
    /// A signal to the agent, its memory, its files: told by the kernel programs under names that no system call has.
    fn is_against_agent(&self) -> bool {
        self.family == Family::Dangerous
            && matches!(self.op, "signal" | "trace" | "alter" | "move" | "limit" | "reach" | "mount over")
    }

    /// "The connect was denied in the kernel."
    fn verdict(&self) -> String {
        let verb = if self.dry_run { "would have been" } else { "was" };
        format!("The {} {verb} denied in the kernel.", self.op)
    }

    /// The act, as rules and baselines know it.
    fn act(&self) -> Option<Act<'_>> {
        let object = self.object;
        let peer = || {
            let (rest, protocol) = object.rsplit_once('/')?;
            let (host, port) = rest.rsplit_once(':')?;
            Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse::<u16>().ok()?, protocol))
        };
        Some(match self.family {
            Family::Network if self.op == "dns" => Act::Dns { name: object, record: "" },
            Family::Network => {
                let (host, port, protocol) = peer()?;
                match host.parse::<IpAddr>() {
                    Ok(address) => Act::Connect { address, name: None, port, protocol },
                    // No rule about addresses is meant.
                    Err(_) => Act::Dns { name: host, record: "" },
                }
            }
            Family::Listen => {
                let (host, port, protocol) = peer()?;
                Act::Listen { address: host.parse().ok()?, port, protocol }
            }
            Family::Exec => Act::Exec { file: object, argv: &[], script: None, memfd: false, deleted: false },
            Family::File => {
                let access = match self.op {
                    "unlink" | "rmdir" | "rename" | "delete" => Access::Delete,
                    "chmod" | "chown" | "change" => Access::Change,
                    "read" | "open" => Access::Read,
                    _ => Access::Write,
                };
                Act::File { access, path: object, directory: false, truncated: false }
            }
            Family::Unix => Act::Unix { path: object, listen: false },
            // No rule and no baseline is about these.
            Family::Dangerous if self.is_against_agent() || self.op == "socket" => return None,
            Family::Dangerous => Act::Special { name: self.op, result: 0 },
        })
    }

    fn dimension(&self) -> Dimension {
        match self.family {
            Family::Network if self.op == "dns" => Dimension::Dns,
            Family::Network => Dimension::Connect,
            Family::Listen => Dimension::Listen,
            Family::Exec => Dimension::Exec,
            Family::File if matches!(self.op, "read" | "open") => Dimension::Read,
            Family::File if self.op == "delete" => Dimension::Delete,
            Family::File if self.op == "change" => Dimension::Change,
            Family::File => Dimension::Write,
            Family::Unix => Dimension::Unix,
            Family::Dangerous => Dimension::Special,
        }
    }

    fn tried(&self) -> String {
        let Self { family, op, object, .. } = self;
        match family {
            Family::Network if *op == "dns" && *object == NO_QUESTION => {
                "sent what is no plain question to a resolver".into()
            }
            Family::Network if *op == "dns" => format!("asked for {object}"),
            Family::Network if matches!(*op, "sendmsg" | "packet") => format!("tried to send to {object}"),
            Family::Network => format!("tried to {op} to {object}"),
            Family::Listen => format!("tried to open {object}"),
            Family::Exec => format!("tried to execute `{object}`"),
            Family::File => format!("tried to {op} `{object}`"),
            Family::Unix => format!("tried to connect to the socket `{object}`"),
            Family::Dangerous if self.is_against_agent() => format!("tried to {op} {object}"),
            Family::Dangerous if *op == "socket" => format!("tried to make a socket of {object}"),
            Family::Dangerous => format!("tried to use {op}"),
        }
    }
}

impl Judge {
    /// What a person is told of a denied act: which tool it was of, what denies it, and what is normal.
    pub(super) fn denied(&mut self, line: &EffectLine, denial: &Denial<'_>) -> Option<Found> {
        let today = Day::of_utc_ns(line.time.utc);
        let i = self.instances.get_mut(&line.server.id)?;
        let scopes: Vec<ScopeKey> = scopes(&line.scope);
        let act = denial.act();
        let selected: Vec<_> = scopes.iter().map(|s| i.policy.of(&self.rules, &i.who, s)).collect();
        let decision = act.as_ref().map(|act| policy::decide(&selected, act, today)).unwrap_or_default();
        let dimension = denial.dimension();
        let name = if denial.family == Family::Dangerous { denial.op } else { denial.object };
        let kind = words::kind(dimension, name, &scopes);
        let start = format!("{}, server `{}` {}", words::when(&line.scope), line.server.name, denial.tried());
        if denial.is_against_agent() {
            let verdict = if denial.dry_run { tampering::NOT_DENIED.into() } else { denial.verdict() };
            return Some(tampering::tampered(
                denial.object.to_owned(),
                format!("{start}, which no server may. {verdict}"),
            ));
        }
        if let (Verdict::Deny, Some(rule)) = (decision.verdict, decision.rule) {
            return Some(Found {
                kind: rule.kind,
                severity: rule.severity,
                origin: Origin::Rule { rule: rule.id.clone(), place: rule.place.to_string() },
                object: denial.object.to_owned(),
                sentence: format!(
                    "{start}, which rule `{}` ({}) forbids. {}",
                    rule.id,
                    rule.place,
                    denial.verdict()
                ),
                permit: permit(rule.kind, &scopes, i, act.as_ref()),
                baseline: None,
                whole: false,
            });
        }
        let tree = u64::from_str_radix(&line.server.id, 16).ok()?;
        let held = self.enforcement.holder_of(tree);
        let key = self.baselines.keys().find(|k| held == Some(k.to_string().as_str())).or(i.key.as_ref())?;
        let baseline = self.baselines.get(key)?;
        let normal: Vec<String> =
            scopes.iter().take(3).map(|s| words::normal(baseline, s, dimension)).collect();
        let normal = normal.join("; ");
        let item = act.as_ref().and_then(|act| baseline::item(act, &i.roots));
        // What it was found to do while it was only watched is the same finding.
        let object = item.and_then(|item| item.levels.first().map(ToString::to_string));
        Some(Found {
            kind,
            severity: kind.severity().max(Severity::Medium),
            origin: rests_on(baseline),
            object: object.unwrap_or_else(|| denial.object.to_owned()),
            sentence: format!(
                "{start}, which the ratified baseline {key} does not permit; what is normal: {normal}. {}",
                denial.verdict()
            ),
            permit: permit(kind, &scopes, i, act.as_ref()),
            baseline: Some(normal),
            whole: false,
        })
    }
}

/// The rule that would permit an act.
pub(super) fn permit(kind: Kind, scopes: &[ScopeKey], i: &super::Instance, act: Option<&Act<'_>>) -> String {
    let at = scopes.first().map(|s| policy::at(&i.who, s)).unwrap_or_default();
    act.map(|act| rules::permit(kind, &at, act)).unwrap_or_default()
}

#[cfg(test)]
#[path = "denied_tests.rs"]
mod tests;
