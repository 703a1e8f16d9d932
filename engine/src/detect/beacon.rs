//! Network use while no call runs: any of it, and the regular kind (ATT&CK T1071, T1029).
//!
//! A *contact* is a TCP connect, a UDP datagram to an address, or payload within a second of a UDP
//! connect. A UDP connect alone sends nothing: resolvers use it to sort addresses. Contacts of one
//! destination (name, else address, with port) less than a second after the one before are one: retries,
//! and IPv4 beside IPv6. Questions to a configured resolver (port 53; any address while the resolvers
//! are not known) are no contacts: they go before each contact anyway, at the rhythm of caches and not
//! of the server, and what is in them is the business of `dns`.
//!
//! `ambient-network`: once a destination; low, and medium when no call has used it before. Loopback is
//! always low.
//!
//! `beacon`: at least `contacts` ambient contacts, and regular intervals. Chance must not look regular:
//! for random (Poisson) contacts, four intervals have a coefficient of variation under 0.10 in 0.16 % of
//! cases, seven have one under 0.25 in 0.1 %, fifteen in less than one of a million. So few intervals must
//! be very regular (`few_variation`), from `many` on 0.25 will do, which admits a jitter of 40 %. For fifteen
//! intervals a median absolute deviation within a tenth of the median does as well: missed beats.
//! Processes that outlived their call count as ambient here: `outlived` tells of them, and not of a rhythm.
//! Two series are tried: all contacts (a beacon goes on while calls run), and ambient ones, where a long
//! interval in which a call ran says nothing.
//!
//! The kernel counts repeated connects under the first one of about five seconds (`DRAIN_NS`). So intervals
//! are divided by the counted repeats, and must be the more regular the more they were divided (a mean varies
//! less); undivided only those of ten seconds and more are believed.
//!
//! Keep-alive connections make no connects. A beacon over one connection that stays open is not found here.
//! Honest servers that poll are beacons: a person permits them.

use std::{collections::VecDeque, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{Hit, bounded::Lru};
use crate::{
    finding::{Kind, Severity},
    output::{Basis, Certainty, Effect, EffectLine, NetOp, ScopeKind},
};

/// Thresholds of beaconing; reasons stand in the module's header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the module's header says what they are")]
pub struct Beacon {
    pub contacts: usize,
    pub few_variation: f64,
    pub many: usize,
    pub variation: f64,
    pub shortest_interval_s: f64,
}

impl Default for Beacon {
    fn default() -> Self {
        Self { contacts: 5, few_variation: 0.10, many: 7, variation: 0.25, shortest_interval_s: 1.0 }
    }
}

/// Destinations that are remembered.
const PEERS: usize = 256;
/// Contacts that are remembered of a destination.
const CONTACTS: usize = 16;
/// UDP connects that wait for payload.
const PROBES: usize = 64;
const SECOND: u64 = 1_000_000_000;
/// What the kernel counted is handed in about this often.
const DRAIN_NS: u64 = 5 * SECOND;
/// Deviation from the median that a regular series of full length has at most, as a share of it.
const DEVIATION: f64 = 0.1;

#[derive(Clone, Debug)]
struct Contact {
    at_ns: u64,
    /// Effect under which repeats are counted.
    id: u64,
    repeats: u64,
    ambient: bool,
    /// Something ran between the ambient contact before and this one.
    broken: bool,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    last_ns: u64,
    in_call: bool,
    told_ambient: bool,
    told_beacon: bool,
    contacts: VecDeque<Contact>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Beacons {
    peers: Lru<String, Peer, PEERS>,
    probes: Lru<(IpAddr, u16), (u64, String), PROBES>,
    /// When something last happened that was not ambient.
    busy_ns: u64,
}

impl Beacons {
    pub(super) const MOST: usize = PEERS * (CONTACTS + 1) + PROBES;

    pub(super) fn held(&self) -> usize {
        self.peers.iter().map(|(_, p)| 1 + p.contacts.len()).sum::<usize>() + self.probes.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.peers.dropped + self.probes.dropped
    }

    /// Something happened: in a call, or while none ran.
    pub(super) fn at(&mut self, line: &EffectLine) {
        if line.scope.kind != ScopeKind::Ambient && !line.repeat && !line.outlived {
            self.busy_ns = self.busy_ns.max(line.time.boot_ns);
        }
    }

    pub(super) fn net(&mut self, t: &Beacon, line: &EffectLine, address: IpAddr, hits: &mut Vec<Hit>) {
        let Effect::Net { op, port, protocol, name, .. } = &*line.effect else { return };
        if *port == 0 || address.is_unspecified() {
            return;
        }
        let peer = match name {
            Some(name) => format!("{name}:{port}"),
            None => std::net::SocketAddr::new(address, *port).to_string(),
        };
        match (op, &**protocol) {
            (NetOp::Connect, "udp") => *self.probes.entry((address, *port)) = (line.time.boot_ns, peer),
            (NetOp::Connect | NetOp::Sendmsg, _) => self.contact(t, line, address, peer, hits),
            (NetOp::Bind | NetOp::Listen | NetOp::Accept, _) => {}
        }
    }

    /// Payload: a UDP connect was meant.
    pub(super) fn flow(&mut self, t: &Beacon, line: &EffectLine, hits: &mut Vec<Hit>) {
        let Effect::Flow { address, port, protocol, bytes_out: 1.., .. } = &*line.effect else { return };
        if line.repeat || protocol != "udp" || self.probes.len() == 0 {
            return;
        }
        let Ok(address) = address.parse() else { return };
        let Some((at_ns, peer)) = self.probes.remove(&(address, *port)) else { return };
        if line.time.boot_ns.saturating_sub(at_ns) <= SECOND {
            self.contact(t, line, address, peer, hits);
        }
    }

    fn contact(&mut self, t: &Beacon, line: &EffectLine, address: IpAddr, key: String, hits: &mut Vec<Hit>) {
        let at_ns = line.time.boot_ns;
        let scope = &*line.scope;
        let certain = scope.certainty == Certainty::Certain;
        let idle = scope.kind == ScopeKind::Ambient && certain;
        // A process of a call that has replied: no call runs for it, whatever else does.
        let ambient = idle || line.outlived && certain && scope.basis == Basis::Lineage;
        let busy_ns = self.busy_ns;
        let object = key.clone();
        let peer = self.peers.entry(key);
        if line.repeat {
            let Some(c) = peer.contacts.iter_mut().find(|c| c.id == line.id) else { return };
            c.repeats = c.repeats.saturating_add(line.count);
        } else if peer.contacts.is_empty() || at_ns.saturating_sub(peer.last_ns) >= SECOND {
            if peer.contacts.len() == CONTACTS {
                peer.contacts.pop_front();
            }
            let before = peer.contacts.iter().rev().find(|c| c.ambient).map(|c| c.at_ns);
            let broken = before.is_some_and(|before| busy_ns > before);
            let repeats = line.count.saturating_sub(1);
            peer.contacts.push_back(Contact { at_ns, id: line.id, repeats, ambient, broken });
        }
        peer.last_ns = peer.last_ns.max(at_ns);
        peer.in_call |= scope.kind == ScopeKind::Call && !line.outlived;
        if !ambient {
            return;
        }
        if idle && !peer.told_ambient {
            peer.told_ambient = true;
            let low = peer.in_call || address.is_loopback();
            let why = match (peer.in_call, address.is_loopback()) {
                (_, true) => format!("contacted {object}, a service of this host"),
                (true, false) => format!("contacted {object}, as its calls do"),
                (false, false) => format!("contacted {object}; no call was seen to do so"),
            };
            hits.push(Hit {
                kind: Kind::AmbientNetwork,
                severity: Some(if low { Severity::Low } else { Severity::Medium }),
                object: object.clone(),
                why,
            });
        }
        if peer.told_beacon || peer.contacts.iter().filter(|c| c.ambient).count() < t.contacts {
            return;
        }
        if let Some((n, interval, variation)) = regular(t, &peer.contacts) {
            peer.told_beacon = true;
            hits.push(Hit {
                kind: Kind::Beacon,
                severity: None,
                why: format!(
                    "contacted {object} {n} times, every {interval:.1} s give or take {:.0} %, also outside of calls",
                    variation * 100.0
                ),
                object,
            });
        }
    }
}

/// Contacts, interval in seconds, and variation, if some series is regular.
fn regular(t: &Beacon, contacts: &VecDeque<Contact>) -> Option<(usize, f64, f64)> {
    let all = || contacts.iter().zip(contacts.iter().skip(1));
    let ambient = || {
        let only = || contacts.iter().filter(|c| c.ambient);
        only().zip(only().skip(1))
    };
    // Interval in seconds, repeats counted within it, whether something ran in it.
    let of = |(a, b): (&Contact, &Contact)| {
        (b.at_ns.saturating_sub(a.at_ns) as f64 / SECOND as f64, a.repeats, b.broken)
    };
    let alone: Vec<_> = ambient().map(of).collect();
    let middle = median(alone.iter().map(|l| l.0).collect());
    let alone = alone.into_iter().filter(|(gap, _, broken)| !(*broken && *gap > 1.5 * middle)).collect();
    [all().map(of).collect(), alone].into_iter().find_map(|gaps: Vec<(f64, u64, bool)>| {
        let whole = gaps.iter().map(|g| g.0).collect();
        let parts = gaps.iter().map(|g| g.0 / (g.1 as f64 + 1.0)).collect();
        // The mean of m random intervals varies less than one of them, by the root of m.
        let m = 1.0 + gaps.iter().map(|g| g.1 as f64).sum::<f64>() / gaps.len().max(1) as f64;
        let slow = 2.0 * DRAIN_NS as f64 / SECOND as f64;
        series(t, whole, slow, 1.0).or_else(|| series(t, parts, t.shortest_interval_s, m.sqrt()))
    })
}

/// `strict`: divides what is allowed.
fn series(t: &Beacon, gaps: Vec<f64>, shortest: f64, strict: f64) -> Option<(usize, f64, f64)> {
    let n = gaps.len();
    if n < t.contacts.saturating_sub(1).max(2) {
        return None;
    }
    let mean = gaps.iter().sum::<f64>() / n as f64;
    let middle = median(gaps.clone());
    if middle < shortest || mean <= 0.0 {
        return None;
    }
    let variation = (gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / n as f64).sqrt() / mean;
    let limit = if n >= t.many { t.variation } else { t.few_variation };
    if variation <= limit / strict {
        return Some((n + 1, middle, variation));
    }
    let deviation = median(gaps.iter().map(|g| (g - middle).abs()).collect()) / middle;
    (n + 1 >= CONTACTS && deviation <= DEVIATION / strict).then_some((n + 1, middle, deviation))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => values[n / 2],
        _ => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
#[path = "beacon_tests.rs"]
mod tests;
