//! What is wrong with a rule file, where, and what to do about it.

use std::fmt;

use serde::Serialize;

use super::value::At;

/// Columns shown of a long line.
const SHOWN: usize = 120;

/// Whether a file can be used in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It can: what lint says.
    Warning,
    /// It cannot.
    Error,
}

/// One thing that is wrong. `Display` shows it with the line and a caret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether the file can be used in spite of it.
    pub level: Level,
    /// File.
    pub file: String,
    /// Line from 1; 0 when it is about the whole file.
    pub line: u32,
    /// Column from 1, in characters.
    pub column: u32,
    /// Rule, where it is known.
    pub rule: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: Option<String>,
    /// The line itself.
    pub source: Option<String>,
}

impl Problem {
    /// An error at a place of a file with this text.
    #[must_use]
    pub fn error(file: &str, text: &str, at: At, message: impl Into<String>) -> Self {
        let source = (at.line as usize).checked_sub(1).and_then(|n| text.lines().nth(n));
        Self {
            level: Level::Error,
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            rule: None,
            message: message.into(),
            remedy: None,
            source: source.map(|line| line.chars().take(4096).collect()),
        }
    }

    /// Says what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Says what to do, if that is known.
    #[must_use]
    pub fn maybe(mut self, remedy: Option<String>) -> Self {
        self.remedy = remedy.or(self.remedy);
        self
    }

    pub(super) fn rule(mut self, id: &str) -> Self {
        self.rule = Some(id.to_owned());
        self
    }

    pub(super) fn warning(mut self) -> Self {
        self.level = Level::Warning;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Warning => "warning",
            Level::Error => "error",
        };
        write!(f, "{}", safe(&self.file))?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {level}: {}", safe(&self.message))?;
        if let Some(source) = self.source.as_deref().filter(|_| self.column > 0) {
            let (shown, caret) = window(source, self.column as usize);
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            write!(f, "\n{margin} |\n{number} | {shown}\n{margin} | {}^", " ".repeat(caret))?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  = help: {}", safe(remedy))?;
        }
        Ok(())
    }
}

/// The part of a line round a column, safe to print, and how far the caret stands from its start.
fn window(line: &str, column: usize) -> (String, usize) {
    let at = column.saturating_sub(1);
    let from = if at < SHOWN { 0 } else { at - SHOWN / 2 };
    let cut = if from > 0 { "..." } else { "" };
    let (mut shown, mut caret) = (cut.to_owned(), cut.len());
    for (i, c) in line.chars().enumerate().skip(from).take(SHOWN) {
        let piece = if c == '\t' { " ".to_owned() } else { safe(c.encode_utf8(&mut [0; 4])) };
        if i < at {
            caret += piece.chars().count();
        }
        shown.push_str(&piece);
    }
    (shown, caret)
}

/// Text without anything that a terminal would obey: files come from anyone.
pub(super) fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Bidirectional overrides can make a path read as another one.
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
        if c.is_control() || turns {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The candidate that was probably meant.
pub(super) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Distance is quadratic; nobody means a key of this length.
    if word.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(word, c), c))
        .filter(|(distance, c)| *distance <= 1 + c.len().min(word.len()) / 4)
        .min()
        .map(|(_, c)| c)
}

/// "did you mean" as a remedy.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(word, candidates).map(|c| format!("did you mean `{c}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_line_and_a_caret() {
        let text = "rules:\n\t- idd: \u{1b}[2Jx\n";
        let p = Problem::error("a.yaml", text, At { line: 2, column: 4 }, "unknown key `idd`")
            .remedy("did you mean `id`?");
        assert_eq!(
            p.to_string(),
            "a.yaml:2:4: error: unknown key `idd`\n  |\n2 |  - idd: \\u{1b}[2Jx\n  |    ^\n  = help: did you mean `id`?"
        );
    }

    #[test]
    fn a_long_line_is_cut_round_the_caret() {
        let text = format!("{}HERE{}", "x".repeat(5000), "y".repeat(5000));
        let p = Problem::error("a", &text, At { line: 1, column: 2001 }, "m");
        let shown = p.to_string();
        assert!(shown.len() < 500, "{shown}");
        assert!(shown.contains("1 | ...xxx"));
    }

    #[test]
    fn meant_words_are_found_and_others_are_not() {
        let keys = ["network", "files", "exec"];
        assert_eq!(closest("netwrok", keys), Some("network"));
        assert_eq!(closest("file", keys), Some("files"));
        assert_eq!(closest("sockets", keys), None);
        assert_eq!(closest(&"n".repeat(1000), keys), None);
    }
}
