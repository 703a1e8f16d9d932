//! What people change. Whatever waits for the disk is done off the loop; the loop only takes the
//! decision in, when it is durable.

use std::sync::Arc;

use anyhow::Context as _;
use engine::{
    Engine,
    finding::Origin,
    judge::{Command, ModeRule},
    respond::Action,
    rules::RuleSet,
};
use serde_json::json;

use super::{Desk, Hands, Order, off_loop, outside, past, reads, rules, utc_ns};
use crate::{
    config::Live,
    contain,
    control::{Answer, Ask, Failure, Mode, Peer, Role, Verb},
    store::{self, Ack, Done, ExceptionRow, Job, ModeRow},
};

/// Mode `enforce` with `strict`, as it is stored.
pub(super) const STRICT: &str = "enforce-strict";
const DAY_NS: i64 = 86_400_000_000_000;

/// What a finding offers, if it is open, and the rules in force.
#[derive(Debug)]
struct Offer {
    open: Option<(String, Origin)>,
    rules: Arc<RuleSet>,
}

/// What a person may have permitted.
#[derive(Debug)]
struct New {
    /// Finding, or import.
    what: String,
    text: String,
    by: String,
}

impl Desk {
    /// Answers, or has it answered.
    pub(crate) fn answer(&self, ask: Ask, engine: &Engine) {
        let Ask { verb, peer, answer } = ask;
        if !verb.changes() {
            match self.read(verb, engine) {
                // A peer that hung up needs no answer.
                reads::Reading::Now(now) => drop(answer.send(now)),
                reads::Reading::Later(later) => {
                    tokio::spawn(async move { drop(answer.send(off_loop(later).await)) });
                }
            }
            return;
        }
        if let Err(e) = self.may(&peer, engine) {
            drop(answer.send(Err(e)));
            return;
        }
        let hands = self.hands();
        let by = format!("uid {}", peer.uid);
        let open = |id: &str| {
            let found = engine.judge().open_findings().find(|f| f.id == id);
            found.map(|f| (f.permit.clone(), f.origin.clone()))
        };
        let named = match &verb {
            Verb::SetMode { server, .. } => self.mode_target(server, engine),
            Verb::Respond { server, action, .. } => self.respond_target(server, *action),
            _ => Ok(String::new()),
        };
        let open = if let Verb::Permit { id, .. } = &verb { open(id) } else { None };
        let offer = Offer { open, rules: Arc::clone(engine.judge().rules()) };
        tokio::spawn(async move {
            let done = match named {
                Ok(server) => hands.change(verb, by, server, offer).await,
                Err(e) => Err(e),
            };
            drop(answer.send(done));
        });
    }

    /// The socket's side looked at the lineage; this looks at what the kernel told since.
    fn may(&self, peer: &Peer, engine: &Engine) -> Result<(), Failure> {
        use crate::control::Host as _;
        let known = engine.server_of(peer.pid).map(|server| format!("belongs to the MCP server {server}"));
        let known = known.or_else(|| match self.watcher.role(peer.pid) {
            Role::Client(client) => Some(format!("is the MCP client {client}")),
            Role::Server(_) | Role::Other => None,
        });
        match known {
            Some(why) => Err(Failure::refused(format!(
                "refused: process {} {why}, and may not change what watches it",
                peer.pid
            ))),
            None => Ok(()),
        }
    }

    /// Id of the server that is meant. To release, it need not run.
    fn respond_target(&self, server: &str, action: Action) -> Result<String, Failure> {
        let mut named = self.live.named(server);
        match (named.next(), named.next()) {
            (Some(r), None) => Ok(r.line.server.id.clone()),
            (Some(a), Some(b)) => {
                let ids: Vec<&str> =
                    [a, b].into_iter().chain(named).map(|r| r.line.server.id.as_str()).collect();
                Err(Failure::invalid(format!(
                    "{} servers are called `{server}`: name one of {ids:?}",
                    ids.len()
                )))
            }
            (None, _) if action == Action::Release => Ok(server.to_owned()),
            (None, _) => {
                Err(Failure::not_found(format!("no server `{server}` runs; `toolwarden servers` lists them")))
            }
        }
    }

    /// Name of the server whose mode is meant.
    fn mode_target(&self, server: &str, engine: &Engine) -> Result<String, Failure> {
        if let Some(r) = self.live.named(server).next() {
            return Ok(r.line.server.name.clone());
        }
        let baselines = || engine.judge().baselines();
        let known = |name: &str| {
            name == "*"
                || baselines().any(|b| b.key.name == name)
                || self.live.known.values().any(|s| s.name == name)
        };
        let by_identity = baselines().find(|b| b.key.to_string() == server).map(|b| b.key.name.clone());
        match by_identity {
            Some(name) => Ok(name),
            None if known(server) => Ok(server.to_owned()),
            None => Err(Failure::not_found(format!(
                "no server `{server}` was ever seen; `toolwarden baseline list` lists them, `*` is all"
            ))),
        }
    }
}

impl Hands {
    async fn change(&self, verb: Verb, by: String, server: String, offer: Offer) -> Answer {
        match verb {
            Verb::Reload { wait: true } => self.reload().await,
            Verb::Reload { wait: false } => {
                let hands = self.clone();
                tokio::spawn(async move { hands.reload_unasked().await });
                Ok(json!({}))
            }
            Verb::Ack { id, note, expected } => self.ack(id, note, expected, by).await,
            Verb::Permit { id, reason, expires } => {
                self.permit(id, &reason, expires.as_deref(), offer, by).await
            }
            Verb::Ratify { identity } => self.of_baseline(Command::Ratify { baseline: identity, by }).await,
            Verb::Reset { identity } => self.of_baseline(Command::Reset { baseline: identity }).await,
            Verb::Import { name, text } => {
                let what = format!("{}{name}", rules::IMPORT);
                self.put(New { what, text, by }, &name).await
            }
            Verb::SetMode { tool, mode, strict, .. } => {
                let strict = strict && mode == Mode::Enforce;
                let row_mode = if strict { STRICT } else { mode.name() };
                let mode = match mode {
                    Mode::Learn => engine::judge::Mode::Learn,
                    Mode::Watch => engine::judge::Mode::Watch,
                    Mode::Enforce => engine::judge::Mode::Enforce,
                };
                self.set_mode(ModeRule { server, tool, mode, strict }, row_mode, by).await
            }
            Verb::Purge { before_days } => self.purge(before_days).await,
            Verb::Respond { action, for_ns, dry_run, .. } => {
                let command = Command::Respond { server, action, for_ns, dry_run, by };
                Ok(json!({ "message": self.command(command).await? }))
            }
            Verb::Disarm => self.arms(true).await,
            Verb::Arm => self.arms(false).await,
            other => Err(Failure::invalid(format!("`{}` changes nothing", other.name()))),
        }
    }

    async fn ack(&self, id: String, note: Option<String>, expected: bool, by: String) -> Answer {
        let ack = Ack { by, at: utc_ns(), note: note.unwrap_or_default(), expected };
        if self.written(Job::Ack { id: id.clone(), ack }).await? == Done::Absent {
            return Err(past::no_finding(&id));
        }
        let message = self.command(Command::Ack { finding: id, expected }).await?;
        if expected {
            self.save().await?;
        }
        Ok(json!({ "message": message }))
    }

    async fn of_baseline(&self, command: Command) -> Answer {
        let message = self.command(command).await.map_err(|e| match e.status {
            422 if !e.message.contains("could not run") => Failure::not_found(e.message),
            _ => e,
        })?;
        self.save().await?;
        Ok(json!({ "message": message }))
    }

    async fn set_mode(&self, rule: ModeRule, mode: &str, by: String) -> Answer {
        let row = ModeRow {
            server: rule.server.clone(),
            tool: rule.tool.clone().unwrap_or_default(),
            mode: mode.to_owned(),
            by,
            at: utc_ns(),
        };
        // It may be refused, and what was refused must not come back with a restart.
        let message = self.command(Command::Mode { rule }).await?;
        self.written(Job::Mode(row)).await.map_err(|e| Failure {
            message: format!("in force until the agent ends, but {}", e.message),
            ..e
        })?;
        Ok(json!({ "message": message }))
    }

    /// The loop looks for the file four times a second.
    async fn arms(&self, disarm: bool) -> Answer {
        let file = contain::disarm_file(&self.state_dir);
        off_loop(move || {
            let done = if disarm { std::fs::write(&file, "") } else { std::fs::remove_file(&file) };
            let message = match done {
                Ok(()) if disarm => "responses are disarmed: none is carried out, and those in force end",
                Ok(()) => "responses are armed again",
                Err(e) if !disarm && e.kind() == std::io::ErrorKind::NotFound => {
                    "responses were armed already"
                }
                Err(e) => return Err(Failure::unavailable(format!("{}: {e}", file.display()))),
            };
            Ok(json!({ "message": message }))
        })
        .await
    }

    async fn purge(&self, before_days: u32) -> Answer {
        let before = utc_ns().saturating_sub(i64::from(before_days).saturating_mul(DAY_NS));
        match self.written(Job::Purge { before }).await? {
            Done::Purged(p) => Ok(json!({ "findings": p.findings, "unseen": p.unseen, "audit": p.audit })),
            _ => Ok(json!({})),
        }
    }

    async fn permit(
        &self,
        id: String,
        reason: &str,
        last_day: Option<&str>,
        offer: Offer,
        by: String,
    ) -> Answer {
        let (yaml, origin) = match offer.open {
            Some(open) => open,
            None => {
                let (dir, id) = (Arc::clone(&self.state_dir), id.clone());
                let row = off_loop(move || past::row(&dir, &id)).await?;
                let cannot = |e| Failure::invalid(format!("the finding cannot be read: {e}"));
                let found = row.parse().map_err(cannot)?;
                (found.permit, found.origin)
            }
        };
        let text = rules::exception(&yaml, reason, last_day)?;
        // No other rule stands above a person's deny.
        if let Origin::Rule { rule, place } = &origin
            && offer.rules.rule(rule).is_some_and(|r| r.origin == engine::rules::Origin::Person)
        {
            return Err(Failure::invalid(format!(
                "your own rule `{rule}` ({place}) forbids this, and only an exception in that rule permits it: \
                 add these `exceptions` to it and reload\n{text}"
            )));
        }
        self.put(New { what: id, text, by }, "the exception").await
    }

    /// Validates, stores and puts in force, in this order; answers what was stored and where.
    async fn put(&self, new: New, name: &str) -> Answer {
        let _turn = self.changing.lock().await;
        let New { what, text, by } = new;
        let (dir, files) = (Arc::clone(&self.state_dir), Arc::clone(&self.files));
        let row = ExceptionRow { id: 0, finding: Some(what), yaml: text, by, at: utc_ns() };
        let (checked, name) = (row.clone(), name.to_owned());
        let old = off_loop(move || {
            let of_it = |e: Box<engine::rules::Problem>| Failure::invalid(e.to_string());
            engine::rules::parse(&name, &checked.yaml).map_err(of_it)?;
            let stored = stored(&dir)?;
            let what = checked.finding.as_deref().unwrap_or_default();
            let old = rules::replaced(&stored, what, &checked.yaml);
            // With what it replaces gone.
            let mut rest: Vec<_> = stored.into_iter().filter(|row| !old.contains(&row.id)).collect();
            rest.push(checked);
            rules::check(&rules::with_stored(files.read().map_err(Failure::invalid)?, &rest).0)
                .map_err(Failure::invalid)?;
            Ok(old)
        })
        .await?;
        let text = row.yaml.clone();
        let mut jobs: Vec<Job> = old.into_iter().map(|id| Job::Revoke { id }).collect();
        jobs.push(Job::Permit(row));
        let done = self.written(Job::All(jobs)).await?;
        let number = match done {
            Done::All(all) => all.into_iter().find_map(|d| if let Done::Row(n) = d { Some(n) } else { None }),
            _ => None,
        };
        self.in_force().await?;
        let file = number.map(|n| format!("exception {n} of the agent's state"));
        Ok(json!({ "file": file, "text": text }))
    }

    /// Reads configuration and rules anew.
    async fn reload(&self) -> Answer {
        let _turn = self.changing.lock().await;
        self.service.reloading();
        let done = self.anew().await;
        self.service.ready();
        done
    }

    /// Both are read and found good before anything changes.
    async fn anew(&self) -> Answer {
        let again = Arc::clone(&self.again);
        let dir = Arc::clone(&self.state_dir);
        let found = off_loop(move || {
            let found = || -> anyhow::Result<_> {
                let read = again.read()?;
                outside::apart(&read.settings, &dir)?;
                let plan = outside::plan(&read.settings).context("the configuration stays as it is")?;
                Ok((read, plan))
            };
            found().map_err(|e| Failure::invalid(format!("{e:#}")))
        });
        let (read, plan) = found.await?;
        let mut sums = self.in_force().await?;
        if !self.sinks.follow(&plan) {
            self.written(outside::wanted(&plan)).await?;
            self.sinks.change(plan);
        }
        self.command(Command::Configure { config: super::start::judging(&read.settings) }).await?;
        self.order(Order::Settings(Live::of(&read.settings))).await?;
        let change = self.again.in_force(&read);
        if !change.restart.is_empty() {
            tracing::warn!("changed, and in force only after a restart: {}", change.restart.join(", "));
        }
        if let Some(fields) = sums.as_object_mut() {
            fields.insert("settings".into(), json!(change.settings));
            fields.insert("restart".into(), json!(change.restart));
        }
        Ok(sums)
    }

    /// For SIGHUP, and those who do not wait.
    pub(crate) async fn reload_unasked(&self) {
        match self.reload().await {
            Ok(sums) => tracing::warn!("configuration and rules were read anew: {sums}"),
            Err(e) => tracing::error!("configuration and rules stay as they are: {}", e.message),
        }
    }

    /// Files and stored exceptions, validated, then swapped at once.
    async fn in_force(&self) -> Answer {
        let (dir, files) = (Arc::clone(&self.state_dir), Arc::clone(&self.files));
        let (texts, rules, problems) = off_loop(move || {
            let read = files.read().map_err(Failure::invalid)?;
            let (texts, problems) = rules::with_stored(read, &stored(&dir)?);
            let count = rules::check(&texts).map_err(Failure::invalid)?;
            Ok((texts, count, problems))
        })
        .await?;
        for problem in problems {
            tracing::error!("a stored exception is left out: {problem}");
        }
        let files = texts.len();
        self.command(Command::Rules { files: texts }).await?;
        Ok(json!({ "rules": rules, "files": files }))
    }
}

fn stored(dir: &std::path::Path) -> Result<Vec<ExceptionRow>, Failure> {
    let rows: store::Result<_> = past::reader(dir)?.exceptions();
    rows.map_err(past::failed)
}
