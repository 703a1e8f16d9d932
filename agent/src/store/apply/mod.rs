//! From a job to rows, within a transaction that somebody else commits.
//!
//! # Layout
//! - [`findings`]: which revision wins, numbers, acknowledgements
//! - [`inventory`]: servers, tools, baselines

mod findings;
mod inventory;

use engine::{finding::Severity, respond::ResponseLine};
use rusqlite::{Connection, params};

use super::{
    job::{Done, Job},
    outbox::{self, Told, Type},
    rows::AuditRow,
};

/// What a job may need to know besides itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// This boot of the host, as the database numbers it.
    pub(super) boot: i64,
    pub(super) now_ns: i64,
}

/// Applies one job. Purges are not for here: they are many transactions.
pub(super) fn apply(db: &Connection, job: &Job, moment: Moment) -> rusqlite::Result<Done> {
    match job {
        Job::Finding(finding) => findings::upsert(db, finding, moment),
        Job::Response(line) => response(db, line, moment),
        Job::Ack { id, ack } => findings::ack(db, id, ack),
        Job::Baselines { identity, meta, scopes, at } => {
            inventory::baselines(db, identity, meta, scopes, *at)
        }
        Job::Forget { identity, scope } => inventory::forget(db, identity, scope.as_deref()),
        Job::Server(row) => inventory::server(db, row),
        Job::Tool(row) => inventory::tool(db, row),
        Job::Mode(row) => db
            .prepare_cached(
                "INSERT OR REPLACE INTO modes (server, tool, mode, by, at) VALUES (?, ?, ?, ?, ?)",
            )?
            .execute(params![row.server, row.tool, row.mode, row.by, row.at])
            .map(|_| Done::Written),
        Job::ClearMode { server, tool } => db
            .prepare_cached("DELETE FROM modes WHERE server = ? AND tool = ?")?
            .execute([server, tool])
            .map(written),
        Job::Permit(row) => {
            db.prepare_cached("INSERT INTO exceptions (finding, yaml, by, at) VALUES (?, ?, ?, ?)")?
                .execute(params![row.finding, row.yaml, row.by, row.at])?;
            Ok(Done::Row(db.last_insert_rowid()))
        }
        Job::Revoke { id } => {
            db.prepare_cached("DELETE FROM exceptions WHERE id = ?")?.execute([id]).map(written)
        }
        Job::Audit(row) => audit(db, row),
        Job::Tell(told) => outbox::add(db, moment, told).map(|()| Done::Written),
        Job::Sinks(wants) => {
            let names: Vec<String> = wants.iter().map(|w| w.sink.clone()).collect();
            outbox::sinks(db, moment, &names)
        }
        Job::Cursor { sink, seq } => outbox::cursor(db, sink, *seq),
        Job::Dead { sink, seq, because } => outbox::dead(db, moment, sink, *seq, because),
        Job::Note { key, value } => note(db, key, value).map(|()| Done::Written),
        Job::Purge { .. } => Err(rusqlite::Error::ToSqlConversionFailure("a purge cannot be a part".into())),
        Job::All(jobs) => {
            jobs.iter().map(|job| apply(db, job, moment)).collect::<rusqlite::Result<_>>().map(Done::All)
        }
        #[cfg(test)]
        Job::Sql(sql) => db.execute_batch(sql).map(|()| Done::Written),
    }
}

/// A response is told once: its id is never used again.
fn response(db: &Connection, line: &ResponseLine, moment: Moment) -> rusqlite::Result<Done> {
    let json = serde_json::to_string(line).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let verdict = serde_json::to_value(line.verdict).ok();
    let verdict = verdict.as_ref().and_then(|v| v.as_str()).unwrap_or_default();
    let new = db
        .prepare_cached(
            "INSERT OR IGNORE INTO responses (id, utc_ns, server, identity, action, verdict, dry_run, json)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            line.id,
            line.time.utc,
            line.server.name,
            line.identity,
            line.action.name(),
            verdict,
            line.dry_run,
            json
        ])?;
    if new == 0 {
        return Ok(Done::Unchanged);
    }
    let told = Told {
        kind: Type::Response,
        // What was done about somebody is never filtered out by a severity below the one that causes it.
        severity: Severity::High,
        server: line.server.name.clone(),
        json: outbox::tagged(Type::Response, &json),
    };
    outbox::add(db, moment, &told)?;
    Ok(Done::Written)
}

fn written(rows: usize) -> Done {
    if rows > 0 { Done::Written } else { Done::Absent }
}

/// A value of `meta`.
pub(super) fn note(db: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)")?
        .execute([key, value])
        .map(drop)
}

/// A line of the audit trail.
pub(super) fn audit(db: &Connection, row: &AuditRow) -> rusqlite::Result<Done> {
    let AuditRow { utc_ns, uid, pid, exe, verb, target, arguments, outcome } = row;
    db.prepare_cached(
        "INSERT INTO audit (utc_ns, uid, pid, exe, verb, target, arguments, outcome)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![utc_ns, uid, pid, exe, verb, target, arguments, outcome])?;
    Ok(Done::Row(db.last_insert_rowid()))
}
