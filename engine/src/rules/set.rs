//! Rules as meant: compiled, and the set of them.

use std::{collections::HashMap, fmt, sync::Arc};

use super::{
    compile,
    limits::Metric,
    names::NameGlob,
    parse::{MAX_RULES, parse},
    problem::{Level, Problem},
    table::Table,
    units::Day,
    value::At,
    written::{self, Learned, Response},
};
use crate::finding::{Kind, Severity, Taxonomy};

/// Who wrote a rule. A person's word stands above a pack's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Shipped with the product.
    Pack,
    /// Written by a person on this host, or ratified by one.
    Person,
}

/// A rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What it is called in messages: its path.
    pub name: String,
    /// What stands in it.
    pub text: String,
    /// Who wrote it.
    pub origin: Origin,
}

/// A rule as meant.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Unique.
    pub id: String,
    /// Who wrote it.
    pub origin: Origin,
    /// Where it stands.
    pub place: Place,
    /// What a hit is called.
    pub kind: Kind,
    /// How bad a hit is.
    pub severity: Severity,
    /// What the field calls a hit.
    pub taxonomy: Taxonomy,
    /// What is to be done about a hit.
    pub response: Vec<Response>,
    /// What becomes of the learned baseline, if it says so.
    pub learned: Option<Learned>,
    /// What is permitted all the same.
    pub exceptions: Vec<Exception>,
    /// What one call may use.
    pub limits: Vec<(Metric, u64)>,
    /// As it was written.
    pub written: written::Rule,
    pub(super) matches: Matcher,
    pub(super) table: Table,
    /// Which file, by its number.
    pub(super) file: usize,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File.
    pub file: Arc<str>,
    /// Line and column.
    pub at: At,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.at.line)
    }
}

/// An exception as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its name, if it has one.
    pub id: Option<String>,
    /// Why.
    pub reason: String,
    /// The first day on which it no longer holds.
    pub expires: Option<Day>,
    /// Where it stands.
    pub at: At,
}

impl Exception {
    /// Whether it holds on a day.
    #[must_use]
    pub fn holds(&self, today: Day) -> bool {
        self.expires.is_none_or(|expires| today < expires)
    }
}

/// Whom a rule is about. An empty list is about all.
#[derive(Clone, Debug, Default)]
pub(super) struct Matcher {
    pub(super) server: Vec<NameGlob>,
    pub(super) tool: Vec<NameGlob>,
    pub(super) startup: bool,
    pub(super) ambient: bool,
    /// Nothing is said of tools, or `*`.
    pub(super) any_scope: bool,
    pub(super) package: Vec<NameGlob>,
    pub(super) user: Vec<NameGlob>,
}

/// Rules, compiled. Immutable: a reload makes another one.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    pub(super) rules: Vec<Rule>,
    pub(super) sources: Vec<Source>,
    pub(super) today: Day,
}

impl RuleSet {
    /// Compiles rule files. `today` only counts for what is asked without a day of its own.
    ///
    /// # Errors
    ///
    /// All that is wrong, in the order of the files.
    pub fn compile(sources: &[Source], today: Day) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut rules: Vec<Rule> = Vec::new();
        let mut ids: HashMap<String, Place> = HashMap::new();
        for (file, source) in sources.iter().enumerate() {
            let written = match parse(&source.name, &source.text) {
                Ok(written) => written,
                Err(problem) => {
                    problems.push(*problem);
                    continue;
                }
            };
            let name: Arc<str> = source.name.as_str().into();
            for rule in written.rules {
                let place = Place { file: Arc::clone(&name), at: rule.id.at };
                if let Some(first) = ids.get(&rule.id.value) {
                    if problems.len() >= compile::MAX_PROBLEMS {
                        continue;
                    }
                    let message = format!("the id `{}` is taken by {first}", rule.id.value);
                    problems.push(
                        Problem::error(&source.name, &source.text, rule.id.at, message)
                            .remedy("ids are unique among all files: give this rule another one"),
                    );
                    continue;
                }
                ids.insert(rule.id.value.clone(), place.clone());
                rules.push(compile::rule(rule, source, place, file, &mut problems));
            }
        }
        if rules.len() > MAX_RULES {
            problems.push(Problem::error("rules", "", At::default(), format!("more than {MAX_RULES} rules")));
        }
        if problems.iter().any(|p| p.level == Level::Error) {
            return Err(problems);
        }
        Ok(Self { rules, sources: sources.to_vec(), today })
    }

    /// The rules in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// A rule by its id.
    #[must_use]
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.id == id)
    }

    /// The day that it was compiled for.
    #[must_use]
    pub fn today(&self) -> Day {
        self.today
    }

    /// Something to say about a place of a rule.
    pub(super) fn note(&self, rule: &Rule, at: At, message: String) -> Problem {
        let (name, text) =
            self.sources.get(rule.file).map_or(("", ""), |s| (s.name.as_str(), s.text.as_str()));
        let at = if at == At::default() { rule.place.at } else { at };
        Problem::error(name, text, at, message).rule(&rule.id).warning()
    }
}
