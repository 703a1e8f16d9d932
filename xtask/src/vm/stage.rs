//! What the stage `kernels` of `cargo xtask test` runs in its guests.

use anyhow::{Result, ensure};

use super::{
    Guest, conclude,
    guest::First,
    kernels::Kernel,
    parts::{self, Parts},
    run_guests,
};
use crate::{
    steps::Steps,
    workspace::{Workspace, processors},
};

/// Of each thing that rests on the kernel, what shows it. Each test starts an agent, which an emulated machine takes ten seconds to verify:
/// what is shown here is not shown twice.
const TESTS: [(&str, &[&str]); 8] = [
    ("the ladder: all programs load, and what a kernel lacks is said", &["hooks::"]),
    ("canaries", &["doctor::the_doctor_proves_every_hook"]),
    ("denials by LSM", &["lsm::"]),
    (
        "denials on the network",
        &["contain::denied_acts_fail_and_permitted_ones_do_not", "contain::sockets_of_others"],
    ),
    (
        "rights during a call",
        &["contain::rights_live_during_the_call", "contain::a_forged_call_gives_no_rights"],
    ),
    ("calling home, 74 ways", &["calling_home::"]),
    ("capture of MCP", &["protocol::"]),
    ("attribution, against the oracle", &["spaced::"]),
];

/// Where systemd is process 1. Once: it is the same on all.
const ONCE: [(&str, &[&str]); 2] =
    [("scopes and controllers", &["systemd::"]), ("a wall clock that is set", &["clock::"])];

/// Only when the stage is asked for by name: with them, all stages together would come near the time that CI gives them.
const OUTLIVING: &str = "lsm::outlive::";
const PACKAGE: (&str, &[&str]) = ("the package: installed, restarted, upgraded, purged", &["package::"]);

/// Kernels of the stage.
const KERNELS: [Kernel; 2] = Kernel::USUAL;

/// Whether all that its guests are made of is there.
pub(crate) fn there(workspace: &Workspace) -> Option<String> {
    parts::there(workspace, &KERNELS)
}

/// Fetches it: at the beginning, so that what cannot be had is told within minutes.
pub(crate) fn make(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.begin("emulator, kernels, and a disk with systemd");
    Parts::fetch(workspace, steps, &KERNELS, true).map(drop)
}

/// Two kernels, and one of them under systemd; `whole`: both, and with what takes longest.
pub(crate) fn run(workspace: &Workspace, whole: bool) -> Result<()> {
    let (older, newer) = KERNELS.split_at(1);
    let mut plans = vec![(First::Busybox, &KERNELS[..], &TESTS[..])];
    let mut without: &[&str] = &[];
    if whole {
        plans.extend([
            (First::Systemd, newer, &[PACKAGE, ONCE[0], ONCE[1]][..]),
            (First::Systemd, older, &[PACKAGE]),
        ]);
    } else {
        plans.push((First::Systemd, newer, &ONCE));
        without = &["--skip", OUTLIVING];
        println!("left out here: {OUTLIVING}; {}: `--only kernels` has them", PACKAGE.0);
    }
    let mut guests = Vec::new();
    for (first, kernels, tests) in plans {
        for (what, tests) in tests {
            println!("{what}: {}", tests.join(", "));
        }
        let args = tests.iter().flat_map(|(_, tests)| *tests).chain(without);
        let args: Vec<String> = args.map(|&arg| arg.to_owned()).collect();
        guests.extend(kernels.iter().map(|&kernel| Guest { kernel, first, args: args.clone() }));
    }
    println!("left out here: 5.10, the newest kernel and all other tests; `cargo xtask vm --all` runs them");
    let mut steps = Steps::new(workspace, 2 + guests.len())?;
    // More than two at once are too slow for the tests' limits, however many processors there are.
    let done = run_guests(workspace, &mut steps, &guests, None, processors().min(2))?;
    let counted = |kernel: &Kernel| done.iter().any(|d| d.kernel == *kernel && !d.outcome.insns.is_empty());
    for kernel in KERNELS {
        ensure!(counted(&kernel), "on {} nobody told how much the verifier looked at", kernel.name());
    }
    conclude(workspace, &steps, &done, false)
}
