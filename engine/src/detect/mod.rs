//! Detectors: what no tool should do unseen, whatever was learned. They keep state per server and
//! look at lines; a rule or a learned baseline needs none of them.
//!
//! The watched server chooses what they remember, so every memory is bounded, and what made room is
//! counted ([`Detectors::dropped`]). No clock: time comes with the lines, and with
//! [`Detectors::tick`]. The same lines give the same hits.
//!
//! # Layout
//! - `dns`: data in DNS questions
//! - `sni`: TLS server names that no answer binds to their address
//! - `beacon`: network use while no call runs, and the regular kind
//! - `outlived`: processes of a call that work after the reply
//! - `forged`: servers that write calls to themselves
//! - `blinded`: what was not seen while a call ran
//! - `exhaustion`, `scan`: ceilings that no ordinary tool needs; ports and addresses tried one by one
//! - [`combine`]: findings that are worse together
//! - `bounded`: a map of bounded size

mod beacon;
mod blinded;
mod bounded;
pub mod combine;
mod dns;
mod exhaustion;
mod forged;
mod outlived;
mod scan;
mod sni;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::{
    beacon::Beacon, blinded::Blinded, combine::Escalation, dns::Dns, exhaustion::Exhaustion, scan::Scan,
};
use crate::{
    finding::{Kind, Severity},
    output::{CallLine, Certainty, Effect, EffectLine, LostLine, NetOp, Scope, ScopeKind, ServerLine},
};

/// Something that a detector saw in one line.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// What.
    pub kind: Kind,
    /// How bad, when that is not the kind's own.
    pub severity: Option<Severity>,
    /// What it is about: the cause. The same call and cause are one finding.
    pub object: String,
    /// What was seen, as the end of a sentence: "asked for 214 names of one domain in 3 s".
    pub why: String,
}

/// When the detectors speak. Each module's header gives the reasons for its defaults.
///
/// ```
/// let t: engine::detect::Thresholds =
///     serde_json::from_str(r#"{"dns": {"encoded_names": 50}, "exhaustion": {"children": 1000}}"#)?;
/// assert_eq!((t.dns.encoded_names, t.dns.window_s, t.exhaustion.children), (50, 600, 1000));
/// assert!(serde_json::from_str::<engine::detect::Thresholds>(r#"{"dms": {}}"#).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// DNS tunnelling.
    pub dns: Dns,
    /// Beaconing.
    pub beacon: Beacon,
    /// Losses during a call.
    pub blinded: Blinded,
    /// Ceilings of a call.
    pub exhaustion: Exhaustion,
    /// Ports and addresses tried one by one.
    pub scan: Scan,
}

/// What made room for newer things since the start: what a detector may have missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// DNS names that were not looked at.
    pub dns_names: u64,
    /// Names and addresses that DNS answers bound.
    pub bindings: u64,
    /// Destinations whose contacts were followed.
    pub destinations: u64,
    /// Calls and processes.
    pub calls: u64,
    /// Ports and addresses that may be part of a scan.
    pub scans: u64,
}

/// State of the detectors for one server.
#[derive(Clone, Debug, Default)]
pub struct Detectors {
    thresholds: Thresholds,
    /// `None`: not known, every resolver counts as the host's.
    resolvers: Option<Vec<IpAddr>>,
    tunnels: dns::Tunnels,
    bindings: sni::Bindings,
    beacons: beacon::Beacons,
    outlived: outlived::Outlived,
    blindness: blinded::Blindness,
    spending: exhaustion::Spending,
    scans: scan::Scans,
}

impl Detectors {
    /// More things than this are never remembered for one server ([`Detectors::held`]).
    pub const MOST: usize = dns::NAMES
        + dns::PARENTS
        + sni::Bindings::MOST
        + beacon::Beacons::MOST
        + 3 * outlived::KEPT
        + 2 * blinded::KEPT
        + exhaustion::CALLS
        + scan::Scans::MOST;

    /// Detectors with other thresholds than the default ones.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, ..Self::default() }
    }

    /// New thresholds, from now on; what is remembered stays.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// Names that it asked for, and what the host's resolvers answered; nothing while those are not known.
    pub fn names(&self) -> impl Iterator<Item = (&str, &[IpAddr])> {
        self.bindings.known().filter(|_| self.resolvers.is_some())
    }

    /// The resolvers that the host is configured with: answers of others bind no names, and questions
    /// to others are contacts like any.
    pub fn set_resolvers(&mut self, resolvers: &[IpAddr]) {
        self.resolvers = Some(resolvers.to_vec());
    }

    /// Looks at an effect.
    pub fn effect(&mut self, line: &EffectLine, hits: &mut Vec<Hit>) {
        self.beacons.at(line);
        if line.outlived {
            self.outlived.effect(line, hits);
        }
        let t = &self.thresholds;
        let at_ns = line.time.boot_ns;
        match &*line.effect {
            Effect::Fork { .. } => self.spending.fork(&t.exhaustion, line, hits),
            Effect::Open { create: true, .. } | Effect::PathOp { .. } => {
                self.spending.file(&t.exhaustion, line, hits);
            }
            Effect::Net { op: NetOp::Connect | NetOp::Sendmsg, address, port, protocol, name, .. } => {
                let Ok(address) = address.parse::<IpAddr>() else { return };
                if *port == 53 && self.trusted(address) {
                    if protocol == "tcp" {
                        self.bindings.tcp_resolver();
                    }
                    return;
                }
                self.beacons.net(&t.beacon, line, address, hits);
                if protocol != "udp" {
                    self.spending.connect(&t.exhaustion, line, hits);
                }
                let silent =
                    protocol == "udp" && matches!(&*line.effect, Effect::Net { op: NetOp::Connect, .. });
                if !line.repeat && !silent {
                    let named =
                        name.is_some() || matches!(port, 80 | 443) && self.bindings.blind(at_ns).is_some();
                    self.scans.contact(&t.scan, at_ns, (address, *port), named, hits);
                }
            }
            Effect::Flow { address, bytes_out, .. } => {
                self.spending.sent(&t.exhaustion, line, address, *bytes_out, hits);
                self.beacons.flow(&t.beacon, line, hits);
            }
            Effect::DnsQuery { name, record, resolver, .. } => {
                self.tunnels.query(&t.dns, at_ns, name, record, hits);
                if !line.repeat && resolver.parse().is_ok_and(|r| self.trusted(r)) {
                    self.bindings.query(name);
                }
            }
            Effect::DnsAnswer { name, addresses, resolver, .. } => {
                if resolver.parse().is_ok_and(|r| self.trusted(r)) {
                    self.bindings.answer(name, addresses);
                }
            }
            Effect::Special { name, .. } if matches!(name.as_str(), "raw_socket" | "packet_socket") => {
                self.bindings.raw();
            }
            Effect::TlsHello { sni: Some(sni), address, .. } => {
                self.bindings.hello(at_ns, sni, address, hits);
            }
            Effect::Syscall { abi, nr } => {
                self.spending.syscall(&t.exhaustion, line, *abi, *nr, hits);
                self.outlived.syscall(line, *abi, *nr);
            }
            Effect::Unix { path, error, op: NetOp::Connect | NetOp::Sendmsg, .. } => {
                self.bindings.unix(path, *error);
            }
            Effect::Exec { .. }
            | Effect::Exit { .. }
            | Effect::Open { .. }
            | Effect::Net { .. }
            | Effect::Unix { .. }
            | Effect::TlsHello { .. }
            | Effect::Special { .. }
            | Effect::Denied { .. }
            | Effect::Uring { .. } => {}
        }
    }

    /// Looks at an ended call.
    pub fn call(&mut self, line: &CallLine, hits: &mut Vec<Hit>) {
        self.outlived.call(line);
        self.blindness.call(&self.thresholds.blinded, line, hits);
        self.spending.call(&self.thresholds.exhaustion, line, hits);
    }

    /// Looks at a loss: tell all servers of it. Its hits are about a call that has ended, which their
    /// `object` names.
    pub fn lost(&mut self, line: &LostLine, hits: &mut Vec<Hit>) {
        self.bindings.lost(line.time.boot_ns, &line.cause);
        self.blindness.lost(line, hits);
    }

    /// Looks at a change of the server itself.
    pub fn server(&mut self, line: &ServerLine, hits: &mut Vec<Hit>) {
        self.bindings.startup(&line.startup);
        self.blindness.server(line, hits);
        forged::server(line, hits);
    }

    /// Time passes: for calls that do not end. Its hits are about a call that still runs, which their
    /// `why` names. A few times a minute will do.
    pub fn tick(&mut self, now_ns: u64, hits: &mut Vec<Hit>) {
        self.spending.tick(&self.thresholds.exhaustion, now_ns, hits);
    }

    /// Why TLS server names cannot be judged now, if so.
    #[must_use]
    pub fn sni_blind(&self, now_ns: u64) -> Option<&'static str> {
        self.bindings.blind(now_ns)
    }

    /// What made room.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        Dropped {
            dns_names: self.tunnels.names_dropped(),
            bindings: self.bindings.names_dropped(),
            destinations: self.beacons.dropped(),
            calls: self.outlived.dropped() + self.spending.dropped(),
            scans: self.scans.dropped(),
        }
    }

    /// How many things are remembered.
    #[must_use]
    pub fn held(&self) -> usize {
        self.tunnels.held()
            + self.bindings.held()
            + self.beacons.held()
            + self.outlived.held()
            + self.blindness.held()
            + self.spending.held()
            + self.scans.held()
    }

    fn trusted(&self, resolver: IpAddr) -> bool {
        self.resolvers.as_ref().is_none_or(|r| r.contains(&resolver))
    }
}

/// The call that an effect belongs to, if that is certain.
fn certain_call(scope: &Scope) -> Option<u64> {
    let certain = scope.kind == ScopeKind::Call && scope.certainty == Certainty::Certain;
    scope.call.as_ref().filter(|_| certain).map(|c| c.number)
}

/// Not an address of the public internet.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let shared = a.octets()[0] == 100 && a.octets()[1] & 0xc0 == 64;
            a.is_private() || a.is_loopback() || a.is_link_local() || shared
        }
        IpAddr::V6(a) => a.is_loopback() || a.is_unique_local() || a.is_unicast_link_local(),
    }
}
