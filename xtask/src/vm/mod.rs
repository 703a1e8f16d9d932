//! Other kernels: the agent and the end-to-end tests in emulated machines.
//!
//! # Layout
//! - [`stage`]: what `cargo xtask test` runs
//! - [`parts`]: what guests are made of; [`kernels`]: which kernels there are
//! - [`programs`]: the static programs that run in the guests
//! - [`guest`]: the root that a guest boots
//! - [`systemd`]: the disk of a guest that systemd runs
//! - [`boot`]: one boot, its marker, what it said
//! - [`insns`]: verified instructions of each BPF program, kept and compared

mod boot;
mod guest;
mod insns;
pub(crate) mod kernels;
mod parts;
pub(crate) mod programs;
pub(crate) mod stage;
mod systemd;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;

use crate::{
    machine::Machine,
    package, setup,
    steps::{Steps, seconds},
    vm::{
        boot::Outcome,
        guest::{APPEND, File, First, Job},
        insns::Insns,
        kernels::Kernel,
        parts::Parts,
    },
    workspace::Workspace,
};

/// How many times slower than a real machine an emulated one is taken to be. Eyeballed: system calls are 5 times
/// slower, tight loops 20 times; the tests' time limits have room for three times as much anyway.
const SLOWNESS: u32 = 4;

/// Where the end-to-end tests are in a guest.
const TESTS: &str = "/t/deps/e2e";

/// Where the Debian package is in a guest that systemd runs.
const PACKAGE: &str = "t/toolwarden.deb";

/// Tests that are left out where none is named, and why.
const NOT_HERE: [(&str, &str); 13] = [
    ("innocents::", "they need Node.js and a day in emulation"),
    ("real_servers::", "they need Node.js and Python"),
    ("receivers::", "they need rsyslog, systemd's journal, OpenSSL and Tenzir"),
    ("formats::", "they need Python and a validator of OCSF"),
    ("pipelines::launchers", "it needs Node.js and Python"),
    ("running::running_after_a_long_silence", "it waits for a minute"),
    ("running::running_while_it_forks", "it forks as fast as it can, which takes minutes in emulation"),
    (
        "running::running_across_a_restart",
        "what it says beyond the other tests of `running` does not rest on the kernel",
    ),
    ("daemon::daily_use", "what verbs do does not rest on the kernel"),
    ("kept::", "what is stored and learned does not rest on the kernel"),
    ("flood::", "it asserts what a real processor does in 30 s"),
    ("busy::", "it makes thousands of calls"),
    ("bad_input::garbage", "it moves a gigabyte"),
];

/// Which kernels, and what runs there.
#[derive(Debug, Default, Args)]
pub(crate) struct Vm {
    /// Kernels; 6.1 and 6.12 when none is given
    #[arg(value_enum)]
    kernels: Vec<Kernel>,
    /// Every kernel of the matrix
    #[arg(long, conflicts_with = "kernels")]
    all: bool,
    /// In a guest that systemd runs, with all controllers of cgroup v2
    #[arg(long)]
    systemd: bool,
    /// Write the verified instruction counts into tests/kernels/insns.toml instead of comparing them
    #[arg(long)]
    update: bool,
    /// A static program to run instead of the end-to-end tests; what follows `--` are its arguments
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Names of tests, or parts of them, and options of the test program
    #[arg(last = true)]
    args: Vec<String>,
}

impl Vm {
    fn kernels(&self) -> Vec<Kernel> {
        match (self.all, self.kernels.is_empty()) {
            (true, _) => Kernel::ALL.to_vec(),
            (false, true) => Kernel::USUAL.to_vec(),
            (false, false) => self.kernels.clone(),
        }
    }
}

/// One machine to boot, and what to run there.
#[derive(Debug, Clone)]
struct Guest {
    kernel: Kernel,
    first: First,
    args: Vec<String>,
}

impl Guest {
    fn name(&self) -> String {
        match self.first {
            First::Busybox => self.kernel.name().to_owned(),
            First::Systemd => format!("{}-systemd", self.kernel.name()),
        }
    }
}

/// What became of one: a row of the table at the end.
struct Done {
    kernel: Kernel,
    name: String,
    release: String,
    outcome: Outcome,
}

pub(crate) fn run(workspace: &Workspace, asked: &Vm) -> Result<()> {
    if asked.program.is_none() {
        setup::run(workspace, &setup::BUILD)?;
        if asked.systemd {
            setup::run(workspace, &setup::PACKAGER_ONLY)?;
        }
    }
    let first = if asked.systemd { First::Systemd } else { First::Busybox };
    let args = || asked.args.clone();
    let guests: Vec<Guest> =
        asked.kernels().into_iter().map(|kernel| Guest { kernel, first, args: args() }).collect();
    let mut steps = Steps::new(workspace, 2 + guests.len())?;
    let done = run_guests(workspace, &mut steps, &guests, asked.program.as_deref(), 1)?;
    conclude(workspace, &steps, &done, asked.update)
}

/// Boots them, at most `at_once` at a time; those with systemd one by one, for they measure what a share of a
/// processor is.
fn run_guests(
    workspace: &Workspace,
    steps: &mut Steps,
    guests: &[Guest],
    program: Option<&Path>,
    at_once: usize,
) -> Result<Vec<Done>> {
    steps.begin("emulator and kernels");
    let kernels: Vec<Kernel> = guests.iter().map(|g| g.kernel).collect();
    let parts = Parts::fetch(workspace, steps, &kernels, guests.iter().any(|g| g.first == First::Systemd))?;
    steps.begin("static programs for the guests");
    let (program, files) = match program {
        Some(program) => given(workspace, program)?,
        None => (TESTS.to_owned(), programs::build(workspace)?),
    };
    let package = match guests.iter().any(|g| g.first == First::Systemd) && program == TESTS {
        true => Some((PACKAGE.to_owned(), fs::read(package::make(workspace)?)?)),
        false => None,
    };
    let job = |steps: &Steps, guest: &Guest| Job {
        args: if program == TESTS { test_args(steps, &guest.args) } else { guest.args.clone() },
        program: program.clone(),
        files: match guest.first {
            First::Busybox => files.clone(),
            First::Systemd => files.iter().chain(&package).cloned().collect(),
        },
    };
    let mut done = Vec::new();
    let mut rest = guests;
    while let Some(next) = rest.first() {
        let alike = rest.iter().take(at_once).take_while(|g| g.first == First::Busybox).count();
        let (now, later) = rest.split_at(if next.first == First::Systemd { 1 } else { alike });
        rest = later;
        let mut machines = Vec::new();
        for guest in now {
            let release = &parts.kernel(guest.kernel)?.release;
            steps.begin(format_args!("{} ({release})", guest.name()));
            machines.push((guest, machine(workspace, &parts, guest, &job(steps, guest))?));
        }
        let steps: &Steps = steps;
        let outcomes: Vec<Result<Outcome>> = thread::scope(|scope| {
            let running: Vec<_> = machines
                .iter()
                .map(|(guest, machine)| {
                    scope.spawn(|| boot::run(steps, machine, &guest.name(), &place(workspace, guest)))
                })
                .collect();
            let ended = running.into_iter().map(|r| r.join());
            ended.map(|r| r.unwrap_or_else(|_panic| Err(anyhow!("the thread of a guest panicked")))).collect()
        });
        for (guest, outcome) in now.iter().zip(outcomes) {
            let outcome = outcome.with_context(|| guest.name())?;
            if guest.first == First::Systemd {
                outcome.state.check()?;
            }
            let release = parts.kernel(guest.kernel)?.release.clone();
            done.push(Done { kernel: guest.kernel, name: guest.name(), release, outcome });
        }
    }
    Ok(done)
}

/// Where a guest's files are kept.
fn place(workspace: &Workspace, guest: &Guest) -> PathBuf {
    workspace.target.join("vm/runs").join(guest.name())
}

fn machine(workspace: &Workspace, parts: &Parts, guest: &Guest, job: &Job) -> Result<Machine> {
    let dir = place(workspace, guest);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let kernel = parts.kernel(guest.kernel)?;
    let initrd = dir.join("root.cpio");
    fs::write(&initrd, guest::root(&parts.busybox, kernel, guest.first, job)?.finish())?;
    let disk = parts.disk.as_ref().filter(|_| guest.first == First::Systemd);
    let drives = disk.map(|image| format!("file={},format=raw,if=virtio,snapshot=on", image.display()));
    Ok(Machine {
        qemu: parts.qemu.clone(),
        kernel: kernel.kernel.clone(),
        initrd,
        memory_mb: 1536,
        append: APPEND.to_owned(),
        drives: drives.into_iter().collect(),
        console: dir.join("console.log"),
        reboots: guest.first == First::Systemd,
    })
}

/// Compares what the verifiers told, prints the table, and fails where something failed.
fn conclude(workspace: &Workspace, steps: &Steps, done: &[Done], update: bool) -> Result<()> {
    let mut insns = Insns::read(workspace)?;
    for Done { kernel, outcome, .. } in done {
        insns.tell(steps, *kernel, &outcome.insns, update);
    }
    if update {
        insns.write(workspace)?;
    }
    for Done { name, outcome, .. } in done {
        for line in &outcome.said {
            println!("{name}: {line}");
        }
    }
    report(done);
    let bad: Vec<&str> = done.iter().filter(|d| d.outcome.code != 0).map(|d| d.name.as_str()).collect();
    ensure!(bad.is_empty(), "failed on {}; all that was said: target/vm/runs/*/output.log", bad.join(", "));
    insns.check()
}

/// A program of the person's own: where it goes, and what goes there.
fn given(workspace: &Workspace, program: &Path) -> Result<(String, Vec<File>)> {
    let name = program.file_name().context("the program has no name")?.to_string_lossy();
    let name = format!("t/{name}");
    Ok((format!("/{name}"), vec![(name, programs::stripped(workspace, program)?)]))
}

fn test_args(steps: &Steps, asked: &[String]) -> Vec<String> {
    let mut args: Vec<String> = ["--test-threads=1", "--show-output"].map(str::to_owned).to_vec();
    if asked.is_empty() {
        for (tests, why) in NOT_HERE {
            steps.note(format_args!("without {tests}: {why}"));
            args.extend(["--skip".to_owned(), tests.to_owned()]);
        }
    }
    args.extend(asked.iter().cloned());
    args
}

fn report(done: &[Done]) {
    println!("\n{:<14}{:<28}{:>8}{:>8}{:>12}  ", "guest", "", "passed", "failed", "time");
    for Done { kernel: _, name, release, outcome } in done {
        let failed = if outcome.failed.is_empty() { String::new() } else { outcome.failed.join(", ") };
        println!(
            "{name:<14}{release:<28}{:>8}{:>8}{:>12}  {failed}",
            outcome.passed,
            outcome.failed.len(),
            seconds(outcome.took)
        );
    }
}
