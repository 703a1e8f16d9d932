//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    commands::{self, args, respond},
    doctor,
};

/// Watches what each MCP tool really does on this host.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true, after_help = commands::EXIT_CODES)]
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
    #[command(after_help = "Examples:\n  toolwarden replay session.twrec --print text\n  \
                            toolwarden replay session.twrec --findings --rules ./rules.d")]
    Replay(Replay),
    /// Check, test and explain rules; needs neither root nor a running agent
    #[command(
        subcommand,
        after_help = "Without FILES: the shipped packs and /etc/toolwarden/rules.d.\n\
                            Exit codes: 0 good, 1 a test failed or lint found something, 2 usage, 5 a rule file is wrong.\n\n\
                            Examples:\n  toolwarden rules check ./rules.d\n  toolwarden rules list --format ndjson | jq .id\n  \
                            toolwarden rules explain --server git --tool git_log read=/etc/shadow"
    )]
    Rules(Rules),
    /// Check and show the configuration; needs neither root nor a running agent
    #[command(
        subcommand,
        after_help = "Examples:\n  toolwarden config check\n  toolwarden config show --effective\n\
                      Exit codes: 0 good, 1 the daemon would refuse a file for its owner or mode, 2 usage, 5 something is wrong in it."
    )]
    Config(ConfigCommand),
    /// Say whether the agent can do its work here, and what to do where it cannot (needs root to try all)
    #[command(after_help = "Each hook is proved with a real act. May run beside an agent.\n\
                            Exit codes: 0 all is well, 1 degraded, 2 the agent cannot do its work here.\n\n\
                            Examples:\n  toolwarden doctor\n  toolwarden doctor --format ndjson | jq 'select(.state != \"works\")'")]
    Doctor(doctor::Options),
    /// Does the acts that prove the hooks
    #[command(hide = true)]
    Canary {
        /// What to do
        stage: doctor::canary::Stage,
        /// Ask for a name, in a network of its own
        #[arg(long)]
        dns: bool,
    },
    /// How the agent is: what it sees, what it lost, what it found
    #[command(after_help = "Examples:\n  toolwarden status\n  toolwarden status --format json | jq .lost")]
    Status(args::Remote),
    /// MCP servers that run now
    #[command(
        after_help = "Examples:\n  toolwarden servers\n  toolwarden servers --format ndjson | jq .name"
    )]
    Servers(args::Remote),
    /// Tools that were called, and how well they are known
    #[command(after_help = "Examples:\n  toolwarden tools\n  toolwarden tools git --format json")]
    Tools(args::Tools),
    /// The last calls, latest first
    #[command(
        after_help = "Examples:\n  toolwarden calls\n  toolwarden calls --server git --tool git_log --format ndjson"
    )]
    Calls(args::Calls),
    /// What happens, as it happens
    #[command(
        after_help = "Examples:\n  toolwarden watch\n  toolwarden watch --server 'npm:*' --type call,finding\n  \
                            toolwarden watch --severity high --format ndjson | jq .sentence\n\n\
                            Who reads too slowly is cut off, and told how many lines they missed (exit code 1)."
    )]
    Watch(args::Watch),
    /// What was found: list, show, explain, acknowledge, permit
    #[command(after_help = "Examples:\n  toolwarden findings list --severity high --since 24h\n  \
                            toolwarden findings explain 1f0c55b04a0b72de\n  \
                            toolwarden findings ack 1f0c55b04a0b72de --expected --note 'a new mirror'\n  \
                            toolwarden findings permit 1f0c55b04a0b72de --reason 'a new mirror' --expires 2027-01-31")]
    Findings(args::Findings),
    /// What is normal: list, show, compare, ratify, export, import, reset
    #[command(after_help = "Examples:\n  toolwarden baseline list\n  toolwarden baseline show git\n  \
                            toolwarden baseline ratify git\n  toolwarden baseline export git -o git.yaml")]
    Baseline(args::Baseline),
    /// What the kernel permits a server, and what is only told
    #[command(
        after_help = "Examples:\n  toolwarden policy show git\n  toolwarden policy exposure git --format json"
    )]
    Policy(args::Policy),
    /// Show or set what is done with deviations (setting needs root)
    Mode(args::ModeOf),
    /// Stop or slow down a server, or let it go on (needs root)
    #[command(
        after_help = "Examples:\n  toolwarden respond freeze git --for 10m\n  toolwarden respond kill git --dry-run\n  \
                            toolwarden respond release git"
    )]
    Respond(respond::Respond),
    /// What was done about servers: list, show
    #[command(
        after_help = "Examples:\n  toolwarden responses list\n  toolwarden responses show 1f0c55b04a0b72de"
    )]
    Responses(respond::Responses),
    /// Carry out no response any more, and end those in force (needs root)
    #[command(after_help = "Without an agent that answers: touch /run/toolwarden/disarm")]
    Disarm(respond::Arms),
    /// Carry out responses again (needs root)
    Arm(respond::Arms),
    /// Ends what is over when the agent cannot; the agent starts it
    #[command(hide = true)]
    Watchdog(Watchdog),
    /// Sends events to other systems; the agent starts it
    #[command(hide = true)]
    Sinks,
    /// Serves metrics; the agent starts it
    #[command(hide = true)]
    Metrics,
    /// Read configuration and rules anew; broken ones change nothing (needs root)
    #[command(after_help = "Example:\n  toolwarden reload --wait")]
    Reload(args::Reload),
    /// A harmless detection goes all the way to every sink; says what became of it (needs root)
    #[command(after_help = "Exit codes: 0 the detection was made and every sink has it, 1 not.\n\n\
                            Examples:\n  toolwarden selftest\n  toolwarden selftest --format json")]
    Selftest(args::Remote),
    /// The server of the self-test
    #[command(hide = true)]
    SelftestServer,
    /// What each hook costs: has the kernel time the agent's programs for some seconds (needs root)
    #[command(
        after_help = "Examples:\n  toolwarden profile\n  toolwarden profile --seconds 60 --format json\n\
                            The timing itself costs each run of any BPF program of the host some 20 ns meanwhile."
    )]
    Profile(args::Profile),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  toolwarden completions bash > /etc/bash_completion.d/toolwarden\n\
                      The Debian package has those of bash, zsh and fish.")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Writes the man pages
    #[command(hide = true)]
    Man {
        /// Where
        dir: PathBuf,
    },
    /// Who changed what, and who was not allowed to, latest first
    #[command(after_help = "Example:\n  toolwarden audit --limit 20")]
    Audit(args::Audit),
    /// Forget what is old (needs root)
    #[command(after_help = "Example:\n  toolwarden purge --before-days 90")]
    Purge(args::Purge),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Rules {
    /// Say what is wrong with rule files
    Check(RuleFiles),
    /// Run the tests that stand in rules
    Test(RuleFiles),
    /// Find what is hardly meant: unreachable, overlapping, over-broad, expired, untested
    Lint(RuleFiles),
    /// Print the JSON Schema of rule files
    Schema,
    /// List the rules
    List(RuleFiles),
    /// Say what the rules say about an act, which of them decides, and why
    #[command(
        after_help = "Example:\n  toolwarden rules explain --server git --tool git_log read=/home/me/.ssh/id_rsa"
    )]
    Explain(Explain),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say what is wrong with it: file, line, remedy
    Check(ConfigFile),
    /// Print what was written, with the file and line of each value
    Show {
        #[command(flatten)]
        file: ConfigFile,
        /// Everything, defaults too
        #[arg(long)]
        effective: bool,
    },
    /// Print its JSON Schema
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration, with `conf.d/*.toml` beside it: /etc/toolwarden/toolwarden.toml when it exists
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: args::Format,
}

#[derive(Debug, Args)]
pub(crate) struct RuleFiles {
    /// Rule files, or directories of them
    #[arg(value_name = "FILES")]
    pub(crate) paths: Vec<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: args::Format,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// KIND=OBJECT: read=PATH, write=, delete=, change=, exec=, connect=ADDRESS:PORT/tcp, listen=, dns=NAME,
    /// sni=, unix=PATH, unix_listen=, syscall=NAME, io_uring=NAME
    pub(crate) act: String,
    /// Name of the server
    #[arg(long, default_value = "some-server")]
    pub(crate) server: String,
    /// Tool, `@startup` or `@ambient`
    #[arg(long, default_value = "some_tool")]
    pub(crate) tool: String,
    /// Package of the server
    #[arg(long)]
    pub(crate) package: Option<String>,
    /// User that it runs as
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Home of that user
    #[arg(long)]
    pub(crate) home: Option<String>,
    /// Directory that the server was given or started in; may be repeated
    #[arg(long)]
    pub(crate) root: Vec<String>,
    /// Name that the peer's address was the answer to
    #[arg(long)]
    pub(crate) resolved: Option<String>,
    #[command(flatten)]
    pub(crate) files: RuleFiles,
}

/// How lines are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people: calls with their effects below them
    Text,
    /// For machines: one JSON object a line (docs/schema/event.schema.json)
    Json,
    /// Not at all: for a service, which has sinks
    None,
}

/// The options win over the configuration.
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    /// The configuration, with `conf.d/*.toml` beside it: /etc/toolwarden/toolwarden.toml when it exists
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
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
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub(crate) settle_ms: Option<u64>,
    /// When a server is found that runs already, requests that nobody saw may be in flight for this long: until
    /// then nothing that it does is certain
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) in_flight_s: Option<u64>,
    /// Where the key of argument hashes, baselines, findings and the audit trail are kept [default: /var/lib/toolwarden]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Rule files of this host, read at start and by `toolwarden reload`: /etc/toolwarden/rules.d when it exists
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,
    /// False findings that baselines may make, a day
    #[arg(long, value_name = "N", value_parser = budget)]
    pub(crate) budget: Option<f64>,
    /// What is done about findings of a severity whose rule says nothing, in mode `enforce`: a ladder, climbed
    /// when it goes on, such as `critical=throttle,freeze`; may be repeated
    #[arg(long, value_name = "SEVERITY=ACTIONS", value_parser = respond::default_of)]
    pub(crate) respond: Vec<respond::Default>,
    /// Only tell what responses would do, and what would be denied
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Where the control socket is made, for `toolwarden status` and the other verbs [default: /run/toolwarden/control.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
    /// Make no control socket: nobody can ask this agent anything
    #[arg(long, conflicts_with = "control")]
    pub(crate) no_control: bool,
    /// Hold every tree that begins to the policy in this file (JSON: `policy`, and `dry_run`, `cut_after_ms` or `rate`), from its
    /// first instruction: for tests of the kernel half, which needs no baselines
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) hold: Option<PathBuf>,
    /// Lock of the one agent of a host; another one gives another agent leave to run beside it
    #[arg(long, value_name = "PATH")]
    pub(crate) guard: Option<PathBuf>,
    /// What is denied goes on when the agent has gone, by programs and maps that are pinned into this directory: root's, mode 0700, of a bpf
    /// file system, which is mounted there if there is none; by default below /sys/fs/bpf, a directory for each state directory
    #[arg(long, value_name = "DIR")]
    pub(crate) pin_dir: Option<PathBuf>,
    /// What is denied, cut, frozen or slowed down stays so when the agent stops; otherwise only a kill leaves that behind
    #[arg(long)]
    pub(crate) keep_enforcing: bool,
    /// What to do when the host cannot do what is asked for: a hook that is needed is silent, or what a mode
    /// would deny cannot be denied
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) on_degraded: Option<OnDegraded>,
    /// The hooks are proved with real acts at start and this often; 0: only at start
    #[arg(long, value_name = "MIN", value_parser = clap::value_parser!(u64).range(0..=1440))]
    pub(crate) canary_minutes: Option<u64>,
}

/// What to do when the host cannot do what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnDegraded {
    /// It is an error, which says why
    Refuse,
    /// What can be had is taken, the rest is observed
    Observe,
}

#[derive(Debug, Args)]
pub(crate) struct Watchdog {
    /// That of the agent
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: PathBuf,
    /// That of the agent
    #[arg(long, value_name = "DIR")]
    pub(crate) pin_dir: PathBuf,
}

fn budget(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 1000.0 => Ok(n),
        _ => Err("findings a day, above 0 and at most 1000, such as 1 or 0.1".into()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// A file that `toolwarden run --record` wrote
    pub(crate) file: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value = "json")]
    pub(crate) print: Format,
    /// Back-test: the shipped packs and these rule files or directories instead of the recorded rules
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) rules: Vec<PathBuf>,
    /// Back-test: this state directory, or JSON of `baseline export --format json`, instead of the recorded baselines
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// Back-test: false findings that baselines may make, a day
    #[arg(long, value_name = "N", value_parser = budget)]
    pub(crate) budget: Option<f64>,
    /// Print findings only
    #[arg(long)]
    pub(crate) findings: bool,
}
