//! Which revision of a finding wins, and what acknowledging it means.

use engine::finding::Finding;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::Moment;
use crate::store::{
    job::Done,
    outbox::{self, Told, Type},
    rows::{Ack, Number, rank, severity, signed, unsigned},
};

/// What the database knows about a finding.
struct Known {
    revision: u32,
    severity: i64,
    count: i64,
}

/// A later revision replaces an earlier one; severity and count never go down, whatever it says. An
/// acknowledgement holds for the severity that was seen: a worse one is open again.
pub(super) fn upsert(db: &Connection, finding: &Finding, moment: Moment) -> rusqlite::Result<Done> {
    let known = db
        .prepare_cached("SELECT revision, severity, count FROM findings WHERE id = ?")?
        .query_row([&finding.id], |row| {
            Ok(Known { revision: row.get(0)?, severity: row.get(1)?, count: row.get(2)? })
        })
        .optional()?;
    let (mut worst, mut count, mut grew) = (rank(finding.severity), signed(finding.count), false);
    if let Some(known) = known {
        if finding.revision <= known.revision {
            return Ok(Done::Unchanged);
        }
        grew = worst > known.severity;
        worst = worst.max(known.severity);
        count = count.max(known.count);
    }
    let json = if worst == rank(finding.severity) && count == signed(finding.count) {
        serde_json::to_string(finding)
    } else {
        let mut whole = finding.clone();
        (whole.severity, whole.count) = (severity(worst), unsigned(count));
        serde_json::to_string(&whole)
    };
    let json = json.map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let number = next(db, moment.boot)?;
    db.prepare_cached(
        "INSERT INTO findings (id, revision, boot, number, utc_ns, changed_ns, severity, kind, server, identity,
                               tool, object, count, json)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT (id) DO UPDATE SET
             revision = ?2, boot = ?3, number = ?4, changed_ns = ?6, severity = ?7, kind = ?8, server = ?9,
             identity = ?10, tool = ?11, object = ?12, count = ?13, json = ?14",
    )?
    .execute(params![
        finding.id,
        finding.revision,
        number.boot,
        number.number,
        finding.time.utc,
        moment.now_ns,
        worst,
        finding.kind.id(),
        finding.server.name,
        finding.identity,
        finding.scope.tool,
        finding.object,
        count,
        json,
    ])?;
    let told = Told {
        kind: Type::Finding,
        severity: severity(worst),
        server: finding.server.name.clone(),
        json: outbox::tagged(Type::Finding, &json),
    };
    outbox::add(db, moment, &told)?;
    if grew {
        db.prepare_cached(
            "UPDATE findings SET acked_by = NULL, acked_at = NULL, ack_note = NULL, ack_expected = 0
             WHERE id = ? AND acked_at IS NOT NULL",
        )?
        .execute([&finding.id])?;
    }
    Ok(Done::Stored(number))
}

/// Counts within the transaction, so that a change that is not kept takes no number.
fn next(db: &Connection, boot: i64) -> rusqlite::Result<Number> {
    db.prepare_cached("UPDATE boots SET last = last + 1 WHERE id = ? RETURNING last")?
        .query_row([boot], |row| Ok(Number { boot, number: row.get(0)? }))
}

/// The last to acknowledge is the one who is remembered; the audit trail knows them all.
pub(super) fn ack(db: &Connection, id: &str, ack: &Ack) -> rusqlite::Result<Done> {
    let Ack { by, at, note, expected } = ack;
    db.prepare_cached(
        "UPDATE findings SET acked_by = ?, acked_at = ?, ack_note = ?, ack_expected = ? WHERE id = ?",
    )?
    .execute(params![by, at, note, expected, id])
    .map(super::written)
}
