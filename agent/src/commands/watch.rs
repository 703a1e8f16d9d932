//! `watch`: what happens, as it happens.

use std::io::Write;

use engine::output::Line;
use serde_json::Value;

use super::{
    args::{Format, Watch},
    client,
    exit::{Exit, Stop},
    show,
};
use crate::print::Text;

/// Longest line: an effect has some KiB, a finding some tens of them.
const MAX_LINE: usize = 16 << 20;

pub(super) fn watch(options: &Watch, out: &mut dyn Write) -> Result<Exit, Stop> {
    let all = [
        ("server", &options.server),
        ("tool", &options.tool),
        ("type", &options.r#type),
        ("kind", &options.kind),
        ("severity", &options.severity),
    ];
    let query: Vec<(&str, &str)> =
        all.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect();
    let colour = anstream::stdout().current_choice() != anstream::ColorChoice::Never;
    let calls = options.r#type.as_deref().is_none_or(|types| types.split(',').any(|t| t == "call"));
    let calls = calls && options.kind.is_none() && options.severity.is_none();
    let new = || if calls { Text::new(colour) } else { Text::new(colour).one_by_one() };
    let mut text = (options.remote.format == Format::Table).then(new);
    let mut waiting = Vec::new();
    let mut missed = None;
    client::stream(&options.remote, "/v1/watch", &query, |piece| {
        waiting.extend_from_slice(piece);
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            missed = print(&line, text.as_mut(), out)?;
        }
        if waiting.len() > MAX_LINE {
            return Err(Stop::new(Exit::Unreachable, "the agent sends a line without an end"));
        }
        out.flush().map_err(Stop::from)
    })?;
    match missed {
        Some(missed) => Err(Stop::new(
            Exit::No,
            format!(
                "cut off for reading too slowly: {missed} lines were missed; filter more, or read faster"
            ),
        )),
        None => Err(Stop::new(Exit::Unreachable, "the agent has ended")),
    }
}

/// Prints a line; of the one that says that it is the last, how many were missed.
fn print(line: &[u8], text: Option<&mut Text>, out: &mut dyn Write) -> Result<Option<u64>, Stop> {
    let strange = || Stop::new(Exit::Unreachable, "the agent sends what this toolwarden does not understand");
    let value: Value = serde_json::from_slice(line).map_err(|_not_json| strange())?;
    let cut = value.get("type").and_then(Value::as_str) == Some("cut");
    let missed = cut.then(|| value.get("missed").and_then(Value::as_u64).unwrap_or(0));
    match text {
        // People are told in words at the end.
        Some(_) if cut => {}
        Some(text) => {
            let line: Line = serde_json::from_value(value).map_err(|_other| strange())?;
            text.line(&line, out)?;
        }
        None => writeln!(out, "{}", show::inert(&value.to_string()))?,
    }
    Ok(missed)
}
