//! An effect: is it new for all that it may belong to?

use std::sync::Arc;

use super::{Judge, Mode, book::Draft, instance::scopes, words};
use crate::{
    baseline::{Baseline, Dimension, Item, Key, ScopeKey, State},
    finding::{Evidence, Kind, Origin, Seen, Severity},
    output::{Effect, EffectLine, NetOp, ScopeKind},
};

/// A deviation from a baseline.
struct Deviation {
    item: Arc<Item>,
    level: usize,
    kind: Kind,
    severity: Severity,
}

impl Judge {
    pub(super) fn on_effect(&mut self, line: &EffectLine) {
        self.now_utc = self.now_utc.max(line.time.utc);
        let Some(i) = self.instances.get_mut(&line.server.id) else {
            return;
        };
        i.track(line);
        match &*line.effect {
            Effect::Flow { bytes_out, .. } => {
                i.bytes_out = i.bytes_out.saturating_add(*bytes_out);
                if let Some(p) = i.pending(&line.scope) {
                    p.bytes_out = p.bytes_out.saturating_add(*bytes_out);
                }
                return;
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
        let items = i.items(&line.effect);
        if items.is_empty() {
            return;
        }
        if let Some(p) = i.pending(&line.scope) {
            for item in items.iter() {
                p.add(item, line.count);
            }
        }
        if self.config.baselines {
            self.compare(line, &items);
        }
        if line.scope.kind == ScopeKind::Ambient {
            self.flush_ambient(&line.server.id, line.time.boot_ns, false);
        }
    }

    fn compare(&mut self, line: &EffectLine, items: &[Arc<Item>]) {
        let Some(i) = self.instances.get(&line.server.id) else {
            return;
        };
        let Some(key) = i.compared.as_ref().or(i.key.as_ref()) else {
            return;
        };
        let Some(baseline) = self.baselines.get(key).filter(|b| b.state == State::Active) else {
            return;
        };
        let scopes = scopes(&line.scope);
        if scopes.is_empty() || i.partial && scopes == [ScopeKey::Startup] {
            return;
        }
        let mut deviations = Vec::new();
        for item in items {
            if let Some(level) = new_for_all(baseline, &scopes, item) {
                let kind = words::kind(item.dimension, &scopes);
                let severity = severity(kind, item, level);
                deviations.push(Deviation { item: Arc::clone(item), level, kind, severity });
            }
        }
        if deviations.is_empty() || self.mode(&line.server.name, line.scope.tool.as_deref()) == Mode::Learn {
            return;
        }
        let key = key.clone();
        for d in deviations {
            self.deviates(line, &key, &scopes, &d);
        }
    }

    fn deviates(&mut self, line: &EffectLine, key: &Key, scopes: &[ScopeKey], d: &Deviation) {
        let (Some(i), Some(baseline)) = (self.instances.get_mut(&line.server.id), self.baselines.get(key))
        else {
            return;
        };
        let seen = Seen {
            time: line.time,
            process: Arc::clone(&line.process),
            effect: Arc::clone(&line.effect),
            count: line.count,
        };
        i.taint(&line.scope);
        // One finding a call and kind: what else of the kind it does is evidence of the same.
        if let Some(p) = i.pending(&line.scope)
            && let Some((.., cause)) =
                p.causes.iter().find(|(kind, severity, _)| *kind == d.kind && *severity >= d.severity)
        {
            let cause = cause.clone();
            self.book.count(&cause, Some(seen), line.count);
            return;
        }
        let normal = scopes
            .iter()
            .take(3)
            .map(|s| words::normal(baseline, s, d.item.dimension))
            .collect::<Vec<_>>()
            .join("; ");
        let object = d.item.levels[d.level].to_string();
        let sentence = format!(
            "{}, server `{}` {}. That is new ({object}); what is normal: {normal}.",
            words::when(&line.scope),
            line.server.name,
            words::did(&line.effect),
        );
        let draft = Draft {
            server: Arc::clone(&i.server),
            context: Arc::clone(&i.context),
            identity: i.key.as_ref().map(ToString::to_string).unwrap_or_default(),
            place: place(scopes),
            scope: Arc::clone(&line.scope),
            kind: d.kind,
            severity: d.severity,
            origin: Origin::Baseline {
                sessions: u64::from(baseline.trials),
                calls: baseline.calls,
                bound: baseline.bound(),
            },
            object,
            sentence,
            permit: String::new(),
            evidence: Evidence {
                effects: vec![seen],
                more: 0,
                processes: i.ancestry(&line.process),
                calls_before: i.recent.iter().cloned().collect(),
                baseline: Some(normal),
            },
            time: line.time,
            count: line.count,
        };
        let cause = self.book.enter(draft);
        if let Some(p) = i.pending(&line.scope) {
            p.causes.push((d.kind, d.severity, cause));
        }
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
        let known = baseline.scope(scope).is_some_and(|s| s.sessions >= 10);
        let found = if known || !matches!(scope, ScopeKey::Tool(_)) {
            baseline.novelty(scope, item).tested
        } else {
            let mut all = usize::MAX;
            for tool in baseline.tools() {
                let key = ScopeKey::Tool(tool.to_owned());
                if baseline.scope(&key).is_some_and(|s| s.sessions < 10) {
                    if !baseline.novelty(&key, item).new {
                        return None;
                    }
                    continue;
                }
                all = all.min(baseline.novelty(&key, item).tested?);
            }
            (all != usize::MAX).then_some(all)
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

/// How bad a deviation is: a new area is worse than a new file in a known one.
fn severity(kind: Kind, item: &Item, level: usize) -> Severity {
    let base = kind.severity();
    let fine = &item.levels[0];
    let harmless = match item.dimension {
        // Programs' own files: a branch of the code that was not taken before.
        Dimension::Read => ["/usr/", "/lib", "/proc/self/", "/sys/", "/dev/null", "/etc/ld.so", "${package}"]
            .iter()
            .any(|p| fine.starts_with(p)),
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
