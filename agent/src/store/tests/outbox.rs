//! What waits for sinks, and what they will never get.

use engine::rules::NameGlob;

use super::*;

fn all(sink: &str) -> Wants {
    Wants {
        sink: sink.to_owned(),
        severity: Severity::Info,
        types: Vec::new(),
        servers: Vec::new(),
        kinds: Vec::new(),
    }
}

fn with(store: &Store, wants: &[Wants]) -> Result {
    store.commit(Job::Sinks(wants.to_vec()), LONG)?;
    Ok(())
}

fn found(store: &Store, id: &str, severity: Severity) -> Result {
    put(store, finding(id, 1, severity))?;
    Ok(())
}

fn waiting(store: &Store) -> Result<Vec<OutboxRow>> {
    Ok(store.reader()?.outbox(0, 100_000)?)
}

fn gaps(rows: &[OutboxRow]) -> Vec<Gap> {
    rows.iter()
        .filter(|r| r.told.kind == Type::Gap)
        .filter_map(|r| serde_json::from_str(&r.told.json).ok())
        .collect()
}

#[test]
fn without_sinks_nothing_waits_and_with_them_every_revision_does() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    found(&store, "before", Severity::High)?;
    assert!(waiting(&store)?.is_empty());
    with(&store, &[all("a")])?;
    found(&store, "f", Severity::Low)?;
    put(&store, finding("f", 2, Severity::High))?;
    // Known already: nothing new to tell.
    put(&store, finding("f", 2, Severity::High))?;
    let told = Told { kind: Type::Agent, severity: Severity::Info, server: String::new(), json: "{}".into() };
    store.commit(Job::Tell(told), LONG)?;
    let rows = waiting(&store)?;
    assert_eq!(
        rows.iter().map(|r| (r.number, r.told.kind)).collect::<Vec<_>>(),
        [(1, Type::Finding), (2, Type::Finding), (3, Type::Agent)]
    );
    assert!(rows.iter().all(|r| r.boot == "boot-1"));
    let line: engine::output::Line = serde_json::from_str(&rows[1].told.json)?;
    let engine::output::Line::Finding(second) = line else { return Err("not a finding".into()) };
    assert_eq!((second.id.as_str(), second.revision), ("f", 2));
    Ok(())
}

#[test]
fn what_every_sink_has_is_deleted_and_numbers_are_never_used_twice() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    with(&store, &[all("a"), all("b")])?;
    for id in ["1", "2", "3"] {
        found(&store, id, Severity::Low)?;
    }
    let seqs: Vec<i64> = waiting(&store)?.iter().map(|r| r.seq).collect();
    let cursor = |sink: &str, seq| store.commit(Job::Cursor { sink: sink.to_owned(), seq }, LONG);
    assert_eq!(cursor("a", seqs[2])?, Done::Written);
    assert_eq!(waiting(&store)?.len(), 3, "b has none of it");
    assert_eq!(cursor("b", seqs[1])?, Done::Written);
    assert_eq!(waiting(&store)?.len(), 1);
    assert_eq!(cursor("b", seqs[0])?, Done::Unchanged, "a cursor never goes back");
    assert_eq!(cursor("b", seqs[2] + 1)?, Done::Unchanged, "nor beyond what there is");
    assert_eq!(cursor("c", seqs[2])?, Done::Unchanged, "nobody knows it");
    cursor("b", seqs[2])?;
    assert!(waiting(&store)?.is_empty());
    drop(store);
    let store = open(dir.path())?;
    with(&store, &[all("a"), all("b")])?;
    found(&store, "4", Severity::Low)?;
    assert!(waiting(&store)?[0].seq > seqs[2]);
    Ok(())
}

#[test]
fn a_sink_begins_with_what_comes_and_one_that_is_taken_out_leaves_a_gap() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    with(&store, &[all("a")])?;
    found(&store, "1", Severity::Low)?;
    found(&store, "2", Severity::Critical)?;
    let end = store.reader()?.outbox_end()?;
    with(&store, &[all("b")])?;
    let sinks = store.reader()?.sinks()?;
    assert_eq!(sinks.iter().map(|s| (s.name.as_str(), s.cursor)).collect::<Vec<_>>(), [("b", end)]);
    let rows = waiting(&store)?;
    let [gap] = &gaps(&rows)[..] else { return Err(format!("{rows:?}").into()) };
    assert_eq!((gap.sink.as_str(), gap.count, gap.last, gap.worst), ("a", 2, end, Severity::Critical));
    Ok(())
}

/// Sums: what a sink got, and what gaps say that it will never get, is all that it wanted.
#[test]
fn beyond_its_bounds_the_oldest_go_and_gaps_are_exact() -> Result {
    let dir = tempfile::tempdir()?;
    let bounds = Bounds { max_bytes: 60_000, ..Bounds::default() };
    let store = Store::open(&dir.path().join("state"), Options { outbox: bounds, ..options() })?;
    let high = Wants { severity: Severity::High, ..all("high") };
    let named = Wants { servers: vec![NameGlob::parse("no-*")?], ..all("named") };
    let wants = [all("dead"), high, named, all("live")];
    with(&store, &wants)?;
    let (mut live, mut at) = (Vec::new(), 0);
    let mut read = |store: &Store| -> Result {
        let rows = store.reader()?.outbox(at, 10_000)?;
        at = rows.last().map_or(at, |row| row.seq);
        live.extend(rows);
        store.commit(Job::Cursor { sink: "live".to_owned(), seq: at }, LONG)?;
        Ok(())
    };
    for n in 0..500 {
        found(&store, &n.to_string(), if n % 10 == 0 { Severity::High } else { Severity::Low })?;
        if n % 5 == 0 {
            read(&store)?;
        }
    }
    read(&store)?;
    let rows = waiting(&store)?;
    let size: usize = rows.iter().map(|r| r.told.json.len()).sum();
    assert!(size <= 60_000, "{size}");
    assert!(live.iter().zip(1..).all(|(row, n)| row.number == n), "a sink that reads gets all, in order");
    assert_eq!(live.iter().filter(|r| r.told.kind == Type::Finding).count(), 500);
    let sinks = store.reader()?.sinks()?;
    for wants in wants {
        let about = |rows: &[OutboxRow]| -> Vec<Gap> {
            gaps(rows).into_iter().filter(|gap| gap.sink == wants.sink).collect()
        };
        let wanted = |rows: &[OutboxRow]| rows.iter().filter(|r| wants.passes(&r.told)).count() as u64;
        let (ever, left) = (about(&live), about(&rows));
        let missed: u64 = left.iter().map(|gap| gap.count).sum();
        if wants.sink == "live" {
            assert!(ever.is_empty(), "{ever:?}");
            continue;
        }
        assert!(missed > 0, "{wants:?}");
        // A gap that was dropped is a part of a later one, not one of its events.
        let merged = (ever.len() - left.len()) as u64;
        assert_eq!(missed + wanted(&rows) + merged, wanted(&live), "{wants:?}: {left:?}");
        let lost = sinks.iter().find(|s| s.name == wants.sink).map(|s| s.lost);
        assert_eq!(lost, Some(missed), "{wants:?}");
    }
    Ok(())
}

#[test]
fn what_is_refused_for_good_is_kept_aside() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    with(&store, &[all("a")])?;
    found(&store, "1", Severity::Low)?;
    let seq = waiting(&store)?[0].seq;
    let dead = |sink: &str, seq| {
        store.commit(Job::Dead { sink: sink.to_owned(), seq, because: "413".to_owned() }, LONG)
    };
    assert_eq!(dead("a", seq)?, Done::Written);
    assert_eq!(dead("a", seq)?, Done::Absent, "counted once");
    assert_eq!(dead("b", seq)?, Done::Absent);
    assert_eq!(dead("a", seq + 1)?, Done::Absent);
    assert_eq!(store.reader()?.sinks()?[0].dead, 1);
    Ok(())
}

#[test]
fn wishes() -> Result {
    let told = |kind, severity, server: &str| Told {
        kind,
        severity,
        server: server.to_owned(),
        json: String::new(),
    };
    let wants = Wants {
        severity: Severity::High,
        types: vec![Type::Finding],
        servers: vec![NameGlob::parse("npm:*")?],
        ..all("a")
    };
    for (event, passes) in [
        (told(Type::Finding, Severity::High, "npm:x"), true),
        (told(Type::Finding, Severity::Medium, "npm:x"), false),
        (told(Type::Finding, Severity::High, "pypi:x"), false),
        (told(Type::Response, Severity::High, "npm:x"), false),
        (told(Type::Agent, Severity::Info, ""), false),
        (told(Type::Gap, Severity::Info, ""), true),
    ] {
        assert_eq!(wants.passes(&event), passes, "{event:?}");
    }
    assert!(all("b").passes(&told(Type::Agent, Severity::Info, "")));
    let of = |json: &str| Told { json: json.to_owned(), ..told(Type::Finding, Severity::Low, "x") };
    let kinds = Wants { kinds: vec![Kind::NewExec], ..all("c") };
    assert!(kinds.passes(&of(r#"{"type":"finding","kind":"new-exec"}"#)));
    assert!(!kinds.passes(&of(r#"{"type":"finding","kind":"new-name"}"#)));
    assert!(kinds.passes(&told(Type::Response, Severity::Low, "x")), "they have no kind");
    Ok(())
}
