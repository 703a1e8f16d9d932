//! Records: what the kernel programs put into the ring buffer.
//!
//! A record is a fixed struct, its [`Header`] first, followed by the variable bytes whose lengths
//! the struct names, in the order in which it names them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a record is about. Kept as plain numbers on the wire, so that an unknown one is data.
pub mod kind {
    /// [`super::Fork`]
    pub const FORK: u16 = 1;
    /// [`super::Exec`]
    pub const EXEC: u16 = 2;
    /// [`super::Exit`]
    pub const EXIT: u16 = 3;
    /// [`super::Chunk`]
    pub const CHUNK: u16 = 4;
    /// [`super::Open`]
    pub const OPEN: u16 = 5;
    /// [`super::PathOp`]
    pub const PATH_OP: u16 = 6;
    /// [`super::Net`]
    pub const NET: u16 = 7;
    /// [`super::Unix`]
    pub const UNIX: u16 = 8;
    /// [`super::Packet`]
    pub const PACKET: u16 = 9;
    /// [`super::Flow`]
    pub const FLOW: u16 = 10;
    /// [`super::Syscall`]
    pub const SYSCALL: u16 = 11;
    /// [`super::Special`]
    pub const SPECIAL: u16 = 12;
    /// [`super::Uring`]
    pub const URING: u16 = 13;
    /// [`super::Blind`]
    pub const BLIND: u16 = 14;
    /// [`super::Denied`]
    pub const DENIED: u16 = 15;
    /// One more than the highest kind: the size of tables by kind.
    pub const COUNT: usize = 16;
}

/// Header flags, valid for every kind.
pub mod flag {
    /// A user address could not be read; the bytes are missing.
    pub const FAULT: u32 = 1;
    /// Some variable bytes did not fit and were cut.
    pub const TRUNCATED: u32 = 2;
    /// Further occurrences may be counted in the aggregation map under this record's id.
    pub const AGGREGATED: u32 = 4;
    /// The call came through the 32-bit ABI.
    pub const COMPAT: u32 = 8;
}

/// First bytes of every record. 56 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`crate::ABI`].
    pub abi: u16,
    /// One of [`kind`].
    pub kind: u16,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Process that acted (initial pid namespace).
    pub tgid: u32,
    /// Thread that acted.
    pub tid: u32,
    /// Records that this CPU failed to write since the last one that it wrote.
    pub lost_before: u32,
    /// Epoch of the tree when the act happened; see [`crate::Tree::epoch`].
    pub epoch: u32,
    /// Unique per boot: CPU in the top 16 bits, a counter below.
    pub id: u64,
    /// Time of the act, ns since boot (CLOCK_BOOTTIME).
    pub at_ns: u64,
    /// Tree of the process, 0 if none.
    pub tree: u64,
    /// User id (initial namespace) of the process at that time.
    pub uid: u32,
    /// Of `lost_before`, those that were not bulk: a message or a process may have been missed.
    pub vital_lost_before: u32,
}

/// A tracked process made a new process (not a thread).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fork {
    /// `tgid` is the parent.
    pub header: Header,
    /// The child's pid.
    pub child: u32,
    /// Keeps alignment.
    pub _pad: u32,
    /// Start of the parent, ns since boot.
    pub parent_start_ns: u64,
    /// Start of the child, ns since boot.
    pub child_start_ns: u64,
}

/// Bits of [`Exec::flags`].
pub mod exec_flag {
    /// This exec made a new tree: its stdin and stdout are a pipe or a unix stream socket each.
    pub const NEW_TREE: u32 = 1;
    /// A script: the executed file is its interpreter.
    pub const SHEBANG: u32 = 2;
    /// The file has no name left (deleted, memfd, O_TMPFILE).
    pub const UNLINKED: u32 = 4;
    /// The path was cut (too many components or bytes).
    pub const PATH_CUT: u32 = 8;
    /// The argument vector was cut.
    pub const ARGV_CUT: u32 = 16;
    /// The working directory was cut.
    pub const CWD_CUT: u32 = 32;
    /// The file lives in memory only (memfd or shmem with the name "memfd:").
    pub const MEMFD: u32 = 64;
}

/// Bits of [`Exec::env_flags`].
pub mod env_flag {
    /// Names of environment variables that make programs load or run foreign code: bit n of
    /// [`super::Exec::env_flags`] says that `NAMES[n]` is set. Only names are looked at, and no value is
    /// ever captured.
    pub const NAMES: [&str; 18] = [
        "LD_PRELOAD",
        "LD_AUDIT",
        "LD_LIBRARY_PATH",
        "GCONV_PATH",
        "BASH_ENV",
        "NODE_OPTIONS",
        "NODE_PATH",
        "PYTHONSTARTUP",
        "PYTHONPATH",
        "PYTHONHOME",
        "PERL5OPT",
        "PERL5LIB",
        "RUBYOPT",
        "RUBYLIB",
        "JAVA_TOOL_OPTIONS",
        "DOTNET_STARTUP_HOOKS",
        "GIT_SSH_COMMAND",
        "GIT_EXTERNAL_DIFF",
    ];
    /// Not all of the environment was looked at.
    pub const CUT: u32 = 1 << 31;
}

/// A process executed a program. Followed by: path (leaf first), cwd (leaf first), script name as
/// given (only with SHEBANG), argv (NUL-separated).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Exec {
    /// Common part.
    pub header: Header,
    /// Bits of [`exec_flag`].
    pub flags: u32,
    /// Parent process at this time.
    pub parent: u32,
    /// Start of this process, ns since boot.
    pub start_ns: u64,
    /// Start of the parent, ns since boot.
    pub parent_start_ns: u64,
    /// Channel key of descriptor 0, 0 if it is neither pipe nor unix stream socket.
    pub stdin: u64,
    /// Channel key of descriptor 1, likewise.
    pub stdout: u64,
    /// Inode number of the executed file.
    pub ino: u64,
    /// Device of the executed file (kernel encoding: major << 20 | minor).
    pub dev: u32,
    /// Login user id, `u32::MAX` if unset.
    pub login_uid: u32,
    /// Bytes of path.
    pub path_len: u32,
    /// Bytes of working directory.
    pub cwd_len: u32,
    /// Bytes of script name.
    pub script_len: u32,
    /// Bytes of argv.
    pub argv_len: u32,
    /// Bits of [`env_flag`].
    pub env_flags: u32,
    /// Keeps alignment.
    pub _pad: u32,
}

/// The last thread of a tracked process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Exit {
    /// Common part.
    pub header: Header,
    /// Start of the process, ns since boot.
    pub start_ns: u64,
    /// CPU time of all its threads, ns.
    pub cpu_ns: u64,
    /// Highest resident set, bytes; 0 when not known.
    pub max_rss: u64,
    /// Wait status as `wait(2)` gives it: code << 8 | signal.
    pub status: u32,
    /// Keeps alignment.
    pub _pad: u32,
}

/// Which way the bytes of a [`Chunk`] went.
pub mod side {
    /// Read by the tree from a request channel.
    pub const REQUEST: u32 = 0;
    /// Written by the tree to a reply channel.
    pub const REPLY: u32 = 1;
    /// Written by the tree into its own request channel: forged.
    pub const FORGED: u32 = 2;
    /// Written by a client process into a request channel under proof.
    pub const PROOF: u32 = 3;
}

/// Bytes that went through a channel. Followed by the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Chunk {
    /// Common part.
    pub header: Header,
    /// Channel key: inode number, bit 63 set for a socket.
    pub channel: u64,
    /// Position of the first byte (after `skipped`) in this side of the channel as counted by the
    /// kernel program.
    pub position: u64,
    /// CPU time of the process at that moment, ns; 0 when not read (only REQUEST has it).
    pub cpu_ns: u64,
    /// One of [`side`].
    pub side: u32,
    /// Bytes between the previous chunk of this side and this one that were not captured.
    pub skipped: u32,
    /// Bytes that follow.
    pub len: u32,
    /// Keeps alignment.
    pub _pad: u32,
}

/// A file was opened; aggregated by (process, epoch, file, flags). Followed by the path, leaf
/// first, read from the opened file: source `fd-at-exit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Open {
    /// Common part.
    pub header: Header,
    /// Inode number.
    pub ino: u64,
    /// Device (kernel encoding).
    pub dev: u32,
    /// Flags given to open (O_*), access mode included.
    pub flags: u32,
    /// Mode and type of the inode (S_IF* | permissions).
    pub mode: u32,
    /// Hard links; 0 means that the file has no name.
    pub nlink: u32,
    /// Bytes of path.
    pub path_len: u32,
    /// 1 when the file is the request channel of the tree, opened for writing.
    pub request_channel: u32,
}

/// What a [`PathOp`] did.
pub mod path_op {
    /// unlink, unlinkat without AT_REMOVEDIR
    pub const UNLINK: u32 = 1;
    /// rmdir, unlinkat with AT_REMOVEDIR
    pub const RMDIR: u32 = 2;
    /// rename, renameat, renameat2
    pub const RENAME: u32 = 3;
    /// mkdir, mkdirat
    pub const MKDIR: u32 = 4;
    /// symlink, symlinkat
    pub const SYMLINK: u32 = 5;
    /// link, linkat
    pub const LINK: u32 = 6;
    /// chmod and its family
    pub const CHMOD: u32 = 7;
    /// chown and its family
    pub const CHOWN: u32 = 8;
    /// truncate, ftruncate
    pub const TRUNCATE: u32 = 9;
    /// mknod, mknodat
    pub const MKNOD: u32 = 10;
}

/// A successful change of a name or of a file's metadata. Followed by: base directory of the first
/// name (leaf first), first name as given, base directory of the second name, second name as given.
/// A call on a descriptor has the descriptor's own path as base and no name (source `fd-at-exit`);
/// names as given are source `argument`. For SYMLINK the first name is the link's target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PathOp {
    /// Common part.
    pub header: Header,
    /// One of [`path_op`].
    pub op: u32,
    /// Mode (CHMOD, MKDIR, MKNOD), owner (CHOWN).
    pub arg: u64_le,
    /// Bytes of the first base directory.
    pub base_len: u32,
    /// Bytes of the first name.
    pub name_len: u32,
    /// Bytes of the second base directory.
    pub base2_len: u32,
    /// Bytes of the second name.
    pub name2_len: u32,
    /// Keeps alignment.
    pub _pad: u32,
}

/// Two 32-bit words, so that [`PathOp`] stays free of padding: low, high.
#[expect(non_camel_case_types, reason = "reads as the integer that it stands for")]
pub type u64_le = [u32; 2];

/// What a [`Net`] or [`Unix`] did.
pub mod net_op {
    /// connect, also implicit (fast open) and by io_uring
    pub const CONNECT: u32 = 1;
    /// sendto/sendmsg with an address on an unconnected datagram socket
    pub const SENDMSG: u32 = 2;
    /// bind
    pub const BIND: u32 = 3;
    /// listen
    pub const LISTEN: u32 = 4;
    /// accept
    pub const ACCEPT: u32 = 5;
}

/// An act on an internet socket; addresses are the kernel's own copies. Aggregated by (process,
/// epoch, op, address, port, protocol).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Net {
    /// Common part.
    pub header: Header,
    /// Socket cookie, 0 when not known.
    pub cookie: u64,
    /// Address in network order; IPv4 in the first four bytes.
    pub addr: [u8; 16],
    /// One of [`net_op`].
    pub op: u32,
    /// AF_INET or AF_INET6: how the address is written.
    pub family: u32,
    /// IPPROTO_TCP, IPPROTO_UDP, ...
    pub protocol: u32,
    /// Remote port (CONNECT, SENDMSG, ACCEPT) or local port (BIND, LISTEN), host order.
    pub port: u32,
}

/// An act on a unix socket. Followed by the name as in `sun_path` (abstract: leading NUL).
/// Aggregated like [`Net`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Unix {
    /// Common part.
    pub header: Header,
    /// One of [`net_op`].
    pub op: u32,
    /// Result of the call: 0 or -errno.
    pub result: i32,
    /// 1: the name is the kernel's own copy; 0: the caller's argument.
    pub from_kernel: u32,
    /// Bytes of the name.
    pub name_len: u32,
}

/// What a [`Packet`] holds.
pub mod packet {
    /// A DNS question that the server sent.
    pub const DNS_QUERY: u32 = 1;
    /// A DNS answer that the server received.
    pub const DNS_ANSWER: u32 = 2;
    /// The first bytes of a TLS handshake that the server sent.
    pub const TLS_HELLO: u32 = 3;
}

/// Payload of one packet of a tracked socket. Followed by the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Packet {
    /// `tgid` is the owner of the socket, not the current process.
    pub header: Header,
    /// Socket cookie.
    pub cookie: u64,
    /// Remote address: resolver or TLS peer.
    pub addr: [u8; 16],
    /// One of [`packet`].
    pub what: u32,
    /// AF_INET or AF_INET6.
    pub family: u32,
    /// Remote port.
    pub port: u32,
    /// Local port.
    pub local_port: u32,
    /// IPPROTO_*.
    pub protocol: u32,
    /// Bytes that follow.
    pub len: u32,
}

/// First packet of a socket in an epoch; bytes (layer-4 payload) are aggregated under its id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    /// `tgid` is the owner of the socket.
    pub header: Header,
    /// Socket cookie.
    pub cookie: u64,
    /// Remote address.
    pub addr: [u8; 16],
    /// AF_INET or AF_INET6.
    pub family: u32,
    /// IPPROTO_*.
    pub protocol: u32,
    /// Remote port.
    pub port: u32,
    /// Local port.
    pub local_port: u32,
    /// Payload bytes of this first packet, sent.
    pub bytes_out: u64,
    /// Payload bytes of this first packet, received.
    pub bytes_in: u64,
}

/// First use of a system call by a process in an epoch; aggregated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Syscall {
    /// COMPAT in the header tells the ABI.
    pub header: Header,
    /// Number in the table of that ABI.
    pub nr: u32,
    /// Keeps alignment.
    pub _pad: u32,
}

/// A system call that deserves an event of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Special {
    /// Common part.
    pub header: Header,
    /// Arguments as given.
    pub args: [u64; 5],
    /// Result.
    pub ret: i64,
    /// Number in the table of the ABI.
    pub nr: u32,
    /// Bytes of text that follow (memfd_create's name), source `argument`.
    pub text_len: u32,
}

/// An io_uring request was submitted; aggregated by (process, epoch, opcode).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Uring {
    /// Common part.
    pub header: Header,
    /// IORING_OP_*.
    pub opcode: u32,
    /// Keeps alignment.
    pub _pad: u32,
}

/// Bytes of a channel moved in a way that the capture does not follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Blind {
    /// Common part.
    pub header: Header,
    /// Channel key.
    pub channel: u64,
    /// System call number, or 0x10000 + io_uring opcode.
    pub how: u32,
    /// One of [`side`].
    pub side: u32,
}

/// What a [`Denied`] act was.
pub mod denied_op {
    /// connect
    pub const CONNECT: u32 = 1;
    /// sendto, sendmsg with an address
    pub const SENDMSG: u32 = 2;
    /// bind
    pub const BIND: u32 = 3;
    /// A packet that went out otherwise.
    pub const PACKET: u32 = 4;
    /// A DNS question; its name follows as it is on the wire.
    pub const QUESTION: u32 = 5;
    /// A packet out of a tree that is cut off.
    pub const CUT_OUT: u32 = 6;
    /// A packet into a tree that is cut off.
    pub const CUT_IN: u32 = 7;
    /// The first that is decided by an LSM program. Up to [`ACCESS_END`]: this plus one of [`crate::paths::access`], and the path
    /// follows, leaf first.
    pub const FIRST_LSM: u32 = 16;
    /// One more than the last of those.
    pub const ACCESS_END: u32 = FIRST_LSM + 6;
    /// connect or send to an abstract unix socket; its name follows, a NUL before it.
    pub const UNIX_ABSTRACT: u32 = 23;
    /// ptrace, or access to another process's memory or descriptors.
    pub const PTRACE: u32 = 24;
    /// mount
    pub const MOUNT: u32 = 25;
    /// umount2
    pub const UMOUNT: u32 = 26;
    /// move_mount
    pub const MOVE_MOUNT: u32 = 27;
    /// pivot_root
    pub const PIVOT_ROOT: u32 = 28;
    /// bpf
    pub const BPF: u32 = 29;
    /// A socket of a family that no packet program sees; [`super::Denied::port`] is the family.
    pub const SOCKET: u32 = 30;
    /// A signal to the agent; [`super::Denied::port`] is its number.
    pub const KILL_AGENT: u32 = 31;
    /// ptrace of the agent.
    pub const PTRACE_AGENT: u32 = 32;
    /// A change of the agent's files; the path follows, leaf first.
    pub const AGENT_FILE: u32 = 33;
    /// The agent was put into another cgroup.
    pub const MOVE_AGENT: u32 = 34;
    /// A limit or the priority of the agent.
    pub const LIMIT_AGENT: u32 = 35;
    /// A map (1), program (2) or link (3) of the agent's: [`super::Denied::port`].
    pub const AGENT_BPF: u32 = 36;
    /// A mount that the agent's files are on, or one over them.
    pub const AGENT_MOUNT: u32 = 37;
}

/// Bits of [`Denied::flags`].
pub mod denied_flag {
    /// Only told: it happened.
    pub const DRY_RUN: u32 = 1;
    /// A right names the object and says: nobody.
    pub const FORBIDDEN: u32 = 2;
}

/// An act that the policy of its tree does not permit. Aggregated by (process, epoch, op, object). What follows depends on
/// the act: a name or a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Denied {
    /// Common part.
    pub header: Header,
    /// Scopes that were live for the process.
    pub live: u64,
    /// Scopes that hold a right to the object.
    pub held: u64,
    /// Address in network order, IPv4 as v4-mapped.
    pub addr: [u8; 16],
    /// One of [`denied_op`].
    pub op: u32,
    /// One of [`crate::policy::family`].
    pub family: u32,
    /// IPPROTO_*.
    pub protocol: u32,
    /// Port, host order.
    pub port: u32,
    /// Bits of [`denied_flag`].
    pub flags: u32,
    /// Bytes that follow.
    pub len: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 56);
    assert!(size_of::<Fork>() == 80);
    assert!(size_of::<Exec>() == 56 + 80);
    assert!(size_of::<Exit>() == 56 + 32);
    assert!(size_of::<Chunk>() == 56 + 40);
    assert!(size_of::<Open>() == 56 + 32);
    assert!(size_of::<PathOp>() == 56 + 32);
    assert!(size_of::<Net>() == 56 + 40);
    assert!(size_of::<Unix>() == 56 + 16);
    assert!(size_of::<Packet>() == 56 + 48);
    assert!(size_of::<Flow>() == 56 + 56);
    assert!(size_of::<Syscall>() == 56 + 8);
    assert!(size_of::<Special>() == 56 + 56);
    assert!(size_of::<Uring>() == 56 + 8);
    assert!(size_of::<Blind>() == 56 + 16);
    assert!(size_of::<Denied>() == 56 + 56);
};
