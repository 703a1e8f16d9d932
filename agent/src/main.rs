//! Toolwarden: what each MCP tool really does on this host.
//!
//! # Layout
//! - [`cli`]: the command line
//! - [`run`]: the agent's loop: ring to engine, engine's requests to the system
//! - [`ingest`]: masks payloads and secrets before anything else sees a record
//! - [`kernel`]: BPF programs and maps
//! - [`clients`], [`identity`]: who a server is
//! - [`measure`]: resource use of a process
//! - [`print`]: lines for people and machines
//! - [`running`]: servers that run already when the agent starts
//! - [`replay`]: a recording instead of a kernel

mod cli;
mod clients;
mod identity;
mod ingest;
mod kernel;
mod key;
mod measure;
mod print;
mod replay;
mod run;
mod running;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let result = match cli.command {
        cli::Command::Run(options) => run::run(&options),
        cli::Command::Replay(options) => replay::replay(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output went away: that is how `| head` ends.
        Err(e) if print::is_closed_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            anstream::eprintln!("toolwarden: {e:#}");
            ExitCode::FAILURE
        }
    }
}
