//! Damaged, foreign, newer and trapped databases; migrations.

use std::{
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
};

use super::*;

/// A database with some findings, and its path.
fn filled(dir: &Path) -> Result<PathBuf> {
    let store = open(dir)?;
    for n in 0..200 {
        store.submit(large(&n.to_string()), None)?;
    }
    put(&store, finding("last", 1, Severity::Low))?;
    store.close(LONG);
    Ok(dir.join("state").join(place::DATABASE))
}

fn replaced(dir: &Path) -> Result<(String, Aside)> {
    let store = open(dir)?;
    let Started::Replaced { because, aside } = store.started().clone() else {
        return Err(format!("{:?}", store.started()).into());
    };
    // It works again.
    put(&store, finding("new", 1, Severity::Low))?;
    assert_eq!(store.reader()?.findings(&Query::default())?.len(), 1);
    Ok((because, aside))
}

#[test]
fn files_are_private() -> Result {
    let dir = tempfile::tempdir()?;
    let path = filled(dir.path())?;
    let mode = |path: &Path| fs::metadata(path).map(|meta| meta.permissions().mode() & 0o777);
    assert_eq!(mode(&path)?, 0o600);
    assert_eq!(mode(&dir.path().join("state"))?, 0o700);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    let store = open(dir.path())?;
    put(&store, finding("a", 1, Severity::Low))?;
    assert_eq!(mode(&path)?, 0o600);
    assert_eq!(mode(&place::with_suffix(&path, "-wal"))?, 0o600);
    Ok(())
}

#[test]
fn a_damaged_database_is_moved_aside() -> Result {
    let dir = tempfile::tempdir()?;
    let path = filled(dir.path())?;
    let mut file = fs::File::options().write(true).open(&path)?;
    file.seek(SeekFrom::Start(4096 * 3))?;
    file.write_all(&[0xa5; 4096 * 40])?;
    let damaged = fs::read(&path)?;
    let (because, aside) = replaced(dir.path())?;
    assert!(because.contains("damaged") || because.contains("malformed"), "{because}");
    assert_eq!(fs::read(aside.to.ok_or("not kept")?)?, damaged);
    Ok(())
}

#[test]
fn noise_cuts_and_absence_are_noticed() -> Result {
    for cut in [0, 50, 4096, 4096 * 20 + 100] {
        let dir = tempfile::tempdir()?;
        let path = filled(dir.path())?;
        fs::File::options().write(true).open(&path)?.set_len(cut)?;
        let (because, aside) = replaced(dir.path()).map_err(|e| format!("cut to {cut}: {e}"))?;
        assert!(!because.is_empty());
        assert_eq!(fs::metadata(aside.to.ok_or("not kept")?)?.len(), cut);
    }
    let dir = tempfile::tempdir()?;
    let path = filled(dir.path())?;
    fs::write(&path, "noise ".repeat(1000))?;
    replaced(dir.path())?;
    fs::remove_file(&path)?;
    let (because, aside) = replaced(dir.path())?;
    assert_eq!((because.as_str(), aside.to), ("the database is gone", None));
    Ok(())
}

#[test]
fn only_the_last_damaged_ones_are_kept() -> Result {
    let dir = tempfile::tempdir()?;
    let path = filled(dir.path())?;
    let mut dropped = 0;
    for _ in 0..5 {
        fs::write(&path, "noise ".repeat(1000))?;
        dropped += replaced(dir.path())?.1.dropped.len();
    }
    let names = fs::read_dir(dir.path().join("state"))?.collect::<std::io::Result<Vec<_>>>()?;
    let kept = names.iter().filter(|e| e.file_name().to_string_lossy().contains("corrupt")).count();
    assert_eq!((dropped, kept), (2, 3));
    Ok(())
}

#[test]
fn a_newer_database_is_left_alone() -> Result {
    let dir = tempfile::tempdir()?;
    let path = filled(dir.path())?;
    let db = rusqlite::Connection::open(&path)?;
    db.execute("UPDATE meta SET value = 'toolwarden 9.1.0' WHERE key = 'written_by'", ())?;
    db.pragma_update(None, "user_version", 99)?;
    drop(db);
    let before = (fs::read(&path)?, fs::metadata(&path)?.modified()?);
    let error = open(dir.path()).err().ok_or("opened")?.to_string();
    let known = format!("up to {}", schema::VERSION);
    for part in ["toolwarden 9.1.0", "version 99", &known, "left as it is"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!((fs::read(&path)?, fs::metadata(&path)?.modified()?), before);
    assert!(!place::with_suffix(&path, "-wal").exists());
    Ok(())
}

#[test]
fn a_newer_version_in_the_wal_is_noticed_too() -> Result {
    let dir = tempfile::tempdir()?;
    let path = filled(dir.path())?;
    let db = rusqlite::Connection::open(&path)?;
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    db.pragma_update(None, "user_version", 99)?;
    drop(db);
    let before = fs::read(&path)?;
    assert!(place::with_suffix(&path, "-wal").exists());
    let error = open(dir.path()).err().ok_or("opened")?;
    assert!(matches!(error, Error::Future { found: 99, .. }), "{error}");
    assert_eq!(fs::read(&path)?, before);
    assert!(place::with_suffix(&path, "-wal").exists());
    Ok(())
}

#[test]
fn another_programs_database_is_left_alone() -> Result {
    for version in [0, 1] {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("state").join(place::DATABASE);
        fs::create_dir(dir.path().join("state"))?;
        fs::set_permissions(dir.path().join("state"), fs::Permissions::from_mode(0o700))?;
        let db = rusqlite::Connection::open(&path)?;
        db.execute_batch(&format!("CREATE TABLE t (x); PRAGMA user_version = {version};"))?;
        drop(db);
        let before = fs::read(&path)?;
        let error = open(dir.path()).err().ok_or("opened")?;
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        assert_eq!(fs::read(&path)?, before);
    }
    Ok(())
}

#[test]
fn every_earlier_version_comes_forward() -> Result {
    for version in 0..schema::VERSION {
        let dir = tempfile::tempdir()?;
        let state = dir.path().join("state");
        fs::create_dir(&state)?;
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
        let mut db = rusqlite::Connection::open(state.join(place::DATABASE))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        schema::migrate(&mut db, version)?;
        if version >= 1 {
            db.execute_batch(
                "INSERT INTO boots (uuid) VALUES ('b');
                 INSERT INTO findings (id, revision, boot, number, utc_ns, changed_ns, severity, kind, server,
                     identity, object, count, acked_by, acked_at, ack_note, json)
                 VALUES ('old', 1, 1, 1, 1, 9000000000000000000, 2, 'beacon', 's', 'i', 'o', 3, 'root', 7, 'n', '{}');",
            )?;
        }
        drop(db);
        let store = open(dir.path())?;
        assert!(matches!(store.started(), Started::Kept), "{version}: {:?}", store.started());
        put(&store, finding("new", 1, Severity::Low))?;
        let reader = store.reader()?;
        let ids: Vec<_> = reader.findings(&Query::default())?.into_iter().map(|row| row.id).collect();
        if version >= 1 {
            assert_eq!(ids, ["new", "old"]);
            let ack = Ack { by: "root".to_owned(), at: 7, note: "n".to_owned(), expected: false };
            assert_eq!(reader.finding("old")?.ok_or("gone")?.ack, Some(ack));
        } else {
            assert_eq!(ids, ["new"]);
        }
        store.close(LONG);
        let db = rusqlite::Connection::open(state.join(place::DATABASE))?;
        assert_eq!(schema::version(&db)?, schema::VERSION);
        sound(dir.path())?;
    }
    Ok(())
}

#[test]
fn one_writer_at_a_time() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    let error = open(dir.path()).err().ok_or("opened twice")?.to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(store);
    open(dir.path())?;
    Ok(())
}

#[test]
fn traps_are_refused() -> Result {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let path = filled(dir.path())?;

    let aside = dir.path().join("elsewhere");
    fs::rename(&path, &aside)?;
    symlink(&aside, &path)?;
    assert!(matches!(open(dir.path()), Err(Error::Kind { .. })));
    fs::remove_file(&path)?;
    fs::hard_link(&aside, &path)?;
    assert!(matches!(open(dir.path()), Err(Error::Kind { .. })));
    fs::remove_file(&aside)?;
    open(dir.path())?;

    for mode in [0o770, 0o707] {
        fs::set_permissions(&state, fs::Permissions::from_mode(mode))?;
        assert!(matches!(open(dir.path()), Err(Error::Writable { .. })));
        assert!(matches!(Reader::open(&state), Err(Error::Writable { .. })));
    }
    fs::set_permissions(&state, fs::Permissions::from_mode(0o750))?;
    open(dir.path())?;

    symlink(&state, dir.path().join("link"))?;
    assert!(matches!(Store::open(&dir.path().join("link"), options()), Err(Error::Kind { .. })));
    assert!(matches!(Store::open(&path, options()), Err(Error::Kind { .. })));
    Ok(())
}
