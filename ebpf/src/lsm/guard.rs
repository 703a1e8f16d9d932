//! What no server may do to the agent, whatever its policy says: signal or trace it, change its files. Servers are trees that
//! the engine knows as such, not everything that is tracked: a person's pipeline is a candidate, too, for a moment.

use abi::{
    denied_op,
    paths::{DEPTH, InodeKey, access, guarded},
};
use aya_ebpf::{
    btf_maps::HashMap,
    macros::{btf_map, lsm},
    programs::LsmContext,
};

use super::{
    ALLOW, arg,
    judge::{begin, bit, lsm_own, lsm_tell, server},
    said,
    work::{NONE, give_back},
};
use crate::{
    kernel::read,
    track::{current_tgid, epoch, find, maybe, now},
};

/// The agent and its watchdog, by process id.
#[btf_map]
pub static GUARDED_TASKS: HashMap<u32, u64, 16> = HashMap::new();

/// Files and directories of the agent's; the values are of [`guarded`].
#[btf_map]
pub static GUARDED_FILES: HashMap<InodeKey, u64, 256> = HashMap::new();

/// Whether a task is the agent or its watchdog.
#[inline(always)]
pub fn is_agent(task: u64) -> bool {
    let tgid: u32 = read(task as usize + off!(task_tgid));
    GUARDED_TASKS.get_ptr(tgid).is_some()
}

/// A server goes for the agent's process; 1: it must fail.
#[inline(always)]
pub fn lsm_guard_task(op: u64, number: u64) -> u64 {
    lsm_own(op, number)
}

/// (task, info, signal, credentials)
#[lsm(hook = "task_kill")]
pub fn lsm_kill(ctx: LsmContext) -> i32 {
    if !maybe(current_tgid()) || !is_agent(arg(&ctx, 0)) {
        return ALLOW;
    }
    said(lsm_guard_task(u64::from(denied_op::KILL_AGENT), arg(&ctx, 2) & 0xff))
}

/// Whether an act of a server's on a name would change the agent's files; 1: it must fail.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_guard(what: u64, dentry: u64, mnt: u64) -> u64 {
    let tgid = current_tgid();
    let Some((proc, tree)) = find(tgid) else { return 0 };
    // SAFETY: live map values.
    let (tree_id, born) = unsafe { ((*proc).tree, (*proc).born) };
    let Some(held) = server(tree_id) else { return 0 };
    if lsm_guarded(what, dentry, mnt) == 0 {
        return 0;
    }
    let slot = begin(tree_id, tgid, born, epoch(tree, now()), &held);
    if slot != NONE {
        lsm_tell(slot, u64::from(denied_op::AGENT_FILE), dentry, mnt, 0);
        give_back(slot);
    }
    1
}

/// Bits of [`guarded`] for what a name stands for.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_guards(dentry: u64) -> u64 {
    let inode: usize = read(dentry as usize + off!(dentry_inode));
    if inode == 0 {
        return 0;
    }
    let sb: usize = read(inode + off!(inode_sb));
    let key = InodeKey { dev: u64::from(read::<u32>(sb + off!(sb_dev))), ino: read(inode + off!(inode_ino)) };
    // SAFETY: a live map value.
    GUARDED_FILES.get_ptr(key).map_or(0, |how| unsafe { how.read_volatile() })
}

/// Whether a name is of a guarded file, or below a guarded directory.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_guarded(what: u64, dentry: u64, mnt: u64) -> u64 {
    let mut at = dentry as usize;
    let mut mnt = mnt as usize;
    let mut root: usize = read(mnt + off!(vfsmount_root));
    if lsm_guards(dentry) & guarded::NAME != 0 && what & bit(access::DELETE) != 0 {
        return 1;
    }
    for _ in 0..DEPTH {
        let parent: usize = read(at + off!(dentry_parent));
        if at == root || at == parent {
            if lsm_guards(at as u64) & guarded::SUBTREE != 0 {
                return 1;
            }
            let mount = mnt - off!(mount_mnt);
            let up: usize = read(mount + off!(mount_parent));
            if at != root || up == mount || up == 0 {
                return 0;
            }
            at = read(mount + off!(mount_mountpoint));
            mnt = up + off!(mount_mnt);
            root = read(mnt + off!(vfsmount_root));
            continue;
        }
        if lsm_guards(at as u64) & guarded::SUBTREE != 0 {
            return 1;
        }
        at = parent;
    }
    0
}
