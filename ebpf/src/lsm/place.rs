//! What no server may change of the agent's places: its files and pins, the cgroups that it and its watchdog are in, its part of
//! procfs, and the mounts that all those are on. Nor which cgroup a process of the agent's is in: whose number is
//! written cannot be known when the file is opened, so files that move processes open to no server that could move the agent's.

use abi::{
    denied_op,
    paths::{DEPTH, InodeKey, access, guarded},
};
use aya_ebpf::{btf_maps::HashMap, helpers::generated::bpf_get_current_task, macros::btf_map};

use super::{
    guard::is_agent,
    judge::{begin, bit, lsm_tell, server},
    work::{NONE, give_back},
};
use crate::{
    kernel::{S_IFMT, read},
    track::{current_tgid, epoch, find, now},
};

/// Files and directories of the agent's; the values are of [`guarded`].
#[btf_map]
pub static GUARDED_FILES: HashMap<InodeKey, u64, 512> = HashMap::new();

const CHANGES: u64 = bit(access::WRITE) | bit(access::DELETE) | bit(access::CHANGE);
const S_IFREG: u32 = 0o100_000;
const CGROUP: u64 = 0x0027_e0eb;
const CGROUP2: u64 = 0x6367_7270;
const PROC: u64 = 0x9fa0;
/// CAP_DAC_OVERRIDE
const OVERRIDE: u64 = 1 << 1;

/// Whether an act of a server's on a name would change what is the agent's; 1: it must fail.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_guard(what: u64, dentry: u64, mnt: u64) -> u64 {
    let tgid = current_tgid();
    let Some((proc, tree)) = find(tgid) else { return 0 };
    // SAFETY: live map values.
    let (tree_id, born) = unsafe { ((*proc).tree, (*proc).born) };
    let Some(held) = server(tree_id) else { return 0 };
    if lsm_special(what, dentry) == 0 && lsm_guarded(what, dentry, mnt) == 0 {
        return 0;
    }
    let slot = begin(tree_id, tgid, born, epoch(tree, now()), &held);
    if slot != NONE {
        lsm_tell(slot, u64::from(denied_op::AGENT_FILE), dentry, mnt, 0);
        give_back(slot);
    }
    1
}

/// Whether a mount at this place holds or would hide what is the agent's. Other namespaces of mounts than the agent's are their
/// owners' own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_guards_mount(dentry: u64, mnt: u64) -> u64 {
    if lsm_is_agents_namespace(mnt) == 0 {
        return 0;
    }
    lsm_guarded(bit(access::DELETE), dentry, mnt)
}

/// Whether a mount is one that the agent sees.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_is_agents_namespace(mnt: u64) -> u64 {
    let mount = mnt as usize - off!(mount_mnt);
    let namespace: usize = read(mount + off!(mount_ns));
    let number: u32 = read(namespace + off!(mnt_ns_inum));
    // SAFETY: a static of plain integers, written before load.
    let own = unsafe { core::ptr::read_volatile(&raw const crate::kernel::SETTINGS.mount_ns) };
    u64::from(number == own)
}

#[inline(always)]
fn inode_of(dentry: usize) -> usize {
    read(dentry + off!(dentry_inode))
}

#[inline(always)]
fn magic(inode: usize) -> u64 {
    let sb: usize = read(inode + off!(inode_sb));
    read(sb + off!(sb_magic))
}

/// Bits of [`guarded`] for what a name stands for.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_guards(dentry: u64) -> u64 {
    let inode = inode_of(dentry as usize);
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

/// Whether a file of cgroups or of procfs acts on the agent's processes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_special(what: u64, dentry: u64) -> u64 {
    let inode = inode_of(dentry as usize);
    if what & CHANGES == 0 || inode == 0 {
        return 0;
    }
    if u32::from(read::<u16>(inode + off!(inode_mode))) & S_IFMT != S_IFREG {
        return 0;
    }
    let magic = magic(inode);
    if magic == PROC {
        return lsm_is_agents_proc(inode as u64);
    }
    if magic != CGROUP && magic != CGROUP2 {
        return 0;
    }
    let parent: u64 = read(dentry as usize + off!(dentry_parent));
    if lsm_guards(parent) & guarded::INSIDE != 0 {
        return 1;
    }
    u64::from(moves(dentry as usize) && is_mighty())
}

/// Whether processes are moved by writing to a file of a cgroup.
#[inline(always)]
fn moves(dentry: usize) -> bool {
    let name = dentry + off!(dentry_name);
    let len: u32 = read(name + off!(qstr_len));
    let text: usize = read(name + off!(qstr_name));
    let [first, second]: [u64; 2] = read(text);
    let is = |part: u64, wanted: &[u8; 8]| part == u64::from_le_bytes(*wanted);
    match len {
        5 => is(first & 0xff_ffff_ffff, b"tasks\0\0\0"),
        12 => is(first, b"cgroup.p") && is(second & 0xffff_ffff, b"rocs\0\0\0\0"),
        14 => is(first, b"cgroup.t") && is(second & 0xffff_ffff_ffff, b"hreads\0\0"),
        _ => false,
    }
}

/// Whether the current process may move processes of root's.
#[inline(always)]
fn is_mighty() -> bool {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() } as usize;
    let cred: usize = read(task + off!(task_cred));
    if read::<u32>(cred + off!(cred_euid)) == 0 {
        return true;
    }
    let space: usize = read(cred + off!(cred_user_ns));
    let caps: u64 = read(cred + off!(cred_caps));
    caps & OVERRIDE != 0 && read::<i32>(space + off!(user_ns_level)) == 0
}

/// Whether a file of procfs is about a process of the agent's.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_is_agents_proc(inode: u64) -> u64 {
    let pid: usize = read(inode as usize - off!(proc_inode) + off!(proc_pid));
    if pid == 0 {
        return 0;
    }
    // A hlist_head; its nodes are within the tasks.
    let node: usize = read(pid + off!(pid_tasks));
    u64::from(node != 0 && is_agent((node - off!(task_pid_links)) as u64))
}
