//! Inline tests: an act in words, and what the rules of its file must say about it.

use std::sync::Arc;

use serde::Serialize;

use super::{
    compile::parse_syscall,
    net::parse_peer,
    select::{Decision, Verdict, Where, Who},
    set::{Rule, RuleSet},
    value::{At, Text, Texts},
    written::{Expect, Test},
};
use crate::{
    act::{Access, Act},
    output::SyscallAbi,
};

/// An act that owns what it needs.
#[derive(Debug)]
pub struct Case<'t> {
    what: What<'t>,
    argv: Vec<String>,
}

#[derive(Debug)]
enum What<'t> {
    Exec(&'t Test, &'t str),
    Plain(Act<'t>),
}

impl Case<'_> {
    /// The act.
    #[must_use]
    pub fn act(&self) -> Act<'_> {
        match &self.what {
            What::Plain(act) => *act,
            What::Exec(test, file) => Act::Exec {
                file,
                argv: &self.argv,
                script: test.script.as_ref().map(|t| t.value.as_str()),
                memfd: test.memfd,
                deleted: test.deleted,
            },
        }
    }
}

/// What one test came out as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestResult {
    /// Rule that it stands in.
    pub rule: String,
    /// What it is called.
    pub test: String,
    /// File.
    pub file: String,
    /// Line of it.
    pub line: u32,
    /// Whether all was as it must be.
    pub passed: bool,
    /// What was wrong.
    pub why: Option<String>,
}

/// The act of a test.
///
/// # Errors
///
/// What is wrong with it, and where.
pub fn act(test: &Test) -> Result<Case<'_>, (At, String)> {
    let mut found: Vec<(At, What<'_>)> = Vec::new();
    for (access, path) in [
        (Access::Read, &test.read),
        (Access::Write, &test.write),
        (Access::Delete, &test.delete),
        (Access::Change, &test.change),
    ] {
        if let Some(Text { value, at }) = path {
            let act =
                Act::File { access, path: value, directory: false, truncated: value.starts_with("...") };
            found.push((*at, What::Plain(act)));
        }
    }
    if let Some(Text { value, at }) = &test.exec {
        found.push((*at, What::Exec(test, value)));
    }
    let peer = |text: &Text| -> Result<_, (At, String)> {
        let Text { value, at } = text;
        // The protocol is borrowed from the text: it lives as long as the test.
        if parse_peer(value).is_none() {
            let shown: String = value.chars().take(80).collect();
            return Err((*at, format!("`{shown}` is no address and port, such as `203.0.113.7:443/tcp`")));
        }
        Ok(())
    };
    for (text, listen) in [(&test.connect, false), (&test.listen, true)] {
        let Some(text) = text else { continue };
        peer(text)?;
        if let Some((address, port, protocol)) = parse_peer(&text.value) {
            let name = test.resolved.as_ref().map(|t| t.value.as_str());
            let act = if listen {
                Act::Listen { address, port, protocol }
            } else {
                Act::Connect { address, name, port, protocol }
            };
            found.push((text.at, What::Plain(act)));
        }
    }
    if let Some(Text { value, at }) = &test.dns {
        found.push((*at, What::Plain(Act::Dns { name: value, record: "A" })));
    }
    if let Some(Text { value, at }) = &test.sni {
        let address = std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));
        found.push((*at, What::Plain(Act::Sni { name: value, address, port: 443 })));
    }
    for (text, listen) in [(&test.unix, false), (&test.unix_listen, true)] {
        if let Some(Text { value, at }) = text {
            found.push((*at, What::Plain(Act::Unix { path: value, listen })));
        }
    }
    if let Some(text) = &test.syscall {
        found.push((text.at, What::Plain(syscall(text)?)));
    }
    if let Some(Text { value, at }) = &test.io_uring {
        found.push((*at, What::Plain(Act::Uring { name: value })));
    }
    if let Some(tool) = &test.tool
        && tool.value.starts_with('@')
        && !matches!(tool.value.as_str(), "@startup" | "@ambient")
    {
        return Err((tool.at, format!("unknown scope `{}`", tool.value)));
    }
    let argv =
        test.exec.iter().map(|t| t.value.clone()).chain(test.args.iter().map(|t| t.value.clone())).collect();
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some((_, what)), None) => Ok(Case { what, argv }),
        (Some(_), Some((at, _))) => Err((at, "a test has one act; this is a second one".into())),
        (None, _) => {
            let acts = "read, write, delete, change, exec, connect, listen, dns, sni, unix, unix_listen, syscall, io_uring";
            Err((test.name.at, format!("the test has no act: one of {acts}")))
        }
    }
}

fn syscall(text: &Text) -> Result<Act<'_>, (At, String)> {
    let parsed = parse_syscall(&text.value).map_err(|reason| (text.at, reason))?;
    let name = text.value.split_once(':').map_or(text.value.as_str(), |(_, name)| name);
    let (abi, nr) = match (parsed.abi, parsed.x86_64, parsed.i386) {
        (Some(SyscallAbi::I386), _, Some(nr)) => (SyscallAbi::I386, nr),
        (_, Some(nr), _) => (SyscallAbi::X86_64, nr),
        (_, None, Some(nr)) => (SyscallAbi::I386, nr),
        _ => return Err((text.at, "a test makes one system call, by its name".into())),
    };
    // The native ones that deserve it are told by a record of their own.
    let special = abi == SyscallAbi::X86_64 && crate::text::special_name(false, nr) == name;
    Ok(if special { Act::Special { name, result: 0 } } else { Act::Syscall { abi, nr } })
}

/// Whose act a test is about: what it says, else what `match` names without a wildcard, else
/// something that globs of everything match.
#[must_use]
pub fn who(test: &Test, rule: &Rule) -> Who {
    let matches = &rule.written.matches;
    let plain = |texts: &Texts| {
        let [text] = texts.0.as_slice() else { return None };
        (!text.value.contains(['*', '?', '{', '\\', '@'])
            || text.value.contains(":@") && !text.value.contains('*'))
        .then(|| text.value.clone())
    };
    let own = |text: &Option<Text>| text.as_ref().map(|t| t.value.clone());
    let tool = own(&test.tool).or_else(|| match matches.tool.0.as_slice() {
        [one] if matches!(one.value.as_str(), "@startup" | "@ambient") => Some(one.value.clone()),
        _ => plain(&matches.tool),
    });
    let scope = match tool.as_deref() {
        Some("@startup") => Where::Startup,
        Some("@ambient") => Where::Ambient,
        Some(tool) => Where::Tool(tool.to_owned()),
        None => Where::Tool("some_tool".into()),
    };
    Who {
        server: own(&test.server).or_else(|| plain(&matches.server)).unwrap_or_else(|| "some-server".into()),
        scope,
        package: own(&test.package).or_else(|| plain(&matches.package)),
        user: own(&test.user).or_else(|| plain(&matches.user)).or_else(|| Some("dev".into())),
        home: own(&test.home).or_else(|| Some("/home/dev".into())),
        roots: vec![own(&test.root).unwrap_or_else(|| "/srv/project".into())],
    }
}

/// Runs the inline tests. Each sees the rules of its own file only: what else is installed on a host
/// changes nothing.
#[must_use]
pub fn run_tests(set: &Arc<RuleSet>) -> Vec<TestResult> {
    let mut out = Vec::new();
    for rule in &set.rules {
        for test in &rule.written.tests {
            let why = run(set, rule, test).err();
            out.push(TestResult {
                rule: rule.id.clone(),
                test: test.name.value.clone(),
                file: rule.place.file.to_string(),
                line: test.name.at.line,
                passed: why.is_none(),
                why,
            });
        }
    }
    out
}

fn run(set: &Arc<RuleSet>, rule: &Rule, test: &Test) -> Result<(), String> {
    let case = act(test).map_err(|(_, message)| message)?;
    let who = who(test, rule);
    if !rule.matches.matches(&who) {
        return Err("the rule does not match this server, tool, package and user".into());
    }
    let selected = set.select(&who, |other| other.file == rule.file);
    let decision = selected.decide(&case.act(), set.today);
    let expected = match test.expect {
        Expect::Allow => Verdict::Allow,
        Expect::Deny => Verdict::Deny,
        Expect::None => Verdict::None,
    };
    let by = by(&decision);
    if decision.verdict != expected {
        return Err(format!("expected {}, found {}{by}", word(expected), word(decision.verdict)));
    }
    match decision.rule {
        Some(other) if decision.verdict == Verdict::Deny && other.id != rule.id => {
            Err(format!("denied by rule `{}`, not by this one", other.id))
        }
        _ => Ok(()),
    }
}

fn by(decision: &Decision<'_>) -> String {
    let Some(rule) = decision.rule else { return String::new() };
    let pattern = decision.pattern.map(|(text, _)| format!(", `{text}`")).unwrap_or_default();
    format!(" (rule `{}`{pattern})", rule.id)
}

/// As in `expect`.
pub(super) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::None => "none",
    }
}
