//! `policy show`: who may do what in the kernel, and what is only told. `policy exposure`: for how long.

use std::io::{self, Write};

use owo_colors::Style;
use serde_json::Value;

use super::{
    answer,
    args::{Policy, PolicyVerb},
    client,
    exit::{Exit, Stop},
    show::{Screen, at, list, text, time_at},
};

pub(super) fn run(options: &Policy, out: &mut dyn Write) -> Result<Exit, Stop> {
    match &options.verb {
        PolicyVerb::Show { server } => {
            let data = client::get(&options.remote, "/v1/policy", &[("identity", server)])?;
            answer(&options.remote, &data, out, show_page)
        }
        PolicyVerb::Exposure { server } => {
            let data = client::get(&options.remote, "/v1/policy/exposure", &[("identity", server)])?;
            answer(&options.remote, &data, out, exposure_page)
        }
    }
}

pub(super) fn exposure_page(exposure: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    to.field("identity", &at(exposure, "identity"))?;
    let since = time_at(exposure, "since");
    let observed = format!(
        "{} s in all servers of it, since {since} at the earliest; {} are held now",
        number(exposure, "observed_s"),
        at(exposure, "held")
    );
    to.field("observed", &observed)?;
    to.field("all rights", &surface(exposure, "all"))?;
    to.field("opened", &format!("{}; the others are open all the time", surface(exposure, "opened")))?;
    let ceiling = format!(
        "{} requests were not understood in the kernel: all rights were open for {} s",
        at(exposure, "not_understood"),
        number(exposure, "ceiling_s")
    );
    to.field("ceiling", &ceiling)?;
    let calls = format!(
        "{} without an answer, ended by time; {} of unknown tools; {} could not be opened",
        at(exposure, "expired"),
        at(exposure, "unknown_tools"),
        at(exposure, "not_opened")
    );
    to.field("calls", &calls)?;
    to.heading("Scopes")?;
    let row = |scope: &Value| {
        let none = Value::Null;
        let of = scope.get("surface").unwrap_or(&none);
        vec![
            at(scope, "scope"),
            at(scope, "calls"),
            at(of, "rights"),
            number(scope, "open_s"),
            number(scope, "outlived_s"),
            number(of, "right_s"),
            number(of, "standing_right_s"),
            share(of),
        ]
    };
    to.table(
        &["scope", "calls", "rights", "open_s", "outlived_s", "right_x_s", "standing_right_x_s", "share"],
        plain(list(exposure, "scopes"), row),
    )
}

fn surface(exposure: &Value, key: &str) -> String {
    let none = Value::Null;
    let of = exposure.get(key).unwrap_or(&none);
    let (right_s, standing) = (number(of, "right_s"), number(of, "standing_right_s"));
    format!("{}: {right_s} right x s of {standing} if they stood, {}", at(of, "rights"), share(of))
}

fn number(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_f64).map_or_else(|| "-".into(), |n| format!("{n:.1}"))
}

fn share(surface: &Value) -> String {
    let share = surface.get("share").and_then(Value::as_f64);
    share.map_or_else(|| "-".into(), |share| format!("{:.1} %", share * 100.0))
}

pub(super) fn show_page(policy: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    to.field("identity", &at(policy, "identity"))?;
    to.field("mode", &at(policy, "mode"))?;
    to.field("in force", &state(policy))?;
    to.field("denies", &words(policy, "families", "nothing"))?;
    if let Some(e) = policy.get("expected").filter(|e| e.is_object()) {
        let share = e.get("at_most").and_then(Value::as_f64).unwrap_or(1.0) * 100.0;
        let text = format!(
            "in at most {share:.1} % of benign sessions (95 %); of {} that were learned, {} had something that no other had",
            at(e, "sessions"),
            at(e, "denied")
        );
        to.field("will deny", &text)?;
    }
    to.heading("Tools")?;
    let tool = |t: &Value| vec![at(t, "tool"), format!("{} ms", at(t, "settle_ms"))];
    to.table(&["tool", "rights_end_after_reply"], plain(list(policy, "tools"), tool))?;
    to.heading("Rights")?;
    let right = |r: &Value| {
        let denied = r.get("denied") == Some(&Value::Bool(true));
        let who = if denied { "nobody: a rule denies it".into() } else { words(r, "scopes", "nobody") };
        let how = if r.get("enforced") == Some(&Value::Bool(true)) { "denied" } else { "told" };
        vec![at(r, "family"), at(r, "act"), at(r, "object"), who, how.into()]
    };
    to.table(&["family", "act", "object", "who_may", "all_else_is"], plain(list(policy, "rights"), right))?;
    to.heading("Alert only, and where the kernel says more or less than rules and baseline")?;
    let only = |a: &Value| vec![at(a, "rule"), at(a, "what"), at(a, "why")];
    to.table(&["rule_or_scope", "what", "why"], plain(list(policy, "alert_only"), only))?;
    if !list(policy, "would_deny").is_empty() {
        to.heading("Of what it did before, this would be denied")?;
        let row = |d: &Value| vec![at(d, "scope"), at(d, "family"), at(d, "what")];
        to.table(&["scope", "family", "what"], plain(list(policy, "would_deny"), row))?;
    }
    Ok(())
}

fn plain(rows: &[Value], cells: impl Fn(&Value) -> Vec<String>) -> Vec<(Vec<String>, Style)> {
    rows.iter().map(|row| (cells(row), Style::new())).collect()
}

fn state(policy: &Value) -> String {
    let is = |key: &str| policy.get(key) == Some(&Value::Bool(true));
    match (is("in_force"), is("ratified")) {
        (true, _) => format!("generation {}, holds {} servers", at(policy, "generation"), at(policy, "held")),
        (false, true) => "no: this is what it would be in `enforce`".into(),
        (false, false) => "no: the baseline is not ratified, so only rules permit anything".into(),
    }
}

fn words(value: &Value, key: &str, none: &str) -> String {
    let all: Vec<String> = list(value, key).iter().map(text).collect();
    if all.is_empty() { none.to_owned() } else { all.join(", ") }
}
