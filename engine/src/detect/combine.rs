//! Findings that are worse together: a secret was read, and there was a way out, in the same call, or
//! within the same minute where no call is certain. Then the one that makes the pair is critical.
//!
//! The order does not matter: a connection that is open already carries out what is read later. The
//! sentence says what came first, by the times of the acts, not of the telling.
//!
//! Secrets: `protected-object`, `metadata-service`. Ways out: `new-destination`, `new-name`,
//! `dns-tunnel`, `sni-unbound`, `beacon`, `volume`, `slow-exfiltration`, `deputy-socket`, `new-unix-peer`,
//! `private-range`, and `ambient-network` from medium on (the low ones are loopback and what calls use too).
//!
//! Memory: 512 calls or stretches of ambient time over all servers, eight secrets and eight ways out each,
//! the first four and the latest four.

use super::bounded::Lru;
use crate::finding::{Kind, Severity};

/// Where no call is certain, findings belong together that are no further apart than this: one beat of a
/// slow reader. Longer, and ambient telemetry would meet every read of a configuration file.
const MINUTE: u64 = 60_000_000_000;
/// Calls, or servers' ambient time, that are remembered.
const PLACES: usize = 512;
/// Secrets, and ways out, that are remembered of each.
const EACH: usize = 8;

/// A finding, as much of it as matters here.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// What.
    pub kind: Kind,
    /// [`crate::output::ServerRef::id`].
    pub server: &'a str,
    /// The call, if it is certain.
    pub call: Option<u64>,
    /// When the act happened.
    pub at_ns: u64,
    /// As found.
    pub severity: Severity,
    /// What it is about.
    pub object: &'a str,
}

/// A finding is worse because of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// As it is now.
    pub severity: Severity,
    /// For the sentence: "after it had read ~/.ssh/id_rsa in the same call".
    pub because: String,
    /// The other one: the caller may raise it as well.
    pub with: Partner,
}

/// The other finding of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    /// What.
    pub kind: Kind,
    /// What it is about.
    pub object: String,
    /// When.
    pub at_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Secret,
    Out,
}

fn role(kind: Kind, severity: Severity) -> Option<Role> {
    match kind {
        Kind::ProtectedObject | Kind::MetadataService => Some(Role::Secret),
        Kind::NewDestination
        | Kind::NewName
        | Kind::DnsTunnel
        | Kind::SniUnbound
        | Kind::Beacon
        | Kind::Volume
        | Kind::SlowExfiltration
        | Kind::DeputySocket
        | Kind::NewUnixPeer
        | Kind::PrivateRange => Some(Role::Out),
        Kind::AmbientNetwork if severity >= Severity::Medium => Some(Role::Out),
        _ => None,
    }
}

#[derive(Clone, Debug, Default)]
struct Place {
    secrets: Vec<Partner>,
    outs: Vec<Partner>,
}

/// What findings of all servers have in common.
#[derive(Clone, Debug, Default)]
pub struct Escalation {
    places: Lru<(String, Option<u64>), Place, PLACES>,
}

impl Escalation {
    /// A finding; says whether another one of the same call, or ambient minute, makes it worse.
    pub fn tell(&mut self, told: &Told<'_>) -> Option<Raised> {
        let role = role(told.kind, told.severity)?;
        let place = self.places.entry((told.server.to_owned(), told.call));
        let (own, others) = match role {
            Role::Secret => (&mut place.secrets, &place.outs),
            Role::Out => (&mut place.outs, &place.secrets),
        };
        if !own.iter().any(|p| p.kind == told.kind && p.object == told.object && p.at_ns == told.at_ns) {
            if own.len() == EACH {
                own.remove(EACH / 2);
            }
            own.push(Partner { kind: told.kind, object: told.object.to_owned(), at_ns: told.at_ns });
        }
        let near = |p: &&Partner| told.call.is_some() || p.at_ns.abs_diff(told.at_ns) <= MINUTE;
        // What came before explains it best; then what came next.
        let before = |p: &Partner| p.at_ns <= told.at_ns;
        let with = others
            .iter()
            .filter(near)
            .min_by_key(|p| (!before(p), p.at_ns.abs_diff(told.at_ns), p.kind))?
            .clone();
        let same = if told.call.is_some() { "in the same call" } else { "within the same minute" };
        let because = match (role, before(&with)) {
            (Role::Out, true) => format!("after it had {} {same}", act(&with)),
            (Role::Out, false) => format!("and it {} afterwards {same}", act(&with)),
            (Role::Secret, true) => format!("after it had {} {same}", act(&with)),
            (Role::Secret, false) => format!("and then it {} {same}", act(&with)),
        };
        Some(Raised { severity: Severity::Critical, because, with })
    }

    /// A server ended.
    pub fn forget(&mut self, server: &str) {
        self.places.retain(|(s, _), _| s != server);
    }

    /// Calls that made room: pairs may have been missed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.places.dropped
    }

    /// How many things are remembered.
    #[must_use]
    pub fn held(&self) -> usize {
        self.places.iter().map(|(_, p)| 1 + p.secrets.len() + p.outs.len()).sum()
    }
}

/// The other finding as a past act; the same word serves for "it had" and "it".
fn act(p: &Partner) -> String {
    let object = &p.object;
    match p.kind {
        Kind::ProtectedObject => format!("read {object}"),
        Kind::MetadataService => format!("contacted the metadata service {object}"),
        Kind::NewName => format!("asked for {object}"),
        Kind::DnsTunnel => format!("put data into questions for {object}"),
        Kind::SniUnbound => format!("connected to {object} under a name that nothing binds"),
        Kind::Volume | Kind::SlowExfiltration => format!("sent far more than usual ({object})"),
        Kind::DeputySocket | Kind::NewUnixPeer => format!("used the socket {object}"),
        _ => format!("contacted {object}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn secret(call: Option<u64>, at_s: u64) -> Told<'static> {
        let (kind, object) = (Kind::ProtectedObject, "~/.ssh/id_rsa");
        Told { kind, server: "a", call, at_ns: at_s * S, severity: Severity::High, object }
    }

    fn out(kind: Kind, call: Option<u64>, at_s: u64) -> Told<'static> {
        Told { kind, object: "evil.test:443", severity: kind.severity(), ..secret(call, at_s) }
    }

    #[test]
    fn a_secret_and_a_way_out_in_one_call_are_critical_in_any_order() {
        for kind in [Kind::NewDestination, Kind::DnsTunnel, Kind::DeputySocket, Kind::SniUnbound] {
            // Acts in both orders, each told in both orders.
            for (secret_s, out_s) in [(1, 2), (2, 1)] {
                for secret_first in [true, false] {
                    let mut e = Escalation::default();
                    let pair = [secret(Some(7), secret_s), out(kind, Some(7), out_s)];
                    let [a, b] = if secret_first { pair } else { [pair[1], pair[0]] };
                    assert_eq!(e.tell(&a), None);
                    let raised = e.tell(&b).expect("raised");
                    assert_eq!((raised.severity, raised.with.kind), (Severity::Critical, a.kind));
                }
            }
        }
    }

    #[test]
    fn the_sentence_follows_the_times() {
        let mut e = Escalation::default();
        e.tell(&secret(Some(7), 1));
        let raised = e.tell(&out(Kind::NewDestination, Some(7), 2)).expect("raised");
        assert_eq!(raised.because, "after it had read ~/.ssh/id_rsa in the same call");
        let mut e = Escalation::default();
        e.tell(&out(Kind::NewDestination, Some(7), 2));
        let raised = e.tell(&secret(Some(7), 1)).expect("raised");
        assert_eq!(raised.because, "and then it contacted evil.test:443 in the same call");
    }

    #[test]
    fn other_calls_and_servers_are_other_matters() {
        let mut e = Escalation::default();
        e.tell(&secret(Some(7), 1));
        assert_eq!(e.tell(&out(Kind::NewDestination, Some(8), 2)), None);
        assert_eq!(e.tell(&out(Kind::NewDestination, None, 2)), None);
        assert_eq!(e.tell(&Told { server: "b", ..out(Kind::NewDestination, Some(7), 2) }), None);
        assert_eq!(e.tell(&out(Kind::Exhaustion, Some(7), 2)), None);
    }

    #[test]
    fn ambient_findings_belong_together_for_a_minute() {
        let mut e = Escalation::default();
        e.tell(&secret(None, 100));
        let raised = e.tell(&out(Kind::Beacon, None, 150)).expect("raised");
        assert_eq!(raised.because, "after it had read ~/.ssh/id_rsa within the same minute");
        assert_eq!(e.tell(&out(Kind::Beacon, None, 300)), None);
        let loopback = Told { severity: Severity::Low, ..out(Kind::AmbientNetwork, None, 101) };
        assert_eq!(e.tell(&loopback), None);
        assert!(e.tell(&out(Kind::AmbientNetwork, None, 101)).is_some());
    }

    #[test]
    fn memory_is_bounded_and_ended_servers_are_forgotten() {
        let mut e = Escalation::default();
        for n in 0..5000 {
            for at in 0..20 {
                e.tell(&secret(Some(n), at));
            }
        }
        assert!(e.held() <= PLACES * (1 + 2 * EACH) && e.dropped() > 0);
        e.forget("a");
        assert_eq!(e.held(), 0);
    }
}
