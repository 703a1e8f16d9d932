//! Work spaces of the LSM programs. Unlike tracepoint programs they run preemptible, and from 6.2 on the kernel runs one again on
//! the same processor while it is preempted; so each takes a space of its own.
//!
//! A space is taken by counting up, and is ours if nobody else is in it: `begun == ended + 1`. The target has no
//! compare-and-swap; two that meet may both leave it and take the next one, but never both stay:
//!
//! ```text
//!   A: begun 1 ............. b=2 e=1: mine
//!   B:         begun 2, b=2 e=0: not mine, ended 1; next space
//! ```

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};

use crate::record::add;

/// How many there are.
pub const SLOTS: usize = 3;
/// None was free.
pub const NONE: u64 = u64::MAX;
/// Bytes of a file's name at most.
const NAME: usize = 256;

/// What one act needs. Loop state lives here, so that the verifier forgets its range.
#[repr(C)]
pub struct Work {
    /// Programs that came in.
    pub begun: u64,
    /// And that left.
    pub ended: u64,
    /// Who acts.
    pub tree: u64,
    /// Process.
    pub tgid: u64,
    /// Tools that it was born with.
    pub born: u64,
    /// Epoch of its tree.
    pub epoch: u64,
    /// When.
    pub at: u64,
    /// Root tree.
    pub root: u64,
    /// Number of the policy.
    pub policy: u64,
    /// Bits of [`abi::policy::tree_flag`].
    pub flags: u64,
    /// Scopes that are live.
    pub live: u64,
    /// Names that were walked.
    pub names: u64,
    /// Hash of the path so far.
    pub sum: u64,
    /// Multiplier of the next name.
    pub power: u64,
    /// What was found of rights.
    pub found: u64,
    /// 1: something was.
    pub settled: u64,
    /// Hash of each name, the last one first.
    pub name: [u64; abi::paths::DEPTH],
    /// The name at work.
    pub text: [u32; NAME / 4],
}

#[btf_map]
pub static WORK: PerCpuArray<Work, SLOTS> = PerCpuArray::new();

/// The work space of a slot.
#[inline(always)]
pub fn work(slot: u64) -> Option<*mut Work> {
    WORK.get_ptr_mut(slot as u32)
}

/// Takes a space; [`NONE`] when all are in use.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_work() -> u64 {
    for slot in 0..SLOTS as u64 {
        let Some(w) = work(slot) else { return NONE };
        // SAFETY: a live map value of this CPU; volatile, because whoever preempts us changes it.
        unsafe {
            add(&raw mut (*w).begun, 1);
            let begun = (&raw const (*w).begun).read_volatile();
            let ended = (&raw const (*w).ended).read_volatile();
            if begun == ended.wrapping_add(1) {
                return slot;
            }
            add(&raw mut (*w).ended, 1);
        }
    }
    NONE
}

/// Gives it back.
#[inline(always)]
pub fn give_back(slot: u64) {
    if let Some(w) = work(slot) {
        // SAFETY: a live map value of this CPU.
        add(unsafe { &raw mut (*w).ended }, 1);
    }
}
