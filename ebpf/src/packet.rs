//! Packets of tracked sockets, from the cgroup hooks at the root of the v2 hierarchy: payload bytes
//! by socket and epoch, DNS, the first TLS handshake. They run in softirq or preemptible, so large
//! payloads go straight into a ring reservation.

use abi::{AggKey, Flow, Header, Owner, Packet, kind, packet};
use aya_ebpf::{
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes},
    macros::cgroup_skb,
    programs::SkBuffContext,
};

use crate::{
    kernel::{AF_INET, AF_INET6},
    maps::{EVENTS, LISTENERS, OWNERS, TREES},
    record::{Aggregated, Urgency, aggregate, aggregate_lost, count, lost, new_id, output},
    track::{epoch, now},
};

const PASS: i32 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Sent.
#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    packet_seen(&ctx, true);
    PASS
}

/// Received.
#[cgroup_skb(ingress)]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    packet_seen(&ctx, false);
    PASS
}

/// What the headers say. Ports and address are the remote end's, as seen from the socket.
struct Seen {
    owner: Owner,
    cookie: u64,
    addr: [u64; 2],
    family: u32,
    protocol: u32,
    port: u32,
    local_port: u32,
    /// Where the payload begins, and its bytes.
    at: u32,
    len: u32,
}

#[inline(always)]
fn load<const N: usize>(ctx: &SkBuffContext, at: u32) -> Option<[u8; N]> {
    let mut b = [0u8; N];
    // SAFETY: N bytes into an array of N.
    let failed = unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), at, b.as_mut_ptr().cast(), N as u32) };
    if failed != 0 { None } else { Some(b) }
}

#[inline(always)]
fn owner_of(ctx: &SkBuffContext, cookie: u64, out: bool) -> Option<Owner> {
    if let Some(o) = OWNERS.get_ptr(cookie) {
        // SAFETY: a live map value.
        return Some(unsafe { *o });
    }
    if out {
        return None;
    }
    // An accepted socket: its cookie is new, its local port is the listener's.
    let first: [u8; 20] = load(ctx, 0)?;
    let at = if first[0] >> 4 == 4 { u32::from(first[0] & 15) * 4 } else { 40 };
    let protocol = if first[0] >> 4 == 4 { first[9] } else { first[6] };
    if protocol != TCP {
        return None;
    }
    let ports: [u8; 4] = load(ctx, at)?;
    let local = u32::from(ports[2]) << 8 | u32::from(ports[3]);
    let owner = LISTENERS.get_ptr(local)?;
    // SAFETY: a live map value.
    let owner = unsafe { *owner };
    if OWNERS.insert(cookie, owner, 0).is_err() {
        count(abi::counter::OWNERS_FULL, 1);
    }
    Some(owner)
}

#[inline(always)]
fn parse(ctx: &SkBuffContext, owner: Owner, cookie: u64, out: bool) -> Option<Seen> {
    let first: [u8; 20] = load(ctx, 0)?;
    // SAFETY: the program's context.
    let whole = unsafe { (*ctx.skb.skb).len };
    let (family, protocol, at, addr) = if first[0] >> 4 == 4 {
        let a: [u8; 4] = load(ctx, if out { 16 } else { 12 })?;
        (AF_INET, first[9], u32::from(first[0] & 15) * 4, [u64::from(u32::from_le_bytes(a)), 0])
    } else {
        let a: [u8; 8] = load(ctx, if out { 24 } else { 8 })?;
        let b: [u8; 8] = load(ctx, if out { 32 } else { 16 })?;
        (AF_INET6, first[6], 40, [u64::from_le_bytes(a), u64::from_le_bytes(b)])
    };
    let ports: [u8; 4] = load(ctx, at)?;
    let source = u32::from(ports[0]) << 8 | u32::from(ports[1]);
    let target = u32::from(ports[2]) << 8 | u32::from(ports[3]);
    let head = match protocol {
        TCP => {
            let words: [u8; 1] = load(ctx, at + 12)?;
            u32::from(words[0] >> 4) * 4
        }
        UDP => 8,
        _ => return None,
    };
    Some(Seen {
        owner,
        cookie,
        addr,
        family,
        protocol: u32::from(protocol),
        port: if out { target } else { source },
        local_port: if out { source } else { target },
        at: at + head,
        len: whole.saturating_sub(at + head),
    })
}

#[inline(always)]
fn packet_seen(ctx: &SkBuffContext, out: bool) {
    // SAFETY: the program's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.skb.skb.cast()) };
    let Some(owner) = owner_of(ctx, cookie, out) else {
        return;
    };
    let Some(seen) = parse(ctx, owner, cookie, out) else {
        return;
    };
    if seen.len == 0 {
        return;
    }
    let Some(tree) = TREES.get_ptr(owner.tree) else {
        return;
    };
    let at = now();
    let epoch = epoch(tree, at);
    flow(&seen, at, epoch, out);
    if seen.protocol == u32::from(UDP) && seen.port == 53 {
        payload(ctx, &seen, at, epoch, if out { packet::DNS_QUERY } else { packet::DNS_ANSWER });
    } else if out && seen.protocol == u32::from(TCP) && owner.hello == 0 {
        hello(ctx, &seen, at, epoch);
    }
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
fn flow(seen: &Seen, at: u64, epoch: u32, out: bool) {
    let id = new_id(at, kind::FLOW);
    let (bytes_out, bytes_in) = if out { (u64::from(seen.len), 0) } else { (0, u64::from(seen.len)) };
    let key = AggKey {
        tgid: seen.owner.tgid,
        epoch,
        kind: u32::from(kind::FLOW),
        sub: seen.protocol,
        words: [seen.cookie, seen.addr[0], seen.addr[1], u64::from(seen.port)],
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
        (*r).protocol = seen.protocol;
        (*r).port = seen.port;
        (*r).local_port = seen.local_port;
        (*r).bytes_out = bytes_out;
        (*r).bytes_in = bytes_in;
    }
    if !output(r.cast(), size_of::<Flow>() as u64, kind::FLOW, Urgency::Bulk) {
        aggregate_lost(&key, flags);
    }
}

/// The first payload that a TCP socket sends: a TLS handshake record with a client hello?
#[inline(always)]
fn hello(ctx: &SkBuffContext, seen: &Seen, at: u64, epoch: u32) {
    if let Some(o) = OWNERS.get_ptr_mut(seen.cookie) {
        // SAFETY: a live map value.
        unsafe { (*o).hello = 1 };
    }
    if let Some(b) = load::<6>(ctx, seen.at)
        && b[0] == 0x16
        && b[1] == 3
        && b[5] == 1
    {
        payload(ctx, seen, at, epoch, packet::TLS_HELLO);
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
fn payload(ctx: &SkBuffContext, seen: &Seen, at: u64, epoch: u32, what: u32) {
    use aya_ebpf::helpers::generated::{bpf_ringbuf_discard, bpf_ringbuf_reserve, bpf_ringbuf_submit};
    let cut = seen.len > PAYLOAD as u32;
    let n = if cut { PAYLOAD as u64 } else { u64::from(seen.len) };
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
        (*r).packet.port = seen.port;
        (*r).packet.local_port = seen.local_port;
        (*r).packet.protocol = seen.protocol;
        (*r).packet.len = n as u32;
        let data = (&raw mut (*r).data).cast::<u8>();
        if bpf_skb_load_bytes(ctx.skb.skb.cast(), seen.at, data.cast(), n as u32) != 0 {
            bpf_ringbuf_discard(r.cast(), 1);
            return;
        }
        bpf_ringbuf_submit(r.cast(), 1);
    }
    count(abi::counter::WRITTEN, 1);
}
