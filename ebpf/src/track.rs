//! Is this process ours, and which tree and epoch does it belong to.

use abi::{Proc, Tree, counter};
use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_boot_ns},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};

use crate::{
    kernel::read,
    maps::{FILTER, PROCS, TREES},
    policy::maps::TERM,
    record::count,
};

/// Process id of the current task.
#[inline(always)]
pub fn current_tgid() -> u32 {
    // SAFETY: a helper without arguments.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// The same for programs on packets: before 6.10 they may not ask for it, but for the task.
#[inline(always)]
pub fn running_tgid() -> u32 {
    // SAFETY: a helper without arguments.
    read(unsafe { bpf_get_current_task() } as usize + off!(task_tgid))
}

/// Time since boot.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// False: certainly not ours. This is all that other processes pay.
#[inline(always)]
pub fn maybe(tgid: u32) -> bool {
    let Some(bytes) = FILTER.get(tgid >> 6 & 0xffff) else {
        return false;
    };
    bytes[(tgid & 63) as usize] != 0
}

/// Counts a run of a hook's programs for a process that is watched. For all others nothing is counted: that would be most of what they pay.
#[inline(always)]
pub fn ran(hook: u32) {
    count(counter::RUNS + hook, 1);
}

/// Whether the process that runs is watched; then it counts as a run of this hook.
#[inline(always)]
pub fn ours(hook: u32) -> bool {
    let ours = maybe(current_tgid());
    if ours {
        ran(hook);
    }
    ours
}

/// Whether these are the programs that follow channels now: those of an agent before this one may still be attached.
#[inline(always)]
pub fn in_office() -> bool {
    // SAFETY: a static of plain integers, written before load.
    let own = unsafe { core::ptr::read_volatile(&raw const crate::kernel::SETTINGS.term) };
    TERM.get(0).is_some_and(|t| t.term == u64::from(own))
}

#[inline(always)]
fn set_filter(tgid: u32, value: u8) {
    if let Some(bytes) = FILTER.get_ptr_mut(tgid >> 6 & 0xffff) {
        // SAFETY: the index is below 64; a plain byte store, and only the process itself (or its
        // parent before it runs) stores into its byte.
        unsafe { (*bytes)[(tgid & 63) as usize] = value };
    }
}

/// Puts a process into the filter. Never attached: the agent runs it with the process id as argument,
/// because from user space a byte of the filter cannot be stored without its neighbours.
#[raw_tracepoint(tracepoint = "never_attached")]
pub fn admit(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the agent passes one argument.
    let tgid = unsafe { *ctx.as_ptr().cast::<u64>() } as u32;
    set_filter(tgid, 1);
    0
}

/// Starts tracking a process.
#[inline(always)]
pub fn track(tgid: u32, proc: &Proc) {
    if PROCS.insert(tgid, proc, 0).is_err() {
        count(counter::PROCS_FULL, 1);
        return;
    }
    set_filter(tgid, 1);
}

/// Stops tracking a process.
#[inline(always)]
pub fn untrack(tgid: u32) {
    set_filter(tgid, 0);
    // It may be gone already; either way it is gone now.
    let _gone = PROCS.remove(tgid);
}

/// Whether the process is watched only as a client under proof.
#[inline(always)]
pub fn is_client(tgid: u32) -> bool {
    PROCS.get_ptr(tgid).is_some_and(|p| {
        // SAFETY: a live map value.
        unsafe { (*p).flags & abi::proc_flag::CLIENT != 0 }
    })
}

/// The process and its tree, if it is tracked for itself; forgets processes whose tree is gone.
#[inline(always)]
pub fn find(tgid: u32) -> Option<(*mut Proc, *mut Tree)> {
    if !maybe(tgid) {
        return None;
    }
    let Some(proc) = PROCS.get_ptr_mut(tgid) else {
        set_filter(tgid, 0);
        return None;
    };
    // SAFETY: a live map value.
    let (tree, flags) = unsafe { ((*proc).tree, (*proc).flags) };
    if flags & abi::proc_flag::CLIENT != 0 {
        return None;
    }
    let Some(tree) = TREES.get_ptr_mut(tree) else {
        untrack(tgid);
        return None;
    };
    Some((proc, tree))
}

/// Epoch of a tree at a time, those of the trees that it was born in included, doubled, plus one
/// when the settling time of the last message has passed. Within one epoch no message arrives, so
/// the calls that an effect may belong to can only become fewer: occurrences may be aggregated.
#[inline(always)]
pub fn epoch(tree: *const Tree, at: u64) -> u32 {
    // SAFETY: a live map value.
    let mut t = unsafe { *tree };
    let mut sum = t.epoch;
    let mut since = t.since_ns;
    for _ in 0..3 {
        if t.parent == 0 {
            break;
        }
        let Some(up) = TREES.get_ptr(t.parent) else {
            break;
        };
        // SAFETY: a live map value.
        t = unsafe { *up };
        sum += t.epoch;
        if t.since_ns > since {
            since = t.since_ns;
        }
    }
    // SAFETY: a static of plain integers, written before load.
    let settle = unsafe { core::ptr::read_volatile(&raw const crate::kernel::SETTINGS.settle_ns) };
    let settled = u64::from(at > since && at - since > settle);
    (sum << 1 | settled) as u32
}
