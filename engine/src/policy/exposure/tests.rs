use abi::policy::{CALL_NS, CEILING_NS, Jit};

use super::*;
use crate::policy::{NetRight, Ports, Tool};

const MS: u64 = 1_000_000;
const WHO: &str = "0/x@1";
const START: u64 = 1_000_000 * MS;

fn policy() -> Policy {
    let tool = |name: &str, bit| Tool { name: name.into(), bit, settle_ns: 20 * MS };
    let right = |port, mask| NetRight {
        address: [192, 0, 2, 1].into(),
        prefix: 32,
        ports: Ports { from: port, to: port, protocol: 6 },
        mask,
    };
    Policy {
        identity: WHO.into(),
        tools: vec![tool("a", 0), tool("b", 1)],
        connect: vec![
            right(1, 1),
            right(2, 3),
            right(3, scope::AMBIENT | 1),
            right(4, 0),
            right(5, scope::NOBODY),
        ],
        listen: vec![right(6, 2)],
        families: vec![Family::Network],
        ..Policy::default()
    }
}

fn near(is: f64, wanted: f64) {
    assert!((is - wanted).abs() < 1e-6, "{is}, not {wanted}");
}

/// What the kernel would keep, with a look every 5 ms.
struct Kernel {
    meter: Meter,
    jit: Jit,
    now: u64,
}

impl Kernel {
    fn new() -> Self {
        let mut meter = Meter::default();
        meter.load(&policy());
        let mut kernel = Self { meter, jit: Jit::default(), now: START };
        kernel.look();
        kernel
    }

    fn look(&mut self) {
        self.meter.look(7, WHO, &self.jit, self.now);
    }

    /// Looks until then.
    fn goes_on(&mut self, ms: u64) {
        let end = self.now + ms * MS;
        while self.now < end {
            self.now = end.min(self.now + 5 * MS);
            self.look();
        }
    }

    fn open(&mut self, bit: usize) {
        self.jit.opened[bit] = self.now;
        self.jit.count[bit] += 1;
        self.jit.calls += 1;
    }

    fn close(&mut self, bit: usize, took_ms: u64) {
        self.jit.until[bit] = self.now + 20 * MS;
        self.jit.count[bit] -= 1;
        self.jit.live_ns[bit] += (took_ms + 20) * MS;
    }

    fn call(&mut self, bit: usize, ms: u64) {
        self.open(bit);
        self.goes_on(ms);
        self.close(bit, ms);
        self.meter.called(7, ["a", "b"][bit]);
    }

    fn said(&self) -> Exposure {
        exposure(&policy(), &self.meter)
    }
}

#[test]
fn a_right_is_open_while_one_that_holds_it_is_live() {
    let mut k = Kernel::new();
    k.goes_on(100);
    // Between two looks.
    k.now += 2 * MS;
    k.call(0, 51);
    k.goes_on(200);
    k.call(1, 30);
    k.goes_on(617);
    let e = k.said();
    near(e.observed_s, 1.0);
    let [ambient, startup, a, b] = [0, 1, 2, 3].map(|n| &e.scopes[n]);
    near(ambient.open_s, 1.0);
    near(startup.open_s, 0.0);
    near(a.open_s, 0.071);
    near(b.open_s, 0.050);
    assert_eq!((a.calls, a.surface.rights, b.surface.rights), (Some(1), 2, 1));
    near(a.surface.right_s, 0.142);
    near(a.surface.share.unwrap_or(9.0), 0.071);
    near(a.calls_s.unwrap_or(9.0), 0.071);
    // One of a alone, one of a or b, and one that is always open; what nobody has is no right, nor what is not denied.
    assert_eq!((e.all.rights, e.opened.rights), (3, 2));
    near(e.opened.right_s, 0.071 + 0.121);
    near(e.all.right_s, 1.0 + 0.071 + 0.121);
    near(e.all.standing_right_s, 3.0);
}

#[test]
fn what_overlaps_is_open_once_and_short_calls_are_not_missed() {
    let mut k = Kernel::new();
    k.open(0);
    k.goes_on(30);
    k.open(0);
    k.goes_on(30);
    k.close(0, 60);
    k.goes_on(40);
    k.close(0, 70);
    k.goes_on(100);
    let e = k.said();
    near(e.scopes[2].open_s, 0.120);
    near(e.scopes[2].calls_s.unwrap_or(9.0), 0.170);
    // Two calls between two looks: nobody knows when the first one began, so all of it counts.
    k.now += MS;
    k.jit.opened[1] = k.now;
    k.jit.calls += 2;
    k.jit.until[1] = k.now + 21 * MS;
    k.now += 4 * MS;
    k.look();
    k.goes_on(95);
    near(k.said().scopes[3].open_s, 0.022);
}

#[test]
fn start_up_ends_and_the_ceiling_counts_for_all() {
    let mut k = Kernel::new();
    k.jit.startup_until = u64::MAX;
    k.meter = Meter::default();
    k.meter.load(&policy());
    k.look();
    k.goes_on(50);
    k.jit.startup_until = k.now + 20 * MS;
    k.goes_on(50);
    near(k.said().scopes[1].open_s, 0.070);
    k.jit.ceiling_until = k.now + CEILING_NS;
    k.jit.ceilings += 1;
    k.jit.unsure += 1;
    k.goes_on(10);
    k.jit.understood = 1;
    k.goes_on(90);
    let e = k.said();
    assert_eq!(e.not_understood, 1);
    assert!((0.010..=0.015).contains(&e.ceiling_s), "{}", e.ceiling_s);
    near(e.scopes[2].open_s, e.ceiling_s);
}

#[test]
fn a_child_keeps_rights_open_and_a_call_without_an_answer_expires() {
    let mut k = Kernel::new();
    k.open(1);
    k.meter.born(7, 99, 2);
    k.goes_on(30);
    k.close(1, 30);
    k.goes_on(70);
    assert_eq!(k.meter.children().collect::<Vec<_>>(), [99]);
    k.meter.ended(99);
    k.meter.ended(99);
    k.goes_on(100);
    let b = &k.said().scopes[3];
    near(b.open_s, 0.100);
    near(b.outlived_s, 0.050);
    near(b.calls_s.unwrap_or(9.0), 0.050);
    // It is open for five minutes, then the kernel shuts it, whatever the count says.
    k.open(0);
    k.now += CALL_NS + 60_000 * MS;
    k.look();
    k.meter.expired(7);
    let e = k.said();
    near(e.scopes[2].open_s, CALL_NS as f64 / 1e9);
    assert_eq!(e.expired, 1);
}

#[test]
fn another_bit_begins_a_new_count_and_who_is_let_go_is_counted_no_more() {
    let mut k = Kernel::new();
    k.call(0, 10);
    k.goes_on(100);
    assert_eq!(k.said().held, 1);
    k.meter.keep(|tree| tree != 7);
    assert_eq!((k.said().held, k.said().scopes[2].calls), (0, Some(1)));
    let mut more = policy();
    more.tools.push(Tool { name: "c".into(), bit: 2, settle_ns: 0 });
    k.meter.load(&more);
    assert!(k.said().observed_s > 0.1);
    more.tools[0].bit = 3;
    k.meter.load(&more);
    near(k.said().observed_s, 0.0);
    assert_eq!(k.said().all.share, None);
}
