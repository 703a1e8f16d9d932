//! What a person types: `cargo xtask setup | demo | test | bench | evaluate | soak | powerloss | vm | package`.
//!
//! # Layout
//! - [`setup`]: which parts a machine needs, which are there, and the order of making them
//! - [`toolchain`]: choosing and proving a compiler and linker for the BPF object
//! - [`toolchain_file`]: the recorded choice; shared with `agent/build.rs`
//! - [`tools`]: cargo subcommands of the tests (deny, fuzz), kept under `target/tools`
//! - [`servers`]: the real MCP servers of the end-to-end tests, kept under `target/e2e`
//! - [`apt`]: Debian packages, and what to say where they cannot be had
//! - [`steps`]: progress of commands that take long
//! - [`package`]: the Debian package; [`operations`]: what it and tests of the service need
//! - [`stages`]: the stages of `cargo xtask test`
//! - [`vm`]: the agent and its tests on other kernels
//! - [`powerloss`]: the store in a machine whose power is cut
//! - [`machine`]: an emulated machine; [`cpio`]: what it boots; [`archive`]: packages of other releases of Debian
//! - [`programs`]: building and starting the demo, the benchmark and the recorder of the corpus
//! - [`workspace`]: where things are

mod apt;
mod archive;
mod cpio;
#[cfg(test)]
mod docs_tests;
mod machine;
mod operations;
mod package;
mod powerloss;
mod programs;
mod receivers;
mod servers;
mod setup;
mod stages;
mod steps;
mod toolchain;
mod toolchain_file;
mod tools;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{stages::Stage, workspace::Workspace};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What a person types in this workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Make this machine able to build the BPF object, once
    Setup {
        /// Also what the tests need: MCP servers from npm and PyPI, cargo-deny, cargo-fuzz, ...
        #[arg(long)]
        tests: bool,
    },
    /// Watch real MCP servers at work and see which tool did what (needs root)
    Demo {
        /// Passed to the demo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Formats, lints, unit, property and golden tests, fuzzing, end-to-end tests
    Test {
        /// Only these stages, in the usual order
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<Stage>,
        /// How long each fuzz target runs
        #[arg(long, default_value_t = 60)]
        fuzz_seconds: u32,
    },
    /// What is detected, and what is not, on a corpus of our own
    Evaluate {
        /// Record the corpus anew first (needs root, takes about half an hour)
        #[arg(long)]
        record: bool,
        /// Passed to the evaluation (--verbose; without any, it writes docs/detection.md) or to the recorder
        /// (--only NAME, --scale 0.05)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// What the agent costs, as ratios measured side by side (needs root)
    Bench {
        /// Passed to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Real and own servers at work for long, the agent killed now and then (needs root)
    Soak {
        /// How long
        #[arg(long, default_value_t = 60)]
        minutes: u64,
    },
    /// Cuts the power of an emulated machine while the store writes: nothing acknowledged may be lost
    Powerloss {
        /// Times that the power is cut
        #[arg(long, default_value_t = 5)]
        rounds: u32,
        /// Let the database sync nothing: the task must fail, or it proves nothing
        #[arg(long)]
        control: bool,
    },
    /// A Debian package of a static program, in target/package
    Package,
    /// The agent and the end-to-end tests on other kernels, in emulated machines
    Vm(vm::Vm),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let workspace = Workspace::find()?;
    match cli.task {
        Task::Setup { tests: false } => setup::run(&workspace, &setup::BUILD),
        Task::Setup { tests: true } => setup::run(&workspace, &setup::ALL),
        Task::Demo { args } => programs::demo(&workspace, &args),
        Task::Test { only, fuzz_seconds } => stages::run(&workspace, &only, fuzz_seconds),
        Task::Evaluate { record: true, args } => programs::record_corpus(&workspace, &args),
        Task::Evaluate { record: false, args } => programs::evaluate(&workspace, &args),
        Task::Bench { args } => programs::bench(&workspace, &args),
        Task::Soak { minutes } => programs::soak(&workspace, minutes),
        Task::Powerloss { rounds, control } => powerloss::run(&workspace, rounds, control),
        Task::Package => package::run(&workspace),
        Task::Vm(asked) => vm::run(&workspace, &asked),
    }
}
