//! `findings`: list, show, acknowledge, permit.

use std::io::{self, Write};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde_json::{Value, json};

use super::{
    answer,
    args::{Findings, FindingsVerb, List, Remote},
    client,
    exit::{Exit, Stop},
    explain,
    show::{Screen, at, rows, some, style, time_at},
};
use crate::print::{safe, safe_lines};

pub(super) fn run(options: &Findings, out: &mut dyn Write) -> Result<Exit, Stop> {
    let remote = &options.remote;
    match &options.verb {
        FindingsVerb::List(filter) => list(filter, remote, out),
        FindingsVerb::Show { id } => answer(remote, &finding(id, remote)?, out, show_page),
        FindingsVerb::Explain { id } => {
            let mut found = finding(id, remote)?;
            found["responses"] = responses(&found, remote)?;
            answer(remote, &found, out, explain::page)
        }
        FindingsVerb::Ack { id, expected, note } => {
            let body = json!({ "note": note, "expected": expected });
            let data = client::post(remote, &format!("/v1/findings/{}/ack", client::percent(id)), &body)?;
            answer(remote, &data, out, |_, to| {
                let taught = if *expected { "; the baseline may learn it" } else { "" };
                to.line(format!("{} is acknowledged{taught}", safe(id)))
            })
        }
        FindingsVerb::Permit { id, reason, expires } => {
            if let Some(date) = expires {
                let wrong =
                    |e| Stop::new(Exit::Usage, format!("--expires {date}: {e}; write it as 2027-01-31"));
                let _checked: Date = date.parse().map_err(wrong)?;
            }
            let body = json!({ "reason": reason, "expires": expires });
            let data = client::post(remote, &format!("/v1/findings/{}/permit", client::percent(id)), &body)?;
            answer(remote, &data, out, |data, to| {
                let file = some(data, "file").map(|file| format!(" in {}", safe(&file))).unwrap_or_default();
                to.line(format!("{} is permitted{file}", safe(id)))?;
                some(data, "text").map_or(Ok(()), |text| to.line(safe_lines(&text)))
            })
        }
    }
}

fn finding(id: &str, remote: &Remote) -> Result<Value, Stop> {
    client::get(remote, &format!("/v1/findings/{}", client::percent(id)), &[])
}

/// What was ordered because of it, as far as the latest responses tell.
fn responses(found: &Value, remote: &Remote) -> Result<Value, Stop> {
    let all = client::get(remote, "/v1/responses", &[("limit", "1000")])?;
    let because = |r: &&Value| r["cause"]["finding"].is_string() && r["cause"]["finding"] == found["id"];
    Ok(super::show::rows(&all).iter().filter(because).cloned().collect())
}

fn list(filter: &List, remote: &Remote, out: &mut dyn Write) -> Result<Exit, Stop> {
    // One more, to tell whether there are more.
    let limit = filter.limit.saturating_add(1).to_string();
    let since = match &filter.since {
        Some(text) => Some(since(text, Timestamp::now())?.as_nanosecond().to_string()),
        None => None,
    };
    let optional = [
        ("severity", filter.severity.as_deref()),
        ("server", filter.server.as_deref()),
        ("kind", filter.kind.as_deref()),
        ("since_utc_ns", since.as_deref()),
    ];
    let mut query = vec![("limit", limit.as_str())];
    query.extend(optional.into_iter().filter_map(|(key, value)| Some((key, value?))));
    if !filter.all {
        query.push(("acked", "false"));
    }
    let mut data = client::get(remote, "/v1/findings", &query)?;
    let most = filter.limit as usize;
    if let Some(all) = data.as_array_mut().filter(|all| all.len() > most) {
        all.truncate(most);
        anstream::eprintln!("toolwarden: there are more than these {most}; --limit shows more");
    }
    answer(remote, &data, out, list_page)
}

/// A moment: a day, a time, or how long ago.
pub(super) fn since(text: &str, now: Timestamp) -> Result<Timestamp, Stop> {
    let wrong = || {
        let message = format!("--since {text}: write 2026-05-03, 2026-05-03T12:00:00Z, 90m, 24h or 7d");
        Stop::new(Exit::Usage, message)
    };
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(day) = text.parse::<Date>() {
        return day.to_zoned(TimeZone::UTC).map(|day| day.timestamp()).ok().ok_or_else(wrong);
    }
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86400,
        _ => return Err(wrong()),
    };
    let number: i64 = text.trim_end_matches(unit).parse().ok().filter(|n| *n >= 0).ok_or_else(wrong)?;
    let ago = number.checked_mul(seconds).ok_or_else(wrong)?;
    now.checked_sub(SignedDuration::from_secs(ago)).ok().ok_or_else(wrong)
}

pub(super) fn list_page(findings: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let row = |f: &Value| {
        let severity = at(f, "severity");
        let style = style(&severity);
        let (server, tool) = (server(f), tool(f));
        let acked = f.get("acked").is_some_and(|a| !a.is_null());
        let count = format!("{}{}", at(f, "count"), if acked { " seen" } else { "" });
        (
            vec![
                at(f, "id"),
                time_at(f, "time"),
                severity,
                at(f, "kind"),
                server,
                tool,
                count,
                at(f, "object"),
            ],
            style,
        )
    };
    let columns = ["id", "time", "severity", "kind", "server", "tool", "count", "object"];
    to.table(&columns, rows(findings).iter().map(row).collect())
}

pub(super) fn server(finding: &Value) -> String {
    finding.get("server").map_or_else(|| "-".into(), |server| at(server, "name"))
}

fn tool(finding: &Value) -> String {
    let Some(scope) = finding.get("scope") else { return "-".into() };
    some(scope, "tool").unwrap_or_else(|| format!("({})", at(scope, "kind")))
}

pub(super) fn show_page(f: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    to.line(safe(&at(f, "sentence")))?;
    for key in ["id", "severity", "kind", "object", "count", "revision", "identity"] {
        to.field(key, &at(f, key))?;
    }
    to.field("time", &time_at(f, "time"))?;
    to.field("server", &server(f))?;
    to.field("tool", &tool(f))?;
    to.field("seen", &explain::acked(f))?;
    to.line(format!("\n`toolwarden findings explain {}` tells all about it", safe(&at(f, "id"))))
}
