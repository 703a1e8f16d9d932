//! Which rule decides, and why, in words.

use std::sync::Arc;

use super::{
    problem::safe,
    select::{Decision, Verdict, Where, Who},
    set::{Origin, Rule, RuleSet},
    table::Part,
    value::At,
};
use crate::act::{Access, Act};

/// Says what the rules say about an act, which of them decided, and which others spoke.
#[must_use]
pub fn explain(set: &Arc<RuleSet>, who: &Who, act: &Act<'_>) -> String {
    let selected = set.for_who(who);
    let decision = selected.decide(act, set.today);
    let mut out = String::new();
    let mut say = |line: String| {
        out.push_str(&line);
        out.push('\n');
    };
    let scope = match &who.scope {
        Where::Startup => "while starting".to_owned(),
        Where::Ambient => "while no call runs".to_owned(),
        Where::Tool(tool) => format!("in a call of `{}`", safe(tool)),
    };
    say(format!("{} by server `{}` {scope}:", describe(act), safe(&who.server)));
    say(format!("  {}", verdict(&decision)));
    if let Some(rule) = decision.rule {
        say(format!("  {}", because(&decision, rule)));
    }
    let mut spoke = Vec::new();
    selected.each_hit(act, |rule, part, text, at| {
        let what = match part {
            Part::Allow => "allows it".to_owned(),
            Part::Deny => "denies it".to_owned(),
            Part::Exception(e) => match rule.exceptions.get(usize::from(e)) {
                Some(e) if !e.holds(set.today) => {
                    format!("had an exception that expired on {}", e.expires.unwrap_or_default())
                }
                _ => "has an exception for it".to_owned(),
            },
        };
        spoke.push(format!("    {} {what}: `{}` ({})", rule.id, safe(text), place(rule, at)));
    });
    if !spoke.is_empty() {
        say(format!(
            "  {} spoke, of {} about this server:",
            count(spoke.len(), "pattern"),
            count(selected.rules().count(), "rule")
        ));
        spoke.into_iter().for_each(&mut say);
    } else {
        say(format!(
            "  none of the {} about this server speaks about it",
            count(selected.rules().count(), "rule")
        ));
    }
    out
}

fn verdict(decision: &Decision<'_>) -> String {
    match (decision.verdict, decision.rule) {
        (Verdict::Deny, Some(rule)) => {
            format!("deny: a finding `{}` of severity {}", rule.kind.id(), rule.severity.name())
        }
        (Verdict::Allow, _) => "allow: no finding, whatever was learned".into(),
        _ => "the rules say nothing: the baseline decides".into(),
    }
}

fn because(decision: &Decision<'_>, rule: &Rule) -> String {
    let whose = match rule.origin {
        Origin::Person => "a person's rule",
        Origin::Pack => "a shipped rule",
    };
    let mut out = match (decision.exception, decision.verdict) {
        (Some(e), _) => {
            let until = e.expires.map(|d| format!(", until {d}")).unwrap_or_default();
            let what = if decision.verdict == Verdict::Allow { "permits it" } else { "takes its deny back" };
            format!(
                "because an exception of `{}` ({whose}, {}) {what}{until}: {}",
                rule.id,
                place(rule, e.at),
                safe(&e.reason)
            )
        }
        (None, _) => {
            let (text, at) = decision.pattern.unwrap_or(("", At::default()));
            format!("because of `{}` in `{}` ({whose}, {})", safe(text), rule.id, place(rule, at))
        }
    };
    if let (None, Some(description)) =
        (decision.exception, rule.written.description.as_deref().or(rule.written.name.as_deref()))
    {
        out.push_str("\n  ");
        out.push_str(&safe(description.trim()));
    }
    out
}

fn place(rule: &Rule, at: At) -> String {
    let line = if at == At::default() { rule.place.at.line } else { at.line };
    format!("{}:{line}", safe(&rule.place.file))
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// An act in a few words.
pub(super) fn describe(act: &Act<'_>) -> String {
    match act {
        Act::Exec { file, script, memfd, deleted, .. } => {
            let mark = match (memfd, deleted) {
                (true, _) => " (from memory)",
                (false, true) => " (deleted file)",
                _ => "",
            };
            let script = script.map(|s| format!(" for {}", safe(s))).unwrap_or_default();
            format!("exec of {}{mark}{script}", safe(file))
        }
        Act::File { access, path, .. } => {
            let what = match access {
                Access::Read => "read",
                Access::Write => "write",
                Access::Delete => "removal",
                Access::Change => "change of mode or owner",
            };
            format!("{what} of {}", safe(path))
        }
        Act::Connect { address, name, port, protocol } => {
            let name = name.map(|n| format!(" ({})", safe(n))).unwrap_or_default();
            format!("connect to {}/{}{name}", std::net::SocketAddr::new(*address, *port), safe(protocol))
        }
        Act::Listen { address, port, protocol } => {
            format!("listen on {}/{}", std::net::SocketAddr::new(*address, *port), safe(protocol))
        }
        Act::Dns { name, .. } => format!("question for {}", safe(name)),
        Act::Sni { name, .. } => format!("TLS handshake for {}", safe(name)),
        Act::Unix { path, listen: false } => format!("connect to socket {}", safe(path)),
        Act::Unix { path, listen: true } => format!("bind of socket {}", safe(path)),
        Act::Syscall { abi, nr } => {
            let name = super::syscalls::name(*abi, *nr).map_or_else(|| nr.to_string(), ToOwned::to_owned);
            format!("system call {name}")
        }
        Act::Special { name, .. } => format!("system call {}", safe(name)),
        Act::Uring { name } => format!("io_uring request {}", safe(name)),
    }
}

impl super::select::Selected {
    /// Calls `f` with every pattern that matches an act.
    fn each_hit(&self, act: &Act<'_>, mut f: impl FnMut(&Rule, Part, &str, At)) {
        self.each(act, &mut |_, rule, hit| f(rule, hit.part, hit.text, hit.at));
    }
}
