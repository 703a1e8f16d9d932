//! Whether the agent can do its work here: every hook proved with a real act, every reason with its remedy.
//!
//! # Layout
//! - [`hooks`]: the hooks, what proves each, and the ladders of providers
//! - [`canary`]: does the acts, and hears of them
//! - [`classify`]: what a hook is worth; what can be enforced
//! - `lsm`: BPF LSM; `host`: kernel and capabilities; `mounts`: file systems and cgroups; `place`: the agent's own
//!   places, rules, clock
//! - [`report`]: what is said
//!
//! The canary and the classification are the agent's as well: at its start, and from time to time.

pub(crate) mod canary;
pub(crate) mod classify;
pub(crate) mod hooks;
mod host;
mod lsm;
mod mounts;
mod place;
mod report;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use engine::output::{Coverage, CoverageState};
use rustix::thread::CapabilitySet;

use crate::{
    commands::{args::Format, show},
    control, guard,
    kernel::Kernel,
    print,
};
use canary::{Canary, Proof};
use classify::{Verdict, classify, deniable};
use hooks::{HOOKS, LADDERS, LSM};
use report::{Check, HookReport, LadderReport, Mark, Outcome, Report, Rung, State};

/// The canary is looked at this often.
const LOOK: Duration = Duration::from_millis(1);
/// As `toolwarden run` has it by default; the canary replies to nothing.
const SETTLE_NS: u64 = 20_000_000;

/// What the doctor is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// How to print (docs/schema/doctor.schema.json; as ndjson each hook, ladder and check is a line, the outcome the last)
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// The agent's state directory
    #[arg(long, value_name = "DIR", default_value = "/var/lib/toolwarden")]
    pub(crate) state_dir: PathBuf,
    /// The agent's rule files: /etc/toolwarden/rules.d when it exists
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,
    /// The agent's control socket
    #[arg(long, value_name = "PATH", default_value = control::SOCKET)]
    pub(crate) control: PathBuf,
    /// The agent's lock
    #[arg(long, value_name = "PATH", default_value = guard::PATH)]
    pub(crate) guard: PathBuf,
    /// Where the agent pins what outlives it, if not below /sys/fs/bpf
    #[arg(long, value_name = "DIR")]
    pub(crate) pin_dir: Option<PathBuf>,
}

/// Examines, prints, and tells in the exit code how it is.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let report = examine(options);
    let mut out = anstream::stdout().lock();
    let printed = match options.format {
        Format::Table => report.print(&mut out),
        format => {
            let data = serde_json::to_value(&report).map_err(io::Error::from);
            data.and_then(|d| show::machine(format == Format::Json, &d, &report::rows(&d), &mut out))
        }
    };
    printed.and_then(|()| out.flush()).context("cannot write to standard output")?;
    Ok(ExitCode::from(match report.outcome {
        Outcome::Ok => 0,
        Outcome::Degraded => 1,
        Outcome::Failed => 2,
    }))
}

/// What was tried of the hooks.
struct Tried {
    coverage: Vec<Coverage>,
    proof: Proof,
    /// Why nothing was loaded.
    failed: Option<String>,
}

fn examine(options: &Options) -> Report {
    let clock = place::realtime_minus_boot();
    let mut checks = Vec::new();
    host::checks(options.pin_dir.as_deref(), &mut checks);
    let tried = try_hooks();
    if let Some(why) = &tried.failed {
        checks.push(load_check(why));
    }
    host::limits(tried.failed.is_none(), &mut checks);
    let hooks: Vec<HookReport> = HOOKS.iter().map(|hook| report_of(hook, &tried)).collect();
    let (lsm, check) = lsm::examine();
    checks.push(check);
    mounts::checks(&mut checks);
    place::checks(options, clock, &mut checks);
    let ladders = LADDERS.iter().map(|ladder| ladder_of(ladder, &lsm, &hooks, &tried)).collect::<Vec<_>>();
    Report {
        version: report::VERSION,
        outcome: report::outcome(&hooks, &ladders, &checks),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        hooks,
        ladders,
        enforceable: deniable(&tried.coverage).into_iter().collect(),
        checks,
    }
}

/// Only root can tell what root may do.
fn unprivileged() -> bool {
    !rustix::process::geteuid().is_root() && !host::has(CapabilitySet::BPF)
}

fn load_check(why: &str) -> Check {
    if unprivileged() {
        return Check::bad(
            "load",
            Mark::Unknown,
            format!("the BPF programs could not be loaded: {why}"),
            "run the doctor as root",
        );
    }
    Check::bad(
        "load",
        Mark::Fail,
        format!("the BPF programs could not be loaded: {why}"),
        "see the checks `bpf`, `btf`, `cap-*` and `lockdown`",
    )
}

/// Loads, attaches, does the acts.
fn try_hooks() -> Tried {
    let loaded = Kernel::load(SETTLE_NS, None);
    let (mut kernel, mut ring, _counts) = match loaded {
        Ok(loaded) => loaded,
        Err(e) => {
            return Tried { coverage: Vec::new(), proof: Proof::default(), failed: Some(format!("{e:#}")) };
        }
    };
    let mut coverage = std::mem::take(&mut kernel.coverage);
    if let Err(e) = kernel.attach_syscalls() {
        let because = Some(format!("{e:#}"));
        coverage.retain(|c| c.hook != "syscalls");
        coverage.push(Coverage { hook: "syscalls".into(), state: CoverageState::Blind, because });
    }
    let proof = prove(&mut kernel, &mut ring)
        .unwrap_or_else(|e| Proof { broken: Some(format!("{e:#}")), ..Proof::default() });
    let lsm = |c: &Coverage| c.hook.starts_with("lsm/");
    let coverage =
        coverage.iter().map(|c| if lsm(c) { classify::prove(c, &proof) } else { c.clone() }).collect();
    Tried { coverage, proof, failed: None }
}

/// One canary; records of others are let go.
fn prove(kernel: &mut Kernel, ring: &mut RingBuf<MapData>) -> Result<Proof> {
    let mut canary = Canary::start(kernel, true, crate::run::now_ns())?;
    loop {
        while let Some(item) = ring.next() {
            // Of others: the doctor watches nobody.
            let _ours = canary.claims(&item);
        }
        if canary.poll(kernel) {
            return Ok(canary.finish(kernel).0);
        }
        std::thread::sleep(LOOK);
    }
}

fn report_of(hook: &hooks::Hook, tried: &Tried) -> HookReport {
    let verdict = match &tried.failed {
        Some(why) => Verdict {
            state: if unprivileged() { State::Unknown } else { State::Blind },
            because: Some(format!("nothing was loaded: {why}")),
            remedy: Some(if unprivileged() {
                "run the doctor as root".to_owned()
            } else {
                "see the checks `bpf`, `btf`, `cap-*` and `lockdown`".to_owned()
            }),
        },
        None => {
            // Without a cgroup root there is one line for all of them.
            let mut lines = tried.coverage.iter();
            let line = lines
                .find(|c| c.hook == hook.coverage || c.hook == "network" && hook.name.starts_with("cgroup/"));
            let attached = match line {
                None => Err("it was not attached"),
                Some(c) if c.state == CoverageState::Blind => {
                    Err(c.because.as_deref().unwrap_or("no reason is known"))
                }
                Some(_) => Ok(()),
            };
            classify(hook, attached, &tried.proof, true)
        }
    };
    let Verdict { state, because, remedy } = verdict;
    HookReport {
        hook: hook.name.into(),
        state,
        sees: hook.sees.into(),
        required: hook.required,
        because,
        remedy,
    }
}

fn ladder_of(ladder: &hooks::Ladder, lsm: &[lsm::Found], hooks: &[HookReport], done: &Tried) -> LadderReport {
    let coverage = &done.coverage;
    let mut tried = Vec::new();
    if let Some(found) = lsm.iter().find(|f| f.hook == ladder.lsm) {
        let provider = format!("lsm/{}", found.hook);
        let own = LSM.iter().find(|h| h.name == provider);
        let line = coverage.iter().find(|c| c.hook == provider);
        // Where the hook works at all, what counts is what our own programs do at it.
        let Verdict { state, because, remedy } = match (own, line) {
            (Some(hook), Some(line)) if found.state == State::Works => {
                let blind = line.state == CoverageState::Blind;
                let because = line.because.as_deref().unwrap_or("no reason is known");
                classify(hook, if blind { Err(because) } else { Ok(()) }, &done.proof, true)
            }
            _ => {
                let (because, remedy) = (found.because.clone(), found.remedy.clone());
                Verdict { state: found.state, because, remedy }
            }
        };
        tried.push(Rung { provider, denies: true, state, because, remedy });
    }
    let enforcing =
        |name: &str| coverage.iter().any(|c| c.hook == name && c.state == CoverageState::Enforcing);
    for name in ladder.hooks {
        if let Some(hook) = hooks.iter().find(|h| h.hook == *name) {
            tried.push(Rung {
                provider: hook.hook.clone(),
                denies: ladder.denies && enforcing(name),
                state: hook.state,
                because: hook.because.clone(),
                remedy: hook.remedy.clone(),
            });
        }
    }
    // An LSM hook that works helps only an agent that has a program for it.
    let ours = |r: &&Rung| !r.provider.starts_with("lsm/") || coverage.iter().any(|c| c.hook == r.provider);
    let chosen = tried.iter().filter(ours).find(|r| matches!(r.state, State::Works | State::Degraded));
    LadderReport { family: ladder.family, chosen: chosen.map(|r| r.provider.clone()), tried }
}

/// Runs the canary's side of it: no command for people.
pub(crate) fn child(stage: canary::Stage, dns: bool) -> ExitCode {
    match canary::child(stage, dns) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // The agent listens to this, and puts it into its report.
            anstream::eprintln!("{}", print::safe(&format!("{e:#}")));
            ExitCode::FAILURE
        }
    }
}
