//! Whether what a person asks for may be: ratified baselines and modes that a policy comes of.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{Judge, Mode, ModeRule, config::OnDegraded};
use crate::{
    baseline::{Key, ScopeKey},
    policy::{Family, backtest::WouldDeny},
};

/// Acts named in a refusal.
const NAMED: usize = 8;

impl Judge {
    /// Whether a person may ratify a baseline: it must not deny what the server consists of.
    pub(super) fn may_ratify(&self, key: &Key) -> Result<(), String> {
        let denied = self.past_denied(key, |b| b.ratify("", 0));
        refuse_runtime(key, &denied)
    }

    /// Whether a mode may be set; what a person should know of it.
    pub(super) fn may_be_in(&self, rule: &ModeRule) -> Result<String, String> {
        let about = |name: &str| rule.server == "*" || name == "*" || rule.server == name;
        if let Some(tool) = &rule.tool {
            let whole =
                self.modes.iter().any(|m| m.tool.is_none() && m.mode == Mode::Enforce && about(&m.server));
            let own = self.modes.iter().any(|m| m.tool == rule.tool && m.server == rule.server);
            return match (rule.mode, whole) {
                // The way back from a mode of its own.
                (Mode::Enforce, false) if own => Ok("; it is held once its server is in enforce".into()),
                (Mode::Enforce, false) => Err(format!(
                    "a server is in enforce as a whole: the kernel holds `{tool}` and its neighbours to one policy; \
                     `toolwarden mode {} enforce`",
                    rule.server
                )),
                (Mode::Learn | Mode::Watch, true) => Err(format!(
                    "the server of `{tool}` is in enforce, and the kernel cannot leave out one tool: permit what it \
                     needs by a rule, or set the whole server to watch"
                )),
                _ => Ok(String::new()),
            };
        }
        if rule.mode != Mode::Enforce {
            return Ok(String::new());
        }
        let others: Vec<String> = self
            .modes
            .iter()
            .filter(|m| m.mode != Mode::Enforce && about(&m.server))
            .filter_map(|m| m.tool.as_ref().map(|tool| format!("`{} {tool}`", m.server)))
            .collect();
        if !others.is_empty() {
            return Err(format!(
                "the kernel cannot leave out single tools, and {} have modes of their own: set them to \
                 enforce first",
                others.join(", ")
            ));
        }
        if let (Some(why), OnDegraded::Refuse) = (self.missing(), self.config.on_degraded) {
            return Err(why);
        }
        self.may_hold(rule)
    }

    /// Families that must be enforced and cannot be.
    fn missing(&self) -> Option<String> {
        let e = &self.enforcement;
        let missing: Vec<String> = self
            .config
            .enforce
            .difference(&e.available)
            .map(|f| match e.because.get(f) {
                Some(why) => format!("{f} ({why})"),
                None => f.to_string(),
            })
            .collect();
        (!missing.is_empty()).then(|| {
            format!(
                "this host cannot enforce {}; `toolwarden doctor` tells the remedy, and `--on-degraded observe` takes \
                 what can be had",
                missing.join(", ")
            )
        })
    }

    /// Asked-for enforcement that cannot be had, unless that is accepted.
    #[must_use]
    pub fn unenforceable(&self) -> Option<String> {
        let asked = self.modes.iter().any(|m| m.mode == Mode::Enforce);
        self.missing().filter(|_| asked && self.config.on_degraded == OnDegraded::Refuse)
    }

    fn may_hold(&self, rule: &ModeRule) -> Result<String, String> {
        let about = |name: &str| rule.server == "*" || rule.server == name;
        let mut keys: BTreeSet<&Key> = BTreeSet::new();
        for i in self.instances.values().filter(|i| about(&i.server.name)) {
            keys.extend(i.key.as_ref());
        }
        let is_ratified = |key: &Key| self.baselines.get(key).is_some_and(|b| b.ratified.is_some());
        let not: Vec<String> = keys.iter().filter(|k| !is_ratified(k)).map(ToString::to_string).collect();
        if !not.is_empty() && !rule.strict {
            return Err(format!(
                "the baseline of the running {} is not ratified, and permits nothing: look at it with `toolwarden \
                 baseline show {}`, then `toolwarden baseline ratify {}`",
                not.join(", "),
                not.first().map(String::as_str).unwrap_or_default(),
                not.first().map(String::as_str).unwrap_or_default(),
            ));
        }
        keys.extend(self.baselines.values().map(|b| &b.key).filter(|k| about(&k.name) && is_ratified(k)));
        keys.retain(|k| is_ratified(k));
        if keys.is_empty() {
            return Err(format!(
                "no baseline of {} is ratified, and only a ratified one permits anything: `toolwarden baseline list` \
                 shows how far they are, `toolwarden baseline ratify` vouches for one",
                rule.server
            ));
        }
        let mut notes = String::new();
        for key in keys {
            self.startup_is_known(key)?;
            let denied = self.past_denied(key, |_| {});
            refuse_runtime(key, &denied)?;
            if !denied.is_empty() {
                let _always =
                    write!(notes, "; of what {key} did, this is denied from now on: {}", named(&denied));
            }
        }
        if let Some(why) = self.missing() {
            let _always = write!(notes, "; {why}");
        }
        Ok(notes)
    }

    /// Programs and files can only be denied when it is known what a server needs to start.
    fn startup_is_known(&self, key: &Key) -> Result<(), String> {
        let e = &self.enforcement;
        let starts = [Family::Exec, Family::File].iter().any(|f| e.available.contains(f));
        let seen = self.baselines.get(key).and_then(|b| b.scope(&ScopeKey::Startup)).map_or(0, |s| s.calls);
        if starts && seen == 0 {
            return Err(format!(
                "no whole start of {key} was ever seen, so its interpreter and libraries would be denied: restart it \
                 while the agent runs, then ratify its baseline"
            ));
        }
        Ok(())
    }
}

fn refuse_runtime(key: &Key, denied: &[WouldDeny]) -> Result<(), String> {
    let runtime: Vec<WouldDeny> = denied.iter().filter(|d| d.runtime).cloned().collect();
    if runtime.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{key} could not run: its policy would deny {}; it did all of this while it was learned. Change the rules that \
         deny it (`toolwarden rules explain`), or learn and ratify it anew",
        named(&runtime)
    ))
}

fn named(denied: &[WouldDeny]) -> String {
    let mut all: Vec<String> =
        denied.iter().take(NAMED).map(|d| format!("{} ({})", d.what, d.scope)).collect();
    if denied.len() > NAMED {
        all.push(format!("and {} more", denied.len() - NAMED));
    }
    all.join(", ")
}
