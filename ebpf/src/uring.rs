//! io_uring submissions: opcodes, and channels whose bytes move through a ring.

use abi::{AggKey, Blind, Uring, kind, offsets::ABSENT, run, side};
use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_get_current_task, macros::raw_tracepoint,
    programs::RawTracePointContext,
};

use crate::{
    kernel::{channel_key, file_of, read},
    maps::TREES,
    record::{Aggregated, LIFECYCLE, aggregate, aggregate_lost, header, new_id, scratch, submit},
    track::{current_tgid, epoch, find, now, ran},
};

/// The descriptor is an index into registered files.
const REQ_F_FIXED_FILE: u32 = 1;

/// (io_kiocb), kernels 6.3 and later
#[raw_tracepoint(tracepoint = "io_uring_submit_req")]
pub fn uring_submit(ctx: RawTracePointContext) -> i32 {
    of_request(&ctx)
}

/// The same under its older name, where the request is the first argument as well from 5.19 on.
#[raw_tracepoint(tracepoint = "io_uring_submit_sqe")]
pub fn uring_submit_old(ctx: RawTracePointContext) -> i32 {
    of_request(&ctx)
}

/// (context, opcode, user data, ...), kernels before 5.13: which request it is they do not tell.
#[raw_tracepoint(tracepoint = "io_uring_submit_sqe")]
pub fn uring_submit_oldest(ctx: RawTracePointContext) -> i32 {
    let args = ctx.as_ptr().cast::<u64>();
    // SAFETY: the agent attaches this where the tracepoint has five arguments.
    submission(unsafe { *args.add(1) } as u32 & 0xff, 0)
}

#[inline(always)]
fn of_request(ctx: &RawTracePointContext) -> i32 {
    let args = ctx.as_ptr().cast::<u64>();
    // SAFETY: this tracepoint has an argument.
    let request = unsafe { *args } as usize;
    submission(u32::from(read::<u8>(request + off!(uring_opcode))), request)
}

/// Operations that move bytes between a descriptor and memory or another descriptor.
#[inline(always)]
fn moves_bytes(opcode: u32) -> bool {
    matches!(opcode, 1 | 2 | 4 | 5 | 9 | 10 | 22 | 23 | 26 | 27 | 30 | 33 | 47 | 48 | 49)
}

/// `request`: 0 when it is not known.
#[inline(always)]
fn submission(opcode: u32, request: usize) -> i32 {
    let tgid = current_tgid();
    let Some((proc, tree)) = find(tgid) else {
        return 0;
    };
    ran(run::URING);
    let at = now();
    let id = new_id(at, kind::URING);
    let epoch = epoch(tree, at);
    // SAFETY: a live map value.
    let tree_id = unsafe { (*proc).tree };
    let Some(s) = scratch(LIFECYCLE) else {
        return 0;
    };
    let key = AggKey { tgid, epoch, kind: u32::from(kind::URING), sub: opcode, words: [0; 4] };
    if let Aggregated::Record(flags) = aggregate(&key, id, 0, 0) {
        // SAFETY: the scratch buffer of this CPU, larger than the record.
        unsafe {
            let r = (&raw mut (*s).bytes).cast::<Uring>();
            header(r.cast(), kind::URING, tgid, at, id, tree_id, epoch, flags);
            (*r).opcode = opcode;
            (*r)._pad = 0;
            (*s).len = size_of::<Uring>() as u64;
        }
        if submit(LIFECYCLE, 0) != 0 {
            aggregate_lost(&key, flags);
        }
    }
    if request == 0 || !moves_bytes(opcode) || off!(uring_fd) == ABSENT as usize {
        return 0;
    }
    let flags: u32 = read(request + off!(uring_flags));
    let fixed = flags & REQ_F_FIXED_FILE != 0;
    let fd: u32 = read(request + off!(uring_fd));
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() } as usize;
    let channel = if fixed { 0 } else { channel_key(file_of(task, fd)) };
    let Some(tree) = TREES.get_ptr(tree_id) else {
        return 0;
    };
    // SAFETY: a live map value; the scratch buffer of this CPU, larger than the record.
    unsafe {
        // Which file a registered index stands for is not looked up: it may be the channel.
        let request_side = fixed || channel == (*tree).request;
        if !fixed && (channel == 0 || !request_side && channel != (*tree).reply) {
            return 0;
        }
        let r = (&raw mut (*s).bytes).cast::<Blind>();
        header(r.cast(), kind::BLIND, tgid, at, new_id(now(), kind::BLIND), tree_id, epoch, 0);
        (*r).channel = (*tree).request;
        (*r).how = 0x10000 + opcode;
        (*r).side = if request_side { side::REQUEST } else { side::REPLY };
        (*s).len = size_of::<Blind>() as u64;
    }
    submit(LIFECYCLE, 1);
    0
}
