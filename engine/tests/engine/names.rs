//! Who asks for a name connects to it: one cause, one finding.

use abi::{Net, Packet, kind, net_op, packet};
use engine::{
    finding::{Finding, Kind, Severity},
    input::Fact,
    judge::{Command, RuleText},
    rules::packs,
};
use zerocopy::IntoBytes as _;

use crate::{
    common::{ROOT, TREE, World},
    learning::Host,
};

const ADDRESS: [u8; 4] = [203, 0, 113, 9];

fn dns(w: &mut World, what: u32, name: &str) {
    let mut bytes = vec![0, 7, if what == packet::DNS_QUERY { 1 } else { 0x81 }, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    if what == packet::DNS_ANSWER {
        bytes[7] = 1;
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        bytes.extend(ADDRESS);
    }
    let header = w.header(kind::PACKET, ROOT, TREE);
    let len = bytes.len() as u32;
    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&[127, 0, 0, 53]);
    let p =
        Packet { header, cookie: 9, addr, what, family: 2, port: 53, local_port: 4000, protocol: 17, len };
    w.feed(&[p.as_bytes(), &bytes].concat());
}

fn connect(w: &mut World) {
    let header = w.header(kind::NET, ROOT, TREE);
    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&ADDRESS);
    let net = Net { header, cookie: 11, addr, op: net_op::CONNECT, family: 2, protocol: 6, port: 443 };
    w.feed(net.as_bytes());
}

fn call(w: &mut World, act: impl FnOnce(&mut World)) {
    let id = w.next_call();
    w.call(id, "read_file");
    act(w);
    w.reply(id);
    w.wait(30);
}

fn look_up(w: &mut World) {
    dns(w, packet::DNS_QUERY, "evil.example");
    dns(w, packet::DNS_ANSWER, "evil.example");
}

fn last<'a>(host: &'a Host, kinds: &[Kind]) -> Vec<&'a Finding> {
    let mut found: Vec<&Finding> = Vec::new();
    for f in host.findings().into_iter().filter(|f| kinds.contains(&f.kind)) {
        found.retain(|known| known.id != f.id);
        found.push(f);
    }
    found
}

#[test]
fn to_connect_to_a_new_name_is_the_same_finding() {
    const KINDS: [Kind; 2] = [Kind::NewName, Kind::NewDestination];
    let mut host = Host::new(0.2);
    let files = packs().into_iter().map(|s| RuleText { name: s.name, text: s.text, shipped: true });
    host.world.fact(&Fact::Command(Command::Rules { files: files.collect() }));
    host.train(40);
    host.session("1", |w, _| {
        call(w, |w| {
            look_up(w);
            connect(w);
        });
    });
    let found = last(&host, &KINDS);
    assert_eq!(found.iter().map(|f| (f.kind, f.count)).collect::<Vec<_>>(), [(Kind::NewName, 2)]);
    let acts = &found[0].evidence.effects;
    assert_eq!(acts.len(), 2, "the connect is evidence: {acts:#?}");

    // What is worse together is worse still, however the second part is counted.
    host.session("1", |w, _| {
        call(w, look_up);
        call(w, |w| {
            w.open(ROOT, "id_rsa/.ssh/dev/home");
            connect(w);
        });
    });
    let found = last(&host, &KINDS);
    let worst = found.iter().map(|f| f.severity).max();
    assert_eq!(worst, Some(Severity::Critical), "{found:#?}");

    // An address that no name led to is a finding of its own.
    host.session("1", |w, _| call(w, connect));
    assert!(last(&host, &KINDS).iter().any(|f| f.kind == Kind::NewDestination));
}

#[test]
fn a_new_name_that_is_contacted_without_a_call_too_is_one_finding_that_says_so() {
    let mut host = Host::new(0.2);
    let files = packs().into_iter().map(|s| RuleText { name: s.name, text: s.text, shipped: true });
    host.world.fact(&Fact::Command(Command::Rules { files: files.collect() }));
    host.train(40);
    host.session("1", |w, _| {
        call(w, look_up);
        w.wait(30_000);
        connect(w);
        w.wait(1100);
    });
    let found = last(&host, &[Kind::NewName, Kind::AmbientNetwork]);
    assert_eq!(found.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::NewName], "{found:#?}");
    let sentence = &found[0].sentence;
    assert!(sentence.ends_with("It was contacted while no call was running, too."), "{sentence}");

    // An address that no name led to is told for itself.
    host.session("1", |w, _| {
        w.wait(30_000);
        connect(w);
        w.wait(1100);
    });
    assert!(last(&host, &[Kind::AmbientNetwork]).len() == 1);
}
