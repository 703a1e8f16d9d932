//! What people and machines see of rules.

use std::io::Write;

use anyhow::Result;
use engine::rules::{Decision, Origin, RuleSet, TestResult, Verdict};
use serde_json::{Value, json};

use super::Exit;
use crate::{
    commands::{args::Format, show::machine},
    print::safe,
};

/// One JSON document, or the rows below one of its keys.
pub(super) fn json(format: Format, value: &Value, rows: &str, out: &mut impl Write) -> Result<Exit> {
    let rows = value[rows].as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    machine(format != Format::Ndjson, value, rows, out)?;
    Ok(Exit::Ok)
}

pub(super) fn list(set: &RuleSet, format: Format, out: &mut impl Write) -> Result<Exit> {
    let origin = |origin| match origin {
        Origin::Pack => "pack",
        Origin::Person => "own",
    };
    if format != Format::Table {
        let rules: Vec<Value> = set
            .rules()
            .iter()
            .map(|r| {
                json!({
                    "id": r.id, "name": r.written.name, "kind": r.kind, "severity": r.severity,
                    "origin": origin(r.origin), "file": r.place.file, "line": r.place.at.line,
                    "exceptions": r.exceptions.len(), "tests": r.written.tests.len(),
                })
            })
            .collect();
        return json(format, &json!({ "rules": rules }), "rules", out);
    }
    let width = set.rules().iter().map(|r| r.id.len()).max().unwrap_or(0).clamp(4, 48);
    writeln!(out, "{:width$}  {:16}  {:8}  {:4}  FROM", "RULE", "KIND", "SEVERITY", "BY")?;
    for r in set.rules() {
        let (kind, severity, by) = (r.kind.id(), r.severity.name(), origin(r.origin));
        writeln!(out, "{:width$}  {kind:16}  {severity:8}  {by:4}  {}", r.id, safe(&r.place.to_string()))?;
    }
    Ok(Exit::Ok)
}

pub(super) fn tests(results: &[TestResult], format: Format, out: &mut impl Write) -> Result<Exit> {
    let failed = results.iter().filter(|t| !t.passed).count();
    if format != Format::Table {
        let all = json!({ "passed": results.len() - failed, "failed": failed, "tests": results });
        json(format, &all, "tests", out)?;
    } else {
        for t in results.iter().filter(|t| !t.passed) {
            let why = t.why.as_deref().unwrap_or_default();
            let (file, name) = (safe(&t.file), safe(&t.test));
            writeln!(out, "{file}:{}: {}: {name}: {}", t.line, safe(&t.rule), safe(why))?;
        }
        writeln!(out, "{} passed, {failed} failed", results.len() - failed)?;
    }
    Ok(if failed == 0 { Exit::Ok } else { Exit::No })
}

pub(super) fn decision(
    format: Format,
    decision: &Decision<'_>,
    text: &str,
    out: &mut impl Write,
) -> Result<Exit> {
    let verdict = match decision.verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::None => "none",
    };
    let value = json!({
        "verdict": verdict,
        "rule": decision.rule.map(|r| &r.id),
        "kind": decision.rule.map(|r| r.kind),
        "severity": decision.rule.map(|r| r.severity),
        "place": decision.rule.map(|r| r.place.to_string()),
        "pattern": decision.pattern.map(|(text, _)| text),
        "exception": decision.exception.map(|e| &e.reason),
        "text": text,
    });
    json(format, &value, "", out)
}
