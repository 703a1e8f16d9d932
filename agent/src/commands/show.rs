//! Tables, colours and times. All text passes [`safe`]: names, paths and members are chosen by what
//! is watched.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use owo_colors::{OwoColorize as _, Style};
use serde_json::Value;

use crate::print::safe;

/// Longest cell; `--format json` has all of it.
const MAX_CELL: usize = 96;

/// Where people read. Colours are always written; anstream takes them away where they are not
/// wanted (no terminal, `NO_COLOR`).
pub(crate) struct Screen<'a> {
    out: &'a mut dyn Write,
}

impl<'a> Screen<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { out }
    }

    /// A line whose parts were made safe before.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.out, "{}", line.as_ref().trim_end())
    }

    /// A heading with an empty line above it.
    pub(crate) fn heading(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "\n{}", safe(text).style(Style::new().bold()))
    }

    /// `name   text`
    pub(crate) fn field(&mut self, name: &str, text: &str) -> io::Result<()> {
        self.line(format!("{:<12} {}", name, safe(text)))
    }

    /// Rows below a header; the style is that of a whole row, so that widths stay right.
    pub(crate) fn table(&mut self, header: &[&str], rows: Vec<(Vec<String>, Style)>) -> io::Result<()> {
        if rows.is_empty() {
            return self.line("none");
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(header.iter().map(|name| name.replace('_', " ").to_uppercase()));
        let mut styles = vec![Style::new().bold()];
        for (cells, style) in rows {
            table.add_row(cells.iter().map(|cell| shorten(&safe(cell))));
            styles.push(style);
        }
        for (line, style) in table.lines().zip(styles) {
            let line = line.trim();
            writeln!(self.out, "{}", line.style(style))?;
        }
        Ok(())
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_CELL) {
        Some(_) => text.chars().take(MAX_CELL - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// A value as a person reads it; `-` when it is not there.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        other => other.to_string(),
    }
}

/// A field as a person reads it.
pub(crate) fn at(value: &Value, key: &str) -> String {
    text(value.get(key).unwrap_or(&Value::Null))
}

/// A field that may be absent.
pub(crate) fn some(value: &Value, key: &str) -> Option<String> {
    value.get(key).filter(|v| !v.is_null()).map(text).filter(|text| !text.is_empty())
}

/// The rows of an answer; anything else is no row.
pub(crate) fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The rows of a field.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).map_or(&[], rows)
}

/// A time: text of RFC 3339, `{utc, ...}`, or nanoseconds or seconds since 1970; to the second, UTC.
pub(crate) fn time(value: &Value) -> String {
    let at = match value {
        Value::String(text) => match text.parse::<jiff::Timestamp>() {
            Ok(at) => at,
            Err(_) => return text.clone(),
        },
        Value::Object(fields) => return fields.get("utc").map_or_else(|| "-".into(), time),
        Value::Number(n) => match n.as_i64().and_then(moment) {
            Some(at) => at,
            None => return n.to_string(),
        },
        _ => return "-".into(),
    };
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

fn moment(n: i64) -> Option<jiff::Timestamp> {
    // Seconds reach these numbers in the year 5138; nanoseconds left them in 1970.
    if n.unsigned_abs() < 100_000_000_000 {
        jiff::Timestamp::from_second(n).ok()
    } else {
        jiff::Timestamp::from_nanosecond(i128::from(n)).ok()
    }
}

/// The time in a field.
pub(crate) fn time_at(value: &Value, key: &str) -> String {
    time(value.get(key).unwrap_or(&Value::Null))
}

/// The colour of a severity or a state.
pub(crate) fn style(word: &str) -> Style {
    match word {
        "critical" => Style::new().bold().red(),
        "high" | "blind" | "too-large" => Style::new().red(),
        "medium" | "stale" => Style::new().yellow(),
        "active" | "enforce" => Style::new().green(),
        "low" | "learning" => Style::new().cyan(),
        _ => Style::new(),
    }
}

/// For machines: one document, or its rows, one a line.
pub(crate) fn machine(
    document: bool,
    data: &Value,
    rows: &[Value],
    out: &mut (impl Write + ?Sized),
) -> io::Result<()> {
    if document {
        return writeln!(out, "{}", inert(&serde_json::to_string_pretty(data)?));
    }
    rows.iter().try_for_each(|row| writeln!(out, "{}", inert(&row.to_string())))
}

/// JSON that a terminal shows and does not obey: it leaves no control character unescaped, and is
/// the same JSON.
pub(crate) fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && safe(c.encode_utf8(&mut [0; 4])).len() != c.len_utf8() {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}
