//! Toolwarden: what each MCP tool really does on this host.
//!
//! # Layout
//! - [`cli`]: the command line
//! - [`run`]: the agent's loop: ring to engine, engine's requests to the system
//! - [`ingest`]: masks payloads and secrets before anything else sees a record
//! - [`kernel`]: BPF programs and maps
//! - [`commands`]: what the command line does beside that
//! - [`config`]: what the operator wrote down
//! - [`contain`]: servers throttled, frozen, ended and released
//! - [`control`]: the control socket
//! - [`desk`]: what the loop answers there
//! - [`doctor`]: whether the agent can do its work here
//! - [`files`]: files that are not to be trusted
//! - [`guard`]: one agent a host
//! - [`accounts`]: local users and groups
//! - [`clients`], [`identity`]: who a server is
//! - [`measure`]: resource use of a process
//! - [`metrics`]: numbers about the agent, for Prometheus
//! - [`print`]: lines for people and machines
//! - [`running`]: servers that run already when the agent starts
//! - [`replay`]: a recording instead of a kernel
//! - [`service`]: what the service manager is told
//! - [`sinks`]: events to other systems
//! - [`store`]: state that outlives the agent
//! - [`wake`]: how threads wake each other

mod accounts;
mod cli;
mod clients;
mod commands;
mod config;
mod contain;
mod control;
mod desk;
mod doctor;
mod files;
mod guard;
mod identity;
mod ingest;
mod kernel;
mod key;
mod measure;
mod metrics;
mod print;
mod replay;
mod run;
mod running;
mod service;
mod sinks;
mod store;
mod wake;

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
        cli::Command::Run(options) => configured(&options).and_then(|s| run::run(&s)).map(|()| Exit::Ok),
        cli::Command::Config(command) => config::run(&command),
        cli::Command::Replay(options) => replay::replay(&options).map(|()| Exit::Ok),
        cli::Command::Rules(command) => commands::rules::rules(&command),
        cli::Command::Watchdog(options) => {
            contain::watchdog::run(&options.state_dir, &options.pin_dir);
            Ok(Exit::Ok)
        }
        cli::Command::Completions { shell } => commands::paper::completions(shell).map(|()| Exit::Ok),
        cli::Command::Man { dir } => commands::paper::man(&dir).map(|()| Exit::Ok),
        cli::Command::SelftestServer => {
            commands::selftest::serve().map(|()| Exit::Ok).map_err(anyhow::Error::from)
        }
        cli::Command::Sinks => sinks::run().map(|()| Exit::Ok),
        cli::Command::Metrics => metrics::run().map(|()| Exit::Ok),
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

/// The configuration with the options of the command line.
fn configured(options: &cli::Run) -> anyhow::Result<config::Settings> {
    let strict = rustix::process::geteuid().is_root();
    let loaded = config::load(options.config.as_deref(), strict)
        .map_err(|e| commands::Stop::new(Exit::Invalid, format!("{e:#}")))?;
    Ok(config::Settings::new(options, loaded))
}
