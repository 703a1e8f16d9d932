//! Which maps hold state that outlives an agent, and what they look like.

use abi::{
    Channel, Owner, Proc, Tree,
    paths::{GuardedTask, InodeKey, PathKey, PathRights},
    policy::{
        Bound, BoundKey, CallKey, CallValue, Jit, NameKey, NetKey, Question, QuestionKey, Rate, Rights,
        ScanKey, Term, ToolKey, ToolValue, TreePolicy, names,
    },
    scan::{Scan, fnv},
};
use anyhow::{Context as _, Result, bail};
use aya::maps::{MapData, MapType, lpm_trie::Key};

/// A map as this agent's programs know it.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    kind: MapType,
    key: u32,
    value: u32,
    entries: u32,
}

const fn shape<K, V>(name: &'static str, kind: MapType, entries: u32) -> Shape {
    Shape { name, kind, key: size_of::<K>() as u32, value: size_of::<V>() as u32, entries }
}

/// All of them. Counts, and the ring, belong to one agent. How channels are captured does not: calls are followed in what is captured.
pub(super) const STATE: [Shape; 25] = [
    shape::<u32, Proc>("PROCS", MapType::Hash, 16384),
    shape::<u32, [u8; 64]>("FILTER", MapType::Array, 65536),
    shape::<u64, Tree>("TREES", MapType::Hash, 4096),
    shape::<u64, Channel>("CHANNELS", MapType::Hash, 8192),
    shape::<u64, u64>("MODES", MapType::Hash, 8192),
    shape::<u64, Owner>("OWNERS", MapType::Hash, 16384),
    shape::<u32, Owner>("LISTENERS", MapType::Hash, 1024),
    shape::<u64, TreePolicy>("TREE_POLICY", MapType::Hash, 4096),
    shape::<ToolKey, ToolValue>("TOOLS", MapType::Hash, 16384),
    shape::<u64, Jit>("JIT", MapType::Hash, 512),
    shape::<CallKey, CallValue>("INFLIGHT", MapType::Hash, 16384),
    shape::<ScanKey, Scan>("SCANS", MapType::Hash, 1024),
    shape::<Key<NetKey>, Rights>("CONNECT", MapType::LpmTrie, 65536),
    shape::<Key<NetKey>, Rights>("LISTEN", MapType::LpmTrie, 8192),
    shape::<NameKey, Rights>("NAMES", MapType::Hash, 65536),
    shape::<PathKey, PathRights>("PATHS", MapType::Hash, 131_072),
    shape::<u32, names::Key>("NAMES_KEY", MapType::Array, 1),
    shape::<[u64; 2], u64>("RESOLVERS", MapType::Hash, 64),
    shape::<QuestionKey, Question>("QUESTIONS", MapType::LruHash, 8192),
    shape::<BoundKey, Bound>("BOUND", MapType::LruHash, 32768),
    shape::<u64, Rate>("RATES", MapType::Hash, 512),
    shape::<u32, GuardedTask>("GUARDED_TASKS", MapType::Hash, 16),
    shape::<InodeKey, u64>("GUARDED_FILES", MapType::Hash, 512),
    shape::<u64, u64>("GUARDED_BPF", MapType::Hash, 1024),
    shape::<u32, Term>("TERM", MapType::Array, 1),
];

/// Name of the layout: what differs in shape, or in [`abi::ABI`], is another one.
pub(super) fn layout() -> String {
    let text = format!("{STATE:?}");
    format!("v{}-{:08x}", abi::ABI, fnv(text.as_bytes()) as u32)
}

impl Shape {
    /// Refuses a map that looks otherwise.
    pub(super) fn check(&self, map: &MapData) -> Result<()> {
        let info = map.info().with_context(|| format!("cannot look at map {}", self.name))?;
        let kind = info.map_type().with_context(|| format!("map {} is of an unknown type", self.name))?;
        let found = (kind, info.key_size(), info.value_size(), info.max_entries());
        if found != (self.kind, self.key, self.value, self.entries) {
            bail!("map {} is {found:?}, and should be {self:?}", self.name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_layout_has_a_name_that_a_bpf_file_system_takes() {
        let name = super::layout();
        assert!(name.starts_with('v') && !name.contains('.'), "{name}");
    }
}
