//! Bytes of MCP channels, by file description's inode: dup'ed and inherited descriptors are the same
//! channel.

use abi::{Blind, Chunk, channel_mode, counter, kind, side, syscalls::class};
use aya_ebpf::helpers::generated::bpf_probe_read_user;

use crate::{
    kernel::{channel_key, file_of, read_user},
    lifecycle::cpu_time,
    maps::{CHANNELS, MODES, PROCS, TREES},
    policy::jit::{self, scan_chunk},
    record::{Call, SYSCALLS, Scratch, count, new_id, scratch, submit},
    syscall::{arg, begin_record},
};

/// Bytes of a chunk.
const CHUNK: usize = 16384;
/// Chunks of one system call: 1 MiB. Beyond that the end of the buffer is captured, and the gap
/// between is told.
const CHUNKS: u64 = 64;

/// Names of the words of `Scratch::state` here.
const LEFT: usize = 0;
const SEGMENT: usize = 1;
const ADDRESS: usize = 2;
const INDEX: usize = 3;
const POSITION: usize = 4;
const CHANNEL: usize = 5;

#[inline(always)]
fn get(s: *mut Scratch, word: usize) -> u64 {
    // SAFETY: `word` is one of the constants above; volatile so that the verifier forgets ranges.
    unsafe { (&raw const (*s).state).cast::<u64>().add(word).read_volatile() }
}

#[inline(always)]
fn set(s: *mut Scratch, word: usize, value: u64) {
    // SAFETY: as above.
    unsafe { (&raw mut (*s).state).cast::<u64>().add(word).write_volatile(value) }
}

/// read, readv, recvfrom, recvmsg: is it the request channel?
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_read(class: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    let key = channel_key(file_of(call.task as usize, arg(call, 0) as u32));
    if key == 0 {
        return 0;
    }
    // MSG_PEEK leaves the bytes: they come again.
    let peek = match class as u8 {
        class::RECVFROM => arg(call, 3) & 2 != 0,
        class::RECVMSG => arg(call, 2) & 2 != 0,
        _ => false,
    };
    // Before the look-ups: with their results it would be one condition, which 5.10 does not see through.
    if peek {
        return 0;
    }
    let Some(proc) = PROCS.get_ptr(call.tgid as u32) else {
        return 0;
    };
    let Some(tree) = TREES.get_ptr_mut(call.tree) else {
        return 0;
    };
    // SAFETY: live map values.
    unsafe {
        if key != (*proc).stdin && key != (*tree).request {
            return 0;
        }
        if key == (*tree).request {
            (*tree).epoch += 1;
            (*tree).since_ns = call.at;
        }
    }
    capture(class, key, u64::from(side::REQUEST))
}

/// write, writev, sendto, sendmsg: the reply channel, or a forged request?
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_write(class: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    let key = channel_key(file_of(call.task as usize, arg(call, 0) as u32));
    if key == 0 {
        return 0;
    }
    let Some(proc) = PROCS.get_ptr(call.tgid as u32) else {
        return 0;
    };
    // SAFETY: a live map value.
    let proc = unsafe { *proc };
    if proc.flags & abi::proc_flag::CLIENT != 0 {
        return capture(class, key, u64::from(side::PROOF));
    }
    let Some(tree) = TREES.get_ptr_mut(call.tree) else {
        return 0;
    };
    // SAFETY: a live map value.
    unsafe {
        let (request, reply) = ((*tree).request, (*tree).reply);
        if key == reply || key == proc.stdout {
            if key == reply {
                (*tree).epoch += 1;
                (*tree).since_ns = call.at;
            }
            return capture(class, key, u64::from(side::REPLY));
        }
        // Writing to the server's end of a socketpair goes to the client; writing into a pipe that
        // one reads from comes back as a request.
        if (key == request || key == proc.stdin) && key >> 63 == 0 {
            jit::forged(call.tree);
            return capture(class, key, u64::from(side::FORGED));
        }
    }
    0
}

/// splice and its kin: what they move is not seen.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_move() -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    let first = if call.compat != 0 && call.nr == 102 {
        // socketcall: the descriptor is the first word of its argument array.
        u64::from(read_user::<u32>(arg(call, 1) as usize).unwrap_or(u32::MAX))
    } else {
        arg(call, 0)
    };
    let second = match (call.compat, call.nr) {
        // sendfile, tee
        (0, 40 | 276) => arg(call, 1),
        // splice, copy_file_range
        (0, 275 | 326) => arg(call, 2),
        _ => u64::MAX,
    };
    check_blind(first, call.nr);
    if second != u64::MAX {
        check_blind(second, call.nr);
    }
    0
}

/// Tells that a descriptor's bytes move unseen, if it is one of the tree's main channels.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn check_blind(fd: u64, how: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    let key = channel_key(file_of(call.task as usize, fd as u32));
    if key == 0 {
        return 0;
    }
    let Some(tree) = TREES.get_ptr(call.tree) else {
        return 0;
    };
    // SAFETY: a live map value; the scratch buffer of this CPU, larger than the record.
    unsafe {
        let request = key == (*tree).request;
        if !request && key != (*tree).reply {
            return 0;
        }
        let r = (&raw mut (*s).bytes).cast::<Blind>();
        begin_record(&raw mut (*r).header, call, kind::BLIND, new_id(call.at, kind::BLIND), 0);
        (*r).channel = key;
        (*r).how = how as u32;
        (*r).side = if request { side::REQUEST } else { side::REPLY };
        (*s).len = size_of::<Blind>() as u64;
    }
    submit(SYSCALLS, 1)
}

/// Sends the bytes of the call at work to user space.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn capture(class: u64, key: u64, side: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    let Some(channel) = CHANNELS.get_ptr_mut(key) else {
        return 0;
    };
    // SAFETY: the scratch buffer of this CPU.
    let call: &Call = unsafe { &(*s).call };
    let total = call.ret as u64;
    // SAFETY: a live map value; `side` is masked to the array.
    let position = unsafe {
        let counter = (&raw mut (*channel).position).cast::<u64>().add(mask!(side, 3) as usize);
        let position = counter.read_volatile();
        counter.write_volatile(position.wrapping_add(total));
        position
    };
    let mode = MODES.get_ptr(key).map_or(channel_mode::UNDECIDED, |m| {
        // SAFETY: a live map value.
        unsafe { *m }
    });
    let proof = side == u64::from(side::PROOF);
    let skip = mode == channel_mode::IGNORED
        || mode == channel_mode::UNDECIDED && position >= abi::UNDECIDED_BYTES
        || proof && mode != channel_mode::PROVED;
    if skip {
        if mode == channel_mode::UNDECIDED && !proof {
            count(counter::CHANNEL_SKIPPED, total);
        }
        return 0;
    }
    let buffer = arg(call, 1);
    let (iov, segments) = match class as u8 {
        class::READV | class::WRITEV => (buffer, arg(call, 2)),
        class::RECVMSG | class::SENDMSG => match read_user::<[u64; 4]>(buffer as usize) {
            // struct msghdr: msg_iov at 16, msg_iovlen at 24.
            Some(m) => (m[2], m[3]),
            None => (0, 0),
        },
        _ => (0, 0),
    };
    jit::choose(s, call.tree, key, side);
    set(s, LEFT, total);
    set(s, SEGMENT, if iov == 0 { total } else { 0 });
    set(s, ADDRESS, buffer);
    set(s, INDEX, 0);
    set(s, POSITION, position);
    set(s, CHANNEL, key);
    for _ in 0..CHUNKS {
        let left = get(s, LEFT);
        if left == 0 {
            return 0;
        }
        if get(s, SEGMENT) == 0 {
            let index = get(s, INDEX);
            if iov == 0 || index >= segments {
                break;
            }
            set(s, INDEX, index + 1);
            let Some(v) = read_user::<[u64; 2]>((iov + index * 16) as usize) else {
                break;
            };
            set(s, ADDRESS, v[0]);
            set(s, SEGMENT, if v[1] > left { left } else { v[1] });
            continue;
        }
        send_chunk(side);
    }
    let left = get(s, LEFT);
    let tail = if left > CHUNK as u64 { CHUNK as u64 } else { left };
    if iov == 0 && left != 0 {
        let gap = left - tail;
        count(counter::CHANNEL_SKIPPED, gap);
        set(s, ADDRESS, get(s, ADDRESS) + gap);
        set(s, POSITION, get(s, POSITION) + gap);
        set(s, SEGMENT, tail);
        set(s, LEFT, tail);
        send_chunk(side);
    } else {
        count(counter::CHANNEL_SKIPPED, left);
    }
    0
}

/// Sends the next piece of the segment at work. The steps are functions beside one another: one within the other would not fit
/// the 512 bytes of stack that all frames share, of which each takes a multiple of 32 on most kernels.
#[inline(always)]
fn send_chunk(side: u64) {
    let n = next_chunk(side);
    if n != 0 {
        // The record first: where the scan does not understand a line, user space looks for it in the ring.
        submit(SYSCALLS, 1);
        scan_chunk(side, n);
    }
}

/// Makes the record of the next piece of the segment at work: how many bytes it holds.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn next_chunk(side: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    let segment = get(s, SEGMENT);
    let n = if segment > CHUNK as u64 { CHUNK as u64 } else { segment };
    if n == 0 {
        return 0;
    }
    let n = mask!(n - 1, 16383) + 1;
    let address = get(s, ADDRESS);
    let position = get(s, POSITION);
    set(s, LEFT, get(s, LEFT).wrapping_sub(n));
    set(s, SEGMENT, segment - n);
    set(s, ADDRESS, address + n);
    set(s, POSITION, position + n);
    // SAFETY: the scratch buffer of this CPU: record and data fit into CAP.
    unsafe {
        let call = &(*s).call;
        let r = (&raw mut (*s).bytes).cast::<Chunk>();
        begin_record(&raw mut (*r).header, call, kind::CHUNK, new_id(call.at, kind::CHUNK), 0);
        (*r).channel = get(s, CHANNEL);
        (*r).position = position;
        (*r).cpu_ns = if side == u64::from(side::REQUEST) { cpu_time(call.task) } else { 0 };
        (*r).side = side as u32;
        (*r).skipped = 0;
        (*r).len = n as u32;
        (*r)._pad = 0;
        let data = (&raw mut (*s).bytes).cast::<u8>().add(size_of::<Chunk>());
        if bpf_probe_read_user(data.cast(), n as u32, address as *const _) != 0 {
            // The next chunk's position tells the gap.
            count(counter::FAULTS, 1);
            return 0;
        }
        (&raw mut (*s).len).write_volatile(size_of::<Chunk>() as u64 + n);
    }
    n
}
