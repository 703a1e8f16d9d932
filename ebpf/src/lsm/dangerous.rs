//! ptrace and its like, mounts, bpf: denied as a family. And sockets that no packet program sees.

use abi::{denied_op, policy::family, run};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use super::{
    ALLOW, arg,
    guard::{is_agent, lsm_guard_task},
    judge::lsm_family,
    objects::guard_links,
    ours, said,
};

/// Memory and registers, not just what /proc shows.
const PTRACE_MODE_ATTACH: u64 = 2;
/// AF_UNIX, AF_INET, AF_INET6, AF_NETLINK and AF_ALG: seen by other programs, or leading nowhere.
const SEEN: u64 = 1 << 1 | 1 << 2 | 1 << 10 | 1 << 16 | 1 << 38;

#[inline(always)]
fn whole(op: u32) -> i32 {
    said(lsm_family(u64::from(op), u64::from(family::DANGEROUS), 0))
}

/// (task, mode)
#[lsm(hook = "ptrace_access_check")]
pub fn lsm_ptrace(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_DANGEROUS) {
        return ALLOW;
    }
    let attach = arg(&ctx, 1) & PTRACE_MODE_ATTACH != 0;
    if is_agent(arg(&ctx, 0)) {
        return said(lsm_guard_task(u64::from(denied_op::PTRACE_AGENT), 0));
    }
    if !attach {
        return ALLOW;
    }
    whole(denied_op::PTRACE)
}

/// (parent): PTRACE_TRACEME
#[lsm(hook = "ptrace_traceme")]
pub fn lsm_traceme(_ctx: LsmContext) -> i32 {
    if !ours(run::LSM_DANGEROUS) {
        return ALLOW;
    }
    whole(denied_op::PTRACE)
}

/// mount(2), whatever it does
#[lsm(hook = "sb_mount")]
pub fn lsm_mount(_ctx: LsmContext) -> i32 {
    if !ours(run::LSM_DANGEROUS) {
        return ALLOW;
    }
    whole(denied_op::MOUNT)
}

/// move_mount(2): what fsmount and open_tree made gets a place
#[lsm(hook = "move_mount")]
pub fn lsm_move_mount(_ctx: LsmContext) -> i32 {
    if !ours(run::LSM_DANGEROUS) {
        return ALLOW;
    }
    whole(denied_op::MOVE_MOUNT)
}

/// umount2(2)
#[lsm(hook = "sb_umount")]
pub fn lsm_umount(_ctx: LsmContext) -> i32 {
    if !ours(run::LSM_DANGEROUS) {
        return ALLOW;
    }
    whole(denied_op::UMOUNT)
}

/// pivot_root(2)
#[lsm(hook = "sb_pivotroot")]
pub fn lsm_pivot_root(_ctx: LsmContext) -> i32 {
    if !ours(run::LSM_DANGEROUS) {
        return ALLOW;
    }
    whole(denied_op::PIVOT_ROOT)
}

/// (command, attributes, size): bpf(2)
#[lsm(hook = "bpf")]
pub fn lsm_bpf(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_DANGEROUS) {
        return ALLOW;
    }
    if guard_links(arg(&ctx, 0) & 0xffff_ffff, arg(&ctx, 1) as usize) != 0 {
        return said(1);
    }
    whole(denied_op::BPF)
}

/// (family, type, protocol, 1 for the kernel's own)
#[lsm(hook = "socket_create")]
pub fn lsm_socket(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_DANGEROUS) {
        return ALLOW;
    }
    let (of, kernel) = (arg(&ctx, 0) & 0xff, arg(&ctx, 3) as u32);
    if kernel != 0 || of < 64 && SEEN >> of & 1 == 1 {
        return ALLOW;
    }
    said(lsm_family(u64::from(denied_op::SOCKET), u64::from(family::NETWORK), of))
}
