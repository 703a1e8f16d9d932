//! A full disk.

use super::*;

/// Fills it up; says which jobs were taken but are not written yet.
fn fill(store: &Store) -> Result<u64> {
    let mut n = 0;
    until("the disk is full", || {
        n += u64::from(store.submit(large(&format!("fill-{n}")), None).is_ok());
        matches!(store.state(), State::Degraded { .. })
    })?;
    Ok(n)
}

#[test]
fn a_full_database_degrades_keeps_the_queue_and_recovers() -> Result {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&dir.path().join("state"), Options { queue: 64, group: 8, ..options() })?;
    put(&store, finding("old", 1, Severity::High))?;
    // What a full disk answers, without one.
    store.commit(Job::Sql("PRAGMA max_page_count = 200".to_owned()), LONG)?;
    let taken = fill(&store)? + 2;
    let State::Degraded { because, .. } = store.state() else { return Err("not degraded".into()) };
    assert!(because.contains("full"), "{because}");
    // Old state can be read; new jobs queue up, then are refused.
    assert!(store.reader()?.finding("old")?.is_some());
    let late =
        store.commit(Job::Note { key: "k".to_owned(), value: "v".to_owned() }, Duration::from_millis(10));
    assert!(late.is_err());
    let before = store.stats();
    assert!(before.queued > 0 && before.retries > 0 && before.failed == 0, "{before:?}");
    assert_eq!(before.queued + before.written, taken + 1);
    let (mut more, mut refused) = (0, 0);
    for n in 0..100 {
        match store.submit(large(&format!("more-{n}")), None) {
            Ok(()) => more += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
    assert_eq!(store.stats().refused, refused + before.refused);

    // Room again.
    let db = rusqlite::Connection::open(dir.path().join("state").join(place::DATABASE))?;
    db.busy_timeout(LONG)?;
    until("all is written", || {
        db.execute("DELETE FROM findings WHERE id <> 'old'", ()).ok();
        store.stats().queued == 0
    })?;
    assert_eq!(store.state(), State::Working);
    let stats = store.stats();
    assert_eq!((stats.written, stats.failed), (taken + 1 + more, 0));
    assert_eq!(store.reader()?.note("k")?.as_deref(), Some("v"));
    drop((store, db));
    sound(dir.path())
}

#[test]
fn closing_on_a_full_disk_tells_what_is_not_written() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    store.commit(Job::Sql("PRAGMA max_page_count = 100".to_owned()), LONG)?;
    let taken = fill(&store)? + 1;
    let stats = store.close(LONG);
    assert!(stats.failed > 0 && stats.queued == 0, "{stats:?}");
    assert_eq!(stats.written + stats.failed, taken);
    let kept = Reader::open(&dir.path().join("state"))?.findings(&Query::default())?.len() as u64;
    assert_eq!(kept, stats.written - 1);
    sound(dir.path())
}
