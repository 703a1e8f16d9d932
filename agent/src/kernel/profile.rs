//! What the programs of an agent cost: the kernel times them while somebody asks it to, all programs of the host with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};

/// One program within that time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// As the kernel has it: the first 15 characters.
    pub(crate) name: String,
    pub(crate) runs: u64,
    pub(crate) ns: u64,
}

/// Programs that a process holds, by the kernel's word.
pub(crate) fn programs_of(pid: u32) -> Result<BTreeSet<u32>> {
    let dir = format!("/proc/{pid}/fdinfo");
    let cannot = || format!("cannot read {dir}: be root, in the agent's pid namespace");
    let mut ids = BTreeSet::new();
    for entry in std::fs::read_dir(&dir).with_context(cannot)? {
        // Descriptors come and go.
        let Ok(text) = std::fs::read_to_string(entry.with_context(cannot)?.path()) else { continue };
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    ensure!(!ids.is_empty(), "process {pid} holds no BPF programs");
    Ok(ids)
}

/// Costs of these programs from now on, for so long.
pub(crate) fn costs(ids: &BTreeSet<u32>, time: Duration) -> Result<Vec<Cost>> {
    let _timing = enable_stats(Stats::RunTime).map_err(|e| {
        anyhow!("the kernel does not time programs: {}; it takes root and Linux 5.8 or later", e.io_error)
    })?;
    let before = look(ids)?;
    thread::sleep(time);
    let after = look(ids)?;
    let cost = |(id, now): (u32, Cost)| {
        let then = before.get(&id).cloned().unwrap_or_default();
        let (runs, ns) = (now.runs.saturating_sub(then.runs), now.ns.saturating_sub(then.ns));
        Cost { name: now.name, runs, ns }
    };
    let mut all: Vec<Cost> = after.into_iter().map(cost).collect();
    all.sort_by(|a, b| b.ns.cmp(&a.ns).then_with(|| a.name.cmp(&b.name)));
    Ok(all)
}

fn look(ids: &BTreeSet<u32>) -> Result<BTreeMap<u32, Cost>> {
    let mut all = BTreeMap::new();
    for program in loaded_programs() {
        // Others' programs may end while we look.
        let Ok(program) = program else { continue };
        if ids.contains(&program.id()) {
            let ns = u64::try_from(program.run_time().as_nanos()).unwrap_or(u64::MAX);
            let name = String::from_utf8_lossy(program.name()).into_owned();
            all.insert(program.id(), Cost { name, runs: program.run_count(), ns });
        }
    }
    ensure!(!all.is_empty(), "the agent's programs cannot be listed: it takes CAP_SYS_ADMIN");
    Ok(all)
}
