//! What waits for sinks: events in the order in which they became durable, and how far each sink has them.
//!
//! An event is in the same transaction as the finding or response that it tells. Every sink has a cursor; what all have is
//! deleted. Beyond [`Bounds`] the oldest go ([`gaps`]), and a [`Gap`] for each sink that lacked some of them comes in the same
//! transaction, at the end of the outbox. A gap that is dropped itself is a part of the next one, so sums stay exact.

use std::time::Duration;

use engine::{
    finding::{Kind, Severity},
    rules::NameGlob,
};
use rusqlite::{Connection, OptionalExtension as _, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    apply::Moment,
    gaps::{self, Gap},
    job::Done,
    rows::{rank, severity, signed, unsigned},
};

/// Rows that one slice deletes.
pub(super) const SLICE: u32 = 5_000;
/// Dead letters of a sink that are kept.
const DEAD: i64 = 1_000;

/// How much waits at most. The defaults bridge a week-end, at 100 findings a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Bytes of events.
    pub(crate) max_bytes: u64,
    /// Events older than this go.
    pub(crate) max_age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { max_bytes: 256 << 20, max_age: Duration::from_secs(7 * 86_400) }
    }
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Type {
    /// A finding, or a later revision of one.
    Finding,
    /// Something was done about a server.
    Response,
    /// The agent itself: start, stop, heartbeat.
    Agent,
    /// Events that a sink will never get.
    Gap,
    /// What a server did; only for sinks that ask for it by name.
    Effect,
}

impl Type {
    /// In the order of what is stored.
    const ALL: [Self; 5] = [Self::Finding, Self::Response, Self::Agent, Self::Gap, Self::Effect];

    fn stored(self) -> i64 {
        Self::ALL.iter().position(|t| *t == self).map_or(0, signed)
    }

    fn read(n: i64) -> Self {
        usize::try_from(n).ok().and_then(|n| Self::ALL.get(n).copied()).unwrap_or(Self::Finding)
    }
}

/// An event to be told. `json` is an object with `"type"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) kind: Type,
    pub(crate) severity: Severity,
    /// Name of the server; empty when it is about none.
    pub(crate) server: String,
    pub(crate) json: String,
}

/// An event that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxRow {
    /// Order over all boots; never used twice.
    pub(crate) seq: i64,
    /// Boot of the host.
    pub(crate) boot: String,
    /// Counts events within it from 1, without gaps.
    pub(crate) number: u64,
    /// When it was stored.
    pub(crate) stored_ns: i64,
    pub(crate) told: Told,
}

/// What a sink wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wants {
    pub(crate) sink: String,
    /// That severe or worse.
    pub(crate) severity: Severity,
    /// All but effects if empty.
    pub(crate) types: Vec<Type>,
    /// Names of servers; all if empty.
    pub(crate) servers: Vec<NameGlob>,
    /// Of findings, these kinds; all if empty.
    pub(crate) kinds: Vec<Kind>,
}

impl Wants {
    /// Whether it gets this.
    pub(crate) fn passes(&self, told: &Told) -> bool {
        match told.kind {
            // What it does not get is for every sink to know.
            Type::Gap => true,
            kind if !self.types.is_empty() && !self.types.contains(&kind) => false,
            Type::Agent => true,
            Type::Finding => self.severe(told) && (self.kinds.is_empty() || self.kind(&told.json)),
            Type::Response => self.severe(told),
            // They have no severity.
            Type::Effect => self.types.contains(&Type::Effect) && self.of(&told.server),
        }
    }

    fn severe(&self, told: &Told) -> bool {
        told.severity >= self.severity && self.of(&told.server)
    }

    /// Only read where it is asked for.
    fn kind(&self, finding: &str) -> bool {
        #[derive(Deserialize)]
        struct Of {
            kind: Kind,
        }
        serde_json::from_str(finding).is_ok_and(|Of { kind }| self.kinds.contains(&kind))
    }

    fn of(&self, server: &str) -> bool {
        self.servers.is_empty() || self.servers.iter().any(|glob| glob.matches(server))
    }
}

/// How far a sink is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SinkRow {
    pub(crate) name: String,
    /// It has everything up to here.
    pub(crate) cursor: i64,
    /// Events that it refused for good.
    pub(crate) dead: u64,
    /// Events that it will never get because they were dropped here.
    pub(crate) lost: u64,
}

/// Puts an event at the end, if there are sinks.
pub(super) fn add(db: &Connection, moment: Moment, told: &Told) -> rusqlite::Result<()> {
    let number: Option<i64> = db
        .prepare_cached(
            "UPDATE boots SET events = events + 1 WHERE id = ? AND EXISTS (SELECT 1 FROM sinks) RETURNING events",
        )?
        .query_row([moment.boot], |row| row.get(0))
        .optional()?;
    let Some(number) = number else { return Ok(()) };
    let Told { kind, severity, server, json } = told;
    db.prepare_cached(
        "INSERT INTO outbox (boot, number, stored_ns, type, severity, server, json) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![moment.boot, number, moment.now_ns, kind.stored(), rank(*severity), server, json])
    .map(drop)
}

/// These sinks there are: new ones begin with what comes from now on. Of those that are gone, what they did not have is told.
pub(super) fn sinks(db: &Connection, moment: Moment, names: &[String]) -> rusqlite::Result<Done> {
    let last = last(db)?;
    let mut gone = Vec::new();
    for row in all(db)? {
        if !names.contains(&row.name) {
            db.prepare_cached("DELETE FROM sinks WHERE name = ?")?.execute([&row.name])?;
            db.prepare_cached("DELETE FROM dead_letters WHERE sink = ?")?.execute([&row.name])?;
            gone.push(row);
        }
    }
    for name in names {
        db.prepare_cached("INSERT OR IGNORE INTO sinks (name, cursor) VALUES (?, ?)")?
            .execute(params![name, last])?;
    }
    for row in gone.into_iter().filter(|row| row.cursor < last) {
        let because = "the sink was taken out of the configuration".to_owned();
        let (first, sink) = (row.cursor + 1, row.name);
        let (count, worst) = db.query_row(
            "SELECT count(*), coalesce(max(severity), 0) FROM outbox WHERE seq >= ?",
            [first],
            |r| Ok((unsigned(r.get(0)?), severity(r.get(1)?))),
        )?;
        gaps::tell(db, moment, &Gap { sink, first, last, count, worst, because })?;
    }
    forget(db)?;
    Ok(Done::Written)
}

/// A sink has everything up to here.
pub(super) fn cursor(db: &Connection, sink: &str, seq: i64) -> rusqlite::Result<Done> {
    let rows = db
        .prepare_cached("UPDATE sinks SET cursor = ?2 WHERE name = ?1 AND cursor < ?2 AND ?2 <= ?3")?
        .execute(params![sink, seq, last(db)?])?;
    forget(db)?;
    Ok(if rows > 0 { Done::Written } else { Done::Unchanged })
}

/// A sink will never take this event.
pub(super) fn dead(
    db: &Connection,
    moment: Moment,
    sink: &str,
    seq: i64,
    because: &str,
) -> rusqlite::Result<Done> {
    let new = db
        .prepare_cached(
            "INSERT OR IGNORE INTO dead_letters (sink, seq, at_ns, because, json)
             SELECT ?1, seq, ?3, ?4, json FROM outbox WHERE seq = ?2 AND EXISTS (SELECT 1 FROM sinks WHERE name = ?1)",
        )?
        .execute(params![sink, seq, moment.now_ns, because])?;
    if new == 0 {
        return Ok(Done::Absent);
    }
    db.prepare_cached("UPDATE sinks SET dead = dead + 1 WHERE name = ?")?.execute([sink])?;
    db.prepare_cached(
        "DELETE FROM dead_letters WHERE sink = ?1 AND seq NOT IN
             (SELECT seq FROM dead_letters WHERE sink = ?1 ORDER BY seq DESC LIMIT ?2)",
    )?
    .execute(params![sink, DEAD])?;
    Ok(Done::Written)
}

/// Number of the last event that there ever was.
pub(super) fn last(db: &Connection) -> rusqlite::Result<i64> {
    db.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")?
        .query_row((), |row| row.get(0))
        .optional()
        .map(Option::unwrap_or_default)
}

/// How far each sink is.
pub(super) fn all(db: &Connection) -> rusqlite::Result<Vec<SinkRow>> {
    db.prepare_cached("SELECT name, cursor, dead, lost FROM sinks ORDER BY name")?
        .query_map((), |r| {
            Ok(SinkRow {
                name: r.get(0)?,
                cursor: r.get(1)?,
                dead: unsigned(r.get(2)?),
                lost: unsigned(r.get(3)?),
            })
        })?
        .collect()
}

/// What waits after `after`: a page, in order.
pub(super) fn page(db: &Connection, after: i64, limit: u32) -> rusqlite::Result<Vec<OutboxRow>> {
    db.prepare_cached(
        "SELECT seq, uuid, number, stored_ns, type, severity, server, json FROM outbox JOIN boots ON boots.id = boot
         WHERE seq > ? ORDER BY seq LIMIT ?",
    )?
    .query_map(params![after, limit], row)?
    .collect()
}

fn row(r: &rusqlite::Row<'_>) -> rusqlite::Result<OutboxRow> {
    Ok(OutboxRow {
        seq: r.get(0)?,
        boot: r.get(1)?,
        number: unsigned(r.get(2)?),
        stored_ns: r.get(3)?,
        told: Told {
            kind: Type::read(r.get(4)?),
            severity: severity(r.get(5)?),
            server: r.get(6)?,
            json: r.get(7)?,
        },
    })
}

/// Deletes what every sink has.
fn forget(db: &Connection) -> rusqlite::Result<()> {
    db.prepare_cached(
        "DELETE FROM outbox WHERE seq IN (
             SELECT seq FROM outbox WHERE seq <= (SELECT coalesce(min(cursor), 9223372036854775807) FROM sinks)
             ORDER BY seq LIMIT ?)",
    )?
    .execute([SLICE])
    .map(drop)
}

/// An object with its type, as lines have it.
pub(crate) fn tagged(kind: Type, json: &str) -> String {
    let word = match kind {
        Type::Finding => "finding",
        Type::Response => "response",
        Type::Agent => "agent",
        Type::Gap => "gap",
        Type::Effect => "effect",
    };
    format!("{{\"type\":\"{word}\",{}", json.strip_prefix('{').unwrap_or_default())
}
