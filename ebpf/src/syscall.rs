//! The one program at the exit of every system call. At exit pt_regs still hold number and
//! arguments on x86-64, so no entry hook and no per-thread state is needed.

use abi::{AggKey, Syscall, flag, kind, run, syscalls::class};
use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_get_current_task, macros::raw_tracepoint,
    programs::RawTracePointContext,
};

use crate::{
    kernel::read,
    record::{Aggregated, Call, SYSCALLS, aggregate, aggregate_lost, header, new_id, scratch, submit},
    track::{current_tgid, epoch, find, in_office, is_client, maybe, now, ran},
};

#[unsafe(no_mangle)]
static NATIVE: [u8; 512] = abi::syscalls::NATIVE;
#[unsafe(no_mangle)]
static COMPAT: [u8; 512] = abi::syscalls::COMPAT;

/// `thread_info.status` says so while a 32-bit call is under way (arch/x86 TS_COMPAT).
const TS_COMPAT: u32 = 2;

/// (pt_regs, result)
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(ctx: RawTracePointContext) -> i32 {
    let tgid = current_tgid();
    if !maybe(tgid) || !in_office() {
        return 0;
    }
    let args = ctx.as_ptr().cast::<u64>();
    // SAFETY: this tracepoint has two arguments.
    let (regs, ret) = unsafe { (*args, *args.add(1) as i64) };
    ran(run::SYSCALL);
    if let Some(class) = begin(tgid, regs, ret) {
        dispatch(u64::from(class), ret);
    }
    0
}

/// Puts the call into the work space and counts it. None: not ours, or nothing more to do.
#[inline(always)]
fn begin(tgid: u32, regs: u64, ret: i64) -> Option<u8> {
    let found = find(tgid);
    let client = found.is_none() && is_client(tgid);
    if found.is_none() && !client {
        return None;
    }
    let s = scratch(SYSCALLS)?;
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() } as usize;
    let nr: u64 = read(regs as usize + off!(regs_orig_ax));
    let status: u32 = read(task + off!(task_ti_status));
    let compat = u64::from(status & TS_COMPAT != 0);
    let at = now();
    // A client's writes are told by channel: it belongs to no tree.
    let (tree_id, epoch) = found.map_or((0, 0), |(proc, tree)| {
        // SAFETY: a live map value.
        (unsafe { (*proc).tree }, epoch(tree, at))
    });
    let call = Call {
        regs,
        ret,
        nr,
        compat,
        tgid: u64::from(tgid),
        at,
        tree: tree_id,
        epoch: u64::from(epoch),
        task: task as u64,
    };
    // SAFETY: the scratch buffer of this CPU.
    unsafe { (&raw mut (*s).call).write(call) };
    if !client {
        count_call();
    }
    let index = mask!(nr, 511) as usize;
    let table = if compat != 0 { &raw const COMPAT } else { &raw const NATIVE };
    // SAFETY: the index is below 512; the table's content is in read-only data.
    let class = unsafe { table.cast::<u8>().add(index).read_volatile() };
    if nr > 511 || class == class::COUNT {
        return None;
    }
    if client && !(class::WRITE..=class::SENDMSG).contains(&class) {
        return None;
    }
    Some(class)
}

/// Counts the call under (process, epoch, ABI, number).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn count_call() -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    let id = new_id(call.at, kind::SYSCALL);
    let key = AggKey {
        tgid: call.tgid as u32,
        epoch: call.epoch as u32,
        kind: u32::from(kind::SYSCALL),
        sub: call.compat as u32,
        words: [call.nr, 0, 0, 0],
    };
    let Aggregated::Record(flags) = aggregate(&key, id, 0, 0) else {
        return 0;
    };
    // SAFETY: the scratch buffer of this CPU, larger than the record.
    unsafe {
        let r = (&raw mut (*s).bytes).cast::<Syscall>();
        begin_record(&raw mut (*r).header, call, kind::SYSCALL, id, flags);
        (*r).nr = call.nr as u32;
        (*r)._pad = 0;
        (*s).len = size_of::<Syscall>() as u64;
    }
    if submit(SYSCALLS, 0) != 0 {
        aggregate_lost(&key, flags);
    }
    0
}

/// Fills the header of a record about the call at work.
#[inline(always)]
pub fn begin_record(h: *mut abi::Header, call: &Call, kind: u16, id: u64, flags: u32) {
    let compat = if call.compat != 0 { flag::COMPAT } else { 0 };
    header(h, kind, call.tgid as u32, call.at, id, call.tree, call.epoch as u32, flags | compat);
}

/// An argument of the call at work, by position, of either ABI.
#[inline(always)]
pub fn arg(call: &Call, n: u64) -> u64 {
    let regs = call.regs as usize;
    if call.compat != 0 {
        let v: u64 = match n {
            0 => read(regs + off!(regs_bx)),
            1 => read(regs + off!(regs_cx)),
            2 => read(regs + off!(regs_dx)),
            3 => read(regs + off!(regs_si)),
            _ => read(regs + off!(regs_di)),
        };
        return v & 0xffff_ffff;
    }
    match n {
        0 => read(regs + off!(regs_di)),
        1 => read(regs + off!(regs_si)),
        2 => read(regs + off!(regs_dx)),
        3 => read(regs + off!(regs_r10)),
        _ => read(regs + off!(regs_r8)),
    }
}

#[inline(always)]
fn dispatch(class: u64, ret: i64) {
    match class as u8 {
        class::READ..=class::RECVFROM => {
            if ret > 0 {
                crate::channel::on_read(class);
            }
        }
        class::WRITE..=class::SENDMSG => {
            if ret > 0 {
                crate::channel::on_write(class);
            }
        }
        class::MOVE => {
            if ret > 0 {
                crate::channel::on_move();
            }
        }
        class::OPEN => {
            if ret >= 0 {
                crate::file::on_open(ret as u64);
            }
        }
        class::PATH => {
            if ret == 0 {
                crate::file::on_path();
            }
        }
        class::CONNECT | class::BIND => {
            crate::socket::on_unix(class);
        }
        class::LISTEN => {
            if ret == 0 {
                crate::socket::on_listen();
            }
        }
        class::ACCEPT => {
            if ret >= 0 {
                crate::socket::on_accept(ret as u64);
            }
        }
        class::SOCKET => {
            crate::special::on_socket();
        }
        class::GETFD => {
            crate::special::on_special();
            if ret >= 0 {
                crate::file::on_open(ret as u64);
            }
        }
        _ => {
            crate::special::on_special();
        }
    }
}
