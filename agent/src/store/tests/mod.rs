//! The store against real files, real kills and a disk that is full.
//!
//! # Layout
//! - [`files`]: damaged, foreign, newer and trapped databases; migrations
//! - [`rows`]: which revision wins, and that everything comes back as it was written
//! - [`queue`]: bounds, groups, readers beside the writer
//! - [`full`]: a full disk
//! - [`purge`]: retention and the clock
//! - [`outbox`]: what waits for sinks, and what they will never get
//! - [`kill`]: `kill -9` in a loop

mod files;
mod full;
mod kill;
mod outbox;
mod purge;
mod queue;
mod rows;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use engine::{
    finding::{Evidence, Finding, Kind, Origin, Severity},
    output::{Basis, Certainty, Context, Scope, ScopeKind, ServerRef, Time},
};

use super::*;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long a test waits for the disk of a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn options() -> Options {
    Options { boot: "boot-1".to_owned(), ..Options::default() }
}

fn open(dir: &Path) -> super::Result<Store> {
    Store::open(&dir.join("state"), options())
}

fn finding(id: &str, revision: u32, severity: Severity) -> Finding {
    Finding {
        id: id.to_owned(),
        revision,
        time: Time { utc: 1_700_000_000_000_000_000, boot_ns: 5 },
        server: Arc::new(ServerRef { id: "7f".to_owned(), name: "git".to_owned() }),
        context: Arc::new(Context { uid: 1000, ..Context::default() }),
        identity: "1000/git@abc".to_owned(),
        scope: Arc::new(Scope {
            kind: ScopeKind::Call,
            tool: Some("git_log".to_owned()),
            call: None,
            certainty: Certainty::Certain,
            basis: Basis::Lineage,
            candidates: Vec::new(),
        }),
        kind: Kind::NewExec,
        severity,
        origin: Origin::Detector,
        object: "/usr/bin/curl".to_owned(),
        sentence: "git_log executed /usr/bin/curl.".to_owned(),
        count: 1,
        evidence: Evidence::default(),
        taxonomy: Kind::NewExec.taxonomy(),
        permit: "allow: {}".to_owned(),
    }
}

/// A finding as large as one with much evidence.
fn large(id: &str) -> Job {
    let mut finding = finding(id, 1, Severity::Low);
    finding.evidence.calls_before = vec!["x".repeat(1000); 8];
    Job::Finding(Box::new(finding))
}

fn put(store: &Store, finding: Finding) -> std::result::Result<Done, Failed> {
    store.commit(Job::Finding(Box::new(finding)), LONG)
}

/// Waits for what another thread does.
fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > LONG {
            return Err(format!("not within {LONG:?}: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn sound(dir: &Path) -> Result {
    let said: String = rusqlite::Connection::open(dir.join("state").join(place::DATABASE))?.query_row(
        "PRAGMA integrity_check",
        (),
        |row| row.get(0),
    )?;
    if said == "ok" { Ok(()) } else { Err(said.into()) }
}
