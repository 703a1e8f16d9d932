//! Who may do what to a path: the most specific right that covers it decides, alone. The reference is
//! `engine::policy::Policy::permits`.

use abi::paths::{DEPTH, PathKey, PathRights, access, said_bit, span};
use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, btf_maps::HashMap, macros::btf_map};

use super::work::work;
use crate::policy::{maps::NAMES_KEY, verdict::FORBIDDEN};

/// Paths of all policies; written by the agent only.
#[btf_map]
pub static PATHS: HashMap<PathKey, PathRights, 131_072, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// The mask of a span, with [`FORBIDDEN`] when it is empty; `None` when nothing is said.
#[inline(always)]
fn of_span(rights: *const PathRights, span: u32, access: u64) -> Option<u64> {
    let access = mask!(access, 7);
    // SAFETY: a live map value, which the agent never changes in place; the index is masked to the array.
    unsafe {
        if (&raw const (*rights).said).read_volatile() & said_bit(span, 0) << access == 0 {
            return None;
        }
        let masks = (&raw const (*rights).mask).cast::<u64>().add(span as usize * access::COUNT);
        let mask = masks.add(access as usize).read_volatile();
        Some(if mask == 0 { FORBIDDEN } else { mask })
    }
}

/// Scopes that may do it to the path in the work space, [`FORBIDDEN`] beside.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_rights(slot: u64, access: u64) -> u64 {
    let Some(w) = work(slot) else { return 0 };
    // SAFETY: the work space of this program.
    let (policy, names, mut hash) = unsafe {
        ((*w).policy, (&raw const (*w).names).read_volatile(), (&raw const (*w).sum).read_volatile())
    };
    let Some(key) = NAMES_KEY.get(0) else { return 0 };
    for level in 0..=DEPTH as u64 {
        if let Some(rights) = PATHS.get_ptr(PathKey { policy, path: hash }) {
            let own = match level {
                0 => of_span(rights, span::EXACT, access),
                1 => of_span(rights, span::CHILDREN, access),
                _ => None,
            };
            if let Some(mask) = own.or_else(|| of_span(rights, span::SUBTREE, access)) {
                return mask;
            }
        }
        if level >= names {
            break;
        }
        // SAFETY: as above; the index is masked to the array.
        let last =
            unsafe { (&raw const (*w).name).cast::<u64>().add(mask!(level, 63) as usize).read_volatile() };
        hash = hash.wrapping_sub(last).wrapping_mul(key.inverse);
    }
    0
}
