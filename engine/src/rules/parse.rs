//! From text to rules as written. All bytes are hostile: size, depth, nodes and aliases are bounded
//! before anything is built from them.

use serde_saphyr::{Error, MergeKeyPolicy};

use super::{
    problem::{Problem, did_you_mean},
    value::At,
    written::RuleFile,
};

/// Bytes of one file.
pub const MAX_FILE: usize = 1 << 20;
/// Rules of one file, and of all files together.
pub(super) const MAX_RULES: usize = 20_000;

/// Reads one file.
///
/// # Errors
///
/// What is wrong with it: the first thing, because what follows a broken line is guesswork.
pub fn parse(file: &str, text: &str) -> Result<RuleFile, Box<Problem>> {
    let whole = |message: String| Box::new(Problem::error(file, text, At::default(), message));
    if text.len() > MAX_FILE {
        return Err(Box::new(*whole(format!(
            "the file has {} bytes; a rule file has at most {MAX_FILE}",
            text.len()
        ))));
    }
    if text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
        return Err(Box::new(whole("the file has no rules".into()).remedy("begin with `rules:`")));
    }
    // Rules need no anchors at all: the few that a person may like are far below these bounds.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 24,
            max_documents: 8,
            max_nodes: 200_000,
            max_events: 500_000,
            max_anchors: 256,
            max_aliases: 1024,
            max_recorded_anchor_events: 20_000,
            max_recorded_anchor_bytes: 1 << 20,
            max_total_scalar_bytes: MAX_FILE,
            flow_nesting_limit: 24,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 8,
            max_alias_expansions_per_anchor: 1024,
        },
        merge_keys: MergeKeyPolicy::Error,
        with_snippet: false,
    };
    let parsed: RuleFile = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| Box::new(problem(file, text, error.without_snippet())))?;
    if parsed.rules.len() > MAX_RULES {
        return Err(whole(format!("more than {MAX_RULES} rules in one file")));
    }
    Ok(parsed)
}

fn problem(file: &str, text: &str, error: &Error) -> Problem {
    let at = error.location().map(At::from).unwrap_or_default();
    let new = |message: String| Problem::error(file, text, at, message);
    match error {
        Error::SerdeUnknownField { field, expected, .. } => new(format!("unknown key `{field}`"))
            .remedy(format!("known here: {}", expected.join(", ")))
            .maybe(did_you_mean(field, expected.iter().copied())),
        Error::SerdeUnknownVariant { variant, expected, .. } => new(format!("unknown value `{variant}`"))
            .remedy(format!("one of: {}", expected.join(", ")))
            .maybe(did_you_mean(variant, expected.iter().copied())),
        Error::SerdeMissingField { field, .. } => {
            let problem = new(format!("`{field}` is missing"));
            match *field {
                "reason" => problem.remedy("say why it is permitted, and who says so"),
                "rules" => problem.remedy("a rule file is a mapping: `rules:` and a list of rules"),
                "id" => problem.remedy("every rule has an id of its own: `- id: my-rule`"),
                _ => problem,
            }
        }
        Error::DuplicateMappingKey { key, .. } => {
            new(format!("`{}` is given twice", key.as_deref().unwrap_or("a key")))
                .remedy("join the two into one")
        }
        Error::UnknownAnchor { .. } => new("this is a YAML alias of nothing".into())
            .remedy("a pattern that begins with `*` must be in quotes: \"*.example.com\""),
        Error::NullIntoString { .. } => new("there is nothing here".into())
            .remedy("write a string, or leave the key out; `~` needs quotes"),
        Error::MultipleDocuments { .. } => {
            new("a second YAML document".into()).remedy("one list of `rules:` a file, no `---`")
        }
        Error::SerdeInvalidType { unexpected, expected, .. } => {
            // `on`, `1.10` and `0x10` are no strings in YAML, and what they are is not what was meant.
            let quotes = expected.contains("string").then(|| "if it is a name, put it in quotes".to_owned());
            new(format!("expected {expected}, found {unexpected}")).maybe(quotes)
        }
        other => {
            let message = first_line(&other.to_string());
            let quote =
                source_char(text, at).is_some_and(|c| matches!(c, '*' | '@' | '&' | '!' | '%' | '`' | '{'));
            let bounded = message.starts_with("budget breached") || message.contains("alias");
            let problem = new(message);
            if bounded {
                problem.remedy("rules are flat lists: this file is too deep, too large, or repeats too much")
            } else if quote {
                problem.remedy("put the pattern in quotes")
            } else {
                problem
            }
        }
    }
}

/// The parser's own words, bounded; it may quote the file.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or("not YAML").chars().take(300).collect()
}

fn source_char(text: &str, at: At) -> Option<char> {
    let line = text.lines().nth((at.line as usize).checked_sub(1)?)?;
    line.chars().nth((at.column as usize).checked_sub(1)?)
}
