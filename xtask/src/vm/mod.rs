//! Other kernels: the agent and the end-to-end tests in emulated machines.
//!
//! # Layout
//! - [`kernels`]: which kernels there are, and fetching them
//! - [`programs`]: the static programs that run in the guests
//! - [`guest`]: the root that a guest boots
//! - [`systemd`]: the disk of a guest that systemd runs
//! - [`boot`]: one boot, its marker, what it said
//! - [`insns`]: verified instructions of each BPF program, kept and compared

mod boot;
mod guest;
mod insns;
pub(crate) mod kernels;
mod programs;
mod systemd;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    machine::{self, Machine},
    setup,
    steps::{Steps, seconds},
    vm::{
        boot::Outcome,
        guest::{APPEND, First, Job},
        insns::Insns,
        kernels::Kernel,
    },
    workspace::Workspace,
};

/// How many times slower than a real machine an emulated one is taken to be. Eyeballed: system calls are 5 times
/// slower, tight loops 20 times; the tests' time limits have room for three times as much anyway.
const SLOWNESS: u32 = 4;

/// Tests that are left out where none is named, and why.
const NOT_HERE: [(&str, &str); 11] = [
    ("innocents::", "they need Node.js and a day in emulation"),
    ("real_servers::", "they need Node.js and Python"),
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

/// What the stage `kernels` of `cargo xtask test` runs in each guest: that all programs load, and of each way to contain one test. Two
/// kernels take about 4 minutes on two processors.
const SMOKE: [&str; 8] = [
    "hooks::",
    "contain::a_cut_stops_what_flows",
    "contain::denied_acts_fail_and_permitted_ones_do_not",
    "contain::rights_live_during_the_call",
    "contain::sockets_of_others",
    "doctor::the_doctor_proves_every_hook",
    "respond::people_freeze_release_and_end_servers",
    "story::",
];

/// What it runs where systemd is process 1.
const SMOKE_SYSTEMD: [&str; 1] = ["systemd::throttled_in_a_scope"];

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

/// One row of the table at the end.
struct Row {
    name: &'static str,
    release: String,
    outcome: Outcome,
}

/// A part of it that is short enough for every change: two kernels, and one of them under systemd.
pub(crate) fn smoke(workspace: &Workspace) -> Result<()> {
    println!(
        "left out here: all but {}",
        SMOKE.into_iter().chain(SMOKE_SYSTEMD).collect::<Vec<_>>().join(", ")
    );
    println!(
        "left out here: 5.10 and the newest kernel; `cargo xtask vm --all` runs everything on all of them"
    );
    let args = |tests: &[&str]| tests.iter().map(|&t| t.to_owned()).collect();
    run(workspace, &Vm { args: args(&SMOKE), ..Vm::default() })?;
    let kernels = vec![Kernel::V6_12];
    run(workspace, &Vm { kernels, systemd: true, args: args(&SMOKE_SYSTEMD), ..Vm::default() })
}

pub(crate) fn run(workspace: &Workspace, asked: &Vm) -> Result<()> {
    let started = Instant::now();
    let kernels = asked.kernels();
    if asked.program.is_none() {
        setup::run(workspace, &setup::BUILD)?;
    }
    let mut steps = Steps::new(workspace, 2 + kernels.len())?;
    steps.begin("emulator and kernels");
    let qemu = machine::emulator(workspace, &steps, "booting other kernels")?;
    let busybox = kernels::busybox(workspace, &steps)?;
    let mut unpacked = Vec::new();
    for &kernel in &kernels {
        unpacked.push((kernel, kernels::fetch(workspace, &steps, kernel)?));
    }
    let first = if asked.systemd { First::Systemd } else { First::Busybox };
    let mut drives = Vec::new();
    if first == First::Systemd {
        let image = systemd::image(workspace, &steps)?;
        drives.push(format!("file={},format=raw,if=virtio,snapshot=on", image.display()));
    }
    steps.begin("static programs for the guests");
    let job = job(workspace, &steps, asked)?;
    let mut insns = Insns::read(workspace)?;
    let mut rows = Vec::new();
    for (kernel, unpacked) in unpacked {
        steps.begin(format_args!("{} ({})", kernel.name(), unpacked.release));
        let dir = workspace.target.join("vm/runs").join(kernel.name());
        fs::create_dir_all(&dir)?;
        let initrd = dir.join("root.cpio");
        fs::write(&initrd, guest::root(&busybox, &unpacked, first, &job)?.finish())?;
        let machine = Machine {
            qemu: qemu.clone(),
            kernel: unpacked.kernel.clone(),
            initrd,
            memory_mb: 1536,
            append: APPEND.to_owned(),
            drives: drives.clone(),
            console: dir.join("console.log"),
        };
        let outcome = boot::run(&steps, &machine, &dir)?;
        if first == First::Systemd {
            outcome.state.check()?;
        }
        insns.tell(&steps, kernel, &outcome.insns, asked.update);
        rows.push(Row { name: kernel.name(), release: unpacked.release, outcome });
    }
    if asked.update {
        insns.write(workspace)?;
    }
    report(&rows);
    println!("in {}", seconds(started.elapsed()));
    let bad: Vec<&str> = rows.iter().filter(|row| row.outcome.code != 0).map(|row| row.name).collect();
    ensure!(bad.is_empty(), "failed on {}; all that was said: target/vm/runs/*/output.log", bad.join(", "));
    let grown = insns.grown();
    ensure!(grown.is_empty(), "the verifier works much more than before: {}", grown.join(", "));
    Ok(())
}

fn job(workspace: &Workspace, steps: &Steps, asked: &Vm) -> Result<Job> {
    if let Some(program) = &asked.program {
        let name = program.file_name().context("the program has no name")?.to_string_lossy();
        let name = format!("t/{name}");
        let files = vec![(name.clone(), programs::stripped(workspace, program)?)];
        return Ok(Job { program: format!("/{name}"), args: asked.args.clone(), files });
    }
    let mut args: Vec<String> = ["--test-threads=1", "--show-output"].map(str::to_owned).to_vec();
    if asked.args.is_empty() {
        for (tests, why) in NOT_HERE {
            steps.note(format_args!("without {tests}: {why}"));
            args.extend(["--skip".to_owned(), tests.to_owned()]);
        }
    }
    args.extend(asked.args.iter().cloned());
    Ok(Job { program: "/t/deps/e2e".to_owned(), args, files: programs::build(workspace)? })
}

fn report(rows: &[Row]) {
    println!("\n{:<8}{:<28}{:>8}{:>8}{:>10}  ", "kernel", "", "passed", "failed", "time");
    for Row { name, release, outcome } in rows {
        let failed = if outcome.failed.is_empty() { String::new() } else { outcome.failed.join(", ") };
        println!(
            "{name:<8}{release:<28}{:>8}{:>8}{:>10}  {failed}",
            outcome.passed,
            outcome.failed.len(),
            seconds(outcome.took)
        );
    }
}
