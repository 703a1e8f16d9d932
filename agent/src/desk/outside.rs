//! What the agent tells other systems besides findings and responses, and how its sinks are.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context as _, Result, anyhow};
use engine::{
    Engine,
    finding::Severity,
    output::{EffectLine, Time},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Desk, activity::Activity, utc_ns};
use crate::{
    accounts,
    config::{Live, Settings},
    key,
    run::now_ns,
    sinks::{Plan, Sinks, host::Host, redact::Redactor},
    store::{Job, Store, Told, Type, tagged},
    wake::Wake,
};

/// What is told about the agent itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// It watches now.
    Started,
    /// It lives. A SIEM that hears nothing any more should tell somebody.
    Heartbeat,
    /// It was told to stop.
    Stopped,
}

/// Something about the agent itself, as sinks tell it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Life {
    /// When.
    time: Time,
    /// What happened. (Not `event`: that is the envelope of what sinks write.)
    life: Event,
    /// What `toolwarden status` says.
    agent: Value,
}

/// At the end, sinks have this long to deliver what waits.
const DELIVERING: std::time::Duration = std::time::Duration::from_secs(3);
/// Users that the process of the sinks may run as, the first that there is.
const USERS: [&str; 2] = ["toolwarden", "nobody"];

/// What is to be delivered where.
pub(super) fn plan(settings: &Settings) -> Result<Plan> {
    let identity = &settings.identity;
    Ok(Plan {
        host: Host::this(identity.host.clone(), identity.cluster.clone()),
        sinks: settings.sinks.clone(),
        user: user(settings.outbox.user.as_deref())?,
        redactor: Redactor::new(&key::load(&settings.state_dir)?),
    })
}

/// The store's part of it.
pub(super) fn wanted(plan: &Plan) -> Job {
    Job::Sinks(plan.sinks.iter().map(|(_, wants)| wants.clone()).collect())
}

/// Tells the store which sinks there are, and starts to deliver.
pub(super) fn start(settings: &Settings, store: &Arc<Store>, wake: Arc<Wake>) -> Result<Sinks> {
    let plan = plan(settings)?;
    // Without any, too: what waited for those of the last time goes, and that is told.
    store.submit(wanted(&plan), None).map_err(|refused| anyhow!("{refused}"))?;
    Sinks::start(plan, Arc::clone(store), wake)
}

/// User and group id of the processes that talk to the outside.
pub(crate) fn user(named: Option<&str>) -> Result<(u32, u32)> {
    let find = |name: &str| accounts::user(name).context("cannot read /etc/passwd");
    let found = match named {
        Some(name) => find(name)?.with_context(|| format!("outbox.user: there is no user {name}"))?,
        None => {
            let mut all = USERS.iter().filter_map(|name| find(name).transpose());
            all.next().context("outbox.user: name one; there is no `nobody`")??
        }
    };
    anyhow::ensure!(found.0 != 0, "outbox.user: root would give sinks all that the agent may do");
    Ok(found)
}

impl Desk {
    /// Puts an event about the agent into the outbox.
    pub(crate) fn tell(&mut self, event: Event, engine: &Engine) {
        if !self.hands.sinks.any() {
            return;
        }
        let time = Time { utc: utc_ns(), boot_ns: now_ns() };
        let notice = Life { time, life: event, agent: self.status(engine) };
        // Plain data: serialising it into memory cannot fail.
        let json = serde_json::to_string(&notice).unwrap_or_default();
        let told = Told {
            kind: Type::Agent,
            severity: Severity::Info,
            server: String::new(),
            json: tagged(Type::Agent, &json),
        };
        self.submit(Job::Tell(told));
    }

    /// Puts an effect into the outbox, if a sink asks for it.
    pub(super) fn acted(&mut self, line: &EffectLine) {
        let end = || self.hands.store.outbox_end();
        let told = self.activity.as_mut().and_then(|activity| activity.tell(line, now_ns(), end));
        if let Some(told) = told {
            self.submit(Job::Tell(told));
        }
    }

    /// Which effects are told from now on.
    pub(crate) fn acts_for(&mut self, live: &Live) {
        let before = self.activity.take();
        let board = self.hands.sinks.board();
        self.activity = Activity::new(live.wants.iter().cloned(), board, live.outbox_bytes);
        if let (Some(now), Some(before)) = (&mut self.activity, before) {
            now.go_on(&before);
        }
    }

    /// How each sink is.
    pub(super) fn sinks(&self) -> Value {
        if !self.hands.sinks.any() {
            return json!({});
        }
        let (states, restarts) = self.hands.sinks.board().look();
        let (end, missed) = (self.hands.store.outbox_end(), self.hands.store.missed());
        let each: serde_json::Map<String, Value> = states
            .into_iter()
            .map(|(name, s)| {
                let waiting = end.saturating_sub(s.cursor).max(0);
                let state = if s.failing.is_some() { "failing" } else { "working" };
                let missed = missed.get(&name).copied().unwrap_or_default();
                let row = json!({
                    "state": state, "because": s.failing, "waiting": waiting, "sent": s.sent, "failures": s.failures,
                    "truncated": s.truncated, "dropped": s.dropped, "again": s.again, "said": s.said,
                    "dead_letters": missed.dead, "lost": missed.lost,
                });
                (name, row)
            })
            .collect();
        let left_out = self.activity.as_ref().map(|activity| activity.total);
        json!({ "process_restarts": restarts, "sinks": each, "effects_left_out": left_out })
    }

    /// The same in numbers, and how often their process had to be started again.
    pub(super) fn sink_figures(&self) -> (BTreeMap<String, super::figures::Sink>, u64) {
        let (states, restarts) = self.hands.sinks.board().look();
        let (end, missed) = (self.hands.store.outbox_end(), self.hands.store.missed());
        let each = states.into_iter().map(|(name, s)| {
            let waiting = u64::try_from(end.saturating_sub(s.cursor)).unwrap_or(0);
            let (sent, bytes, failures) = (s.sent, s.bytes, s.failures);
            let (failing, missed) = (s.failing.is_some(), missed.get(&name).copied().unwrap_or_default());
            (name, super::figures::Sink { waiting, sent, bytes, failures, failing, missed })
        });
        (each.collect(), restarts)
    }

    /// Delivers what is still to be delivered.
    pub(super) fn finish_sinks(&self) {
        if self.hands.sinks.any() {
            self.hands.store.settle(super::CLOSING);
        }
        self.hands.sinks.finish(DELIVERING);
    }
}

/// The state directory must not be where a sink writes.
pub(super) fn apart(settings: &Settings, dir: &Path) -> Result<()> {
    use crate::sinks::spec::Output;
    for (spec, _) in &settings.sinks {
        if let Output::File(file) = &spec.output {
            anyhow::ensure!(
                !file.path.starts_with(dir),
                "sinks.{}: {} is in the state directory, which only the agent may write",
                spec.name,
                file.path.display()
            );
        }
    }
    Ok(())
}
