//! Answers from the engine and the inventory.

use std::collections::{BTreeMap, BTreeSet};

use engine::{
    AmbiguousShare, Engine,
    baseline::{Baseline, ScopeKey},
    judge::{Stored, export},
};
use serde_json::{Value, json};

use super::{Desk, live::Running, past, utc_ns};
use crate::{
    control::{self, Answer, CallFilter, Failure, Verb},
    store::State,
};

/// Calls of an answer unless told otherwise.
const CALLS: u32 = 100;

/// An answer that is made off the loop.
pub(super) type Later = Box<dyn FnOnce() -> Answer + Send>;

/// An answer, at once or later.
pub(super) enum Reading {
    Now(Answer),
    Later(Later),
}

impl Desk {
    /// Answers what changes nothing. What is large is only copied here.
    pub(super) fn read(&self, verb: Verb, engine: &Engine) -> Reading {
        let dir = std::sync::Arc::clone(&self.hands.state_dir);
        let copy = |name: &str| baseline(engine, name).cloned();
        match verb {
            Verb::Status => Reading::Now(Ok(self.status(engine))),
            Verb::Servers => {
                Reading::Now(Ok(self.live.servers.values().map(|r| server(r, engine)).collect()))
            }
            Verb::Tools { server } => Reading::Now(self.tools(server.as_deref(), engine)),
            Verb::Calls(filter) => Reading::Now(self.calls(&filter)),
            Verb::Baselines => {
                Reading::Now(Ok(engine.judge().baselines().map(|b| summary(b, engine)).collect()))
            }
            Verb::Policy { identity } => Reading::Now(
                engine.judge().show_policy(&identity).map(|shown| json!(shown)).map_err(Failure::not_found),
            ),
            Verb::Exposure { identity } => Reading::Now(self.exposure(&identity, engine)),
            Verb::Rules => Reading::Now(Ok(rules(engine))),
            Verb::Mode => Reading::Now(Ok(self.modes(engine))),
            Verb::Findings(filter) => Reading::Later(Box::new(move || past::findings(&dir, &filter))),
            Verb::Finding { id } => Reading::Later(Box::new(move || past::finding(&dir, &id))),
            Verb::Responses { server, limit } => {
                Reading::Later(Box::new(move || past::responses(&dir, server.as_deref(), limit)))
            }
            Verb::Response { id } => Reading::Later(Box::new(move || past::response(&dir, &id))),
            Verb::Audit { limit } => Reading::Later(Box::new(move || past::audit(&dir, limit))),
            Verb::Baseline { identity } => match copy(&identity) {
                Ok(b) => {
                    let mode = mode_of(&b, engine);
                    Reading::Later(Box::new(move || Ok(full(&b, Some(mode)))))
                }
                Err(e) => Reading::Now(Err(e)),
            },
            Verb::BaselineExport { identity } => match copy(&identity) {
                Ok(b) => Reading::Later(Box::new(move || {
                    let text = export::export(&b).text;
                    let stored = Stored { baselines: vec![b], ..Stored::default() };
                    Ok(json!({ "text": text, "stored": stored }))
                })),
                Err(e) => Reading::Now(Err(e)),
            },
            Verb::BaselineDiff { a, b } => match copy(&a).and_then(|a| Ok((a, copy(&b)?))) {
                Ok((a, b)) => Reading::Later(Box::new(move || {
                    Ok(control::difference::difference(&full(&a, None), &full(&b, None)))
                })),
                Err(e) => Reading::Now(Err(e)),
            },
            changing => {
                Reading::Now(Err(Failure::invalid(format!("`{}` changes something", changing.name()))))
            }
        }
    }

    pub(super) fn status(&self, engine: &Engine) -> Value {
        let judge = engine.judge();
        let mut findings: BTreeMap<String, u64> = BTreeMap::new();
        for f in judge.open_findings() {
            *findings.entry(word(&f.severity)).or_default() += 1;
        }
        let rules = judge.rules();
        let files: BTreeSet<&str> = rules.rules().iter().map(|r| &*r.place.file).collect();
        let stats = self.hands.store.stats();
        let (state, because) = match self.hands.store.state() {
            State::Working => ("working", None),
            State::Degraded { because, since } => {
                ("degraded", Some(format!("{because} (for {} s)", since.elapsed().as_secs())))
            }
        };
        let mut store = json!({
            "state": state, "queued": stats.queued, "written": stats.written, "refused": stats.refused,
            "failed": stats.failed,
        });
        if let (Some(because), Some(fields)) = (because, store.as_object_mut()) {
            fields.insert("because".into(), because.into());
        }
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "since": self.since_utc,
            "now": utc_ns(),
            "servers": self.live.servers.len(),
            "tools": self.live.servers.values().map(|r| r.tools.len()).sum::<usize>(),
            "calls": self.live.total_calls,
            "findings": findings,
            "lost": self.live.lost,
            "ambiguous_share": ambiguous(engine.ambiguous_share()),
            "rules": { "rules": rules.rules().len(), "files": files.len() },
            "store": store,
            "sinks": self.sinks(),
            "metrics": self.metrics,
            "responses": responses(engine),
            "coverage": self.live.coverage.values().collect::<Vec<_>>(),
        })
    }

    fn exposure(&self, name: &str, engine: &Engine) -> Answer {
        let exposure = engine.judge().exposure(name, &self.meter).map_err(Failure::not_found)?;
        let mut value = json!(exposure);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("since".into(), self.since_utc.into());
        }
        Ok(value)
    }

    fn tools(&self, name: Option<&str>, engine: &Engine) -> Answer {
        let judge = engine.judge();
        let mut open: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for f in judge.open_findings() {
            let tool = f.scope.tool.as_deref().unwrap_or_default();
            *open.entry((f.identity.as_str(), tool)).or_default() += 1;
        }
        let running = |identity: &str, name: &str| self.live.named(name).any(|r| r.identity == identity);
        let mut rows = Vec::new();
        for ((identity, tool), row) in &self.live.tools {
            let server = self.live.known.get(identity).map_or("", |s| s.name.as_str());
            if name.is_some_and(|name| name != server && name != identity && !running(identity, name)) {
                continue;
            }
            let learned = judge.baseline(identity);
            let state = learned.map(|b| match b.knows(&ScopeKey::Tool(tool.clone())) {
                true => b.summary().state,
                false => "learning",
            });
            let settling = learned.and_then(|b| b.settling().find(|(name, _)| name == tool)).map(|(_, s)| s);
            rows.push(json!({
                "server": server, "identity": identity, "tool": tool, "calls": row.calls, "state": state,
                "findings": open.get(&(identity.as_str(), tool.as_str())).copied().unwrap_or(0),
                "first_seen": row.first_seen, "last_seen": row.last_seen,
                "settle_ms": settling.and_then(|s| s.learned_ns()).map(|ns| ns as f64 / 1e6),
                "late_share": settling.map(|s| s.late_share()),
            }));
        }
        match name {
            Some(name) if rows.is_empty() && self.live.named(name).next().is_none() => {
                Err(Failure::not_found(format!("no server `{name}`; `toolwarden servers` lists them")))
            }
            _ => Ok(rows.into()),
        }
    }

    fn calls(&self, filter: &CallFilter) -> Answer {
        let CallFilter { server, tool, limit } = filter;
        let wanted = |value: &Option<String>, is: &dyn Fn(&str) -> bool| value.as_deref().is_none_or(is);
        let rows = self.live.calls.iter().rev().filter(|call| {
            wanted(server, &|s| call.server.name == s || call.server.id == s)
                && wanted(tool, &|t| call.scope.tool.as_deref() == Some(t))
        });
        Ok(rows.take(limit.unwrap_or(CALLS) as usize).map(|call| json!(call)).collect())
    }

    fn modes(&self, engine: &Engine) -> Value {
        let judge = engine.judge();
        let mut rows: Vec<Value> = Vec::new();
        let mut told = BTreeSet::new();
        for r in self.live.servers.values() {
            let name = r.line.server.name.as_str();
            told.insert(name);
            let mode = judge.mode_of(name, None);
            rows.push(
                json!({ "server": name, "id": r.line.server.id, "identity": r.identity, "mode": mode }),
            );
        }
        for b in judge.baselines() {
            if told.insert(&b.key.name) {
                let mode = judge.mode_of(&b.key.name, None);
                rows.push(json!({ "server": b.key.name, "identity": b.key.to_string(), "mode": mode }));
            }
        }
        for rule in judge.modes() {
            if rule.tool.is_some() || told.insert(&rule.server) {
                rows.push(json!({ "server": rule.server, "tool": rule.tool, "mode": rule.mode }));
            }
        }
        rows.into()
    }
}

/// What is in force.
fn responses(engine: &Engine) -> Value {
    let planner = engine.planner();
    let held: Vec<Value> = planner
        .in_force()
        .map(|(s, actions)| json!({ "server": s.server.name, "id": s.server.id, "in_force": actions.collect::<Vec<_>>() }))
        .collect();
    let quarantined: Vec<&str> = planner.quarantined(crate::contain::boot_ns()).map(|(key, _)| key).collect();
    json!({ "disarmed": planner.disarmed(), "held": held, "quarantined": quarantined })
}

/// A unit of an enum by its name in JSON.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    json!(value).as_str().unwrap_or_default().to_owned()
}

pub(super) fn baseline<'a>(engine: &'a Engine, name: &str) -> Result<&'a Baseline, Failure> {
    let judge = engine.judge();
    let key = judge.key_of(name).map_err(Failure::not_found)?;
    judge.baseline_of(&key).ok_or_else(|| Failure::not_found(format!("there is no baseline {name}")))
}

fn mode_of(b: &Baseline, engine: &Engine) -> String {
    word(&engine.judge().mode_of(&b.key.name, None))
}

fn summary(b: &Baseline, engine: &Engine) -> Value {
    let mut value = json!(b.summary());
    if let Some(fields) = value.as_object_mut() {
        fields.insert("mode".into(), mode_of(b, engine).into());
    }
    value
}

fn full(b: &Baseline, mode: Option<String>) -> Value {
    let mut value = json!(b.full());
    if let (Some(mode), Some(fields)) = (mode, value.pointer_mut("/summary").and_then(Value::as_object_mut)) {
        fields.insert("mode".into(), mode.into());
    }
    value
}

fn server(r: &Running, engine: &Engine) -> Value {
    let judge = engine.judge();
    let line = &r.line;
    let state = judge.identity_of(&line.server.id).and_then(|key| judge.baseline_of(key));
    json!({
        "name": line.server.name, "id": line.server.id, "pid": line.pid, "root_pid": line.root_pid,
        "uid": line.context.uid, "client": line.context.client, "project": line.context.project,
        "package": line.package, "version": line.version, "entry": line.entry, "digest": line.digest,
        "argv": line.argv, "tools": r.tools.len(), "calls": r.calls,
        "mode": judge.mode_of(&line.server.name, None), "state": state.map(|b| b.summary().state),
        "channel": line.channel, "startup": line.startup, "identity": r.identity,
        "since": line.time,
        "ambiguous_share": engine.ambiguous_share_of(&line.server.id).map(ambiguous),
    })
}

/// Share of effects that may belong to several calls: by the configured settling time, and by the learned ones.
fn ambiguous(share: AmbiguousShare) -> Value {
    json!({ "before": share.before, "after": share.after, "effects": share.effects })
}

fn rules(engine: &Engine) -> Value {
    let row = |rule: &engine::rules::Rule| {
        json!({
            "id": rule.id, "place": rule.place.to_string(), "kind": rule.kind, "severity": rule.severity,
            "shipped": rule.origin == engine::rules::Origin::Pack, "name": rule.written.name,
            "exceptions": rule.exceptions.len(), "limits": rule.limits.len(),
        })
    };
    engine.judge().rules().rules().iter().map(row).collect()
}
