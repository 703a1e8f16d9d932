//! Packets of tracked sockets, from the cgroup hooks at the root of the v2 hierarchy: payload bytes
//! by socket and epoch, DNS, the first TLS handshake. They run in softirq or preemptible, so large
//! payloads go straight into a ring reservation.

use abi::{AggKey, Flow, Header, Owner, Packet, kind, owner_flag, packet, run};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};

use crate::{
    kernel::{AF_INET, AF_INET6, read},
    maps::{EVENTS, LISTENERS, OWNERS, TREES},
    policy::{self, names::load, verdict::mapped},
    record::{Aggregated, Urgency, aggregate, aggregate_lost, count, lost, new_id, output},
    track::{epoch, find, maybe, now, ran, running_tgid},
};

/// It goes on.
pub const PASS: i32 = 1;
/// It does not.
const DROP: i32 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_SYN_SENT: u8 = 2;
const TCP_LISTEN: u8 = 10;
const SOCK_STREAM: u16 = 1;
const SOCK_DGRAM: u16 = 2;
const SOCK_RAW: u16 = 3;

/// Sent.
#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    packet_seen(&ctx, true)
}

/// Received.
#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    packet_seen(&ctx, false)
}

/// What the headers say, as seen from the socket. Addresses are 128 bits, IPv4 v4-mapped.
pub struct Headers {
    /// The remote end.
    pub peer: [u64; 2],
    /// This end.
    pub own: [u64; 2],
    /// IPPROTO_*
    pub protocol: u32,
    /// Remote port; ports are 0 where there are none: neither TCP nor UDP, or a later fragment.
    pub port: u32,
    /// Own port.
    pub own_port: u32,
    /// Where the payload begins.
    pub at: u32,
    /// Bytes of payload; 0 where there are no ports.
    pub len: u32,
    /// Of TCP: the number of the first one in its stream.
    pub seq: u32,
    /// IPv4.
    pub four: bool,
}

/// Reads them.
#[inline(always)]
pub fn parse(skb: *mut __sk_buff, out: bool) -> Option<Headers> {
    let first: [u8; 12] = load(skb, 0)?;
    let four = first[0] >> 4 == 4;
    let (source, target, protocol, at, later);
    if four {
        let a: [u8; 8] = load(skb, 12)?;
        source = mapped(u32::from_ne_bytes([a[0], a[1], a[2], a[3]]));
        target = mapped(u32::from_ne_bytes([a[4], a[5], a[6], a[7]]));
        protocol = first[9];
        at = u32::from(first[0] & 15) * 4;
        later = first[6] & 0x1f | first[7] != 0;
    } else {
        source = [u64::from_ne_bytes(load(skb, 8)?), u64::from_ne_bytes(load(skb, 16)?)];
        target = [u64::from_ne_bytes(load(skb, 24)?), u64::from_ne_bytes(load(skb, 32)?)];
        protocol = first[6];
        at = 40;
        later = false;
    }
    let (peer, own) = if out { (target, source) } else { (source, target) };
    let mut h =
        Headers { peer, own, protocol: u32::from(protocol), port: 0, own_port: 0, at, len: 0, seq: 0, four };
    if later || protocol != TCP && protocol != UDP {
        return Some(h);
    }
    let ports: [u8; 4] = load(skb, u64::from(at))?;
    let source = u32::from(ports[0]) << 8 | u32::from(ports[1]);
    let target = u32::from(ports[2]) << 8 | u32::from(ports[3]);
    let head = if protocol == TCP {
        let b: [u8; 9] = load(skb, u64::from(at) + 4)?;
        h.seq = u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
        u32::from(b[8] >> 4) * 4
    } else {
        8
    };
    (h.port, h.own_port) = if out { (target, source) } else { (source, target) };
    h.at = at + head;
    // SAFETY: the program's context.
    h.len = unsafe { (*skb).len }.saturating_sub(at + head);
    Some(h)
}

/// The owner of an accepted socket: its cookie is new, its local port is the listener's.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn accepted(skb: *mut __sk_buff, cookie: u64) -> u64 {
    let Some(h) = parse(skb, false) else { return 0 };
    if h.protocol != u32::from(TCP) {
        return 0;
    }
    let Some(owner) = LISTENERS.get_ptr(h.own_port) else {
        return 0;
    };
    // SAFETY: a live map value.
    let mut owner = unsafe { *owner };
    owner.flags |= owner_flag::SERVES;
    if OWNERS.insert(cookie, owner, 0).is_err() {
        count(abi::counter::OWNERS_FULL, 1);
        return 0;
    }
    1
}

/// The `struct sock` of a packet, to read from; 0 where there is none.
#[inline(always)]
fn sock(skb: *mut __sk_buff) -> usize {
    // SAFETY: the program's context.
    let pointer = unsafe { (&raw const (*skb).__bindgen_anon_2.sk).read_volatile() } as usize;
    if pointer == 0 {
        return 0;
    }
    // A verifier lets nobody calculate with the pointer itself, but read the place where it is kept.
    let kept = [pointer];
    read(core::hint::black_box(kept.as_ptr()) as usize)
}

/// Bytes of payload that are new: a stream that sends or gets a part of itself again carries it once. What its own socket has
/// yet to look at (its process holds it) is not known as received.
#[inline(always)]
fn fresh(skb: *mut __sk_buff, h: &Headers, out: bool) -> u32 {
    let next = if out { off!(tcp_snd_nxt) } else { off!(tcp_rcv_nxt) };
    if h.protocol != u32::from(TCP) || next == abi::offsets::ABSENT as usize {
        return h.len;
    }
    let sk = sock(skb);
    // Raw sockets send what looks like a stream's; a stream that is not yet connected has no numbers.
    if sk == 0
        || read::<u16>(sk + off!(sk_type)) != SOCK_STREAM
        || read::<u16>(sk + off!(sk_protocol)) != u16::from(TCP)
        || matches!(read::<u8>(sk + off!(sk_state)), TCP_LISTEN | TCP_SYN_SENT)
    {
        return h.len;
    }
    let known = read::<u32>(sk + next).wrapping_sub(h.seq) as i32;
    if known > 0 { h.len.saturating_sub(known as u32) } else { h.len }
}

/// Whether the process that runs is the one that sends: else a softirq does, and who runs is chance. A datagram leaves in
/// its sender's own call; a stream's packets do while a process holds the socket, unless it listens: new connections are
/// answered without its lock. The kernel's own sockets (which answer pings and stray segments) are nobody's.
#[inline(always)]
fn in_process(skb: *mut __sk_buff) -> bool {
    let absent = abi::offsets::ABSENT as usize;
    if off!(sk_owned) == absent || off!(sk_socket) == absent || off!(socket_file) == absent {
        return false;
    }
    let sk = sock(skb);
    if sk == 0 {
        return false;
    }
    let socket: usize = read(sk + off!(sk_socket));
    if socket == 0 || read::<usize>(socket + off!(socket_file)) == 0 {
        return false;
    }
    let kind: u16 = read(socket + off!(socket_type));
    if kind == SOCK_DGRAM || kind == SOCK_RAW {
        return true;
    }
    read::<u8>(sk + off!(sk_state)) != TCP_LISTEN && read::<u32>(sk + off!(sk_owned)) != 0
}

/// A socket that a tracked process uses is its tree's from then on, whoever made it: inherited, passed, or older than the
/// tree. What was written into a stream cannot be taken out of it again, so that holds for all that it sends.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn used(skb: *mut __sk_buff, cookie: u64, tgid: u64) -> u64 {
    let Some((proc, _)) = find(tgid as u32) else {
        return 0;
    };
    // SAFETY: live map values.
    let (tree, known) =
        unsafe { ((*proc).tree, OWNERS.get_ptr(cookie).is_some_and(|o| (*o).tree == (*proc).tree)) };
    if known || !in_process(skb) {
        return 0;
    }
    let new =
        Owner { tree, tgid: tgid as u32, hello: 0, flags: 0, policy: 0, peer: [0; 2], port: 0, right: 0 };
    if OWNERS.insert(cookie, new, 0).is_err() {
        count(abi::counter::OWNERS_FULL, 1);
        // Whose it is would be forgotten: then nothing leaves.
        return u64::from(policy::is_denying(tree));
    }
    0
}

#[inline(always)]
fn packet_seen(ctx: &SkBuffContext, out: bool) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the program's context.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    if out {
        let tgid = running_tgid();
        if maybe(tgid) && used(skb, cookie, u64::from(tgid)) != 0 {
            return DROP;
        }
    }
    let Some(owner) = OWNERS.get_ptr(cookie) else {
        if !out && accepted(skb, cookie) != 0 {
            seen(skb, cookie, 0);
        }
        return PASS;
    };
    ran(if out { run::EGRESS } else { run::INGRESS });
    // SAFETY: a live map value.
    let (tree, flags) = unsafe { ((*owner).tree, (*owner).flags) };
    if out && flags & owner_flag::CLOSED != 0 {
        return DROP;
    }
    if policy::is_held(tree) {
        let mut verdict = policy::packet::judge(skb, cookie, u64::from(out));
        // Each in a function of its own: together they would not fit the stack.
        if verdict & policy::packet::IS_DNS != 0 {
            if out {
                verdict = policy::packet::ask(skb, cookie);
            } else {
                policy::packet::heard(skb, cookie);
                verdict = PASS as u64;
            }
        }
        if verdict >> 8 != 0 {
            policy::packet::tell(skb, cookie, verdict >> 8);
        }
        let verdict = verdict & 0xff;
        if verdict != PASS as u64 {
            // A verifier must see which values there are.
            return if out { mask!(verdict, 3) as i32 } else { DROP };
        }
    }
    seen(skb, cookie, u64::from(out));
    PASS
}

/// What is told of a packet.
struct Seen {
    owner: Owner,
    cookie: u64,
    addr: [u64; 2],
    family: u32,
    h: Headers,
}

/// Tells of a packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn seen(skb: *mut __sk_buff, cookie: u64, out: u64) -> u64 {
    let out = out != 0;
    let Some(owner) = OWNERS.get_ptr(cookie) else {
        return 0;
    };
    let Some(h) = parse(skb, out) else {
        return 0;
    };
    if h.len == 0 {
        return 0;
    }
    // SAFETY: a live map value.
    let owner = unsafe { *owner };
    let Some(tree) = TREES.get_ptr(owner.tree) else {
        return 0;
    };
    let (addr, family) = if h.four { ([h.peer[1] >> 32, 0], AF_INET) } else { (h.peer, AF_INET6) };
    let seen = Seen { owner, cookie, addr, family, h };
    let at = now();
    let epoch = epoch(tree, at);
    let fresh = fresh(skb, &seen.h, out);
    if fresh != 0 {
        flow(&seen, at, epoch, out, fresh);
    }
    if seen.h.protocol == u32::from(UDP) && seen.h.port == 53 {
        payload(skb, &seen, at, epoch, if out { packet::DNS_QUERY } else { packet::DNS_ANSWER });
    } else if out && seen.h.protocol == u32::from(TCP) && owner.hello == 0 {
        hello(skb, &seen, at, epoch);
    }
    0
}

#[inline(always)]
fn fill(h: *mut Header, seen: &Seen, kind: u16, at: u64, epoch: u32, id: u64, flags: u32) {
    // SAFETY: a ring reservation or the stack. No current process here: the owner acts.
    unsafe {
        (*h).abi = abi::ABI;
        (*h).kind = kind;
        (*h).flags = flags;
        (*h).tgid = seen.owner.tgid;
        (*h).tid = 0;
        (*h).lost_before = 0;
        (*h).epoch = epoch;
        (*h).id = id;
        (*h).at_ns = at;
        (*h).tree = seen.owner.tree;
        (*h).uid = u32::MAX;
        (*h).vital_lost_before = 0;
    }
}

#[inline(always)]
fn flow(seen: &Seen, at: u64, epoch: u32, out: bool, fresh: u32) {
    let id = new_id(at, kind::FLOW);
    let (bytes_out, bytes_in) = if out { (u64::from(fresh), 0) } else { (0, u64::from(fresh)) };
    let key = AggKey {
        tgid: seen.owner.tgid,
        epoch,
        kind: u32::from(kind::FLOW),
        sub: seen.h.protocol,
        words: [seen.cookie, seen.addr[0], seen.addr[1], u64::from(seen.h.port)],
    };
    let Aggregated::Record(flags) = aggregate(&key, id, bytes_out, bytes_in) else {
        return;
    };
    let mut record = core::mem::MaybeUninit::<Flow>::zeroed();
    let r = record.as_mut_ptr();
    fill(r.cast(), seen, kind::FLOW, at, epoch, id, flags);
    // SAFETY: the record on the stack.
    unsafe {
        (*r).cookie = seen.cookie;
        (&raw mut (*r).addr).cast::<[u64; 2]>().write_unaligned(seen.addr);
        (*r).family = seen.family;
        (*r).protocol = seen.h.protocol;
        (*r).port = seen.h.port;
        (*r).local_port = seen.h.own_port;
        (*r).bytes_out = bytes_out;
        (*r).bytes_in = bytes_in;
    }
    if !output(r.cast(), size_of::<Flow>() as u64, kind::FLOW, Urgency::Bulk) {
        aggregate_lost(&key, flags);
    }
}

/// The first payload that a TCP socket sends: a TLS handshake record with a client hello?
#[inline(always)]
fn hello(skb: *mut __sk_buff, seen: &Seen, at: u64, epoch: u32) {
    if let Some(o) = OWNERS.get_ptr_mut(seen.cookie) {
        // SAFETY: a live map value.
        unsafe { (*o).hello = 1 };
    }
    if let Some(b) = load::<6>(skb, u64::from(seen.h.at))
        && b[0] == 0x16
        && b[1] == 3
        && b[5] == 1
    {
        payload(skb, seen, at, epoch, packet::TLS_HELLO);
    }
}

/// Payload bytes of a packet at most.
const PAYLOAD: usize = 2048;

/// The verifier wants a constant size for a reservation.
#[repr(C)]
struct Reserved {
    packet: Packet,
    data: [u8; PAYLOAD],
}

#[inline(always)]
fn payload(skb: *mut __sk_buff, seen: &Seen, at: u64, epoch: u32, what: u32) {
    use aya_ebpf::helpers::generated::{bpf_ringbuf_discard, bpf_ringbuf_reserve, bpf_ringbuf_submit};
    let cut = seen.h.len > PAYLOAD as u32;
    let n = if cut { PAYLOAD as u64 } else { u64::from(seen.h.len) };
    let n = mask!(n.wrapping_sub(1), 2047) + 1;
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the ring map; the reservation is checked, filled and submitted or discarded.
    unsafe {
        let r = bpf_ringbuf_reserve(ring, size_of::<Reserved>() as u64, 0).cast::<Reserved>();
        if r.is_null() {
            lost(kind::PACKET, true);
            return;
        }
        let flags = if cut { abi::flag::TRUNCATED } else { 0 };
        fill(r.cast(), seen, kind::PACKET, at, epoch, new_id(now(), kind::PACKET), flags);
        (*r).packet.cookie = seen.cookie;
        (&raw mut (*r).packet.addr).cast::<[u64; 2]>().write_unaligned(seen.addr);
        (*r).packet.what = what;
        (*r).packet.family = seen.family;
        (*r).packet.port = seen.h.port;
        (*r).packet.local_port = seen.h.own_port;
        (*r).packet.protocol = seen.h.protocol;
        (*r).packet.len = n as u32;
        let data = (&raw mut (*r).data).cast::<u8>();
        if bpf_skb_load_bytes(skb.cast(), seen.h.at, data.cast(), n as u32) != 0 {
            bpf_ringbuf_discard(r.cast(), 1);
            return;
        }
        bpf_ringbuf_submit(r.cast(), 1);
    }
    count(abi::counter::WRITTEN, 1);
}
