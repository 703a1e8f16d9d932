//! What servers do to the agent, told where nothing denies it: signals that reach it, cgroups that it is put into, its memory and
//! descriptors, its BPF objects. What is denied by LSM programs never comes here.
//!
//! Of signals and cgroups the kernel tells whom they reached, whatever the number was that the caller knew him by, so these two
//! are programs of their own and look at no arguments.

use abi::{denied_flag, denied_op, paths::object, policy::family, run};
use aya_ebpf::{EbpfContext as _, macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    kernel::{file_of, read},
    lsm::{
        guard::{GUARDED_TASKS, is_agent},
        judge::server,
        objects::{command, is_own, program_id},
    },
    policy::deny::{self, Actor, Object},
    record::{SYSCALLS, scratch},
    syscall::arg,
    track::{current_tgid, epoch, find, now, ours},
};

#[inline(always)]
fn argument(ctx: &RawTracePointContext, n: usize) -> u64 {
    // SAFETY: callers know how many arguments their tracepoint has.
    unsafe { *ctx.as_ptr().cast::<u64>().add(n) }
}

/// Tells of an act that has happened, if it was a server's. By the short way: the stacks of older kernels have no room for another.
#[inline(always)]
fn tell(actor: &Actor, op: u32, number: u64) {
    if server(actor.tree).is_some() {
        let (addr, family, flags) = ([0; 2], family::DANGEROUS, denied_flag::DRY_RUN);
        deny::told(actor, &Object { addr, port: number, op, family, flags });
    }
}

/// The same of the process that runs.
#[inline(always)]
fn tell_of_current(op: u32, number: u64) {
    let tgid = current_tgid();
    let Some((proc, tree)) = find(tgid) else { return };
    let at = now();
    // SAFETY: a live map value.
    let own = unsafe { (*proc).tree };
    tell(&Actor { tree: own, tgid, live: 0, held: 0, at, epoch: epoch(tree, at) }, op, number);
}

/// (signal, info, task, group, result)
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn signalled(ctx: RawTracePointContext) -> i32 {
    if ours(run::TAMPERING) && is_agent(argument(&ctx, 2)) {
        tell_of_current(denied_op::KILL_AGENT, argument(&ctx, 0) & 0xff);
    }
    0
}

/// (cgroup, path, task, whole group)
#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
pub fn moved(ctx: RawTracePointContext) -> i32 {
    if ours(run::TAMPERING) && is_agent(argument(&ctx, 2)) {
        tell_of_current(denied_op::MOVE_AGENT, 0);
    }
    0
}

/// The system call at work, which deserves an event of its own, may be against the agent.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_tampering() -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    let task = call.task as usize;
    let target = match (call.compat, call.nr) {
        // ptrace(request, pid)
        (0, 101) | (_, 26) => arg(call, 1) as u32,
        // process_vm_readv, process_vm_writev
        (0, 310 | 311) | (_, 347 | 348) => arg(call, 0) as u32,
        (0, 438) => pid_of(task, arg(call, 0) as u32),
        _ => 0,
    };
    let (mut op, mut number) = (0, 0);
    if call.compat == 0 && call.nr == 321 || call.compat != 0 && call.nr == 357 {
        number = on_bpf(task, arg(call, 0), call.ret);
        op = if number == 0 { 0 } else { denied_op::AGENT_BPF };
    } else if let Some(known) = GUARDED_TASKS.get_ptr(target) {
        // SAFETY: a live map value.
        let denied = unsafe { (*known).denied };
        // Numbers of processes in another namespace are others.
        let own: usize = read(task + off!(task_thread_pid));
        // What succeeded was not denied, whatever was attached.
        if (denied == 0 || call.ret >= 0) && read::<u32>(own + off!(pid_level)) == 0 {
            op = denied_op::PTRACE_AGENT;
        }
    }
    if op != 0 {
        let (tree, tgid, at, epoch) = (call.tree, call.tgid as u32, call.at, call.epoch as u32);
        tell(&Actor { tree, tgid, live: 0, held: 0, at, epoch }, op, number);
    }
    0
}

/// The process behind a pidfd, by its number on the host; 0: it is none.
#[inline(always)]
fn pid_of(task: usize, fd: u32) -> u32 {
    let file = file_of(task, fd);
    let mut pid: usize = read(file + off!(file_private));
    if pid == 0 {
        // From 6.9 on pidfds are files of a file system of their own.
        let inode: usize = read(file + off!(file_inode));
        pid = read(inode + off!(inode_private));
    }
    let node: usize = read(pid + off!(pid_tasks));
    if node == 0 {
        return 0;
    }
    read(node - off!(task_pid_links) + off!(task_tgid))
}

/// bpf(2): a descriptor that came of it may be of an object of the agent's. Which kind, as it is told; 0: of none.
#[inline(always)]
fn on_bpf(task: usize, command: u64, ret: i64) -> u64 {
    let kind = match command {
        command::LINK_UPDATE | command::LINK_DETACH if ret == 0 => object::LINK,
        command::OBJ_GET
        | command::PROG_GET_FD_BY_ID
        | command::MAP_GET_FD_BY_ID
        | command::LINK_GET_FD_BY_ID
            if ret >= 0 =>
        {
            reached(file_of(task, ret as u32))
        }
        _ => 0,
    };
    kind >> 32
}

/// What kind of object of the agent's a file is; 0: of none. Its name says what it is: `bpf-map`, `bpf-prog`, `bpf_link`.
#[inline(always)]
fn reached(file: usize) -> u64 {
    let dentry: usize = read(file + off!(file_path) + off!(path_dentry));
    let text: usize = read(dentry + off!(dentry_name) + off!(qstr_name));
    let object: usize = read(file + off!(file_private));
    let (kind, id) = match read::<u8>(text + 4) {
        b'm' => (object::MAP, read(object + off!(bpf_map_id))),
        b'p' => (object::PROGRAM, program_id(object)),
        b'l' => (object::LINK, read(object + off!(bpf_link_id))),
        _ => return 0,
    };
    if is_own(kind, id) { kind } else { 0 }
}
