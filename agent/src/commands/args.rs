//! Options of the verbs that talk to a running agent.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::control::{self, Mode};

/// How to reach the agent and print its answer.
#[derive(Clone, Debug, Args)]
pub(crate) struct Remote {
    /// The agent's control socket
    #[arg(long, value_name = "PATH", default_value = control::SOCKET, global = true)]
    pub(crate) control: PathBuf,
    /// How to print; the default is `table`, on a terminal or not
    #[arg(long, value_enum, default_value = "table", global = true)]
    pub(crate) format: Format,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For machines: one JSON document
    Json,
    /// For machines: rows, one JSON document a line
    Ndjson,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Tools {
    /// Only of this server (name or id)
    pub(crate) server: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Calls {
    /// Only of this server (name or id)
    #[arg(long)]
    pub(crate) server: Option<String>,
    /// Only of this tool
    #[arg(long)]
    pub(crate) tool: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Watch {
    /// Only of servers whose name matches this pattern
    #[arg(long, value_name = "PATTERN")]
    pub(crate) server: Option<String>,
    /// Only of tools whose name matches this pattern, and what may be theirs
    #[arg(long, value_name = "PATTERN")]
    pub(crate) tool: Option<String>,
    /// Only these types of lines, with commas between them: server, call, effect, lost, coverage, finding, response
    #[arg(long, value_name = "TYPES")]
    pub(crate) r#type: Option<String>,
    /// Only findings of this kind, such as new-exec
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Only findings this severe or more
    #[arg(long, value_parser = ["info", "low", "medium", "high", "critical"])]
    pub(crate) severity: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  toolwarden mode\n  toolwarden mode git\n  toolwarden mode git watch\n  \
                        toolwarden mode git git_push enforce\n  toolwarden mode git --tool learn enforce"
)]
pub(crate) struct ModeOf {
    /// Only of this server (name, id or identity)
    pub(crate) server: Option<String>,
    /// A tool, a mode, or both: `TOOL`, `learn|watch|enforce`, `TOOL learn|watch|enforce`
    #[arg(value_name = "TOOL|MODE", num_args = 0..=2)]
    pub(crate) rest: Vec<String>,
    /// A tool whose name is a mode
    #[arg(long)]
    pub(crate) tool: Option<String>,
    /// With `enforce`: another version or entry point may do only what rules permit until it is ratified, instead of
    /// what the one before was ratified for
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

impl ModeOf {
    /// The tool, and the mode to set.
    pub(crate) fn wanted(&self) -> Result<(Option<&str>, Option<Mode>), String> {
        let mode = |word: &str| <Mode as ValueEnum>::from_str(word, false).ok();
        match (self.rest.as_slice(), self.tool.as_deref()) {
            ([], tool) => Ok((tool, None)),
            ([word], tool) => match (mode(word), tool) {
                (Some(mode), tool) => Ok((tool, Some(mode))),
                (None, None) => Ok((Some(word), None)),
                (None, Some(_)) => Err(not_a_mode(word)),
            },
            ([tool, word, ..], None) => Ok((Some(tool), Some(mode(word).ok_or_else(|| not_a_mode(word))?))),
            ([_, ..], Some(_)) => Err("name the tool once".into()),
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Policy {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) verb: PolicyVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Rights by scope, and what is only told, with the reason
    Show { server: String },
    /// For how long its rights were open, since the agent started, against the same rights standing all the time
    Exposure { server: String },
}

fn not_a_mode(word: &str) -> String {
    format!("`{word}` is no mode: learn, watch or enforce")
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Reload {
    /// Wait until the new rules are in force, and tell whether they are
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Profile {
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Purge {
    /// Forget findings, calls and audit rows that are older than this
    #[arg(long, value_name = "DAYS")]
    pub(crate) before_days: u32,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Audit {
    /// At most so many rows
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Findings {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) verb: FindingsVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum FindingsVerb {
    /// Findings, latest first
    List(List),
    /// One finding in short
    Show { id: String },
    /// All about one finding: what happened, why it counts, how to permit it
    Explain { id: String },
    /// Say that a person has seen it (needs root)
    Ack {
        id: String,
        /// It is what the tool should do: the baseline may learn it
        #[arg(long)]
        expected: bool,
        /// Why
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Write the exception that the finding offers (needs root)
    Permit {
        id: String,
        /// Why it is all right; kept in the rule
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// The last day of the exception, such as 2027-01-31
        #[arg(long, value_name = "DATE")]
        expires: Option<String>,
    },
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct List {
    /// This severe or more: info, low, medium, high, critical
    #[arg(long, value_parser = ["info", "low", "medium", "high", "critical"])]
    pub(crate) severity: Option<String>,
    /// Only of this server
    #[arg(long)]
    pub(crate) server: Option<String>,
    /// Only of this kind, such as new-exec
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Only since then: 2026-05-03, 2026-05-03T12:00:00Z, or 90m, 24h, 7d ago
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: u32,
    /// Also those that a person has acknowledged
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Baseline {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(subcommand)]
    pub(crate) verb: BaselineVerb,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BaselineVerb {
    /// All baselines and how far they are
    List,
    /// What is normal for one server
    Show { identity: String },
    /// What one baseline has and the other has not; exit code 1 when they differ
    Diff { a: String, b: String },
    /// Vouch for it: only a ratified baseline permits anything in `enforce` (needs root)
    Ratify { identity: String },
    /// Write it as a rule file, to read, edit, commit and import
    Export {
        identity: String,
        /// A new file, instead of standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Take in a rule file that `export` wrote (needs root)
    Import { file: PathBuf },
    /// Forget it and learn anew (needs root)
    Reset { identity: String },
}
