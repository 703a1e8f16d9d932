//! Telling what was denied. A flood of denied acts is counted under the first record of its kind, as all acts are.

use abi::{AggKey, Denied, counter, kind};
use aya_ebpf::helpers::generated::{bpf_ringbuf_reserve, bpf_ringbuf_submit};

use crate::{
    maps::EVENTS,
    record::{
        Aggregated, FORCE_WAKEUP, aggregate, aggregate_lost, count, header, header_of_owner, lost, new_id,
    },
};

/// Who acted.
pub struct Actor {
    /// Tree.
    pub tree: u64,
    /// Process, or owner of the socket.
    pub tgid: u32,
    /// Scopes that were live for it.
    pub live: u64,
    /// Scopes that hold a right to the object.
    pub held: u64,
    /// When.
    pub at: u64,
    /// See [`crate::track::epoch`].
    pub epoch: u32,
}

/// On what.
pub struct Object {
    /// Address, v4-mapped.
    pub addr: [u64; 2],
    /// Port, and protocol above 16 bits.
    pub port: u64,
    /// One of [`abi::denied_op`].
    pub op: u32,
    /// One of [`abi::policy::family`].
    pub family: u32,
    /// Bits of [`abi::denied_flag`].
    pub flags: u32,
}

/// Fills the fixed part of a record about the process that runs.
#[inline(always)]
pub unsafe fn fill(r: *mut Denied, actor: &Actor, object: &Object, id: u64, flags: u32) {
    // SAFETY: as the caller says: the record at work.
    unsafe {
        header(r.cast(), kind::DENIED, actor.tgid, actor.at, id, actor.tree, actor.epoch, flags);
        fill_rest(r, actor, object);
    }
}

/// The same for a packet: its owner acts, whoever runs; who that is some kernels do not tell such a program.
#[inline(always)]
pub unsafe fn fill_packet(r: *mut Denied, actor: &Actor, object: &Object, id: u64, flags: u32) {
    // SAFETY: as the caller says: the record at work.
    unsafe {
        header_of_owner(r.cast(), kind::DENIED, actor.tgid, actor.at, id, actor.tree, actor.epoch, flags);
        fill_rest(r, actor, object);
    }
}

#[inline(always)]
unsafe fn fill_rest(r: *mut Denied, actor: &Actor, object: &Object) {
    // SAFETY: as the caller says: the record at work.
    unsafe {
        (*r).live = actor.live;
        (*r).held = actor.held;
        (&raw mut (*r).addr).cast::<[u64; 2]>().write_unaligned(object.addr);
        (*r).op = object.op;
        (*r).family = object.family;
        (*r).protocol = (object.port >> 16) as u32 & 0xffff;
        (*r).port = object.port as u32 & 0xffff;
        (*r).flags = object.flags;
        (*r).len = 0;
    }
}

/// Under what occurrences are counted. `what`: tells objects apart that have no address.
#[inline(always)]
pub fn key(actor: &Actor, object: &Object, what: u64) -> AggKey {
    AggKey {
        tgid: actor.tgid,
        epoch: actor.epoch,
        kind: u32::from(kind::DENIED),
        sub: object.op | object.flags << 8,
        words: [object.addr[0], object.addr[1], object.port, what],
    }
}

/// Writes the record of an act on an address, or counts it. Straight into the ring: it would not fit the stacks of all callers.
#[inline(never)]
pub fn told(actor: &Actor, object: &Object) {
    write::<false>(actor, object);
}

/// The same for a packet.
#[inline(never)]
pub fn told_packet(actor: &Actor, object: &Object) {
    write::<true>(actor, object);
}

#[inline(always)]
fn write<const PACKET: bool>(actor: &Actor, object: &Object) {
    let id = new_id(actor.at, kind::DENIED);
    let key = key(actor, object, 0);
    let Aggregated::Record(flags) = aggregate(&key, id, 0, 0) else {
        return;
    };
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the ring map; the reservation is checked, filled and submitted.
    unsafe {
        let r = bpf_ringbuf_reserve(ring, size_of::<Denied>() as u64, 0).cast::<Denied>();
        if r.is_null() {
            lost(kind::DENIED, true);
            aggregate_lost(&key, flags);
            return;
        }
        if PACKET {
            fill_packet(r, actor, object, id, flags);
        } else {
            fill(r, actor, object, id, flags);
        }
        // Something may have to be done about it: nobody waits for the agent's next look.
        bpf_ringbuf_submit(r.cast(), FORCE_WAKEUP);
    }
    count(counter::WRITTEN, 1);
}
