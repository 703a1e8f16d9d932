//! The settling time of attribution, learned per tool (docs/ARCHITECTURE.md, section "Charging").

use engine::{
    input::{Fact, Identity},
    output::{Certainty, Scope, ScopeKind},
};

use crate::common::{MS, ROOT, TREE, World};

/// One session: `act`, then the end.
fn session(w: &mut World, act: impl FnOnce(&mut World)) {
    w.begin();
    let identity = Identity { tree: TREE, tgid: ROOT, name: "srv".into(), ..Identity::default() };
    w.fact(&Fact::Identity(identity));
    act(w);
    close(w);
    w.exit(ROOT);
    w.wait(10);
    let up_to_ns = w.now;
    w.fact(&Fact::Drained { up_to_ns });
    w.wait(1100);
}

/// Counts and usage are in.
fn close(w: &mut World) {
    w.wait(50);
    w.fact(&Fact::Usage(engine::input::Usage {
        tgid: ROOT,
        cpu_ns: 7 * MS,
        rss: 4096,
        peak_rss: 8192,
        ..Default::default()
    }));
    let up_to_ns = w.now;
    w.fact(&Fact::Drained { up_to_ns });
}

/// A call that works until `late` after its reply, if at all.
fn call(w: &mut World, tool: &str, late: Option<u64>) {
    let id = w.next_call();
    w.call(id, tool);
    w.open(ROOT, "during");
    w.reply(id);
    if let Some(late) = late {
        w.now += late;
        w.open(ROOT, "late");
    }
    close(w);
}

/// Three sessions of twenty calls each.
fn trained(late: Option<u64>) -> World {
    let mut w = World::bare();
    for _ in 0..3 {
        session(&mut w, |w| (0..20).for_each(|_| call(w, "read", late)));
    }
    w
}

/// What the next tool's effect is charged to, so long after the reply of the trained one.
fn next(w: &mut World, after: u64) -> Scope {
    let id = w.next_call();
    w.call(id, "read");
    w.reply(id);
    w.now += after;
    let other = w.next_call();
    w.call(other, "write");
    let scope = w.open(ROOT, "x");
    w.reply(other);
    close(w);
    scope
}

fn settling(w: &World) -> engine::baseline::settling::Settling {
    let b = w.engine.judge().baselines().next().expect("a baseline");
    *b.settling().find(|(tool, _)| *tool == "read").expect("it was observed").1
}

fn is_certain(scope: &Scope) -> bool {
    (scope.kind, scope.certainty, scope.tool.as_deref())
        == (ScopeKind::Call, Certainty::Certain, Some("write"))
}

#[test]
fn a_tool_that_never_works_late_settles_at_once_when_that_is_known() {
    let mut w = World::bare();
    session(&mut w, |w| {
        (0..60).for_each(|_| call(w, "read", None));
        assert_eq!(next(w, 3 * MS).certainty, Certainty::Ambiguous, "one session shows little");
    });
    let mut w = trained(None);
    assert_eq!(settling(&w).learned_ns(), Some(2 * MS));
    session(&mut w, |w| {
        assert_eq!(next(w, MS).certainty, Certainty::Ambiguous);
        assert!(is_certain(&next(w, 3 * MS)));
    });
    let share = w.engine.ambiguous_share();
    assert!(share.after > 0.0 && share.before > share.after, "{share:?}");
    let b = w.engine.judge().baselines().next().expect("a baseline").full();
    let tool = b.scopes.iter().find(|s| s.scope == "tool read").expect("the tool");
    assert_eq!((tool.settle_ms, tool.late_share), (Some(2.0), Some(0.0)));
}

#[test]
fn a_tool_that_works_late_keeps_the_configured_time() {
    let mut w = trained(Some(12 * MS));
    assert_eq!(settling(&w).late_share(), 1.0);
    session(&mut w, |w| assert_eq!(next(w, 15 * MS).certainty, Certainty::Ambiguous));
    let mut w = trained(Some(2 * MS));
    session(&mut w, |w| {
        assert_eq!(next(w, 4 * MS).certainty, Certainty::Ambiguous);
        assert!(is_certain(&next(w, 6 * MS)));
    });
}

#[test]
fn work_that_comes_later_resets_it_at_once_and_stays_its_own() {
    let mut w = trained(None);
    session(&mut w, |w| {
        assert!(is_certain(&next(w, 3 * MS)));
        let id = w.next_call();
        w.call(id, "read");
        w.reply(id);
        w.now += 7 * MS;
        let scope = w.open(ROOT, "late");
        assert_eq!((scope.kind, scope.tool.as_deref()), (ScopeKind::Call, Some("read")), "nothing else runs");
        w.wait(30);
        assert_eq!(next(w, 3 * MS).certainty, Certainty::Ambiguous);
    });
    assert_eq!((settling(&w).resets, settling(&w).learned_ns()), (1, None));
    session(&mut w, |w| assert_eq!(next(w, 3 * MS).certainty, Certainty::Ambiguous));
}

#[test]
fn what_the_kernel_only_counted_may_have_been_late() {
    let mut w = World::bare();
    for _ in 0..3 {
        session(&mut w, |w| {
            for _ in 0..20 {
                let id = w.next_call();
                w.call(id, "read");
                w.reply(id);
                let first = w.open_announced(ROOT, "again");
                w.wait(50);
                w.fact(&Fact::Aggregate { id: first, count: 3, bytes_out: 0, bytes_in: 0 });
                close(w);
            }
        });
    }
    assert_eq!(settling(&w).latest_ns, 20 * MS);
    session(&mut w, |w| assert_eq!(next(w, 15 * MS).certainty, Certainty::Ambiguous));
}

#[test]
fn it_survives_a_restart() {
    let w = trained(None);
    let text = serde_json::to_string(&w.engine.judge().stored()).expect("json");
    let mut again = World::bare();
    again.fact(&Fact::Restore(Box::new(serde_json::from_str(&text).expect("the same"))));
    session(&mut again, |w| assert!(is_certain(&next(w, 3 * MS))));
}

#[test]
fn other_messages_within_the_time_teach_nothing() {
    let mut w = World::bare();
    for _ in 0..3 {
        session(&mut w, |w| {
            for _ in 0..20 {
                let (a, b) = (w.next_call(), w.next_call());
                w.call(a, "read");
                w.reply(a);
                w.now += 5 * MS;
                w.call(b, "write");
                w.reply(b);
                close(w);
            }
        });
    }
    let b = w.engine.judge().baselines().next().expect("a baseline");
    assert!(b.settling().all(|(tool, s)| tool != "read" && s.learned_ns().is_none()));
}
