//! Peers and listeners: `HOST[:PORTS][/PROTOCOL]`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::names::{NameGlob, Reason};

/// Whom a pattern is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Any,
    Public,
    Private,
    Loopback,
    Range(Range),
    Name(NameGlob),
}

/// An address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) net: IpAddr,
    pub(super) bits: u32,
}

/// A peer or listener pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) host: Host,
    pub(super) ports: (u16, u16),
    pub(super) protocol: Option<Box<str>>,
}

const PROTOCOLS: [&str; 8] = ["tcp", "udp", "icmp", "icmpv6", "sctp", "mptcp", "udplite", "any"];
const CLASSES: [&str; 4] = ["any", "public", "private", "loopback"];

impl Destination {
    pub(super) fn parse(text: &str) -> Result<Self, Reason> {
        if text.is_empty() || text.len() > 512 {
            return Err("expected HOST[:PORTS][/PROTOCOL], such as `10.0.0.0/8:443/tcp`".into());
        }
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, p)) if p.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                if !PROTOCOLS.contains(&p) {
                    return Err(format!("unknown protocol `{p}`: one of {}", PROTOCOLS.join(", ")));
                }
                (rest, (p != "any").then(|| p.into()))
            }
            _ => (text, None),
        };
        let (host, ports) = host_and_ports(rest)?;
        let ports = match ports {
            None | Some("*") => (0, u16::MAX),
            Some(ports) => parse_ports(ports)
                .ok_or_else(|| format!("`{ports}` is no port: `443`, `8000-8999` or `*`"))?,
        };
        Ok(Self { host: parse_host(host)?, ports, protocol })
    }

    /// For own addresses, which have no names.
    pub(super) fn parse_listen(text: &str) -> Result<Self, Reason> {
        let parsed = Self::parse(text)?;
        if matches!(parsed.host, Host::Name(_)) {
            return Err("a listener is an address, a range, `any`, `private`, `public` or `loopback`".into());
        }
        Ok(parsed)
    }

    /// Whether it matches. `deny`: an address that leads to another one counts as that one as well.
    pub(super) fn matches(
        &self,
        address: IpAddr,
        name: Option<&str>,
        port: u16,
        protocol: &str,
        deny: bool,
    ) -> bool {
        if port < self.ports.0
            || port > self.ports.1
            || self.protocol.as_deref().is_some_and(|p| p != protocol)
        {
            return false;
        }
        let address = address.to_canonical();
        let at = |address: IpAddr| match &self.host {
            Host::Any => true,
            Host::Public => !is_private(address) && !is_own(address),
            Host::Private => is_private(address),
            Host::Loopback => is_own(address),
            Host::Range(range) => range.contains(address),
            Host::Name(glob) => name.is_some_and(|name| glob.matches_host(name)),
        };
        at(address) || (deny && inner(address).is_some_and(|v4| at(IpAddr::V4(v4))))
    }

    /// It is about names.
    pub(super) fn is_name(&self) -> bool {
        matches!(self.host, Host::Name(_))
    }

    /// Whether everything that `other` matches is matched, as far as that can be told.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let host = match (&self.host, &other.host) {
            (Host::Any, _) => true,
            (Host::Range(a), Host::Range(b)) => a.bits <= b.bits && a.contains(b.net),
            (Host::Name(a), Host::Name(b)) => a.covers(b),
            (a, b) => a == b,
        };
        host && self.ports.0 <= other.ports.0
            && self.ports.1 >= other.ports.1
            && (self.protocol.is_none() || self.protocol == other.protocol)
    }

    /// Whether it is far more than one can mean to permit.
    pub(super) fn is_broad(&self) -> bool {
        match &self.host {
            Host::Any => self.ports == (0, u16::MAX),
            Host::Range(range) => range.bits == 0,
            Host::Name(glob) => glob.is_everything(),
            Host::Public | Host::Private | Host::Loopback => false,
        }
    }
}

/// One address with a port, as tests give it.
pub(super) fn parse_peer(text: &str) -> Option<(IpAddr, u16, &str)> {
    let (rest, protocol) = match text.rsplit_once('/') {
        Some((rest, protocol)) => (rest, protocol),
        None => (text, "tcp"),
    };
    PROTOCOLS.contains(&protocol).then_some(())?;
    let (host, port) = host_and_ports(rest).ok()?;
    Some((host.parse().ok()?, port?.parse().ok()?, protocol))
}

/// Whether a pattern can name it.
pub(super) fn is_protocol(text: &str) -> bool {
    text != "any" && PROTOCOLS.contains(&text)
}

fn host_and_ports(text: &str) -> Result<(&str, Option<&str>), Reason> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else { return Err("`[` without `]`".into()) };
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((host, Some(ports))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("expected `:` and a port after `]`".into()),
        };
    }
    // More than one colon: IPv6 without brackets, hence without a port.
    match text.split_once(':') {
        Some((_, ports)) if ports.contains(':') => Ok((text, None)),
        Some((host, ports)) => Ok((host, Some(ports))),
        None => Ok((text, None)),
    }
}

fn parse_ports(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    match text.split_once('-') {
        Some((from, to)) => {
            let (from, to) = (port(from)?, port(to)?);
            (from <= to).then_some((from, to))
        }
        None => port(text).map(|p| (p, p)),
    }
}

fn parse_host(host: &str) -> Result<Host, Reason> {
    match host {
        "any" => return Ok(Host::Any),
        "public" => return Ok(Host::Public),
        "private" => return Ok(Host::Private),
        "loopback" => return Ok(Host::Loopback),
        _ => {}
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        return Ok(Host::Range(Range { net: address, bits }));
    }
    if let Some((net, bits)) = host.split_once('/') {
        return parse_range(net, bits).map(Host::Range);
    }
    // Digits and dots only: an address with a slip in it, not a name.
    if host.is_empty() || host.bytes().all(|b| b.is_ascii_digit() || b == b'.') || host.contains(':') {
        return Err(format!("`{host}` is no address"));
    }
    if let Some(class) = super::problem::closest(host, CLASSES)
        && !host.contains(['.', '*'])
    {
        return Err(format!("`{host}` is no host; did you mean `{class}`?"));
    }
    NameGlob::parse_host(host).map(Host::Name)
}

fn parse_range(net: &str, bits: &str) -> Result<Range, Reason> {
    let (Ok(address), Ok(bits)) = (net.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return Err(format!("`{net}/{bits}` is no address range, such as `10.0.0.0/8`"));
    };
    let width = if address.is_ipv4() { 32 } else { 128 };
    if bits > width {
        return Err(format!("`/{bits}` is more than the {width} bits of an address"));
    }
    let range = Range { net: address, bits };
    let base = range.base();
    if base != address {
        return Err(format!(
            "`{net}/{bits}` has bits set after the first {bits}; did you mean `{base}/{bits}`?"
        ));
    }
    Ok(range)
}

impl Range {
    fn base(self) -> IpAddr {
        match self.net {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask32(self.bits))),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask128(self.bits))),
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.net, address) {
            (IpAddr::V4(n), IpAddr::V4(a)) => a.to_bits() & mask32(self.bits) == n.to_bits(),
            (IpAddr::V6(n), IpAddr::V6(a)) => a.to_bits() & mask128(self.bits) == n.to_bits(),
            _ => false,
        }
    }
}

fn mask32(bits: u32) -> u32 {
    u32::MAX.checked_shl(32 - bits).unwrap_or(0)
}

fn mask128(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

/// RFC 1918, carrier-grade NAT (RFC 6598), link-local, unique local.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [first, second, ..] = a.octets();
            a.is_private() || a.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(a) => a.is_unique_local() || a.is_unicast_link_local(),
    }
}

/// This host, by its own addresses; connecting to "unspecified" leads to it too.
fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// The IPv4 address that a gateway makes of this one: NAT64 (RFC 6052) and 6to4 (RFC 3056). Both
/// were used to get round filters of metadata services.
fn inner(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(a) = address else { return None };
    let [s0, s1, s2, s3, s4, s5, s6, s7] = a.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match (s0, s1, s2, s3, s4, s5) {
        (0x64, 0xff9b, 0, 0, 0, 0) => Some(v4(s6, s7)),
        (0x2002, high, low, ..) => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(pattern: &str, peer: &str, name: Option<&str>, deny: bool) -> bool {
        let (address, port, protocol) = parse_peer(peer).expect("a peer");
        Destination::parse(pattern).expect(pattern).matches(address, name, port, protocol, deny)
    }

    #[test]
    fn peers_match_by_range_port_protocol_and_name() {
        for (pattern, peer, name, expected) in [
            ("10.0.0.0/8:443/tcp", "10.1.2.3:443/tcp", None, true),
            ("10.0.0.0/8:443/tcp", "10.1.2.3:444/tcp", None, false),
            ("10.0.0.0/8:443/tcp", "10.1.2.3:443/udp", None, false),
            ("10.0.0.0/8:443/tcp", "11.1.2.3:443/tcp", None, false),
            ("10.0.0.0/8", "10.1.2.3:9/udp", None, true),
            ("0.0.0.0/0", "10.1.2.3:9/udp", None, true),
            ("0.0.0.0/0", "[::2]:9/udp", None, false),
            ("10.0.0.0/8", "[::ffff:10.1.2.3]:9/udp", None, true),
            ("any:53/udp", "[2001:db8::1]:53/udp", None, true),
            ("[fd00::/8]:443", "[fd12::1]:443/tcp", None, true),
            ("fd00:ec2::254", "[fd00:ec2::254]:80/tcp", None, true),
            ("*.github.com:443", "203.0.113.7:443/tcp", Some("api.GitHub.com."), true),
            ("*.github.com:443", "203.0.113.7:443/tcp", Some("github.com"), false),
            ("*.github.com:443", "203.0.113.7:443/tcp", None, false),
            ("{,*.}github.com", "203.0.113.7:443/tcp", Some("github.com"), true),
            ("1.2.3.4:8000-8999", "1.2.3.4:8999/tcp", None, true),
            ("1.2.3.4:8000-8999", "1.2.3.4:9000/tcp", None, false),
            ("private", "100.64.0.1:1/tcp", None, true),
            ("private", "100.128.0.1:1/tcp", None, false),
            ("private", "127.0.0.1:1/tcp", None, false),
            ("private", "[fe80::1]:1/tcp", None, true),
            ("public", "203.0.113.7:1/tcp", None, true),
            ("public", "192.168.0.1:1/tcp", None, false),
            ("loopback", "0.0.0.0:1/tcp", None, true),
        ] {
            assert_eq!(hits(pattern, peer, name, false), expected, "{pattern} {peer} {name:?}");
        }
    }

    #[test]
    fn an_address_behind_a_gateway_is_denied_and_never_permitted() {
        for peer in ["[64:ff9b::a9fe:a9fe]:80/tcp", "[2002:a9fe:a9fe::1]:80/tcp"] {
            assert!(hits("169.254.169.254", peer, None, true), "{peer}");
            assert!(!hits("169.254.169.254", peer, None, false), "{peer}");
        }
    }

    #[test]
    fn slips_are_told() {
        for (pattern, word) in [
            ("10.0.0.1/8", "did you mean `10.0.0.0/8`"),
            ("10.0.0.0/33", "32 bits"),
            ("300.1.1.1", "no address"),
            ("a.example:70000", "no port"),
            ("a.example:9-8", "no port"),
            ("a.example:+9", "no port"),
            ("a.example/tpc", "unknown protocol"),
            ("[::1", "without"),
            ("[::1]x", "expected `:`"),
            ("anny", "did you mean `any`"),
            ("", "expected HOST"),
            (":443", "no address"),
        ] {
            let reason = Destination::parse(pattern).expect_err(pattern);
            assert!(reason.contains(word), "{pattern}: {reason}");
        }
        assert!(Destination::parse_listen("a.example:80").is_err());
    }

    #[test]
    fn wider_patterns_cover_narrower_ones() {
        let covers = |a, b| Destination::parse(a).expect(a).covers(&Destination::parse(b).expect(b));
        assert!(covers("10.0.0.0/8", "10.1.0.0/16:443/tcp"));
        assert!(!covers("10.1.0.0/16", "10.0.0.0/8"));
        assert!(!covers("10.0.0.0/8:443", "10.0.0.0/8"));
        assert!(!covers("any/tcp", "any"));
        assert!(covers("*.example.com", "a.example.com:1"));
        assert!(covers("any", "*.example.com"));
    }
}
