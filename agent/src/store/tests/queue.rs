//! Bounds, groups, readers beside the writer.

use std::sync::{Mutex, PoisonError, atomic::AtomicBool, mpsc::Sender};

use super::*;

/// Holds the writer up, as a slow disk would, until the sender is dropped.
fn hold(store: &Store) -> Result<Sender<()>> {
    let (go, gate) = channel::<()>();
    let on_done: OnDone = Box::new(move |_| {
        gate.recv().ok();
    });
    store.submit(large("held"), Some(on_done))?;
    Ok(go)
}

#[test]
fn a_full_queue_gives_the_job_back() -> Result {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&dir.path().join("state"), Options { queue: 4, group: 2, ..options() })?;
    let go = hold(&store)?;
    let (mut taken, mut refused) = (1, 0);
    for n in 0..20 {
        match store.submit(large(&n.to_string()), None) {
            Ok(()) => taken += 1,
            Err(Refused { job, because: Because::Full }) => {
                assert_eq!(*job, large(&n.to_string()));
                refused += 1;
            }
            Err(e) => return Err(e.into()),
        }
    }
    assert!(refused >= 14, "{refused}");
    assert_eq!(store.stats().refused, refused);
    drop(go);
    until("the queue is empty", || store.stats().queued == 0)?;
    assert_eq!(store.stats().written, taken);
    assert_eq!(store.reader()?.findings(&Query::default())?.len() as u64, taken);
    Ok(())
}

#[test]
fn bytes_are_bounded_too() -> Result {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&dir.path().join("state"), Options { queue_bytes: 2000, ..options() })?;
    let go = hold(&store)?;
    let huge = Job::Note { key: "huge".to_owned(), value: "x".repeat(10_000) };
    assert!(store.submit(huge.clone(), None).is_err());
    drop(go);
    // Alone it gets through.
    until("the queue is empty", || store.stats().queued == 0)?;
    assert_eq!(store.commit(huge, LONG)?, Done::Written);
    Ok(())
}

#[test]
fn answers_come_in_order_and_in_groups() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    let answers = Arc::new(Mutex::new(Vec::new()));
    for n in 0..2000 {
        let answers = Arc::clone(&answers);
        let on_done: OnDone = Box::new(move |outcome| {
            answers.lock().unwrap_or_else(PoisonError::into_inner).push((n, outcome));
        });
        let job = Job::Finding(Box::new(finding(&n.to_string(), 1, Severity::Low)));
        store.submit(job, Some(on_done))?;
    }
    let stats = store.close(LONG);
    assert_eq!((stats.queued, stats.written, stats.failed, stats.refused), (0, 2000, 0, 0));
    assert!(stats.commits < 1000, "{stats:?}");
    assert!(stats.slowest > Duration::ZERO);
    let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    for (n, (answered, outcome)) in answers.iter().enumerate() {
        let number = super::super::rows::signed(n) + 1;
        assert_eq!((*answered, outcome), (n, &Ok(Done::Stored(Number { boot: 1, number }))));
    }
    Ok(())
}

#[test]
fn a_wrong_job_fails_alone() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    let go = hold(&store)?;
    let note = |value: &str| Job::Note { key: "k".to_owned(), value: value.to_owned() };
    store.submit(note("before"), None)?;
    let wrong = Job::Sql("INSERT INTO meta (key, value) VALUES ('k', NULL)".to_owned());
    store.submit(Job::All(vec![note("undone"), wrong]), None)?;
    store.submit(Job::Sql("INSERT INTO nowhere VALUES (1)".to_owned()), None)?;
    store.submit(Job::All(vec![Job::Purge { before: 1 }]), None)?;
    store.submit(large("after"), None)?;
    drop(go);
    until("the queue is empty", || store.stats().queued == 0)?;
    let stats = store.stats();
    assert_eq!((stats.written, stats.failed, stats.retries), (3, 3, 0));
    assert_eq!(store.reader()?.note("k")?.as_deref(), Some("before"));
    assert_eq!(store.state(), State::Working);
    Ok(())
}

#[test]
fn readers_see_whole_groups_and_do_not_stop_the_writer() -> Result {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&dir.path().join("state"), Options { wal_pages: 50, ..options() })?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| -> std::result::Result<usize, Error> {
                    let reader = Reader::open(&dir.path().join("state"))?;
                    let mut reads = 0;
                    while !stop.load(Relaxed) {
                        let rows = reader.findings(&Query::default())?;
                        // Both halves of a pair, always.
                        assert_eq!(rows.len() % 2, 0);
                        reads += 1;
                    }
                    Ok(reads)
                })
            })
            .collect();
        for n in 0..300 {
            let pair = Job::All(vec![large(&format!("{n}a")), large(&format!("{n}b"))]);
            store.commit(pair, LONG)?;
        }
        stop.store(true, Relaxed);
        for reader in readers {
            assert!(reader.join().map_err(|_panic| "a reader failed")?? > 0);
        }
        Ok(())
    })?;
    let stats = store.stats();
    assert_eq!((stats.written, stats.retries), (300, 0));
    assert!(stats.checkpoints > 0, "{stats:?}");
    sound(dir.path())
}

#[test]
fn closing_writes_what_is_queued() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    for n in 0..500 {
        store.submit(large(&n.to_string()), None)?;
    }
    drop(store);
    assert_eq!(Reader::open(&dir.path().join("state"))?.findings(&Query::default())?.len(), 500);
    Ok(())
}
