//! System calls that deserve an event of their own: ptrace, memfd_create, setuid and its family,
//! mount, bpf, namespaces, io_uring set-up. Attempts that fail are told as well.

use abi::{Special, kind};

use crate::{
    kernel::{AF_INET, AF_INET6},
    record::{SYSCALLS, append_user_text, new_id, scratch, submit},
    syscall::{arg, begin_record},
};

/// Tells of packet sockets, whose packets pass no hook of the network, and of raw ones, which can speak for others.
#[inline(always)]
pub fn on_socket() {
    const AF_PACKET: u64 = 17;
    const SOCK_RAW: u64 = 3;
    let Some(s) = scratch(SYSCALLS) else { return };
    // SAFETY: the scratch buffer of this CPU.
    let call = unsafe { &(*s).call };
    let family = arg(call, 0) & 0xffff_ffff;
    let raw =
        arg(call, 1) & 15 == SOCK_RAW && (family == u64::from(AF_INET) || family == u64::from(AF_INET6));
    if family == AF_PACKET || raw {
        on_special();
    }
}

/// Tells the call at work.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn on_special() -> u64 {
    let Some(s) = scratch(SYSCALLS) else { return 0 };
    // SAFETY: the scratch buffer of this CPU, larger than the record and a name.
    unsafe {
        let call = &(*s).call;
        let r = (&raw mut (*s).bytes).cast::<Special>();
        begin_record(&raw mut (*r).header, call, kind::SPECIAL, new_id(call.at, kind::SPECIAL), 0);
        (*r).args[0] = arg(call, 0);
        (*r).args[1] = arg(call, 1);
        (*r).args[2] = arg(call, 2);
        (*r).args[3] = arg(call, 3);
        (*r).args[4] = arg(call, 4);
        (*r).ret = call.ret;
        (*r).nr = call.nr as u32;
        (*s).len = size_of::<Special>() as u64;
        let memfd = call.compat == 0 && call.nr == 319 || call.compat != 0 && call.nr == 356;
        (*r).text_len = if memfd { append_user_text(SYSCALLS, arg(call, 0)) as u32 } else { 0 };
    }
    let refused = submit(SYSCALLS, 1);
    crate::tamper::on_tampering();
    refused
}
