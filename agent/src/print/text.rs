//! For people: servers as they are found, calls with their effects below them, and warnings. Effects
//! of a call are kept until the call is summed up; what belongs to no single call is told at once.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
};

use engine::{
    finding::{Finding, Severity},
    output::{
        CallLine, CallStatus, CoverageState, Effect, EffectLine, Line, NetOp, Scope, ScopeKind, ServerEvent,
        ServerLine,
    },
};
use owo_colors::{OwoColorize as _, Style};

use super::safe;

/// Effects shown below a call; the rest is counted.
const SHOWN: usize = 24;
/// Effects kept of calls that have not ended.
const KEPT: usize = 4096;

/// The text form of the stream.
pub(crate) struct Text {
    colour: bool,
    /// No call will come to sum effects up: each is told.
    one_by_one: bool,
    /// By server and call: what was done, and how often.
    calls: HashMap<(String, u64), BTreeMap<String, u64>>,
    startup: HashMap<String, u64>,
    lost: BTreeMap<String, u64>,
    findings: HashMap<String, Severity>,
}

impl Text {
    pub(crate) fn new(colour: bool) -> Self {
        Self {
            colour,
            one_by_one: false,
            calls: HashMap::new(),
            startup: HashMap::new(),
            lost: BTreeMap::new(),
            findings: HashMap::new(),
        }
    }

    /// For a stream without calls.
    pub(crate) fn one_by_one(self) -> Self {
        Self { one_by_one: true, ..self }
    }

    fn paint(&self, text: &str, style: Style) -> String {
        if self.colour { text.style(style).to_string() } else { text.to_owned() }
    }

    pub(crate) fn line(&mut self, line: &Line, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        match line {
            Line::Server(s) => self.server(s, out),
            Line::Call(c) => self.call(c, out),
            Line::Effect(e) => self.effect(e, out),
            Line::Lost(l) => {
                *self.lost.entry(l.cause.clone()).or_default() += l.count;
                let text = format!("lost      {} × {} ({} so far)", l.count, safe(&l.cause), l.total);
                writeln!(out, "{}", self.paint(&text, Style::new().yellow()))
            }
            Line::Coverage(c) => {
                let style = match c.coverage.state {
                    CoverageState::Blind => Style::new().yellow(),
                    CoverageState::Observing | CoverageState::Enforcing => return Ok(()),
                };
                let because = c.coverage.because.as_deref().unwrap_or_default();
                let text = format!("blind     {}: {}", safe(&c.coverage.hook), safe(because));
                writeln!(out, "{}", self.paint(&text, style))
            }
            Line::Finding(f) => self.finding(f, out),
            Line::Response(r) => {
                let by = r.instead_of.map(|a| format!(" instead of {a}")).unwrap_or_default();
                let text = format!(
                    "response  {}{by} {}: {} [{}]",
                    r.action,
                    safe(&r.server.name),
                    safe(&r.result),
                    r.id
                );
                writeln!(out, "{}", self.paint(&text, Style::new().magenta()))
            }
        }
    }

    /// Further occurrences are counted, not printed, unless they made it worse.
    fn finding(&mut self, f: &Finding, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let known = self.findings.get(&f.id).copied();
        if known.is_some_and(|severity| severity >= f.severity) {
            return Ok(());
        }
        if self.findings.len() >= KEPT {
            self.findings.clear();
        }
        self.findings.insert(f.id.clone(), f.severity);
        let style = match f.severity {
            Severity::Critical | Severity::High => Style::new().red().bold(),
            Severity::Medium => Style::new().yellow().bold(),
            Severity::Low | Severity::Info => Style::new().dimmed(),
        };
        let head = self.paint(&format!("finding   {} {}", f.severity.name(), f.kind.id()), style);
        writeln!(out, "{head}  {}  [{}]", safe(&f.sentence), f.id)
    }

    fn server(&mut self, s: &ServerLine, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let name = self.paint(&safe(&s.server.name), Style::new().bold().cyan());
        let detail = s.detail.as_deref().map(safe).unwrap_or_default();
        match s.event {
            ServerEvent::Found | ServerEvent::Identified => {
                let version = s.version.as_deref().map(|v| format!(" {}", safe(v))).unwrap_or_default();
                let client =
                    s.context.client.as_deref().map(|c| format!(", client {}", safe(c))).unwrap_or_default();
                let digest = s.digest.as_deref().and_then(|d| d.get(..12)).map(|d| format!(", sha256 {d}"));
                let digest = digest.unwrap_or_default();
                writeln!(
                    out,
                    "server    {name}{version}  pid {}, uid {}{client}{digest}",
                    s.pid, s.context.uid
                )?;
                if s.startup.partial {
                    writeln!(
                        out,
                        "          the first {:.1} ms of its start were not seen",
                        s.startup.gap_ms
                    )?;
                }
                if s.startup.unwatched {
                    writeln!(
                        out,
                        "          started-unwatched: while no agent ran; nothing was denied to it until now"
                    )?;
                }
                Ok(())
            }
            ServerEvent::Ended => writeln!(out, "ended     {name}"),
            ServerEvent::Blind => {
                writeln!(out, "{}     {name}  {detail}", self.paint("blind", Style::new().yellow()))
            }
            ServerEvent::Forging => {
                writeln!(out, "{}   {name}  {detail}", self.paint("forging", Style::new().red().bold()))
            }
        }
    }

    fn call(&mut self, c: &CallLine, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let tool = c.scope.tool.as_deref().unwrap_or_default();
        let number = c.scope.call.as_ref().map_or(0, |r| r.number);
        if let Some(n) = self.startup.remove(&c.server.id) {
            writeln!(out, "startup   {}  {n} effects before the first call", safe(&c.server.name))?;
        }
        let status = match c.status {
            CallStatus::Ok => self.paint("ok", Style::new().green()),
            CallStatus::ToolError => self.paint("tool error", Style::new().yellow()),
            CallStatus::Error => self.paint("error", Style::new().yellow()),
            CallStatus::Cancelled => self.paint("cancelled", Style::new().yellow()),
            CallStatus::NoReply => self.paint("no reply", Style::new().red()),
        };
        let mut sums = Vec::new();
        let mut sum = |n: u64, what: &str| {
            if n > 0 {
                sums.push(format!("{n} {what}"));
            }
        };
        sum(c.files, "files");
        sum(c.execs, "execs");
        sum(c.connects, "connects");
        sum(c.children, "children");
        sum(c.bytes_out, "bytes out");
        sum(c.bytes_in, "bytes in");
        sum(c.ambiguous_effects, "perhaps its own");
        let sums = if sums.is_empty() { "no effects".to_owned() } else { sums.join(", ") };
        let shown = self.paint(&format!("{}.{}", safe(&c.server.name), safe(tool)), Style::new().bold());
        writeln!(
            out,
            "call      {shown} #{number}  {status} {:.1} ms, cpu {:.1} ms, {sums}",
            c.duration_ns as f64 / 1e6,
            c.cpu_ns as f64 / 1e6,
        )?;
        let Some(effects) = self.calls.remove(&(c.server.id.clone(), number)) else {
            return Ok(());
        };
        for (text, n) in effects.iter().take(SHOWN) {
            let times = if *n > 1 { format!("  × {n}") } else { String::new() };
            writeln!(out, "            {text}{times}")?;
        }
        if effects.len() > SHOWN {
            writeln!(out, "            … and {} more", effects.len() - SHOWN)?;
        }
        Ok(())
    }

    fn effect(&mut self, e: &EffectLine, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let Some(text) = describe(&e.effect) else {
            return Ok(());
        };
        match (&e.scope.kind, &e.scope.call) {
            (ScopeKind::Startup, _) if !self.one_by_one => {
                *self.startup.entry(e.server.id.clone()).or_default() += e.count;
                Ok(())
            }
            (ScopeKind::Call, Some(call)) if !e.outlived && !self.one_by_one => {
                let kept = self.calls.entry((e.server.id.clone(), call.number)).or_default();
                if kept.len() < KEPT || kept.contains_key(&text) {
                    *kept.entry(text).or_default() += e.count;
                }
                Ok(())
            }
            _ => {
                let times = if e.count > 1 { format!("  × {}", e.count) } else { String::new() };
                let name = safe(&e.server.name);
                let scope = scope_text(&e.scope, e.outlived);
                let scope = self.paint(&scope, Style::new().magenta());
                writeln!(out, "effect    {name}  {scope}  {text}{times}")
            }
        }
    }

    pub(super) fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        if !self.lost.is_empty() {
            let sums: Vec<_> = self.lost.iter().map(|(cause, n)| format!("{n} × {}", safe(cause))).collect();
            writeln!(out, "lost in all: {}", sums.join(", "))?;
        }
        Ok(())
    }
}

fn scope_text(scope: &Scope, outlived: bool) -> String {
    let tool = |t: &Option<String>| t.as_deref().map(safe).unwrap_or_default();
    match scope.kind {
        ScopeKind::Startup => "startup".into(),
        ScopeKind::Ambient => "no call running".into(),
        ScopeKind::UnknownStart => "a request that nobody saw".into(),
        ScopeKind::Call => match &scope.call {
            Some(call) if outlived => format!("after {} #{}", tool(&scope.tool), call.number),
            Some(call) => format!("{} #{}", tool(&scope.tool), call.number),
            None => format!("a call of {}", tool(&scope.tool)),
        },
        ScopeKind::Ambiguous => {
            let all: Vec<_> = scope
                .candidates
                .iter()
                .map(|c| match (&c.call, c.kind) {
                    (Some(call), _) => format!("{} #{}", tool(&c.tool), call.number),
                    (None, ScopeKind::Startup) => "startup".into(),
                    (None, ScopeKind::UnknownStart) => "a request that nobody saw".into(),
                    (None, _) => "no call".into(),
                })
                .collect();
            format!("one of: {}", all.join(" | "))
        }
    }
}

/// An effect in a few words; `None` for those that only the sums show.
pub(crate) fn describe(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Fork { .. } | Effect::Exit { .. } | Effect::Syscall { .. } => return None,
        Effect::Exec { path, argv, script, memfd, deleted, env, .. } => {
            let mark = match (memfd, deleted) {
                (true, _) => " (from memory)",
                (false, true) => " (deleted file)",
                _ => "",
            };
            let script = script.as_deref().map(|s| format!(" for {}", safe(s))).unwrap_or_default();
            let env = if env.is_empty() { String::new() } else { format!("  [{} set]", env.join(", ")) };
            format!("exec   {}{mark}{script}  {}{env}", safe(path), safe(&argv.join(" ")))
        }
        Effect::Open { path, write, create, truncate, .. } => {
            let what = match (write, create, truncate) {
                (false, ..) => "read  ",
                (true, true, _) => "create",
                (true, false, true) => "empty ",
                (true, false, false) => "write ",
            };
            format!("{what} {}", safe(path))
        }
        Effect::PathOp { op, path, to, .. } => {
            let to = to.as_deref().map(|t| format!(" → {}", safe(t))).unwrap_or_default();
            format!("{:<6} {}{to}", format!("{op:?}").to_lowercase(), safe(path))
        }
        Effect::Net { op, address, port, protocol, name, .. } => {
            let name = name.as_deref().map(|n| format!(" ({})", safe(n))).unwrap_or_default();
            let address = if address.contains(':') { format!("[{address}]") } else { address.clone() };
            let op = if *op == NetOp::Sendmsg { "send".to_owned() } else { format!("{op:?}").to_lowercase() };
            format!("{op:<6} {address}:{port}/{protocol}{name}")
        }
        Effect::Unix { op, path, error, .. } => {
            let failed = if *error == 0 { String::new() } else { format!(" (failed, errno {error})") };
            format!("{:<6} unix {}{failed}", format!("{op:?}").to_lowercase(), safe(path))
        }
        Effect::DnsQuery { name, record, resolver, .. } => {
            format!("ask    {} {record} from {resolver}", safe(name))
        }
        Effect::DnsAnswer { name, addresses, .. } => {
            format!("answer {} = {}", safe(name), addresses.join(", "))
        }
        Effect::TlsHello { sni, address, port } => {
            format!("tls    {} at {address}:{port}", sni.as_deref().map_or_else(|| "no name".into(), safe))
        }
        Effect::Flow { address, port, protocol, .. } => format!("bytes  {address}:{port}/{protocol}"),
        Effect::Special { name, result, text, .. } => {
            let text = text.as_deref().map(|t| format!(" \"{}\"", safe(t))).unwrap_or_default();
            format!("{name}{text} = {result}")
        }
        Effect::Uring { name, .. } => format!("io_uring {name}"),
        Effect::Denied { op, object, dry_run, .. } => {
            let verdict = if *dry_run { "would be denied" } else { "denied" };
            format!("{verdict} {op} {object}")
        }
    })
}
