//! Toolwarden: what each MCP tool really does on this host.
//!
//! # Layout
//! - [`cli`]: the command line
//! - [`run`]: the agent's loop: ring to engine, engine's requests to the system
//! - [`ingest`]: masks payloads and secrets before anything else sees a record
//! - [`kernel`]: BPF programs and maps
//! - [`commands`]: what the command line does beside that
//! - [`contain`]: servers throttled, frozen, ended and released
//! - [`control`]: the control socket
//! - [`desk`]: what the loop answers there
//! - [`doctor`]: whether the agent can do its work here
//! - [`guard`]: one agent a host
//! - [`clients`], [`identity`]: who a server is
//! - [`measure`]: resource use of a process
//! - [`print`]: lines for people and machines
//! - [`running`]: servers that run already when the agent starts
//! - [`replay`]: a recording instead of a kernel
//! - [`store`]: state that outlives the agent

mod cli;
mod clients;
mod commands;
mod contain;
mod control;
mod desk;
mod doctor;
mod guard;
mod identity;
mod ingest;
mod kernel;
mod key;
mod measure;
mod print;
mod replay;
mod run;
mod running;
mod store;

use std::process::ExitCode;

use clap::Parser as _;
use commands::Exit;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let result = match cli.command {
        cli::Command::Canary { stage, dns } => return doctor::child(stage, dns),
        cli::Command::Doctor(options) => match doctor::run(&options) {
            Ok(code) => return code,
            Err(e) => Err(e),
        },
        cli::Command::Run(options) => run::run(&options).map(|()| Exit::Ok),
        cli::Command::Replay(options) => replay::replay(&options).map(|()| Exit::Ok),
        cli::Command::Rules(command) => commands::rules::rules(&command),
        cli::Command::Watchdog(options) => {
            contain::watchdog::run(&options.state_dir, &options.pin_dir);
            Ok(Exit::Ok)
        }
        asked => return commands::run(asked),
    };
    match result {
        Ok(outcome) => outcome.into(),
        // The reader of our output went away: that is how `| head` ends.
        Err(e) if print::is_closed_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            anstream::eprintln!("toolwarden: {e:#}");
            e.downcast_ref::<commands::Stop>().map_or(ExitCode::FAILURE, |stop| stop.exit.into())
        }
    }
}
