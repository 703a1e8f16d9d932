//! An effect: what rules and detectors say of it, and whether it is new for all that it may belong to.

use std::sync::Arc;

use super::{
    Judge, Mode,
    book::{Cause, Draft},
    denied::{self, Denial},
    instance::{Instance, scopes},
    policy, words,
};
use crate::{
    act::{self, Act},
    baseline::{Baseline, Dimension, Item, ScopeKey, State, general},
    detect::{Hit, combine::Told},
    finding::{Evidence, Kind, Origin, Seen, Severity},
    output::{Effect, EffectLine, NetOp, Scope, ScopeKind},
    rules::{self, Verdict, units::Day, written::Learned},
};

/// A finding in an effect, before it has its place in the book.
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) severity: Severity,
    pub(super) origin: Origin,
    pub(super) object: String,
    pub(super) sentence: String,
    pub(super) permit: String,
    pub(super) baseline: Option<String>,
    /// It is about the whole server, whichever tool it was.
    pub(super) whole: bool,
}

impl Judge {
    pub(super) fn on_effect(&mut self, line: &EffectLine) {
        self.now_utc = self.now_utc.max(line.time.utc);
        let Some(i) = self.instances.get_mut(&line.server.id) else {
            return;
        };
        i.nameless |= i.key.is_none();
        i.track(line);
        count(i, line);
        let mut found = Vec::new();
        if self.config.rules {
            let mut hits = std::mem::take(&mut self.hits);
            i.detectors.effect(line, &mut hits);
            found.extend(hits.drain(..).map(|h| detected(&line.scope, &line.server.name, h)));
            self.hits = hits;
        }
        if self.config.rules {
            found.extend(preloaded(line));
            found.extend(self.guarded.found(line));
        }
        if let Effect::Denied { family, op, object, dry_run, .. } = &*line.effect {
            found.extend(self.denied(line, &Denial { family: *family, op, object, dry_run: *dry_run }));
            if let Some(i) = self.instances.get_mut(&line.server.id) {
                i.taint(&line.scope);
            }
        }
        let Some(i) = self.instances.get_mut(&line.server.id) else {
            return;
        };
        let Some(look) = i.look(line).filter(|look| !look.items.is_empty()) else {
            self.enter(line, found);
            return;
        };
        if look.clean && found.is_empty() {
            self.enter_after(line, found, &look.items, true);
            return;
        }
        let scopes = &*look.scopes;
        // A call that nobody saw begin may be of any tool: no baseline is fit to judge it, but rules about all of them are.
        let any = if scopes.is_empty() { policy::any_tool(&self.rules, &line.scope) } else { Vec::new() };
        let ruled = if scopes.is_empty() { &any } else { scopes };
        let mut allowed = 0_u64;
        let (mut compare, mut exempts) = (self.config.baselines, true);
        if self.config.rules && !look.unruled {
            let selected: Vec<_> = ruled.iter().map(|s| i.policy.of(&self.rules, &i.who, s)).collect();
            compare &= !selected.iter().any(|s| s.learned() == Learned::Ignore);
            exempts &= !selected.iter().all(|s| s.learned() == Learned::Only);
            let today = Day::of_utc_ns(line.time.utc);
            let mut n = 0;
            act::each(&line.effect, |act| {
                // Its own files in /proc are its own, under whatever name.
                let own;
                let act = match act {
                    Act::File { access, path, directory, truncated } => {
                        own = rules::own_path(path, line.process.pid);
                        Act::File { access, path: &own, directory, truncated }
                    }
                    other => other,
                };
                let decision = policy::decide(&selected, &act, today);
                match (decision.verdict, decision.rule) {
                    (Verdict::Allow, _) => allowed |= 1 << n,
                    (Verdict::Deny, Some(rule)) => {
                        let at = policy::at(&i.who, scopes.first().unwrap_or(&ScopeKey::Whole));
                        let object = object(&act);
                        let sentence = format!(
                            "{}, server `{}` {}, which rule `{}` ({}) forbids.",
                            words::when(&line.scope),
                            line.server.name,
                            words::did(&line.effect),
                            rule.id,
                            rule.place
                        );
                        found.push(Found {
                            kind: rule.kind,
                            severity: rule.severity,
                            origin: Origin::Rule { rule: rule.id.clone(), place: rule.place.to_string() },
                            object,
                            sentence,
                            permit: rules::permit(rule.kind, &at, &act),
                            baseline: None,
                            whole: scopes.is_empty(),
                        });
                    }
                    _ => {}
                }
                n += u32::from(!matches!(act, Act::Sni { .. }));
            });
        }
        // `learned: ignore` and its like are the rules' word, too.
        let unruled = allowed == 0 && compare == self.config.baselines && found.is_empty();
        if compare {
            let exempt = if exempts { allowed } else { 0 };
            self.compare(line, &look.items, exempt, scopes, &mut found);
            if found.is_empty() {
                self.beyond(line, &look.items, exempt, scopes, &mut found);
            }
        }
        // What is a finding is not learned; what is bad is no company for anything that is.
        let bad = found.iter().any(|f| f.severity >= Severity::Medium);
        let odd = !found.is_empty();
        if let Some(i) = self.instances.get_mut(&line.server.id) {
            if bad {
                i.taint(&line.scope);
            }
            i.was_clean(&look, &line.effect, unruled, !odd);
        }
        self.enter_after(line, found, &look.items, !odd || bad);
    }

    /// Keeps what may be learned, then enters what was found.
    fn enter_after(&mut self, line: &EffectLine, found: Vec<Found>, items: &[Arc<Item>], learn: bool) {
        if learn && let Some(i) = self.instances.get_mut(&line.server.id) {
            if let Some(p) = i.pending(&line.scope) {
                items.iter().for_each(|item| p.add(item, line.count));
            } else if let Some(p) = i.shared(&line.scope) {
                items.iter().for_each(|item| p.share(item, line.count));
            }
        }
        self.enter(line, found);
        if line.scope.kind == ScopeKind::Ambient {
            self.flush_ambient(&line.server.id, line.time.boot_ns, false);
        }
    }

    /// Deviations from the baseline.
    fn compare(
        &mut self,
        line: &EffectLine,
        items: &[Arc<Item>],
        exempt: u64,
        scopes: &[ScopeKey],
        found: &mut Vec<Found>,
    ) {
        let Some(i) = self.instances.get(&line.server.id) else {
            return;
        };
        let Some(key) = i.compared.as_ref().or(i.key.as_ref()) else {
            return;
        };
        let Some(baseline) = self.baselines.get(key).filter(|b| b.state == State::Active) else {
            return;
        };
        if scopes.is_empty() || i.partial && *scopes == [ScopeKey::Startup] {
            return;
        }
        for (n, item) in items.iter().enumerate() {
            if exempt >> n.min(63) & 1 != 0 {
                continue;
            }
            // Which call a runtime loads more of itself in is chance.
            let of_tool = if is_incidental(item) { None } else { new_for_all(baseline, scopes, item) };
            let of_whole = baseline.novelty(&ScopeKey::Whole, item).tested;
            // What is new to the whole server is one finding, whichever of its tools do it.
            let (Some(level), Some(named)) = (of_tool.or(of_whole), of_whole.or(of_tool)) else {
                continue;
            };
            let known = if of_tool.is_some() { scopes } else { &[ScopeKey::Whole] };
            if self.mode(&line.server.name, line.scope.tool.as_deref()) == Mode::Learn {
                return;
            }
            let kind = words::kind(item.dimension, &item.levels[0], scopes);
            let normal = known
                .iter()
                .take(3)
                .map(|s| words::normal(baseline, s, item.dimension))
                .collect::<Vec<_>>()
                .join("; ");
            let object = item.levels[named].to_string();
            let sentence = format!(
                "{}, server `{}` {}. That is new ({object}); what is normal: {normal}.",
                words::when(&line.scope),
                line.server.name,
                words::did(&line.effect),
            );
            let permit = permit_nth(i, scopes, kind, &line.effect, n);
            found.push(Found {
                kind,
                severity: severity(kind, item, level),
                origin: rests_on(baseline),
                object,
                sentence,
                permit,
                baseline: Some(normal),
                whole: of_whole.is_some(),
            });
        }
    }

    /// Enters what was found in an effect: one finding a call and kind; what else of the kind it does is evidence
    /// of the same.
    fn enter(&mut self, line: &EffectLine, found: Vec<Found>) {
        for f in found {
            let Some(i) = self.instances.get_mut(&line.server.id) else {
                return;
            };
            let seen = Seen {
                time: line.time,
                process: Arc::clone(&line.process),
                effect: Arc::clone(&line.effect),
                count: line.count,
            };
            // Who makes a directory looks into it.
            let same = |kind: Kind, cause: &Cause| {
                kind == f.kind || kind == Kind::NewWrite && f.kind == Kind::NewFileArea && cause.3 == f.object
            };
            if let Some(p) = i.pending(&line.scope)
                && let Some((.., cause)) =
                    p.causes.iter().find(|(kind, severity, c)| same(*kind, c) && *severity >= f.severity)
                // Who was closed meanwhile does not count.
                && self.book.get(cause).is_some()
            {
                let cause = cause.clone();
                self.book.count(&cause, Some(seen), line.count);
                continue;
            }
            let (kind, severity) = (f.kind, f.severity);
            let identity = i.key.as_ref().map(ToString::to_string).unwrap_or_default();
            let of_tools = scopes(&line.scope);
            // What one of the tools was found to do, and may have done again, is the same finding.
            let known = |place: &str, kind, object: &str| {
                let cause = (identity.clone(), place.to_owned(), kind, object.to_owned());
                self.book.get(&cause).is_some_and(|known| known.severity >= severity).then_some(cause)
            };
            let mut places =
                of_tools.iter().chain([&ScopeKey::Whole]).map(|s| place(std::slice::from_ref(s)));
            let same = places.clone().find(|place| known(place, kind, &f.object).is_some());
            let other = match (kind, &*line.effect) {
                (Kind::NewFileArea, _) => places.find_map(|place| known(&place, Kind::NewWrite, &f.object)),
                // Who asks for a name connects to it.
                (Kind::NewDestination, Effect::Net { name: Some(name), .. }) => {
                    let names = general::domain(name);
                    places.find_map(|place| names.iter().find_map(|n| known(&place, Kind::NewName, n)))
                }
                // The same, without a call: whichever tool asked.
                (Kind::AmbientNetwork, Effect::Net { name: Some(name), .. }) => {
                    let names = general::domain(name);
                    names.iter().find_map(|n| self.book.find(&identity, Kind::NewName, n, severity))
                }
                _ => None,
            };
            let call = line.scope.call.as_ref().map(|c| c.number);
            if let Some(cause) = other {
                self.book.count(&cause, Some(seen), line.count);
                if kind == Kind::AmbientNetwork {
                    self.book.note(&cause, "It was contacted while no call was running, too.");
                }
                let (server, at_ns) = (&*line.server.id, line.time.boot_ns);
                self.escalate(&cause, &Told { kind, server, call, at_ns, severity, object: &f.object });
                continue;
            }
            let draft = Draft {
                server: Arc::clone(&i.server),
                context: Arc::clone(&i.context),
                identity,
                place: match same {
                    _ if f.whole => place(&[ScopeKey::Whole]),
                    Some(place) => place,
                    None => place(&of_tools),
                },
                scope: Arc::clone(&line.scope),
                kind,
                severity,
                origin: f.origin,
                object: f.object,
                sentence: f.sentence,
                permit: f.permit,
                evidence: Evidence {
                    effects: vec![seen],
                    more: 0,
                    processes: i.ancestry(&line.process),
                    calls_before: i.recent.iter().cloned().collect(),
                    baseline: f.baseline,
                },
                time: line.time,
                count: line.count,
            };
            let cause = self.record(draft, &line.server.id, call);
            if let Some(p) = self.instances.get_mut(&line.server.id).and_then(|i| i.pending(&line.scope)) {
                p.causes.push((kind, severity, cause));
            }
        }
    }

    /// Enters a finding in the book, and raises it if it is worse together with another.
    pub(super) fn record(&mut self, draft: Draft, server: &str, call: Option<u64>) -> Cause {
        let (kind, severity, at_ns) = (draft.kind, draft.severity, draft.time.boot_ns);
        let object = draft.object.clone();
        let cause = self.book.enter(draft);
        self.escalate(&cause, &Told { kind, server, call, at_ns, severity, object: &object });
        cause
    }

    /// Raises what is worse together with another finding, and that one.
    fn escalate(&mut self, cause: &Cause, told: &Told<'_>) {
        if let Some(raised) = self.escalation.tell(told) {
            let because = format!("It came {}.", raised.because);
            self.book.raise(cause, raised.severity, &because);
            let because = format!("Together with {} ({}) that is worse.", told.kind.id(), told.object);
            self.book.raise_partner(cause, raised.with.kind, &raised.with.object, raised.severity, &because);
        }
    }
}

/// The rule that would permit the act that makes the `n`th item of an effect.
pub(super) fn permit_nth(i: &Instance, scopes: &[ScopeKey], kind: Kind, effect: &Effect, n: usize) -> String {
    let (mut permit, mut k) = (String::new(), 0);
    act::each(effect, |act| {
        if k == n {
            permit = denied::permit(kind, scopes, i, Some(&act));
        }
        k += usize::from(!matches!(act, Act::Sni { .. }));
    });
    permit
}

/// What a finding rests on that a baseline makes.
pub(super) fn rests_on(baseline: &Baseline) -> Origin {
    Origin::Baseline { sessions: u64::from(baseline.trials), calls: baseline.calls, bound: baseline.bound() }
}

/// Counts what an effect adds to the numbers of its scope and session.
fn count(i: &mut Instance, line: &EffectLine) {
    match &*line.effect {
        Effect::Flow { bytes_out, .. } => {
            i.bytes_out = i.bytes_out.saturating_add(*bytes_out);
            if let Some(p) = i.pending(&line.scope) {
                p.bytes_out = p.bytes_out.saturating_add(*bytes_out);
            }
        }
        Effect::DnsQuery { .. } => i.questions = i.questions.saturating_add(line.count),
        Effect::Open { write, create, .. } => {
            let wrote = *write || *create;
            if let Some(p) = i.pending(&line.scope) {
                p.files = p.files.saturating_add(line.count);
                p.writes = p.writes.saturating_add(if wrote { line.count } else { 0 });
            }
        }
        Effect::Net { op: NetOp::Connect | NetOp::Sendmsg, .. } => {
            if let Some(p) = i.pending(&line.scope) {
                p.connects = p.connects.saturating_add(line.count);
            }
        }
        _ => {}
    }
}

/// What a detector saw, as a finding.
pub(super) fn detected(scope: &Scope, server: &str, hit: Hit) -> Found {
    Found {
        kind: hit.kind,
        severity: hit.severity.unwrap_or_else(|| hit.kind.severity()),
        origin: Origin::Detector,
        sentence: format!("{}, server `{server}` {}.", words::when(scope), hit.why),
        object: hit.object,
        permit: String::new(),
        baseline: None,
        whole: false,
    }
}

/// A program that another library is loaded into before its own.
fn preloaded(line: &EffectLine) -> Option<Found> {
    let Effect::Exec { env, path, .. } = &*line.effect else {
        return None;
    };
    let name = env.iter().find(|name| matches!(name.as_str(), "LD_PRELOAD" | "LD_AUDIT"))?;
    // What a user has set for all programs is there from the start.
    let severity = if line.scope.kind == ScopeKind::Startup { Severity::Low } else { Severity::High };
    Some(Found {
        kind: Kind::Injection,
        severity,
        origin: Origin::Detector,
        object: name.clone(),
        sentence: format!(
            "{}, server `{}` executed `{path}` with {name} set: code of another file runs in it.",
            words::when(&line.scope),
            line.server.name
        ),
        permit: String::new(),
        baseline: None,
        whole: false,
    })
}

/// What an act is about.
fn object(act: &Act<'_>) -> String {
    match act {
        Act::Exec { file, .. } => (*file).to_owned(),
        Act::File { path, .. } | Act::Unix { path, .. } => (*path).to_owned(),
        Act::Connect { address, name, port, protocol } => match name {
            Some(name) => format!("{name}:{port}/{protocol}"),
            None => format!("{address}:{port}/{protocol}"),
        },
        Act::Listen { address, port, protocol } => format!("{address}:{port}/{protocol}"),
        Act::Dns { name, .. } | Act::Sni { name, .. } => (*name).to_owned(),
        Act::Syscall { abi, nr } => format!("{}:{nr}", format!("{abi:?}").to_lowercase()),
        Act::Special { name, .. } | Act::Uring { name } => (*name).to_owned(),
    }
}

/// Scopes as part of a cause.
pub(super) fn place(scopes: &[ScopeKey]) -> String {
    let mut names: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    names.sort();
    names.join("|")
}

/// The level at which an item is new for every scope that it may belong to. A tool that the baseline does
/// not know well is held to what the server does at all.
fn new_for_all(baseline: &Baseline, scopes: &[ScopeKey], item: &Item) -> Option<usize> {
    let mut level = usize::MAX;
    for scope in scopes {
        let known = baseline.knows(scope);
        let found = if known || !matches!(scope, ScopeKey::Tool(_)) {
            baseline.novelty(scope, item).tested
        } else {
            baseline.novelty_for_tools(item)
        };
        level = level.min(found?);
    }
    (level != usize::MAX).then_some(level)
}

fn lower(severity: Severity) -> Severity {
    match severity {
        Severity::Critical => Severity::High,
        Severity::High => Severity::Medium,
        Severity::Medium => Severity::Low,
        Severity::Low | Severity::Info => Severity::Info,
    }
}

/// What libraries and runtimes do on behalf of others: they read what they consist of, and ask for a name by way of
/// several files and the host's own resolver. The name itself is judged.
pub(crate) fn is_incidental(item: &Item) -> bool {
    const OWN: [&str; 7] =
        ["/usr/", "/lib", "/proc/self/", "/sys/devices/", "/dev/null", "/etc/ld.so", "${package}"];
    const NAMES: [&str; 5] =
        ["/etc/nsswitch.conf", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/gai.conf"];
    let fine = &*item.levels[0];
    match item.dimension {
        Dimension::Read => OWN.iter().any(|p| fine.starts_with(p)) || NAMES.contains(&fine),
        Dimension::Unix => fine.ends_with("/run/nscd/socket"),
        Dimension::Connect => fine.starts_with("127.") && fine.ends_with(":53/udp"),
        _ => false,
    }
}

/// How bad a deviation is: a new area is worse than a new file in a known one.
fn severity(kind: Kind, item: &Item, level: usize) -> Severity {
    let base = kind.severity();
    let fine = &item.levels[0];
    let harmless = match item.dimension {
        // Launchers set such variables too.
        Dimension::Special if kind == Kind::Injection => !fine.ends_with("LD_PRELOAD"),
        // A branch of the code that was not taken before.
        Dimension::Read => is_incidental(item),
        Dimension::Connect | Dimension::Listen => fine.starts_with("127.") || fine.starts_with("::1:"),
        _ => false,
    };
    // Something new in a place that is known.
    let inside = level + 1 < item.levels.len();
    match (harmless, inside) {
        (true, true) => lower(lower(base)),
        (true, false) | (false, true) => lower(base),
        (false, false) => base,
    }
}
