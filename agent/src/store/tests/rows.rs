//! Which revision wins, and that everything comes back as it was written.

use super::*;

#[test]
fn a_later_revision_wins_and_nothing_shrinks() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    let mut first = finding("a", 3, Severity::High);
    first.count = 9;
    assert_eq!(put(&store, first)?, Done::Stored(Number { boot: 1, number: 1 }));
    assert_eq!(put(&store, finding("a", 2, Severity::Critical))?, Done::Unchanged);
    assert_eq!(put(&store, finding("a", 3, Severity::Critical))?, Done::Unchanged);
    let mut later = finding("a", 4, Severity::Low);
    later.object = "/bin/nc".to_owned();
    assert_eq!(put(&store, later)?, Done::Stored(Number { boot: 1, number: 2 }));

    let row = store.reader()?.finding("a")?.ok_or("gone")?;
    assert_eq!((row.seq, row.revision, row.severity, row.count), (1, 4, Severity::High, 9));
    assert_eq!(row.object, "/bin/nc");
    let whole = row.parse()?;
    assert_eq!((whole.revision, whole.severity, whole.count), (4, Severity::High, 9));
    assert_eq!(whole.object, "/bin/nc");
    Ok(())
}

#[test]
fn an_acknowledgement_holds_until_it_gets_worse() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    let ack = Ack { by: "root".to_owned(), at: 12, note: "ours".to_owned(), expected: true };
    let say = |id: &str| store.commit(Job::Ack { id: id.to_owned(), ack: ack.clone() }, LONG);
    put(&store, finding("a", 1, Severity::Low))?;
    assert_eq!(say("a")?, Done::Written);
    assert_eq!(say("b")?, Done::Absent);
    put(&store, finding("a", 2, Severity::Low))?;
    let reader = store.reader()?;
    assert_eq!(reader.finding("a")?.and_then(|row| row.ack), Some(ack.clone()));
    put(&store, finding("a", 3, Severity::High))?;
    assert_eq!(reader.finding("a")?.ok_or("gone")?.ack, None);
    Ok(())
}

#[test]
fn queries_choose_and_page_by_arrival() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    for (n, severity) in
        [Severity::Low, Severity::High, Severity::Medium, Severity::Critical].iter().enumerate()
    {
        let mut finding = finding(&n.to_string(), 1, *severity);
        // A clock that runs backwards changes nothing.
        finding.time.utc -= rows_utc(n);
        put(&store, finding)?;
    }
    store.commit(
        Job::Ack {
            id: "3".to_owned(),
            ack: Ack { by: String::new(), at: 1, note: String::new(), expected: false },
        },
        LONG,
    )?;
    let reader = store.reader()?;
    let ids = |query: &Query| -> Result<Vec<String>> {
        Ok(reader.findings(query)?.into_iter().map(|row: FindingRow| row.id).collect())
    };
    assert_eq!(ids(&Query::default())?, ["3", "2", "1", "0"]);
    assert_eq!(ids(&Query { severity: Severity::Medium, ..Query::default() })?, ["3", "2", "1"]);
    assert_eq!(ids(&Query { limit: 1, before: Some(3), ..Query::default() })?, ["1"]);
    assert_eq!(ids(&Query { acked: Some(true), ..Query::default() })?, ["3"]);
    assert_eq!(ids(&Query { acked: Some(false), ..Query::default() })?, ["2", "1", "0"]);
    assert_eq!(ids(&Query { server: Some("other".to_owned()), ..Query::default() })?, [""; 0]);
    assert_eq!(ids(&Query { kind: Some("new-exec".to_owned()), ..Query::default() })?.len(), 4);
    Ok(())
}

fn rows_utc(n: usize) -> i64 {
    super::super::rows::signed(n) * 1_000_000_000_000
}

#[test]
fn all_else_comes_back_after_a_restart() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    assert_eq!(*store.started(), Started::Fresh);
    let server = ServerRow {
        identity: "1000/git@abc".to_owned(),
        name: "git".to_owned(),
        uid: 1000,
        version: Some("1.0".to_owned()),
        first_seen: 50,
        last_seen: 60,
        sessions: 1,
        calls: 5,
        ..ServerRow::default()
    };
    let seen = ServerRow { version: None, first_seen: 70, last_seen: 80, ..server.clone() };
    let tool = ToolRow {
        identity: server.identity.clone(),
        tool: "git_log".to_owned(),
        calls: 5,
        first_seen: 50,
        last_seen: 60,
    };
    let mode = ModeRow {
        server: "git*".to_owned(),
        tool: String::new(),
        mode: "enforce".to_owned(),
        by: "root".to_owned(),
        at: 3,
    };
    let audit = AuditRow {
        utc_ns: now(),
        uid: 0,
        pid: 12,
        exe: "/usr/bin/toolwarden".to_owned(),
        verb: "mode".to_owned(),
        target: "git*".to_owned(),
        arguments: "{}".to_owned(),
        outcome: "done".to_owned(),
    };
    let rule =
        ExceptionRow { id: 1, finding: None, yaml: "allow: []".to_owned(), by: "root".to_owned(), at: 4 };
    let scope = |scope: &str, blob: &str| (scope.to_owned(), blob.to_owned());
    let baselines = |scopes: Vec<_>, at| Job::Baselines {
        identity: server.identity.clone(),
        meta: "{\"v\":1}".to_owned(),
        scopes,
        at,
    };
    store.commit(
        Job::All(vec![
            Job::Server(Box::new(server.clone())),
            Job::Server(Box::new(seen)),
            Job::Tool(tool.clone()),
            Job::Tool(tool.clone()),
            Job::Mode(mode.clone()),
            Job::Audit(audit.clone()),
            Job::Permit(rule.clone()),
            Job::Note { key: "k".to_owned(), value: "v".to_owned() },
        ]),
        LONG,
    )?;
    store.commit(baselines(vec![scope("startup", "1"), scope("call:git_log", "2")], 5), LONG)?;
    store.commit(baselines(vec![scope("startup", "3")], 6), LONG)?;
    drop(store);

    let store = open(dir.path())?;
    assert_eq!(*store.started(), Started::Kept);
    let reader = store.reader()?;
    let known = ServerRow { last_seen: 80, sessions: 2, calls: 10, ..server.clone() };
    assert_eq!(reader.servers()?, [known]);
    assert_eq!(reader.tools(&server.identity)?, [ToolRow { calls: 10, ..tool }]);
    assert_eq!(reader.modes()?, std::slice::from_ref(&mode));
    assert_eq!(reader.audit(10)?, [audit]);
    assert_eq!(reader.exceptions()?, [rule]);
    assert_eq!(reader.note("k")?.as_deref(), Some("v"));
    let row = |scope: &str, blob: &str, updated| BaselineRow {
        scope: scope.to_owned(),
        blob: blob.to_owned(),
        updated,
    };
    let both = [row("call:git_log", "2", 5), row("startup", "3", 6)];
    assert_eq!(reader.baselines(&server.identity)?, both);
    let identity =
        IdentityRow { identity: server.identity.clone(), meta: "{\"v\":1}".to_owned(), updated: 6 };
    assert_eq!(reader.identities()?, [identity]);

    let forget = |scope| Job::Forget { identity: server.identity.clone(), scope };
    assert_eq!(store.commit(forget(Some("startup".to_owned())), LONG)?, Done::Written);
    assert_eq!(reader.baselines(&server.identity)?.len(), 1);
    assert_eq!(store.commit(forget(None), LONG)?, Done::Written);
    assert_eq!(reader.baselines(&server.identity)?.len(), 0);
    assert_eq!(store.commit(Job::Revoke { id: 1 }, LONG)?, Done::Written);
    assert_eq!(store.commit(Job::ClearMode { server: mode.server, tool: mode.tool }, LONG)?, Done::Written);
    assert_eq!((reader.exceptions()?.len(), reader.modes()?.len()), (0, 0));
    Ok(())
}

#[test]
fn numbers_go_on_over_restarts_and_boots() -> Result {
    let dir = tempfile::tempdir()?;
    let mut numbers = Vec::new();
    for (n, boot) in ["one", "one", "two"].iter().enumerate() {
        let store = Store::open(
            &dir.path().join("state"),
            Options { boot: (*boot).to_owned(), ..Options::default() },
        )?;
        numbers.push(put(&store, finding(&n.to_string(), 1, Severity::Low))?);
    }
    let stored = |boot, number| Done::Stored(Number { boot, number });
    assert_eq!(numbers, [stored(1, 1), stored(1, 2), stored(2, 1)]);
    Ok(())
}

#[test]
fn the_audit_trail_cannot_be_changed() -> Result {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    let line = "INSERT INTO audit (utc_ns, uid, pid, exe, verb, target, arguments, outcome)
        VALUES (9000000000000000000, 0, 1, '', 'ack', '', '', '')";
    store.commit(Job::Sql(line.to_owned()), LONG)?;
    for change in ["UPDATE audit SET verb = 'x'", "DELETE FROM audit"] {
        let failed = store.commit(Job::Sql(change.to_owned()), LONG).err().ok_or("changed")?;
        assert!(failed.0.contains("append-only"), "{failed}");
    }
    Ok(())
}
