//! From a finding to an order, and from its outcome to a line.

use abi::exec_flag;
use engine::{
    Output,
    finding::{Kind, Severity},
    input::{Fact, Identity},
    judge::{Command, Config, Mode, ModeRule, RuleText, Stored},
    output::Line,
    respond::{Action, Cause, Order, Outcome, ResponseLine, Settings, Verdict},
    rules::written::Response,
};

use crate::common::{ROOT, STDIN, STDOUT, TREE, World};

const RULES: &str = "
rules:
  - id: no-secrets
    response: [throttle, freeze, kill]
    deny:
      files:
        read: [/secret/**]
";

fn command(w: &mut World, command: Command) -> Result<String, String> {
    let from = w.outputs.len();
    w.fact(&Fact::Command(command));
    let mut answers = w.outputs[from..].iter().rev().filter_map(|o| match o {
        Output::Answer(answer) => Some(answer.clone()),
        _ => None,
    });
    answers.next().unwrap_or_else(|| Ok(String::new()))
}

fn identity() -> Identity {
    Identity {
        tree: TREE,
        tgid: ROOT,
        name: "srv".into(),
        entry: Some("/srv.js".into()),
        digest: Some("d".into()),
        ..Identity::default()
    }
}

/// A server under that rule.
fn server(mode: Mode) -> World {
    let mut w = World::bare();
    command(&mut w, Command::Configure { config: Config::default() }).expect("good");
    let files = vec![RuleText { name: "r.yaml".into(), text: RULES.into(), shipped: false }];
    command(&mut w, Command::Rules { files }).expect("good");
    let rule = ModeRule { server: "*".into(), tool: None, mode, strict: false };
    // As stored: to be set, it needs a ratified baseline.
    w.fact(&Fact::Restore(Box::new(Stored { modes: vec![rule], ..Stored::default() })));
    w.begin();
    w.fact(&Fact::Identity(identity()));
    w
}

fn orders(w: &World) -> Vec<Order> {
    let order = |o: &Output| if let Output::Respond(order) = o { Some(order.clone()) } else { None };
    w.outputs.iter().filter_map(order).collect()
}

fn responses(w: &World) -> Vec<ResponseLine> {
    let line = |l: &Line| if let Line::Response(r) = l { Some((**r).clone()) } else { None };
    w.lines().filter_map(line).collect()
}

/// The agent does all that was ordered since, as told.
fn perform(w: &mut World, from: usize, verdict: Verdict) {
    for order in orders(w).split_off(from) {
        let outcome = Outcome { id: order.id, verdict, result: "so it is".into(), ..Outcome::default() };
        w.fact(&Fact::Responded(outcome));
    }
}

fn story() -> World {
    let mut w = server(Mode::Enforce);
    w.open(ROOT, "x/secret");
    perform(&mut w, 0, Verdict::Done);
    // What belongs to a finding that is open is told once a second.
    for step in 1..=2 {
        w.wait(3000);
        w.open(ROOT, "y/secret");
        w.wait(1100);
        perform(&mut w, step, Verdict::Done);
    }
    w.exit(ROOT);
    w.wait(100);
    let up_to_ns = w.now;
    w.fact(&Fact::Drained { up_to_ns });
    w.wait(100);
    // The client starts it again, three times.
    for _ in 0..3 {
        w.begin();
        w.fact(&Fact::Identity(identity()));
        // That of the tree that ended before, and this one's freeze.
        let from = orders(&w).len() - 2;
        perform(&mut w, from, Verdict::Done);
        w.exit(ROOT);
        w.wait(100);
        let up_to_ns = w.now;
        w.fact(&Fact::Drained { up_to_ns });
        w.wait(2000);
    }
    w
}

#[test]
fn a_ladder_to_its_top_and_the_quarantine_after_it() {
    let w = story();
    let all = responses(&w);
    let finding = w
        .lines()
        .find_map(|l| {
            if let Line::Finding(f) = l { (f.kind == Kind::RuleHit).then(|| f.id.clone()) } else { None }
        })
        .expect("a finding");
    let wanted = [Action::Throttle, Action::Freeze, Action::KillServer, Action::Release, Action::Freeze];
    let got: Vec<Action> = all.iter().map(|r| r.action).take(wanted.len()).collect();
    assert_eq!(got, wanted);
    let first = &all[0];
    assert!(
        matches!(&first.cause, Cause::Finding { finding: f, rule: Some(rule), .. }
            if *f == finding && rule == "no-secrets"),
        "{:?}",
        first.cause
    );
    assert_eq!((first.verdict, first.dry_run, &*first.server.name), (Verdict::Done, false, "srv"));
    assert!(first.until.is_some_and(|u| u.boot_ns - first.time.boot_ns == 600_000_000_000));
    assert!(first.undo.as_deref().is_some_and(|u| u.contains("respond release")));
    assert!(all[2].undo.as_deref().is_some_and(|u| u.contains("srv")), "{:?}", all[2].undo);
    assert_eq!(all[3].cause, Cause::Ended);
    let starts: Vec<u32> = all
        .iter()
        .filter_map(|r| {
            if let Cause::Quarantine { starts, response, before } = &r.cause {
                assert_eq!(*response, all[2].id);
                assert!(before.contains("ms since its exec"), "{before}");
                Some(*starts)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(starts, [1, 2, 3]);
    let loops: Vec<_> = w
        .lines()
        .filter_map(
            |l| if let Line::Finding(f) = l { (f.kind == Kind::RespawnLoop).then_some(f) } else { None },
        )
        .collect();
    assert!(loops.iter().all(|f| f.id == loops[0].id && f.sentence.contains('3')), "{loops:?}");
    assert_eq!(loops.len(), 1);
}

#[test]
fn the_same_story_gives_the_same_bytes() {
    let text = |w: &World| format!("{:?}", w.outputs);
    assert_eq!(text(&story()), text(&story()));
}

#[test]
fn other_modes_only_tell() {
    for mode in [Mode::Learn, Mode::Watch] {
        let mut w = server(mode);
        w.open(ROOT, "x/secret");
        let all = orders(&w);
        assert!(all.len() == 1 && all[0].dry_run && all[0].action == Action::Throttle, "{all:?}");
        perform(&mut w, 0, Verdict::Would);
        let line = &responses(&w)[0];
        assert!(line.dry_run && line.undo.is_none() && line.until.is_none());
    }
}

#[test]
fn severities_have_defaults() {
    let mut w = server(Mode::Enforce);
    let text = RULES.replace("    response: [throttle, freeze, kill]\n", "");
    let files = vec![RuleText { name: "r.yaml".into(), text, shipped: false }];
    command(&mut w, Command::Rules { files }).expect("good");
    w.open(ROOT, "x/secret");
    assert_eq!(orders(&w), [], "by default it is only told");
    let by_severity = [(Severity::Medium, vec![Response::Freeze])].into();
    let responses = Settings { by_severity, ..Settings::default() };
    let config = Config { responses, ..Config::default() };
    command(&mut w, Command::Configure { config }).expect("good");
    w.open(ROOT, "y/secret");
    w.wait(1100);
    assert_eq!(
        orders(&w).iter().map(|o| (o.action, o.dry_run)).collect::<Vec<_>>(),
        [(Action::Freeze, false)]
    );
}

#[test]
fn people_are_answered_by_what_came_of_it() {
    let mut w = server(Mode::Watch);
    let wish = |action, server: &str| Command::Respond {
        server: server.into(),
        action,
        for_ns: Some(5_000_000_000),
        dry_run: false,
        by: "uid 0".into(),
    };
    let id = format!("{TREE:x}");
    assert_eq!(command(&mut w, wish(Action::Freeze, &id)), Ok(String::new()), "it is not done yet");
    let from = w.outputs.len();
    perform(&mut w, 0, Verdict::Done);
    assert!(matches!(w.outputs.last(), Some(Output::Answer(Ok(text))) if text.starts_with("so it is")));
    assert!(matches!(&w.outputs[from], Output::Line(l) if matches!(**l, Line::Response(_))));
    let held: Vec<_> = w.engine.planner().in_force().map(|(s, a)| (s.tree, a.collect::<Vec<_>>())).collect();
    assert_eq!(held, [(TREE, vec![Action::Freeze])]);
    // Its time is up.
    w.wait(5010);
    let last = orders(&w).pop().expect("an order");
    assert_eq!((last.action, last.only), (Action::Release, Some(Action::Freeze)));
    perform(&mut w, 1, Verdict::Done);
    assert_eq!(w.engine.planner().in_force().count(), 0);
    // What cannot be.
    assert!(command(&mut w, wish(Action::Freeze, "beef")).is_err());
    assert!(command(&mut w, wish(Action::Release, "nobody")).is_err());
    w.fact(&Fact::Disarmed { disarmed: true });
    assert!(command(&mut w, wish(Action::Freeze, &id)).is_err_and(|e| e.contains("disarmed")));
}

#[test]
fn a_stop_of_the_agent_releases() {
    let mut w = server(Mode::Enforce);
    w.open(ROOT, "x/secret");
    perform(&mut w, 0, Verdict::Done);
    w.fact(&Fact::Stop);
    perform(&mut w, 1, Verdict::Done);
    let last = responses(&w).pop().expect("a response");
    assert_eq!((last.action, last.cause), (Action::Release, Cause::Stopped));
}

#[test]
fn clients_are_never_touched_but_servers_that_start_servers_are() {
    const INNER: u64 = 0x99;
    let mut w = server(Mode::Watch);
    // A process of the server starts a server of its own: it is that one's client.
    w.fork(ROOT, 200);
    let header = w.header(abi::kind::EXEC, 200, INNER);
    let path = "inner/bin/";
    let exec = abi::Exec {
        header,
        flags: exec_flag::NEW_TREE,
        parent: ROOT,
        stdin: STDIN + 10,
        stdout: STDOUT + 10,
        path_len: path.len() as u32,
        argv_len: 4,
        login_uid: u32::MAX,
        ..abi::Exec::default()
    };
    w.feed(&[zerocopy::IntoBytes::as_bytes(&exec), path.as_bytes(), b"srv\0"].concat());
    let line = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"tools/list"}}{}"#, "\n");
    let header = w.header(abi::kind::CHUNK, 200, INNER);
    let chunk = abi::Chunk {
        header,
        channel: STDIN + 10,
        side: abi::side::REQUEST,
        len: line.len() as u32,
        ..abi::Chunk::default()
    };
    w.feed(&[zerocopy::IntoBytes::as_bytes(&chunk), line.as_bytes()].concat());
    let of = |w: &World, tree| w.engine.clients_beside(tree).collect::<Vec<u32>>();
    // 1 started the outer one; who started the inner one is part of the outer.
    assert_eq!(of(&w, TREE), [1]);
    assert_eq!(of(&w, INNER), [1, ROOT]);
}
