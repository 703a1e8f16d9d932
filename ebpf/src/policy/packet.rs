//! What leaves and enters by packet: the second line behind connect and sendmsg. It holds for sockets that were
//! connected before their tree was tracked, inherited, or passed by others, and for raw ones.
//!
//! A packet is judged by the *ceiling*: which call a long connection serves no packet says. A peer that was
//! permitted stays so while its name has the right, however long ago it was asked for.

use abi::{
    Denied, Owner, counter, denied_flag, denied_op, kind, owner_flag,
    policy::{CEILING, Question, RATE_OWED, TreePolicy, family, tree_flag},
};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_ringbuf_reserve, bpf_ringbuf_submit, bpf_skb_load_bytes},
};

use super::{
    deny::{self, Actor, Object},
    held_to,
    live::live,
    maps::RATES,
    names,
    verdict::{FORBIDDEN, name_of, of_any, of_name, of_own, port_of, who_may_ask},
};
use crate::{
    maps::{EVENTS, OWNERS, PROCS, TREES},
    packet::{Headers, PASS, parse},
    record::{Aggregated, add, aggregate, aggregate_lost, count, lost, new_id},
    track::{epoch, now},
};

/// The sender sees EPERM.
const DROP: u64 = 0;
/// Dropped as a full queue drops it: the sender slows down. Only outbound.
const CONGESTED: u64 = 2;
/// Headers of a TCP packet without payload, at most.
const EMPTY: u64 = 128;

/// A packet of a socket that somebody owns.
struct Seen {
    owner: *mut Owner,
    /// Remote address, v4-mapped.
    addr: [u64; 2],
    /// Own address.
    own: [u64; 2],
    /// Remote port, and protocol above 16 bits.
    port: u64,
    /// Own port, likewise.
    own_port: u64,
    /// Bytes of the payload.
    len: u64,
}

/// What becomes of a packet of a tree that is held to something: a return value of the program, and above eight bits which
/// [`denied_op`] is to be told by [`tell`]. (Both in one would not fit the stack.)
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge(skb: *mut __sk_buff, cookie: u64, out: u64) -> u64 {
    let out = out != 0;
    let Some(owner) = OWNERS.get_ptr_mut(cookie) else {
        return PASS as u64;
    };
    // SAFETY: a live map value.
    let Some(held) = held_to(unsafe { (*owner).tree }) else {
        return PASS as u64;
    };
    let Some(h) = parse(skb, out) else {
        // Nothing that anybody could read.
        return if held.flags & (tree_flag::ENFORCE | tree_flag::CUT) != 0 { DROP } else { PASS as u64 };
    };
    let seen = Seen {
        owner,
        addr: h.peer,
        own: h.own,
        port: port_of(h.port, h.protocol),
        own_port: port_of(h.own_port, h.protocol),
        len: u64::from(h.len),
    };
    if held.flags & tree_flag::CUT != 0 {
        return DROP | u64::from(if out { denied_op::CUT_OUT } else { denied_op::CUT_IN }) << 8;
    }
    // SAFETY: the program's context.
    let bytes = u64::from(unsafe { (*skb).len });
    // A TCP packet that only says what has come.
    let empty = h.protocol == TCP && h.len == 0 && bytes <= EMPTY;
    if held.flags & tree_flag::RATE != 0 && !within_rate(held.root, bytes, out, empty) {
        return if out { CONGESTED } else { DROP };
    }
    let refused = if held.flags & tree_flag::ENFORCE != 0 { DROP } else { PASS as u64 };
    if held.flags & (tree_flag::ENFORCE | tree_flag::DRY_RUN) != 0 && held.families & family::NETWORK != 0 {
        if out {
            if seen.port == QUESTION || seen.port == QUESTION_TCP && seen.len != 0 {
                return PASS as u64 | IS_DNS;
            }
            let what = may_leave(&seen, &held);
            if what != 0 {
                if refused == DROP {
                    // SAFETY: a live map value.
                    unsafe { (*owner).flags |= owner_flag::DENIED };
                }
                return refused | u64::from(what) << 8;
            }
        } else if (seen.port == QUESTION || seen.port == QUESTION_TCP) && seen.len != 0 {
            return PASS as u64 | IS_DNS;
        }
    }
    PASS as u64
}

const TCP: u32 = 6;

/// In what [`judge`] returns: see [`ask`] and [`heard`].
pub const IS_DNS: u64 = 1 << 16;

/// UDP to port 53.
const QUESTION: u64 = 53 | 17 << 16;
/// TCP to port 53. A segment that carries bytes must be one whole question: resolvers of programs write it at once, and of a piece nobody
/// could say what it asks for.
const QUESTION_TCP: u64 = 53 | 6 << 16;

/// 0 when a packet may leave, else what it is denied as.
#[inline(always)]
fn may_leave(seen: &Seen, held: &TreePolicy) -> u32 {
    let policy = u64::from(held.policy);
    // SAFETY: a live map value.
    let (flags, permitted, right, same) = unsafe {
        let o = seen.owner;
        let same = (*o).port == seen.port && (*o).peer[0] == seen.addr[0] && (*o).peer[1] == seen.addr[1];
        ((*o).flags, (*o).policy, (*o).right, same && (*o).policy != 0)
    };
    if same && permitted == held.policy {
        return 0;
    }
    // It answers; who may listen there may answer.
    if flags & owner_flag::SERVES != 0
        && (held.families & family::LISTEN == 0
            || of_own(policy, seen.own[0], seen.own[1], seen.own_port) & CEILING != 0)
    {
        return 0;
    }
    let mut mask = of_any(held.root, policy, seen.addr, seen.port);
    let mut name = 0;
    if mask & (CEILING | FORBIDDEN) == 0 && same && right != 0 {
        // The policy has changed since; the name may still have the right.
        mask = of_name(policy, right, seen.port);
        name = right;
    }
    if mask & CEILING != 0 {
        let right = if name == 0 { name_of(held.root, policy, seen.addr, seen.port) } else { name };
        remember(seen, held.policy, right);
        return 0;
    }
    denied_op::PACKET
}

/// The next packet to that peer need not ask.
#[inline(always)]
fn remember(seen: &Seen, policy: u32, right: u64) {
    let o = seen.owner;
    // SAFETY: a live map value. The policy is taken out while the rest changes, so that no mixture is ever believed.
    unsafe {
        (&raw mut (*o).policy).write_volatile(0);
        (&raw mut (*o).peer).write_volatile(seen.addr);
        (&raw mut (*o).port).write_volatile(seen.port);
        (&raw mut (*o).right).write_volatile(right);
        (&raw mut (*o).policy).write_volatile(policy);
    }
}

/// The same for a question, as [`judge`] returns it: a name is data that goes out, whoever is asked.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ask(skb: *mut __sk_buff, cookie: u64) -> u64 {
    let Some(owner) = OWNERS.get_ptr(cookie) else {
        return PASS as u64;
    };
    // SAFETY: a live map value.
    let Some(held) = held_to(unsafe { (*owner).tree }) else {
        return PASS as u64;
    };
    let Some(h) = parse(skb, true) else { return DROP };
    let ((at, len), now, policy) = (message(skb, &h), now(), u64::from(held.policy));
    let name = names::asked_for(skb, at, len);
    let right = right_to_ask(skb, at, policy, name);
    let may = who_may_ask(policy, right) & live_of(owner, &held, now) & CEILING != 0;
    let dry = held.flags & tree_flag::ENFORCE == 0;
    if right != 0 && (may || dry) {
        names::asked(skb, at, cookie, h.peer, Question { tree: held.root, name, right, at_ns: now });
    }
    if may {
        return PASS as u64;
    }
    u64::from(denied_op::QUESTION) << 8 | if dry { PASS as u64 } else { DROP }
}

/// An answer comes in.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn heard(skb: *mut __sk_buff, cookie: u64) -> u64 {
    if let Some(h) = parse(skb, false) {
        // An answer over TCP may be in several segments: what is in the first one binds.
        let prefix = if h.protocol == TCP { 2 } else { 0 };
        names::answered(skb, u64::from(h.at) + prefix, cookie, h.peer);
    }
    0
}

/// Where a DNS message begins, and how long it is. Over TCP its length comes first, and one that is not all of the segment is none.
#[inline(always)]
fn message(skb: *mut __sk_buff, h: &Headers) -> (u64, u64) {
    let (at, len) = (u64::from(h.at), u64::from(h.len));
    if h.protocol != TCP {
        return (at, len);
    }
    let said = names::load::<2>(skb, at).map_or(0, |b| u64::from(b[0]) << 8 | u64::from(b[1]));
    (at + 2, if said + 2 == len { said } else { 0 })
}

#[inline(always)]
fn right_to_ask(skb: *mut __sk_buff, at: u64, policy: u64, name: u64) -> u64 {
    if name == 0 { 0 } else { names::name_right(skb, at + 12, policy, name) }
}

/// Scopes that are live for the owner of a socket: the process that acts, as far as anybody can tell here.
#[inline(always)]
fn live_of(owner: *const Owner, held: &TreePolicy, at: u64) -> u64 {
    // SAFETY: live map values.
    let born = unsafe {
        let tree = (*owner).tree;
        PROCS.get_ptr((*owner).tgid).map_or(0, |p| if (*p).tree == tree { (*p).born } else { 0 })
    };
    live(held.root, born, at)
}

/// Tells of a packet what [`judge`] found.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell(skb: *mut __sk_buff, cookie: u64, what: u64) -> u64 {
    let op = what as u32;
    let Some(owner) = OWNERS.get_ptr(cookie) else {
        return 0;
    };
    // SAFETY: a live map value.
    let (tree, tgid) = unsafe { ((*owner).tree, (*owner).tgid) };
    let Some(held) = held_to(tree) else { return 0 };
    let Some(h) = parse(skb, op != denied_op::CUT_IN) else {
        return 0;
    };
    let at = now();
    let policy = u64::from(held.policy);
    let cut = op == denied_op::CUT_OUT || op == denied_op::CUT_IN;
    let mut object =
        Object { addr: h.peer, port: port_of(h.port, h.protocol), op, family: family::NETWORK, flags: 0 };
    let mut name = 0;
    let mut mask = 0;
    let (start, len) = message(skb, &h);
    if op == denied_op::QUESTION {
        name = names::asked_for(skb, start, len);
        mask = who_may_ask(policy, right_to_ask(skb, start, policy, name));
    } else if !cut {
        mask = of_any(held.root, policy, h.peer, object.port);
    }
    if mask & FORBIDDEN != 0 {
        object.flags |= denied_flag::FORBIDDEN;
    }
    if held.flags & tree_flag::ENFORCE == 0 && !cut {
        object.flags |= denied_flag::DRY_RUN;
    } else {
        count(counter::DENIED, 1);
    }
    let epoch = TREES.get_ptr(tree).map_or(0, |t| epoch(t, at));
    let actor = Actor { tree, tgid, live: live_of(owner, &held, at), held: mask & CEILING, at, epoch };
    if op == denied_op::QUESTION {
        told_question(skb, start | u64::from(h.len) << 32, &actor, &object, name);
    } else {
        deny::told_packet(&actor, &object);
    }
    0
}

/// Bytes of a question that are told.
const NAME: usize = 256;

#[repr(C)]
struct Reserved {
    denied: Denied,
    name: [u8; NAME],
}

/// Writes the record of a question, with its name.
#[inline(never)]
fn told_question(skb: *mut __sk_buff, place: u64, actor: &Actor, object: &Object, name: u64) {
    // Five arguments are all that there may be.
    let (at, len) = (place as u32, (place >> 32) as u32);
    let id = new_id(actor.at, kind::DENIED);
    // A tunnel asks for ever new names: 64 of them are told in an epoch, the rest is counted.
    let key = deny::key(actor, object, name & 63);
    let Aggregated::Record(flags) = aggregate(&key, id, 0, 0) else {
        return;
    };
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the ring map; the reservation is checked, filled and submitted or discarded.
    unsafe {
        let r = bpf_ringbuf_reserve(ring, size_of::<Reserved>() as u64, 0).cast::<Reserved>();
        if r.is_null() {
            lost(kind::DENIED, true);
            aggregate_lost(&key, flags);
            return;
        }
        deny::fill_packet(&raw mut (*r).denied, actor, object, id, flags);
        let len = if len > 12 { u64::from(len) - 12 } else { 1 };
        let len = if len > NAME as u64 { NAME as u64 } else { len };
        let n = mask!(len - 1, 255) + 1;
        (*r).denied.len = n as u32;
        let data = (&raw mut (*r).name).cast::<u8>();
        // What is no plain question has no name, and what stands at its place may be another's.
        if name == 0 || bpf_skb_load_bytes(skb.cast(), at + 12, data.cast(), n as u32) != 0 {
            (*r).denied.len = 0;
        }
        bpf_ringbuf_submit(r.cast(), 1);
    }
    count(counter::WRITTEN, 1);
}

/// Whether the bucket of a tree has room; takes the bytes out of it. A packet may make it owe: else one that is
/// larger than the bucket would never pass. An empty one passes although it owes that much: without its acknowledgements the
/// other direction would stand still for as long as this one is busy.
#[inline(always)]
fn within_rate(root: u64, bytes: u64, out: bool, empty: bool) -> bool {
    let Some(rate) = RATES.get_ptr_mut(root) else {
        return true;
    };
    let at = now();
    // SAFETY: a live map value. Two processors that meet here may each let a packet through: nothing adds up.
    unsafe {
        let per_s = (*rate).bytes_per_s;
        let gone = at.wrapping_sub((*rate).start_ns);
        let (s, ns) = (gone / 1_000_000_000, gone % 1_000_000_000);
        let credit = s * per_s + ns / 1000 * per_s / 1_000_000 + (*rate).burst;
        let spent = if out { &raw mut (*rate).out } else { &raw mut (*rate).inward };
        let used = spent.read_volatile();
        if used >= credit + if empty { RATE_OWED } else { 0 } {
            add(&raw mut (*rate).dropped, 1);
            count(counter::RATE_DROPPED, 1);
            return false;
        }
        if used + (*rate).burst < credit {
            // It was full: what would have overflowed is gone.
            spent.write_volatile(credit - (*rate).burst + bytes);
        } else {
            add(spent, bytes);
        }
    }
    true
}
