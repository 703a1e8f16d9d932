//! Programs: the file that was named needs a right; its interpreters need none, but may be forbidden.

use abi::{paths::access, run};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use super::{
    ALLOW, arg,
    judge::{NAMELESS, UNLESS_FORBIDDEN, bit, lsm_path},
    ours, said,
};
use crate::kernel::read;

/// (linux_binprm): once for the file that was named, and again for each interpreter
#[lsm(hook = "bprm_check_security")]
pub fn lsm_bprm_check(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_EXEC) {
        return ALLOW;
    }
    let bprm = arg(&ctx, 0) as usize;
    let file: usize = read(bprm + off!(bprm_file));
    let inode: usize = read(file + off!(file_inode));
    let filename: usize = read(bprm + off!(bprm_filename));
    let interp: usize = read(bprm + off!(bprm_interp));
    let mut what = bit(access::EXEC);
    if filename != interp {
        what |= UNLESS_FORBIDDEN;
    }
    // Deleted, or from memory.
    if read::<u32>(inode + off!(inode_nlink)) == 0 {
        what |= NAMELESS;
    }
    let path = file + off!(file_path);
    said(lsm_path(what, read(path + off!(path_dentry)), read(path + off!(path_mnt))))
}
