//! Where the fields of kernel structures lie.
//!
//! Rust emits no CO-RE relocations, so the agent resolves these from `/sys/kernel/btf/vmlinux` at
//! load and writes them into the object's read-only data.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[$doc:meta])* $field:ident: $strukt:literal, [$($path:literal),+]);+ $(;)?) => {
        /// Byte offsets; [`ABSENT`] where the kernel has no such field.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Offsets { $($(#[$doc])* pub $field: u32),+ }

        impl Offsets {
            /// Nothing is known yet.
            pub const UNKNOWN: Self = Self { $($field: ABSENT),+ };

            /// Fills each field by asking `find(structure, member path)`; alternatives of a path
            /// are tried in order. Returns the names of fields that were not found.
            pub fn resolve(mut find: impl FnMut(&str, &str) -> Option<u32>, mut absent: impl FnMut(&'static str)) -> Self {
                Self { $($field: {
                    let mut found = None;
                    $( if found.is_none() { found = find($strukt, $path); } )+
                    found.unwrap_or_else(|| { absent(stringify!($field)); ABSENT })
                }),+ }
            }
        }
    };
}

offsets! {
    /// Descriptor table of a task.
    task_files: "task_struct", ["files"];
    /// Working directory of a task.
    task_fs: "task_struct", ["fs"];
    /// Thread group id.
    task_tgid: "task_struct", ["tgid"];
    /// Thread id.
    task_pid: "task_struct", ["pid"];
    /// Parent task.
    task_real_parent: "task_struct", ["real_parent"];
    /// First thread of the group.
    task_group_leader: "task_struct", ["group_leader"];
    /// Start time, ns since boot.
    task_start_boottime: "task_struct", ["start_boottime", "real_start_time"];
    /// Address space.
    task_mm: "task_struct", ["mm"];
    /// Signal state, shared by the threads.
    task_signal: "task_struct", ["signal"];
    /// Exit status.
    task_exit_code: "task_struct", ["exit_code"];
    /// Login user id.
    task_login_uid: "task_struct", ["loginuid"];
    /// TS_COMPAT lives here on x86.
    task_ti_status: "task_struct", ["thread_info.status"];
    /// What a task may do.
    task_cred: "task_struct", ["cred"];
    /// Its number, in each namespace of numbers.
    task_thread_pid: "task_struct", ["thread_pid"];
    /// Links in the lists of [`Self::pid_tasks`].
    task_pid_links: "task_struct", ["pid_links"];
    /// CPU time of a thread, ns.
    task_runtime: "task_struct", ["se.sum_exec_runtime"];
    /// Link in the list of threads.
    task_thread_node: "task_struct", ["thread_node"];
    /// Head of the list of threads.
    signal_thread_head: "signal_struct", ["thread_head"];
    /// CPU time of threads that are gone, ns.
    signal_runtime: "signal_struct", ["sum_sched_runtime"];
    /// Highest resident set of the group, pages.
    signal_maxrss: "signal_struct", ["maxrss"];
    /// Threads alive.
    signal_live: "signal_struct", ["live"];
    /// Exit status of the whole group.
    signal_group_exit_code: "signal_struct", ["group_exit_code"];
    /// Start of the argument strings.
    mm_arg_start: "mm_struct", ["arg_start"];
    /// End of the argument strings.
    mm_arg_end: "mm_struct", ["arg_end"];
    /// Start of the environment strings.
    mm_env_start: "mm_struct", ["env_start"];
    /// End of the environment strings.
    mm_env_end: "mm_struct", ["env_end"];
    /// Working directory: a struct path.
    fs_pwd: "fs_struct", ["pwd"];
    /// Mount of a path.
    path_mnt: "path", ["mnt"];
    /// Name of a path.
    path_dentry: "path", ["dentry"];
    /// Table of descriptors.
    files_fdt: "files_struct", ["fdt"];
    /// Array of open files.
    fdt_fd: "fdtable", ["fd"];
    /// Size of that array.
    fdt_max_fds: "fdtable", ["max_fds"];
    /// Path of an open file.
    file_path: "file", ["f_path"];
    /// Inode of an open file.
    file_inode: "file", ["f_inode"];
    /// Mode of an open file (FMODE_*).
    file_mode: "file", ["f_mode"];
    /// Flags of an open file (O_*).
    file_flags: "file", ["f_flags"];
    /// The socket behind a socket's file.
    file_private: "file", ["private_data"];
    /// Type and permissions.
    inode_mode: "inode", ["i_mode"];
    /// Inode number.
    inode_ino: "inode", ["i_ino"];
    /// Hard links.
    inode_nlink: "inode", ["__i_nlink", "i_nlink"];
    /// File system.
    inode_sb: "inode", ["i_sb"];
    /// What a file system keeps of an inode.
    inode_private: "inode", ["i_private"];
    /// Kind of a file system.
    sb_magic: "super_block", ["s_magic"];
    /// Device of a file system.
    sb_dev: "super_block", ["s_dev"];
    /// Parent directory.
    dentry_parent: "dentry", ["d_parent"];
    /// Name: a struct qstr.
    dentry_name: "dentry", ["d_name", "__d_name"];
    /// Length within qstr (the other half is the hash).
    qstr_len: "qstr", ["len"];
    /// Hash within qstr.
    qstr_hash: "qstr", ["hash"];
    /// Characters within qstr.
    qstr_name: "qstr", ["name"];
    /// What a name stands for.
    dentry_inode: "dentry", ["d_inode"];
    /// Root of a mount.
    vfsmount_root: "vfsmount", ["mnt_root"];
    /// struct vfsmount within struct mount.
    mount_mnt: "mount", ["mnt"];
    /// Mount that this one is on.
    mount_parent: "mount", ["mnt_parent"];
    /// Where on it.
    mount_mountpoint: "mount", ["mnt_mountpoint"];
    /// Namespace of a mount.
    mount_ns: "mount", ["mnt_ns"];
    /// Number of such a namespace.
    mnt_ns_inum: "mnt_namespace", ["ns.inum"];
    /// Effective user.
    cred_euid: "cred", ["euid"];
    /// Effective capabilities.
    cred_caps: "cred", ["cap_effective"];
    /// Where they count.
    cred_user_ns: "cred", ["user_ns"];
    /// How deep that is: 0 is the host.
    user_ns_level: "user_namespace", ["level"];
    /// Tasks of a number, by kind of number.
    pid_tasks: "pid", ["tasks"];
    /// How deep a number's namespace is: 0 is the host.
    pid_level: "pid", ["level"];
    /// Whose a file of procfs is.
    proc_pid: "proc_inode", ["pid"];
    /// struct inode within it.
    proc_inode: "proc_inode", ["vfs_inode"];
    /// Number of a BPF map.
    bpf_map_id: "bpf_map", ["id"];
    /// What else there is of a BPF program.
    bpf_prog_aux: "bpf_prog", ["aux"];
    /// Its number.
    bpf_aux_id: "bpf_prog_aux", ["id"];
    /// Number of a BPF link.
    bpf_link_id: "bpf_link", ["id"];
    /// Executed file.
    bprm_file: "linux_binprm", ["file"];
    /// Name as given to exec.
    bprm_filename: "linux_binprm", ["filename"];
    /// Name of the interpreter, or the same pointer.
    bprm_interp: "linux_binprm", ["interp"];
    /// Kind of a socket (SOCK_STREAM, ...).
    socket_type: "socket", ["type"];
    /// The protocol half of a socket.
    socket_sk: "socket", ["sk"];
    /// Address family.
    sk_family: "sock_common", ["skc_family"];
    /// Remote address, IPv4.
    sk_daddr: "sock_common", ["skc_daddr"];
    /// Remote port, network order.
    sk_dport: "sock_common", ["skc_dport"];
    /// Local port, host order.
    sk_num: "sock_common", ["skc_num"];
    /// Local address, IPv4.
    sk_rcv_saddr: "sock_common", ["skc_rcv_saddr"];
    /// Remote address, IPv6.
    sk_v6_daddr: "sock_common", ["skc_v6_daddr"];
    /// Local address, IPv6.
    sk_v6_rcv_saddr: "sock_common", ["skc_v6_rcv_saddr"];
    /// Cookie.
    sk_cookie: "sock_common", ["skc_cookie"];
    /// Protocol (IPPROTO_*).
    sk_protocol: "sock", ["sk_protocol"];
    /// Type (SOCK_*).
    sk_type: "sock", ["sk_type"];
    /// First sequence number that a TCP socket, which begins with its `struct sock`, has not sent.
    tcp_snd_nxt: "tcp_sock", ["snd_nxt"];
    /// First one that it has not received.
    tcp_rcv_nxt: "tcp_sock", ["rcv_nxt"];
    /// Held by a process that is in a system call.
    sk_owned: "sock", ["sk_lock.owned"];
    /// State (TCP_*).
    sk_state: "sock_common", ["skc_state"];
    /// Its `struct socket`.
    sk_socket: "sock", ["sk_socket"];
    /// The file of a `struct socket`; the kernel's own have none.
    socket_file: "socket", ["file"];
    /// Connected unix socket.
    unix_peer: "unix_sock", ["peer"];
    /// Name of a unix socket.
    unix_addr: "unix_sock", ["addr"];
    /// The file that a unix socket is bound to: a struct path.
    unix_path: "unix_sock", ["path"];
    /// Bytes of that name, family included.
    unix_address_len: "unix_address", ["len"];
    /// The name itself: a struct sockaddr_un.
    unix_address_name: "unix_address", ["name"];
    /// First argument.
    regs_di: "pt_regs", ["di"];
    /// Second argument.
    regs_si: "pt_regs", ["si"];
    /// Third argument.
    regs_dx: "pt_regs", ["dx"];
    /// Fourth argument.
    regs_r10: "pt_regs", ["r10"];
    /// Fifth argument.
    regs_r8: "pt_regs", ["r8"];
    /// 32-bit: first argument.
    regs_bx: "pt_regs", ["bx"];
    /// 32-bit: second argument.
    regs_cx: "pt_regs", ["cx"];
    /// System call number.
    regs_orig_ax: "pt_regs", ["orig_ax"];
    /// io_uring request: operation.
    uring_opcode: "io_kiocb", ["opcode"];
    /// io_uring request: descriptor.
    uring_fd: "io_kiocb", ["cqe.fd"];
    /// io_uring request: flags.
    uring_flags: "io_kiocb", ["flags"];
}
