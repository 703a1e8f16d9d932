//! Keys and values of the BPF maps.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A tracked process, by tgid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Proc {
    /// Tree that the process belongs to.
    pub tree: u64,
    /// Start of the process, ns since boot.
    pub start_ns: u64,
    /// Channel key of its stdin when it last executed, 0 if none.
    pub stdin: u64,
    /// Channel key of its stdout when it last executed, 0 if none.
    pub stdout: u64,
    /// Bits of [`proc_flag`].
    pub flags: u64,
    /// Tools whose calls were in flight when it, or one that it descends from, was born: it keeps their rights.
    pub born: u64,
}

/// Bits of [`Proc::flags`].
pub mod proc_flag {
    /// Not tracked for itself: an MCP client whose writes into request channels are proof.
    pub const CLIENT: u64 = 1;
}

/// A tree of processes, by tree id. When the entry is gone, so is the interest in the tree: the
/// kernel programs forget its processes as they meet them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tree {
    /// Counts messages chunks on the main channel; aggregation never crosses it.
    pub epoch: u64,
    /// When the epoch began, ns since boot.
    pub since_ns: u64,
    /// Channel key of the tree's request channel.
    pub request: u64,
    /// Channel key of the tree's reply channel.
    pub reply: u64,
    /// Tree that this one was born in, 0 if none: its epochs count here as well.
    pub parent: u64,
}

/// Bytes counted on one channel, by channel key. Only the kernel programs write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Channel {
    /// Bytes counted so far: one counter for each of [`crate::side`].
    pub position: [u64; 4],
}

/// How much of a channel is captured: a map of its own by channel key, that only the agent writes.
pub mod channel_mode {
    /// Nobody knows yet what it is: only the first [`crate::UNDECIDED_BYTES`] are captured.
    pub const UNDECIDED: u64 = 0;
    /// MCP: everything.
    pub const FOLLOWED: u64 = 1;
    /// Not MCP: nothing.
    pub const IGNORED: u64 = 2;
    /// MCP, and a process of the tree can write into it: client writes are captured as well.
    pub const PROVED: u64 = 3;
}

/// Bytes a side that are captured before user space has decided what a channel is.
pub const UNDECIDED_BYTES: u64 = 256 * 1024;

/// Key of the aggregation maps. What the words mean depends on `kind`; the agent needs only the
/// value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AggKey {
    /// Process, or owner of the socket.
    pub tgid: u32,
    /// Epoch * 2 + 1 when the settling time of the last message had passed.
    pub epoch: u32,
    /// Record kind.
    pub kind: u32,
    /// Kind-specific.
    pub sub: u32,
    /// Kind-specific.
    pub words: [u64; 4],
}

/// Value of the aggregation maps: occurrences after the first, which went out as a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AggValue {
    /// Id of the record that announced this entry.
    pub id: u64,
    /// Occurrences after the first.
    pub count: u64,
    /// Bytes sent after the first packet.
    pub bytes_out: u64,
    /// Bytes received after the first packet.
    pub bytes_in: u64,
    /// 1 when the announcing record was lost: nothing is aggregated under this entry.
    pub lost: u64,
}

/// Owner of a socket, by cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Owner {
    /// Tree of the owner.
    pub tree: u64,
    /// Process that created, connected or last addressed it.
    pub tgid: u32,
    /// 1 once a TLS hello was captured.
    pub hello: u32,
    /// Bits of [`owner_flag`].
    pub flags: u32,
    /// Policy that found the peer below to be permitted, 0 if none did.
    pub policy: u32,
    /// That peer's address, v4-mapped.
    pub peer: [u64; 2],
    /// Its port, and its protocol above 16 bits.
    pub port: u64,
    /// The name that permitted it, as a key of `NAMES`, 0 if it was its address.
    pub right: u64,
}

/// Bits of [`Owner::flags`].
pub mod owner_flag {
    /// It listens, or was accepted: what goes out answers those who came in.
    pub const SERVES: u32 = 1;
    /// Something that it sent was denied, and the kernel sends that again and again.
    pub const DENIED: u32 = 2;
    /// It was closed with such data in its queue, [`super::Owner::hello`] seconds after boot. The kernel keeps it for minutes.
    pub const CLOSED: u32 = 4;
}

/// Indices of the per-CPU counters.
pub mod counter {
    /// Records the ring refused, by record kind: `LOST + kind`, 0 to 15.
    pub const LOST: u32 = 0;
    /// User memory could not be read.
    pub const FAULTS: u32 = 16;
    /// Texts cut.
    pub const TRUNCATED: u32 = 17;
    /// The process map was full: a process goes unwatched.
    pub const PROCS_FULL: u32 = 18;
    /// The tree or channel map was full.
    pub const TREES_FULL: u32 = 19;
    /// The aggregation map was full: records went out one by one.
    pub const AGG_FULL: u32 = 20;
    /// The socket owner map was full.
    pub const OWNERS_FULL: u32 = 21;
    /// Occurrences aggregated.
    pub const AGGREGATED: u32 = 22;
    /// Records written.
    pub const WRITTEN: u32 = 23;
    /// Opened descriptors that were gone or replaced before they could be looked at.
    pub const NO_FILE: u32 = 24;
    /// Channel bytes seen but not captured.
    pub const CHANNEL_SKIPPED: u32 = 25;
    /// Packets dropped by a rate.
    pub const RATE_DROPPED: u32 = 26;
    /// Packets dropped because the tree is cut off or the policy denies them.
    pub const DENIED: u32 = 27;
    /// A map of calls, questions or bound addresses was full: a right was not given.
    pub const RIGHTS_FULL: u32 = 28;
    /// A nested tree was not made, because it could not have been held to its policy.
    pub const POLICY_FULL: u32 = 29;
    /// All work spaces of the LSM programs were taken: the act was denied to those who are held to a policy.
    pub const LSM_BUSY: u32 = 30;
    /// Runs of a hook's programs for processes that are watched: `RUNS +` one of [`super::run`].
    pub const RUNS: u32 = 32;
    /// How many there are.
    pub const COUNT: u32 = RUNS + super::run::COUNT;
}

/// Hooks whose runs are counted.
pub mod run {
    /// A process is made.
    pub const FORK: u32 = 0;
    /// A program is executed.
    pub const EXEC: u32 = 1;
    /// A thread ends.
    pub const EXIT: u32 = 2;
    /// A system call returns.
    pub const SYSCALL: u32 = 3;
    /// An io_uring operation is submitted.
    pub const URING: u32 = 4;
    /// connect to an IPv4 address.
    pub const CONNECT4: u32 = 5;
    /// connect to an IPv6 address.
    pub const CONNECT6: u32 = 6;
    /// A datagram to an IPv4 address.
    pub const SENDMSG4: u32 = 7;
    /// A datagram to an IPv6 address.
    pub const SENDMSG6: u32 = 8;
    /// bind to an IPv4 address.
    pub const BIND4: u32 = 9;
    /// bind to an IPv6 address.
    pub const BIND6: u32 = 10;
    /// A socket is made.
    pub const SOCK_CREATE: u32 = 11;
    /// A socket is gone.
    pub const SOCK_RELEASE: u32 = 12;
    /// A packet leaves.
    pub const EGRESS: u32 = 13;
    /// A packet comes.
    pub const INGRESS: u32 = 14;
    /// LSM: a program.
    pub const LSM_EXEC: u32 = 15;
    /// LSM: a file or directory.
    pub const LSM_FILE: u32 = 16;
    /// LSM: a unix socket.
    pub const LSM_UNIX: u32 = 17;
    /// LSM: ptrace, mounts, bpf, sockets of other families.
    pub const LSM_DANGEROUS: u32 = 18;
    /// LSM: what is the agent's own.
    pub const LSM_GUARD: u32 = 19;
    /// Acts against the agent.
    pub const TAMPERING: u32 = 20;
    /// How many there are.
    pub const COUNT: u32 = 21;
}

/// Tuning, written once at load; read-only in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// Settling time after a message, ns.
    pub settle_ns: u64,
    /// The agent's own process: never tracked.
    pub agent: u32,
    /// Only the programs of the term that `TERM` names follow channels: see [`crate::policy::Term`].
    pub term: u32,
    /// The agent's mount namespace.
    pub mount_ns: u32,
    /// Keeps alignment.
    pub _pad: u32,
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: all are `repr(C)`, `Copy + 'static`, without padding (zerocopy::IntoBytes) and valid
    // for any bit pattern (zerocopy::FromBytes).
    unsafe impl aya::Pod for super::Proc {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Tree {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Channel {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::AggKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::AggValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Owner {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::Offsets {}
}
