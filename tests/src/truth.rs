//! The truth: what the oracle server did, written down by itself just before each act.

use engine::output::{NetOp, PathOpKind, SyscallAbi};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One deliberate act of the oracle server or of a process that it made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// JSON-RPC id of the call that caused it.
    pub request_id: Value,
    /// Tool.
    pub tool: String,
    /// Time before the act, ns since boot.
    pub at_boot_ns: u64,
    /// Process that acts.
    pub pid: u32,
    /// How often, from `at_boot_ns` on.
    pub times: u64,
    /// What it does.
    #[serde(flatten)]
    pub act: Act,
}

/// An act: those fields of an effect that the actor knows for certain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are those of engine::output::Effect")]
pub enum Act {
    Fork {
        child: u32,
    },
    /// `path` is not compared when the file has no name.
    Exec {
        path: String,
        argv: Vec<String>,
        script: Option<String>,
        memfd: bool,
        deleted: bool,
    },
    Exit {
        code: Option<u32>,
        signal: Option<u32>,
    },
    Open {
        path: String,
        read: bool,
        write: bool,
        create: bool,
        truncate: bool,
        directory: bool,
        deleted: bool,
    },
    #[serde(rename = "path")]
    PathOp {
        op: PathOpKind,
        path: String,
        to: Option<String>,
    },
    Net {
        op: NetOp,
        address: String,
        port: u16,
        protocol: String,
        mapped: bool,
    },
    Unix {
        op: NetOp,
        path: String,
        error: u32,
    },
    DnsQuery {
        name: String,
        record: String,
        resolver: String,
        port: u16,
    },
    DnsAnswer {
        name: String,
        addresses: Vec<String>,
        resolver: String,
    },
    TlsHello {
        sni: Option<String>,
        address: String,
        port: u16,
    },
    /// Payload of one socket, summed over all its lines.
    Flow {
        address: String,
        port: u16,
        protocol: String,
        bytes_out: u64,
        bytes_in: u64,
    },
    Syscall {
        abi: SyscallAbi,
        nr: u32,
    },
    Special {
        name: String,
        abi: SyscallAbi,
        text: Option<String>,
    },
    Uring {
        opcode: u32,
    },
    /// The call's sum must show at least this much CPU time.
    Cpu {
        at_least_ns: u64,
    },
    /// The call's sum must show at least this peak.
    Rss {
        at_least: u64,
    },
    /// The call's sum must show a reply of at least this size.
    Reply {
        at_least: u64,
    },
}

impl Act {
    /// Name of the kind, as in the JSON.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fork { .. } => "fork",
            Self::Exec { .. } => "exec",
            Self::Exit { .. } => "exit",
            Self::Open { .. } => "open",
            Self::PathOp { .. } => "path",
            Self::Net { .. } => "net",
            Self::Unix { .. } => "unix",
            Self::DnsQuery { .. } => "dns_query",
            Self::DnsAnswer { .. } => "dns_answer",
            Self::TlsHello { .. } => "tls_hello",
            Self::Flow { .. } => "flow",
            Self::Syscall { .. } => "syscall",
            Self::Special { .. } => "special",
            Self::Uring { .. } => "uring",
            Self::Cpu { .. } => "cpu",
            Self::Rss { .. } => "rss",
            Self::Reply { .. } => "reply",
        }
    }

    /// Plain open of an existing file for reading.
    #[must_use]
    pub fn open_read(path: &str) -> Self {
        Self::Open {
            path: path.to_owned(),
            read: true,
            write: false,
            create: false,
            truncate: false,
            directory: false,
            deleted: false,
        }
    }

    /// Open for writing, made and emptied.
    #[must_use]
    pub fn open_create(path: &str) -> Self {
        Self::Open {
            path: path.to_owned(),
            read: false,
            write: true,
            create: true,
            truncate: true,
            directory: false,
            deleted: false,
        }
    }
}
