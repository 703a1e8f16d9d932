use std::sync::Arc;

use proptest::prelude::*;

use super::{
    Action, Cause, Order, Outcome, Planner, Settings, Subject, Verdict, held::ladder, planner::Wish,
};
use crate::{
    finding::{Evidence, Finding, Kind, Origin, Seen, Severity, Taxonomy},
    output::{Basis, Certainty, Effect, Process, Scope, ScopeKind, ServerRef, Time},
    rules::written::Response::{self, Alert, CutNetwork, Deny, Freeze, Kill, Throttle},
};

const S: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * S;
const HOUR: u64 = 60 * MINUTE;
const ROOT: u32 = 100;
const CHILD: u32 = 101;

fn subject(tree: u64, identity: &str) -> Subject {
    Subject {
        tree,
        server: Arc::new(ServerRef { id: format!("{tree:x}"), name: "srv".into() }),
        identity: identity.into(),
        own: vec![ROOT],
        ..Subject::default()
    }
}

fn finding(severity: Severity, pid: u32) -> Finding {
    let process = Arc::new(Process { pid, start_ns: 7, exe: None });
    let seen = Seen { time: Time::default(), process, effect: Arc::new(Effect::Fork { child: 1 }), count: 1 };
    Finding {
        id: "f".into(),
        revision: 1,
        time: Time::default(),
        server: Arc::default(),
        context: Arc::default(),
        identity: String::new(),
        scope: Arc::new(Scope {
            kind: ScopeKind::Ambient,
            tool: None,
            call: None,
            certainty: Certainty::Certain,
            basis: Basis::Window,
            candidates: Vec::new(),
        }),
        kind: Kind::NewExec,
        severity,
        origin: Origin::Detector,
        object: "/bin/curl".into(),
        sentence: String::new(),
        count: 1,
        evidence: Evidence { effects: vec![seen], ..Evidence::default() },
        taxonomy: Taxonomy::default(),
        permit: String::new(),
    }
}

/// A planner, and an agent that does all that it is told.
#[derive(Default)]
struct World {
    planner: Planner,
    now: u64,
}

impl World {
    fn new(settings: Settings) -> Self {
        let mut w = Self { now: HOUR, ..Self::default() };
        w.planner.set(settings);
        w
    }

    fn done(&mut self, order: &Order, verdict: Verdict) -> super::ResponseLine {
        let outcome = Outcome { id: order.id.clone(), verdict, ..Outcome::default() };
        self.planner.responded(&outcome, self.now).expect("it was ordered").line
    }

    fn find(&mut self, response: &[Response], subject: &Subject, pid: u32) -> Option<Action> {
        let f = finding(Severity::High, pid);
        let order = self.planner.finding(&f, Some(response), subject, true, self.now)?;
        assert!(!order.dry_run);
        self.done(&order, Verdict::Done);
        Some(order.action)
    }
}

#[test]
fn ladders() {
    let table: [(&[Response], &[Action]); 5] = [
        (&[], &[]),
        (&[Alert, Deny], &[]),
        (&[Freeze, Throttle], &[Action::Throttle, Action::Freeze]),
        (&[Kill, Kill], &[Action::KillChild, Action::KillServer]),
        (&[Alert, CutNetwork, Kill], &[Action::CutNetwork, Action::KillChild, Action::KillServer]),
    ];
    for (response, steps) in table {
        assert_eq!(ladder(response), steps, "{response:?}");
    }
}

#[test]
fn nothing_is_done_by_default() {
    let mut w = World::default();
    for severity in [Severity::Info, Severity::Critical] {
        let f = finding(severity, CHILD);
        assert_eq!(w.planner.finding(&f, None, &subject(1, "a"), true, 5 * S), None);
        assert_eq!(w.planner.finding(&f, Some(&[Alert]), &subject(1, "a"), true, 5 * S), None);
    }
}

#[test]
fn severities_have_defaults_and_rules_stand_above_them() {
    let by_severity = [(Severity::High, vec![Freeze])].into();
    let mut w = World::new(Settings { by_severity, ..Settings::default() });
    let (low, high) = (finding(Severity::Medium, CHILD), finding(Severity::High, CHILD));
    assert_eq!(w.planner.finding(&low, None, &subject(1, "a"), true, w.now), None);
    assert_eq!(w.planner.finding(&high, Some(&[Alert]), &subject(1, "a"), true, w.now), None);
    let order = w.planner.finding(&high, None, &subject(1, "a"), true, w.now).expect("an order");
    assert_eq!((order.action, order.for_ns), (Action::Freeze, 10 * MINUTE));
}

#[test]
fn it_is_throttled_and_frozen_when_it_goes_on() {
    let (mut w, a) = (World::new(Settings::default()), subject(1, "a"));
    let both = [Throttle, Freeze];
    assert_eq!(w.find(&both, &a, CHILD), Some(Action::Throttle));
    // The rest of the same event.
    w.now += S;
    assert_eq!(w.find(&both, &a, CHILD), None);
    w.now += 2 * S;
    assert_eq!(w.find(&both, &a, CHILD), Some(Action::Freeze));
    w.now += 3 * S;
    assert_eq!(w.find(&both, &a, CHILD), None, "it is at its top");
    // Another rule that begins with more than that need not wait.
    assert_eq!(w.find(&[Kill], &a, ROOT), Some(Action::KillServer));
    w.now += 3 * S;
    assert_eq!(w.find(&[Kill], &a, ROOT), None, "it ends already");
}

#[test]
fn a_ladder_that_was_long_ago_begins_at_its_foot() {
    let (mut w, a) = (World::new(Settings::default()), subject(1, "a"));
    let both = [Throttle, Freeze];
    assert_eq!(w.find(&both, &a, CHILD), Some(Action::Throttle));
    w.now += 11 * MINUTE;
    let over = w.planner.tick(w.now);
    assert_eq!(
        over.iter().map(|o| (o.action, o.only)).collect::<Vec<_>>(),
        [(Action::Release, Some(Action::Throttle))]
    );
    assert_eq!(w.done(&over[0], Verdict::Done).cause, Cause::TimeUp);
    assert_eq!(w.planner.tick(w.now), []);
    assert_eq!(w.find(&both, &a, CHILD), Some(Action::Throttle));
}

#[test]
fn a_child_is_ended_before_the_server() {
    let (mut w, a) = (World::new(Settings::default()), subject(1, "a"));
    let f = finding(Severity::High, CHILD);
    let order = w.planner.finding(&f, Some(&[Kill]), &a, true, w.now).expect("an order");
    assert_eq!(
        (order.action, order.process.map(|p| (p.tgid, p.start_ns))),
        (Action::KillChild, Some((CHILD, 7)))
    );
    w.done(&order, Verdict::Done);
    w.now += 3 * S;
    assert_eq!(w.find(&[Kill], &a, CHILD), Some(Action::KillServer));
    // Who acts itself is the server.
    assert_eq!(w.find(&[Kill], &subject(2, "b"), ROOT), Some(Action::KillServer));
}

#[test]
fn in_other_modes_it_is_only_told() {
    let (mut w, a) = (World::new(Settings::default()), subject(1, "a"));
    let f = finding(Severity::High, CHILD);
    for (at, wanted) in [(0, Action::Throttle), (3, Action::Freeze)] {
        let now = w.now + at * S;
        let order = w.planner.finding(&f, Some(&[Throttle, Freeze]), &a, false, now).expect("an order");
        assert_eq!((order.action, order.dry_run), (wanted, true));
        let line = w.done(&order, Verdict::Would);
        assert_eq!((line.undo, line.until, line.dry_run), (None, None, true));
    }
    assert_eq!(w.planner.in_force().count(), 0);
    // What was only told is no step of what is done.
    assert_eq!(w.find(&[Throttle, Freeze], &a, CHILD), Some(Action::Throttle));
    let mut dry = World::new(Settings { dry_run: true, ..Settings::default() });
    let order = dry.planner.finding(&f, Some(&[Kill]), &a, true, dry.now).expect("an order");
    assert!(order.dry_run);
    dry.done(&order, Verdict::Would);
    assert_eq!(dry.planner.quarantined(dry.now).count(), 0);
}

#[test]
fn the_breaker_falls_to_what_none_lifts_and_spends_nobody_elses_budget() {
    let mut w = World::new(Settings { freezes_per_hour: 2, ..Settings::default() });
    for tree in 1..=2 {
        assert_eq!(w.find(&[Freeze], &subject(tree, "noisy"), CHILD), Some(Action::Freeze));
    }
    let f = finding(Severity::High, CHILD);
    let order = w.planner.finding(&f, Some(&[Freeze]), &subject(3, "noisy"), true, w.now).expect("an order");
    assert_eq!((order.action, order.for_ns), (Action::CutNetwork, 0));
    let line = w.done(&order, Verdict::Done);
    assert_eq!((line.instead_of, line.until), (Some(Action::Freeze), None));
    w.now += 30 * MINUTE;
    assert_eq!(w.find(&[Freeze], &subject(3, "noisy"), CHILD), None, "it is cut off already");
    assert_eq!(w.find(&[Freeze], &subject(9, "quiet"), CHILD), Some(Action::Freeze));
    // Kills have a budget of their own.
    assert_eq!(w.find(&[Kill], &subject(4, "noisy"), ROOT), Some(Action::KillServer));
    w.now += HOUR;
    assert_eq!(w.find(&[Freeze], &subject(5, "noisy"), CHILD), Some(Action::Freeze));
    // Nothing but a person ends the cut-off.
    assert!(w.planner.tick(w.now + 100 * HOUR).iter().all(|o| o.only != Some(Action::CutNetwork)));
}

#[test]
fn a_killed_identity_is_frozen_when_it_starts_again() {
    let mut w = World::new(Settings::default());
    assert_eq!(w.find(&[Kill], &subject(1, "1/a@d"), ROOT), Some(Action::KillServer));
    assert_eq!(w.planner.identified(&subject(2, "1/b@d"), "", w.now), (None, None));
    for starts in 1..=4 {
        w.now += MINUTE;
        let (order, looping) = w.planner.identified(&subject(10 + starts, "1/a@d"), "did much", w.now);
        let order = order.expect("an order");
        assert_eq!((order.action, order.for_ns), (Action::Freeze, (10 - starts) * MINUTE));
        assert_eq!(looping.map(u64::from), (starts >= 3).then_some(starts));
        let line = w.done(&order, Verdict::Done);
        assert!(matches!(line.cause, Cause::Quarantine { before, .. } if before == "did much"));
        // Told twice that it is known: frozen once.
        assert_eq!(w.planner.identified(&subject(10 + starts, "1/a@d"), "", w.now), (None, None));
    }
    w.now += 7 * MINUTE;
    assert_eq!(w.planner.identified(&subject(20, "1/a@d"), "", w.now), (None, None), "it is over");
}

#[test]
fn a_person_lets_it_start_again() {
    let mut w = World::new(Settings::default());
    w.find(&[Kill], &subject(1, "1/a@d"), ROOT);
    assert_eq!(w.planner.lift("other", w.now), 0);
    assert_eq!(w.planner.lift("srv", w.now), 1);
    assert_eq!(w.planner.identified(&subject(2, "1/a@d"), "", w.now), (None, None));
}

fn wish(action: Action) -> Wish {
    Wish { action, for_ns: None, dry_run: false, who: "uid 0".into() }
}

#[test]
fn people_freeze_and_release() {
    let (mut w, a) = (World::new(Settings::default()), subject(1, "a"));
    let order = w.planner.wish(&wish(Action::Freeze), &a, w.now).expect("an order");
    let outcome = Outcome {
        id: order.id.clone(),
        verdict: Verdict::Done,
        result: "3 processes stand still".into(),
        ..Outcome::default()
    };
    let settled = w.planner.responded(&outcome, w.now).expect("it was ordered");
    let answer = settled.answer.expect("an answer").expect("done");
    assert!(answer.contains("3 processes stand still") && answer.contains(&order.id), "{answer}");
    assert!(settled.line.undo.is_some_and(|u| u.contains("release 1")));
    assert_eq!(w.planner.in_force().count(), 1);
    assert_eq!(w.find(&[Freeze], &a, CHILD), None, "it is frozen already");
    let order = w.planner.wish(&wish(Action::Release), &a, w.now).expect("an order");
    assert_eq!(order.only, None);
    w.done(&order, Verdict::Done);
    assert_eq!(w.planner.in_force().count(), 0);
    assert!(w.planner.wish(&wish(Action::KillChild), &a, w.now).is_err());
}

#[test]
fn disarmed_nothing_is_done_and_what_is_in_force_ends() {
    let (mut w, a) = (World::new(Settings::default()), subject(1, "a"));
    w.find(&[Freeze], &a, CHILD);
    w.find(&[Throttle], &subject(2, "b"), CHILD);
    let orders = w.planner.disarm(true, w.now);
    assert_eq!(
        orders.iter().map(|o| (o.tree, o.action)).collect::<Vec<_>>(),
        [(1, Action::Release), (2, Action::Release)]
    );
    for order in &orders {
        assert_eq!(w.done(order, Verdict::Done).cause, Cause::Disarmed);
    }
    assert_eq!(w.find(&[Kill], &a, ROOT), None);
    assert!(w.planner.wish(&wish(Action::Freeze), &a, w.now).is_err());
    assert!(w.planner.wish(&wish(Action::Release), &a, w.now).is_ok());
    assert_eq!(w.planner.disarm(false, w.now), []);
    assert_eq!(w.find(&[Kill], &a, ROOT), Some(Action::KillServer));
}

#[test]
fn what_failed_is_not_in_force_and_a_failed_release_is_tried_again() {
    let (mut w, a) = (World::new(Settings::default()), subject(1, "a"));
    let order = w.planner.wish(&wish(Action::Freeze), &a, w.now).expect("an order");
    w.done(&order, Verdict::Failed);
    assert_eq!(w.planner.in_force().count(), 0);
    w.find(&[Freeze], &a, CHILD);
    w.now += 10 * MINUTE;
    let over = w.planner.tick(w.now);
    w.done(&over[0], Verdict::Failed);
    assert_eq!(w.planner.tick(w.now + S), []);
    assert_eq!(w.planner.tick(w.now + 6 * S).len(), 1);
    // A kill that was refused leaves the server as it was.
    let order = w.planner.wish(&wish(Action::KillServer), &a, w.now).expect("an order");
    w.done(&order, Verdict::Refused);
    assert_eq!(w.planner.quarantined(w.now).count(), 0);
    assert_eq!(w.find(&[Kill], &a, ROOT), Some(Action::KillServer));
    // What an agent says that nobody asked for is no response.
    assert_eq!(w.planner.responded(&Outcome::default(), w.now), None);
}

#[test]
fn what_has_ended_is_tidied_up_once() {
    let mut w = World::new(Settings::default());
    w.find(&[Freeze], &subject(1, "a"), CHILD);
    w.find(&[Kill], &subject(2, "b"), ROOT);
    let order = w.planner.ended(1, w.now).expect("an order");
    assert_eq!(order.action, Action::Release);
    assert_eq!(w.planner.ended(1, w.now), None);
    assert_eq!(w.planner.ended(2, w.now), None, "who is killed leaves nothing");
}

fn responses() -> impl Strategy<Value = Vec<Response>> {
    proptest::collection::vec(
        proptest::sample::select(vec![Alert, Throttle, CutNetwork, Freeze, Kill, Deny]),
        0..4,
    )
}

proptest! {
    /// Whatever is found: nobody has more kills or freezes in an hour than the caps say, orders are for whom
    /// they were asked for, and the same story gives the same orders.
    #[test]
    fn caps_hold(
        story in proptest::collection::vec((0_u64..3, 0_u64..300, responses(), any::<bool>(), 99_u32..102), 1..200),
        kills in 0_u32..4,
        freezes in 0_u32..4,
    ) {
        let settings = Settings { kills_per_hour: kills, freezes_per_hour: freezes, ..Settings::default() };
        let play = || {
            let mut w = World::new(settings.clone());
            let mut orders = Vec::new();
            for (n, (who, seconds, response, enforce, pid)) in story.iter().enumerate() {
                w.now += seconds * S;
                for o in w.planner.tick(w.now) {
                    w.done(&o, Verdict::Done);
                    orders.push((w.now, *who, o));
                }
                // A tree that ends is followed by another one of the same identity.
                let subject = subject(who * 1000 + n as u64 / 5, &format!("id{who}"));
                let f = finding(Severity::High, *pid);
                if let Some(o) = w.planner.finding(&f, Some(response), &subject, *enforce, w.now) {
                    assert_eq!(o.tree, subject.tree);
                    assert_eq!(o.dry_run, !enforce);
                    w.done(&o, if o.dry_run { Verdict::Would } else { Verdict::Done });
                    orders.push((w.now, *who, o));
                }
            }
            orders
        };
        let orders = play();
        prop_assert_eq!(&orders, &play());
        for (at, who, _) in &orders {
            let within = |kinds: &[Action]| orders
                .iter()
                .filter(|(t, w, o)| w == who && !o.dry_run && kinds.contains(&o.action) && t <= at && at - t < HOUR)
                .count();
            prop_assert!(within(&[Action::KillChild, Action::KillServer]) <= kills as usize);
            prop_assert!(within(&[Action::Freeze]) <= freezes as usize);
        }
    }
}
