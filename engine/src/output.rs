//! What comes out of the engine: lines for people and machines, and requests to the agent.
//!
//! The serialised form of [`Line`] is the product's JSON (`--print json`); its schema stands in
//! `docs/schema/event.schema.json` and is generated from these types.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::input::NameSource;

/// One output of the engine.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Tell people and machines.
    Line(Box<Line>),
    /// Ask the system something, or change what the kernel programs capture.
    Request(Request),
    /// What became of a person's decision.
    Answer(Result<String, String>),
    /// What servers may do changes.
    Policy(crate::policy::Change),
    /// Do something about a server.
    Respond(crate::respond::Order),
}

/// What the engine asks of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A tree is of no interest (any more): let the kernel forget it.
    Forget {
        /// Which.
        tree: u64,
    },
    /// A candidate that ran already when it was found was let go because it read nothing: find it again
    /// when it does.
    Await {
        /// Which; it is forgotten already.
        tree: u64,
    },
    /// A channel is of no interest any more.
    ForgetChannel {
        /// Channel key.
        channel: u64,
    },
    /// Change how much of a channel is captured.
    Channel {
        /// Channel key.
        channel: u64,
        /// One of [`abi::channel_mode`].
        mode: u64,
    },
    /// Capture what this process writes into channels under proof.
    Prove {
        /// The client.
        client: u32,
    },
    /// Find out who this server is; answer with [`crate::input::Fact::Identity`].
    Identify {
        /// Which.
        tree: u64,
        /// The process that reads the channel.
        tgid: u32,
        /// The process that made the tree.
        root: u32,
        /// Its parent: the client.
        client: u32,
    },
    /// Measure a process; answer with [`crate::input::Fact::Usage`].
    Measure {
        /// Which.
        tgid: u32,
    },
    /// Hand in the kernel's counts; answer with [`crate::input::Fact::Drained`].
    Drain,
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// A server was found, changed state, or ended.
    Server(ServerLine),
    /// A call ended.
    Call(CallLine),
    /// Something happened.
    Effect(EffectLine),
    /// Something was lost.
    Lost(LostLine),
    /// A hook changed state.
    Coverage(CoverageLine),
    /// Something is out of line.
    Finding(Box<crate::finding::Finding>),
    /// Something was done about it.
    Response(Box<crate::respond::ResponseLine>),
}

/// When.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Time {
    /// UTC, RFC 3339 with nanoseconds.
    #[serde(with = "utc")]
    #[schemars(with = "String")]
    pub utc: i64,
    /// Nanoseconds since boot.
    pub boot_ns: u64,
}

mod utc {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(ns: &i64, s: S) -> Result<S::Ok, S::Error> {
        let t = jiff::Timestamp::from_nanosecond(i128::from(*ns)).unwrap_or_default();
        s.collect_str(&format_args!("{t:.9}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
        let text = String::deserialize(d)?;
        let t: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        i64::try_from(t.as_nanosecond()).map_err(D::Error::custom)
    }
}

/// Which server, on every line that has one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerRef {
    /// Unique per boot: the tree's id in hex.
    pub id: String,
    /// Name.
    pub name: String,
}

/// Whom an effect is charged to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scope {
    /// Startup, call, ambient, or ambiguous.
    pub kind: ScopeKind,
    /// Tool, when it is certain.
    pub tool: Option<String>,
    /// Call, when it is certain.
    pub call: Option<CallRef>,
    /// How sure that is.
    pub certainty: Certainty,
    /// Why.
    pub basis: Basis,
    /// All that it may belong to, when there is more than one possibility.
    pub candidates: Vec<Arc<Candidate>>,
}

/// Kind of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// Between exec and the first request.
    Startup,
    /// One tool.
    Call,
    /// No call in flight.
    Ambient,
    /// Several possibilities.
    Ambiguous,
    /// Only as a candidate: a request that was in flight when the running server was found.
    UnknownStart,
}

/// How sure a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The scope, and the call if it is one.
    Certain,
    /// The tool, but which of its calls is open.
    CertainTool,
    /// One of the candidates.
    Ambiguous,
}

/// Why an effect is charged as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The process was born in that scope.
    Lineage,
    /// It happened at that time.
    Window,
}

/// One call of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct CallRef {
    /// Counts the calls of this server from 1.
    pub number: u64,
    /// JSON-RPC id as sent: a number or a string.
    pub request_id: serde_json::Value,
}

/// One possibility.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// Startup, call, ambient, or unknown start.
    pub kind: ScopeKind,
    /// Tool of a call.
    pub tool: Option<String>,
    /// The call.
    pub call: Option<CallRef>,
}

/// Who and where, on every line that has a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Context {
    /// User id of the server.
    pub uid: u32,
    /// Login user id, if set.
    pub login_uid: Option<u32>,
    /// Executable of the MCP client.
    pub client: Option<String>,
    /// Directory that the server was started in.
    pub project: Option<String>,
    /// Container that the server runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

/// A container, by the name of its cgroup. A user to whom a part of the hierarchy is delegated can claim any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Id that the runtime gave it: 64 hex digits, or a name.
    pub id: String,
    /// Runtime, where the cgroup tells: `docker`, `containerd`, `cri-o`, `podman`, `lxc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Id of the Kubernetes pod that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// A server was found, changed state, or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerLine {
    /// When.
    pub time: Time,
    /// Which.
    pub server: Arc<ServerRef>,
    /// Who and where.
    #[serde(flatten)]
    pub context: Arc<Context>,
    /// What happened to it.
    pub event: ServerEvent,
    /// In words, where there is more to say.
    pub detail: Option<String>,
    /// Process that reads the channel.
    pub pid: u32,
    /// Process that made the tree.
    pub root_pid: u32,
    /// Command line of the process that made the tree when it did, secrets masked.
    pub argv: Vec<String>,
    /// Where the name comes from.
    pub name_source: NameSource,
    /// Package.
    pub package: Option<String>,
    /// Version: of the package, else as the server says.
    pub version: Option<String>,
    /// Entry point.
    pub entry: Option<String>,
    /// SHA-256 of the entry point.
    pub digest: Option<String>,
    /// Protocol revision in use.
    pub protocol: Option<String>,
    /// How much of the startup was missed.
    pub startup: Startup,
    /// State of the channel.
    pub channel: ChannelState,
}

/// What happened to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerEvent {
    /// Its first MCP message was read.
    Found,
    /// It is known now who it is.
    Identified,
    /// Its channel cannot be followed any more.
    Blind,
    /// It wrote into its own request channel.
    Forging,
    /// Its last process ended.
    Ended,
}

/// How much of a startup was missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Startup {
    /// The hooks were not all attached when it began.
    pub partial: bool,
    /// Milliseconds that were missed.
    pub gap_ms: f64,
    /// It ran already when it was found: requests may have been in flight that nobody saw.
    #[serde(default)]
    pub pre_existing: bool,
    /// `started-unwatched`: it began after an agent that held servers had gone, and before this one came. What it did until it was found
    /// was neither seen nor denied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unwatched: bool,
}

/// State of a server's channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelState {
    /// Every byte is read.
    #[default]
    Followed,
    /// The tree can write into its own request channel: only bytes that the client provably wrote
    /// open calls.
    Proved,
    /// Bytes move in a way that cannot be followed.
    Blind,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallStatus {
    /// A result.
    Ok,
    /// A result that says `isError`.
    ToolError,
    /// A JSON-RPC error.
    Error,
    /// The client cancelled it.
    Cancelled,
    /// The server ended, or the reply was never seen.
    NoReply,
}

/// A call ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CallLine {
    /// When it began.
    pub time: Time,
    /// Which server.
    pub server: Arc<ServerRef>,
    /// Who and where.
    #[serde(flatten)]
    pub context: Arc<Context>,
    /// The call itself.
    pub scope: Arc<Scope>,
    /// How it ended.
    pub status: CallStatus,
    /// From the request to the reply, ns.
    pub duration_ns: u64,
    /// CPU time of the server and of the call's children, ns. Shared with other calls when
    /// `overlapped`.
    pub cpu_ns: u64,
    /// Highest resident set of the server or of a child of the call, bytes.
    pub peak_rss: u64,
    /// Threads of the server when the call had settled; 0 where that is not known.
    #[serde(default)]
    pub threads: u64,
    /// Places for descriptors that the server has: the next power of two of the most that it ever had open; 0
    /// where that is not known.
    #[serde(default)]
    pub fd_slots: u64,
    /// Payload bytes sent over the network.
    pub bytes_out: u64,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Files opened, repeats included.
    pub files: u64,
    /// Programs executed.
    pub execs: u64,
    /// Connections and datagrams to new destinations, repeats included.
    pub connects: u64,
    /// Processes born.
    pub children: u64,
    /// Effects charged to this call with certainty, repeats included.
    pub effects: u64,
    /// Effects that may belong to this call.
    pub ambiguous_effects: u64,
    /// Bytes of the request.
    pub request_bytes: u64,
    /// Bytes of the reply.
    pub reply_bytes: u64,
    /// Other calls were in flight at some time.
    pub overlapped: bool,
    /// Arguments: names, sizes, keyed hashes.
    pub arguments: Vec<Argument>,
    /// System calls made, by ABI and number.
    pub syscalls: Vec<SyscallCount>,
}

/// One argument of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Argument {
    /// Name, bounded.
    pub name: String,
    /// Bytes of the value as sent.
    pub bytes: u64,
    /// Keyed hash of the value, hex; the key stays on this host.
    pub hash: String,
    /// The value as sent, only with `--include-arguments`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
}

/// How often a system call was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SyscallCount {
    /// Which table.
    pub abi: SyscallAbi,
    /// Number in that table.
    pub nr: u32,
    /// How often.
    pub count: u64,
}

/// Which system call table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyscallAbi {
    /// x86-64.
    X86_64,
    /// 32-bit.
    I386,
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EffectLine {
    /// When.
    pub time: Time,
    /// Which server.
    pub server: Arc<ServerRef>,
    /// Who and where.
    #[serde(flatten)]
    pub context: Arc<Context>,
    /// Whom it is charged to.
    pub scope: Arc<Scope>,
    /// Process that did it.
    pub process: Arc<Process>,
    /// What.
    pub effect: Arc<Effect>,
    /// Counts effects from 1; a repeat carries the id of the first.
    pub id: u64,
    /// Occurrences on this line.
    pub count: u64,
    /// This line counts further occurrences of an earlier one.
    pub repeat: bool,
    /// The call that it belongs to had ended before.
    pub outlived: bool,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Process id (initial pid namespace).
    pub pid: u32,
    /// Start, ns since boot.
    pub start_ns: u64,
    /// Executable, if known.
    pub exe: Option<String>,
}

/// How an object's name was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The object itself.
    Kernel,
    /// The descriptor after the call; another thread may have replaced it.
    FdAtExit,
    /// The caller's memory, which it may have changed.
    Argument,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Effect {
    /// A process was made.
    Fork {
        /// Its pid.
        child: u32,
    },
    /// A program was executed.
    Exec {
        /// File.
        path: String,
        /// The path is not whole.
        truncated: bool,
        /// How the path was read.
        source: Source,
        /// Command line, secrets masked.
        argv: Vec<String>,
        /// The command line is not whole.
        argv_truncated: bool,
        /// Working directory.
        cwd: String,
        /// Script, when `path` is an interpreter.
        script: Option<String>,
        /// From memory only.
        memfd: bool,
        /// The file has no name.
        deleted: bool,
        /// Environment variables that it was started with and that make programs load or run foreign
        /// code (`LD_PRELOAD` and its like): their names.
        #[serde(default)]
        env: Vec<String>,
        /// Not all of the environment was looked at.
        #[serde(default)]
        env_truncated: bool,
    },
    /// A process ended.
    Exit {
        /// Exit code, when it exited.
        code: Option<u32>,
        /// Signal, when it was killed.
        signal: Option<u32>,
        /// CPU time, ns.
        cpu_ns: u64,
        /// Highest resident set, bytes.
        peak_rss: u64,
    },
    /// A file was opened.
    Open {
        /// File.
        path: String,
        /// The path is not whole.
        truncated: bool,
        /// How the path was read.
        source: Source,
        /// For reading.
        read: bool,
        /// For writing.
        write: bool,
        /// O_CREAT.
        create: bool,
        /// O_TRUNC.
        truncate: bool,
        /// A directory.
        directory: bool,
        /// The file has no name.
        deleted: bool,
    },
    /// A name or metadata changed.
    #[serde(rename = "path")]
    PathOp {
        /// What was done.
        op: PathOpKind,
        /// Path.
        path: String,
        /// Second path: new name (rename, link), link (symlink).
        to: Option<String>,
        /// Mode or owner, where there is one.
        arg: Option<u64>,
        /// Owning group (chown).
        group: Option<u32>,
        /// A path is not whole.
        truncated: bool,
        /// How the path was read.
        source: Source,
    },
    /// An act on an internet socket.
    Net {
        /// What was done.
        op: NetOp,
        /// Address; v4-mapped addresses are written as IPv4.
        address: String,
        /// Port.
        port: u16,
        /// tcp, udp, or the number.
        protocol: String,
        /// The address was given in v4-mapped form.
        mapped: bool,
        /// Name that the server's own DNS question gave this address.
        name: Option<String>,
        /// How the address was read.
        source: Source,
    },
    /// An act on a unix socket.
    Unix {
        /// What was done.
        op: NetOp,
        /// Path, or `@name` for an abstract one; empty if unnamed.
        path: String,
        /// errno, 0 for success.
        error: u32,
        /// How the name was read.
        source: Source,
    },
    /// A DNS question.
    DnsQuery {
        /// Name, lower case, no final dot.
        name: String,
        /// Type: A, AAAA, TXT, ... or the number.
        record: String,
        /// Resolver asked.
        resolver: String,
        /// Its port.
        port: u16,
    },
    /// A DNS answer.
    DnsAnswer {
        /// Name asked for.
        name: String,
        /// Addresses in it.
        addresses: Vec<String>,
        /// Response code, 0 for none.
        rcode: u16,
        /// Resolver that answered.
        resolver: String,
    },
    /// A TLS handshake began.
    TlsHello {
        /// Server name, if it is in the clear.
        sni: Option<String>,
        /// Peer.
        address: String,
        /// Its port.
        port: u16,
    },
    /// Payload went over a socket.
    Flow {
        /// Peer.
        address: String,
        /// Its port.
        port: u16,
        /// tcp or udp.
        protocol: String,
        /// Sent.
        bytes_out: u64,
        /// Received.
        bytes_in: u64,
    },
    /// A system call was used.
    Syscall {
        /// Which table.
        abi: SyscallAbi,
        /// Number in that table.
        nr: u32,
    },
    /// A system call that deserves attention.
    Special {
        /// Its name.
        name: String,
        /// Which table.
        abi: SyscallAbi,
        /// Number in that table.
        nr: u32,
        /// Arguments.
        args: Vec<u64>,
        /// Result.
        result: i64,
        /// Text argument (memfd_create's name).
        text: Option<String>,
    },
    /// The kernel denied an act, or would have.
    Denied {
        /// Of which family.
        family: crate::policy::Family,
        /// What was tried: `connect`, `sendmsg`, `dns`, `bind`, `exec`, `read`, `write`, ...
        op: String,
        /// What it was about: `HOST:PORT/PROTOCOL`, a name, a path.
        object: String,
        /// It was permitted all the same: only to tell.
        dry_run: bool,
        /// Scopes that were live for the process ([`crate::policy::scope`]).
        #[serde(default)]
        live: u64,
        /// Scopes that hold a right to the object; 0: nobody does.
        #[serde(default)]
        held: u64,
    },
    /// An io_uring request.
    Uring {
        /// IORING_OP_*.
        opcode: u32,
        /// Its name.
        name: String,
    },
}

/// What was done to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the system calls")]
pub enum PathOpKind {
    Unlink,
    Rmdir,
    Rename,
    Mkdir,
    Symlink,
    Link,
    Chmod,
    Chown,
    Truncate,
    Mknod,
}

/// What was done on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the system calls")]
pub enum NetOp {
    Connect,
    Sendmsg,
    Bind,
    Listen,
    Accept,
}

/// Something was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LostLine {
    /// When it was noticed.
    pub time: Time,
    /// What and why (`ring:open`, `fault`, ...).
    pub cause: String,
    /// Since the last such line.
    pub count: u64,
    /// Since the agent started.
    pub total: u64,
}

/// A hook changed state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CoverageLine {
    /// When.
    pub time: Time,
    /// The hook and its state.
    #[serde(flatten)]
    pub coverage: Coverage,
}

/// State of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coverage {
    /// Which.
    pub hook: String,
    /// What it does for us.
    pub state: CoverageState,
    /// Why it is not better, with the remedy.
    pub because: Option<String>,
}

/// What a hook does for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CoverageState {
    /// Sees, and can deny.
    Enforcing,
    /// Sees.
    Observing,
    /// Sees nothing.
    Blind,
}
