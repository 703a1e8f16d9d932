//! The reference: what a policy permits, decided as simply as can be. The kernel programs must agree with it.

use std::net::IpAddr;

use super::{Family, NameRight, NetRight, PathAccess, PathRight, Policy, Ports, Span};
use crate::act::{Access, Act};

/// System calls of [`Family::Dangerous`], as effects name them. No security hook stands before `unshare` and `setns`; what `fsopen`,
/// `fsmount` and `open_tree` make is of no use without `move_mount`.
pub(super) const DANGEROUS: [&str; 9] = [
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "mount",
    "umount2",
    "pivot_root",
    "move_mount",
    "bpf",
];

/// Number of a protocol; `None` for those that only "any" covers.
pub(super) fn protocol_number(name: &str) -> Option<u8> {
    match name {
        "icmp" => Some(1),
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmpv6" => Some(58),
        "sctp" => Some(132),
        "udplite" => Some(136),
        number => number.parse().ok().filter(|n| *n != 0),
    }
}

/// The family that an act is of; `None` for acts that the kernel decides nothing about.
#[must_use]
pub fn family(act: &Act<'_>) -> Option<Family> {
    match act {
        Act::Connect { .. } | Act::Dns { .. } => Some(Family::Network),
        Act::Listen { .. } => Some(Family::Listen),
        Act::Exec { .. } => Some(Family::Exec),
        // Pipes and other things without a name.
        Act::File { path, .. } => path.starts_with('/').then_some(Family::File),
        Act::Unix { path, listen: false } => (!path.is_empty()).then_some(Family::Unix),
        Act::Special { name, .. } => DANGEROUS.contains(name).then_some(Family::Dangerous),
        Act::Unix { listen: true, .. } | Act::Sni { .. } | Act::Syscall { .. } | Act::Uring { .. } => None,
    }
}

impl Policy {
    /// Whether an act is permitted while these scopes are live. What the kernel does not decide about is.
    #[must_use]
    pub fn permits(&self, act: &Act<'_>, live: u64) -> bool {
        self.holders(act).is_none_or(|holders| holders & live != 0)
    }

    /// The scopes that may do it; `None` when the kernel does not decide about it.
    #[must_use]
    pub fn holders(&self, act: &Act<'_>) -> Option<u64> {
        let family = family(act)?;
        self.families.contains(&family).then(|| self.said_of(act))
    }

    /// The same, as if every family were enforced.
    pub(super) fn said_of(&self, act: &Act<'_>) -> u64 {
        match act {
            Act::Connect { address, name, port, protocol } => {
                let by_address = peer(&self.connect, *address, *port, protocol);
                let by_name = name.and_then(|name| named(&self.names, name, Some((*port, protocol))));
                if by_address == Some(0) || by_name == Some(0) {
                    return 0;
                }
                by_address.unwrap_or(0) | by_name.unwrap_or(0)
            }
            Act::Dns { name, .. } => named(&self.names, name, None).unwrap_or(0),
            Act::Listen { address, port, protocol } => {
                peer(&self.listen, *address, *port, protocol).unwrap_or(0)
            }
            Act::Exec { deleted: true, .. } | Act::Exec { memfd: true, .. } => 0,
            Act::Exec { file, script, .. } => {
                let of = |path| path_right(&self.paths, path, PathAccess::Exec);
                if script.is_some() && of(file) == Some(0) {
                    return 0;
                }
                of(script.unwrap_or(file)).unwrap_or(0)
            }
            Act::File { access, path, .. } => path_right(&self.paths, path, of_access(*access)).unwrap_or(0),
            Act::Unix { path, .. } => path_right(&self.paths, path, PathAccess::Unix).unwrap_or(0),
            Act::Special { .. } | Act::Sni { .. } | Act::Syscall { .. } | Act::Uring { .. } => 0,
        }
    }
}

/// What is done to a path, in terms of rights.
pub(super) fn of_access(access: Access) -> PathAccess {
    match access {
        Access::Read => PathAccess::Read,
        Access::Write => PathAccess::Write,
        Access::Delete => PathAccess::Delete,
        Access::Change => PathAccess::Change,
    }
}

impl Ports {
    /// Whether it covers a port; how well it fits the protocol.
    fn fits(self, port: u16, protocol: Option<u8>) -> Option<bool> {
        let own = self.protocol != 0 && Some(self.protocol) == protocol;
        ((own || self.protocol == 0) && self.from <= port && port <= self.to).then_some(own)
    }
}

/// Whether a range holds an address.
pub(super) fn within(address: IpAddr, (net, bits): (IpAddr, u8)) -> bool {
    let common = match (address, net) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (a.to_bits() ^ n.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits() ^ n.to_bits()).leading_zeros(),
        _ => return false,
    };
    common >= u32::from(bits)
}

/// What is said of a peer or an own address.
pub(super) fn peer(rights: &[NetRight], address: IpAddr, port: u16, protocol: &str) -> Option<u64> {
    let (address, protocol) = (address.to_canonical(), protocol_number(protocol));
    rights
        .iter()
        .filter(|r| within(address, (r.address, r.prefix)))
        .filter_map(|r| Some(((r.prefix, r.ports.fits(port, protocol)?), r.mask)))
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, mask)| mask)
}

/// Whether a name is covered, and how well.
fn covers(right: &NameRight, name: &str) -> Option<usize> {
    let NameRight { name: own, below, .. } = right;
    match below {
        false => (own == name).then_some(usize::MAX),
        true if own.is_empty() => Some(0),
        true => name.strip_suffix(own.as_str()).filter(|rest| rest.ends_with('.')).map(|_| own.len()),
    }
}

/// What is said of a name: of connections to it, else of asking for it.
pub(super) fn named(rights: &[NameRight], name: &str, to: Option<(u16, &str)>) -> Option<u64> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let to = to.map(|(port, protocol)| (port, protocol_number(protocol)));
    let fits = |ports: Option<Ports>| match (ports, to) {
        (None, None) => Some(true),
        (Some(ports), Some((port, protocol))) => ports.fits(port, protocol),
        _ => None,
    };
    rights
        .iter()
        .filter_map(|r| Some(((covers(r, &name)?, fits(r.ports)?), r.mask)))
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, mask)| mask)
}

/// What is said of a path. `rights` are in order.
pub(super) fn path_right(rights: &[PathRight], path: &str, access: PathAccess) -> Option<u64> {
    let get = |path: &str, span: Span| {
        let at = rights.binary_search_by(|r| (r.path.as_str(), r.span, r.access).cmp(&(path, span, access)));
        rights.get(at.ok()?).map(|r| r.mask)
    };
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let mut found = get(path, Span::Exact).or_else(|| get(path, Span::Subtree));
    let mut at = path;
    let mut first = true;
    while let (None, Some(parent)) = (found, parent(at)) {
        if first {
            found = get(parent, Span::Children);
        }
        first = false;
        found = found.or_else(|| get(parent, Span::Subtree));
        at = parent;
    }
    found
}

/// The directory that a path is in.
pub(super) fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() > 1 => Some("/"),
        0 => None,
        at => path.get(..at),
    }
}
