//! Ports and addresses tried one by one (ATT&CK T1046), by a server, within a minute.
//!
//! | threshold | default | why |
//! |---|---|---|
//! | `ports` | 30 | ports of one address: nobody serves so many to one client |
//! | `addresses` | 50 | addresses on one port: crawlers and browsers reach so many, but by *name*. So addresses of the internet count only when no DNS answer of the server named them; where its answers cannot be seen, web ports do not count at all. Private addresses always count |
//!
//! A connect counts whether it succeeds or not; a UDP connect sends nothing and does not count. Kind
//! `private-range`, high, where the addresses are private ones (this host included: a port scan of it finds
//! what other users run), else `exhaustion`, high: the kinds have no other word. A tool whose business is
//! scanning needs a person's permit.
//!
//! Slower scans, and scans from many calls over an hour, are new destinations to the baselines.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{Hit, bounded::Lru, is_private};
use crate::finding::{Kind, Severity};

/// Thresholds of scans; reasons stand in the module's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the module's table says what they are")]
pub struct Scan {
    pub window_s: u64,
    pub ports: usize,
    pub addresses: usize,
}

impl Default for Scan {
    fn default() -> Self {
        Self { window_s: 60, ports: 30, addresses: 50 }
    }
}

/// Addresses whose ports, and ports whose addresses are counted.
const KEYS: usize = 64;
/// Members that are counted of each; thresholds above it are never reached.
const MEMBERS: usize = 256;

#[derive(Clone, Debug)]
struct Seen<T> {
    began_ns: u64,
    members: BTreeSet<T>,
    private: usize,
    told: bool,
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self { began_ns: 0, members: BTreeSet::new(), private: 0, told: false }
    }
}

impl<T: Ord> Seen<T> {
    /// Adds a member; true when there are now more than `most`, for the first time in this window.
    fn add(&mut self, at_ns: u64, window_s: u64, member: T, private: bool, most: usize) -> bool {
        let window_ns = window_s.saturating_mul(1_000_000_000);
        if self.members.is_empty() || at_ns.saturating_sub(self.began_ns) > window_ns {
            *self = Self { began_ns: at_ns, ..Self::default() };
        }
        if self.members.len() < MEMBERS && self.members.insert(member) {
            self.private += usize::from(private);
        }
        let first = !self.told && self.members.len() > most;
        self.told |= first;
        first
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Scans {
    ports: Lru<IpAddr, Seen<u16>, KEYS>,
    addresses: Lru<u16, Seen<IpAddr>, KEYS>,
}

impl Scans {
    pub(super) const MOST: usize = 2 * KEYS * (MEMBERS + 1);

    pub(super) fn held(&self) -> usize {
        self.ports.iter().map(|(_, s)| 1 + s.members.len()).sum::<usize>()
            + self.addresses.iter().map(|(_, s)| 1 + s.members.len()).sum::<usize>()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.ports.dropped + self.addresses.dropped
    }

    /// `known`: a name led there, or might have.
    pub(super) fn contact(
        &mut self,
        t: &Scan,
        at_ns: u64,
        (address, port): (IpAddr, u16),
        known: bool,
        hits: &mut Vec<Hit>,
    ) {
        if port == 0 {
            return;
        }
        let private = is_private(address);
        let mut tell = |private: bool, object: String, why: String| {
            let kind = if private { Kind::PrivateRange } else { Kind::Exhaustion };
            hits.push(Hit { kind, severity: Some(Severity::High), object, why });
        };
        if self.ports.entry(address).add(at_ns, t.window_s, port, private, t.ports) {
            let why = format!("tried more than {} ports of one address within {} s", t.ports, t.window_s);
            tell(private, format!("ports of {address}"), why);
        }
        if known && !private || address.is_loopback() {
            return;
        }
        let seen = self.addresses.entry(port);
        if seen.add(at_ns, t.window_s, address, private, t.addresses) {
            let why =
                format!("tried more than {} addresses on one port within {} s", t.addresses, t.window_s);
            let mostly = seen.private * 2 > seen.members.len();
            tell(mostly, format!("port {port} of many addresses"), why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Detectors,
            testing::{S, answer, connect, hits, in_call, line, net, query},
        },
        *,
    };
    use crate::output::NetOp;

    fn scans(hits: &[Hit]) -> Vec<(Kind, &str)> {
        hits.iter().map(|h| (h.kind, &*h.object)).collect()
    }

    #[test]
    fn ports_of_an_address() {
        let scan = |address: &'static str| (1..100u16).map(move |p| line(S, in_call(1), connect(address, p)));
        let told = hits(&mut Detectors::default(), scan("10.0.0.5").filter(|l| l.id == S));
        assert_eq!(scans(&told), [(Kind::PrivateRange, "ports of 10.0.0.5")]);
        let told = hits(&mut Detectors::default(), scan("127.0.0.1"));
        assert_eq!(scans(&told), [(Kind::PrivateRange, "ports of 127.0.0.1")]);
        let told = hits(&mut Detectors::default(), scan("192.0.2.1"));
        assert_eq!(scans(&told), [(Kind::Exhaustion, "ports of 192.0.2.1")]);
    }

    #[test]
    fn addresses_on_a_port() {
        let sweep = |port, step_ns: u64| {
            let lines = (1..=120u64)
                .map(move |n| line(S + n * step_ns, in_call(1), connect(&format!("192.168.1.{n}"), port)));
            hits(&mut Detectors::default(), lines)
        };
        assert_eq!(scans(&sweep(22, S / 10)), [(Kind::PrivateRange, "port 22 of many addresses")]);
        assert_eq!(sweep(22, 2 * S), [], "slow");
    }

    #[test]
    fn a_browser_reaches_many_addresses_by_name() {
        let named = (1..=200u64).map(|n| {
            let name = format!("cdn{n}.test");
            line(S + n, in_call(1), net(NetOp::Connect, &format!("192.0.2.{n}"), 443, "tcp", Some(&name)))
        });
        assert_eq!(hits(&mut Detectors::default(), named), []);
        // Its resolver talks over a unix socket: nothing has a name.
        let nameless =
            || (1..=200u64).map(|n| line(2 * S + n, in_call(1), connect(&format!("192.0.2.{n}"), 443)));
        assert_eq!(hits(&mut Detectors::default(), nameless()), []);
        let mut d = Detectors::default();
        hits(
            &mut d,
            [
                line(S, in_call(1), query("a.test", "A")),
                line(S, in_call(1), answer("a.test", &["192.0.2.250"])),
            ],
        );
        assert_eq!(scans(&hits(&mut d, nameless())), [(Kind::Exhaustion, "port 443 of many addresses")]);
    }

    #[test]
    fn sorting_of_addresses_is_no_scan() {
        let sorted = (1..=200u64)
            .map(|n| line(S + n, in_call(1), net(NetOp::Connect, &format!("10.2.0.{n}"), 443, "udp", None)));
        assert_eq!(hits(&mut Detectors::default(), sorted), []);
    }
}
