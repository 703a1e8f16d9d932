//! What the command line does beside running the agent: verbs that ask a running one, and rules.
//!
//! # Layout
//! - [`args`]: their options
//! - [`client`]: the request, and what its failure means
//! - [`exit`]: exit codes
//! - [`show`]: tables, colours, times
//! - [`state`]: `status`, `servers`, `tools`, `calls`, `mode`, `reload`, `audit`, `purge`
//! - [`watch`]: what happens, as it happens
//! - [`findings`], [`explain`], [`taxonomy`]: what was found
//! - [`baseline`], [`diff`]: what is normal
//! - [`selftest`]: a detection all the way to every sink
//! - [`profile`]: what each hook costs
//! - [`paper`]: completions and man pages
//! - [`policy`]: what of it the kernel enforces
//! - [`respond`]: what is done about servers
//! - [`rules`]: checks, tests and explains rules; needs no agent

pub(crate) mod args;
mod baseline;
mod client;
mod diff;
mod exit;
mod explain;
mod findings;
pub(crate) mod paper;
mod policy;
mod profile;
pub(crate) mod respond;
pub(crate) mod rules;
pub(crate) mod selftest;
pub(crate) mod show;
mod state;
mod taxonomy;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use args::Remote;
pub(crate) use exit::{Exit, Stop};
use serde_json::Value;
use show::Screen;
pub(crate) use taxonomy::name as technique;

use crate::cli::Command;

/// Exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "Exit codes:\n  0  done\n  1  no: not found, baselines differ\n  2  wrong usage\n  \
    3  the agent cannot be reached or does not answer\n  4  not permitted\n  5  invalid input or configuration";

/// Runs a verb and tells in its exit code how it went.
pub(crate) fn run(command: Command) -> ExitCode {
    let mut out = anstream::stdout().lock();
    let result = match command {
        Command::Status(remote) => state::status(&remote, &mut out),
        Command::Servers(remote) => state::servers(&remote, &mut out),
        Command::Tools(options) => state::tools(&options, &mut out),
        Command::Calls(options) => state::calls(&options, &mut out),
        Command::Watch(options) => watch::watch(&options, &mut out),
        Command::Mode(options) => state::mode(&options, &mut out),
        Command::Reload(options) => state::reload(&options, &mut out),
        Command::Purge(options) => state::purge(&options, &mut out),
        Command::Audit(options) => state::audit(&options, &mut out),
        Command::Selftest(remote) => selftest::run(&remote, &mut out),
        Command::Profile(options) => profile::run(&options, &mut out),
        Command::Findings(options) => findings::run(&options, &mut out),
        Command::Baseline(options) => baseline::run(&options, &mut out),
        Command::Policy(options) => policy::run(&options, &mut out),
        Command::Respond(options) => respond::respond(&options, &mut out),
        Command::Responses(options) => respond::responses(&options, &mut out),
        Command::Disarm(options) => respond::disarm(&options, &mut out),
        Command::Arm(options) => respond::arm(&options, &mut out),
        // `main` runs these.
        Command::Run(_)
        | Command::Replay(_)
        | Command::Rules(_)
        | Command::Config(_)
        | Command::Doctor(_)
        | Command::Canary { .. }
        | Command::Sinks
        | Command::Metrics
        | Command::SelftestServer
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Watchdog(_) => Ok(Exit::Ok),
    };
    match result.and_then(|exit| out.flush().map(|()| exit).map_err(Stop::from)) {
        Ok(exit) => exit.into(),
        Err(stop) if stop.closed_pipe => ExitCode::SUCCESS,
        Err(stop) => {
            anstream::eprintln!("toolwarden: {}", crate::print::safe_lines(&stop.message));
            stop.exit.into()
        }
    }
}

/// Prints an answer: as it is for machines, else as `table` draws it.
fn answer(
    remote: &Remote,
    data: &Value,
    out: &mut dyn Write,
    table: impl FnOnce(&Value, &mut Screen<'_>) -> io::Result<()>,
) -> Result<Exit, Stop> {
    match remote.format {
        args::Format::Table => table(data, &mut Screen::new(out))?,
        format => {
            let rows = data.as_array().map_or(std::slice::from_ref(data), Vec::as_slice);
            show::machine(format == args::Format::Json, data, rows, out)?;
        }
    }
    Ok(Exit::Ok)
}
