//! Rights of an address, and what they say of connect, sendmsg and bind.

use abi::{
    denied_flag, denied_op, net_op,
    policy::{BoundKey, CEILING, NET_PREFIX, NameKey, NetKey, RIGHTS, Rights, SHARED, family, tree_flag},
};
use aya_ebpf::btf_maps::lpm_trie::Key;

use super::{
    deny::{self, Object},
    judged,
    live::live,
    maps::{BOUND, CONNECT, LISTEN, NAMES, RESOLVERS},
};
use crate::track::now;

/// Beside a mask: a right says nobody.
pub const FORBIDDEN: u64 = 1 << 60;
/// Beside a port: any right of the object will do.
pub const ANY_PORT: u64 = 1 << 32;

const UDP: u64 = 17;

/// An IPv4 address as words of a v4-mapped one.
#[inline(always)]
pub fn mapped(four: u32) -> [u64; 2] {
    [0, 0xffff_0000 | u64::from(four) << 32]
}

/// Port and protocol as one word.
#[inline(always)]
pub fn port_of(port: u32, protocol: u32) -> u64 {
    u64::from(port & 0xffff) | u64::from(protocol & 0xffff) << 16
}

/// The mask of the first of an object's rights that covers a port: it decides alone. With [`ANY_PORT`]: of all.
#[inline(always)]
pub unsafe fn of_port(rights: *const Rights, port: u64) -> u64 {
    let (number, protocol) = (port as u16, (port >> 16) as u16);
    let any = port & ANY_PORT != 0;
    let mut mask = 0;
    for i in 0..RIGHTS {
        // SAFETY: a live map value; the agent never changes it in place.
        let r = unsafe { (&raw const (*rights).ports[i]).read_volatile() };
        if r.mask == 0 && r.deny == 0 {
            break;
        }
        let covers = any || number >= r.from && number <= r.to && (r.protocol == 0 || r.protocol == protocol);
        if !covers {
            continue;
        }
        if any {
            mask |= r.mask & CEILING;
            continue;
        }
        if r.deny != 0 {
            return FORBIDDEN;
        }
        return r.mask & CEILING;
    }
    mask
}

/// Who may connect to an address by its number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn of_peer(policy: u64, a0: u64, a1: u64, port: u64) -> u64 {
    let key = Key::new(NET_PREFIX + 128, NetKey { policy, addr: [a0, a1] });
    // SAFETY: a live map value.
    CONNECT.get(&key).map_or(0, |r| unsafe { of_port(r, port) })
}

/// Who may listen at an address.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn of_own(policy: u64, a0: u64, a1: u64, port: u64) -> u64 {
    let key = Key::new(NET_PREFIX + 128, NetKey { policy, addr: [a0, a1] });
    // SAFETY: a live map value.
    LISTEN.get(&key).map_or(0, |r| unsafe { of_port(r, port) })
}

/// Who may connect because of a name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn of_name(policy: u64, name: u64, port: u64) -> u64 {
    NAMES.get_ptr(NameKey { policy, name }).map_or(0, |r| {
        // SAFETY: a live map value.
        unsafe { of_port(r, port) }
    })
}

/// Who may ask for a name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn who_may_ask(policy: u64, name: u64) -> u64 {
    NAMES.get_ptr(NameKey { policy, name }).map_or(0, |r| {
        // SAFETY: a live map value.
        unsafe { (*r).ask }
    })
}

/// Names that an address is bound to for a tree now: the mask of their rights, or (`first`, in the bit above [`ANY_PORT`]) the first
/// that has any.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn of_bound(root: u64, policy: u64, a0: u64, a1: u64, port: u64) -> u64 {
    let Some(bound) = BOUND.get_ptr(BoundKey { tree: root, addr: [a0, a1] }) else {
        return 0;
    };
    let at = now();
    let mut mask = 0;
    for i in 0..SHARED {
        // SAFETY: a live map value; volatile, because an answer may change it meanwhile.
        let (right, until) = unsafe {
            ((&raw const (*bound).right[i]).read_volatile(), (&raw const (*bound).until[i]).read_volatile())
        };
        if until <= at {
            continue;
        }
        let held = of_name(policy, right, port);
        if held & CEILING != 0 && port & FIRST != 0 {
            return right;
        }
        mask |= held;
    }
    if port & FIRST != 0 { 0 } else { mask }
}

/// See [`of_bound`].
const FIRST: u64 = 1 << 33;

/// The name that permits a peer, 0 if there is none.
#[inline(always)]
pub fn name_of(root: u64, policy: u64, addr: [u64; 2], port: u64) -> u64 {
    of_bound(root, policy, addr[0], addr[1], port | FIRST)
}

/// Who may reach a peer, by number or by name. What a rule forbids by number, no name permits: an attacker's name may
/// point anywhere.
#[inline(always)]
pub fn of_any(root: u64, policy: u64, addr: [u64; 2], port: u64) -> u64 {
    let mask = of_peer(policy, addr[0], addr[1], port);
    if mask & FORBIDDEN != 0 {
        return mask;
    }
    let bound = of_bound(root, policy, addr[0], addr[1], port);
    if bound & FORBIDDEN != 0 {
        return FORBIDDEN;
    }
    mask | bound
}

/// Whether this host asks there for names: any tree that is judged may, as far as its questions are covered.
#[inline(always)]
pub fn is_resolver(addr: [u64; 2], port: u64) -> bool {
    port == 53 | UDP << 16 && RESOLVERS.get_ptr(addr).is_some()
}

/// `0.0.0.0` and `::` reach this host.
#[inline(always)]
fn canonical(addr: [u64; 2]) -> [u64; 2] {
    if addr[0] == 0 && addr[1] == 0 {
        return [0, 1 << 56];
    }
    if addr[0] == 0 && addr[1] == 0xffff_0000 {
        return [0, 0xffff_0000 | 0x0100_007f << 32];
    }
    addr
}

/// What is said of an act on an address.
pub struct Said {
    /// It must fail.
    pub deny: bool,
    /// The policy that permits the peer, and the name that does: packets need not ask again.
    pub policy: u32,
    /// See above.
    pub right: u64,
}

/// Judges connect, sendmsg and bind of a process. `addr` is 128 bits, v4-mapped.
#[expect(clippy::too_many_arguments, reason = "who, what and when of one act, in registers")]
#[inline(always)]
pub fn on_address(
    tree: u64,
    tgid: u32,
    born: u64,
    op: u32,
    addr: [u64; 2],
    port: u64,
    at: u64,
    epoch: u32,
) -> Said {
    let mut said = Said { deny: false, policy: 0, right: 0 };
    let kind = if op == net_op::BIND { family::LISTEN } else { family::NETWORK };
    let Some(held) = judged(tree, kind) else {
        return said;
    };
    let live = live(held.root, born, at);
    let policy = u64::from(held.policy);
    let (what, addr, mask) = if op == net_op::BIND {
        // Any port: most clients do that. Who then listens gets no answer out, see `packet`.
        if port & 0xffff == 0 {
            return said;
        }
        (denied_op::BIND, addr, of_own(policy, addr[0], addr[1], port))
    } else {
        let addr = canonical(addr);
        if is_resolver(addr, port) {
            return said;
        }
        let what = if op == net_op::CONNECT { denied_op::CONNECT } else { denied_op::SENDMSG };
        (what, addr, of_any(held.root, policy, addr, port))
    };
    if mask & live & CEILING != 0 {
        if op != net_op::BIND {
            said.policy = held.policy;
            said.right = name_of(held.root, policy, addr, port);
        }
        return said;
    }
    // Connecting a datagram socket sends nothing: resolver libraries do it to learn which address the host would use. Packets are judged.
    if what == denied_op::CONNECT
        && (port >> 16) & 0xffff == UDP
        && of_any(held.root, policy, addr, port | ANY_PORT) & live & CEILING != 0
    {
        return said;
    }
    let flags = if mask & FORBIDDEN != 0 { denied_flag::FORBIDDEN } else { 0 };
    said.deny = held.flags & tree_flag::ENFORCE != 0;
    let flags = if said.deny { flags } else { flags | denied_flag::DRY_RUN };
    let object = Object { addr, port, op: what, family: kind, flags };
    deny::told(&deny::Actor { tree, tgid, live, held: mask & CEILING, at, epoch }, &object);
    said
}
