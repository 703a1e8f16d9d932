//! Verdicts on paths, and telling them.

use abi::{
    Denied, counter, denied_flag, denied_op, flag, kind,
    paths::access,
    policy::{CEILING, TreePolicy, family, tree_flag},
};

use super::{
    rights::lsm_rights,
    walk::{INTERNAL, NAMED, UNNAMED, abstract_name, lsm_walk},
    work::{NONE, give_back, take_work, work},
};
use crate::{
    path::append_path,
    policy::{
        deny::{self, Actor, Object},
        held_to, judged,
        live::live,
        verdict::FORBIDDEN,
    },
    record::{Aggregated, CUT, LSM, aggregate, aggregate_lost, count, new_id, scratch, submit},
    socket::append_unix_name,
    track::{current_tgid, epoch, find, now},
};

/// Beside bits of [`access`]: no right covers it, whatever its name.
pub const NAMELESS: u64 = 1 << 8;
/// It needs no right of its own, and one that says nobody denies it.
pub const UNLESS_FORBIDDEN: u64 = 1 << 9;

/// Bit of an access.
pub const fn bit(access: u32) -> u64 {
    1 << access
}

/// The family that accesses belong to.
#[inline(always)]
fn family_of(what: u64) -> u32 {
    if what & bit(access::EXEC) != 0 {
        return family::EXEC;
    }
    if what & bit(access::UNIX) != 0 {
        return family::UNIX;
    }
    family::FILE
}

/// Takes a work space and notes who acts. [`NONE`]: there is none.
#[inline(always)]
pub fn begin(tree: u64, tgid: u32, born: u64, epoch: u32, held: &TreePolicy) -> u64 {
    let slot = take_work();
    let Some(w) = work(slot) else {
        count(counter::LSM_BUSY, 1);
        return NONE;
    };
    let at = now();
    // SAFETY: the work space of this program.
    unsafe {
        (*w).tree = tree;
        (*w).tgid = u64::from(tgid);
        (*w).born = born;
        (*w).epoch = u64::from(epoch);
        (*w).at = at;
        (*w).root = held.root;
        (*w).policy = u64::from(held.policy);
        (*w).flags = u64::from(held.flags);
        (*w).live = live(held.root, born, at);
        (*w).names = 0;
        (*w).sum = 0;
    }
    slot
}

/// Judges an act of the current process on a path; 1: it must fail.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_path(what: u64, dentry: u64, mnt: u64) -> u64 {
    let tgid = current_tgid();
    let Some((proc, tree)) = find(tgid) else { return 0 };
    // SAFETY: live map values.
    let (tree_id, born) = unsafe { ((*proc).tree, (*proc).born) };
    let Some(held) = judged(tree_id, family_of(what)) else { return 0 };
    let slot = begin(tree_id, tgid, born, epoch(tree, now()), &held);
    if slot == NONE {
        return u64::from(held.flags & tree_flag::ENFORCE != 0);
    }
    let op = lsm_judge(slot, what, dentry, mnt);
    let mut denied = 0;
    if op != 0 {
        // SAFETY: the work space of this program.
        let mask = work(slot).map_or(0, |w| unsafe { (&raw const (*w).found).read_volatile() });
        // Told from here, not from there: frames of a chain of calls share 512 bytes.
        lsm_tell(slot, op, dentry, mnt, mask);
        denied = u64::from(held.flags & tree_flag::ENFORCE != 0);
    }
    give_back(slot);
    denied
}

/// The same with a work space: 0, or what is denied, and who holds a right to it in `found`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_judge(slot: u64, what: u64, dentry: u64, mnt: u64) -> u64 {
    let Some(w) = work(slot) else { return 0 };
    let kind = lsm_walk(slot, dentry, mnt);
    // What has no name is opened by nobody but those who have it; as a program it is from memory.
    let nameless = kind == UNNAMED || kind == INTERNAL;
    if nameless && what & bit(access::EXEC) == 0 || kind == INTERNAL && what & NAMELESS == 0 {
        return 0;
    }
    // SAFETY: the work space of this program.
    let live = unsafe { (*w).live };
    for access in 0..6u64 {
        if what >> access & 1 == 0 {
            continue;
        }
        let mut mask = 0;
        if kind == NAMED && what & NAMELESS == 0 {
            mask = lsm_rights(slot, access);
        }
        let forbidden = mask & FORBIDDEN != 0;
        let may = mask & live & CEILING != 0 || what & UNLESS_FORBIDDEN != 0 && !forbidden;
        if may {
            continue;
        }
        // SAFETY: as above.
        unsafe { (&raw mut (*w).found).write_volatile(mask) };
        return u64::from(denied_op::FIRST_LSM) + access;
    }
    0
}

/// Judges connecting to an abstract unix socket, whose name has `len` bytes at `name`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_abstract(sk: u64, name: u64, len: u64) -> u64 {
    let tgid = current_tgid();
    let Some((proc, tree)) = find(tgid) else { return 0 };
    // SAFETY: live map values.
    let (tree_id, born) = unsafe { ((*proc).tree, (*proc).born) };
    let Some(held) = judged(tree_id, family::UNIX) else { return 0 };
    let enforce = u64::from(held.flags & tree_flag::ENFORCE != 0);
    let slot = begin(tree_id, tgid, born, epoch(tree, now()), &held);
    let Some(w) = work(slot) else { return enforce };
    let len = mask!(len, 127);
    // SAFETY: the work space of this program, whose name has room for what the mask lets through.
    let live = unsafe {
        aya_ebpf::helpers::generated::bpf_probe_read_kernel(
            (&raw mut (*w).text).cast(),
            len as u32,
            name as *const _,
        );
        (*w).live
    };
    abstract_name(slot, w, len);
    let mask = lsm_rights(slot, u64::from(access::UNIX));
    let mut denied = 0;
    if mask & live & CEILING == 0 {
        lsm_tell(slot, u64::from(denied_op::UNIX_ABSTRACT), sk, 0, mask);
        denied = enforce;
    }
    give_back(slot);
    denied
}

/// Tells of a denied act on a path (its dentry and mount), or on a unix socket.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_tell(slot: u64, op: u64, object: u64, mnt: u64, mask: u64) -> u64 {
    tell::<true>(slot, op, object, mnt, mask)
}

/// The same of an act that has no object, but a number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_tell_number(slot: u64, op: u64, number: u64) -> u64 {
    tell::<false>(slot, op, 0, number, 0)
}

#[inline(always)]
fn tell<const OBJECT: bool>(slot: u64, op: u64, object: u64, mnt: u64, mask: u64) -> u64 {
    let Some(w) = work(slot) else { return 0 };
    let Some(s) = scratch(LSM + slot) else { return 0 };
    // SAFETY: the work space of this program.
    let (actor, sum, tree_flags) = unsafe {
        let actor = Actor {
            tree: (*w).tree,
            tgid: (*w).tgid as u32,
            live: (*w).live,
            held: mask & CEILING,
            at: (*w).at,
            epoch: (*w).epoch as u32,
        };
        (actor, (&raw const (*w).sum).read_volatile(), (*w).flags as u32)
    };
    let op = op as u32;
    let own = op >= denied_op::KILL_AGENT;
    let path = op < denied_op::ACCESS_END || op == denied_op::AGENT_FILE;
    let mut flags = if mask & FORBIDDEN != 0 { denied_flag::FORBIDDEN } else { 0 };
    if tree_flags & tree_flag::ENFORCE == 0 && !own {
        flags |= denied_flag::DRY_RUN;
    } else {
        count(counter::DENIED, 1);
    }
    let family = match op {
        _ if op == denied_op::FIRST_LSM + access::EXEC => family::EXEC,
        _ if op == denied_op::FIRST_LSM + access::UNIX => family::UNIX,
        denied_op::UNIX_ABSTRACT => family::UNIX,
        _ if op < denied_op::ACCESS_END => family::FILE,
        _ => family::DANGEROUS,
    };
    let port = if path { 0 } else { mnt & 0xffff };
    let what = Object { addr: [0; 2], port, op, family, flags };
    let id = new_id(actor.at, kind::DENIED);
    let key = deny::key(&actor, &what, sum);
    let Aggregated::Record(flags) = aggregate(&key, id, 0, 0) else {
        return 0;
    };
    // SAFETY: the scratch buffer of this program, larger than the record and a path.
    unsafe {
        let r = (&raw mut (*s).bytes).cast::<Denied>();
        deny::fill(r, &actor, &what, id, flags);
        (*s).len = size_of::<Denied>() as u64;
        if OBJECT && path {
            let n = append_path(LSM + slot, object, mnt);
            if n & CUT != 0 {
                (*r).header.flags |= flag::TRUNCATED;
            }
            (*r).len = n as u32;
        }
        if OBJECT && op == denied_op::UNIX_ABSTRACT {
            (*r).len = append_unix_name(LSM + slot, object) as u32;
        }
    }
    // Something may have to be done about it: nobody waits for the agent's next look.
    if submit(LSM + slot, 2) != 0 {
        aggregate_lost(&key, flags);
    }
    0
}

/// Denies an act that is of a family as a whole; 1: it must fail. `number` is told with it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_family(op: u64, family: u64, number: u64) -> u64 {
    let tgid = current_tgid();
    let Some((proc, tree)) = find(tgid) else { return 0 };
    // SAFETY: live map values.
    let (tree_id, born) = unsafe { ((*proc).tree, (*proc).born) };
    let Some(held) = judged(tree_id, family as u32) else { return 0 };
    tell_whole(op, number, tree_id, tgid, born, epoch(tree, now()), &held);
    u64::from(held.flags & tree_flag::ENFORCE != 0)
}

/// Whether the current process is a server's, and tells that it went for the agent; 1: it must fail.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lsm_own(op: u64, number: u64) -> u64 {
    let tgid = current_tgid();
    let Some((proc, tree)) = find(tgid) else { return 0 };
    // SAFETY: live map values.
    let (tree_id, born) = unsafe { ((*proc).tree, (*proc).born) };
    let Some(held) = server(tree_id) else { return 0 };
    tell_whole(op, number, tree_id, tgid, born, epoch(tree, now()), &held);
    1
}

#[inline(always)]
fn tell_whole(op: u64, number: u64, tree: u64, tgid: u32, born: u64, epoch: u32, held: &TreePolicy) {
    let slot = begin(tree, tgid, born, epoch, held);
    if slot != NONE {
        lsm_tell_number(slot, op, number);
        give_back(slot);
    }
}

/// What a server's tree is held to.
#[inline(always)]
pub fn server(tree: u64) -> Option<TreePolicy> {
    held_to(tree).filter(|held| held.flags & (tree_flag::SERVER | tree_flag::ENFORCE) != 0)
}
