//! Assembling and submitting records, aggregation, loss counters.

use abi::{ABI, AggKey, AggValue, Header, counter, flag};
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_smp_processor_id, bpf_probe_read_kernel_str,
    bpf_probe_read_user, bpf_probe_read_user_str, bpf_ringbuf_output, bpf_ringbuf_query,
};

use crate::maps::{ACTIVE, AGG0, AGG1, COUNTERS, EVENTS, LOST_SINCE, RING_BYTES, SCRATCH};

/// Where the last part of a record may begin (a power of two). The whole work space must stay below
/// the 32 KiB that a per-CPU map value may have.
pub const CAP: usize = 16384;
/// Longest single part: a path, a name, an argument vector.
pub const PART: usize = 4096;

/// Scratch slot of the system call program.
pub const SYSCALLS: u64 = 0;
/// Scratch slot of the lifecycle programs.
pub const LIFECYCLE: u64 = 1;
/// The first slot of the LSM programs, see [`crate::lsm::work`].
pub const LSM: u64 = 2;
/// How many slots there are.
pub const SLOTS: usize = LSM as usize + crate::lsm::work::SLOTS;

/// Per-CPU work space. Everything that a loop carries lives here, not in registers.
#[repr(C)]
pub struct Scratch {
    /// Bytes assembled so far.
    pub len: u64,
    /// Loop state of the part at work.
    pub state: [u64; 6],
    /// The system call at work.
    pub call: Call,
    /// The tree whose calls the channel at work opens and closes, 0 if none, and its policy.
    pub jit_root: u64,
    /// See above.
    pub jit_policy: u64,
    /// The line at work.
    pub scan: abi::scan::Scan,
    /// The record.
    pub bytes: [u8; CAP + PART * 2],
}

/// What the parts of the system call program need to know.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// Registers (kernel address).
    pub regs: u64,
    /// Result.
    pub ret: i64,
    /// Number.
    pub nr: u64,
    /// 1 when made through the 32-bit ABI.
    pub compat: u64,
    /// Process.
    pub tgid: u64,
    /// Time.
    pub at: u64,
    /// Tree.
    pub tree: u64,
    /// Epoch, see `track::epoch`.
    pub epoch: u64,
    /// Task (kernel address).
    pub task: u64,
}

/// The work space of a slot.
#[inline(always)]
pub fn scratch(slot: u64) -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(slot as u32)
}

/// Adds to a counter.
#[inline(always)]
pub fn count(index: u32, n: u64) {
    if let Some(p) = COUNTERS.get_ptr_mut(index) {
        add(p, n);
    }
}

/// An atomic add whose result nobody needs: one instruction on every kernel. (The target has no
/// compare-and-swap, so core offers no `fetch_add`.)
#[inline(always)]
pub fn add(p: *mut u64, n: u64) {
    // SAFETY: a live map value, aligned.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) p, in(reg) n, options(nostack)) };
}

/// A record id: one CPU cannot take the same nanosecond twice, but one system call may give records of
/// several kinds. Unique for 52 days, which is far longer than any id is remembered.
#[inline(always)]
pub fn new_id(at: u64, kind: u16) -> u64 {
    // SAFETY: a helper without arguments.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() } & 0xff);
    at << 12 | u64::from(kind & 15) << 8 | cpu
}

/// Records lost on this CPU since the last one that was written: all, and those that were not bulk.
#[inline(always)]
fn lost_since(which: u32) -> u64 {
    LOST_SINCE.get_ptr_mut(which).map_or(0, |p| {
        // SAFETY: a live map value of this CPU.
        unsafe { *p }
    })
}

#[inline(always)]
fn forget_lost(which: u32) {
    if let Some(p) = LOST_SINCE.get_ptr_mut(which) {
        // SAFETY: a live map value of this CPU.
        unsafe { *p = 0 };
    }
}

/// Fills a header for the current process.
#[expect(clippy::too_many_arguments, reason = "the fields of one header")]
#[inline(always)]
pub fn header(h: *mut Header, kind: u16, tgid: u32, at: u64, id: u64, tree: u64, epoch: u32, flags: u32) {
    header_of_owner(h, kind, tgid, at, id, tree, epoch, flags);
    // SAFETY: as below; helpers without arguments.
    unsafe {
        (*h).tid = bpf_get_current_pid_tgid() as u32;
        (*h).uid = bpf_get_current_uid_gid() as u32;
    }
}

/// Fills a header where a process acts that need not be the current one.
#[expect(clippy::too_many_arguments, reason = "the fields of one header")]
#[inline(always)]
pub fn header_of_owner(
    h: *mut Header,
    kind: u16,
    tgid: u32,
    at: u64,
    id: u64,
    tree: u64,
    epoch: u32,
    flags: u32,
) {
    let lost = lost_since(0);
    let vital = lost_since(1);
    // SAFETY: `h` is inside a scratch buffer, a ring reservation or the stack.
    unsafe {
        (*h).abi = ABI;
        (*h).kind = kind;
        (*h).flags = flags;
        (*h).tgid = tgid;
        (*h).tid = 0;
        (*h).lost_before = lost as u32;
        (*h).epoch = epoch;
        (*h).id = id;
        (*h).at_ns = at;
        (*h).tree = tree;
        (*h).uid = u32::MAX;
        (*h).vital_lost_before = vital as u32;
    }
}

/// Flags of a record that is submitted.
const NO_WAKEUP: u64 = 1;
/// Wakes the reader.
pub const FORCE_WAKEUP: u64 = 2;
/// A reader is woken for this much; else it looks by itself every few milliseconds.
const WAKE_AT: u64 = (RING_BYTES / 8) as u64;
/// Bulk records leave this much to the rest: a flood of opens cannot hide an exec.
const BULK_LIMIT: u64 = (RING_BYTES / 4 * 3) as u64;

/// How much a record matters when the ring runs full, and whether the agent must look at once.
#[derive(Clone, Copy, PartialEq)]
pub enum Urgency {
    /// May fill three quarters of the ring.
    Bulk,
    /// May fill all of it.
    Normal,
    /// The same, and wakes the agent.
    Wake,
}

/// Writes a finished record. False when the ring refused it; that is counted.
#[inline(always)]
pub fn output(data: *mut u8, len: u64, kind: u16, urgency: Urgency) -> bool {
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the ring map; 0 asks for the bytes not yet consumed.
    let filled = unsafe { bpf_ringbuf_query(ring, 0) };
    let refused = urgency == Urgency::Bulk && filled > BULK_LIMIT;
    let flags = if urgency == Urgency::Wake || filled > WAKE_AT { FORCE_WAKEUP } else { NO_WAKEUP };
    // SAFETY: `len` bytes from `data` are readable; the verifier checks it.
    if refused || unsafe { bpf_ringbuf_output(ring, data.cast(), len, flags) } < 0 {
        lost(kind, urgency != Urgency::Bulk);
        return false;
    }
    count(counter::WRITTEN, 1);
    forget_lost(0);
    forget_lost(1);
    true
}

/// How far the ring was written or read.
#[inline(always)]
pub fn ring_position(which: u32) -> u64 {
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the ring map.
    unsafe { bpf_ringbuf_query(ring, u64::from(which)) }
}

/// Counts a lost record.
#[inline(always)]
pub fn lost(kind: u16, vital: bool) {
    count(counter::LOST + u32::from(kind & 15), 1);
    if let Some(p) = LOST_SINCE.get_ptr_mut(0) {
        add(p, 1);
    }
    if vital && let Some(p) = LOST_SINCE.get_ptr_mut(1) {
        add(p, 1);
    }
}

/// What to do with an occurrence.
pub enum Aggregated {
    /// It was counted: done.
    Counted,
    /// It is the first, or cannot be counted: write a record with these header flags, and if that
    /// fails call [`Entry::lost`].
    Record(u32),
}

#[inline(always)]
fn value_of(key: &AggKey, first: bool) -> Option<*mut AggValue> {
    if first { AGG0.get_ptr_mut(key) } else { AGG1.get_ptr_mut(key) }
}

#[inline(always)]
fn first_is_active() -> bool {
    ACTIVE.get(0).is_none_or(|a| *a == 0)
}

#[inline(always)]
fn add_to(value: *mut AggValue, bytes_out: u64, bytes_in: u64) -> Aggregated {
    // SAFETY: a live map value.
    unsafe {
        if (*value).lost != 0 {
            return Aggregated::Record(0);
        }
        add(&raw mut (*value).count, 1);
        if bytes_out != 0 {
            add(&raw mut (*value).bytes_out, bytes_out);
        }
        if bytes_in != 0 {
            add(&raw mut (*value).bytes_in, bytes_in);
        }
    }
    count(counter::AGGREGATED, 1);
    Aggregated::Counted
}

/// Counts an occurrence under its key, or says that it needs a record of its own.
#[inline(always)]
pub fn aggregate(key: &AggKey, id: u64, bytes_out: u64, bytes_in: u64) -> Aggregated {
    let first = first_is_active();
    if let Some(value) = value_of(key, first) {
        return add_to(value, bytes_out, bytes_in);
    }
    let value = AggValue { id, count: 0, bytes_out: 0, bytes_in: 0, lost: 0 };
    // NOEXIST: of two processors that meet here, one writes the record, the other one counts.
    let inserted = if first { AGG0.insert(key, value, 1) } else { AGG1.insert(key, value, 1) };
    if inserted.is_ok() {
        return Aggregated::Record(flag::AGGREGATED);
    }
    match value_of(key, first) {
        Some(value) => add_to(value, bytes_out, bytes_in),
        None => {
            count(counter::AGG_FULL, 1);
            Aggregated::Record(0)
        }
    }
}

/// The record that announced an entry was lost: nothing more may be counted under it.
#[inline(always)]
pub fn aggregate_lost(key: &AggKey, flags: u32) {
    if flags & flag::AGGREGATED != 0
        && let Some(value) = value_of(key, first_is_active())
    {
        // SAFETY: a live map value.
        unsafe { (*value).lost = 1 };
    }
}

/// The text did not fit.
pub const CUT: u64 = 1 << 32;
/// The text could not be read.
pub const FAULT: u64 = 1 << 33;

/// Appends a NUL-terminated text of the current process, without its NUL. Returns its length, with
/// [`CUT`] or [`FAULT`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn append_user_text(slot: u64, address: u64) -> u64 {
    let Some(s) = scratch(slot) else { return FAULT };
    // SAFETY: the position is below CAP and a part has PART bytes behind it.
    unsafe {
        let at = mask!((&raw const (*s).len).read_volatile(), 16383) as usize;
        let to = (&raw mut (*s).bytes).cast::<u8>().add(at);
        let n = bpf_probe_read_user_str(to.cast(), PART as u32, address as *const _);
        if n <= 0 {
            count(counter::FAULTS, 1);
            return FAULT;
        }
        let text = (n - 1) as u64;
        (&raw mut (*s).len).write_volatile(at as u64 + text);
        if n as usize == PART {
            count(counter::TRUNCATED, 1);
            return text | CUT;
        }
        text
    }
}

/// The same for a text in kernel memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn append_kernel_text(slot: u64, address: u64) -> u64 {
    let Some(s) = scratch(slot) else { return FAULT };
    // SAFETY: as above.
    unsafe {
        let at = mask!((&raw const (*s).len).read_volatile(), 16383) as usize;
        let to = (&raw mut (*s).bytes).cast::<u8>().add(at);
        let n = bpf_probe_read_kernel_str(to.cast(), PART as u32, address as *const _);
        if n <= 0 {
            return FAULT;
        }
        (&raw mut (*s).len).write_volatile(at as u64 + (n - 1) as u64);
        (n - 1) as u64
    }
}

/// Appends bytes of the current process, at most [`PART`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn append_user_bytes(slot: u64, address: u64, len: u64) -> u64 {
    let Some(s) = scratch(slot) else { return FAULT };
    if len == 0 {
        return 0;
    }
    let cut = len > PART as u64;
    let n = if cut { PART as u64 } else { len };
    let n = mask!(n - 1, 4095) + 1;
    // SAFETY: as above.
    unsafe {
        let at = mask!((&raw const (*s).len).read_volatile(), 16383) as usize;
        let to = (&raw mut (*s).bytes).cast::<u8>().add(at);
        if bpf_probe_read_user(to.cast(), n as u32, address as *const _) != 0 {
            count(counter::FAULTS, 1);
            return FAULT;
        }
        (&raw mut (*s).len).write_volatile(at as u64 + n);
    }
    if cut {
        count(counter::TRUNCATED, 1);
        return n | CUT;
    }
    n
}

/// Writes the record assembled in a slot. 1 when the ring refused it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn submit(slot: u64, urgency: u64) -> u64 {
    let Some(s) = scratch(slot) else { return 1 };
    // SAFETY: the buffer holds CAP bytes; it begins with a header.
    unsafe {
        let len = (&raw const (*s).len).read_volatile();
        if len == 0 {
            return 1;
        }
        let len = mask!(len - 1, 32767) + 1;
        if len > (CAP + PART) as u64 {
            return 1;
        }
        let data = (&raw mut (*s).bytes).cast::<u8>();
        let kind = (&raw const (*data.cast::<Header>()).kind).read_volatile();
        let urgency = match urgency {
            0 => Urgency::Bulk,
            1 => Urgency::Normal,
            _ => Urgency::Wake,
        };
        u64::from(!output(data, len, kind, urgency))
    }
}
