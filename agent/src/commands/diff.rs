//! `baseline diff`: lines with `+` and `-`, as reviewers know them.

use std::io;

use owo_colors::{OwoColorize as _, Style};
use serde_json::Value;

use super::show::{Screen, at, list, some};
use crate::print::safe;

/// Whether there is no difference; an answer that does not say so differs.
pub(super) fn same(diff: &Value) -> bool {
    diff.get("same") == Some(&Value::Bool(true))
}

pub(super) fn page(diff: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let painted = |text: String, style: Style| text.style(style).to_string();
    if same(diff) {
        return to.line("no difference");
    }
    let (minus, plus) = (Style::new().red(), Style::new().green());
    to.line(painted(format!("--- {}", safe(&at(diff, "a"))), minus))?;
    to.line(painted(format!("+++ {}", safe(&at(diff, "b"))), plus))?;
    let mut shown = None;
    for change in list(diff, "changes") {
        let scope = at(change, "scope");
        if shown.as_ref() != Some(&scope) {
            to.line(painted(format!("@@ {} @@", safe(&scope)), Style::new().cyan()))?;
            shown = Some(scope);
        }
        let (mark, style) = match change.get("change").and_then(Value::as_str) {
            Some("added") => ('+', plus),
            Some("removed") => ('-', minus),
            _ => ('~', Style::new().yellow()),
        };
        let was = some(change, "was").map(|was| format!("  (was {was})")).unwrap_or_default();
        let line = format!("{mark} {:<12} {}{was}", at(change, "dimension"), at(change, "member"));
        to.line(painted(safe(&line), style))?;
    }
    Ok(())
}
