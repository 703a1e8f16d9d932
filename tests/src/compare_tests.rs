//! A comparison that cannot fail proves nothing: each kind of fault is put in and must be found.

use std::{collections::HashMap, sync::Arc};

use engine::output::{
    Basis, CallRef, Candidate, Certainty, Effect, EffectLine, Scope, ScopeKind, Source, Time,
};
use serde_json::json;

use crate::{
    compare::{Observed, judge},
    truth::{Act, Truth},
};

fn scope(call: Option<u64>, certainty: Certainty, candidates: &[u64]) -> Scope {
    let reference = |id: u64| CallRef { number: id, request_id: json!(id) };
    Scope {
        kind: ScopeKind::Call,
        tool: Some("t".into()),
        call: call.map(reference),
        certainty,
        basis: Basis::Window,
        candidates: candidates
            .iter()
            .map(|&id| Candidate { kind: ScopeKind::Call, tool: Some("t".into()), call: Some(reference(id)) })
            .map(std::sync::Arc::new)
            .collect(),
    }
}

fn line(id: u64, at: u64, path: &str, count: u64, scope: Scope) -> EffectLine {
    let effect = Effect::Open {
        path: path.into(),
        truncated: false,
        source: Source::FdAtExit,
        read: true,
        write: false,
        create: false,
        truncate: false,
        directory: false,
        deleted: false,
    };
    EffectLine {
        time: Time { utc: 0, boot_ns: at },
        server: Arc::default(),
        context: Arc::default(),
        scope: Arc::new(scope),
        process: Arc::new(engine::output::Process { pid: 7, ..Default::default() }),
        effect: Arc::new(effect),
        id,
        count,
        repeat: false,
        outlived: false,
    }
}

fn truth(id: u64, at: u64, path: &str, times: u64) -> Truth {
    Truth {
        request_id: json!(id),
        tool: "t".into(),
        at_boot_ns: at,
        pid: 7,
        times,
        act: Act::open_read(path),
    }
}

fn verdict(truths: &[Truth], effects: Vec<EffectLine>) -> [u64; 6] {
    let observed = Observed { effects, calls: Vec::new() };
    let t = judge(truths, &observed, &HashMap::new()).total;
    [t.done, t.seen, t.right, t.among, t.missed, t.wrong]
}

#[test]
fn faults_are_found() {
    use Certainty::{Ambiguous, Certain, CertainTool};
    let one = [truth(1, 100, "/a", 1)];
    let with = |scope| vec![line(1, 101, "/a", 1, scope)];
    let table = [
        (with(scope(Some(1), Certain, &[])), [1, 1, 1, 0, 0, 0]),
        (with(scope(Some(2), Certain, &[])), [1, 1, 0, 0, 0, 1]),
        (with(scope(None, Certain, &[])), [1, 1, 0, 0, 0, 1]),
        (with(scope(None, Ambiguous, &[2, 1])), [1, 1, 0, 1, 0, 0]),
        (with(scope(None, Ambiguous, &[2, 3])), [1, 1, 0, 0, 1, 0]),
        (with(scope(None, CertainTool, &[1, 2])), [1, 1, 0, 1, 0, 0]),
        (with(scope(None, CertainTool, &[])), [1, 1, 0, 0, 1, 0]),
        (vec![line(1, 101, "/b", 1, scope(Some(1), Certain, &[]))], [1, 0, 0, 0, 0, 0]),
        (Vec::new(), [1, 0, 0, 0, 0, 0]),
    ];
    for (n, (effects, expected)) in table.into_iter().enumerate() {
        assert_eq!(verdict(&one, effects), expected, "row {n}");
    }
}

#[test]
fn repeats_must_add_up() {
    let right = || scope(Some(1), Certainty::Certain, &[]);
    let many = [truth(1, 100, "/a", 50)];
    let first = line(1, 101, "/a", 1, right());
    let mut rest = line(1, 102, "/a", 49, right());
    rest.repeat = true;
    assert_eq!(verdict(&many, vec![first.clone(), rest.clone()])[1], 1);
    rest.count = 48;
    assert_eq!(verdict(&many, vec![first, rest])[1], 0);
}

#[test]
fn one_line_is_not_two_acts() {
    let right = || scope(Some(1), Certainty::Certain, &[]);
    let two = [truth(1, 100, "/a", 1), truth(1, 200, "/a", 1)];
    assert_eq!(verdict(&two, vec![line(1, 101, "/a", 1, right())])[1], 1);
}

#[test]
fn an_act_that_was_counted_on_an_earlier_line_is_not_looked_for_after_its_reply() {
    let among = |ids| scope(None, Certainty::Ambiguous, ids);
    let truths = [truth(1, 100, "/a", 1), truth(2, 110, "/a", 1), truth(3, 300, "/a", 1)];
    let first = line(1, 105, "/a", 1, among(&[1, 2]));
    let again = EffectLine { repeat: true, ..line(1, 112, "/a", 1, among(&[1, 2])) };
    let third = line(2, 301, "/a", 1, among(&[3]));
    let observed = Observed { effects: vec![first, again, third], calls: Vec::new() };
    let replies = [(1, 120), (2, 130), (3, 310)].map(|(id, at): (u64, u64)| (id.to_string(), at));
    let t = judge(&truths, &observed, &HashMap::from(replies)).total;
    assert_eq!([t.seen, t.among, t.missed], [3, 3, 0]);
}

#[test]
fn flows_to_one_peer_may_be_told_together_only_when_their_calls_overlap() {
    let flow = |out| (("192.0.2.1", 53, "udp"), out);
    let act = |((address, port, protocol), out): ((&str, u16, &str), u64)| Act::Flow {
        address: address.into(),
        port,
        protocol: protocol.into(),
        bytes_out: out,
        bytes_in: 0,
    };
    let truths = [(1, 100, 30), (2, 200, 40)]
        .map(|(id, at, out)| Truth { act: act(flow(out)), ..truth(id, at, "", 1) });
    let told = |at, bytes_out| {
        let effect = Effect::Flow {
            address: "192.0.2.1".into(),
            port: 53,
            protocol: "udp".into(),
            bytes_out,
            bytes_in: 0,
        };
        EffectLine {
            effect: Arc::new(effect),
            ..line(at, at, "", 1, scope(None, Certainty::Ambiguous, &[1, 2]))
        }
    };
    // Five bytes of the first call come within the second one's time.
    let observed = Observed { effects: vec![told(110, 25), told(210, 45)], calls: Vec::new() };
    let seen = |first_reply| {
        let replies = HashMap::from([("1".to_owned(), first_reply), ("2".to_owned(), 300)]);
        judge(&truths, &observed, &replies).total.seen
    };
    assert_eq!(seen(150), 0, "the first had ended: what comes later is not its own");
    assert_eq!(seen(250), 2, "the two overlapped: only their sum is known");
}
