//! The kernel side: load, attach, and talk to the maps. The only user of `aya`.
//!
//! # Layout
//! - [`btf`]: member offsets
//! - [`hooks`]: which programs there are and how each is attached
//! - [`lsm`]: the same for BPF LSM
//! - [`guarded`]: what no server may touch
//! - [`policy`]: what trees are held to
//! - [`pins`]: what outlives the agent
//! - [`links`]: what is attached now
//! - [`probe`]: what bpf() permits
//! - [`profile`]: what the programs cost
//! - [`counts`]: draining the aggregation maps and the loss counters
//! - this module: loading, and the operations that the engine asks for

pub(crate) mod btf;
mod counts;
mod guarded;
mod hooks;
mod links;
mod lsm;
pub(crate) mod pins;
mod policy;
pub(crate) mod probe;
pub(crate) mod profile;

use std::{os::fd::OwnedFd, path::Path};

use abi::{Channel, Offsets, Proc, Settings, Tree};
use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    maps::{HashMap, Map, MapData, RingBuf},
    programs::{RawTracePoint, links::Link as _, raw_trace_point::RawTracePointLink},
};
use engine::output::{Coverage, CoverageState};
use zerocopy::IntoBytes as _;

pub(crate) use counts::{Counts, LOSSES, Work};
pub(crate) use links::Linked;
pub(crate) use policy::Unsure;

use crate::running::{self, Adopted, Known, Seen};

/// The programs, built by build.rs.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/toolwarden-bpf.o"));

/// Loaded programs and their maps. Dropping it unloads everything but what is pinned.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    /// Where io_uring hooks and `sys_exit` are attached, while they are.
    syscalls: Vec<RawTracePointLink>,
    procs: HashMap<MapData, u32, Proc>,
    trees: HashMap<MapData, u64, Tree>,
    channels: HashMap<MapData, u64, Channel>,
    modes: HashMap<MapData, u64, u64>,
    policy: policy::Maps,
    guarded: guarded::Maps,
    /// What each hook does for us.
    pub(crate) coverage: Vec<Coverage>,
    _cgroup: Option<OwnedFd>,
    /// `None`: nothing outlives this process.
    pins: Option<pins::Pins>,
    /// What is pinned stays.
    pub(crate) keep: bool,
}

/// A map by name and type.
fn take<M: TryFrom<Map>>(ebpf: &mut Ebpf, name: &str) -> Result<M>
where
    M::Error: std::error::Error + Send + Sync + 'static,
{
    let map = ebpf.take_map(name).ok_or_else(|| anyhow!("the BPF object has no map {name}"))?;
    M::try_from(map).with_context(|| format!("map {name} is of another type"))
}

/// What this kernel's BTF tells.
struct Layout {
    offsets: Offsets,
    /// Names of offsets that it lacks.
    absent: Vec<&'static str>,
    uring: hooks::Submission,
}

fn layout() -> Result<Layout> {
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    let raw = std::fs::read(PATH).with_context(|| {
        format!(
            "{PATH} cannot be read: Toolwarden needs a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian 11, Ubuntu \
             20.10, RHEL 8.2 and later have it) and /sys mounted"
        )
    })?;
    let btf = btf::Btf::parse(&raw).with_context(|| format!("{PATH} cannot be used"))?;
    let mut absent = Vec::new();
    let offsets = Offsets::resolve(|s, path| btf.offset(s, path), |field| absent.push(field));
    Ok(Layout { offsets, absent, uring: hooks::Submission::of(&btf) })
}

/// Offsets without which nothing works.
const REQUIRED_PREFIXES: [&str; 11] =
    ["task_", "files_", "fdt_", "file_", "inode_", "dentry_", "qstr_", "vfsmount_", "mount_", "regs_", "mm_"];

impl Kernel {
    /// Loads all programs and attaches those that are always on. `pins`: where an agent before this one may have left its own,
    /// whose place they take.
    pub(crate) fn load(settle_ns: u64, pins: Option<&Path>) -> Result<(Self, RingBuf<MapData>, Counts)> {
        let Layout { offsets, absent, uring } = layout()?;
        let optional = ["task_login_uid", "uring_fd", "uring_flags", "uring_opcode"];
        let missing: Vec<_> = absent
            .iter()
            .filter(|f| REQUIRED_PREFIXES.iter().any(|p| f.starts_with(p)) && !optional.contains(f))
            .collect();
        if !missing.is_empty() {
            return Err(anyhow!(
                "this kernel's BTF lacks {missing:?}: please report it with the output of `uname -r`"
            ));
        }
        let mut pins = pins.map(pins::Pins::look).transpose()?;
        let term = pins.as_ref().map_or(0, |p| p.term);
        let settings = Settings {
            settle_ns,
            agent: std::process::id(),
            term,
            mount_ns: guarded::mount_namespace(),
            _pad: 0,
        };
        let mut loader = EbpfLoader::new();
        loader.override_global("OFFSETS", offsets.as_bytes(), true);
        loader.override_global("SETTINGS", settings.as_bytes(), true);
        let onto = pins.as_ref().map(pins::Pins::onto).unwrap_or_default();
        for (name, path) in &onto {
            loader.map_pin_path(name, path.as_path());
        }
        let mut ebpf = loader.load(OBJECT).map_err(explain_load)?;
        if let Some(pins) = &mut pins {
            pins.hold(&ebpf)?;
        }
        let ring = take(&mut ebpf, "EVENTS")?;
        let counts = Counts::new(&mut ebpf)?;
        let mut kernel = Self {
            procs: take(&mut ebpf, "PROCS")?,
            trees: take(&mut ebpf, "TREES")?,
            channels: take(&mut ebpf, "CHANNELS")?,
            modes: take(&mut ebpf, "MODES")?,
            policy: policy::Maps::new(&mut ebpf, !onto.is_empty())?,
            guarded: guarded::Maps::new(&mut ebpf)?,
            ebpf,
            syscalls: Vec::new(),
            coverage: Vec::new(),
            _cgroup: None,
            pins,
            keep: false,
        };
        hooks::load_admit(&mut kernel.ebpf)?;
        hooks::load_jit(&mut kernel.ebpf)?;
        kernel.attach_always(&absent)?;
        kernel.load_syscalls(&absent, uring)?;
        kernel.attach_lsm(&absent)?;
        kernel.attach_against_agent()?;
        kernel.succeed()?;
        kernel.guard_objects();
        Ok((kernel, ring, counts))
    }

    fn cover(&mut self, hook: &str, state: CoverageState, because: Option<String>) {
        self.coverage.push(Coverage { hook: hook.to_owned(), state, because });
    }

    /// Whether the syscall hooks are attached.
    pub(crate) fn attached(&self) -> bool {
        !self.syscalls.is_empty()
    }

    /// Attaches the hooks that cost every process something.
    pub(crate) fn attach_syscalls(&mut self) -> Result<()> {
        for hook in hooks::SYSCALLS {
            let Some(program) = self.ebpf.program_mut(hook.program) else {
                continue;
            };
            let program: &mut RawTracePoint = program.try_into()?;
            if program.fd().is_err() {
                // It did not load; coverage has said so.
                continue;
            }
            match program.attach(hook.point) {
                Ok(link) => self.syscalls.push(program.take_link(link)?),
                Err(e) if hook.required => {
                    return Err(e).with_context(|| format!("cannot attach to {}", hook.point));
                }
                Err(_) => {}
            }
        }
        self.sync_pins_if_any();
        self.guard_objects();
        Ok(())
    }

    /// Detaches them again.
    pub(crate) fn detach_syscalls(&mut self) -> Result<()> {
        for link in self.syscalls.drain(..) {
            link.detach().context("cannot detach")?;
        }
        self.sync_pins_if_any();
        Ok(())
    }

    /// Lets the kernel forget a tree: its programs drop the processes as they meet them.
    pub(crate) fn forget(&mut self, tree: u64) {
        self.policy_forget(tree);
        // It may be gone already.
        let _gone = self.trees.remove(&tree);
    }

    /// Processes of a tree and of those that are nested in it: pid and start.
    pub(crate) fn members(&self, tree: u64) -> Vec<(u32, u64)> {
        let mut within = vec![tree];
        let parents: Vec<(u64, u64)> =
            self.trees.iter().filter_map(Result::ok).map(|(id, t)| (id, t.parent)).collect();
        let mut at = 0;
        while let Some(outer) = within.get(at).copied() {
            at += 1;
            let nested = parents.iter().filter(|(_, parent)| *parent == outer).map(|(id, _)| *id);
            let new: Vec<u64> = nested.filter(|id| !within.contains(id)).collect();
            within.extend(new);
        }
        let procs = self.procs.iter().filter_map(Result::ok);
        let own = procs.filter(|(_, p)| p.flags & abi::proc_flag::CLIENT == 0 && within.contains(&p.tree));
        own.map(|(pid, p)| (pid, p.start_ns)).collect()
    }

    /// What is tracked now.
    pub(crate) fn known(&self) -> Known {
        let procs = self.procs.iter().filter_map(Result::ok);
        let own = procs.filter(|(_, p)| p.flags & abi::proc_flag::CLIENT == 0);
        Known {
            procs: own.map(|(pid, p)| (pid, (p.tree, p.stdin, p.stdout))).collect(),
            trees: self
                .trees
                .iter()
                .filter_map(Result::ok)
                .map(|(id, t)| (id, (t.request, t.reply)))
                .collect(),
        }
    }

    /// Tracks a process that ran before. False when it has ended, or was found otherwise meanwhile.
    pub(crate) fn adopt(&mut self, a: &Adopted, now_ns: u64) -> Result<bool> {
        const NOEXIST: u64 = 1;
        let Seen { pid, parent: _, start_ns, stdin, stdout } = a.seen;
        self.may_be_held_elsewhere(pid, start_ns);
        if a.root {
            let parent = a.parent_tree.unwrap_or(0);
            let tree = Tree { epoch: 0, since_ns: now_ns, request: stdin, reply: stdout, parent };
            if let Err(e) = self.trees.insert(a.tree, tree, NOEXIST) {
                tracing::warn!(pid, "a process that runs already cannot be watched: {e}");
                return Ok(false);
            }
            for channel in [stdin, stdout] {
                // It may be there already: another tree shares it.
                let _there = self.channels.insert(channel, Channel::default(), NOEXIST);
            }
        }
        if a.root {
            self.policy_old(a.tree);
        }
        let proc = Proc { tree: a.tree, start_ns, stdin, stdout, flags: 0, born: 0 };
        // An exec that makes a tree of its own may come in between: then the process is there.
        let mut tracked = self.procs.insert(pid, proc, NOEXIST).is_ok();
        if tracked {
            hooks::admit(&mut self.ebpf, pid)?;
            if !running::is_alive(&a.seen) {
                // It ended unseen. Its byte of the filter is cleared by whoever has its number next.
                let _gone = self.procs.remove(&pid);
                tracked = false;
            }
        }
        if !tracked && a.root {
            let _gone = self.trees.remove(&a.tree);
        }
        Ok(tracked)
    }

    /// Sets how much of a channel is captured.
    pub(crate) fn set_channel(&mut self, channel: u64, mode: u64) {
        if let Err(e) = self.modes.insert(channel, mode, 0) {
            tracing::warn!(channel, "cannot set how a channel is captured: {e}");
        }
    }

    /// Forgets a channel.
    pub(crate) fn forget_channel(&mut self, channel: u64) {
        // They may be gone already.
        let _gone = (self.channels.remove(&channel), self.modes.remove(&channel));
    }

    /// Captures what a client writes into channels under proof.
    pub(crate) fn prove(&mut self, client: u32) {
        const NOEXIST: u64 = 1;
        let proc = Proc { flags: abi::proc_flag::CLIENT, ..Proc::default() };
        // A client that is tracked for itself stays as it is: its servers' forged lines are never
        // proved, and neither are the real ones; the server's `forging` line has said so.
        if self.procs.insert(client, proc, NOEXIST).is_ok()
            && let Err(e) = hooks::admit(&mut self.ebpf, client)
        {
            tracing::warn!(client, "cannot watch what the client writes: {e:#}");
        }
    }

    /// Names and miss counts of all loaded programs.
    pub(crate) fn misses(&self) -> u64 {
        hooks::misses(&self.ebpf)
    }
}

/// Turns a load error into a sentence with a remedy.
fn explain_load(e: aya::EbpfError) -> anyhow::Error {
    let text = format!("{:#}", anyhow!(e));
    if text.contains("Operation not permitted") || text.contains("os error 1)") {
        return anyhow!(
            "the kernel refuses bpf(): run as root, or with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_RESOURCE; in \
             a container, allow the bpf system call ({text})"
        );
    }
    if text.contains("Function not implemented") {
        return anyhow!("this kernel has no bpf() system call: CONFIG_BPF_SYSCALL=y is needed ({text})");
    }
    anyhow!("cannot load the BPF object: {text}")
}
