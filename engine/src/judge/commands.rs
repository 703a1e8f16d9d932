//! What people decide, and what was stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{Config, Judge, ModeRule, calls::Waiting, instance::Instance};
use crate::{
    baseline::Baseline,
    detect::Thresholds,
    policy::Family,
    respond::Action,
    rules::{Origin, RuleSet, Source, units::Day},
};

/// A decision of a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Detection settings.
    Configure {
        /// The settings.
        config: Config,
    },
    /// Rules, all of them: they replace those in force, or none of them does.
    Rules {
        /// The files.
        files: Vec<RuleText>,
    },
    /// Thresholds of detectors, and the resolvers that the host is configured with.
    Detectors {
        /// See [`Thresholds`].
        thresholds: Box<Thresholds>,
        /// Not known: every resolver counts.
        resolvers: Option<Vec<std::net::IpAddr>>,
    },
    /// What this kernel can deny, and why it cannot deny the rest.
    Enforceable {
        /// Families.
        families: BTreeSet<Family>,
        /// Why the others are not among them, with the remedy.
        #[serde(default)]
        because: BTreeMap<Family, String>,
    },
    /// What a baseline holds is right.
    Ratify {
        /// Its key.
        baseline: String,
        /// Who says so.
        by: String,
    },
    /// A baseline is forgotten.
    Reset {
        /// Its key.
        baseline: String,
    },
    /// A finding has been looked at.
    Ack {
        /// Its id.
        finding: String,
        /// What it is about is to be expected: learn it.
        expected: bool,
    },
    /// Mode of a server or tool; replaces an earlier one for the same.
    Mode {
        /// Which, and what.
        rule: ModeRule,
    },
    /// Do something about a server, or undo it. Answered by what became of it.
    Respond {
        /// Id of a running server; to release: also the name or identity of one that may not start.
        server: String,
        /// What.
        action: Action,
        /// For how long, ns; as configured when absent.
        for_ns: Option<u64>,
        /// Only tell what would be done.
        dry_run: bool,
        /// Who says so.
        by: String,
    },
}

/// A rule file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// Its name in messages.
    pub name: String,
    /// What stands in it.
    pub text: String,
    /// Shipped, not written by a person.
    pub shipped: bool,
}

/// What is kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// Baselines.
    pub baselines: Vec<Baseline>,
    /// Behaviour that waits for a person, by finding.
    pub waiting: Vec<(String, Waiting)>,
    /// Modes.
    pub modes: Vec<ModeRule>,
}

impl Judge {
    /// Does what a person decided; a sentence that says what was done, or why not.
    ///
    /// # Errors
    /// When there is no such thing.
    pub fn command(&mut self, command: &Command) -> Result<String, String> {
        let answer = self.decide(command);
        self.enforcement.touch();
        self.instances.values_mut().for_each(Instance::forget_verdicts);
        answer
    }

    fn decide(&mut self, command: &Command) -> Result<String, String> {
        match command {
            Command::Configure { config } => {
                self.config = config.clone();
                self.assess_all();
                Ok("settings are in force".into())
            }
            Command::Rules { files } => {
                let sources: Vec<Source> = files
                    .iter()
                    .map(|f| Source {
                        name: f.name.clone(),
                        text: f.text.clone(),
                        origin: if f.shipped { Origin::Pack } else { Origin::Person },
                    })
                    .collect();
                let set = RuleSet::compile(&sources, Day::of_utc_ns(self.now_utc)).map_err(|problems| {
                    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
                })?;
                let count = set.rules().len();
                self.rules = Arc::new(set);
                Ok(format!("{count} rules of {} files are in force", files.len()))
            }
            Command::Detectors { thresholds, resolvers } => {
                self.thresholds = (**thresholds).clone();
                self.resolvers.clone_from(resolvers);
                for i in self.instances.values_mut() {
                    i.detectors.set_thresholds((**thresholds).clone());
                    if let Some(resolvers) = resolvers {
                        i.detectors.set_resolvers(resolvers);
                    }
                }
                Ok("detectors are set".into())
            }
            Command::Enforceable { families, because } => {
                self.enforcement.can(families, because);
                Ok(format!("{} families can be enforced", families.len()))
            }
            Command::Ratify { baseline, by } => {
                let key = self.find(baseline)?;
                self.may_ratify(&key)?;
                let utc = self.now_utc;
                if let Some(b) = self.baselines.get_mut(&key) {
                    b.ratify(by, utc);
                }
                for i in self.instances.values_mut().filter(|i| i.key.as_ref() == Some(&key)) {
                    i.compared = None;
                }
                self.dirty.insert(key.clone());
                self.assess(&key);
                Ok(format!("baseline {key} is ratified"))
            }
            Command::Reset { baseline } => {
                let key = self.find(baseline)?;
                if let Some(old) = self.baselines.get(&key) {
                    let mut fresh = Baseline::default();
                    fresh.key = key.clone();
                    fresh.package.clone_from(&old.package);
                    fresh.version.clone_from(&old.version);
                    self.baselines.insert(key.clone(), fresh);
                }
                let utc = self.now_utc;
                let b = self.baselines.get_mut(&key);
                if let Some(b) = b {
                    for i in self.instances.values_mut().filter(|i| i.key.as_ref() == Some(&key)) {
                        i.session = b.begin_session(utc);
                        i.compared = None;
                        i.counted = false;
                    }
                }
                self.waiting.retain(|_, w| !w.is_of(&key));
                self.dirty.insert(key.clone());
                Ok(format!("baseline {key} is forgotten; it is learned anew"))
            }
            Command::Ack { finding, expected } => {
                let known = self.book.close(finding).is_some();
                if *expected {
                    let learned = self.learn_waiting(finding);
                    return Ok(if learned {
                        format!("finding {finding} is to be expected: what it is about was learned")
                    } else {
                        format!("finding {finding} is acknowledged; nothing of it was waiting to be learned")
                    });
                }
                self.waiting.remove(finding);
                let open = if known { "" } else { " (it was not open any more)" };
                Ok(format!("finding {finding} is acknowledged{open}"))
            }
            // The engine itself does that: it is no matter of judgement.
            Command::Respond { .. } => Err("not for the judge".into()),
            Command::Mode { rule } => {
                let notes = self.may_be_in(rule)?;
                self.modes.retain(|m| m.server != rule.server || m.tool != rule.tool);
                self.modes.push(rule.clone());
                let tool = rule.tool.as_deref().map(|t| format!(" tool {t}")).unwrap_or_default();
                let said = format!("{}{tool} is in mode {:?}", rule.server, rule.mode).to_lowercase();
                Ok(format!("{said}{notes}"))
            }
        }
    }

    /// Takes in what was kept.
    pub fn restore(&mut self, stored: Stored) {
        self.enforcement.touch();
        for mut b in stored.baselines {
            b.share_names();
            self.now_utc = self.now_utc.max(b.last_utc);
            self.baselines.insert(b.key.clone(), b);
        }
        self.waiting.extend(stored.waiting);
        self.modes.extend(stored.modes);
        self.assess_all();
        self.instances.values_mut().for_each(Instance::forget_verdicts);
    }

    /// All that is to be kept.
    #[must_use]
    pub fn stored(&self) -> Stored {
        Stored {
            baselines: self.baselines.values().cloned().collect(),
            waiting: self.waiting.iter().map(|(k, w)| (k.clone(), w.clone())).collect(),
            modes: self.modes.clone(),
        }
    }

    fn assess_all(&mut self) {
        let keys: Vec<_> = self.baselines.keys().cloned().collect();
        keys.iter().for_each(|k| self.assess(k));
    }

    pub(super) fn find(&self, name: &str) -> Result<crate::baseline::Key, String> {
        self.baseline(name).map(|b| b.key.clone()).ok_or_else(|| {
            let same: Vec<String> = self
                .baselines
                .keys()
                .filter(|k| k.name == name || k.to_string().contains(name))
                .map(ToString::to_string)
                .collect();
            if same.is_empty() {
                format!("there is no baseline {name}; `toolwarden baseline list` shows all")
            } else {
                format!("{name} may mean {}", same.join(" or "))
            }
        })
    }
}
