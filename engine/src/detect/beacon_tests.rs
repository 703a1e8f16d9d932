use super::{
    super::{
        Detectors,
        testing::{MINUTE, S, ambient, connect, flow, hits, in_call, line, more, net, open, outlived},
    },
    *,
};

const C2: &str = "198.51.100.7";

/// Jitter in -1..1, the same in every run.
fn jitter(n: u64) -> f64 {
    // splitmix64
    let x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ x >> 31) >> 40) as f64 / f64::from(1 << 23) - 1.0
}

fn every(seconds: f64, share: f64, n: u64) -> impl Iterator<Item = u64> {
    let mut at = 100.0;
    (0..n).map(move |i| {
        at += seconds * (1.0 + share * jitter(i));
        (at * S as f64) as u64
    })
}

fn kinds(hits: &[Hit]) -> Vec<(Kind, Severity)> {
    hits.iter().map(|h| (h.kind, h.severity.unwrap_or(h.kind.severity()))).collect()
}

fn beacons(hits: &[Hit]) -> usize {
    hits.iter().filter(|h| h.kind == Kind::Beacon).count()
}

#[test]
fn five_regular_contacts_are_a_beacon_told_once() {
    let told =
        hits(&mut Detectors::default(), every(60.0, 0.02, 5).map(|at| line(at, ambient(), connect(C2, 443))));
    assert_eq!(kinds(&told), [(Kind::AmbientNetwork, Severity::Medium), (Kind::Beacon, Severity::High)]);
    let told = hits(
        &mut Detectors::default(),
        every(60.0, 0.02, 500).map(|at| line(at, ambient(), connect(C2, 443))),
    );
    assert_eq!(told.len(), 2);
    assert_eq!(told[1].object, "198.51.100.7:443");
}

#[test]
fn jitter_of_two_fifths_only_takes_more_contacts() {
    let told =
        hits(&mut Detectors::default(), every(30.0, 0.4, 16).map(|at| line(at, ambient(), connect(C2, 443))));
    assert_eq!(beacons(&told), 1);
}

#[test]
fn random_contacts_are_no_beacon() {
    // Exponential intervals, many destinations: the share of false ones is what the header says.
    let mut false_ones = 0;
    for peer in 0..200u64 {
        let mut at = 0.0;
        let lines = (0..40).map(|i| {
            let u = (jitter(peer * 1000 + i) + 1.0) / 2.0;
            at += -60.0 * (1.0 - u * 0.9999).ln();
            line((at * S as f64) as u64, ambient(), connect(C2, 443))
        });
        false_ones += beacons(&hits(&mut Detectors::default(), lines));
    }
    assert!(false_ones <= 2, "{false_ones} of 200");
}

#[test]
fn contacts_inside_calls_are_silent() {
    let mut d = Detectors::default();
    let lines =
        every(30.0, 0.1, 100).enumerate().map(|(n, at)| line(at, in_call(n as u64 + 1), connect(C2, 443)));
    assert_eq!(hits(&mut d, lines), []);
    // Known from calls: low.
    let told = hits(&mut d, [line(4000 * S, ambient(), connect(C2, 443))]);
    assert_eq!(kinds(&told), [(Kind::AmbientNetwork, Severity::Low)]);
}

#[test]
fn keep_alive_traffic_makes_no_contacts() {
    let lines = every(30.0, 0.1, 100).map(|at| line(at, ambient(), flow(C2, 443, "tcp", 40)));
    assert_eq!(hits(&mut Detectors::default(), lines), []);
}

#[test]
fn a_beacon_goes_on_while_calls_run() {
    // Every third beat falls into a call, and is charged to it.
    let lines = every(20.0, 0.03, 16).enumerate().map(|(n, at)| {
        let scope = if n % 3 == 2 { in_call(n as u64) } else { ambient() };
        line(at, scope, connect(C2, 443))
    });
    assert_eq!(beacons(&hits(&mut Detectors::default(), lines)), 1);
    // The same, where the beats in calls are not seen at all.
    let lines = every(20.0, 0.03, 24).enumerate().map(|(n, at)| {
        if n % 3 == 2 {
            line(at, in_call(n as u64), open("/tmp/x", false, false))
        } else {
            line(at, ambient(), connect(C2, 443))
        }
    });
    assert_eq!(beacons(&hits(&mut Detectors::default(), lines)), 1);
}

/// Connects at these times as the kernel tells them: one line in five seconds, the others counted.
fn counted(times: impl Iterator<Item = u64>) -> Vec<EffectLine> {
    let mut lines: Vec<EffectLine> = Vec::new();
    let mut first: Option<(EffectLine, u64)> = None;
    for at in times {
        match &mut first {
            Some((l, n)) if at / (5 * S) == l.time.boot_ns / (5 * S) => *n += 1,
            _ => {
                if let Some((l, n)) = first.take().filter(|(_, n)| *n > 0) {
                    lines.push(more(&l, n));
                }
                let l = line(at, ambient(), connect(C2, 443));
                lines.push(l.clone());
                first = Some((l, 0));
            }
        }
    }
    lines
}

#[test]
fn a_fast_beacon_is_seen_through_the_counts() {
    for seconds in [1.2, 3.0, 4.0] {
        let told = hits(&mut Detectors::default(), counted(every(seconds, 0.02, 100)));
        assert_eq!(beacons(&told), 1, "{seconds} s");
    }
}

#[test]
fn a_storm_is_no_beacon() {
    let told = hits(&mut Detectors::default(), counted(every(0.1, 0.5, 1000)));
    assert_eq!(beacons(&told), 0);
    let burst = (0..500).map(|n| line(S + n * S / 50, ambient(), connect(C2, 443)));
    assert_eq!(beacons(&hits(&mut Detectors::default(), burst)), 0);
}

#[test]
fn counting_makes_nothing_regular() {
    // What the kernel counts in stretches of five seconds must not look like a rhythm of five seconds.
    let mut false_ones = 0;
    for (run, mean) in
        [0.2, 0.5, 1.0, 1.5, 2.5, 4.0, 6.0, 9.0, 14.0, 25.0].into_iter().cycle().take(100).enumerate()
    {
        let mut at = 0.0;
        let times = (0..300).map(|i| {
            let u = (jitter(run as u64 * 1000 + i) + 1.0) / 2.0;
            at += -mean * (1.0 - u * 0.9999).ln();
            (at * S as f64) as u64
        });
        let told = hits(&mut Detectors::default(), counted(times));
        false_ones += beacons(&told);
    }
    assert!(false_ones <= 2, "{false_ones} of 100");
}

#[test]
fn resolvers_and_sorting_of_addresses_are_no_contacts() {
    let mut d = Detectors::default();
    let told = hits(
        &mut d,
        every(60.0, 0.0, 20).map(|at| line(at, ambient(), net(NetOp::Sendmsg, "9.9.9.9", 53, "udp", None))),
    );
    assert_eq!(told, [], "resolvers are not known");
    let told = hits(
        &mut d,
        every(60.0, 0.0, 20).map(|at| line(at, ambient(), net(NetOp::Connect, C2, 443, "udp", None))),
    );
    assert_eq!(told, [], "nothing is sent");
    d.set_resolvers(&["9.9.9.9".parse().expect("an address")]);
    let told = hits(
        &mut d,
        every(60.0, 0.0, 20).map(|at| line(at, ambient(), net(NetOp::Sendmsg, "9.9.9.9", 53, "udp", None))),
    );
    assert_eq!(told, []);
    let told = hits(
        &mut d,
        every(60.0, 0.0, 20).map(|at| line(at, ambient(), net(NetOp::Sendmsg, C2, 53, "udp", None))),
    );
    assert_eq!(told.len(), 2, "not a resolver of the host");
}

#[test]
fn payload_after_a_udp_connect_is_a_contact() {
    let lines = every(MINUTE as f64 / S as f64, 0.0, 6).flat_map(|at| {
        [
            line(at, ambient(), net(NetOp::Connect, C2, 443, "udp", Some("c2.test"))),
            line(at + 1000, ambient(), flow(C2, 443, "udp", 1200)),
        ]
    });
    let told = hits(&mut Detectors::default(), lines);
    assert_eq!(kinds(&told), [(Kind::AmbientNetwork, Severity::Medium), (Kind::Beacon, Severity::High)]);
    assert_eq!(told[0].object, "c2.test:443");
}

#[test]
fn loopback_is_low() {
    let told = hits(&mut Detectors::default(), [line(S, ambient(), connect("::1", 5432))]);
    assert_eq!(kinds(&told), [(Kind::AmbientNetwork, Severity::Low)]);
    assert_eq!(told[0].object, "[::1]:5432");
}

#[test]
fn what_outlived_its_call_may_be_a_beacon() {
    let told =
        hits(&mut Detectors::default(), every(60.0, 0.05, 6).map(|at| outlived(at, 1, connect(C2, 443))));
    assert_eq!(kinds(&told), [(Kind::Outlived, Severity::High), (Kind::Beacon, Severity::High)]);
    // The server's own late work is its call's.
    let late = |at| EffectLine { outlived: true, ..line(at, in_call(1), connect(C2, 443)) };
    assert_eq!(hits(&mut Detectors::default(), every(60.0, 0.05, 6).map(late)), []);
}
