//! Less CPU, memory, processes, disk and network: by the controllers that the host has. Where none limits the
//! CPU, the tree is frozen for most of each tenth of a second, and the result says so.

use std::{fs, path::Path};

use engine::respond::{Order, Outcome, ProcessKey, Verdict};

use super::{
    Contain, Ground, LOCK, Rate, failed,
    gather::{Gathered, remember},
    group::Group,
    in_force,
    layout::{Hierarchy, is_container, is_scope},
    process::{self, Held, Never},
    record::{Changed, Force, Record},
    release,
    scope::Limits,
    until_ns,
};

/// Of one CPU. Eyeballed: a shell stays usable, a miner does not.
const CPU_PERCENT: u64 = 10;
/// The period of the quota.
const CPU_PERIOD_US: u64 = 100_000;
/// Above what it uses now; and at least so much. Eyeballed.
const MEMORY_PERCENT: u64 = 125;
const MEMORY_LEAST: u64 = 64 << 20;
/// Threads beyond those that it has.
const MORE_THREADS: u64 = 8;
/// Of each disk, each way.
const DISK_BYTES_PER_S: u64 = 1 << 20;
/// A page on x86-64.
const PAGE: u64 = 4096;
const NETWORK: Rate = Rate { bytes_per_s: 128 << 10, burst: 56 << 10 };
/// In no 10 s more than 1.1 times the rate gets through.
const _: () = assert!(NETWORK.burst + abi::policy::RATE_OWED <= NETWORK.bytes_per_s);

/// One thing that is limited.
struct Resource {
    name: &'static str,
    /// As v1 and v2 call it.
    controllers: [&'static str; 2],
}

const RESOURCES: [Resource; 4] = [
    Resource { name: "cpu", controllers: ["cpu", "cpu"] },
    Resource { name: "memory", controllers: ["memory", "memory"] },
    Resource { name: "processes", controllers: ["pids", "pids"] },
    Resource { name: "disk", controllers: ["blkio", "io"] },
];

/// A file of a cgroup, what is written to limit, and to lift.
type Write = (&'static str, String, String);

impl Contain {
    fn hierarchy(&self, r: &Resource) -> Option<&Hierarchy> {
        r.controllers.iter().find_map(|c| self.layout.of(c))
    }

    pub(super) fn throttle_plan(&self) -> String {
        let one = |r: &Resource| match self.hierarchy(r) {
            Some(h) => format!("{} ({})", r.name, if h.is_v2() { "v2" } else { "v1" }),
            None if r.name == "cpu" && self.layout.freezer().is_some() => "cpu (freeze duty cycle)".into(),
            None => format!("not {} (no controller)", r.name),
        };
        RESOURCES.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn throttle(&mut self, order: &Order, ground: &mut impl Ground, never: &Never) -> Outcome {
        let keys = ground.members(order.tree);
        if keys.is_empty() {
            return Outcome {
                verdict: Verdict::Nothing,
                result: "none of its processes runs".into(),
                ..Outcome::default()
            };
        }
        let _lock = self.records.lock(LOCK);
        let mut record = self.record(order.tree, &order.server, &keys);
        let before = in_force(&record);
        let mut force = Force { until_ns: until_ns(order.for_ns), ..Force::default() };
        let (mut said, mut problems) = (Vec::new(), Vec::new());
        let mut reached = std::collections::BTreeSet::new();
        if let Err(why) = self.move_to_scope(order, &mut record, &keys, ground, never) {
            problems.push(format!("systemd made no scope ({why})"));
        }
        for r in &RESOURCES {
            let Some(h) = self.hierarchy(r) else {
                if r.name != "cpu" {
                    problems.push(format!("{}: this host has no controller for it", r.name));
                }
                continue;
            };
            // In a scope systemd has done that.
            if h.is_v2()
                && !is_scope(&record.name)
                && let Err(e) = enable(h, r.controllers[1])
            {
                problems.push(format!("{}: the controller cannot be passed on: {e}", r.name));
                continue;
            }
            if !force.own.contains(&h.name) {
                force.own.push(h.name.clone());
            }
            record.throttle = Some(force.clone());
            let all = match self.records.put(&record).map_err(|e| e.to_string()) {
                Ok(()) => self.gather(h, &mut record, order, ground, never),
                Err(e) => Err(e),
            };
            let all = match all {
                Ok(all) => all,
                Err(why) => {
                    problems.push(format!("{}: {why}", r.name));
                    continue;
                }
            };
            problems
                .extend(all.spared.iter().map(|s| format!("{}: process {}: {}", r.name, s.pid, s.because)));
            match limit(r, h, &record, &all, &keys, &mut force) {
                Ok(how) => {
                    reached.extend(all.inside.iter().copied());
                    reached.extend(all.containers.values().flatten().copied());
                    said.push(how);
                }
                Err(why) => problems.push(format!("{}: {why}", r.name)),
            }
        }
        if self.hierarchy(&RESOURCES[0]).is_none() {
            match self.duty(order, &mut record, &mut force, ground, never) {
                Ok(all) => {
                    reached.extend(all.inside);
                    said.push(format!(
                        "cpu {CPU_PERCENT} % of the time by a freeze duty cycle, for want of a controller"
                    ));
                }
                Err(why) => problems.push(format!("cpu: {why}")),
            }
        }
        match ground.rate(order.tree, Some(NETWORK)) {
            Ok(()) => said.push(format!("network {} KiB/s", NETWORK.bytes_per_s >> 10)),
            Err(why) => problems.push(format!("network rate: {why}")),
        }
        record.throttle = Some(force);
        if let Err(e) = self.records.put(&record) {
            problems.push(format!("it cannot be written down: {e}"));
        }
        if said.is_empty() {
            release::release(&self.layout, &self.records, &mut record, Some(order.action));
            return failed(format!("cannot throttle: {}", problems.join("; ")));
        }
        let place = if is_scope(&record.name) { format!(" ({})", record.name) } else { String::new() };
        let mut result = format!("{} processes are limited{place}: {}", reached.len(), said.join(", "));
        for problem in &problems {
            result = format!("{result}; {problem}");
        }
        Outcome {
            verdict: if problems.is_empty() { Verdict::Done } else { Verdict::Partly },
            result,
            before,
            after: in_force(&record),
            processes: reached.len() as u64,
            ..Outcome::default()
        }
    }

    /// Where systemd is process 1: a scope with the first process of the tree, in place of a cgroup that nobody but us knows
    /// of. The others enter it as they would that one.
    fn move_to_scope(
        &mut self,
        order: &Order,
        record: &mut Record,
        keys: &[ProcessKey],
        ground: &impl Ground,
        never: &Never,
    ) -> Result<(), String> {
        // What is in force already has its cgroup.
        if !self.scopes.is_usable() || record.freeze.is_some() || record.throttle.is_some() {
            return Ok(());
        }
        let Some(h) = self.layout.of("cpu").cloned() else { return Ok(()) };
        // Containers stay where they are.
        let movable = |k: &ProcessKey| h.place(k.tgid).is_some_and(|place| !is_container(&place));
        let Some(first) = Self::reach(order, ground, never).keys.into_iter().find(movable) else {
            return Ok(());
        };
        // By pidfd, and its start time compared after that; systemd takes a number.
        let Ok(_held) = Held::open(first) else { return Ok(()) };
        let plain = record.name.clone();
        remember(record, first);
        // Never the same twice: systemd may not have forgotten the last one yet.
        record.name = format!("toolwarden-{plain}-{:x}.scope", super::boot_ns());
        record.throttle = Some(Force { own: vec![h.name.clone()], ..Force::default() });
        // Before it is so.
        let written = self.records.put(record).map_err(|e| e.to_string());
        let limits = Limits { cpu_us: CPU_PERCENT * 10_000, memory: memory(keys), threads: threads(keys) };
        let dir = h.own(&record.name);
        let done =
            written.and_then(|()| self.scopes.start(&record.name, first.tgid, limits, &dir, h.own(&plain)));
        if done.is_err() {
            record.name = plain;
            record.throttle = None;
        }
        done
    }

    /// The tree enters a cgroup that the watchdog freezes and thaws in turn.
    fn duty(
        &self,
        order: &Order,
        record: &mut Record,
        force: &mut Force,
        ground: &impl Ground,
        never: &Never,
    ) -> Result<Gathered, String> {
        let h = self.layout.freezer().ok_or("this host has no controller for it, and no freezer")?;
        if !force.own.contains(&h.name) {
            force.own.push(h.name.clone());
        }
        force.duty = Some(CPU_PERCENT);
        record.throttle = Some(force.clone());
        self.records.put(record).map_err(|e| e.to_string())?;
        let all = self.gather(h, record, order, ground, never)?;
        if all.inside.is_empty() {
            force.duty = None;
            return Err("none of its processes could be moved".into());
        }
        Ok(all)
    }
}

/// Writes the limits of one resource, to our cgroup and to those of containers.
fn limit(
    r: &Resource,
    h: &Hierarchy,
    record: &Record,
    all: &Gathered,
    keys: &[ProcessKey],
    force: &mut Force,
) -> Result<String, String> {
    let (how, writes) = writes(r, h.is_v2(), keys)?;
    let failed = |file: &str, e: std::io::Error| format!("{file}: {e}");
    if !all.inside.is_empty() {
        let group = Group::new(h, h.own(&record.name));
        for (file, value, lift) in &writes {
            group.set(file, value).map_err(|e| failed(file, e))?;
            force.lift.push((h.name.clone(), (*file).to_owned(), lift.clone()));
        }
    }
    for cgroup in all.containers.keys() {
        let Some(dir) = h.dir(cgroup) else { continue };
        let group = Group::new(h, dir);
        for (file, value, lift) in &writes {
            let was = group.get(file).map_err(|e| failed(file, e))?;
            // Limits of disks are lifted one by one; the others are put back as they were.
            let was = if r.name == "disk" { lift.clone() } else { was };
            group.set(file, value).map_err(|e| failed(file, e))?;
            force.changed.push(Changed { file: group.dir.join(file), was });
        }
    }
    Ok(how)
}

/// What is written for it.
fn writes(r: &Resource, v2: bool, keys: &[ProcessKey]) -> Result<(String, Vec<Write>), String> {
    let quota = CPU_PERIOD_US * CPU_PERCENT / 100;
    Ok(match (r.name, v2) {
        ("cpu", true) => {
            let write = ("cpu.max", format!("{quota} {CPU_PERIOD_US}"), format!("max {CPU_PERIOD_US}"));
            (format!("cpu {CPU_PERCENT} %"), vec![write])
        }
        ("cpu", false) => {
            let period = ("cpu.cfs_period_us", CPU_PERIOD_US.to_string(), CPU_PERIOD_US.to_string());
            (
                format!("cpu {CPU_PERCENT} %"),
                vec![period, ("cpu.cfs_quota_us", quota.to_string(), "-1".into())],
            )
        }
        ("memory", _) => {
            let most = memory(keys);
            let (file, lift) = if v2 { ("memory.high", "max") } else { ("memory.limit_in_bytes", "-1") };
            (format!("memory {} MiB", most >> 20), vec![(file, most.to_string(), lift.into())])
        }
        ("processes", _) => {
            let most = threads(keys);
            (format!("{most} threads"), vec![("pids.max", most.to_string(), "max".into())])
        }
        _ => {
            let disks = disks(Path::new("/sys/block"));
            if disks.is_empty() {
                return Err("this host has no disk".into());
            }
            let n = DISK_BYTES_PER_S;
            let one = |d: &String| match v2 {
                true => vec![("io.max", format!("{d} rbps={n} wbps={n}"), format!("{d} rbps=max wbps=max"))],
                false => vec![
                    ("blkio.throttle.read_bps_device", format!("{d} {n}"), format!("{d} 0")),
                    ("blkio.throttle.write_bps_device", format!("{d} {n}"), format!("{d} 0")),
                ],
            };
            (format!("disk {} KiB/s", n >> 10), disks.iter().flat_map(one).collect())
        }
    })
}

/// What they may use at most.
fn memory(keys: &[ProcessKey]) -> u64 {
    let used: u64 = keys.iter().map(|k| rss(k.tgid)).sum();
    (used * MEMORY_PERCENT / 100).max(MEMORY_LEAST)
}

/// How many threads they may have.
fn threads(keys: &[ProcessKey]) -> u64 {
    keys.iter().filter_map(|k| process::stat(k.tgid)).map(|s| s.threads).sum::<u64>() + MORE_THREADS
}

/// Passes a controller of v2 on to our cgroups.
fn enable(h: &Hierarchy, controller: &str) -> std::io::Result<()> {
    fs::create_dir_all(h.home())?;
    for dir in [h.top().to_owned(), h.home()] {
        super::group::write(&dir.join("cgroup.subtree_control"), &format!("+{controller}"))?;
    }
    Ok(())
}

/// Numbers of the disks, without what is backed by memory or another disk.
fn disks(block: &Path) -> Vec<String> {
    const OTHERS: [&str; 5] = ["loop", "ram", "zram", "dm-", "md"];
    let mut all: Vec<String> = fs::read_dir(block)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| !OTHERS.iter().any(|o| e.file_name().to_string_lossy().starts_with(o)))
        .filter_map(|e| Some(fs::read_to_string(e.path().join("dev")).ok()?.trim().to_owned()))
        .collect();
    all.sort();
    all
}

/// Resident set, bytes.
fn rss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = text.split_whitespace().nth(1).and_then(|p| p.parse().ok()).unwrap_or(0);
    pages * PAGE
}
