//! What no server may do to the agent's processes, whatever its policy says: signal, trace, limit or slow them. Servers are
//! trees that the engine knows as such, not everything that is tracked: a person's pipeline is a candidate, too, for a moment.

use abi::{
    denied_op,
    paths::{GuardedTask, TICK_NS},
    run,
};
use aya_ebpf::{
    btf_maps::HashMap,
    macros::{btf_map, lsm},
    programs::LsmContext,
};

use super::{ALLOW, arg, judge::lsm_own, ours, said};
use crate::kernel::read;

/// The agent and its watchdog, by process id.
#[btf_map]
pub static GUARDED_TASKS: HashMap<u32, GuardedTask, 16> = HashMap::new();

/// What is known of a task of the agent's or its watchdog's.
#[inline(always)]
pub fn guarded(task: u64) -> Option<GuardedTask> {
    let tgid: u32 = read(task as usize + off!(task_tgid));
    let known = GUARDED_TASKS.get_ptr(tgid)?;
    let leader: usize = read(task as usize + off!(task_group_leader));
    let start: u64 = read(leader + off!(task_start_boottime));
    // SAFETY: a live map value.
    let known = unsafe { *known };
    (known.start_ns / TICK_NS == start / TICK_NS).then_some(known)
}

/// Whether a task is the agent or its watchdog.
#[inline(always)]
pub fn is_agent(task: u64) -> bool {
    guarded(task).is_some()
}

/// A server goes for the agent's process; 1: it must fail.
#[inline(always)]
pub fn lsm_guard_task(op: u64, number: u64) -> u64 {
    lsm_own(op, number)
}

/// An act whose first argument is the task that it is done to.
#[inline(always)]
fn on_task(ctx: &LsmContext, op: u32, number: u64) -> i32 {
    if !ours(run::LSM_GUARD) || !is_agent(arg(ctx, 0)) {
        return ALLOW;
    }
    said(lsm_guard_task(u64::from(op), number))
}

/// (task, info, signal, credentials)
#[lsm(hook = "task_kill")]
pub fn lsm_kill(ctx: LsmContext) -> i32 {
    on_task(&ctx, denied_op::KILL_AGENT, arg(&ctx, 2) & 0xff)
}

/// (task, owner, signal): a file has news for its owner, who may be anybody. Whoever runs now need not be who made it so, and the
/// agent asks for no such signals: they are denied whoever it was.
#[lsm(hook = "file_send_sigiotask")]
pub fn lsm_sigio(ctx: LsmContext) -> i32 {
    if !is_agent(arg(&ctx, 0)) {
        return ALLOW;
    }
    if ours(run::LSM_GUARD) {
        // Told if it was a server; denied in any case.
        let _told = lsm_guard_task(u64::from(denied_op::KILL_AGENT), arg(&ctx, 2) & 0xff);
    }
    said(1)
}

/// (task, resource, limit)
#[lsm(hook = "task_setrlimit")]
pub fn lsm_rlimit(ctx: LsmContext) -> i32 {
    on_task(&ctx, denied_op::LIMIT_AGENT, 0)
}

/// (task): scheduling class, processors; also moving it into another cpuset
#[lsm(hook = "task_setscheduler")]
pub fn lsm_scheduler(ctx: LsmContext) -> i32 {
    on_task(&ctx, denied_op::LIMIT_AGENT, 0)
}

/// (task, priority)
#[lsm(hook = "task_setnice")]
pub fn lsm_nice(ctx: LsmContext) -> i32 {
    on_task(&ctx, denied_op::LIMIT_AGENT, 0)
}

/// (task, priority)
#[lsm(hook = "task_setioprio")]
pub fn lsm_ioprio(ctx: LsmContext) -> i32 {
    on_task(&ctx, denied_op::LIMIT_AGENT, 0)
}
