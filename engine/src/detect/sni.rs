//! A TLS server name that no answer binds to this address (EVASIONS E35; ATT&CK T1090.004): a
//! connection that says one name and goes elsewhere, or an address that came by another way than DNS.
//!
//! A binding is (name asked, address answered): the server asked a resolver that the host is
//! configured with, and that resolver answered. Answers of others, and answers that nobody asked for,
//! do not bind. TTLs are not in the effect, and Node, Java and browsers keep connections and caches
//! far beyond them: bindings live as long as the server.
//!
//! It is *not judged*, and nothing is told, where the answers cannot be seen:
//! - before the first answer, or when the server began over a second before the hooks were attached:
//!   it may know names since then (`STARTUP_GAP_MS`; runtimes need longer to come to a lookup);
//! - after it reached nscd, systemd-resolved or D-Bus over a unix socket (a failed connect does not
//!   count: glibc always tries nscd). A hostile server can do that on purpose; it is then its unix
//!   peer that is new;
//! - ten minutes after records of packets were lost (`LOSS_NS`): an answer may be among them;
//! - a name whose UDP answer had no address, once TCP to port 53 was used: the answer was too large;
//! - loopback, and names without a dot when a searched domain completed them.
//!
//! Names of private addresses often stand in /etc/hosts: low. Names of public addresses in /etc/hosts
//! are the known false alarm. Memory: 1,024 names of 32 addresses; the one used longest ago makes room.

use std::net::IpAddr;

use super::{Hit, bounded::Lru};
use crate::{
    finding::{Kind, Severity},
    output::Startup,
};

/// Names with bindings that are kept.
const NAMES: usize = 1024;
/// Addresses that are kept for a name.
const ADDRESSES: usize = 32;
/// Addresses a name that were told, so that they are told once.
const TOLD: usize = 8;
/// A server that began this long before it was seen may know names already.
const STARTUP_GAP_MS: f64 = 1000.0;
/// After a loss nothing is judged for this long: answers are cached for minutes.
const LOSS_NS: u64 = 600_000_000_000;
/// Losses among which an answer may be.
const ANSWERS: &[&str] =
    &["ring:packet", "ring:other", "missed:", "full:sockets", "full:processes", "full:trees", "undecodable"];
/// Unix sockets of those who ask for others.
const DEPUTIES: &[&str] =
    &["nscd/socket", "/systemd/resolve/io.systemd.Resolve", "dbus/system_bus_socket", "/avahi-daemon/socket"];

#[derive(Clone, Debug, Default)]
struct Name {
    /// It was asked for at least once.
    sought: bool,
    /// Questions that are open.
    asked: u32,
    addresses: Vec<IpAddr>,
    told: Vec<IpAddr>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Bindings {
    names: Lru<Box<str>, Name, NAMES>,
    /// Addresses that made room.
    dropped: u64,
    answered: bool,
    late: bool,
    deputy: bool,
    raw: bool,
    tcp: bool,
    lost_ns: Option<u64>,
}

impl Bindings {
    pub(super) const MOST: usize = NAMES * (1 + ADDRESSES + TOLD);

    pub(super) fn held(&self) -> usize {
        self.names.iter().map(|(_, n)| 1 + n.addresses.len() + n.told.len()).sum()
    }

    pub(super) fn names_dropped(&self) -> u64 {
        self.names.dropped + self.dropped
    }

    pub(super) fn query(&mut self, name: &str) {
        let entry = self.names.entry(name.into());
        entry.sought = true;
        entry.asked = entry.asked.saturating_add(1);
    }

    pub(super) fn answer(&mut self, name: &str, addresses: &[String]) {
        let Some(entry) = self.names.get(name) else { return };
        if entry.asked == 0 {
            return;
        }
        entry.asked -= 1;
        self.answered = true;
        for address in addresses.iter().filter_map(|a| a.parse().ok()) {
            if entry.addresses.contains(&address) {
                continue;
            }
            if entry.addresses.len() >= ADDRESSES {
                entry.addresses.remove(0);
                self.dropped += 1;
            }
            entry.addresses.push(address);
        }
    }

    /// It can write packets of its own, and so answers to itself.
    pub(super) fn raw(&mut self) {
        self.raw = true;
    }

    /// Names that the host's resolvers answered, and their addresses; none if it may have answered itself.
    pub(super) fn known(&self) -> impl Iterator<Item = (&str, &[IpAddr])> {
        let believed = self.names.iter().filter(|_| !self.raw);
        believed.map(|(name, n)| (&**name, n.addresses.as_slice())).filter(|(_, all)| !all.is_empty())
    }

    pub(super) fn unix(&mut self, path: &str, error: u32) {
        self.deputy |= error == 0 && DEPUTIES.iter().any(|d| path.ends_with(d));
    }

    pub(super) fn tcp_resolver(&mut self) {
        self.tcp = true;
    }

    pub(super) fn startup(&mut self, startup: &Startup) {
        self.late |= startup.partial && startup.gap_ms > STARTUP_GAP_MS;
    }

    pub(super) fn lost(&mut self, at_ns: u64, cause: &str) {
        if ANSWERS.iter().any(|c| cause.starts_with(c)) {
            self.lost_ns = Some(at_ns);
        }
    }

    /// Why names cannot be judged, if so.
    pub(super) fn blind(&self, at_ns: u64) -> Option<&'static str> {
        if self.late {
            return Some("the server began before it was watched");
        }
        if self.deputy {
            return Some("another process resolves names for it");
        }
        if self.lost_ns.is_some_and(|lost| at_ns.saturating_sub(lost) < LOSS_NS) {
            return Some("records were lost, answers may be among them");
        }
        (!self.answered).then_some("no answer was seen yet")
    }

    pub(super) fn hello(&mut self, at_ns: u64, sni: &str, address: &str, hits: &mut Vec<Hit>) {
        if self.blind(at_ns).is_some() {
            return;
        }
        let Ok(address) = address.parse::<IpAddr>() else { return };
        let lower = sni.to_ascii_lowercase();
        let sni = lower.strip_suffix('.').unwrap_or(&lower);
        if address.is_loopback() || sni.parse::<IpAddr>().is_ok() {
            return;
        }
        let known = match self.names.get(sni) {
            Some(name) if name.addresses.contains(&address) => return,
            // The answer was cut, and came over TCP.
            Some(name) if name.sought && name.addresses.is_empty() && self.tcp => return,
            Some(name) => name.sought,
            None => false,
        };
        let searched = |full: &str| full.strip_prefix(sni).is_some_and(|rest| rest.starts_with('.'));
        if !sni.contains('.')
            && self.names.iter().any(|(full, n)| searched(full) && n.addresses.contains(&address))
        {
            return;
        }
        let name = self.names.entry(sni.into());
        if name.told.contains(&address) {
            return;
        }
        if name.told.len() >= TOLD {
            name.told.remove(0);
        }
        name.told.push(address);
        let why = if known {
            "said this name in a TLS handshake with an address that no answer gave for it"
        } else {
            "said this name in a TLS handshake, and never asked for it"
        };
        hits.push(Hit {
            kind: Kind::SniUnbound,
            severity: super::is_private(address).then_some(Severity::Low),
            object: format!("{sni} at {address}"),
            why: why.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Detectors,
            testing::{S, ambient, answer, connect, hello, hits, in_call, line, lost, query, server, unix},
        },
        *,
    };
    use crate::output::{Effect, ServerEvent};

    fn judged() -> Detectors {
        let mut d = Detectors::default();
        let told = hits(
            &mut d,
            [
                line(S, ambient(), query("api.test", "A")),
                line(S + 1, ambient(), answer("api.test", &["192.0.2.1", "192.0.2.2"])),
            ],
        );
        assert_eq!(told, []);
        d
    }

    fn say(d: &mut Detectors, at: u64, sni: &str, address: &str) -> Vec<Hit> {
        hits(d, [line(at, in_call(1), hello(sni, address))])
    }

    #[test]
    fn a_bound_name_is_silent_for_the_servers_life() {
        let mut d = judged();
        assert_eq!(say(&mut d, 2 * S, "api.test", "192.0.2.1"), []);
        assert_eq!(say(&mut d, 86_400 * S, "API.test.", "192.0.2.2"), []);
    }

    #[test]
    fn a_name_elsewhere_and_a_name_never_asked_for_are_told_once() {
        let mut d = judged();
        for sni in ["api.test", "other.test"] {
            let told = say(&mut d, 2 * S, sni, "198.51.100.7");
            assert_eq!((told.len(), told[0].kind, told[0].severity), (1, Kind::SniUnbound, None));
            assert_eq!(say(&mut d, 3 * S, sni, "198.51.100.7"), []);
        }
        assert_eq!(say(&mut d, 2 * S, "intern.test", "10.1.2.3")[0].severity, Some(Severity::Low));
        assert_eq!(say(&mut d, 2 * S, "localhost", "127.0.0.1"), []);
    }

    #[test]
    fn only_asked_answers_of_the_hosts_resolvers_bind() {
        let mut d = Detectors::default();
        d.set_resolvers(&["127.0.0.53".parse().expect("an address")]);
        let foreign = |effect| match effect {
            Effect::DnsQuery { name, record, port, .. } => {
                Effect::DnsQuery { name, record, port, resolver: "203.0.113.5".into() }
            }
            Effect::DnsAnswer { name, addresses, rcode, .. } => {
                Effect::DnsAnswer { name, addresses, rcode, resolver: "203.0.113.5".into() }
            }
            other => other,
        };
        let told = hits(
            &mut d,
            [
                line(S, ambient(), query("api.test", "A")),
                line(S, ambient(), answer("api.test", &["192.0.2.1"])),
                line(S, ambient(), answer("unasked.test", &["192.0.2.9"])),
                line(S, ambient(), answer("api.test", &["192.0.2.9"])),
                line(S, ambient(), foreign(query("evil.test", "A"))),
                line(S, ambient(), foreign(answer("evil.test", &["192.0.2.9"]))),
            ],
        );
        assert!(told.iter().all(|h| h.kind != Kind::SniUnbound));
        assert_eq!(say(&mut d, 2 * S, "api.test", "192.0.2.1"), []);
        for sni in ["api.test", "unasked.test", "evil.test"] {
            assert_eq!(say(&mut d, 2 * S, sni, "192.0.2.9").len(), 1, "{sni}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_not_judged() {
        let mut d = Detectors::default();
        assert_eq!(say(&mut d, S, "api.test", "192.0.2.9"), [], "no answer seen");
        let mut d = judged();
        hits(&mut d, [line(S, ambient(), unix("/run/systemd/resolve/io.systemd.Resolve", 0))]);
        assert_eq!(say(&mut d, 2 * S, "x.test", "192.0.2.9"), [], "resolved by another");
        let mut d = judged();
        hits(&mut d, [line(S, ambient(), unix("/var/run/nscd/socket", 2))]);
        assert_eq!(say(&mut d, 2 * S, "x.test", "192.0.2.9").len(), 1, "there is no nscd");
        let mut d = judged();
        d.server(
            &server(ServerEvent::Found, Startup { partial: true, gap_ms: 1e9, ..Startup::default() }),
            &mut Vec::new(),
        );
        assert_eq!(say(&mut d, 2 * S, "x.test", "192.0.2.9"), [], "began before the agent");
        let mut d = judged();
        d.lost(&lost(2 * S, "ring:open", 1), &mut Vec::new());
        assert_eq!(say(&mut d, 2 * S, "y.test", "192.0.2.9").len(), 1, "no answer is among opens");
        d.lost(&lost(2 * S, "ring:packet", 1), &mut Vec::new());
        assert_eq!(say(&mut d, 3 * S, "x.test", "192.0.2.9"), [], "records were lost");
        assert_eq!(say(&mut d, 700 * S, "x.test", "192.0.2.9").len(), 1);
    }

    #[test]
    fn large_answers_and_searched_domains_bind() {
        let mut d = judged();
        hits(
            &mut d,
            [
                line(S, ambient(), query("big.test", "A")),
                line(S, ambient(), answer("big.test", &[])),
                line(S, ambient(), connect("127.0.0.53", 53)),
                line(S, ambient(), query("wiki.corp.test", "A")),
                line(S, ambient(), answer("wiki.corp.test", &["192.0.2.80"])),
            ],
        );
        assert_eq!(say(&mut d, 2 * S, "big.test", "192.0.2.9"), []);
        assert_eq!(say(&mut d, 2 * S, "wiki", "192.0.2.80"), []);
        assert_eq!(say(&mut d, 2 * S, "wiki.corp", "192.0.2.80").len(), 1, "a dot: nothing is completed");
    }
}
