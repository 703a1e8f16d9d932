//! Retention and the clock.

use std::sync::atomic::AtomicI64;

use super::{super::retention::Clock, *};

const DAY_NS: i64 = 86_400_000_000_000;

fn ids(store: &Store) -> Result<Vec<String>> {
    Ok(store.reader()?.findings(&Query::default())?.into_iter().map(|row| row.id).collect())
}

fn seen(store: &Store, id: &str) -> Result {
    let ack = Ack { by: "root".to_owned(), at: 1, note: String::new(), expected: false };
    store.commit(Job::Ack { id: id.to_owned(), ack }, LONG)?;
    Ok(())
}

#[test]
fn asked_purge_takes_what_is_older_and_says_so() -> Result {
    static NOW: AtomicI64 = AtomicI64::new(1_000);
    let dir = tempfile::tempdir()?;
    let store = Store::open(&dir.path().join("state"), Options { now: || NOW.load(Relaxed), ..options() })?;
    for id in 0..1203 {
        store.submit(Job::Finding(Box::new(finding(&id.to_string(), 1, Severity::Low))), None)?;
    }
    seen(&store, "7")?;
    NOW.store(2_000, Relaxed);
    put(&store, finding("new", 1, Severity::Low))?;
    // Changed since: stays.
    put(&store, finding("3", 2, Severity::Low))?;
    let purged = Purged { findings: 1202, unseen: 1201, audit: 0 };
    assert_eq!(store.commit(Job::Purge { before: 1_500 }, LONG)?, Done::Purged(purged));
    assert_eq!(ids(&store)?, ["new", "3"]);
    assert_eq!(store.stats().purged, 1202);
    let lines = store.reader()?.audit(10)?;
    assert_eq!(lines.len(), 3, "one a slice");
    assert!(lines.iter().all(|line| line.verb == "purge" && line.arguments.contains("asked")));
    assert_eq!(lines[0].outcome, "dropped 202 findings (202 unacknowledged) and 0 audit lines");
    Ok(())
}

#[test]
fn age_is_judged_at_the_start_and_by_a_believable_clock() -> Result {
    static NOW: AtomicI64 = AtomicI64::new(DAY_NS * 1000);
    let dir = tempfile::tempdir()?;
    let start = || {
        let retention = Retention { max_age: Duration::from_secs(5 * 86_400), ..Retention::default() };
        Store::open(&dir.path().join("state"), Options { now: || NOW.load(Relaxed), retention, ..options() })
    };
    let store = start()?;
    put(&store, finding("old", 1, Severity::Critical))?;
    drop(store);
    // A jump of ten years makes nothing old.
    NOW.fetch_add(3650 * DAY_NS, Relaxed);
    let store = start()?;
    put(&store, finding("jumped", 1, Severity::Low))?;
    store.commit(Job::Note { key: "k".to_owned(), value: "v".to_owned() }, LONG)?;
    assert_eq!(ids(&store)?, ["jumped", "old"]);
    drop(store);
    // Six days do.
    NOW.store(DAY_NS * 1006, Relaxed);
    let store = start()?;
    until("the old one is purged", || store.stats().purged == 1)?;
    assert_eq!(ids(&store)?, ["jumped"]);
    Ok(())
}

#[test]
fn size_takes_seen_and_mild_ones_first() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    for n in 0..1000 {
        store.submit(large(&format!("low-{n}")), None)?;
    }
    let heavy = |id: &str, severity| {
        let mut finding = finding(id, 1, severity);
        finding.sentence = "x".repeat(1_000_000);
        finding
    };
    put(&store, heavy("critical", Severity::Critical))?;
    put(&store, heavy("seen", Severity::Critical))?;
    seen(&store, "seen")?;
    drop(store);
    let file = dir.path().join("state").join(place::DATABASE);
    let before = std::fs::metadata(&file)?.len();
    let retention = Retention { max_bytes: 6_000_000, ..Retention::default() };
    let store = Store::open(&dir.path().join("state"), Options { retention, ..options() })?;
    until("it is smaller", || store.stats().purged > 0 && !ids(&store).is_ok_and(|ids| ids.len() > 600))?;
    let left = ids(&store)?;
    assert!(left.contains(&"critical".to_owned()) && !left.contains(&"seen".to_owned()));
    assert!(left.contains(&"low-999".to_owned()) && !left.contains(&"low-0".to_owned()));
    assert!(!store.stats().oversize);
    assert!(store.reader()?.audit(1)?[0].arguments.contains("size"));
    store.close(LONG);
    let after = std::fs::metadata(&file)?.len();
    assert!(after < before / 4 * 3, "{before} -> {after}");
    sound(dir.path())
}

#[test]
fn what_cannot_be_purged_is_told() -> Result {
    let dir = tempfile::tempdir()?;
    let retention = Retention { max_bytes: 10_000, ..Retention::default() };
    let store = Store::open(&dir.path().join("state"), Options { retention, ..options() })?;
    until("it is told", || store.stats().oversize)
}

#[test]
fn a_clock_is_believed_when_it_is_near_or_even() {
    let start = Instant::now();
    let at = |hours: u64| start + Duration::from_secs(hours * 3600);
    let mut clock = Clock::new(0, start, 0);
    assert!(clock.believe(start, DAY_NS), "the first time is all there is");
    assert!(clock.believe(at(1), DAY_NS * 3));
    assert!(clock.believe(at(2), DAY_NS), "back is harmless");
    let jumped = DAY_NS * 1000;
    assert!(!clock.believe(at(3), jumped));
    assert!(!clock.believe(at(4), jumped + 3_600_000_000_000));
    assert!(!clock.believe(at(5), DAY_NS * 5000), "and again");
    assert!(!clock.believe(at(28), DAY_NS * 5000 + 23 * 3_600_000_000_000));
    assert!(clock.believe(at(30), DAY_NS * 5000 + 25 * 3_600_000_000_000), "even for a day");
}
