//! Tables, and the steps that bring an older database forward.
//!
//! A step is never changed once released: databases that took it are out there. `user_version` says
//! how many were taken. Each runs in one transaction with its new number, so a crash leaves the
//! database before or after it.

use rusqlite::{Connection, TransactionBehavior};

use super::error::{Error, Result};

/// "TWdn": tells our databases from others'.
pub(super) const APPLICATION_ID: u32 = 0x5457_646e;

/// Version of a database that took all steps.
pub(super) const VERSION: u32 = STEPS.len() as u32;

/// Who writes, for the sentence that a later downgrade gets to read.
pub(super) const WRITER: &str = concat!("toolwarden ", env!("CARGO_PKG_VERSION"));

/// From version N to N + 1.
const STEPS: [&str; 4] = [FIRST, SECOND, THIRD, FOURTH];

/// `seq` orders findings by arrival and is never used twice; a clock that jumps cannot disturb it.
/// `(boot, number)` names the latest change, counted within one boot of the host.
const FIRST: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE boots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    last INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE findings (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    boot INTEGER NOT NULL REFERENCES boots (id),
    number INTEGER NOT NULL,
    utc_ns INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL,
    severity INTEGER NOT NULL,
    kind TEXT NOT NULL,
    server TEXT NOT NULL,
    identity TEXT NOT NULL,
    tool TEXT,
    object TEXT NOT NULL,
    count INTEGER NOT NULL,
    acked_by TEXT,
    acked_at INTEGER,
    ack_note TEXT,
    json TEXT NOT NULL,
    UNIQUE (boot, number)
) STRICT;
CREATE INDEX findings_age ON findings (changed_ns);
CREATE TABLE identities (identity TEXT PRIMARY KEY, meta TEXT NOT NULL, updated INTEGER NOT NULL) STRICT;
CREATE TABLE baselines (
    identity TEXT NOT NULL REFERENCES identities (identity) ON DELETE CASCADE,
    scope TEXT NOT NULL,
    blob TEXT NOT NULL,
    updated INTEGER NOT NULL,
    PRIMARY KEY (identity, scope)
) STRICT;
CREATE TABLE servers (
    identity TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    uid INTEGER NOT NULL,
    package TEXT,
    version TEXT,
    entry TEXT,
    digest TEXT,
    client TEXT,
    project TEXT,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    sessions INTEGER NOT NULL,
    calls INTEGER NOT NULL
) STRICT;
CREATE TABLE tools (
    identity TEXT NOT NULL,
    tool TEXT NOT NULL,
    calls INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    PRIMARY KEY (identity, tool)
) STRICT, WITHOUT ROWID;
CREATE TABLE modes (
    server TEXT NOT NULL,
    tool TEXT NOT NULL,
    mode TEXT NOT NULL,
    by TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (server, tool)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    utc_ns INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    exe TEXT NOT NULL,
    verb TEXT NOT NULL,
    target TEXT NOT NULL,
    arguments TEXT NOT NULL,
    outcome TEXT NOT NULL
) STRICT;
CREATE INDEX audit_age ON audit (utc_ns);
CREATE TRIGGER audit_stays BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_kept BEFORE DELETE ON audit
WHEN NOT EXISTS (SELECT 1 FROM meta WHERE key = 'purging')
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
";

/// Acknowledged findings may be expected ones, exceptions are kept, and purging by size needs an
/// order that it can walk without sorting the table.
const SECOND: &str = "
ALTER TABLE findings ADD COLUMN ack_expected INTEGER NOT NULL DEFAULT 0;
CREATE TABLE exceptions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    finding TEXT,
    yaml TEXT NOT NULL,
    by TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX findings_purge ON findings ((acked_at IS NULL), severity, seq);
";

/// What was done about servers.
const THIRD: &str = "
CREATE TABLE responses (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    utc_ns INTEGER NOT NULL,
    server TEXT NOT NULL,
    identity TEXT NOT NULL,
    action TEXT NOT NULL,
    verdict TEXT NOT NULL,
    dry_run INTEGER NOT NULL,
    json TEXT NOT NULL
) STRICT;
CREATE INDEX responses_age ON responses (utc_ns);
";

/// What waits for sinks. Its size is kept by the database itself, so that it is always that of the rows.
const FOURTH: &str = "
ALTER TABLE boots ADD COLUMN events INTEGER NOT NULL DEFAULT 0;
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    boot INTEGER NOT NULL REFERENCES boots (id),
    number INTEGER NOT NULL,
    stored_ns INTEGER NOT NULL,
    type INTEGER NOT NULL,
    severity INTEGER NOT NULL,
    server TEXT NOT NULL,
    json TEXT NOT NULL
) STRICT;
CREATE TABLE outbox_size (bytes INTEGER NOT NULL) STRICT;
INSERT INTO outbox_size VALUES (0);
CREATE TRIGGER outbox_grows AFTER INSERT ON outbox
BEGIN UPDATE outbox_size SET bytes = bytes + octet_length(NEW.json); END;
CREATE TRIGGER outbox_shrinks AFTER DELETE ON outbox
BEGIN UPDATE outbox_size SET bytes = bytes - octet_length(OLD.json); END;
CREATE TABLE sinks (
    name TEXT PRIMARY KEY,
    cursor INTEGER NOT NULL,
    dead INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE dead_letters (
    sink TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at_ns INTEGER NOT NULL,
    because TEXT NOT NULL,
    json TEXT NOT NULL,
    PRIMARY KEY (sink, seq)
) STRICT, WITHOUT ROWID;
";

/// Version of the format that a database is in.
pub(super) fn version(connection: &Connection) -> Result<u32> {
    connection.query_row("PRAGMA user_version", (), |row| row.get(0)).map_err(Error::sql("read its version"))
}

/// Takes the steps up to `to` that it did not take yet.
pub(super) fn migrate(connection: &mut Connection, to: u32) -> Result<()> {
    for (number, step) in (1..=to).zip(STEPS) {
        if number <= version(connection)? {
            continue;
        }
        let mut take = || -> rusqlite::Result<()> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", number)?;
            transaction.commit()
        };
        take().map_err(Error::sql("bring it to this version's format"))?;
    }
    Ok(())
}
