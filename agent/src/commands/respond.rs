//! `respond`, `responses`, `disarm`, `arm`.

use std::{
    io::{self, Write},
    str::FromStr as _,
};

use clap::{Args, Subcommand, ValueEnum};
use engine::{finding::Severity, respond::Action, rules::written::Response};
use owo_colors::Style;
use serde_json::{Value, json};

use super::{
    answer,
    args::Remote,
    client,
    exit::{Exit, Stop},
    findings::server,
    show::{Screen, at, rows, some, style, time_at},
};
use crate::print::safe;

#[derive(Clone, Debug, Args)]
pub(crate) struct Respond {
    /// What to do
    #[arg(value_enum)]
    pub(crate) what: What,
    /// Name, id or identity of the server
    pub(crate) server: String,
    /// For so long: 90s, 10m, 2h; 0 is without end. Of `kill`: for so long it may not start again, 0 lets it
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) for_ns: Option<u64>,
    /// Only tell what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// What a person can do about a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// All its processes stand still
    Freeze,
    /// Less CPU, memory, processes, disk and network
    Throttle,
    /// No network
    Cut,
    /// End all its processes; it is frozen when it starts again
    Kill,
    /// Undo all of that, and let it start again
    Release,
}

impl What {
    fn action(self) -> Action {
        match self {
            Self::Freeze => Action::Freeze,
            Self::Throttle => Action::Throttle,
            Self::Cut => Action::CutNetwork,
            Self::Kill => Action::KillServer,
            Self::Release => Action::Release,
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Responses {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) verb: ResponsesVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ResponsesVerb {
    /// Responses, latest first
    List {
        /// Only of this server
        #[arg(long)]
        server: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// One response: why, what, and how it is undone
    Show { id: String },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Arms {
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// What is done about findings of a severity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Default {
    pub(crate) severity: Severity,
    pub(crate) ladder: Vec<Response>,
}

/// `critical=throttle,freeze`.
pub(crate) fn default_of(text: &str) -> Result<Default, String> {
    let (severity, ladder) = text.split_once('=').ok_or("write it as critical=throttle,freeze")?;
    let severity = serde_json::from_value(Value::String(severity.to_owned()))
        .map_err(|_unknown| format!("`{severity}` is no severity: info, low, medium, high or critical"))?;
    Ok(Default { severity, ladder: self::ladder(ladder)? })
}

/// `throttle,freeze`.
pub(crate) fn ladder(text: &str) -> Result<Vec<Response>, String> {
    let step = |text: &str| {
        let none = || format!("`{text}` is no response: alert, throttle, cut-network, freeze or kill");
        match serde_json::from_value(Value::String(text.to_owned())) {
            // To deny, an act must be known before it is done.
            Ok(Response::Deny) | Err(_) => Err(none()),
            Ok(step) => Ok(step),
        }
    };
    text.split(',').map(|word| step(word.trim())).collect()
}

/// `90s`, `10m`, `2h`, `1d`, or `0`, in ns.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no time: write 90s, 10m, 2h, 1d or 0");
    if text == "0" {
        return Ok(0);
    }
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number = u64::from_str(text.strip_suffix(unit).unwrap_or_default())
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(wrong)?;
    let ns = number.checked_mul(seconds).and_then(|s| s.checked_mul(1_000_000_000));
    // A year: what is longer is meant to have no end.
    ns.filter(|ns| *ns <= 366 * 86_400 * 1_000_000_000)
        .ok_or_else(|| format!("`{text}` is longer than a year: 0 is without end"))
}

pub(super) fn respond(options: &Respond, out: &mut dyn Write) -> Result<Exit, Stop> {
    let Respond { what, server, for_ns, dry_run, remote } = options;
    if *what == What::Release && for_ns.is_some() {
        return Err(Stop::new(Exit::Usage, "a release is for good: it takes no --for"));
    }
    let body = json!({ "server": server, "action": what.action(), "for_ns": for_ns, "dry_run": dry_run });
    let data = client::post(remote, "/v1/respond", &body)?;
    answer(remote, &data, out, message)
}

pub(super) fn disarm(options: &Arms, out: &mut dyn Write) -> Result<Exit, Stop> {
    let data = client::post(&options.remote, "/v1/disarm", &json!({}))?;
    answer(&options.remote, &data, out, message)
}

pub(super) fn arm(options: &Arms, out: &mut dyn Write) -> Result<Exit, Stop> {
    let data = client::post(&options.remote, "/v1/arm", &json!({}))?;
    answer(&options.remote, &data, out, message)
}

fn message(data: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    to.line(safe(&at(data, "message")))
}

pub(super) fn responses(options: &Responses, out: &mut dyn Write) -> Result<Exit, Stop> {
    let remote = &options.remote;
    match &options.verb {
        ResponsesVerb::List { server, limit } => {
            let limit = limit.to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(server.as_deref().map(|s| ("server", s)));
            let data = client::get(remote, "/v1/responses", &query)?;
            answer(remote, &data, out, list_page)
        }
        ResponsesVerb::Show { id } => {
            let data = client::get(remote, &format!("/v1/responses/{}", client::percent(id)), &[])?;
            answer(remote, &data, out, show_page)
        }
    }
}

fn list_page(responses: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let row = |r: &Value| {
        let verdict = at(r, "verdict");
        let style = match verdict.as_str() {
            "refused" | "failed" | "partly" => style("high"),
            _ => Style::new(),
        };
        let cells = vec![
            at(r, "id"),
            time_at(r, "time"),
            server(r),
            at(r, "action"),
            verdict,
            cause(r),
            at(r, "processes"),
            some(r, "until").map_or_else(String::new, |_| time_at(r, "until")),
        ];
        (cells, style)
    };
    let columns = ["id", "time", "server", "action", "verdict", "cause", "processes", "until"];
    to.table(&columns, rows(responses).iter().map(row).collect())
}

/// Why, in short.
fn cause(response: &Value) -> String {
    let Some(cause) = response.get("cause") else { return "-".into() };
    let by = at(cause, "by");
    let more = ["finding", "who", "response"].iter().find_map(|key| some(cause, key));
    more.map_or_else(|| by.clone(), |more| format!("{by} {more}"))
}

fn show_page(r: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    to.line(safe(&at(r, "result")))?;
    for key in ["id", "action", "verdict", "before", "after", "processes", "identity"] {
        to.field(key, &at(r, key))?;
    }
    to.field("time", &time_at(r, "time"))?;
    to.field("server", &server(r))?;
    to.field("cause", &cause(r))?;
    if let Some(rule) = r.get("cause").and_then(|c| some(c, "rule")) {
        to.field("rule", &rule)?;
    }
    if let Some(before) = r.get("cause").and_then(|c| some(c, "before")) {
        to.field("until then", &before)?;
    }
    for key in ["instead_of", "undo"] {
        if let Some(text) = some(r, key) {
            to.field(key, &text)?;
        }
    }
    if r.get("dry_run").and_then(Value::as_bool) == Some(true) {
        to.line("Nothing was done: it says what would have been.")?;
    }
    for spared in r.get("spared").map(rows).unwrap_or_default() {
        to.line(safe(&format!("process {} was not touched: {}", at(spared, "pid"), at(spared, "because"))))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400), ("0", 0)] {
            assert_eq!(duration(text), Ok(seconds * 1_000_000_000), "{text}");
        }
        for text in ["", "s", "10", "-1m", "0m", "1.5h", "10mm", "999999999999d", "400d", "10 m", "m10"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn defaults_by_severity() {
        let all = default_of("critical=throttle,freeze").expect("good");
        assert_eq!(
            (all.severity, all.ladder),
            (Severity::Critical, vec![Response::Throttle, Response::Freeze])
        );
        for text in ["critical", "grave=freeze", "high=", "high=explode", "high=deny", "=kill"] {
            assert!(default_of(text).is_err(), "{text}");
        }
    }
}
