//! Which scopes are live.

use abi::policy::{AMBIENT, CALL_NS, CEILING, Jit, TOOL_BITS};

use super::maps::JIT;

/// 1 when `at` is before `until`, without a branch: 64 of them would be 2^64 paths to a verifier. Right for times that are less
/// than 292 years apart.
#[inline(always)]
pub fn before(at: u64, until: u64) -> u64 {
    at.wrapping_sub(until) >> 63
}

/// Tools whose calls are in flight or settle.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn called(root: u64, at: u64) -> u64 {
    let Some(jit) = JIT.get_ptr(root) else { return 0 };
    let mut live = 0;
    for bit in 0..60usize {
        // SAFETY: a live map value; volatile, because other processors change it.
        let (count, opened, until) = unsafe {
            (
                (&raw const (*jit).count[bit]).read_volatile(),
                (&raw const (*jit).opened[bit]).read_volatile(),
                (&raw const (*jit).until[bit]).read_volatile(),
            )
        };
        let flight = count.wrapping_neg() >> 63 & before(at, opened.wrapping_add(CALL_NS));
        live |= (flight | before(at, until)) << bit;
    }
    live
}

/// Scopes that are live at a time for a process of a tree. `born`: see [`abi::Proc::born`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn live(root: u64, born: u64, at: u64) -> u64 {
    let live = AMBIENT | born & TOOL_BITS | called(root, at);
    let Some(jit) = JIT.get_ptr(root) else {
        // Full, or not bound yet: no more than always.
        return live;
    };
    // SAFETY: a live map value; volatile, because other processors change it.
    let (startup, ceiling, unsure) = unsafe {
        let dealt_with = (&raw const (*jit).understood).read_volatile();
        (
            (&raw const (*jit).startup_until).read_volatile(),
            (&raw const (*jit).ceiling_until).read_volatile(),
            (&raw const (*jit).ceilings).read_volatile() ^ dealt_with,
        )
    };
    // Startup begins as the largest number, which is not 292 years away.
    let startup = (before(at, startup) | startup >> 63) << 62;
    // All of them while a request is not understood: 1 when some are not.
    let unsure = (unsure | unsure.wrapping_neg()) >> 63;
    live | startup | (before(at, ceiling) & unsure).wrapping_neg() & CEILING
}

/// Adds to a number of a tree.
#[inline(always)]
pub fn add(root: u64, which: impl FnOnce(*mut Jit) -> *mut u64, n: u64) {
    if let Some(jit) = JIT.get_ptr_mut(root) {
        crate::record::add(which(jit), n);
    }
}
