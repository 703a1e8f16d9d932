//! Answers from the store, read off the loop.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    control::{Answer, Failure, FindingFilter},
    store::{self, Ack, FindingRow, Query, Reader},
};

/// Rows of an answer unless told otherwise.
const ROWS: u32 = 1000;

pub(super) fn reader(dir: &Path) -> Result<Reader, Failure> {
    Reader::open(dir).map_err(failed)
}

pub(super) fn failed(e: store::Error) -> Failure {
    Failure::unavailable(format!("{:#}", anyhow::Error::from(e)))
}

pub(super) fn findings(dir: &Path, filter: &FindingFilter) -> Answer {
    let FindingFilter { severity, server, kind, since_utc_ns, limit, acked } = filter;
    let limit = limit.unwrap_or(ROWS);
    let query = Query {
        before: None,
        severity: severity.unwrap_or_default(),
        server: server.clone(),
        kind: kind.map(|kind| kind.id().to_owned()),
        acked: *acked,
        // Arrival and time need not be in the same order.
        limit: if since_utc_ns.is_some() { 0 } else { limit.max(1) },
    };
    let rows = reader(dir)?.findings(&query).map_err(failed)?;
    let since = |row: &&FindingRow| since_utc_ns.is_none_or(|since| row.utc_ns >= since);
    Ok(rows.iter().filter(since).take(limit as usize).map(shown).collect())
}

pub(super) fn finding(dir: &Path, id: &str) -> Answer {
    row(dir, id).map(|row| shown(&row))
}

pub(super) fn row(dir: &Path, id: &str) -> Result<FindingRow, Failure> {
    reader(dir)?.finding(id).map_err(failed)?.ok_or_else(|| no_finding(id))
}

pub(super) fn no_finding(id: &str) -> Failure {
    Failure::not_found(format!("there is no finding {id}; `toolwarden findings list --all` shows all"))
}

/// A finding as it was printed, and who has seen it.
fn shown(row: &FindingRow) -> Value {
    let mut value: Value = serde_json::from_str(&row.json).unwrap_or_else(
        |_| json!({ "id": row.id, "kind": row.kind, "object": row.object, "identity": row.identity }),
    );
    if let Some(fields) = value.as_object_mut() {
        let acked = row.ack.as_ref().map_or(Value::Null, |ack| {
            let Ack { by, at, note, expected } = ack;
            json!({ "by": by, "at": at, "note": note, "expected": expected })
        });
        fields.insert("acked".into(), acked);
    }
    value
}

pub(super) fn responses(dir: &Path, server: Option<&str>, limit: Option<u32>) -> Answer {
    let rows = reader(dir)?.responses(server, limit.unwrap_or(ROWS)).map_err(failed)?;
    Ok(rows.iter().filter_map(|json| serde_json::from_str::<Value>(json).ok()).collect())
}

pub(super) fn response(dir: &Path, id: &str) -> Answer {
    let none =
        || Failure::not_found(format!("there is no response {id}; `toolwarden responses list` shows all"));
    let json = reader(dir)?.response(id).map_err(failed)?.ok_or_else(none)?;
    serde_json::from_str(&json).map_err(|e| Failure::invalid(format!("the response cannot be read: {e}")))
}

pub(super) fn audit(dir: &Path, limit: Option<u32>) -> Answer {
    let rows = reader(dir)?.audit(limit.unwrap_or(ROWS)).map_err(failed)?;
    let row = |row: store::AuditRow| {
        let store::AuditRow { utc_ns, uid, pid, exe, verb, target, arguments, outcome } = row;
        let arguments = serde_json::from_str(&arguments).unwrap_or(Value::String(arguments));
        json!({
            "utc_ns": utc_ns, "uid": uid, "pid": pid, "exe": exe, "verb": verb, "target": target,
            "arguments": arguments, "outcome": outcome,
        })
    };
    Ok(rows.into_iter().map(row).collect())
}
