//! What goes into the engine. Times are nanoseconds since boot (CLOCK_BOOTTIME).

use serde::{Deserialize, Serialize};

use crate::output::{Container, Coverage};

/// Keyed hash of one argument value: the first 16 bytes of keyed BLAKE3.
pub type Digest = [u8; 16];

/// One input of the engine.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A record from the ring, already masked (see [`crate::privacy`]). `digests`: those of the
    /// argument values that end in this record, in order (chunks of a request channel only).
    Record {
        /// The bytes as the kernel program wrote them, values masked.
        bytes: &'a [u8],
        /// Keyed hashes of the masked values.
        digests: &'a [Digest],
    },
    /// Time passes.
    Tick {
        /// Now.
        now_ns: u64,
    },
    /// Something that the agent found out.
    Fact {
        /// When it became known.
        now_ns: u64,
        /// What.
        fact: &'a Fact,
    },
}

/// Something that the agent found out by asking the system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fact {
    /// First input of every session.
    Start {
        /// UTC minus time since boot, ns.
        utc_minus_boot_ns: i64,
        /// Settling time, ns.
        settle_ns: u64,
        /// Host name.
        host: String,
        /// Show argument values.
        include_arguments: bool,
        /// How long a request may still be worked on that was in flight when a running server was
        /// found, ns.
        #[serde(default = "in_flight_ns")]
        in_flight_ns: u64,
    },
    /// Who a server is.
    Identity(Identity),
    /// A process that runs already, and is tracked from now on.
    Existing(Existing),
    /// The syscall hooks are attached from now on: what happened before was not seen.
    Attached,
    /// The syscall hooks are detached from now on.
    Detached,
    /// Occurrences that the kernel counted under the record with this id.
    Aggregate {
        /// Id of the announcing record.
        id: u64,
        /// Occurrences beyond the record.
        count: u64,
        /// Bytes sent beyond the record.
        bytes_out: u64,
        /// Bytes received beyond the record.
        bytes_in: u64,
    },
    /// Every count that belongs to times before `up_to_ns` has been handed in.
    Drained {
        /// When the drain began.
        up_to_ns: u64,
    },
    /// Resource use of one process.
    Usage(Usage),
    /// Records lost so far, by cause; cumulative.
    Lost {
        /// Cause (`ring:open`, `fault`, ...).
        cause: String,
        /// Total since start.
        total: u64,
    },
    /// State of a hook.
    Coverage(Coverage),
    /// A person's decision; answered with [`crate::Output::Answer`].
    Command(crate::judge::Command),
    /// What was kept over a restart.
    Restore(Box<crate::judge::Stored>),
    /// What became of an order to respond.
    Responded(crate::respond::Outcome),
    /// A person has disarmed responses, or armed them again.
    Disarmed {
        /// Nothing is done while this is so.
        disarmed: bool,
    },
    /// What of the agent's no server may change.
    Guarded {
        /// Files and directories, with all that is in them.
        files: Vec<String>,
        /// Directories whose files, but nothing deeper, are guarded: cgroups that the agent is in.
        inside: Vec<String>,
    },
    /// The agent stops: tell what is known of everything under way.
    Stop,
}

fn in_flight_ns() -> u64 {
    IN_FLIGHT_NS
}

/// Default of [`Fact::Start::in_flight_ns`].
pub const IN_FLIGHT_NS: u64 = 300_000_000_000;

/// A process that ran before it was tracked, as `/proc` shows it. Parents come before their children.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Existing {
    /// Tree that it belongs to.
    pub tree: u64,
    /// It is the first process of that tree.
    pub root: bool,
    /// Tree that this tree was born in; on the root only.
    pub parent_tree: Option<u64>,
    /// Process.
    pub tgid: u32,
    /// Its parent.
    pub parent: u32,
    /// Its start, ns since boot, to a clock tick (10 ms).
    pub start_ns: u64,
    /// Channel key of descriptor 0, 0 if none.
    pub stdin: u64,
    /// Channel key of descriptor 1, 0 if none.
    pub stdout: u64,
    /// Real user id.
    pub uid: u32,
    /// Login user id, if set.
    pub login_uid: Option<u32>,
    /// Executable.
    pub exe: Option<String>,
    /// Command line, secrets masked.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// It is held to a policy, by an agent before this one: only what it ends by lets it go. On the root only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// It began after an agent before this one had gone. On the root only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unwatched: bool,
}

/// Who a server is, as far as the system tells. Names are claims, the digest is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Tree that was asked about.
    pub tree: u64,
    /// Process that was asked about (the one that reads the channel).
    pub tgid: u32,
    /// Name, from the best source.
    pub name: String,
    /// Where the name comes from.
    pub name_source: NameSource,
    /// Package, such as `npm:@modelcontextprotocol/server-git` or `pypi:mcp-server-git`.
    pub package: Option<String>,
    /// Version of the package.
    pub version: Option<String>,
    /// File that makes this server this server: script, module, or executable.
    pub entry: Option<String>,
    /// SHA-256 of that file, lower-case hex.
    pub digest: Option<String>,
    /// Executable of the client.
    pub client: Option<String>,
    /// Process id of the client.
    pub client_pid: Option<u32>,
    /// Configuration file that names this server.
    pub config: Option<String>,
    /// Directories that belong to the server: package, argv directories, home, cwd.
    pub roots: Vec<String>,
    /// Container that it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

/// Where a server's name comes from, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NameSource {
    /// A client's configuration file.
    ClientConfig,
    /// The package that the entry point belongs to.
    Package,
    /// The executable or script.
    #[default]
    Executable,
}

/// Resource use of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Process.
    pub tgid: u32,
    /// CPU time so far, ns.
    pub cpu_ns: u64,
    /// Resident set now, bytes.
    pub rss: u64,
    /// Highest resident set ever, bytes.
    pub peak_rss: u64,
    /// Threads now.
    pub threads: u64,
    /// Places for descriptors that the kernel has made so far: the next power of two of the most that were
    /// open at once.
    pub fd_slots: u64,
}
