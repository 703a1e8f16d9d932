//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Watches what each MCP tool really does on this host.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent in the foreground and print what it sees (needs root)
    #[command(
        after_help = "Examples:\n  toolwarden run\n  toolwarden run --print json | jq 'select(.type==\"call\")'\n  \
                            toolwarden run --record session.twrec"
    )]
    Run(Run),
    /// Print what a recording says; needs neither root nor a kernel with BPF
    #[command(after_help = "Example:\n  toolwarden replay session.twrec --print text")]
    Replay(Replay),
}

/// How lines are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people: calls with their effects below them
    Text,
    /// For machines: one JSON object a line (docs/schema/event.schema.json)
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) print: Format,
    /// Also write all inputs of the engine to this file (mode 0600, values masked)
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Show argument values of calls; by default only their sizes and keyed hashes are kept
    #[arg(long)]
    pub(crate) include_arguments: bool,
    /// After a reply, effects may still belong to the call for this long
    #[arg(long, value_name = "MS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub(crate) settle_ms: u64,
    /// When a server is found that runs already, requests that nobody saw may be in flight for this long: until
    /// then nothing that it does is certain
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) in_flight_s: u64,
    /// Where the key of argument hashes is kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/toolwarden")]
    pub(crate) state_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// A file that `toolwarden run --record` wrote
    pub(crate) file: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) print: Format,
}
