//! Sockets at the exit of their system calls: unix connects and binds, listen, accept.

use abi::{AggKey, Net, Owner, Unix, counter, kind, net_op, syscalls::class};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::{
    kernel::{AF_INET6, AF_UNIX, family_of, file_of, read, sock_of},
    maps::{LISTENERS, OWNERS},
    record::{
        Aggregated, Call, SYSCALLS, aggregate, aggregate_lost, append_user_bytes, count, new_id, scratch,
        submit,
    },
    syscall::{arg, begin_record},
};

/// connect or bind: only unix sockets; the cgroup hooks see the others with the kernel's own copy of
/// the address.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_unix(class: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    let file = file_of(call.task as usize, arg(call, 0) as u32);
    if file == 0
        || u32::from(read::<u16>(read::<usize>(file + off!(file_inode)) + off!(inode_mode))) >> 12 != 0o14
    {
        return 0;
    }
    let sk = sock_of(file);
    if family_of(sk) != AF_UNIX {
        return 0;
    }
    let connect = class == u64::from(class::CONNECT);
    // SAFETY: the scratch buffer of this CPU, larger than the record and a name.
    unsafe {
        let r = (&raw mut (*s).bytes).cast::<Unix>();
        begin_record(&raw mut (*r).header, call, kind::UNIX, new_id(call.at, kind::UNIX), 0);
        (*r).op = if connect { net_op::CONNECT } else { net_op::BIND };
        (*r).result = call.ret as i32;
        (*s).len = size_of::<Unix>() as u64;
        let named = if connect { read::<usize>(sk + off!(unix_peer)) } else { sk };
        let n = if call.ret == 0 && named != 0 { append_unix_name(SYSCALLS, named as u64) } else { 0 };
        (*r).from_kernel = u32::from(n != 0);
        (*r).name_len = n as u32;
        if n == 0 {
            // Failed, or the peer went away: what the caller asked for. Two bytes of family first.
            let len = arg(call, 2);
            if len > 2 && len <= 110 {
                (*r).name_len = append_user_bytes(SYSCALLS, arg(call, 1) + 2, len - 2) as u32;
            }
        }
    }
    submit(SYSCALLS, 0)
}

/// Appends the kernel's name of a unix socket.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn append_unix_name(slot: u64, sk: u64) -> u64 {
    let Some(s) = scratch(slot) else { return 0 };
    let address: usize = read(sk as usize + off!(unix_addr));
    if address == 0 {
        return 0;
    }
    let len: u32 = read(address + off!(unix_address_len));
    if len <= 2 || len > 110 {
        return 0;
    }
    let n = mask!(len - 2, 127);
    if n == 0 {
        return 0;
    }
    // SAFETY: the position is masked below CAP, with PART bytes behind it.
    unsafe {
        let at = mask!((&raw const (*s).len).read_volatile(), 16383) as usize;
        let to = (&raw mut (*s).bytes).cast::<u8>().add(at);
        let from = address + off!(unix_address_name) + 2;
        bpf_probe_read_kernel(to.cast(), n as u32, from as *const _);
        (&raw mut (*s).len).write_volatile(at as u64 + n);
    }
    n
}

/// What a `struct sock` says of one of its ends.
#[inline(always)]
fn fill(r: *mut Net, sk: usize, remote: bool) {
    let family = family_of(sk);
    // SAFETY: the record at work.
    unsafe {
        (*r).family = family;
        (*r).addr = [0; 16];
        if family == AF_INET6 {
            let at = if remote { off!(sk_v6_daddr) } else { off!(sk_v6_rcv_saddr) };
            (*r).addr = read(sk + at);
        } else {
            let at = if remote { off!(sk_daddr) } else { off!(sk_rcv_saddr) };
            let four: [u8; 4] = read(sk + at);
            (*r).addr[0] = four[0];
            (*r).addr[1] = four[1];
            (*r).addr[2] = four[2];
            (*r).addr[3] = four[3];
        }
        (*r).protocol = u32::from(read::<u16>(sk + off!(sk_protocol)));
        (*r).port = if remote {
            u32::from(u16::from_be(read(sk + off!(sk_dport))))
        } else {
            u32::from(read::<u16>(sk + off!(sk_num)))
        };
        (*r).cookie = read(sk + off!(sk_cookie));
    }
}

/// listen succeeded.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_listen() -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    net_record(call, arg(call, 0) as u32, net_op::LISTEN)
}

/// accept succeeded.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_accept(fd: u64) -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    net_record(call, fd as u32, net_op::ACCEPT)
}

#[inline(always)]
fn net_record(call: &Call, fd: u32, op: u32) -> u64 {
    let file = file_of(call.task as usize, fd);
    if file == 0 {
        return 0;
    }
    let sk = sock_of(file);
    let family = family_of(sk);
    if family != crate::kernel::AF_INET && family != AF_INET6 {
        return 0;
    }
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    let id = new_id(call.at, kind::NET);
    // SAFETY: the scratch buffer of this CPU, larger than the record.
    unsafe {
        let r = (&raw mut (*s).bytes).cast::<Net>();
        fill(r, sk, op == net_op::ACCEPT);
        (*r).op = op;
        let owner = Owner {
            tree: call.tree,
            tgid: call.tgid as u32,
            hello: 0,
            flags: abi::owner_flag::SERVES,
            policy: 0,
            peer: [0; 2],
            port: 0,
            right: 0,
        };
        if (*r).cookie != 0 && OWNERS.insert((*r).cookie, owner, 0).is_err() {
            count(counter::OWNERS_FULL, 1);
        }
        if op == net_op::LISTEN && LISTENERS.insert((*r).port, owner, 0).is_err() {
            count(counter::OWNERS_FULL, 1);
        }
        let words = (&raw const (*r).addr).cast::<u64>();
        let key = AggKey {
            tgid: call.tgid as u32,
            epoch: call.epoch as u32,
            kind: u32::from(kind::NET),
            sub: op,
            words: [words.read(), words.add(1).read(), u64::from((*r).port), u64::from((*r).protocol)],
        };
        let Aggregated::Record(flags) = aggregate(&key, id, 0, 0) else {
            return 0;
        };
        begin_record(&raw mut (*r).header, call, kind::NET, id, flags);
        (*s).len = size_of::<Net>() as u64;
        if submit(SYSCALLS, 0) != 0 {
            aggregate_lost(&key, flags);
        }
    }
    0
}
