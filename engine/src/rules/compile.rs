//! From rules as written to rules as meant: every pattern, unit and date is checked at its place.

use super::{
    case,
    glob::PathPattern,
    limits::Metric,
    names::{NameGlob, Reason},
    net::Destination,
    problem::{Problem, did_you_mean},
    set::{Exception, Matcher, Place, Rule, Source},
    syscalls,
    table::{Entry, Part, Programs, Slot, Syscalls, Table},
    units::Day,
    value::{At, Text, Texts},
    written::{self, Learned, Sections},
};
use crate::{finding::Kind, output::SyscallAbi};

/// A file of a hundred thousand bad patterns needs no list of them all.
pub(super) const MAX_PROBLEMS: usize = 200;

struct Checker<'a> {
    source: &'a Source,
    rule: String,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn error(&mut self, at: At, message: impl Into<String>, remedy: Option<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let problem = Problem::error(&self.source.name, &self.source.text, at, message);
            self.problems.push(problem.rule(&self.rule).maybe(remedy));
        }
    }

    /// Patterns that are well made; the others are told.
    fn each<P>(&mut self, texts: &Texts, parse: impl Fn(&str) -> Result<P, Reason>) -> Vec<(P, Text)> {
        let mut out = Vec::with_capacity(texts.0.len());
        for text in texts {
            match parse(&text.value) {
                Ok(pattern) => out.push((pattern, text.clone())),
                Err(reason) => {
                    let shown: String = text.value.chars().take(80).collect();
                    let (what, remedy) = match reason.split_once("; ") {
                        Some((what, remedy)) => (what.to_owned(), Some(remedy.to_owned())),
                        None => (reason, None),
                    };
                    self.error(text.at, format!("`{shown}`: {what}"), remedy);
                }
            }
        }
        out
    }

    fn names(&mut self, texts: &Texts) -> Vec<NameGlob> {
        self.each(texts, NameGlob::parse).into_iter().map(|(glob, _)| glob).collect()
    }

    fn entries<P>(
        &mut self,
        texts: &Texts,
        part: Part,
        parse: impl Fn(&str) -> Result<P, Reason>,
    ) -> Vec<Entry<P>> {
        let entry =
            |(pattern, text): (P, Text)| Entry { pattern, part, text: text.value.into(), at: text.at };
        self.each(texts, parse).into_iter().map(entry).collect()
    }

    fn matcher(&mut self, written: &written::Match) -> Matcher {
        let mut out = Matcher { any_scope: written.tool.is_empty(), ..Matcher::default() };
        for text in &written.tool {
            match text.value.as_str() {
                "*" => out.any_scope = true,
                "@startup" => out.startup = true,
                "@ambient" => out.ambient = true,
                other if other.starts_with('@') => {
                    let meant = did_you_mean(other, ["@startup", "@ambient"]);
                    let remedy =
                        "the scopes are `@startup` and `@ambient`; a tool's own `@` is written `\\@`";
                    self.error(text.at, format!("unknown scope `{other}`"), meant.or(Some(remedy.into())));
                }
                _ => out.tool.extend(self.names(&Texts(vec![text.clone()]))),
            }
        }
        out.server = self.names(&written.server);
        out.package = self.names(&written.package);
        out.user = self.names(&written.user);
        out
    }

    fn sections(&mut self, written: &Sections, part: Part, table: &mut Table) {
        let Sections { files, network, exec, unix, unix_listen, syscalls, io_uring } = written;
        let written::Files { read, write, delete, change } = files;
        for (slot, texts) in
            [(Slot::Read, read), (Slot::Write, write), (Slot::Delete, delete), (Slot::Change, change)]
        {
            let entries = self.entries(texts, part, PathPattern::parse);
            table.add_paths(slot, entries);
        }
        for (slot, texts) in [(Slot::Unix, unix), (Slot::UnixListen, unix_listen)] {
            let entries = self.entries(texts, part, PathPattern::parse_unix);
            table.add_paths(slot, entries);
        }
        let written::Network { connect, listen, dns } = network;
        let [connects, listens] = &mut table.peers;
        connects.extend(self.entries(connect, part, Destination::parse));
        listens.extend(self.entries(listen, part, Destination::parse_listen));
        table.dns.extend(self.entries(dns, part, NameGlob::parse_host));
        table.uring.extend(self.entries(io_uring, part, NameGlob::parse));
        table.syscalls.extend(self.entries(syscalls, part, parse_syscall));
        let written::Exec { paths, args, memfd, deleted } = exec;
        let programs = Programs {
            part,
            paths: self.entries(paths, part, PathPattern::parse),
            args: self.names(args),
            memfd: *memfd,
            deleted: *deleted,
        };
        if !paths.is_empty() || !args.is_empty() || *memfd || *deleted {
            table.exec.push(programs);
        }
        if part != Part::Deny && !args.is_empty() && paths.is_empty() {
            let at = args.iter().next().map(|t| t.at).unwrap_or_default();
            self.error(at, "arguments are permitted without a program", Some("add `paths`".into()));
        }
    }

    fn limits(&mut self, written: &written::Limits) -> Vec<(Metric, u64)> {
        let mut out = Vec::new();
        for metric in Metric::ALL {
            let Some(text) = limit_of(written, metric) else { continue };
            match metric.unit().parse(&text.value) {
                Some(value) => out.push((metric, value)),
                None => {
                    let shown: String = text.value.chars().take(40).collect();
                    let message = format!("`{shown}` is no limit of {}", metric.name());
                    self.error(text.at, message, Some(format!("write {}", metric.unit().example())));
                }
            }
        }
        out
    }

    fn exception(&mut self, written: &written::Exception) -> Exception {
        if written.reason.value.trim().is_empty() {
            self.error(written.reason.at, "the reason is empty", Some("say why, and who says so".into()));
        }
        let expires = written.expires.as_ref().and_then(|text| {
            let day = Day::parse(&text.value);
            if day.is_none() {
                let shown: String = text.value.chars().take(40).collect();
                self.error(text.at, format!("`{shown}` is no date"), Some("write it as 2027-01-31".into()));
            }
            day
        });
        Exception {
            id: written.id.as_ref().map(|id| id.value.clone()),
            reason: written.reason.value.clone(),
            expires,
            at: written.reason.at,
        }
    }

    /// The same words in `allow` and `deny` of one rule: one of them is a slip.
    fn contradictions(&mut self, allow: &Sections, deny: &Sections) {
        for ((name, allowed), (_, denied)) in lists(allow).into_iter().zip(lists(deny)) {
            let words: std::collections::HashSet<&str> = allowed.iter().map(|t| t.value.as_str()).collect();
            for text in denied.iter().filter(|text| words.contains(text.value.as_str())) {
                let message = format!("`{}` is both allowed and denied in {name}", text.value);
                self.error(text.at, message, Some("remove one of the two".into()));
            }
        }
    }
}

/// Compiles one rule. What is wrong goes to `problems`; the rule that comes back is then not used.
pub(super) fn rule(
    written: written::Rule,
    source: &Source,
    place: Place,
    file: usize,
    problems: &mut Vec<Problem>,
) -> Rule {
    let mut c = Checker { source, rule: written.id.value.clone(), problems };
    let id = &written.id.value;
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if id.is_empty() || id.len() > 128 || !id.bytes().all(good) {
        let remedy = "1 to 128 lower-case letters, digits, `-`, `_` and `.`";
        c.error(written.id.at, "this is no id", Some(remedy.into()));
    }
    let mut table = Table::default();
    let matches = c.matcher(&written.matches);
    c.sections(&written.allow, Part::Allow, &mut table);
    c.sections(&written.deny, Part::Deny, &mut table);
    c.contradictions(&written.allow, &written.deny);
    if written.learned == Some(Learned::Only) && written.allow != Sections::default() {
        let remedy =
            "`learned: only` leaves it to the baseline what is permitted; use `merge`, or drop `allow`";
        c.error(written.id.at, "`learned: only` and `allow` contradict each other", Some(remedy.into()));
    }
    let mut exceptions = Vec::new();
    for (i, exception) in written.exceptions.iter().enumerate() {
        let Ok(i) = u16::try_from(i) else {
            c.error(exception.reason.at, "more than 65536 exceptions in one rule", None);
            break;
        };
        let sections = exception.sections();
        if sections == Sections::default() {
            let remedy = "name files, network, exec, unix, syscalls or io_uring";
            c.error(exception.reason.at, "the exception permits nothing", Some(remedy.into()));
        }
        c.sections(&sections, Part::Exception(i), &mut table);
        exceptions.push(c.exception(exception));
    }
    let limits = c.limits(&written.limits);
    let silent = written.allow == Sections::default()
        && written.deny == Sections::default()
        && written.limits == written::Limits::default()
        && written.learned.is_none()
        && exceptions.is_empty();
    if silent {
        let remedy = "add `allow`, `deny`, `limits`, `learned` or `exceptions`";
        c.error(written.id.at, "the rule says nothing", Some(remedy.into()));
    }
    for test in &written.tests {
        if let Err((at, message)) = case::act(test) {
            c.error(at, message, None);
        }
    }
    let kind = written.kind.unwrap_or(Kind::RuleHit);
    let mut taxonomy = kind.taxonomy();
    let own = |texts: &Texts| texts.iter().map(|t| t.value.clone()).collect::<Vec<_>>();
    for (texts, ids) in [
        (&written.tags.attack, &mut taxonomy.attack),
        (&written.tags.atlas, &mut taxonomy.atlas),
        (&written.tags.owasp_mcp, &mut taxonomy.owasp_mcp),
    ] {
        if !texts.is_empty() {
            *ids = own(texts);
        }
    }
    Rule {
        id: id.clone(),
        origin: source.origin,
        place,
        kind,
        severity: written.severity.unwrap_or_else(|| kind.severity()),
        taxonomy,
        response: written.response.clone(),
        learned: written.learned,
        exceptions,
        limits,
        matches,
        table,
        file,
        written,
    }
}

impl Table {
    fn add_paths(&mut self, slot: Slot, entries: Vec<Entry<PathPattern>>) {
        if let Some(list) = self.paths.get_mut(slot as usize) {
            list.extend(entries);
        }
    }
}

pub(super) fn limit_of(limits: &written::Limits, metric: Metric) -> Option<&Text> {
    match metric {
        Metric::Connects => limits.connects.as_ref(),
        Metric::BytesOut => limits.bytes_out.as_ref(),
        Metric::BytesIn => limits.bytes_in.as_ref(),
        Metric::Children => limits.children.as_ref(),
        Metric::Files => limits.files.as_ref(),
        Metric::Execs => limits.execs.as_ref(),
        Metric::Duration => limits.duration.as_ref(),
        Metric::Cpu => limits.cpu.as_ref(),
        Metric::Memory => limits.memory.as_ref(),
        Metric::ReplyBytes => limits.reply_bytes.as_ref(),
    }
}

/// The lists of a section by name.
fn lists(s: &Sections) -> [(&'static str, &Texts); 12] {
    [
        ("files.read", &s.files.read),
        ("files.write", &s.files.write),
        ("files.delete", &s.files.delete),
        ("files.change", &s.files.change),
        ("network.connect", &s.network.connect),
        ("network.listen", &s.network.listen),
        ("network.dns", &s.network.dns),
        ("exec.paths", &s.exec.paths),
        ("unix", &s.unix),
        ("unix_listen", &s.unix_listen),
        ("syscalls", &s.syscalls),
        ("io_uring", &s.io_uring),
    ]
}

/// `ptrace`, `x86_64:ptrace`, `i386:*`, `i386:26`.
pub(super) fn parse_syscall(text: &str) -> Result<Syscalls, Reason> {
    let (abi, name) = match text.split_once(':') {
        Some(("x86_64", name)) => (Some(SyscallAbi::X86_64), name),
        Some(("i386", name)) => (Some(SyscallAbi::I386), name),
        Some((abi, _)) => return Err(format!("unknown table `{abi}`; there are `x86_64` and `i386`")),
        None => (None, text),
    };
    if name == "*" {
        return Ok(Syscalls { abi, name: None, x86_64: None, i386: None });
    }
    let number = |table: SyscallAbi| {
        if abi.is_some_and(|own| own != table) { None } else { syscalls::number(table, name) }
    };
    let (mut x86_64, mut i386) = (number(SyscallAbi::X86_64), number(SyscallAbi::I386));
    let mut name = name.to_owned();
    // One that our headers do not know yet.
    if let (Some(abi), Ok(nr)) = (abi, name.parse::<u32>()) {
        match abi {
            SyscallAbi::X86_64 => x86_64 = Some(nr),
            SyscallAbi::I386 => i386 = Some(nr),
        }
        if let Some(known) = syscalls::name(abi, nr) {
            known.clone_into(&mut name);
        }
    }
    if x86_64.is_none() && i386.is_none() {
        let known = syscalls::names(abi.unwrap_or(SyscallAbi::X86_64));
        let meant = did_you_mean(&name, known).map(|m| format!("; {m}")).unwrap_or_default();
        return Err(format!("no system call has this name{meant}"));
    }
    Ok(Syscalls { abi, name: Some(name.into()), x86_64, i386 })
}
