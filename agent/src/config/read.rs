//! One file: read with care, and each mistake told with its place and a remedy.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use engine::rules::{
    problem::{Problem, did_you_mean},
    value::At,
};

use super::written::Config;
use crate::files;

/// Bytes of one file.
const MAX: usize = 1 << 20;
/// Files of one directory.
const MAX_FILES: usize = 1000;

/// The files of `conf.d`.
pub(super) fn drop_ins(dir: &Path, strict: bool) -> Result<Vec<PathBuf>> {
    let meta = std::fs::metadata(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    if let Some((why, remedy)) = files::not_only_roots(dir, &meta) {
        ensure!(!strict, "{} {why}: configuration is taken only from root; try: {remedy}", dir.display());
    }
    files::of(dir, &["toml"], MAX_FILES)
}

/// Bytes at the beginning and at the end of a message that are said.
const SAID: usize = 300;
/// In the name of a key: its value is nobody's business.
const SECRETS: [&str; 4] = ["token", "secret", "password", "key"];

/// The text of a file that is right by itself.
pub(super) fn file(path: &Path, strict: bool, warnings: &mut Vec<String>) -> Result<String> {
    let (text, meta) = files::text(path, MAX)?;
    if let Some((why, remedy)) = files::not_only_roots(path, &meta) {
        ensure!(!strict, "{} {why}: configuration is taken only from root; try: {remedy}", path.display());
        warnings.push(format!("{} {why}: the daemon refuses it until: {remedy}", path.display()));
    }
    check(&path.display().to_string(), &text)?;
    Ok(text)
}

/// Says what is wrong: the place, the line with a caret, what to do.
pub(super) fn check(name: &str, text: &str) -> Result<()> {
    let Err(error) = toml::from_str::<Config>(text) else {
        return Ok(());
    };
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |n| n + 1);
    let at = At {
        line: u32::try_from(before.matches('\n').count() + 1).unwrap_or(u32::MAX),
        column: u32::try_from(before.get(start..).unwrap_or_default().chars().count() + 1)
            .unwrap_or(u32::MAX),
    };
    let (message, remedy) = explained(error.message());
    let mut problem = Problem::error(name, text, at, brief(&message)).maybe(remedy);
    // What is broken may be a secret that somebody meant to write there.
    problem.source = problem.source.filter(|line| !is_secret(line));
    Err(anyhow!("{problem}"))
}

/// Whether the value in a line may be a secret.
fn is_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    SECRETS.iter().any(|word| line.contains(word))
}

/// Values are chosen by whoever wrote the file, and may be huge: what is said about them is not.
pub(super) fn brief(message: &str) -> String {
    if message.len() <= 2 * SAID {
        return message.to_owned();
    }
    let (first, last) = (message.floor_char_boundary(SAID), message.ceil_char_boundary(message.len() - SAID));
    format!("{} ... {}", &message[..first], &message[last..])
}

/// serde lists all that it knows, which may be much: what was meant is enough.
fn explained(message: &str) -> (String, Option<String>) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next().filter(|_| message.starts_with("unknown ")) else {
        return (message.to_owned(), None);
    };
    let what = if message.starts_with("unknown field") { "key" } else { "value" };
    let known: Vec<&str> = quoted.collect();
    let remedy = did_you_mean(unknown, known.iter().copied());
    (
        format!("unknown {what} `{unknown}`"),
        Some(remedy.unwrap_or_else(|| format!("known here: {}", known.join(", ")))),
    )
}
