//! From files to connections: what is refused, what is moved aside, and how SQLite is set up.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    error::{Error, Result},
    place::{Aside, DATABASE, Place, checked},
    schema,
};

/// How long a connection waits for another: only checkpoints and recovery ever make it wait.
const BUSY: Duration = Duration::from_secs(2);
/// The WAL file is cut to this after it was written back.
const WAL_BYTES: u32 = 8 << 20;

/// What was found at the start. Anything but `Fresh` and `Kept` must be told loudly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Started {
    /// There was no database.
    Fresh,
    /// It was there and sound.
    Kept,
    /// It was damaged or gone. A new one was begun; what it held is not known any more.
    Replaced { because: String, aside: Aside },
}

/// Opens the one connection that writes, whatever it takes, short of harming what is not ours.
pub(super) fn writer(place: &Place, now_ns: i64) -> Result<(Connection, Started)> {
    let (connection, started) = match sound(place) {
        Ok(Ok(found)) => found,
        Ok(Err(because)) => replace(place, now_ns, because)?,
        Err(e) if e.is_damage() => replace(place, now_ns, format!("{:#}", anyhow::Error::from(e)))?,
        Err(e) => return Err(place.explain(e)),
    };
    place.sync()?;
    if let Err(e) = place.sign() {
        // On a full disk a copy-on-write file system cannot even do this; all else may still work.
        tracing::warn!("{:#}", anyhow::Error::from(e));
    }
    Ok((connection, started))
}

fn replace(place: &Place, now_ns: i64, because: String) -> Result<(Connection, Started)> {
    let aside = place.move_aside(now_ns)?;
    place.create()?;
    let connection = prepared(&place.database())?;
    Ok((connection, Started::Replaced { because, aside }))
}

/// The database as it is; `Ok(Err(why))` if it is damaged.
fn sound(place: &Place) -> Result<std::result::Result<(Connection, Started), String>> {
    let path = place.database();
    let empty = match place.file()? {
        None if place.used => return Ok(Err("the database is gone".to_owned())),
        None => true,
        Some(file) => {
            let length = file.metadata().map_err(Error::io("look at", &path))?.len();
            if length == 0 && (place.used || place.has_wal()) {
                return Ok(Err("the database is empty".to_owned()));
            }
            refuse_others(&path, &file)?;
            length == 0
        }
    };
    place.create()?;
    let connection = prepared(&path)?;
    Ok(match damage(&connection)? {
        None => Ok((connection, if empty { Started::Fresh } else { Started::Kept })),
        Some(what) => Err(what),
    })
}

/// Looks at the header with plain reads, so that a file that is not ours to change stays as it is.
/// Done before SQLite opens it: closing this handle would drop SQLite's locks.
fn refuse_others(path: &Path, file: &File) -> Result<()> {
    let mut header = [0u8; 100];
    if file.read_exact_at(&mut header, 0).is_err() || !header.starts_with(b"SQLite format 3\0") {
        return Ok(()); // Not a database at all: SQLite will say so.
    }
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    refuse(path, word(68), word(60))
}

fn refuse(path: &Path, application: u32, version: u32) -> Result<()> {
    // 0 and 0: the agent was killed before the first step.
    if application != schema::APPLICATION_ID && (application, version) != (0, 0) {
        return Err(Error::Foreign { path: path.into() });
    }
    if version > schema::VERSION {
        let by = written_by(path).unwrap_or_else(|| "a newer agent".to_owned());
        return Err(Error::Future { path: path.into(), by, found: version, known: schema::VERSION });
    }
    Ok(())
}

/// Who wrote it, without locks, WAL or any other trace.
fn written_by(path: &Path) -> Option<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let text = path.to_str()?.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let connection = Connection::open_with_flags(format!("file:{text}?immutable=1"), flags).ok()?;
    connection.query_row("SELECT value FROM meta WHERE key = 'written_by'", (), |row| row.get(0)).ok()
}

/// A connection that may write, at this version's format.
fn prepared(path: &Path) -> Result<Connection> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Until the version is known to be ours, closing must not write the WAL back.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(Error::sql("set it up"))?;
    // Again: the header in the WAL counts.
    let application = connection
        .query_row("PRAGMA application_id", (), |row| row.get(0))
        .map_err(Error::sql("read whose it is"))?;
    refuse(path, application, schema::version(&connection)?)?;
    let tables: u32 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
        .map_err(Error::sql("read its tables"))?;
    if application == 0 && tables > 0 {
        return Err(Error::Foreign { path: path.into() });
    }
    set_up(&connection, tables == 0).map_err(Error::sql("set it up"))?;
    schema::migrate(&mut connection, schema::VERSION)?;
    connection
        .execute(
            "INSERT INTO meta (key, value) VALUES ('written_by', ?1)
             ON CONFLICT (key) DO UPDATE SET value = ?1 WHERE value <> ?1",
            [schema::WRITER],
        )
        .map_err(Error::sql("sign it"))?;
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
        .map_err(Error::sql("set it up"))?;
    Ok(connection)
}

fn set_up(connection: &Connection, empty: bool) -> rusqlite::Result<()> {
    if empty {
        // Has to stand before the first page is written, which the WAL mode does.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    if empty && connection.query_row("PRAGMA auto_vacuum", (), |row| row.get::<_, u32>(0))? != 2 {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.execute_batch("VACUUM")?;
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What is purged may be secret paths: overwrite it.
    connection.pragma_update(None, "secure_delete", "FAST")?;
    // The writer thread does it itself, after it has acknowledged.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES)
}

/// What `quick_check` says against it.
fn damage(connection: &Connection) -> Result<Option<String>> {
    let said: String = connection
        .query_row("PRAGMA quick_check(1)", (), |row| row.get(0))
        .map_err(Error::sql("check it"))?;
    Ok((said != "ok").then(|| format!("the database is damaged: {said}")))
}

/// A connection that only reads, for any thread or process that may read the files.
pub(super) fn reader(dir: &Path) -> Result<Connection> {
    let path: PathBuf = checked(dir)?.join(DATABASE);
    let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.pragma_update(None, "query_only", true).map_err(Error::sql("set it up"))?;
    Ok(connection)
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection> {
    // One thread uses a connection at a time, which Rust checks: no mutex of SQLite's.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags).map_err(Error::sql("open it"))?;
    connection.busy_timeout(BUSY).map_err(Error::sql("set it up"))?;
    Ok(connection)
}
