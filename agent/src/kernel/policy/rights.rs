//! Which map entries a policy makes. Pure.
//!
//! The kernel finds one entry for an object, the most specific. So each holds the rights of those that cover it as well,
//! most specific first; a right that says *nobody* ends the list for the ports that it names. What does not fit is an error:
//! to leave a right out would break the server, to leave a prohibition out would break the policy.

use std::{collections::BTreeMap, net::IpAddr};

use abi::{
    paths::{PathRights, access, said_bit, span},
    policy::{CEILING, NOBODY, PortRight, RIGHTS, Rights, TOOL_BITS, ToolValue, family, names},
};
use anyhow::{Result, bail, ensure};
use engine::policy::{Family, NameRight, NetRight, PathAccess, PathRight, Policy, Ports, Span};

/// A network: words of its address, and how many bits of 128 count.
pub(super) type Net = ([u64; 2], u8);

/// What goes into the maps.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// By hash of the name.
    pub(super) tools: Vec<(u64, ToolValue)>,
    pub(super) connect: BTreeMap<Net, Rights>,
    pub(super) listen: BTreeMap<Net, Rights>,
    pub(super) names: BTreeMap<u64, Rights>,
    pub(super) paths: BTreeMap<u64, PathRights>,
    pub(super) families: u32,
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

/// An address as the kernel programs write it.
pub(super) fn words(address: IpAddr) -> [u64; 2] {
    let o = octets(address);
    let (head, tail) = o.split_at(8);
    [head, tail].map(|half| u64::from_ne_bytes(half.try_into().unwrap_or_default()))
}

fn network(r: &NetRight) -> Result<(u128, u8)> {
    let (most, shift) = if r.address.is_ipv4() { (32, 96) } else { (128, 0) };
    ensure!(r.prefix <= most, "{}/{} is no network", r.address, r.prefix);
    let prefix = r.prefix + shift;
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    Ok((u128::from_be_bytes(octets(r.address)) & mask, prefix))
}

fn covers(wide: (u128, u8), narrow: (u128, u8)) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(wide.1)).unwrap_or(0);
    wide.1 <= narrow.1 && narrow.0 & mask == wide.0
}

fn port_right(ports: Ports, mask: u64) -> Result<PortRight> {
    ensure!(ports.from <= ports.to, "ports {}-{} are none", ports.from, ports.to);
    Ok(PortRight {
        mask: holders(mask),
        from: ports.from,
        to: ports.to,
        protocol: u16::from(ports.protocol),
        deny: u16::from(mask == 0),
    })
}

/// Puts rights into an entry, level by level, the most specific level first; within a level those of one protocol before those of
/// any. The first that covers a port decides alone, so what stands behind the same ports is left out.
fn entry(what: &str, ask: u64, levels: impl Iterator<Item = Vec<PortRight>>) -> Result<Rights> {
    let mut list: Vec<PortRight> = Vec::new();
    for mut level in levels {
        // Of equals the last one counts, as in `Policy::permits`.
        level.reverse();
        level.sort_by_key(|r| r.protocol == 0);
        for right in level {
            let hides = |r: &PortRight| {
                r.from <= right.from && right.to <= r.to && (r.protocol == 0 || r.protocol == right.protocol)
            };
            if !list.iter().any(hides) {
                list.push(right);
            }
        }
    }
    if list.len() > RIGHTS {
        bail!(
            "{what} has {} rights by port, and the kernel holds {RIGHTS}: write ranges of ports",
            list.len()
        );
    }
    let mut rights = Rights { ask, ..Rights::default() };
    for (slot, right) in rights.ports.iter_mut().zip(list) {
        *slot = right;
    }
    Ok(rights)
}

fn nets(all: &[NetRight]) -> Result<BTreeMap<Net, Rights>> {
    let mut by_net: BTreeMap<(u128, u8), Vec<PortRight>> = BTreeMap::new();
    for r in all {
        by_net.entry(network(r)?).or_default().push(port_right(r.ports, r.mask)?);
    }
    let mut out = BTreeMap::new();
    for net in by_net.keys() {
        let mut covering: Vec<_> = by_net.iter().filter(|(wide, _)| covers(**wide, *net)).collect();
        covering.sort_by_key(|((_, prefix), _)| std::cmp::Reverse(*prefix));
        let address = IpAddr::from(net.0.to_be_bytes());
        let what = format!("{}/{}", address.to_canonical(), net.1);
        out.insert(
            (words(address), net.1),
            entry(&what, 0, covering.into_iter().map(|(_, level)| level.clone()))?,
        );
    }
    Ok(out)
}

/// Whether `wide` covers all that `narrow` does.
fn name_covers(wide: (&str, bool), narrow: (&str, bool)) -> bool {
    if wide == narrow {
        return true;
    }
    wide.1 && (wide.0.is_empty() || narrow.0.strip_suffix(wide.0).is_some_and(|head| head.ends_with('.')))
}

fn name_rights(all: &[NameRight], key: &names::Key) -> Result<BTreeMap<u64, Rights>> {
    let mut by_name: BTreeMap<(&str, bool), Vec<&NameRight>> = BTreeMap::new();
    for r in all {
        let wire = r.name.len() <= 253 && r.name.split('.').all(|l| (1..=63).contains(&l.len()));
        ensure!(r.name.is_empty() && r.below || wire, "{:?} is no name", r.name);
        ensure!(r.name == r.name.to_ascii_lowercase(), "{:?} must be in lower case", r.name);
        by_name.entry((&r.name, r.below)).or_default().push(r);
    }
    let mut out = BTreeMap::new();
    for name in by_name.keys() {
        let mut covering: Vec<_> = by_name.iter().filter(|(wide, _)| name_covers(**wide, *name)).collect();
        // The longest first; of one length, the name itself before what is below it.
        covering.sort_by_key(|((n, below), _)| (std::cmp::Reverse(n.len()), *below));
        let mut ask = None;
        let mut levels = Vec::new();
        for (_, rights) in covering {
            let mut level = Vec::new();
            for r in rights {
                match r.ports {
                    Some(ports) => level.push(port_right(ports, r.mask)?),
                    // The most specific one decides alone.
                    None => ask = ask.or(Some(r.mask & CEILING)),
                }
            }
            levels.push(level);
        }
        let (text, below) = name;
        let what = if *below { format!("*.{text}") } else { (*text).to_owned() };
        let hash = if text.is_empty() { 0 } else { key.name(text) };
        let hash = if *below { hash.wrapping_add(names::BELOW) } else { hash };
        ensure!(
            out.insert(hash, entry(&what, ask.unwrap_or(0), levels.into_iter())?).is_none(),
            "the hash of {what} collides with another name's: restart the agent, which takes another key"
        );
    }
    Ok(out)
}

/// A right's mask. One that nobody holds is an entry all the same; 0 says that it is forbidden.
fn holders(mask: u64) -> u64 {
    mask & CEILING | if mask & CEILING == 0 && mask != 0 { NOBODY } else { 0 }
}

fn path_rights(all: &[&PathRight], key: &names::Key) -> Result<BTreeMap<u64, PathRights>> {
    let mut out: BTreeMap<u64, (&str, PathRights)> = BTreeMap::new();
    for r in all {
        let hash = match r.path.strip_prefix('@') {
            Some(name) => key.abstract_name(name.as_bytes()),
            None => {
                ensure!(r.path.starts_with('/'), "{:?} is no absolute path", r.path);
                key.path(r.path.as_bytes())
            }
        };
        let (path, rights) = out.entry(hash).or_insert((&r.path, PathRights::default()));
        ensure!(
            path.trim_end_matches('/') == r.path.trim_end_matches('/'),
            "the hash of {} collides with that of {path}: restart the agent, which takes another key",
            r.path
        );
        let span = match r.span {
            Span::Exact => span::EXACT,
            Span::Children => span::CHILDREN,
            Span::Subtree => span::SUBTREE,
        };
        let access = access_of(r.access);
        rights.said |= said_bit(span, access);
        if let Some(mask) = rights.mask.get_mut(span as usize).and_then(|of| of.get_mut(access as usize)) {
            *mask = holders(r.mask);
        }
    }
    Ok(out.into_iter().map(|(hash, (_, rights))| (hash, rights)).collect())
}

fn access_of(access: PathAccess) -> u32 {
    match access {
        PathAccess::Read => access::READ,
        PathAccess::Write => access::WRITE,
        PathAccess::Delete => access::DELETE,
        PathAccess::Change => access::CHANGE,
        PathAccess::Exec => access::EXEC,
        PathAccess::Unix => access::UNIX,
    }
}

/// Whether the kernel decides about it at all.
fn is_judged(policy: &Policy, right: &PathRight) -> bool {
    policy.families.contains(&match right.access {
        PathAccess::Exec => Family::Exec,
        PathAccess::Unix => Family::Unix,
        _ => Family::File,
    })
}

/// All entries of a policy. `named`: more rights to paths.
///
/// # Errors
/// When it cannot be said in the kernel's terms.
pub(super) fn compile(policy: &Policy, named: &[PathRight], key: &names::Key) -> Result<Entries> {
    let mut tools: Vec<(u64, ToolValue)> = Vec::new();
    for tool in &policy.tools {
        ensure!(
            TOOL_BITS >> tool.bit.min(63) & 1 == 1,
            "tool {:?} has bit {}, which is none of a tool",
            tool.name,
            tool.bit
        );
        let hash = abi::scan::fnv(tool.name.as_bytes());
        ensure!(
            tools.iter().all(|(h, _)| *h != hash),
            "the hash of tool {:?} collides with another one's",
            tool.name
        );
        tools.push((hash, ToolValue { bit: u64::from(tool.bit), settle_ns: tool.settle_ns }));
    }
    let families = policy.families.iter().fold(0, |bits, f| {
        bits | match f {
            Family::Network => family::NETWORK,
            Family::Listen => family::LISTEN,
            Family::Exec => family::EXEC,
            Family::File => family::FILE,
            Family::Unix => family::UNIX,
            Family::Dangerous => family::DANGEROUS,
        }
    });
    let paths: Vec<&PathRight> =
        policy.paths.iter().chain(named).filter(|right| is_judged(policy, right)).collect();
    Ok(Entries {
        tools,
        connect: nets(&policy.connect)?,
        listen: nets(&policy.listen)?,
        names: name_rights(&policy.names, key)?,
        paths: path_rights(&paths, key)?,
        families,
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn net(address: &str, prefix: u8, ports: (u16, u16), mask: u64) -> NetRight {
        let address = address.parse().expect("an address");
        NetRight { address, prefix, ports: Ports { from: ports.0, to: ports.1, protocol: 6 }, mask }
    }

    /// As the kernel reads it.
    fn mask_of(rights: &Rights, port: u16) -> Option<u64> {
        let list = rights.ports.iter().take_while(|r| r.mask != 0 || r.deny != 0);
        let first = list.clone().find(|r| (r.from..=r.to).contains(&port))?;
        (first.mask & CEILING != 0).then_some(first.mask & CEILING)
    }

    #[test]
    fn a_longer_prefix_holds_what_covers_it() {
        let all = [
            net("10.0.0.0", 8, (443, 443), 1),
            net("10.1.2.3", 32, (80, 80), 2),
            net("10.1.0.0", 16, (0, 65535), 0),
            net("10.2.0.0", 16, (443, 443), NOBODY),
            net("0.0.0.0", 0, (443, 443), 4),
        ];
        let map = nets(&all).expect("fits");
        let at = |a: &str, p: u8| map.get(&(words(a.parse().expect("an address")), p)).expect("an entry");
        assert_eq!(mask_of(at("10.1.2.3", 128), 80), Some(2));
        assert_eq!(mask_of(at("10.1.2.3", 128), 443), None, "the /16 says nobody");
        assert_eq!(mask_of(at("10.1.0.0", 112), 443), None);
        assert_eq!(mask_of(at("10.2.0.0", 112), 443), None, "nobody holds it");
        assert_eq!(at("10.2.0.0", 112).ports.map(|r| r.deny).iter().sum::<u16>(), 0, "but no rule denies it");
        assert_eq!(mask_of(at("10.0.0.0", 104), 443), Some(1), "the most specific one decides alone");
        assert_eq!(mask_of(at("10.0.0.0", 104), 80), None);
        assert_eq!(map.len(), 5);
        assert!(map.contains_key(&(words(IpAddr::V6(Ipv6Addr::from(0xffff_0000_0000u128))), 96)));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let all: Vec<_> = (0..9).map(|i| net("192.0.2.1", 32, (i, i), 1)).collect();
        let e = nets(&all).expect_err("nine rights");
        assert!(e.to_string().contains("192.0.2.1/128"), "{e}");
        assert!(nets(&all[..8]).is_ok());
        assert!(nets(&[net("192.0.2.1", 33, (1, 1), 1)]).is_err());
        assert!(nets(&[net("192.0.2.1", 32, (2, 1), 1)]).is_err());
    }

    #[test]
    fn names_inherit_and_prohibitions_end_it() {
        let key = names::Key::new(1, 2);
        let right = |name: &str, below, ports: Option<u16>, mask| NameRight {
            name: name.into(),
            below,
            ports: ports.map(|p| Ports { from: p, to: p, protocol: 6 }),
            mask,
        };
        let all = [
            right("example.com", true, Some(443), 1),
            right("api.example.com", false, Some(80), 2),
            right("example.com", true, None, 16),
            right("evil.example.com", false, None, 0),
            right("only.example.org", false, None, 8),
        ];
        let map = name_rights(&all, &key).expect("fits");
        let api = map[&key.name("api.example.com")];
        assert_eq!((api.ask, mask_of(&api, 443), mask_of(&api, 80)), (16, Some(1), Some(2)));
        let evil = map[&key.name("evil.example.com")];
        assert_eq!(evil.ask, 0, "nobody may ask");
        let only = map[&key.name("only.example.org")];
        assert_eq!((only.ask, mask_of(&only, 443)), (8, None));
        assert!(map.contains_key(&key.name("example.com").wrapping_add(names::BELOW)));
        assert!(name_rights(&[right("Upper.example", false, None, 1)], &key).is_err());
        assert!(name_rights(&[right("a..b", false, None, 1)], &key).is_err());
    }

    #[test]
    fn a_path_has_one_entry_for_all_that_is_said_of_it() {
        let key = names::Key::new(1, 2);
        let right = |path: &str, span, access, mask| PathRight { path: path.into(), span, access, mask };
        let all = [
            right("/srv/", Span::Subtree, PathAccess::Read, 1),
            right("/srv", Span::Exact, PathAccess::Exec, 0),
            right("@bus", Span::Exact, PathAccess::Unix, NOBODY),
        ];
        let map = path_rights(&all.iter().collect::<Vec<_>>(), &key).expect("fits");
        assert_eq!(map.len(), 2);
        let srv = map[&key.path(b"/srv")];
        assert_eq!(srv.said, said_bit(span::SUBTREE, access::READ) | said_bit(span::EXACT, access::EXEC));
        assert_eq!((srv.mask[2][0], srv.mask[0][4]), (1, 0));
        assert_eq!(map[&key.abstract_name(b"bus")].mask[0][5], NOBODY);
        assert!(path_rights(&[&right("srv", Span::Exact, PathAccess::Read, 1)], &key).is_err());
    }

    #[test]
    fn hashes_of_suffixes_are_those_of_names() {
        // What the kernel does at each boundary: take the first label off, and divide.
        let key = names::Key::new(0x1234_5678_9abc_def0, 0xfeed_beef);
        let label = |l: &str| l.bytes().fold(key.seed, |h, b| key.byte(h, b));
        let rest = key.name("a.bc.example.com").wrapping_sub(label("a")).wrapping_mul(key.inverse);
        assert_eq!(rest, key.name("bc.example.com"));
        assert_eq!(rest.wrapping_sub(label("bc")).wrapping_mul(key.inverse), key.name("example.com"));
    }
}
