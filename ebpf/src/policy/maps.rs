//! Maps of verdicts. Those that rights are read from are written by the agent only.

use abi::{
    policy::{
        Bound, BoundKey, CallKey, CallValue, Jit, NameKey, NetKey, Question, QuestionKey, Rate, Rights,
        ScanKey, Term, ToolKey, ToolValue, TreePolicy, names,
    },
    scan::Scan,
};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap},
    macros::btf_map,
};

const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub static TREE_POLICY: HashMap<u64, TreePolicy, 4096> = HashMap::new();

#[btf_map]
pub static TOOLS: HashMap<ToolKey, ToolValue, 16384> = HashMap::new();

#[btf_map]
pub static JIT: HashMap<u64, Jit, 512> = HashMap::new();

/// Calls in flight. Full: a call gets no rights, and RIGHTS_FULL counts it.
#[btf_map]
pub static INFLIGHT: HashMap<CallKey, CallValue, 16384> = HashMap::new();

/// Channels that are scanned, each side; the agent makes the entries.
#[btf_map]
pub static SCANS: HashMap<ScanKey, Scan, 1024> = HashMap::new();

/// Peers by address.
#[btf_map]
pub static CONNECT: LpmTrie<NetKey, Rights, 65536> = LpmTrie::new();

/// Own addresses.
#[btf_map]
pub static LISTEN: LpmTrie<NetKey, Rights, 8192> = LpmTrie::new();

/// Peers by name.
#[btf_map]
pub static NAMES: HashMap<NameKey, Rights, 65536, ON_DEMAND> = HashMap::new();

/// Key of the hashes of names.
#[btf_map]
pub static NAMES_KEY: Array<names::Key, 1> = Array::new();

/// Whom this host asks for names.
#[btf_map]
pub static RESOLVERS: HashMap<[u64; 2], u64, 64> = HashMap::new();

/// Questions under way. One tree that asks very much can push out another one's: its answer then binds nothing.
#[btf_map]
pub static QUESTIONS: LruHashMap<QuestionKey, Question, 8192> = LruHashMap::new();

/// Addresses that names gave to trees.
#[btf_map]
pub static BOUND: LruHashMap<BoundKey, Bound, 32768> = LruHashMap::new();

/// Whose programs are at work.
#[btf_map]
pub static TERM: Array<Term, 1> = Array::new();

#[btf_map]
pub static RATES: HashMap<u64, Rate, 512> = HashMap::new();
