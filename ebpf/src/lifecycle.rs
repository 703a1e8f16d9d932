//! Fork, exec, exit: always attached. They find candidates and keep lineage in the kernel, so that
//! no act of a child is ever seen before its parent is known.

use abi::{Channel, Exec, Exit, Fork, Proc, Tree, exec_flag, flag, kind, run};
use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};

use crate::{
    env::env_flags,
    kernel::{S_IFMT, channel_key, file_of, read},
    maps::{CHANNELS, TREES},
    path::{append_cwd, append_file},
    policy::{held_to, live::called, maps::TREE_POLICY},
    record::{
        CUT, FAULT, LIFECYCLE, append_kernel_text, append_user_bytes, count, header, new_id, scratch, submit,
    },
    track::{current_tgid, epoch, find, maybe, now, ran, track, untrack},
};

#[inline(always)]
fn arg(ctx: &RawTracePointContext, n: usize) -> usize {
    let args = ctx.as_ptr().cast::<u64>();
    // SAFETY: raw tracepoint arguments are u64s; n is within the tracepoint's argument list.
    unsafe { *args.add(n) as usize }
}

/// (parent task, child task)
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn fork(ctx: RawTracePointContext) -> i32 {
    let tgid = current_tgid();
    let Some((proc, tree)) = find(tgid) else {
        return 0;
    };
    ran(run::FORK);
    let child = arg(&ctx, 1);
    let child_tgid: u32 = read(child + off!(task_tgid));
    // A thread, not a process.
    if child_tgid == tgid {
        return 0;
    }
    let at = now();
    // SAFETY: a live map value.
    let mut new = unsafe { *proc };
    let parent_start = new.start_ns;
    new.start_ns = read(child + off!(task_start_boottime));
    new.flags = 0;
    if let Some(held) = held_to(new.tree) {
        // What it is born for it may do, however long it lives.
        new.born |= called(held.root, at);
    }
    track(child_tgid, &new);
    let Some(s) = scratch(LIFECYCLE) else {
        return 0;
    };
    // SAFETY: the scratch buffer of this CPU, larger than the record.
    unsafe {
        let r = (&raw mut (*s).bytes).cast::<Fork>();
        header(
            &raw mut (*r).header,
            kind::FORK,
            tgid,
            at,
            new_id(at, kind::FORK),
            new.tree,
            epoch(tree, at),
            0,
        );
        (*r).child = child_tgid;
        (*r)._pad = 0;
        (*r).parent_start_ns = parent_start;
        (*r).child_start_ns = new.start_ns;
        (*s).len = size_of::<Fork>() as u64;
    }
    submit(LIFECYCLE, 1);
    0
}

#[inline(always)]
fn ensure_channel(key: u64) {
    if CHANNELS.get_ptr(key).is_none() && CHANNELS.insert(key, Channel { position: [0; 4] }, 1).is_err() {
        count(abi::counter::TREES_FULL, 1);
    }
}

/// (task, old pid, linux_binprm)
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn exec(ctx: RawTracePointContext) -> i32 {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() } as usize;
    let tgid = current_tgid();
    // SAFETY: a static of plain integers, written before load.
    if tgid == unsafe { core::ptr::read_volatile(&raw const crate::kernel::SETTINGS.agent) } {
        return 0;
    }
    let stdin = channel_key(file_of(task, 0));
    let stdout = channel_key(file_of(task, 1));
    let both = stdin != 0 && stdout != 0;
    let known = find(tgid);
    if known.is_none() && !both {
        return 0;
    }
    ran(run::EXEC);
    let at = now();
    let start: u64 = read(task + off!(task_start_boottime));
    let mut proc = Proc { tree: 0, start_ns: start, stdin, stdout, flags: 0, born: 0 };
    let mut parent_tree = 0;
    let mut new_tree = both;
    if let Some((p, t)) = known {
        // SAFETY: live map values.
        unsafe {
            proc.tree = (*p).tree;
            proc.flags = (*p).flags;
            proc.born = (*p).born;
            parent_tree = proc.tree;
            // Within a tree, only a pair of channels of its own makes a new one: the members of a
            // launcher chain share theirs, and a child that merely inherits stdin has no own request
            // channel.
            if both && (stdin == (*t).request || stdin == (*p).stdin && stdout == (*p).stdout) {
                new_tree = false;
            }
        }
    }
    let mut flags = 0;
    if new_tree {
        proc.tree = at & !0x3f_ffff | u64::from(tgid & 0x3f_ffff);
        let tree = Tree { epoch: 0, since_ns: at, request: stdin, reply: stdout, parent: parent_tree };
        if TREES.insert(proc.tree, tree, 0).is_err() {
            count(abi::counter::TREES_FULL, 1);
            return 0;
        }
        // After the tree is there: who binds the outer tree meanwhile finds this one.
        if let Some(held) = held_to(parent_tree)
            && TREE_POLICY.insert(proc.tree, held, 1).is_err()
            && held_to(proc.tree).is_none()
        {
            // It stays in the outer tree, and is held to what that one is.
            count(abi::counter::POLICY_FULL, 1);
            let _gone = TREES.remove(proc.tree);
            proc.tree = parent_tree;
        } else {
            ensure_channel(stdin);
            ensure_channel(stdout);
            flags |= exec_flag::NEW_TREE;
        }
    }
    track(tgid, &proc);
    let e = TREES.get_ptr(proc.tree).map_or(0, |t| epoch(t, at));
    emit_exec(task, arg(&ctx, 2), &proc, tgid, at, e, flags);
    0
}

#[inline(always)]
fn emit_exec(task: usize, bprm: usize, proc: &Proc, tgid: u32, at: u64, epoch: u32, mut flags: u32) {
    let Some(s) = scratch(LIFECYCLE) else { return };
    let parent: usize = read(task + off!(task_real_parent));
    let file: usize = read(bprm + off!(bprm_file));
    let inode: usize = read(file + off!(file_inode));
    let sb: usize = read(inode + off!(inode_sb));
    let filename: usize = read(bprm + off!(bprm_filename));
    let interp: usize = read(bprm + off!(bprm_interp));
    if filename != interp {
        flags |= exec_flag::SHEBANG;
    }
    let nlink: u32 = read(inode + off!(inode_nlink));
    let mode: u16 = read(inode + off!(inode_mode));
    if nlink == 0 && u32::from(mode) & S_IFMT != 0 {
        flags |= exec_flag::UNLINKED;
    }
    if flags & exec_flag::UNLINKED != 0 && is_memfd(file) {
        flags |= exec_flag::MEMFD;
    }
    let mm: usize = read(task + off!(task_mm));
    let arg_start: u64 = read(mm + off!(mm_arg_start));
    let arg_end: u64 = read(mm + off!(mm_arg_end));
    // SAFETY: the scratch buffer of this CPU, larger than the record and its parts.
    unsafe {
        // First: it uses the same bytes.
        let env = env_flags(read(mm + off!(mm_env_start)), read(mm + off!(mm_env_end)));
        let r = (&raw mut (*s).bytes).cast::<Exec>();
        header(&raw mut (*r).header, kind::EXEC, tgid, at, new_id(at, kind::EXEC), proc.tree, epoch, 0);
        (*r).parent = read(parent + off!(task_tgid));
        let leader: usize = read(parent + off!(task_group_leader));
        (*r).parent_start_ns = read(leader + off!(task_start_boottime));
        (*r).start_ns = proc.start_ns;
        (*r).stdin = proc.stdin;
        (*r).stdout = proc.stdout;
        (*r).ino = read(inode + off!(inode_ino));
        (*r).dev = read(sb + off!(sb_dev));
        (*r).login_uid = if off!(task_login_uid) == abi::offsets::ABSENT as usize {
            u32::MAX
        } else {
            read(task + off!(task_login_uid))
        };
        (*s).len = size_of::<Exec>() as u64;
        let path = append_file(LIFECYCLE, file);
        let cwd = append_cwd(LIFECYCLE, task);
        let script =
            if flags & exec_flag::SHEBANG != 0 { append_kernel_text(LIFECYCLE, filename as u64) } else { 0 };
        let argv = append_user_bytes(LIFECYCLE, arg_start, arg_end.wrapping_sub(arg_start));
        if path & CUT != 0 {
            flags |= exec_flag::PATH_CUT;
        }
        if cwd & CUT != 0 {
            flags |= exec_flag::CWD_CUT;
        }
        if argv & CUT != 0 {
            flags |= exec_flag::ARGV_CUT;
        }
        if (path | cwd | script | argv) & FAULT != 0 {
            (*r).header.flags |= flag::FAULT;
        }
        (*r).flags = flags;
        (*r).path_len = path as u32;
        (*r).cwd_len = cwd as u32;
        (*r).script_len = script as u32;
        (*r).argv_len = argv as u32;
        (*r).env_flags = env as u32;
        (*r)._pad = 0;
    }
    submit(LIFECYCLE, if flags & exec_flag::NEW_TREE != 0 { 2 } else { 1 });
}

/// Whether the file's name begins as those of memfds do.
#[inline(always)]
fn is_memfd(file: usize) -> bool {
    let dentry: usize = read(file + off!(file_path) + off!(path_dentry));
    let text: usize = read(dentry + off!(dentry_name) + off!(qstr_name));
    let mut name = [0u8; 8];
    // SAFETY: eight bytes into an array of eight.
    unsafe { bpf_probe_read_kernel(name.as_mut_ptr().cast(), 8, text as *const _) };
    u64::from_le_bytes(name) & 0xffff_ffff_ffff == u64::from_le_bytes(*b"memfd:\0\0")
}

/// CPU time of a process: threads that are gone, and the first [`THREADS`] that live.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cpu_time(task: u64) -> u64 {
    let signal: usize = read(task as usize + off!(task_signal));
    let head = signal + off!(signal_thread_head);
    let mut sum: u64 = read(signal + off!(signal_runtime));
    let mut node: usize = read(head);
    for _ in 0..THREADS {
        if node == head || node == 0 {
            break;
        }
        let thread = node - off!(task_thread_node);
        sum += read::<u64>(thread + off!(task_runtime));
        node = read(node);
    }
    sum
}

/// Threads whose CPU time is summed up; servers have about a dozen.
const THREADS: usize = 64;

/// (task); newer kernels pass a second argument.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exit(ctx: RawTracePointContext) -> i32 {
    let tgid = current_tgid();
    if !maybe(tgid) {
        return 0;
    }
    ran(run::EXIT);
    let found = find(tgid);
    let task = arg(&ctx, 0);
    let signal: usize = read(task + off!(task_signal));
    let live: u32 = read(signal + off!(signal_live));
    // Other threads still run.
    if live != 0 {
        return 0;
    }
    let Some((proc, tree)) = found else {
        // A client under proof, or one whose tree is gone.
        untrack(tgid);
        return 0;
    };
    let at = now();
    let Some(s) = scratch(LIFECYCLE) else {
        return 0;
    };
    // SAFETY: a live map value; the scratch buffer of this CPU.
    unsafe {
        let r = (&raw mut (*s).bytes).cast::<Exit>();
        header(
            &raw mut (*r).header,
            kind::EXIT,
            tgid,
            at,
            new_id(at, kind::EXIT),
            (*proc).tree,
            epoch(tree, at),
            0,
        );
        (*r).start_ns = (*proc).start_ns;
        (*r).cpu_ns = cpu_time(task as u64);
        (*r).max_rss = read::<u64>(signal + off!(signal_maxrss)) << 12;
        let group: u32 = read(signal + off!(signal_group_exit_code));
        (*r).status = if group != 0 { group } else { read(task + off!(task_exit_code)) };
        (*r)._pad = 0;
        (*s).len = size_of::<Exit>() as u64;
    }
    submit(LIFECYCLE, 1);
    untrack(tgid);
    0
}
