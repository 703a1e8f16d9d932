//! What the process of the sinks may ask of the kernel: files, sockets, memory, time. No BPF, no signals, no other processes, no mounts, no new
//! programs. What is not listed fails with EPERM, so that a library's try of something new is an error, not a death.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// What the runtime, the resolver, TLS and files need.
const PERMITTED: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_access,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_connect,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_listen,
    libc::SYS_lseek,
    libc::SYS_lstat,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_mkdir,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_stat,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Families of sockets: the resolver asks the kernel for its addresses over netlink. No packets by hand, no kernel crypto, no virtual machines.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// `ioctl` is a thousand calls: whether it blocks, whether it is a terminal, what it still holds (`SIOCOUTQ`).
const CONTROLS: &[libc::c_ulong] = &[libc::FIONBIO, libc::TCGETS, libc::TIOCOUTQ];

/// Takes everything else from this thread and those that it starts from now on. There is no way back.
pub(super) fn confine() -> Result<()> {
    let families: Vec<u64> = FAMILIES.iter().map(|family| u64::from(family.unsigned_abs())).collect();
    let mut some = BTreeMap::new();
    some.insert(libc::SYS_socket, one_of(0, &families)?);
    some.insert(libc::SYS_socketpair, one_of(0, &families)?);
    some.insert(libc::SYS_ioctl, one_of(1, CONTROLS)?);
    confine_to(PERMITTED, some)
}

/// The same, with lists of one's own: calls, and those that are permitted with some arguments only.
pub(crate) fn confine_to(permitted: &[i64], some: BTreeMap<i64, Vec<SeccompRule>>) -> Result<()> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = permitted.iter().map(|nr| (*nr, Vec::new())).collect();
    rules.extend(some);
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, TargetArch::x86_64)?;
    let program: BpfProgram = filter.try_into()?;
    // It sets no_new_privs as well.
    seccompiler::apply_filter_all_threads(&program).context("the kernel takes no seccomp filter")
}

/// Only with one of these as that argument.
fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>> {
    let rule = |value: &u64| {
        let is = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value)?;
        SeccompRule::new(vec![is])
    };
    values.iter().map(|value| rule(value).map_err(Into::into)).collect()
}
