//! Walking a dentry to its path, across mounts, up to the root of the mount namespace.

use abi::counter;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::{
    kernel::read,
    record::{CUT, FAULT, PART, count, scratch},
};

/// Components at most, each crossing of a mount included. 68,000 verifier instructions.
const COMPONENTS: usize = 128;

/// Appends the path of (dentry, vfsmount), leaf first, each name followed by '/'. User space turns
/// it round. Truncation keeps the leaf. Returns the length, with [`CUT`] when the root was not
/// reached.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn append_path(slot: u64, dentry: u64, mnt: u64) -> u64 {
    let Some(s) = scratch(slot) else { return FAULT };
    let mut dentry = dentry as usize;
    let mut mnt = mnt as usize;
    if dentry == 0 || mnt == 0 {
        return FAULT;
    }
    let mut root: usize = read(mnt + off!(vfsmount_root));
    // The position lives in map memory: the verifier forgets its range and the loop stays linear.
    // SAFETY: all positions are masked below CAP, and a name has PART bytes of room behind it.
    unsafe {
        let base = (&raw mut (*s).bytes).cast::<u8>();
        let position = &raw mut (*s).state[0];
        let start = mask!((&raw const (*s).len).read_volatile(), 16383);
        position.write_volatile(start);
        let end = start + PART as u64;
        let mut cut = CUT;
        for _ in 0..COMPONENTS {
            let parent: usize = read(dentry + off!(dentry_parent));
            if dentry == root || dentry == parent {
                let mount = mnt - off!(mount_mnt);
                let up: usize = read(mount + off!(mount_parent));
                if dentry != root {
                    // No parent, and not a root: a pseudo file such as a memfd has just its name.
                    append_name(base, position, end, dentry);
                    cut = 0;
                    break;
                }
                if up == mount || up == 0 {
                    cut = 0;
                    break;
                }
                dentry = read(mount + off!(mount_mountpoint));
                mnt = up + off!(mount_mnt);
                root = read(mnt + off!(vfsmount_root));
                continue;
            }
            if !append_name(base, position, end, dentry) {
                break;
            }
            dentry = parent;
        }
        if cut != 0 {
            count(counter::TRUNCATED, 1);
        }
        let stop = position.read_volatile();
        (&raw mut (*s).len).write_volatile(stop);
        stop.wrapping_sub(start) & 0xffff | cut
    }
}

/// Appends one name and '/'. False when it does not fit.
///
/// # Safety
/// `base` is the record buffer of a scratch slot, `position` a word of its state.
#[inline(always)]
unsafe fn append_name(base: *mut u8, position: *mut u64, end: u64, dentry: usize) -> bool {
    let name = dentry + off!(dentry_name);
    let len = u64::from(read::<u32>(name + off!(qstr_len)) & 0xff);
    let text: usize = read(name + off!(qstr_name));
    // SAFETY: the caller's promise; the position is bounded below, and a name is shorter than PART.
    unsafe {
        let at = position.read_volatile();
        if at + len + 1 > end {
            return false;
        }
        let p = mask!(at, 32767);
        if p > (crate::record::CAP + PART) as u64 {
            return false;
        }
        let p = p as usize;
        let len = mask!(len, 255) as usize;
        bpf_probe_read_kernel(base.add(p).cast(), len as u32, text as *const _);
        *base.add(p + len) = b'/';
        position.write_volatile(p as u64 + len as u64 + 1);
    }
    true
}

/// Appends the path of an open file.
#[inline(always)]
pub fn append_file(slot: u64, file: usize) -> u64 {
    let path = file + off!(file_path);
    let dentry: usize = read(path + off!(path_dentry));
    let mnt: usize = read(path + off!(path_mnt));
    append_path(slot, dentry as u64, mnt as u64)
}

/// Appends the working directory of a task.
#[inline(always)]
pub fn append_cwd(slot: u64, task: usize) -> u64 {
    let fs: usize = read(task + off!(task_fs));
    let pwd = fs + off!(fs_pwd);
    let dentry: usize = read(pwd + off!(path_dentry));
    let mnt: usize = read(pwd + off!(path_mnt));
    append_path(slot, dentry as u64, mnt as u64)
}
