//! Rights by address.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{Compiler, Has};
use crate::{
    act::Act,
    baseline::Dimension,
    policy::{
        NetRight, Ports,
        permits::{peer, protocol_number, within},
        scope::NOBODY,
    },
    rules::outline::{Net, Of, Shape},
};

/// A border of ports and protocols within a range.
#[derive(Clone, Debug)]
pub(super) struct Border<T> {
    pub(super) of: T,
    pub(super) ports: (u16, u16),
    pub(super) protocol: Option<u8>,
}

/// Ports of a name in general terms.
pub(super) fn ports(port: &str) -> Option<Vec<(u16, u16)>> {
    match port {
        "{high}" => Some(vec![(32768, u16::MAX)]),
        port => port.parse().ok().map(|p| vec![(p, p)]),
    }
}

/// Host, port and protocol of a name in general terms.
pub(super) fn parts(name: &str) -> Option<(&str, &str, &str)> {
    let (rest, protocol) = name.rsplit_once('/')?;
    let (host, port) = rest.rsplit_once(':')?;
    Some((host, port, protocol))
}

/// Ports and protocols in pieces in which borders change nothing: protocols with a number come last. The text is
/// what rules and baselines know the protocol by.
pub(super) fn pieces<T>(borders: &[&Border<T>]) -> Vec<(Ports, String)> {
    let mut cuts: BTreeSet<u32> = BTreeSet::from([0, 0x1_0000]);
    let mut protocols = BTreeSet::from([None]);
    for b in borders {
        cuts.extend([u32::from(b.ports.0), u32::from(b.ports.1) + 1]);
        protocols.insert(b.protocol);
    }
    let cuts: Vec<u32> = cuts.into_iter().collect();
    let mut out = Vec::new();
    for protocol in protocols {
        let text = protocol.map_or_else(|| "other".to_owned(), |n| crate::text::protocol(u32::from(n)));
        for pair in cuts.windows(2) {
            let (&[from, to], Some(protocol)) = (pair, protocol.or(Some(0))) else { continue };
            if let (Ok(from), Ok(to)) = (u16::try_from(from), u16::try_from(to - 1)) {
                out.push((Ports { from, to, protocol }, text.clone()));
            }
        }
    }
    out
}

/// Makes one of two neighbours that say the same.
pub(super) fn joined(last: Option<&mut Ports>, next: Ports) -> bool {
    match last {
        Some(last) if last.protocol == next.protocol && last.to.checked_add(1) == Some(next.from) => {
            last.to = next.to;
            true
        }
        _ => false,
    }
}

impl Compiler<'_> {
    /// Peers. `asking`: scopes that may ask for any name.
    pub(super) fn connect(&mut self, asking: u64) -> Vec<NetRight> {
        let mut borders = self.range_borders(Of::Connect);
        let members = self.learned.of(Dimension::Connect).flat_map(|r| &r.names);
        for (host, port, protocol) in members.filter_map(|name| parts(name)) {
            let Ok(address) = host.parse::<IpAddr>() else { continue };
            borders.extend(at(&[single(address.to_canonical())], ports(port), protocol));
        }
        let resolvers: Vec<IpAddr> = self.given.resolvers.iter().map(IpAddr::to_canonical).collect();
        if asking != 0 {
            for resolver in &resolvers {
                for protocol in ["udp", "tcp"] {
                    borders.extend(at(&[single(*resolver)], Some(vec![(53, 53)]), protocol));
                }
            }
        }
        let mut partly = false;
        let rights = self.cut(&borders, &mut partly, &|c, address, port, protocol| {
            let act = Act::Connect { address, name: None, port, protocol };
            let asks = port == 53 && matches!(protocol, "udp" | "tcp") && resolvers.contains(&address);
            c.value(&|rules| rules.decide(&act, c.given.today).verdict, &|s| Has {
                learned: c.learned.has(s.key, &act),
                widened: asks && s.bit & asking != 0,
            })
        });
        if asking != 0 {
            let why = "wider in the kernel: who may connect to a name may ask for it, and ask the host's own resolvers";
            self.list("resolvers", "names that may be connected to", why);
        }
        if partly {
            let why = "wider in the kernel: an address that is denied to some tools only is not denied to them \
                       under a name that they may connect to";
            self.list("names", "addresses that some tools may connect to", why);
        }
        rights
    }

    /// Own addresses.
    pub(super) fn listen(&mut self) -> Vec<NetRight> {
        let mut borders = self.range_borders(Of::Listen);
        let members = self.learned.of(Dimension::Listen).flat_map(|r| &r.names);
        for (class, port, protocol) in members.filter_map(|name| parts(name)) {
            // The system is asked for one of these by 0.
            let ports = ports(port).map(|mut p| {
                p.extend((port == "{high}").then_some((0, 0)));
                p
            });
            borders.extend(at(&class_nets(class), ports, protocol));
        }
        self.cut(&borders, &mut false, &|c, address, port, protocol| {
            let act = Act::Listen { address, port, protocol };
            c.value(&|rules| rules.decide(&act, c.given.today).verdict, &|s| Has {
                learned: c.learned.has(s.key, &act),
                widened: false,
            })
        })
    }

    fn range_borders(&self, of: Of) -> Vec<Border<Net>> {
        let mut out = Vec::new();
        for selected in self.selections() {
            selected.outline(of, self.given.who, self.given.today, &mut |said| {
                let Shape::Nets { nets, ports, protocol } = said.shape else { return };
                let number = protocol.as_deref().map(protocol_number);
                // One without a number is not permitted, and its deny is listed.
                let Some(protocol) = number.map_or(Some(None), |n| n.map(Some)) else { return };
                out.extend(nets.into_iter().map(|of| Border { of, ports, protocol }));
            });
        }
        out
    }

    fn cut(
        &self,
        borders: &[Border<Net>],
        partly: &mut bool,
        value: &dyn Fn(&Self, IpAddr, u16, &str) -> super::Value,
    ) -> Vec<NetRight> {
        let mut nets: Vec<Net> = borders.iter().map(|b| b.of).collect();
        nets.sort_by_key(|(address, bits)| (address.is_ipv6(), *bits, *address));
        nets.dedup();
        let mut out: Vec<NetRight> = Vec::new();
        for &net in &nets {
            let Some(address) = free(net, &nets) else { continue };
            let around: Vec<&Border<Net>> =
                borders.iter().filter(|b| b.of.1 <= net.1 && within(net.0, b.of)).collect();
            for (ports, protocol) in pieces(&around) {
                let v = value(self, address, ports.from, &protocol);
                *partly |= v.partly;
                let before = peer(&out, address, ports.from, &protocol).unwrap_or(NOBODY);
                // Of one protocol: what holds for any says it already.
                let same = out.iter().any(|r| {
                    (r.address, r.prefix) == net
                        && r.ports.protocol == 0
                        && r.ports.from <= ports.from
                        && ports.to <= r.ports.to
                });
                if v.mask == before && (v.mask == NOBODY || ports.protocol != 0 && same) {
                    continue;
                }
                let last = out.last_mut().filter(|r| (r.address, r.prefix, r.mask) == (net.0, net.1, v.mask));
                if !joined(last.map(|r| &mut r.ports), ports) {
                    out.push(NetRight { address: net.0, prefix: net.1, ports, mask: v.mask });
                }
            }
        }
        out
    }
}

fn at(nets: &[Net], ports: Option<Vec<(u16, u16)>>, protocol: &str) -> Vec<Border<Net>> {
    let Some(protocol) = protocol_number(protocol) else { return Vec::new() };
    let each = |ports| nets.iter().map(move |&of| Border { of, ports, protocol: Some(protocol) });
    ports.into_iter().flatten().flat_map(each).collect()
}

fn single(address: IpAddr) -> Net {
    (address, if address.is_ipv4() { 32 } else { 128 })
}

/// Borders of a class of [`crate::baseline::general::address_class`].
fn class_nets(class: &str) -> Vec<Net> {
    let v4 = |a, b, c, d, bits| (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits);
    let v6 = |first, bits| (IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), bits);
    let own = |class: &str| match class {
        "loopback" => vec![v4(127, 0, 0, 0, 8), single(Ipv6Addr::LOCALHOST.into())],
        "unspecified" => vec![v4(0, 0, 0, 0, 32), single(Ipv6Addr::UNSPECIFIED.into())],
        "link-local" => vec![v4(169, 254, 0, 0, 16), v6(0xfe80, 10)],
        "private" => vec![
            v4(10, 0, 0, 0, 8),
            v4(172, 16, 0, 0, 12),
            v4(192, 168, 0, 0, 16),
            v4(100, 64, 0, 0, 10),
            v6(0xfc00, 7),
        ],
        "multicast" => vec![v4(224, 0, 0, 0, 4), v4(255, 255, 255, 255, 32), v6(0xff00, 8)],
        _ => Vec::new(),
    };
    if class != "public" {
        return own(class);
    }
    // All that is none of the others.
    let others = ["loopback", "unspecified", "link-local", "private", "multicast"];
    [v4(0, 0, 0, 0, 0), v6(0, 0)].into_iter().chain(others.into_iter().flat_map(own)).collect()
}

/// An address of a range that is in no narrower one; `None` when there is none.
fn free(net: Net, nets: &[Net]) -> Option<IpAddr> {
    let inner: Vec<Net> = nets.iter().copied().filter(|n| n.1 > net.1 && within(n.0, net)).collect();
    let is_free = |address: &IpAddr| within(*address, net) && !inner.iter().any(|n| within(*address, *n));
    let after = inner.iter().filter_map(|n| next(*n));
    std::iter::once(net.0).chain(after).find(is_free)
}

/// The address after a range.
fn next((address, bits): Net) -> Option<IpAddr> {
    match address {
        IpAddr::V4(a) => {
            let size = 1_u32.checked_shl(32_u32.checked_sub(u32::from(bits))?)?;
            a.to_bits().checked_add(size).map(|n| IpAddr::V4(Ipv4Addr::from_bits(n)))
        }
        IpAddr::V6(a) => {
            let size = 1_u128.checked_shl(128_u32.checked_sub(u32::from(bits))?)?;
            a.to_bits().checked_add(size).map(|n| IpAddr::V6(Ipv6Addr::from_bits(n)))
        }
    }
}
