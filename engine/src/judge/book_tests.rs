//! Of the book: no cause is hidden, however many there are, and no count is lost.

use std::sync::Arc;

use super::*;
use crate::output::{Basis, Certainty, ScopeKind};

fn draft(object: &str, boot_ns: u64) -> Draft {
    Draft {
        server: Arc::new(ServerRef { id: "2a".into(), name: "git".into() }),
        context: Arc::new(Context::default()),
        identity: "git@d".into(),
        place: "tool git_log".into(),
        scope: Arc::new(Scope {
            kind: ScopeKind::Call,
            tool: Some("git_log".into()),
            call: None,
            certainty: Certainty::Certain,
            basis: Basis::Lineage,
            candidates: Vec::new(),
        }),
        kind: Kind::NewWrite,
        severity: Severity::Medium,
        origin: Origin::Detector,
        object: object.into(),
        sentence: "It wrote.".into(),
        permit: String::new(),
        evidence: Evidence::default(),
        time: Time { utc: i64::try_from(boot_ns).expect("small"), boot_ns },
        count: 1,
    }
}

fn told(book: &mut Book, all: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    book.tell(all, |f| out.push(f));
    out
}

#[test]
fn each_cause_is_a_finding_however_many_there_are() {
    let mut book = Book::default();
    for n in 0..3 * MOST_OPEN {
        book.enter(draft(&format!("/tmp/{n}"), n as u64));
        let told = told(&mut book, false);
        assert_eq!(told.len(), 1, "cause {n}");
        assert_eq!(told[0].object, format!("/tmp/{n}"));
    }
    assert_eq!((book.open.len(), book.order.len()), (MOST_OPEN, MOST_OPEN));
}

#[test]
fn the_quietest_is_closed_first_and_its_count_is_told() {
    let mut book = Book::default();
    for n in 0..MOST_OPEN {
        book.enter(draft(&format!("/tmp/{n}"), 1));
    }
    assert_eq!(told(&mut book, true).len(), MOST_OPEN);
    // Told at once are new findings only: that these two go on waits.
    book.enter(draft("/tmp/0", 2));
    book.enter(draft("/tmp/1", 2));
    for n in 2..MOST_OPEN {
        book.enter(draft(&format!("/tmp/more/{n}"), 3));
    }
    assert!(book.all().any(|f| f.object == "/tmp/0") && !book.all().any(|f| f.object == "/tmp/2"));
    let before = told(&mut book, false).len();
    assert_eq!(before, MOST_OPEN - 2);
    book.enter(draft("/tmp/last", 4));
    let told = told(&mut book, false);
    let closed = told.iter().find(|f| f.object == "/tmp/0").expect("the quietest is closed");
    assert_eq!((closed.count, closed.revision), (2, 2));
    assert!(told.iter().any(|f| f.object == "/tmp/last") && !book.all().any(|f| f.object == "/tmp/0"));
}

#[test]
fn a_cause_that_comes_again_after_a_day_is_a_new_finding_and_the_old_count_is_told() {
    let mut book = Book::default();
    book.enter(draft("/tmp/a", 1));
    let first = told(&mut book, true).remove(0);
    book.enter(draft("/tmp/a", 2));
    book.enter(draft("/tmp/a", OPEN_NS + 2));
    let told = told(&mut book, true);
    assert_eq!(told.len(), 2);
    assert_eq!((&told[0].id, told[0].count), (&first.id, 2));
    assert!(told[1].id != first.id && told[1].count == 1);
}

#[test]
fn who_is_acknowledged_leaves_nothing_behind() {
    let mut book = Book::default();
    let cause = book.enter(draft("/tmp/a", 1));
    let id = told(&mut book, true).remove(0).id;
    book.count(&cause, None, 3);
    assert!(book.close(&id).is_some_and(|f| f.count == 4));
    assert!(book.open.is_empty() && book.order.is_empty() && !book.waits());
}
