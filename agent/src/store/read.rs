//! Reading, beside the writer: a snapshot a query, so that no reader holds up a checkpoint for long.

use std::path::Path;

use engine::finding::Severity;
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params};

use super::{
    error::{Error, Result},
    open,
    outbox::{self, OutboxRow, SinkRow},
    rows::{
        Ack, AuditRow, BaselineRow, ExceptionRow, FindingRow, IdentityRow, ModeRow, Number, ServerRow,
        ToolRow, rank, severity, unsigned,
    },
};

/// Rows of one answer at most: a reader must not take the memory of the process.
pub(crate) const PAGE: u32 = 10_000;

/// Which findings; all if default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    /// Those that arrived before this one: the next page.
    pub(crate) before: Option<i64>,
    /// That severe or worse.
    pub(crate) severity: Severity,
    /// Of servers of this name.
    pub(crate) server: Option<String>,
    /// Of this kind.
    pub(crate) kind: Option<String>,
    /// Acknowledged ones, or those that are not.
    pub(crate) acked: Option<bool>,
    /// That many at most, and never more than [`PAGE`]; 0 is [`PAGE`].
    pub(crate) limit: u32,
}

/// A read-only connection. One thread at a time; open as many as there are threads.
#[derive(Debug)]
pub(crate) struct Reader {
    db: Connection,
}

const FINDING: &str = "seq, id, revision, boot, number, utc_ns, changed_ns, severity, kind, server, identity,
    tool, object, count, acked_by, acked_at, ack_note, ack_expected, json";

impl Reader {
    /// Opens the database in this directory, whether or not an agent runs.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        open::reader(dir).map(|db| Self { db })
    }

    /// Latest arrivals first: by order, not by a clock that may have jumped.
    pub(crate) fn findings(&self, query: &Query) -> Result<Vec<FindingRow>> {
        let sql = format!(
            "SELECT {FINDING} FROM findings
             WHERE seq < ?1 AND severity >= ?2 AND (?3 IS NULL OR server = ?3) AND (?4 IS NULL OR kind = ?4)
               AND (?5 IS NULL OR (acked_at IS NOT NULL) = ?5)
             ORDER BY seq DESC LIMIT ?6"
        );
        let Query { before, severity, server, kind, acked, limit } = query;
        let limit = if *limit == 0 { PAGE } else { (*limit).min(PAGE) };
        let before = before.unwrap_or(i64::MAX);
        self.all(&sql, params![before, rank(*severity), server, kind, acked, limit], finding)
    }

    /// One finding.
    pub(crate) fn finding(&self, id: &str) -> Result<Option<FindingRow>> {
        self.db
            .prepare_cached(&format!("SELECT {FINDING} FROM findings WHERE id = ?"))
            .and_then(|mut s| s.query_row([id], finding).optional())
            .map_err(Error::sql("read a finding"))
    }

    /// Identities that have a baseline.
    pub(crate) fn identities(&self) -> Result<Vec<IdentityRow>> {
        self.all("SELECT identity, meta, updated FROM identities ORDER BY identity", (), |r| {
            Ok(IdentityRow { identity: r.get(0)?, meta: r.get(1)?, updated: r.get(2)? })
        })
    }

    /// What is normal for an identity, scope by scope.
    pub(crate) fn baselines(&self, identity: &str) -> Result<Vec<BaselineRow>> {
        let sql = "SELECT scope, blob, updated FROM baselines WHERE identity = ? ORDER BY scope";
        self.all(sql, [identity], |r| {
            Ok(BaselineRow { scope: r.get(0)?, blob: r.get(1)?, updated: r.get(2)? })
        })
    }

    /// The inventory, those seen last first.
    pub(crate) fn servers(&self) -> Result<Vec<ServerRow>> {
        let sql = "SELECT identity, name, uid, package, version, entry, digest, client, project, first_seen,
            last_seen, sessions, calls FROM servers ORDER BY last_seen DESC, identity LIMIT ?";
        self.all(sql, [PAGE], |r| {
            Ok(ServerRow {
                identity: r.get(0)?,
                name: r.get(1)?,
                uid: r.get(2)?,
                package: r.get(3)?,
                version: r.get(4)?,
                entry: r.get(5)?,
                digest: r.get(6)?,
                client: r.get(7)?,
                project: r.get(8)?,
                first_seen: r.get(9)?,
                last_seen: r.get(10)?,
                sessions: unsigned(r.get(11)?),
                calls: unsigned(r.get(12)?),
            })
        })
    }

    /// Tools of a server.
    pub(crate) fn tools(&self, identity: &str) -> Result<Vec<ToolRow>> {
        let sql = "SELECT identity, tool, calls, first_seen, last_seen FROM tools WHERE identity = ?
            ORDER BY tool LIMIT ?";
        self.all(sql, params![identity, PAGE], |r| {
            Ok(ToolRow {
                identity: r.get(0)?,
                tool: r.get(1)?,
                calls: unsigned(r.get(2)?),
                first_seen: r.get(3)?,
                last_seen: r.get(4)?,
            })
        })
    }

    /// Modes that people set.
    pub(crate) fn modes(&self) -> Result<Vec<ModeRow>> {
        self.all("SELECT server, tool, mode, by, at FROM modes ORDER BY server, tool", (), |r| {
            Ok(ModeRow { server: r.get(0)?, tool: r.get(1)?, mode: r.get(2)?, by: r.get(3)?, at: r.get(4)? })
        })
    }

    /// Rules that `findings permit` wrote, oldest first.
    pub(crate) fn exceptions(&self) -> Result<Vec<ExceptionRow>> {
        self.all("SELECT id, finding, yaml, by, at FROM exceptions ORDER BY id", (), |r| {
            Ok(ExceptionRow {
                id: r.get(0)?,
                finding: r.get(1)?,
                yaml: r.get(2)?,
                by: r.get(3)?,
                at: r.get(4)?,
            })
        })
    }

    /// The last lines of the audit trail, latest first.
    pub(crate) fn audit(&self, limit: u32) -> Result<Vec<AuditRow>> {
        let sql = "SELECT utc_ns, uid, pid, exe, verb, target, arguments, outcome FROM audit
            ORDER BY id DESC LIMIT ?";
        self.all(sql, [limit.min(PAGE)], |r| {
            Ok(AuditRow {
                utc_ns: r.get(0)?,
                uid: r.get(1)?,
                pid: r.get(2)?,
                exe: r.get(3)?,
                verb: r.get(4)?,
                target: r.get(5)?,
                arguments: r.get(6)?,
                outcome: r.get(7)?,
            })
        })
    }

    /// Responses as they were printed, latest first.
    pub(crate) fn responses(&self, server: Option<&str>, limit: u32) -> Result<Vec<String>> {
        let sql = "SELECT json FROM responses WHERE ?1 IS NULL OR server = ?1 OR identity = ?1
            ORDER BY seq DESC LIMIT ?2";
        self.all(sql, params![server, limit.min(PAGE)], |r| r.get(0))
    }

    /// One of them.
    pub(crate) fn response(&self, id: &str) -> Result<Option<String>> {
        self.db
            .query_row("SELECT json FROM responses WHERE id = ?", [id], |r| r.get(0))
            .optional()
            .map_err(Error::sql("read a response"))
    }

    /// What waits for sinks after `after`: a page, in order.
    pub(crate) fn outbox(&self, after: i64, limit: u32) -> Result<Vec<OutboxRow>> {
        outbox::page(&self.db, after, limit.min(PAGE)).map_err(Error::sql("read the outbox"))
    }

    /// The number of the last event that there ever was.
    #[cfg(test)]
    pub(crate) fn outbox_end(&self) -> Result<i64> {
        outbox::last(&self.db).map_err(Error::sql("read the end of the outbox"))
    }

    /// How far each sink is.
    pub(crate) fn sinks(&self) -> Result<Vec<SinkRow>> {
        outbox::all(&self.db).map_err(Error::sql("read the sinks"))
    }

    /// A value of `meta`.
    pub(crate) fn note(&self, key: &str) -> Result<Option<String>> {
        self.db
            .query_row("SELECT value FROM meta WHERE key = ?", [key], |r| r.get(0))
            .optional()
            .map_err(Error::sql("read a note"))
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.db
            .prepare_cached(sql)
            .and_then(|mut s| s.query_map(params, row)?.collect())
            .map_err(Error::sql("read"))
    }
}

fn finding(r: &Row<'_>) -> rusqlite::Result<FindingRow> {
    let ack = match r.get(15)? {
        None => None,
        Some(at) => Some(Ack {
            by: r.get::<_, Option<String>>(14)?.unwrap_or_default(),
            at,
            note: r.get::<_, Option<String>>(16)?.unwrap_or_default(),
            expected: r.get(17)?,
        }),
    };
    Ok(FindingRow {
        seq: r.get(0)?,
        id: r.get(1)?,
        revision: r.get(2)?,
        number: Number { boot: r.get(3)?, number: r.get(4)? },
        utc_ns: r.get(5)?,
        changed_ns: r.get(6)?,
        severity: severity(r.get(7)?),
        kind: r.get(8)?,
        server: r.get(9)?,
        identity: r.get(10)?,
        tool: r.get(11)?,
        object: r.get(12)?,
        count: unsigned(r.get(13)?),
        ack,
        json: r.get(18)?,
    })
}
