//! What is dropped, when, and in what order: bounded slices, each with its own audit line.

use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior, params};

use super::{
    apply,
    rows::{AuditRow, Purged, unsigned},
};

/// Rows that one slice drops: some 20 ms on a slow disk, eyeballed.
const SLICE: u32 = 500;
/// Free pages that one slice gives back to the file system.
const VACUUM: u32 = 1024;
/// The audit trail is purged by age like findings, and never holds more lines than this: a peer
/// that is refused a thousand times a second must not fill the disk.
const AUDIT_LINES: i64 = 200_000;
/// A step of the clock that needs no explanation: the host was off for a week.
const WEEK_NS: i64 = 7 * 86_400 * 1_000_000_000;
/// How long a clock that made a longer step must run evenly to be believed.
const PROOF: Duration = Duration::from_secs(86_400);
/// "Evenly".
const EVEN_NS: i64 = 3_600 * 1_000_000_000;

/// How much is kept. The defaults are what an operator expects of a log: a quarter of a year.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Findings that did not change for this long go.
    pub(crate) max_age: Duration,
    /// Above this many bytes in use, acknowledged and mild ones go first, then older ones.
    pub(crate) max_bytes: u64,
    /// How often to look.
    pub(crate) every: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(90 * 86_400),
            max_bytes: 512 << 20,
            every: Duration::from_secs(600),
        }
    }
}

/// What a sweep drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweep {
    /// Retention by age.
    Age { before: i64 },
    /// Somebody asked.
    Asked { before: i64 },
    /// Until no more than this many bytes are in use.
    Size { target: u64 },
}

/// How a slice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slice {
    /// There is more.
    More,
    /// The goal is reached.
    Finished,
    /// There is nothing left to drop, but the goal is not reached.
    Stuck,
}

impl Sweep {
    /// Drops one slice and adds it to `taken`.
    pub(super) fn slice(
        self,
        db: &mut Connection,
        now_ns: i64,
        taken: &mut Purged,
    ) -> rusqlite::Result<Slice> {
        let goal = match self {
            Self::Age { .. } | Self::Asked { .. } => true,
            Self::Size { target } => used(db)? <= target,
        };
        let purged = if matches!(self, Self::Size { .. }) && goal {
            Purged::default()
        } else {
            self.delete(db, now_ns)?
        };
        taken.findings += purged.findings;
        taken.unseen += purged.unseen;
        taken.audit += purged.audit;
        let free = vacuum(db)?;
        Ok(match (purged == Purged::default(), free == 0, goal) {
            (false, _, _) | (true, false, _) => Slice::More,
            (true, true, true) => Slice::Finished,
            (true, true, false) => Slice::Stuck,
        })
    }

    fn delete(self, db: &mut Connection, now_ns: i64) -> rusqlite::Result<Purged> {
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (why, before, order) = match self {
            Self::Age { before } => ("age", before, "changed_ns < ?1 ORDER BY changed_ns"),
            Self::Asked { before } => ("asked", before, "changed_ns < ?1 ORDER BY changed_ns"),
            Self::Size { .. } => {
                ("size", i64::MAX, "seq IS NOT ?1 ORDER BY (acked_at IS NULL), severity, seq")
            }
        };
        let mut purged = Purged::default();
        {
            let mut delete = transaction.prepare_cached(&format!(
                "DELETE FROM findings WHERE seq IN (SELECT seq FROM findings WHERE {order} LIMIT ?2)
                 RETURNING acked_at IS NULL"
            ))?;
            let mut rows = delete.query(params![before, SLICE])?;
            while let Some(row) = rows.next()? {
                purged.findings += 1;
                purged.unseen += u64::from(row.get::<_, bool>(0)?);
            }
        }
        if !matches!(self, Self::Size { .. }) {
            transaction
                .prepare_cached("DELETE FROM responses WHERE utc_ns < ?1")?
                .execute(params![before])?;
        }
        // Only time takes from the audit trail, no person does.
        if matches!(self, Self::Age { .. }) {
            purged.audit = trim_audit(&transaction, before)?;
        }
        if purged != Purged::default() {
            apply::audit(&transaction, &self.line(why, purged, now_ns))?;
        }
        transaction.commit()?;
        Ok(purged)
    }

    fn line(self, why: &str, purged: Purged, now_ns: i64) -> AuditRow {
        let before = match self {
            Self::Age { before } | Self::Asked { before } => Some(before),
            Self::Size { .. } => None,
        };
        AuditRow {
            utc_ns: now_ns,
            uid: rustix::process::geteuid().as_raw(),
            pid: std::process::id(),
            exe: "toolwarden".to_owned(),
            verb: "purge".to_owned(),
            target: "findings".to_owned(),
            arguments: serde_json::json!({ "why": why, "before": before }).to_string(),
            outcome: format!(
                "dropped {} findings ({} unacknowledged) and {} audit lines",
                purged.findings, purged.unseen, purged.audit
            ),
        }
    }
}

/// Lines that are too old or too many. The key in `meta` opens the table's trigger for this
/// transaction only.
fn trim_audit(db: &Connection, before: i64) -> rusqlite::Result<u64> {
    apply::note(db, "purging", "1")?;
    let dropped = db
        .prepare_cached(
            "DELETE FROM audit WHERE id IN (
                 SELECT id FROM audit WHERE utc_ns < ?1 AND verb <> 'purge'
                 UNION SELECT id FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?2
                 ORDER BY id LIMIT ?3)",
        )?
        .execute(params![before, AUDIT_LINES, SLICE])?;
    db.prepare_cached("DELETE FROM meta WHERE key = 'purging'")?.execute(())?;
    Ok(dropped as u64)
}

/// Gives some free pages back; says how many stay free.
fn vacuum(db: &Connection) -> rusqlite::Result<u64> {
    let free = pragma(db, "freelist_count")?;
    if free == 0 {
        return Ok(0);
    }
    // Gives back a page each step.
    let mut statement = db.prepare(&format!("PRAGMA incremental_vacuum({VACUUM})"))?;
    let mut rows = statement.query(())?;
    while rows.next()?.is_some() {}
    drop(rows);
    let left = pragma(db, "freelist_count")?;
    // Pages that cannot move are not worth another round.
    Ok(if left < free { left } else { 0 })
}

/// Bytes in use: those of the file without what is free in it.
pub(super) fn used(db: &Connection) -> rusqlite::Result<u64> {
    let pages = pragma(db, "page_count")?.saturating_sub(pragma(db, "freelist_count")?);
    Ok(pages * pragma(db, "page_size")?)
}

fn pragma(db: &Connection, name: &str) -> rusqlite::Result<u64> {
    db.query_row(&format!("PRAGMA {name}"), (), |row| row.get(0)).map(unsigned)
}

/// Keeps a clock that jumps ahead from making everything old at once.
#[derive(Debug)]
pub(super) struct Clock {
    /// The latest time that was believed; 0 if there is none yet.
    pub(super) mark_ns: i64,
    /// Since then the clock runs evenly.
    anchor: (Instant, i64),
}

impl Clock {
    pub(super) fn new(mark_ns: i64, now: Instant, now_ns: i64) -> Self {
        Self { mark_ns, anchor: (now, now_ns) }
    }

    /// Whether findings may be judged by this time.
    pub(super) fn believe(&mut self, now: Instant, now_ns: i64) -> bool {
        let (then, then_ns) = self.anchor;
        let uptime = now.saturating_duration_since(then);
        let uptime_ns = i64::try_from(uptime.as_nanos()).unwrap_or(i64::MAX);
        let drift = now_ns.saturating_sub(then_ns).saturating_sub(uptime_ns);
        if drift.saturating_abs() > EVEN_NS {
            self.anchor = (now, now_ns);
        }
        let even = drift.saturating_abs() <= EVEN_NS && uptime >= PROOF;
        // A clock that went back makes nothing old.
        let near = now_ns.saturating_sub(self.mark_ns) <= WEEK_NS;
        let believed = self.mark_ns == 0 || near || even;
        if believed {
            self.mark_ns = now_ns;
        }
        believed
    }
}
