//! All detectors together: what honest servers do is silent, and nothing that a server does breaks
//! them or makes them grow.

use proptest::prelude::*;

use super::{
    Detectors, Escalation, Hit,
    testing::{
        S, ambient, answer, born_in, call, connect, exec, flow, hello, hits, in_call, line, lost, more, net,
        open, outlived, query, server, unix,
    },
};
use crate::output::{Effect, EffectLine, NetOp, ServerEvent, Startup};

/// A call as an ordinary fetching tool makes it.
fn fetch(number: u64, at: u64) -> Vec<EffectLine> {
    let host = format!("api{}.test", number % 3);
    let address = format!("192.0.2.{}", number % 3 + 1);
    let to = |op, protocol| net(op, &address, 443, protocol, Some(&host));
    let first = line(at, in_call(number), to(NetOp::Connect, "tcp"));
    vec![
        line(at, in_call(number), net(NetOp::Sendmsg, "127.0.0.53", 53, "udp", None)),
        line(at, in_call(number), query(&host, "A")),
        line(at, in_call(number), query(&host, "AAAA")),
        line(at, in_call(number), answer(&host, &[&address])),
        line(at, in_call(number), answer(&host, &[])),
        line(at, in_call(number), to(NetOp::Connect, "udp")),
        first.clone(),
        line(at, in_call(number), hello(&host, &address)),
        line(at, in_call(number), flow(&address, 443, "tcp", 900)),
        line(at, born_in(number), exec("/usr/bin/git")),
        line(at, born_in(number), open("/home/u/project/a", false, false)),
        more(&first, 3),
        outlived(at + S / 100, number, open("/tmp/lock", true, true)),
        outlived(at + S / 100, number, Effect::Exit { code: Some(0), signal: None, cpu_ns: 1, peak_rss: 1 }),
        line(at + S, ambient(), flow(&address, 443, "tcp", 31)),
    ]
}

#[test]
fn a_day_of_ordinary_calls_is_silent() {
    let mut d = Detectors::default();
    d.set_resolvers(&["127.0.0.53".parse().expect("an address")]);
    let mut told = Vec::new();
    d.server(
        &server(ServerEvent::Found, Startup { partial: true, gap_ms: 40.0, ..Startup::default() }),
        &mut told,
    );
    for number in 1..=2880 {
        let at = number * 30 * S;
        told.extend(hits(&mut d, fetch(number, at)));
        d.call(&call(number, at, S / 200), &mut told);
        d.tick(at + S, &mut told);
    }
    assert_eq!(told, []);
    assert_eq!(d.dropped(), super::Dropped::default());
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9.-]{0,80}", "[a-f0-9]{1,60}\\.evil\\.test", "\\PC{0,20}", Just("x.test".to_owned())]
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|a| std::net::Ipv4Addr::from(a).to_string()),
        any::<[u16; 8]>().prop_map(|a| std::net::Ipv6Addr::from(a).to_string()),
        any::<u8>().prop_map(|n| format!("10.0.0.{n}")),
        Just("127.0.0.53".to_owned()),
        text(),
    ]
}

fn op() -> impl Strategy<Value = NetOp> {
    prop_oneof![Just(NetOp::Connect), Just(NetOp::Sendmsg), Just(NetOp::Listen)]
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        (text(), "[A-Z]{1,4}|TXT|NULL").prop_map(|(n, r)| query(&n, &r)),
        (text(), proptest::collection::vec(address(), 0..4))
            .prop_map(|(n, a)| answer(&n, &a.iter().map(String::as_str).collect::<Vec<_>>())),
        (text(), address()).prop_map(|(n, a)| hello(&n, &a)),
        (op(), address(), any::<u16>(), "tcp|udp|1", proptest::option::of(text()))
            .prop_map(|(op, a, p, proto, n)| net(op, &a, p, &proto, n.as_deref())),
        (address(), any::<u16>(), "tcp|udp", any::<u64>())
            .prop_map(|(a, p, proto, n)| flow(&a, p, &proto, n)),
        (text(), 0u32..3).prop_map(|(p, e)| unix(&p, e)),
        (text(), any::<bool>(), any::<bool>()).prop_map(|(p, w, c)| open(&p, w, c)),
        any::<u32>().prop_map(|child| Effect::Fork { child }),
        text().prop_map(|p| exec(&p)),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Effect { effect: Effect, at: u64, scope: u8, number: u64, count: u64, flags: u8 },
    Call { number: u64, at: u64, duration: u64, effects: u64 },
    Lost { at: u64, count: u64 },
    Server(u8, f64),
    Tick(u64),
}

fn instant() -> impl Strategy<Value = u64> {
    prop_oneof![0..1000 * S, any::<u64>()]
}

fn step() -> impl Strategy<Value = Step> {
    let number = || prop_oneof![0u64..4, any::<u64>()];
    prop_oneof![
        20 => (effect(), instant(), any::<u8>(), number(), prop_oneof![Just(1u64), any::<u64>()], any::<u8>())
            .prop_map(|(effect, at, scope, number, count, flags)| Step::Effect { effect, at, scope, number, count, flags }),
        2 => (number(), instant(), any::<u64>(), any::<u64>())
            .prop_map(|(number, at, duration, effects)| Step::Call { number, at, duration, effects }),
        1 => (instant(), any::<u64>()).prop_map(|(at, count)| Step::Lost { at, count }),
        1 => (any::<u8>(), any::<f64>()).prop_map(|(e, gap)| Step::Server(e, gap)),
        1 => instant().prop_map(Step::Tick),
    ]
}

fn run(steps: &[Step]) -> (Detectors, Vec<Hit>) {
    let mut d = Detectors::default();
    let mut hits = Vec::new();
    for step in steps {
        match step {
            Step::Effect { effect, at, scope, number, count, flags } => {
                let scope = match scope % 3 {
                    0 => ambient(),
                    1 => in_call(*number),
                    _ => born_in(*number),
                };
                let l = line(*at, scope, effect.clone());
                let l = EffectLine { count: *count, repeat: flags & 1 != 0, outlived: flags & 2 != 0, ..l };
                d.effect(&l, &mut hits);
            }
            Step::Call { number, at, duration, effects } => {
                let mut l = call(*number, *at, *duration);
                (l.effects, l.children, l.cpu_ns) = (*effects, *effects, *effects);
                d.call(&l, &mut hits);
            }
            Step::Lost { at, count } => d.lost(&lost(*at, "ring:open", *count), &mut hits),
            Step::Server(event, gap_ms) => {
                let event = match event % 3 {
                    0 => ServerEvent::Blind,
                    1 => ServerEvent::Forging,
                    _ => ServerEvent::Found,
                };
                d.server(
                    &server(
                        event,
                        Startup {
                            partial: event == ServerEvent::Blind,
                            gap_ms: *gap_ms,
                            ..Startup::default()
                        },
                    ),
                    &mut hits,
                );
            }
            Step::Tick(now) => d.tick(*now, &mut hits),
        }
        assert!(d.held() <= Detectors::MOST);
    }
    (d, hits)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn any_lines_are_survived_in_the_same_way(steps in proptest::collection::vec(step(), 0..120)) {
        let (_, first) = run(&steps);
        let (_, again) = run(&steps);
        prop_assert_eq!(first, again);
    }
}

#[test]
fn a_hostile_flood_is_bounded_and_counted() {
    let mut d = Detectors::default();
    let mut told = Vec::new();
    for n in 0..20_000u64 {
        let name = format!("{n:x}.a{}.test", n % 300);
        let address = std::net::Ipv4Addr::from(n as u32 * 7919).to_string();
        for effect in [
            query(&name, "A"),
            answer(&name, &[&address]),
            hello(&name, &address),
            net(NetOp::Connect, &address, (n % 9000) as u16 + 1, "tcp", None),
            net(NetOp::Connect, &address, 9, "udp", None),
        ] {
            d.effect(&line(n * S / 1000, in_call(n), effect), &mut told);
        }
        d.effect(&outlived(n * S, n, connect("192.0.2.1", 1)), &mut Vec::new());
    }
    assert!(d.held() <= Detectors::MOST);
    let dropped = d.dropped();
    for n in [dropped.dns_names, dropped.bindings, dropped.destinations, dropped.calls, dropped.scans] {
        assert!(n > 0, "{dropped:?} {}", d.held());
    }
}

#[test]
fn what_a_detector_finds_can_be_told_to_the_escalation() {
    let mut e = Escalation::default();
    let read = super::combine::Told {
        kind: crate::finding::Kind::ProtectedObject,
        server: "1f",
        call: None,
        at_ns: S,
        severity: crate::finding::Severity::High,
        object: "~/.aws/credentials",
    };
    assert_eq!(e.tell(&read), None);
    let told = hits(&mut Detectors::default(), [line(2 * S, ambient(), connect("198.51.100.7", 443))]);
    let hit = &told[0];
    let severity = hit.severity.unwrap_or(hit.kind.severity());
    let raised =
        e.tell(&super::combine::Told { kind: hit.kind, at_ns: 2 * S, severity, object: &hit.object, ..read });
    assert!(raised.is_some());
}

/// A child of it writes and removes a file 60 ms after the reply, and ends: within the grace.
#[test]
fn a_recorded_session_is_silent() {
    use crate::output::Line;
    let golden = include_str!("../../tests/engine/golden/example.ndjson");
    let (mut d, mut told) = (Detectors::default(), Vec::new());
    for text in golden.lines() {
        match serde_json::from_str(text).expect("a line") {
            Line::Effect(l) => d.effect(&l, &mut told),
            Line::Call(l) => d.call(&l, &mut told),
            Line::Server(l) => d.server(&l, &mut told),
            Line::Lost(l) => d.lost(&l, &mut told),
            Line::Coverage(_) | Line::Finding(_) | Line::Response(_) => {}
        }
    }
    assert_eq!(told, []);
}
