//! Calls open as the tree reads their request, before the process gets the bytes, and close as it writes the reply.
//!
//! Only the root tree's own channel counts, and only what [`abi::scan`] is sure of. What a client wrote and cannot be
//! understood makes the ceiling live; what the *server* can bring about (torn reads, a channel that it can write itself) opens nothing,
//! or it would be a way to the ceiling: then user space opens calls, a little later, on proof.

use abi::{
    Chunk, channel_mode, counter,
    policy::{CANCELLED_NS, CEILING_NS, CallKey, CallValue, Jit, ScanKey, ToolKey, jit_order},
    scan::{CANCELLED, PRIME, Scan, TABLES, TOOLS_CALL, event, flag},
    side,
};
use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_RB_CONS_POS, BPF_RB_PROD_POS},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};

use super::{
    live,
    maps::{INFLIGHT, JIT, SCANS, TOOLS, TREE_POLICY},
};
use crate::{
    kernel::SETTINGS,
    maps::MODES,
    record::{SYSCALLS, Scratch, add, count, ring_position, scratch},
};

/// Bytes of a block: its loop is verified once.
const BLOCK: usize = 256;
/// Blocks of a chunk.
const BLOCKS: u64 = 64;

/// Notes whether the channel at work is scanned: the main channel of a root tree that is held to a policy.
#[inline(always)]
pub fn choose(s: *mut Scratch, tree: u64, key: u64, side: u64) {
    let mut root = 0;
    let mut policy = 0;
    if side <= u64::from(side::REPLY)
        && let Some(held) = TREE_POLICY.get_ptr(tree)
        && let Some(t) = crate::maps::TREES.get_ptr(tree)
    {
        // SAFETY: live map values.
        unsafe {
            let own = if side == u64::from(side::REQUEST) { (*t).request } else { (*t).reply };
            if side == u64::from(side::REQUEST) && proved(key) {
                forged(tree);
            }
            if (*held).policy != 0 && (*held).root == tree && own == key {
                root = tree;
                policy = u64::from((*held).policy);
            }
        }
    }
    // SAFETY: the scratch buffer of this CPU.
    unsafe {
        (&raw mut (*s).jit_root).write_volatile(root);
        (&raw mut (*s).jit_policy).write_volatile(policy);
    }
}

/// The tree can write its own request channel: from now on the programs here open no call.
#[inline(always)]
pub fn forged(tree: u64) {
    if let Some(held) = super::held_to(tree)
        && let Some(jit) = JIT.get_ptr_mut(held.root)
    {
        // SAFETY: a live map value.
        unsafe { (*jit).forged = 1 };
    }
}

/// Scans the bytes of the chunk in the work space.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn scan_chunk(side: u64, len: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU holds a chunk; a live map value.
    unsafe {
        if (&raw const (*s).jit_root).read_volatile() == 0 {
            return 0;
        }
        let chunk = (&raw const (*s).bytes).cast::<Chunk>();
        let key = ScanKey { channel: (*chunk).channel, side };
        let position = (*chunk).position;
        let Some(kept) = SCANS.get_ptr_mut(key) else {
            return 0;
        };
        let scan = &raw mut (*s).scan;
        copy(kept, scan);
        let expected = (&raw const (*scan).position).read_volatile();
        if expected != position && expected != u64::MAX {
            let flags = (&raw const (*scan).flags).read_volatile();
            (&raw mut (*scan).mode).write_volatile(0);
            (&raw mut (*scan).flags).write_volatile(flags | flag::TORN);
        }
        (&raw mut (*scan).position).write_volatile(position.wrapping_add(len));
        for block in 0..BLOCKS {
            if block * BLOCK as u64 >= len {
                break;
            }
            scan_block(side, block, len);
        }
        copy(scan, kept);
    }
    0
}

/// Copies word by word: as a whole it would go through the stack, of which little is left here.
#[inline(always)]
unsafe fn copy(from: *const Scan, to: *mut Scan) {
    for word in 0..size_of::<Scan>() / 8 {
        // SAFETY: as the caller says: two scanners in map memory, which consist of words.
        unsafe { to.cast::<u64>().add(word).write_volatile(from.cast::<u64>().add(word).read_volatile()) };
    }
}

/// Scans some of them.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn scan_block(side: u64, block: u64, len: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU; indices are masked to their arrays.
    unsafe {
        let scan = &raw mut (*s).scan;
        let from = mask!(block, 63) * BLOCK as u64;
        let data = (&raw const (*s).bytes).cast::<u8>().add(size_of::<Chunk>());
        let mut mode = (&raw const (*scan).mode).read_volatile();
        let mut hash = (&raw const (*scan).hash).read_volatile();
        for i in 0..BLOCK as u64 {
            let at = from + i;
            if at >= len {
                break;
            }
            let byte = data.add(mask!(at, 16383) as usize).read_volatile();
            let class = (&raw const TABLES.class).cast::<u8>().add(byte as usize).read_volatile();
            let index = mask!(mode << 4 | u64::from(class), 63) as usize;
            let next = u64::from((&raw const TABLES.next).cast::<u16>().add(index).read_volatile());
            mode = next & 15;
            let before = hash;
            hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
            let event = next >> 4;
            if event != 0 {
                if scan_event(event, before, u64::from(byte)) != 0 {
                    on_line(side);
                }
                if event & 15 == event::BEGIN {
                    hash = (&raw const (*scan).hash).read_volatile();
                }
            }
        }
        (&raw mut (*scan).mode).write_volatile(mode);
        (&raw mut (*scan).hash).write_volatile(hash);
    }
    0
}

/// See [`Scan::event`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn scan_event(event: u64, hash: u64, byte: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    u64::from(unsafe { Scan::event(&raw mut (*s).scan, event, hash, byte) })
}

/// A line has ended: does it open or close a call?
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_line(side: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    unsafe {
        let line = &raw mut (*s).scan;
        let root = (&raw const (*s).jit_root).read_volatile();
        let policy = (&raw const (*s).jit_policy).read_volatile();
        let at = (*s).call.at;
        if let Some(jit) = JIT.get_ptr_mut(root) {
            if side == u64::from(side::REQUEST) {
                request(jit, line, root, policy, at);
            } else {
                reply(jit, line, root, at);
            }
        }
        forget(line);
    }
    0
}

/// See [`Scan::begin`]; word by word, as [`copy`].
#[inline(always)]
unsafe fn forget(line: *mut Scan) {
    // SAFETY: as the caller says: a scanner in map memory, which consists of words.
    unsafe {
        let position = (&raw const (*line).position).read_volatile();
        for word in 0..size_of::<Scan>() / 8 {
            line.cast::<u64>().add(word).write_volatile(0);
        }
        (&raw mut (*line).position).write_volatile(position);
    }
}

/// What the line at work said of itself.
macro_rules! said {
    ($line:ident.$field:ident) => {
        (&raw const (*$line).$field).read_volatile()
    };
}

#[inline(always)]
unsafe fn request(jit: *mut Jit, line: *const Scan, root: u64, policy: u64, at: u64) {
    // SAFETY: a live map value; the line at work.
    unsafe {
        let forged = (&raw const (*jit).forged).read_volatile() != 0;
        if said!(line.flags) & (flag::UNSURE | flag::TORN) != 0 {
            if said!(line.flags) & flag::TORN == 0 && !forged {
                (&raw mut (*jit).ceiling_until).write_volatile(at + CEILING_NS);
                add(&raw mut (*jit).ceilings, 1);
            }
            add(&raw mut (*jit).unsure, 1);
            return;
        }
        if forged {
            return;
        }
        if said!(line.method) == CANCELLED && said!(line.request_id) != 0 {
            cancel_call(root, said!(line.request_id), at);
        }
        if said!(line.method) != TOOLS_CALL || said!(line.id) == 0 {
            return;
        }
        if (&raw const (*jit).startup_until).read_volatile() > at {
            (&raw mut (*jit).startup_until).write_volatile(at);
        }
        let Some(tool) = TOOLS.get_ptr(ToolKey { policy, name: said!(line.name) }) else {
            add(&raw mut (*jit).unknown_tools, 1);
            return;
        };
        open_call(root, said!(line.id), (*tool).bit, (*tool).settle_ns, at);
    }
}

#[inline(always)]
unsafe fn reply(jit: *mut Jit, line: *const Scan, root: u64, at: u64) {
    // SAFETY: a live map value; the line at work; a static of plain integers, written before load.
    unsafe {
        if said!(line.flags) & (flag::UNSURE | flag::TORN) != 0 {
            add(&raw mut (*jit).unsure_replies, 1);
            return;
        }
        // With a method it is the server's own request or notification.
        if said!(line.method) != 0 || said!(line.id) == 0 {
            return;
        }
        if (&raw const (*jit).startup_until).read_volatile() == u64::MAX {
            let settle = core::ptr::read_volatile(&raw const SETTINGS.settle_ns);
            (&raw mut (*jit).startup_until).write_volatile(at + settle);
        }
        close_call(root, said!(line.id), at);
    }
}

/// Counts a call's bit up.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn open_call(root: u64, id: u64, bit: u64, settle_ns: u64, at: u64) -> u64 {
    let Some(jit) = JIT.get_ptr_mut(root) else { return 0 };
    let key = CallKey { tree: root, id };
    // An id that is in flight already, or a map that is full: no right.
    if INFLIGHT.insert(key, CallValue { bit, at_ns: at, settle_ns, cancelled: 0 }, 1).is_err() {
        // One that began later is this one: user space had its record first, and opened it.
        // SAFETY: a live map value.
        if INFLIGHT.get_ptr(key).is_some_and(|known| live::before(at, unsafe { (*known).at_ns }) != 0) {
            return 0;
        }
        count(counter::RIGHTS_FULL, 1);
        // SAFETY: a live map value.
        add(unsafe { &raw mut (*jit).full }, 1);
        return 0;
    }
    let bit = mask!(bit, 63) as usize;
    // SAFETY: a live map value; the index is below 64.
    unsafe {
        (&raw mut (*jit).opened).cast::<u64>().add(bit).write_volatile(at);
        add((&raw mut (*jit).count).cast::<u64>().add(bit), 1);
        add(&raw mut (*jit).calls, 1);
    }
    0
}

/// Takes a call out of flight. True when its bit is still counted.
#[inline(always)]
unsafe fn down(jit: *mut Jit, value: &CallValue, at: u64, lasts_ns: u64) {
    let bit = mask!(value.bit, 63) as usize;
    // SAFETY: a live map value; the index is below 64.
    unsafe {
        (&raw mut (*jit).until).cast::<u64>().add(bit).write_volatile(at + lasts_ns);
        if value.cancelled == 0 {
            add((&raw mut (*jit).live_ns).cast::<u64>().add(bit), at - value.at_ns + lasts_ns);
            add((&raw mut (*jit).count).cast::<u64>().add(bit), u64::MAX);
        }
    }
}

/// Counts it down: the bit stays live while the tool settles.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn close_call(root: u64, id: u64, at: u64) -> u64 {
    let Some(jit) = JIT.get_ptr_mut(root) else { return 0 };
    let key = CallKey { tree: root, id };
    let Some(value) = INFLIGHT.get_ptr(key) else { return 0 };
    // SAFETY: a live map value.
    let value = unsafe { value.read_volatile() };
    // Of two that close it, one can remove it.
    if INFLIGHT.remove(key).is_err() {
        return 0;
    }
    // SAFETY: a live map value.
    unsafe { down(jit, &value, at, value.settle_ns) };
    0
}

/// The client does not want it any more: it keeps its rights until the reply, for a while at most.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cancel_call(root: u64, id: u64, at: u64) -> u64 {
    let Some(jit) = JIT.get_ptr_mut(root) else { return 0 };
    let key = CallKey { tree: root, id };
    let Some(value) = INFLIGHT.get_ptr(key) else { return 0 };
    // SAFETY: a live map value.
    let value = unsafe { value.read_volatile() };
    if value.cancelled != 0 || INFLIGHT.remove(key).is_err() {
        return 0;
    }
    // SAFETY: a live map value.
    unsafe { down(jit, &value, at, CANCELLED_NS) };
    // Its reply will end it: if that cannot be kept, it ends by time.
    if INFLIGHT.insert(key, CallValue { cancelled: 1, ..value }, 1).is_err() {
        // SAFETY: the place of a field of a live map value.
        live::add(root, |j| unsafe { &raw mut (*j).full }, 1);
    }
    0
}

/// Never attached: the agent runs it, because from user space no count can be changed atomically. Tree, id, bit of a call that
/// begins (or an order), settling time, time.
#[raw_tracepoint(tracepoint = "never_attached")]
pub fn calls(ctx: RawTracePointContext) -> i32 {
    let args = ctx.as_ptr().cast::<u64>();
    // SAFETY: the agent passes five arguments.
    let (tree, id, bit, settle_ns, at) =
        unsafe { (*args, *args.add(1), *args.add(2), *args.add(3), *args.add(4)) };
    if bit == jit_order::UNDERSTOOD {
        if let Some(jit) = JIT.get_ptr_mut(tree) {
            // SAFETY: a live map value, and nobody else changes this of it.
            unsafe { (&raw mut (*jit).understood).write_volatile(id) };
        }
    } else if bit == jit_order::PRODUCED {
        return ring_position(BPF_RB_PROD_POS) as i32;
    } else if bit == jit_order::CONSUMED {
        return ring_position(BPF_RB_CONS_POS) as i32;
    } else if bit == jit_order::CLOSE {
        close_call(tree, id, at);
    } else {
        open_call(tree, id, bit, settle_ns, at);
    }
    0
}

/// Whether user space has put the channel under proof.
#[inline(always)]
fn proved(key: u64) -> bool {
    MODES.get_ptr(key).is_some_and(|m| {
        // SAFETY: a live map value.
        unsafe { *m == channel_mode::PROVED }
    })
}
