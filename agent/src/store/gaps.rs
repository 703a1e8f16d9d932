//! What sinks will never get: dropped because too much waited, or for too long, and told exactly.

use std::collections::BTreeMap;

use engine::finding::Severity;
use rusqlite::{Connection, TransactionBehavior, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    apply::Moment,
    outbox::{Bounds, OutboxRow, SLICE, Told, Type, Wants, add, all, page, tagged},
    rows::signed,
};

/// Events that a sink will never get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Gap {
    /// Which sink.
    pub(crate) sink: String,
    /// The first of them, in the outbox's order.
    pub(crate) first: i64,
    /// The last of them.
    pub(crate) last: i64,
    /// How many that it wanted.
    pub(crate) count: u64,
    /// The worst of them.
    pub(crate) worst: Severity,
    /// Why.
    pub(crate) because: String,
}

/// Puts it into the outbox.
pub(super) fn tell(db: &Connection, moment: Moment, gap: &Gap) -> rusqlite::Result<()> {
    tracing::warn!("the sink {} will never get {} events: {}", gap.sink, gap.count, gap.because);
    let json = serde_json::to_string(gap).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    let json = tagged(Type::Gap, &json);
    add(db, moment, &Told { kind: Type::Gap, severity: Severity::High, server: String::new(), json })
}

/// Drops a slice of what is too much or too old, if anything is; says whether there may be more. Not within a transaction.
pub(super) fn prune(
    db: &mut Connection,
    moment: Moment,
    bounds: &Bounds,
    by_age: bool,
    wants: &[Wants],
) -> rusqlite::Result<bool> {
    let size: i64 = db.prepare_cached("SELECT bytes FROM outbox_size")?.query_row((), |r| r.get(0))?;
    let max = signed(bounds.max_bytes);
    // Some room, so that gaps are few and long.
    let mut excess = if size > max { size - max / 10 * 9 } else { 0 };
    if excess == 0 && !by_age {
        return Ok(false);
    }
    let age = i64::try_from(bounds.max_age.as_nanos()).unwrap_or(i64::MAX);
    let old = if by_age { moment.now_ns.saturating_sub(age) } else { i64::MIN };
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let rows = page(&transaction, 0, SLICE)?;
    let sinks = all(&transaction)?;
    let mut gaps = BTreeMap::new();
    let mut dropped = 0;
    for row in &rows {
        let because = if excess > 0 {
            "more waited than the outbox may hold"
        } else if row.stored_ns < old {
            "it waited longer than the outbox may hold it"
        } else {
            break;
        };
        excess -= signed(row.told.json.len());
        dropped += 1;
        for sink in sinks.iter().filter(|sink| sink.cursor < row.seq) {
            // One whose wishes are not known gets everything.
            if wants.iter().find(|w| w.sink == sink.name).is_none_or(|w| w.passes(&row.told)) {
                miss(&mut gaps, &sink.name, row, because);
            }
        }
    }
    if let Some(end) = rows[..dropped].last().map(|row| row.seq) {
        transaction.execute("DELETE FROM outbox WHERE seq <= ?", [end])?;
        transaction.execute("UPDATE sinks SET cursor = ?1 WHERE cursor < ?1", [end])?;
        for Missed { gap, known } in gaps.values() {
            let new = signed(gap.count - known);
            transaction
                .execute("UPDATE sinks SET lost = lost + ?2 WHERE name = ?1", params![gap.sink, new])?;
            tell(&transaction, moment, gap)?;
        }
    }
    transaction.commit()?;
    Ok(dropped == rows.len() && dropped > 0)
}

/// A gap, and how much of it an earlier one told.
struct Missed {
    gap: Gap,
    known: u64,
}

/// A sink will not get this one.
fn miss(gaps: &mut BTreeMap<String, Missed>, sink: &str, row: &OutboxRow, because: &str) {
    let own = (row.told.kind == Type::Gap)
        .then(|| serde_json::from_str::<Gap>(&row.told.json).ok())
        .flatten()
        .filter(|gap| gap.sink == sink);
    let (first, count, worst, known) = match own {
        Some(gap) => (gap.first, gap.count, gap.worst, gap.count),
        None => (row.seq, 1, row.told.severity, 0),
    };
    let missed = gaps.entry(sink.to_owned()).or_insert_with(|| Missed {
        gap: Gap {
            sink: sink.to_owned(),
            first,
            last: row.seq,
            count: 0,
            worst,
            because: because.to_owned(),
        },
        known: 0,
    });
    let gap = &mut missed.gap;
    (gap.first, gap.last) = (gap.first.min(first), row.seq);
    gap.count += count;
    gap.worst = gap.worst.max(worst);
    missed.known += known;
}
