//! Mounts that no server may make, move or take away: those that the agent's files are on, or would be under. Programs of their own,
//! and told without a path: the stacks of older kernels have no room for more.

use abi::{denied_op, run};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use super::{
    ALLOW, arg,
    judge::lsm_own,
    ours,
    place::{lsm_guards_mount, lsm_is_agents_namespace},
    said,
};
use crate::kernel::read;

/// How mounts are propagated: MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED. Nothing comes or goes by it.
const PROPAGATION: u64 = 15 << 17;

/// Whether a mount at a `struct path` would change what the agent sees.
#[inline(always)]
fn at(path: u64) -> u64 {
    let path = path as usize;
    lsm_guards_mount(read(path + off!(path_dentry)), read(path + off!(path_mnt)))
}

#[inline(always)]
fn deny_if(guarded: u64) -> i32 {
    if guarded == 0 {
        return ALLOW;
    }
    said(lsm_own(u64::from(denied_op::AGENT_MOUNT), 0))
}

/// (device, path, type, flags, data)
#[lsm(hook = "sb_mount")]
pub fn lsm_keep_mount(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_GUARD) || arg(&ctx, 3) & PROPAGATION != 0 {
        return ALLOW;
    }
    deny_if(at(arg(&ctx, 1)))
}

/// (path, new path)
#[lsm(hook = "move_mount")]
pub fn lsm_keep_move(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_GUARD) {
        return ALLOW;
    }
    deny_if(at(arg(&ctx, 0)) | at(arg(&ctx, 1)))
}

/// (mount, flags)
#[lsm(hook = "sb_umount")]
pub fn lsm_keep_umount(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_GUARD) {
        return ALLOW;
    }
    let mnt = arg(&ctx, 0);
    deny_if(lsm_guards_mount(read(mnt as usize + off!(vfsmount_root)), mnt))
}

/// (old path, new path): changes the root of all who have the old one
#[lsm(hook = "sb_pivotroot")]
pub fn lsm_keep_root(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_GUARD) {
        return ALLOW;
    }
    deny_if(lsm_is_agents_namespace(read(arg(&ctx, 1) as usize + off!(path_mnt))))
}
