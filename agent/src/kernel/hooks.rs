//! Which programs there are, how each is attached, and what it means when one cannot be.

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, Program, ProgramError,
        RawTracePoint, RawTracePointRunOptions, TestRun as _,
    },
};
use engine::output::CoverageState;

use super::{
    Kernel,
    btf::{Argument, Btf},
};

/// A raw tracepoint and the program for it.
pub(super) struct Point {
    pub(super) program: &'static str,
    pub(super) point: &'static str,
    pub(super) required: bool,
}

pub(super) const LIFECYCLE: [Point; 3] = [
    Point { program: "fork", point: "sched_process_fork", required: true },
    Point { program: "exec", point: "sched_process_exec", required: true },
    Point { program: "exit", point: "sched_process_exit", required: true },
];

/// Attached while a tree is tracked: any syscall tracepoint slows every process.
pub(super) const SYSCALLS: [Point; 4] = [
    Point { program: "sys_exit", point: "sys_exit", required: true },
    Point { program: "uring_submit", point: "io_uring_submit_req", required: false },
    Point { program: "uring_submit_old", point: "io_uring_submit_sqe", required: false },
    Point { program: "uring_submit_oldest", point: "io_uring_submit_sqe", required: false },
];

/// Where a kernel's tracepoint at io_uring's submission tells what is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Submission {
    /// The first argument is the request: since 6.3 under the name `io_uring_submit_req`.
    Request,
    /// The same since 5.19, under the older name.
    RequestOld,
    /// The second argument is the opcode, and the request is not told: before 5.13.
    Opcode,
    Unknown,
}

impl Submission {
    pub(super) fn of(btf: &Btf<'_>) -> Self {
        let request = Argument::Struct(b"io_kiocb");
        match btf.arguments("io_uring_submit_req").as_deref() {
            Some([first, ..]) if *first == request => return Self::Request,
            _ => {}
        }
        match btf.arguments("io_uring_submit_sqe").as_deref() {
            Some([first, ..]) if *first == request => Self::RequestOld,
            Some([_, Argument::Integer(1), ..]) => Self::Opcode,
            _ => Self::Unknown,
        }
    }

    /// The program for it.
    fn program(self) -> Option<&'static str> {
        match self {
            Self::Request => Some("uring_submit"),
            Self::RequestOld => Some("uring_submit_old"),
            Self::Opcode => Some("uring_submit_oldest"),
            Self::Unknown => None,
        }
    }
}

const SOCKET_ADDRESS: [&str; 6] = ["connect4", "connect6", "sendmsg4", "sendmsg6", "bind4", "bind6"];
const SOCKET: [&str; 2] = ["sock_create", "sock_release"];
const PACKET: [(&str, CgroupSkbAttachType); 2] =
    [("egress", CgroupSkbAttachType::Egress), ("ingress", CgroupSkbAttachType::Ingress)];

/// Programs that go on without the agent while something is denied, if they are attached.
pub(super) fn outliving() -> impl Iterator<Item = &'static str> {
    let packet = PACKET.iter().map(|(name, _)| *name);
    let lifecycle = LIFECYCLE.iter().map(|p| p.program);
    let network = SOCKET_ADDRESS.into_iter().chain(SOCKET).chain(packet);
    network.chain(lifecycle).chain(["sys_exit"]).chain(super::lsm::programs())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).ok_or_else(|| anyhow!("the BPF object has no program {name}"))
}

/// The root of the v2 hierarchy: where it is mounted, else a private mount that nobody else sees.
pub(super) fn cgroup_root() -> Result<OwnedFd> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("/proc is not mounted")?;
    // "cgroup2 /sys/fs/cgroup cgroup2 rw,... 0 0"; a bind mount of a part has another root, so the
    // shortest path is taken.
    let path = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (path, kind) = (words.nth(1)?, words.next()?);
            (kind == "cgroup2").then_some(path)
        })
        .min_by_key(|path| path.len());
    if let Some(path) = path {
        return Ok(File::open(path).with_context(|| format!("cannot open {path}"))?.into());
    }
    let context = rustix::mount::fsopen("cgroup2", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC)
        .context("cgroup2 is not mounted and cannot be: mount -t cgroup2 none /sys/fs/cgroup")?;
    rustix::mount::fsconfig_create(context.as_fd()).context("cannot create a private cgroup2 mount")?;
    rustix::mount::fsmount(
        context.as_fd(),
        rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC,
        rustix::mount::MountAttrFlags::empty(),
    )
    .context("cannot mount cgroup2 privately")
}

/// The verifier's log is for us, not for the operator: first and last line tell most.
pub(super) fn short(e: &ProgramError) -> String {
    let text = format!("{e:?}");
    let n = text.chars().count();
    if n < 1000 {
        return text;
    }
    text.chars().take(200).chain(" ... ".chars()).chain(text.chars().skip(n - 600)).collect()
}

impl Kernel {
    /// Lifecycle and network programs: they cost other processes next to nothing.
    pub(super) fn attach_always(&mut self, absent: &[&str]) -> Result<()> {
        for p in &LIFECYCLE {
            let raw: &mut RawTracePoint = program(&mut self.ebpf, p.program)?.try_into()?;
            raw.load().with_context(|| format!("cannot load the program for {}", p.point))?;
            raw.attach(p.point).with_context(|| format!("cannot attach to {}", p.point))?;
        }
        self.cover("lifecycle", CoverageState::Observing, None);
        let root = match cgroup_root() {
            Ok(root) => root,
            Err(e) => {
                self.cover("network", CoverageState::Blind, Some(format!("{e:#}")));
                return Ok(());
            }
        };
        for name in SOCKET_ADDRESS {
            let p: &mut CgroupSockAddr = program(&mut self.ebpf, name)?.try_into()?;
            let done = p.load().and_then(|()| p.attach(root.as_fd(), CgroupAttachMode::Single).map(drop));
            self.network(name, CoverageState::Enforcing, done);
        }
        for name in SOCKET {
            let p: &mut CgroupSock = program(&mut self.ebpf, name)?.try_into()?;
            let done = p.load().and_then(|()| p.attach(root.as_fd(), CgroupAttachMode::Single).map(drop));
            self.network(name, CoverageState::Observing, done);
        }
        for (name, direction) in PACKET {
            let p: &mut CgroupSkb = program(&mut self.ebpf, name)?.try_into()?;
            let done =
                p.load().and_then(|()| p.attach(root.as_fd(), direction, CgroupAttachMode::Single).map(drop));
            self.network(name, CoverageState::Enforcing, done);
        }
        if absent.iter().any(|f| f.starts_with("unix_")) {
            let because = format!("this kernel's BTF lacks {absent:?}; names are the caller's arguments");
            self.cover("unix-names", CoverageState::Blind, Some(because));
        }
        self._cgroup = Some(root);
        Ok(())
    }

    fn network(&mut self, name: &str, works: CoverageState, done: Result<(), ProgramError>) {
        let hook = format!("cgroup/{name}");
        match done {
            Ok(()) => self.cover(&hook, works, None),
            Err(e) => self.cover(&hook, CoverageState::Blind, Some(short(&e))),
        }
    }

    /// Loads the programs that are attached while a tree is tracked.
    pub(super) fn load_syscalls(&mut self, absent: &[&str], uring: Submission) -> Result<()> {
        let raw: &mut RawTracePoint = program(&mut self.ebpf, "sys_exit")?.try_into()?;
        raw.load().context("cannot load the program for sys_exit")?;
        self.cover("syscalls", CoverageState::Observing, None);
        match self.load_uring(absent, uring) {
            Ok(limits) => self.cover("io_uring", CoverageState::Observing, Some(limits.to_owned())),
            Err(because) => self.cover("io_uring", CoverageState::Blind, Some(because)),
        }
        Ok(())
    }

    /// What is not seen of io_uring although its hook works; the error is why it does not.
    fn load_uring(&mut self, absent: &[&str], uring: Submission) -> Result<&'static str, String> {
        let point = uring.program().and_then(|name| SYSCALLS.iter().find(|p| p.program == name));
        let usable = uring == Submission::Opcode || !absent.contains(&"uring_opcode");
        let Some(point) = point.filter(|_| usable) else {
            return Err("no tracepoint at submission: set-up is seen, operations are not".to_owned());
        };
        let why = |e: ProgramError| format!("{}: {}", point.point, short(&e));
        let found = program(&mut self.ebpf, point.program).map_err(|e| format!("{e:#}"))?;
        let raw: &mut RawTracePoint = found.try_into().map_err(why)?;
        raw.load().map_err(why)?;
        // It is attached while a tree is tracked only: try it now, and let go again.
        let link = raw.attach(point.point).map_err(why)?;
        raw.detach(link).map_err(why)?;
        Ok(match uring {
            Submission::Opcode => {
                "operations only: files opened by a ring have no path, and a ring that moves a channel's bytes is not \
                 noticed"
            }
            _ => "operations only: files opened by a ring have no path",
        })
    }
}

/// Signals and cgroups that reach the agent's processes: told where nothing denies them.
const AGAINST_AGENT: [(&str, &str); 2] = [("signalled", "signal_generate"), ("moved", "cgroup_attach_task")];

impl Kernel {
    /// Attaches what tells of acts against the agent. A kernel that does not take it is told once.
    pub(super) fn attach_against_agent(&mut self) -> Result<()> {
        for (name, point) in AGAINST_AGENT {
            let raw: &mut RawTracePoint = program(&mut self.ebpf, name)?.try_into()?;
            if let Err(e) = raw.load().and_then(|()| raw.attach(point).map(drop)) {
                self.cover(&format!("tampering/{point}"), CoverageState::Blind, Some(short(&e)));
            }
        }
        Ok(())
    }
}

/// Loads the program that puts a process into the filter.
pub(super) fn load_admit(ebpf: &mut Ebpf) -> Result<()> {
    let raw: &mut RawTracePoint = program(ebpf, "admit")?.try_into()?;
    raw.load().context("cannot load the program that admits clients")
}

/// Runs it.
pub(super) fn admit(ebpf: &mut Ebpf, tgid: u32) -> Result<()> {
    let raw: &mut RawTracePoint = program(ebpf, "admit")?.try_into()?;
    let mut options = RawTracePointRunOptions::new();
    options.args[0] = u64::from(tgid);
    raw.test_run(options).context("cannot run the program that admits clients")?;
    Ok(())
}

/// Loads the program that opens and closes calls on user space's word.
pub(super) fn load_jit(ebpf: &mut Ebpf) -> Result<()> {
    let raw: &mut RawTracePoint = program(ebpf, "calls")?.try_into()?;
    raw.load().context("cannot load the program that opens calls")
}

/// Runs it: tree, id, bit or order, settling time, time. Gives what an order asks for.
pub(super) fn jit(ebpf: &mut Ebpf, arguments: [u64; 5]) -> Result<u32> {
    let raw: &mut RawTracePoint = program(ebpf, "calls")?.try_into()?;
    let mut options = RawTracePointRunOptions::new();
    options.args[..5].copy_from_slice(&arguments);
    Ok(raw.test_run(options).context("cannot run the program that opens calls")?.return_value)
}

/// Times that programs were skipped because they were already running on that CPU.
pub(super) fn misses(ebpf: &Ebpf) -> u64 {
    ebpf.programs()
        .filter_map(|(_, program)| {
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let line = info.lines().find_map(|l| l.strip_prefix("recursion_misses:"))?;
            line.trim().parse::<u64>().ok()
        })
        .sum()
}
