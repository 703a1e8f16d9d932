//! Kernel policy as data: what a ratified baseline and the rules permit one server, in terms that maps of
//! the kernel can hold. Compiled here; put into the kernel by the agent.
//!
//! A *right* is an object (destination, name, path, program) and the set of scopes that hold it, as a bit
//! mask. What a server may do at a moment is the rights whose mask meets the scopes that are *live*: those
//! of calls in flight (until the matching reply plus the tool's settling time), those that a child was born
//! in, startup, and ambient. All bits together are the server's ceiling.
//!
//! How rights are looked up is the same for all: the most specific one that covers the object decides, alone.
//! [`Policy::permits`] says it exactly, and is what the kernel programs are tested against:
//! - addresses: the longest prefix whose ports and protocol cover; among equals one for that protocol before one
//!   for any. What holds of a wider range is repeated in narrower ones, so one longest-prefix look-up will do;
//! - names: the name itself, else the longest suffix (`below`);
//! - paths: the path itself, else its directory's children, else the nearest directory around it whose subtree has
//!   a right.
//!
//! A mask of 0 says that a rule denies: an address that is denied is denied whatever name led to it, and the other
//! way round. Without that, an address *or* its name permits. [`scope::NOBODY`] alone says that nobody has it,
//! which takes nothing away from names. A call of a tool that is not in [`Policy::tools`] has no bit: it has
//! ambient rights.
//!
//! # Layout
//! - [`compile`](fn@compile): from a baseline and rules, with what cannot be said
//! - `permits`: the reference
//! - [`backtest`]: what a policy would have denied
//! - [`exposure`]: how long rights were open
//! - [`view`]: what people are shown

pub mod backtest;
mod compile;
pub mod exposure;
mod permits;
#[cfg(test)]
mod tests;
pub mod view;

use std::{fmt, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use compile::{Given, compile};
pub use permits::family;

use crate::baseline::Dimension;

/// Bits of a mask of scopes.
pub mod scope {
    /// Tools have bits `0..TOOLS`; those beyond share the last of them.
    pub const TOOLS: u32 = 60;
    /// No scope has it: of a right that nobody holds and no rule denies.
    pub const NOBODY: u64 = 1 << 61;
    /// From exec to the first request's settling.
    pub const STARTUP: u64 = 1 << 62;
    /// While no call is in flight.
    pub const AMBIENT: u64 = 1 << 63;
}

/// What one server may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Key of the baseline (`uid/name@digest`).
    pub identity: String,
    /// Grows with every change of the same identity's policy.
    pub generation: u64,
    /// Tools, and what recognises them.
    pub tools: Vec<Tool>,
    /// Peers by address.
    pub connect: Vec<NetRight>,
    /// Own addresses and ports.
    pub listen: Vec<NetRight>,
    /// Peers by name: addresses are bound as a configured resolver answers.
    pub names: Vec<NameRight>,
    /// Files, by what is done to them; programs; unix sockets.
    pub paths: Vec<PathRight>,
    /// Families that are denied by default. What is not among them is observed only.
    pub families: Vec<Family>,
    /// What is permitted or forbidden, and can only be told, not denied.
    pub alert_only: Vec<AlertOnly>,
}

/// Objects of one sort, that one ladder of hooks decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// connect, sendmsg, packets, names
    Network,
    /// bind
    Listen,
    /// Programs.
    Exec,
    /// Files.
    File,
    /// Unix sockets that are connected to or sent to.
    Unix,
    /// ptrace, other processes' memory and descriptors, mounts, bpf
    Dangerous,
}

impl Family {
    /// What baselines know of it.
    pub(crate) fn dimensions(self) -> &'static [Dimension] {
        match self {
            Self::Network => &[Dimension::Connect, Dimension::Dns],
            Self::Listen => &[Dimension::Listen],
            Self::Exec => &[Dimension::Exec],
            Self::File => &[Dimension::Read, Dimension::Write, Dimension::Delete, Dimension::Change],
            Self::Unix => &[Dimension::Unix],
            Self::Dangerous => &[Dimension::Special],
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Listen => "listen",
            Self::Exec => "exec",
            Self::File => "file",
            Self::Unix => "unix",
            Self::Dangerous => "dangerous",
        })
    }
}

/// A tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Name, as in `params.name`.
    pub name: String,
    /// Its bit in masks.
    pub bit: u32,
    /// Rights last this long after the reply, ns.
    pub settle_ns: u64,
}

/// Ports and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ports {
    /// First.
    pub from: u16,
    /// Last.
    pub to: u16,
    /// IPPROTO_*, 0 for any. MPTCP has a number above 255: only entries for any protocol cover it.
    pub protocol: u8,
}

/// A range of addresses with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetRight {
    /// Network address; IPv4-mapped ones are written as IPv4.
    pub address: IpAddr,
    /// Bits of it that count.
    pub prefix: u8,
    /// Ports.
    pub ports: Ports,
    /// Who holds it. 0: nobody, whatever a wider range says (a rule's `deny`).
    pub mask: u64,
}

/// A name with ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NameRight {
    /// Lower case, no final dot; without the `*.` of a wildcard.
    pub name: String,
    /// Any name below it (and not itself).
    pub below: bool,
    /// Ports of connections; `None`: the name may be asked for, which permits no connection, and only these
    /// entries permit it.
    pub ports: Option<Ports>,
    /// Who holds it. 0: nobody.
    pub mask: u64,
}

/// How much of the tree a path right covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Span {
    /// The path itself.
    Exact,
    /// What is directly in that directory.
    Children,
    /// The directory and all below it.
    Subtree,
}

/// What is done to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PathAccess {
    /// Opened for reading.
    Read,
    /// Made, written, or the new name of something.
    Write,
    /// Removed or renamed away.
    Delete,
    /// Mode or owner changed.
    Change,
    /// Executed: the file that was named. A script's interpreter needs no right of its own, but a mask of 0 for
    /// it denies the script as well.
    Exec,
    /// Unix socket connected to (`@name`: abstract).
    Unix,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PathRight {
    /// Absolute, no final slash; `@name` for an abstract socket.
    pub path: String,
    /// How much of the tree.
    pub span: Span,
    /// What is done to it.
    pub access: PathAccess,
    /// Who holds it. 0: nobody, whatever a wider right says.
    pub mask: u64,
}

/// Something that the kernel cannot decide.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct AlertOnly {
    /// Rule id and place, or scope of the baseline.
    pub rule: String,
    /// What of it.
    pub what: String,
    /// Why not.
    pub why: String,
}

/// A change of what is in force, for the agent to carry out.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Put this policy into the kernel, instead of an older generation of the same identity.
    Load(Box<Policy>),
    /// This tree is held to the policy of this identity.
    Bind {
        /// Which tree.
        tree: u64,
        /// Whose policy.
        identity: String,
        /// Only tell what would have been denied.
        dry_run: bool,
    },
    /// What a tree that is held was told of names before it was: connections that it has already go on by them.
    Names {
        /// Which tree.
        tree: u64,
        /// Names and their addresses.
        names: Vec<(String, Vec<IpAddr>)>,
    },
    /// This tree is held to no policy any more.
    Release {
        /// Which.
        tree: u64,
    },
    /// Nobody is held to it any more, and new processes of the identity are not either.
    Unload {
        /// Whose.
        identity: String,
    },
}
