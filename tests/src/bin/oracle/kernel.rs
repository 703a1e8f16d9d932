//! Acts that use system calls which deserve attention.

use std::io;

use e2e::{
    sys,
    truth::Act,
    uring::{NOP, OPENAT, Ring},
};
use engine::output::SyscallAbi;

use crate::{log::Call, process::in_child};

fn special(call: &Call, name: &str) -> io::Result<()> {
    call.will(Act::Special { name: name.to_owned(), abi: SyscallAbi::X86_64, text: None })
}

fn ring(call: &Call) -> io::Result<Ring> {
    special(call, "io_uring_setup")?;
    Ring::new()
}

pub(crate) fn uring_nop(call: &Call) -> io::Result<()> {
    let ring = ring(call)?;
    call.will_times(3, Act::Uring { opcode: NOP.into() })?;
    for _ in 0..3 {
        ring.nop()?;
    }
    Ok(())
}

pub(crate) fn uring_open(call: &Call) -> io::Result<()> {
    let ring = ring(call)?;
    let opcode = OPENAT.into();
    call.will(Act::Uring { opcode })?;
    ring.open(&call.seed()).map(drop)
}

pub(crate) fn ptrace(call: &Call) -> io::Result<()> {
    in_child(call, || {
        special(call, "ptrace")?;
        let traceme = 0;
        sys::plain(libc::SYS_ptrace, [traceme, 0, 0, 0]).map(drop)
    })
}

pub(crate) fn memfd(call: &Call) -> io::Result<()> {
    let name = format!("memfd-{}", call.serial);
    call.will(Act::Special {
        name: "memfd_create".into(),
        abi: SyscallAbi::X86_64,
        text: Some(name.clone()),
    })?;
    sys::memfd(&name).map(drop)
}

/// Changes nothing: every id is -1.
pub(crate) fn setuid(call: &Call) -> io::Result<()> {
    special(call, "setresuid")?;
    let same = u64::from(u32::MAX);
    sys::plain(libc::SYS_setresuid, [same, same, same, 0]).map(drop)
}

pub(crate) fn mount(call: &Call) -> io::Result<()> {
    let at = call.env.dir.join("mnt").display().to_string();
    in_child(call, || {
        special(call, "unshare")?;
        let flags = libc::CLONE_NEWNS as u64;
        sys::plain(libc::SYS_unshare, [flags, 0, 0, 0])?;
        special(call, "mount")?;
        sys::mount("none", "/", None, libc::MS_REC | libc::MS_PRIVATE)?;
        special(call, "mount")?;
        sys::mount("tmpfs", &at, Some("tmpfs"), 0)
    })
}

pub(crate) fn bpf(call: &Call) -> io::Result<()> {
    special(call, "bpf")?;
    // BPF_MAP_CREATE { map_type: ARRAY, key_size: 4, value_size: 4, max_entries: 1 }
    let mut attr = [0u64; 16];
    attr[0] = 2 | 4 << 32;
    attr[1] = 4 | 1 << 32;
    sys::close_raw(sys::bpf(0, &mut attr)? as u32);
    Ok(())
}

pub(crate) fn unshare(call: &Call) -> io::Result<()> {
    in_child(call, || {
        special(call, "unshare")?;
        let flags = libc::CLONE_NEWUTS as u64;
        sys::plain(libc::SYS_unshare, [flags, 0, 0, 0]).map(drop)
    })
}

pub(crate) fn setns(call: &Call) -> io::Result<()> {
    in_child(call, || {
        special(call, "setns")?;
        let fd = sys::number(&call.env.ready.uts);
        sys::plain(libc::SYS_setns, [fd, 0, 0, 0]).map(drop)
    })
}

/// 32-bit calls without arguments or effects; 20 and its like mean other things in the 64-bit table.
/// getpid getuid getgid geteuid getegid getppid getpgrp getuid32 getgid32 geteuid32 getegid32 gettid
const HARMLESS32: [u32; 12] = [20, 24, 47, 49, 50, 64, 65, 199, 200, 201, 202, 224];

/// One of them, and an open, through the 32-bit table.
pub(crate) fn compat32(call: &Call) -> io::Result<()> {
    let path = call.seed();
    let nr = call.pick(&HARMLESS32)?;
    let abi = SyscallAbi::I386;
    call.will(Act::Syscall { abi, nr })?;
    sys::int80(nr, [0; 4])?;
    let page = sys::low_page(sys::c(&path)?.as_bytes_with_nul())?;
    call.will(Act::open_read(&path))?;
    let fd = sys::int80(295, [libc::AT_FDCWD as u32, page, 0, 0]);
    sys::free_low_page(page);
    fd.map(sys::close_raw)
}

/// Calls that nothing else here makes; with zeros for arguments they fail or tell something.
const RARE: [libc::c_long; 14] = [
    libc::SYS_sched_rr_get_interval,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getpriority,
    libc::SYS_getitimer,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_sysinfo,
    libc::SYS_getsid,
    libc::SYS_getpgrp,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_ioprio_get,
];

/// One of them three times; the neighbours use another.
pub(crate) fn rare_syscall(call: &Call) -> io::Result<()> {
    let nr = call.pick(&RARE)?;
    let act = Act::Syscall { abi: SyscallAbi::X86_64, nr: nr as u32 };
    call.will_times(3, act)?;
    for _ in 0..3 {
        // Most refuse the address 0.
        drop(sys::plain(nr, [0; 4]));
    }
    Ok(())
}
