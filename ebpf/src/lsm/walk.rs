//! A dentry's path as a hash, across mounts, up to the root of the mount namespace.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use super::work::{Work, work};
use crate::{kernel::read, policy::maps::NAMES_KEY};

/// The hash is complete.
pub const NAMED: u64 = 0;
/// A pipe, a memfd and the like: no path at all.
pub const UNNAMED: u64 = 1;
/// The kernel's own mount below another file system (overlayfs): what is above it was judged.
pub const INTERNAL: u64 = 2;
/// Deeper than [`abi::paths::DEPTH`], or of a mount that is nowhere: no right covers it.
pub const NOWHERE: u64 = 3;

/// Errors as pointers are the last page.
const ERRORS: usize = usize::MAX - 4095;

/// Fills `names`, `sum` and `name` of a work space.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_walk(slot: u64, dentry: u64, mnt: u64) -> u64 {
    let Some(w) = work(slot) else { return NOWHERE };
    let mut dentry = dentry as usize;
    let mut mnt = mnt as usize;
    if dentry == 0 || mnt == 0 {
        return NOWHERE;
    }
    // SAFETY: the work space of this program.
    unsafe {
        (&raw mut (*w).names).write_volatile(0);
        (&raw mut (*w).sum).write_volatile(0);
        (&raw mut (*w).power).write_volatile(1);
    }
    let mut root: usize = read(mnt + off!(vfsmount_root));
    for _ in 0..abi::paths::DEPTH {
        let parent: usize = read(dentry + off!(dentry_parent));
        if dentry == root || dentry == parent {
            let mount = mnt - off!(mount_mnt);
            let up: usize = read(mount + off!(mount_parent));
            if dentry != root {
                return UNNAMED;
            }
            if up == mount || up == 0 {
                let namespace: usize = read(mount + off!(mount_ns));
                if namespace == 0 {
                    return NOWHERE;
                }
                if namespace >= ERRORS {
                    return INTERNAL;
                }
                return NAMED;
            }
            dentry = read(mount + off!(mount_mountpoint));
            mnt = up + off!(mount_mnt);
            root = read(mnt + off!(vfsmount_root));
            continue;
        }
        if lsm_name(slot, dentry as u64) == 0 {
            return NOWHERE;
        }
        dentry = parent;
    }
    NOWHERE
}

/// Takes one name in; 0 when there is no room.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_name(slot: u64, dentry: u64) -> u64 {
    let Some(w) = work(slot) else { return 0 };
    let name = dentry as usize + off!(dentry_name);
    let len = mask!(read::<u32>(name + off!(qstr_len)), 255);
    let text: usize = read(name + off!(qstr_name));
    // SAFETY: the work space of this program; the name has room for what the mask lets through.
    unsafe {
        bpf_probe_read_kernel((&raw mut (*w).text).cast(), len as u32, text as *const _);
    }
    let hash = lsm_hash(slot, len);
    let Some(key) = NAMES_KEY.get(0) else { return 0 };
    // SAFETY: as above; the index is masked to the array.
    unsafe {
        let names = (&raw const (*w).names).read_volatile();
        if names >= abi::paths::DEPTH as u64 {
            return 0;
        }
        let at = mask!(names, 63) as usize;
        (&raw mut (*w).name).cast::<u64>().add(at).write_volatile(hash);
        let power = (&raw const (*w).power).read_volatile();
        let sum = (&raw const (*w).sum).read_volatile();
        (&raw mut (*w).sum).write_volatile(sum.wrapping_add(hash.wrapping_mul(power)));
        (&raw mut (*w).power).write_volatile(power.wrapping_mul(key.multiplier));
        (&raw mut (*w).names).write_volatile(names + 1);
    }
    1
}

/// Hash of the first `len` bytes of the name at work: [`abi::policy::names::Key::file_name`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_hash(slot: u64, len: u64) -> u64 {
    let Some(w) = work(slot) else { return 0 };
    let Some(key) = NAMES_KEY.get(0) else { return 0 };
    let mut hash = key.seed;
    for i in 0..64 {
        let at = i as u64 * 4;
        if at >= len {
            break;
        }
        // SAFETY: the work space of this program; the index is within the array.
        let mut word = unsafe { (&raw const (*w).text[i]).read_volatile() };
        let rest = len - at;
        if rest < 4 {
            word &= (1 << (rest * 8)) - 1;
        }
        hash = key.word(hash, word);
    }
    key.word(hash, len as u32)
}

/// Makes the hash of an abstract name, that stands in the work space, the one that is looked up.
#[inline(always)]
pub fn abstract_name(slot: u64, w: *mut Work, len: u64) {
    let hash = lsm_hash(slot, len).wrapping_add(abi::paths::ABSTRACT);
    // SAFETY: the work space of this program.
    unsafe {
        (&raw mut (*w).names).write_volatile(0);
        (&raw mut (*w).sum).write_volatile(hash);
    }
}
