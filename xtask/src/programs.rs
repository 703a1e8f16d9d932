//! Building and starting the demo, the benchmark and the recorder of the corpus, which are programs of the package `e2e`.

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    setup,
    stages::check,
    vm,
    workspace::{Workspace, require_root},
};

/// The demo goes on with our own server where node or python cannot be had.
pub(crate) fn demo(workspace: &Workspace, args: &[String]) -> Result<()> {
    require_root("the demo")?;
    setup::run(workspace, &setup::BUILD)?;
    if let Err(e) = setup::run(workspace, &setup::SERVERS) {
        eprintln!("xtask: {e:#}\n\nThe demo goes on without these servers.");
    }
    start(workspace, "demo", args)
}

/// Compares with the same servers as the tests do, so it insists on them.
pub(crate) fn bench(workspace: &Workspace, args: &[String]) -> Result<()> {
    require_root("the benchmark")?;
    setup::run(workspace, &setup::E2E)?;
    start(workspace, "bench", args)
}

/// Records the corpus of the evaluation, with the same servers as the tests.
pub(crate) fn record_corpus(workspace: &Workspace, args: &[String]) -> Result<()> {
    require_root("recording the corpus")?;
    setup::run(workspace, &setup::E2E)?;
    start(workspace, "corpus", args)
}

/// Kills of an agent that holds servers; five minutes of kills of agent, process of the sinks and receivers under load; a minute of a thousand
/// findings a second; then sessions of the corpus's servers for so long, with nothing recorded.
pub(crate) fn soak(workspace: &Workspace, minutes: u64) -> Result<()> {
    require_root("the soak")?;
    setup::run(workspace, &setup::E2E)?;
    // The longer forms of what `cargo xtask test` does. `sinks` and `receivers` take about five minutes so.
    for (variable, value, tests) in [
        ("E2E_KILLS", "50", &["chaos::"][..]),
        (
            "E2E_ROUNDS",
            "60",
            &[
                "sinks::nothing_is_lost",
                "receivers::http::a_receiver_that_is",
                "receivers::rsyslog::it_is_killed",
            ],
        ),
        ("E2E_SECONDS", "60", &["load::"]),
    ] {
        check(vm::programs::tests(workspace)?.env(variable, value).arg("--nocapture").args(tests))?;
    }
    start(workspace, "corpus", &["--soak".into(), minutes.to_string()])
}

/// Replays the corpus through the engine; needs neither root nor a kernel with BPF. Without further
/// arguments the figures go into `docs/detection.md`, to be reviewed as a diff.
pub(crate) fn evaluate(workspace: &Workspace, args: &[String]) -> Result<()> {
    let mut command = workspace.cargo();
    command.args(["run", "--release", "--package=e2e", "--bin=evaluate", "--"]).args(args);
    if args.is_empty() {
        command.arg("--write");
    }
    check(&mut command)
}

fn start(workspace: &Workspace, name: &str, args: &[String]) -> Result<()> {
    let program = vm::programs::one(workspace, name)?;
    let mut command = Command::new(&program);
    command.current_dir(&workspace.root).args(args);
    // Replaces this process: a signal from the terminal then has one receiver that cleans up.
    Err(command.exec()).with_context(|| format!("cannot run {}", program.display()))
}
