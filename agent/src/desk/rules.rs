//! The rules in force: shipped packs, the host's rule files, and what people permitted or imported.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use engine::{
    judge::RuleText,
    rules::{self, Origin, RuleSet, Source, value::Text, written::RuleFile},
};

use crate::{
    commands::rules::{RULES_D, load, today},
    control::Failure,
    store::ExceptionRow,
};

/// What an import is called in the table of exceptions, where others have their finding.
pub(super) const IMPORT: &str = "import:";

/// Where rule files are.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    /// Told by the operator: must be there.
    explicit: bool,
}

impl Files {
    pub(crate) fn new(dir: Option<&Path>) -> Self {
        match dir {
            Some(dir) => Self { paths: vec![dir.to_owned()], explicit: true },
            None => Self { paths: vec![PathBuf::from(RULES_D)], explicit: false },
        }
    }

    /// For back-tests: these, by whomever they are owned.
    pub(crate) fn read_loosely(paths: &[PathBuf]) -> Result<Vec<RuleText>, String> {
        let loaded = load::load(paths, false).map_err(|e| format!("{e:#}"))?;
        Ok(texts(loaded.sources))
    }

    /// Packs and files.
    pub(crate) fn read(&self) -> Result<Vec<RuleText>, String> {
        if !self.explicit && !self.paths.iter().all(|path| path.exists()) {
            return Ok(texts(Vec::new()));
        }
        let loaded = load::load(&self.paths, true).map_err(|e| format!("{e:#}"))?;
        Ok(texts(loaded.sources))
    }
}

fn texts(own: Vec<Source>) -> Vec<RuleText> {
    let all = rules::packs().into_iter().chain(own);
    all.map(|s| RuleText { name: s.name, text: s.text, shipped: s.origin == Origin::Pack }).collect()
}

/// Compiles, or says all that is wrong: `file:line:column`, caret, remedy.
pub(crate) fn check(files: &[RuleText]) -> Result<usize, String> {
    let origin = |shipped| if shipped { Origin::Pack } else { Origin::Person };
    let source =
        |f: &RuleText| Source { name: f.name.clone(), text: f.text.clone(), origin: origin(f.shipped) };
    let sources: Vec<Source> = files.iter().map(source).collect();
    match RuleSet::compile(&sources, today()) {
        Ok(set) => Ok(set.rules().len()),
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

/// Adds what is stored. A rule whose id a file has taken was moved there by a person: the file's
/// counts. What cannot be read is left out and told.
pub(super) fn with_stored(mut files: Vec<RuleText>, stored: &[ExceptionRow]) -> (Vec<RuleText>, Vec<String>) {
    let mut taken = HashSet::new();
    for file in &files {
        if let Ok(written) = rules::parse(&file.name, &file.text) {
            taken.extend(written.rules.into_iter().map(|rule| rule.id.value));
        }
    }
    let mut problems = Vec::new();
    // Later ones replace earlier ones.
    let mut kept = Vec::new();
    for row in stored.iter().rev() {
        let name = format!("exception-{}", row.id);
        let mut written = match rules::parse(&name, &row.yaml) {
            Ok(written) => written,
            Err(problem) => {
                problems.push(problem.to_string());
                continue;
            }
        };
        let before = written.rules.len();
        written.rules.retain(|rule| taken.insert(rule.id.value.clone()));
        let text = if written.rules.len() == before { row.yaml.clone() } else { rules::export(&written) };
        if !written.rules.is_empty() {
            kept.push(RuleText { name, text, shipped: false });
        }
    }
    files.extend(kept.into_iter().rev());
    (files, problems)
}

/// The exception that a finding offers, with its reason and last day.
pub(super) fn exception(yaml: &str, reason: &str, last_day: Option<&str>) -> Result<String, Failure> {
    if yaml.trim().is_empty() {
        return Err(Failure::invalid("no rule permits this finding; acknowledge it instead"));
    }
    let invalid = |e: &dyn std::fmt::Display| Failure::invalid(e.to_string());
    let mut file: RuleFile = rules::parse("permit", yaml).map_err(|e| invalid(&e))?;
    if reason.trim().is_empty() {
        return Err(Failure::invalid("say why it is permitted: the reason is kept in the rule"));
    }
    // The command line takes the last day on which it holds, rules the first on which it does not.
    let expires = match last_day {
        Some(day) => {
            let wrong =
                |e: jiff::Error| Failure::invalid(format!("expires {day}: {e}; write it as 2027-01-31"));
            let day: jiff::civil::Date = day.parse().map_err(wrong)?;
            Some(day.tomorrow().map_err(wrong)?.to_string())
        }
        None => None,
    };
    for exception in file.rules.iter_mut().flat_map(|rule| &mut rule.exceptions) {
        exception.reason = Text::new(reason);
        exception.expires = expires.as_deref().map(Text::new);
    }
    Ok(rules::export(&file))
}

/// Rows that new text takes the place of: those of the same import, and those with a rule of it.
pub(super) fn replaced(stored: &[ExceptionRow], finding: &str, text: &str) -> Vec<i64> {
    let ids = |yaml: &str| -> HashSet<String> {
        rules::parse("stored", yaml)
            .map(|file| file.rules.into_iter().map(|rule| rule.id.value).collect())
            .unwrap_or_default()
    };
    let new = ids(text);
    let same = |row: &&ExceptionRow| {
        row.finding.as_deref() == Some(finding) || {
            let old = ids(&row.yaml);
            !old.is_empty() && old.is_subset(&new)
        }
    };
    stored.iter().filter(same).map(|row| row.id).collect()
}
