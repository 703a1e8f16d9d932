//! A learned baseline as a rule file: what a person reads, edits, commits and imports elsewhere.
//!
//! One rule for each scope, from the finest names. Kinds (`{n}`, `{hash}`, ...) become `*`, so the
//! rules permit what the baseline knows and what looks alike. What the rule language cannot say, or
//! could only say by permitting far too much, is listed at the top of the file.

#[cfg(test)]
mod tests;

use std::{fmt::Write as _, net::IpAddr};

use crate::{
    baseline::{Baseline, Dimension, ScopeKey, roots},
    output::SyscallAbi,
    rules::{
        self, Where, Who, escape,
        value::{Text, Texts},
        write,
        written::{Rule, RuleFile, Sections},
    },
};

/// Kinds that a name may have in place of a part.
const KINDS: [&str; 5] = ["{n}", "{hash}", "{uuid}", "{random}", "{long}"];
/// Ports that a system gives out by itself.
const HIGH: &str = "32768-65535";
/// Names listed at the top at most.
const LISTED: usize = 200;

/// A baseline as rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// The rule file.
    pub text: String,
    /// What stands in no rule: `scope: dimension name`.
    pub left_out: Vec<String>,
}

/// Writes a baseline as a rule file.
#[must_use]
pub fn export(baseline: &Baseline) -> Export {
    let mut left_out = Vec::new();
    let mut out = RuleFile::default();
    for (scope, members) in baseline.finest() {
        let at = match scope {
            ScopeKey::Startup => Where::Startup,
            ScopeKey::Ambient => Where::Ambient,
            ScopeKey::Tool(tool) => Where::Tool(tool.clone()),
            // Only means are kept of it.
            ScopeKey::Session | ScopeKey::Whole => continue,
        };
        let mut allow = Sections::default();
        for (dimension, name) in members {
            if !add(&mut allow, dimension, name) {
                left_out.push(format!("{scope}: {} {name}", word(dimension)));
            }
        }
        for list in lists(&mut allow) {
            list.0.sort_by(|a, b| a.value.cmp(&b.value));
            list.0.dedup();
        }
        if allow == Sections::default() {
            continue;
        }
        let who = Who { server: baseline.key.name.clone(), scope: at, ..Who::default() };
        out.rules.push(Rule {
            id: Text::new(id(baseline, scope)),
            name: Some(format!("What {} does in {scope}", visible(&baseline.key.name))),
            matches: write::match_of(&who),
            allow,
            ..Rule::default()
        });
    }
    let yaml = rules::export(&out);
    let (editor, yaml) = yaml.split_once('\n').unwrap_or(("", &yaml));
    let mut text = format!("{editor}\n");
    // Writing to a string cannot fail.
    let _written = head(baseline, &left_out, &mut text);
    text.push_str(yaml);
    Export { text, left_out }
}

fn head(baseline: &Baseline, left_out: &[String], text: &mut String) -> std::fmt::Result {
    let s = baseline.summary();
    writeln!(text, "# Baseline {}, {} calls in {} sessions.", visible(&s.identity), s.calls, s.sessions)?;
    writeln!(text, "# Programs are permitted with any arguments; `exec.args` narrows that.")?;
    if !left_out.is_empty() {
        writeln!(text, "# Not in these rules, because no pattern says it without saying far more:")?;
        for name in left_out.iter().take(LISTED) {
            writeln!(text, "#   {}", visible(name))?;
        }
        if left_out.len() > LISTED {
            writeln!(text, "#   and {} more", left_out.len() - LISTED)?;
        }
    }
    Ok(())
}

/// Names are chosen by servers: no line of theirs may become one of the file.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { '?' } else { c })
        .collect()
}

/// Stable: the same scope of the same baseline gives the same id.
fn id(baseline: &Baseline, scope: &ScopeKey) -> String {
    let mut hash = blake3::Hasher::new();
    for part in [baseline.key.to_string(), scope.to_string()] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let hex = hash.finalize().to_hex();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = baseline.key.name.chars().take(32).map(plain).collect();
    format!("baseline-{}-{}", name.trim_matches('-'), hex.get(..12).unwrap_or_default())
}

fn word(dimension: Dimension) -> String {
    format!("{dimension:?}").to_lowercase()
}

fn lists(s: &mut Sections) -> [&mut Texts; 12] {
    [
        &mut s.files.read,
        &mut s.files.write,
        &mut s.files.delete,
        &mut s.files.change,
        &mut s.network.connect,
        &mut s.network.listen,
        &mut s.network.dns,
        &mut s.exec.paths,
        &mut s.unix,
        &mut s.unix_listen,
        &mut s.syscalls,
        &mut s.io_uring,
    ]
}

/// Adds a name at its finest level; false when no pattern says it.
fn add(to: &mut Sections, dimension: Dimension, name: &str) -> bool {
    let (list, patterns): (&mut Texts, Option<Vec<String>>) = match dimension {
        Dimension::Read => (&mut to.files.read, path(name).map(one)),
        Dimension::Write => (&mut to.files.write, path(name).map(one)),
        Dimension::Delete => (&mut to.files.delete, path(name).map(one)),
        Dimension::Change => (&mut to.files.change, path(name).map(one)),
        Dimension::Exec => (&mut to.exec.paths, program(name).map(one)),
        Dimension::Connect => (&mut to.network.connect, peer(name).map(one)),
        Dimension::Listen => (&mut to.network.listen, listener(name)),
        Dimension::Dns => (&mut to.network.dns, host(name).map(one)),
        Dimension::Unix => match name.strip_prefix("bind ") {
            Some(name) => (&mut to.unix_listen, unix(name).map(one)),
            None => (&mut to.unix, unix(name).map(one)),
        },
        Dimension::Syscall => (&mut to.syscalls, syscall(name).map(one)),
        Dimension::Special => {
            (&mut to.syscalls, Some(name.to_owned()).filter(|n| write::is_syscall(n)).map(one))
        }
        Dimension::Uring => (&mut to.io_uring, (!name.is_empty()).then(|| one(escape(name)))),
    };
    let found = patterns.is_some();
    list.0.extend(patterns.into_iter().flatten().map(Text::new));
    found
}

fn one(text: String) -> Vec<String> {
    vec![text]
}

/// Kinds become `*`, all else is meant as it stands.
fn glob(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('{') {
        out.push_str(&escape(&rest[..at]));
        rest = &rest[at..];
        match KINDS.iter().find_map(|kind| rest.strip_prefix(kind)) {
            Some(after) => {
                if !out.ends_with('*') || out.ends_with("\\*") {
                    out.push('*');
                }
                rest = after;
            }
            None => {
                out.push_str(&escape("{"));
                rest = &rest[1..];
            }
        }
    }
    out.push_str(&escape(rest));
    out
}

/// Whether anything of a pattern is meant as it stands.
fn says_something(pattern: &str) -> bool {
    pattern.chars().any(|c| !matches!(c, '*' | '/' | '.' | '-' | '_' | '\\' | '?'))
}

fn path(name: &str) -> Option<String> {
    // Cut: what it ends in is not known.
    if name.ends_with('…') {
        return None;
    }
    let below = |root: &str| name.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let pattern = if let Some(rest) = below(roots::ROOT).or_else(|| below(roots::CWD)) {
        format!("{}{}", roots::ROOT, glob(rest))
    } else if let Some(rest) = below(roots::HOME) {
        format!("{}{}", roots::HOME, glob(rest))
    } else if let Some(rest) = below(roots::PACKAGE) {
        // Where packages are differs from host to host, and so no root of rules stands for it.
        let rest = glob(rest);
        if !says_something(&rest) {
            return None;
        }
        format!("**{rest}")
    } else if name.is_empty() {
        "/".to_owned()
    } else if name.starts_with('/') {
        glob(name)
    } else {
        return None;
    };
    let hidden = pattern.split('/').any(|part| part.contains("**") && part != "**");
    (!hidden && write::is_path(&pattern)).then_some(pattern)
}

fn program(name: &str) -> Option<String> {
    let (file, _shape) = name.split_once(" · ")?;
    // From memory: rules permit all such programs or none.
    if file.contains("memfd:") || file.ends_with(" (deleted)") {
        return None;
    }
    path(file)
}

fn unix(name: &str) -> Option<String> {
    if name.starts_with('@') {
        let pattern = glob(name);
        return (says_something(&pattern[1..]) && write::is_unix(&pattern)).then_some(pattern);
    }
    path(name).filter(|pattern| pattern != "/" && write::is_unix(pattern))
}

fn host(name: &str) -> Option<String> {
    // A `*` spans dots: what owns the name must be written out.
    let labels: Vec<&str> = name.split('.').collect();
    let owner = &labels[labels.len().saturating_sub(2)..];
    if owner.iter().any(|label| label.is_empty() || label.starts_with('{')) {
        return None;
    }
    let pattern = glob(name);
    (says_something(&pattern) && write::is_host(&pattern)).then_some(pattern)
}

/// Host, port and protocol; a protocol that rules do not know is any.
fn parts(name: &str) -> Option<(&str, &str, String)> {
    let (rest, protocol) = name.rsplit_once('/')?;
    let (host, port) = rest.rsplit_once(':')?;
    let port = if port == "{high}" { HIGH } else { port };
    let protocol = if write::is_protocol(protocol) { format!("/{protocol}") } else { String::new() };
    Some((host, port, protocol))
}

fn peer(name: &str) -> Option<String> {
    let (to, port, protocol) = parts(name)?;
    let host = match to.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(v4)) => v4.to_string(),
        Ok(IpAddr::V6(v6)) => format!("[{v6}]"),
        Err(_) => host(to)?,
    };
    let pattern = format!("{host}:{port}{protocol}");
    write::is_peer(&pattern).then_some(pattern)
}

fn listener(name: &str) -> Option<Vec<String>> {
    let (class, port, protocol) = parts(name)?;
    let hosts: &[&str] = match class {
        "loopback" => &["127.0.0.0/8", "[::1]"],
        "unspecified" => &["0.0.0.0", "[::]"],
        "link-local" => &["169.254.0.0/16", "[fe80::/10]"],
        "private" => &["private"],
        "multicast" => &["224.0.0.0/4", "255.255.255.255", "[ff00::/8]"],
        "public" => &["public"],
        _ => return None,
    };
    // The system is asked for one of these by 0.
    let ports: &[&str] = if port == HIGH { &[HIGH, "0"] } else { &[port] };
    let all: Vec<String> =
        hosts.iter().flat_map(|host| ports.iter().map(move |port| format!("{host}:{port}"))).collect();
    let all: Vec<String> = all.into_iter().map(|pattern| pattern + &protocol).collect();
    all.iter().all(|pattern| write::is_peer(pattern)).then_some(all)
}

fn syscall(name: &str) -> Option<String> {
    let (table, nr) = name.split_once(':')?;
    let abi = match table {
        "x86_64" => SyscallAbi::X86_64,
        "i386" => SyscallAbi::I386,
        _ => return None,
    };
    let pattern = write::syscall(abi, nr.parse().ok()?);
    write::is_syscall(&pattern).then_some(pattern)
}
