//! All maps.

use abi::{AggKey, AggValue, Channel, Owner, Proc, Tree, counter};
use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};

/// Bytes of the ring: 8 MiB. It is mapped twice into the agent, whose memory limit is 64 MB.
pub const RING_BYTES: usize = 8 << 20;

#[btf_map]
pub static EVENTS: RingBuf<u64, RING_BYTES> = RingBuf::new();

/// Tracked processes by tgid. Full: the process goes unwatched, and PROCS_FULL counts it.
#[btf_map]
pub static PROCS: HashMap<u32, Proc, 16384> = HashMap::new();

/// One byte a possible pid: 0 = certainly not ours. Plain stores need no atomics, and the look-up is
/// inlined by the verifier, so this is what an untracked process pays.
#[btf_map]
pub static FILTER: Array<[u8; 64], 65536> = Array::new();

#[btf_map]
pub static TREES: HashMap<u64, Tree, 4096> = HashMap::new();

#[btf_map]
pub static CHANNELS: HashMap<u64, Channel, 8192> = HashMap::new();

/// One of [`abi::channel_mode`] by channel key, written by the agent; none means undecided.
#[btf_map]
pub static MODES: HashMap<u64, u64, 8192> = HashMap::new();

/// Which of the two aggregation maps is written; the other one is drained.
#[btf_map]
pub static ACTIVE: Array<u32, 1> = Array::new();

#[btf_map]
pub static AGG0: HashMap<AggKey, AggValue, 16384> = HashMap::new();

#[btf_map]
pub static AGG1: HashMap<AggKey, AggValue, 16384> = HashMap::new();

/// Sockets of tracked processes by cookie.
#[btf_map]
pub static OWNERS: HashMap<u64, Owner, 16384> = HashMap::new();

/// Listening ports of tracked processes: an accepted socket has a cookie that nobody has seen.
#[btf_map]
pub static LISTENERS: HashMap<u32, Owner, 1024> = HashMap::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { counter::COUNT as usize }> = PerCpuArray::new();

/// Records lost on this CPU since the last one that was written: all of them, and those not bulk.
#[btf_map]
pub static LOST_SINCE: PerCpuArray<u64, 2> = PerCpuArray::new();

/// Where records are assembled: one slot for system calls, one for lifecycle programs, because
/// their programs may interrupt each other; some for LSM programs.
#[btf_map]
pub static SCRATCH: PerCpuArray<crate::record::Scratch, { crate::record::SLOTS }> = PerCpuArray::new();
