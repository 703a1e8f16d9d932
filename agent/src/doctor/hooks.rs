//! The hooks: by which acts each is proved, and what is not seen without it.

use engine::policy::Family;

use super::canary::Act;

/// One hook.
#[derive(Debug)]
pub(crate) struct Hook {
    /// Name in reports.
    pub(crate) name: &'static str,
    /// Name in coverage lines; several hooks may share one.
    pub(crate) coverage: &'static str,
    /// Its program.
    pub(crate) program: &'static str,
    /// What proves it.
    pub(crate) acts: &'static [Act],
    /// What is not seen without it.
    pub(crate) sees: &'static str,
    /// Without it the agent is no use.
    pub(crate) required: bool,
}

const fn hook(
    name: &'static str,
    coverage: &'static str,
    program: &'static str,
    acts: &'static [Act],
    sees: &'static str,
) -> Hook {
    Hook { name, coverage, program, acts, sees, required: true }
}

/// All of them, in the order in which they are shown.
pub(crate) const HOOKS: [Hook; 15] = [
    hook("lifecycle/fork", "lifecycle", "fork", &[Act::Fork], "new processes"),
    hook("lifecycle/exec", "lifecycle", "exec", &[Act::Exec], "executed programs and new servers"),
    hook("lifecycle/exit", "lifecycle", "exit", &[Act::Exit], "ended processes"),
    hook(
        "syscalls",
        "syscalls",
        "sys_exit",
        &[Act::Open, Act::Read, Act::Write],
        "files, MCP messages, unix sockets and system calls",
    ),
    Hook {
        required: false,
        ..hook("io_uring", "io_uring", "uring_submit", &[Act::Uring], "io_uring operations")
    },
    cgroup("cgroup/connect4", "connect4", &[Act::Connect4], "connections to IPv4 addresses"),
    cgroup("cgroup/connect6", "connect6", &[Act::Connect6], "connections to IPv6 addresses"),
    cgroup("cgroup/sendmsg4", "sendmsg4", &[Act::Sendmsg4], "datagrams to IPv4 addresses"),
    cgroup("cgroup/sendmsg6", "sendmsg6", &[Act::Sendmsg6], "datagrams to IPv6 addresses"),
    cgroup("cgroup/bind4", "bind4", &[Act::Bind4], "IPv4 ports that are opened"),
    cgroup("cgroup/bind6", "bind6", &[Act::Bind6], "IPv6 ports that are opened"),
    cgroup("cgroup/sock_create", "sock_create", &[Act::Socket], "who made a socket"),
    cgroup("cgroup/sock_release", "sock_release", &[Act::Release], "that a socket is gone"),
    cgroup("cgroup/egress", "egress", &[Act::Egress, Act::Dns], "bytes sent, names asked for and TLS hellos"),
    cgroup("cgroup/ingress", "ingress", &[Act::Ingress], "bytes received and answers to names"),
];

const fn cgroup(name: &'static str, program: &'static str, acts: &'static [Act], sees: &'static str) -> Hook {
    hook(name, name, program, acts, sees)
}

/// What only denies: hooks of BPF LSM, where the kernel has it. Their coverage lines stand for all programs of a family.
pub(crate) const LSM: [Hook; 4] = [
    lsm("lsm/bprm_check_security", "lsm_bprm_check", &[Act::LsmExec], "programs: denied"),
    lsm("lsm/file_open", "lsm_file_open", &[Act::LsmOpen], "files: denied"),
    lsm("lsm/unix_stream_connect", "lsm_unix_connect", &[Act::LsmUnix], "unix sockets: denied"),
    lsm("lsm/ptrace_access_check", "lsm_ptrace", &[Act::LsmPtrace], "ptrace, mounts and bpf: denied"),
];

const fn lsm(name: &'static str, program: &'static str, acts: &'static [Act], sees: &'static str) -> Hook {
    Hook { required: false, ..hook(name, name, program, acts, sees) }
}

/// Providers of a family of rights, best first. Only those with `LSM` can deny, and for the network the cgroup
/// hooks can as well.
#[derive(Debug)]
pub(crate) struct Ladder {
    pub(crate) family: Family,
    /// Its LSM hook that stands for all of them.
    pub(crate) lsm: &'static str,
    /// What sees, and where nothing better can be had, only sees.
    pub(crate) hooks: &'static [&'static str],
    /// Those hooks can deny, when the programs behind them do.
    pub(crate) denies: bool,
}

/// The ladders.
pub(crate) const LADDERS: [Ladder; 6] = [
    Ladder {
        family: Family::Network,
        lsm: "socket_connect",
        hooks: &[
            "cgroup/connect4",
            "cgroup/connect6",
            "cgroup/sendmsg4",
            "cgroup/sendmsg6",
            "cgroup/egress",
            "cgroup/ingress",
        ],
        denies: true,
    },
    Ladder {
        family: Family::Listen,
        lsm: "socket_bind",
        hooks: &["cgroup/bind4", "cgroup/bind6"],
        denies: true,
    },
    Ladder { family: Family::Exec, lsm: "bprm_check_security", hooks: &["lifecycle/exec"], denies: false },
    Ladder { family: Family::File, lsm: "file_open", hooks: &["syscalls"], denies: false },
    Ladder { family: Family::Unix, lsm: "unix_stream_connect", hooks: &["syscalls"], denies: false },
    Ladder { family: Family::Dangerous, lsm: "ptrace_access_check", hooks: &["syscalls"], denies: false },
];
