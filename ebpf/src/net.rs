//! Socket addresses, from the cgroup hooks at the root of the v2 hierarchy. They see the kernel's
//! own copy of the address, and fire for io_uring, fast open and the 32-bit ABI as well. They run
//! preemptible, so records are built on the stack.

use abi::{AggKey, Net, Owner, counter, kind, net_op, owner_flag, run};
use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_socket_cookie,
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};

use crate::{
    kernel::{AF_INET, AF_INET6},
    maps::OWNERS,
    policy::{
        is_cut,
        verdict::{Said, mapped, on_address, port_of},
    },
    record::{Aggregated, Urgency, aggregate, aggregate_lost, count, header, new_id, output},
    track::{current_tgid, epoch, find, now, ran},
};

const ALLOW: i32 = 1;
const SOCK_STREAM: u32 = 1;
/// The caller gets EPERM.
const DENY: i32 = 0;

/// connect to an IPv4 address
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    act(&ctx, run::CONNECT4, net_op::CONNECT, false)
}

/// connect to an IPv6 address, v4-mapped ones included
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    act(&ctx, run::CONNECT6, net_op::CONNECT, true)
}

/// a datagram to an IPv4 address, v4-mapped ones included
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    act(&ctx, run::SENDMSG4, net_op::SENDMSG, false)
}

/// a datagram to an IPv6 address
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    act(&ctx, run::SENDMSG6, net_op::SENDMSG, true)
}

/// bind to an IPv4 address
#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    act(&ctx, run::BIND4, net_op::BIND, false)
}

/// bind to an IPv6 address
#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    act(&ctx, run::BIND6, net_op::BIND, true)
}

/// A socket is made: its maker owns it until somebody connects it.
#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    let tgid = current_tgid();
    let Some((proc, _)) = find(tgid) else {
        return ALLOW;
    };
    ran(run::SOCK_CREATE);
    // SAFETY: the program's context; a live map value.
    let (cookie, tree) = unsafe { (bpf_get_socket_cookie(ctx.as_ptr()), (*proc).tree) };
    own(cookie, tree, tgid);
    ALLOW
}

/// A socket is gone.
#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the program's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let Some(owner) = OWNERS.get_ptr_mut(cookie) else {
        return ALLOW;
    };
    ran(run::SOCK_RELEASE);
    // SAFETY: a live map value; the program's context.
    unsafe {
        // What nobody can take back is not sent later, either: not when the cut-off ends, nor when its tree has. Only streams
        // send again.
        let stream = (*ctx.sock).type_ == SOCK_STREAM;
        if stream && is_cut((*owner).tree) {
            (*owner).flags |= owner_flag::DENIED;
        }
        if stream && (*owner).flags & owner_flag::DENIED != 0 {
            (*owner).flags |= owner_flag::CLOSED;
            (*owner).hello = (now() / 1_000_000_000) as u32;
            return ALLOW;
        }
    }
    // It may be gone already; either way it is gone now.
    let _gone = OWNERS.remove(cookie);
    ALLOW
}

/// The socket is the process's from now on.
#[inline(always)]
fn own(cookie: u64, tree: u64, tgid: u32) {
    if let Some(o) = OWNERS.get_ptr_mut(cookie) {
        // SAFETY: a live map value.
        unsafe {
            if (*o).tree != tree {
                (*o).policy = 0;
            }
            (*o).tree = tree;
            (*o).tgid = tgid;
        }
        return;
    }
    let new = Owner { tree, tgid, hello: 0, flags: 0, policy: 0, peer: [0; 2], port: 0, right: 0 };
    if OWNERS.insert(cookie, new, 0).is_err() {
        count(counter::OWNERS_FULL, 1);
    }
}

/// Packets to that peer are permitted already.
#[inline(always)]
fn permitted(cookie: u64, said: &Said, addr: [u64; 2], port: u64) {
    if said.policy != 0
        && let Some(o) = OWNERS.get_ptr_mut(cookie)
    {
        // SAFETY: a live map value.
        unsafe {
            (*o).policy = 0;
            (*o).peer = addr;
            (*o).port = port;
            (*o).right = said.right;
            (*o).policy = said.policy;
        }
    }
}

#[inline(always)]
fn act(ctx: &SockAddrContext, hook: u32, op: u32, v6: bool) -> i32 {
    let tgid = current_tgid();
    let Some((proc, tree)) = find(tgid) else {
        return ALLOW;
    };
    ran(hook);
    let at = now();
    let id = new_id(at, kind::NET);
    // SAFETY: the program's context; live map values.
    let (cookie, tree_id, born, family, protocol, port) = unsafe {
        let a = ctx.sock_addr;
        (
            bpf_get_socket_cookie(ctx.as_ptr()),
            (*proc).tree,
            (*proc).born,
            if v6 { AF_INET6 } else { AF_INET },
            (*a).protocol,
            u32::from(u16::from_be((*a).user_port as u16)),
        )
    };
    own(cookie, tree_id, tgid);
    let mut words = [0u32; 4];
    // SAFETY: the program's context; each word is one load, as the verifier wants it.
    unsafe {
        let a = ctx.sock_addr;
        if v6 {
            words[0] = (&raw const (*a).user_ip6[0]).read_volatile();
            words[1] = (&raw const (*a).user_ip6[1]).read_volatile();
            words[2] = (&raw const (*a).user_ip6[2]).read_volatile();
            words[3] = (&raw const (*a).user_ip6[3]).read_volatile();
        } else {
            words[0] = (&raw const (*a).user_ip4).read_volatile();
        }
    }
    let pair = |a: u32, b: u32| u64::from(a) | u64::from(b) << 32;
    let epoch = epoch(tree, at);
    let wide = if v6 { [pair(words[0], words[1]), pair(words[2], words[3])] } else { mapped(words[0]) };
    let number = port_of(port, protocol);
    let said = on_address(tree_id, tgid, born, op, wide, number, at, epoch);
    if said.deny {
        return DENY;
    }
    permitted(cookie, &said, wide, number);
    let key = AggKey {
        tgid,
        epoch,
        kind: u32::from(kind::NET),
        sub: op,
        words: [
            pair(words[0], words[1]),
            pair(words[2], words[3]),
            u64::from(port) | u64::from(family) << 32,
            u64::from(protocol),
        ],
    };
    let Aggregated::Record(flags) = aggregate(&key, id, 0, 0) else {
        return ALLOW;
    };
    let mut record = core::mem::MaybeUninit::<Net>::zeroed();
    let r = record.as_mut_ptr();
    header(r.cast(), kind::NET, tgid, at, id, tree_id, epoch, flags);
    // SAFETY: the record on the stack.
    unsafe {
        (*r).cookie = cookie;
        (&raw mut (*r).addr).cast::<[u64; 2]>().write_unaligned([key.words[0], key.words[1]]);
        (*r).op = op;
        (*r).family = family;
        (*r).protocol = protocol;
        (*r).port = port;
    }
    if !output(r.cast(), size_of::<Net>() as u64, kind::NET, Urgency::Bulk) {
        aggregate_lost(&key, flags);
    }
    ALLOW
}
