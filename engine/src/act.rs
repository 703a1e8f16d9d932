//! Acts: effects in the one form that rules, detectors and baselines decide about.

use std::net::IpAddr;

use crate::output::{Effect, NetOp, PathOpKind, SyscallAbi};

/// What was done to a file.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Its bytes or its listing were opened for reading.
    Read,
    /// It was made, opened for writing, or became the new name of something.
    Write,
    /// Its name was removed (unlink, rmdir, the old name of a rename).
    Delete,
    /// Its mode or owner changed.
    Change,
}

/// One act. An effect may be several: a file opened for reading and writing is two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the effects")]
pub enum Act<'a> {
    /// A program was executed.
    Exec { file: &'a str, argv: &'a [String], script: Option<&'a str>, memfd: bool, deleted: bool },
    /// A file was touched.
    File { access: Access, path: &'a str, directory: bool, truncated: bool },
    /// A peer was connected to, or sent a datagram.
    Connect { address: IpAddr, name: Option<&'a str>, port: u16, protocol: &'a str },
    /// A port was bound or listened on.
    Listen { address: IpAddr, port: u16, protocol: &'a str },
    /// A name was asked for.
    Dns { name: &'a str, record: &'a str },
    /// A TLS handshake named a server.
    Sni { name: &'a str, address: IpAddr, port: u16 },
    /// A unix socket was connected to (`listen`: bound).
    Unix { path: &'a str, listen: bool },
    /// A system call was used.
    Syscall { abi: SyscallAbi, nr: u32 },
    /// A system call that deserves attention succeeded or was tried.
    Special { name: &'a str, result: i64 },
    /// An io_uring request.
    Uring { name: &'a str },
}

/// Calls `f` with each act of an effect.
pub fn each(effect: &Effect, mut f: impl FnMut(Act<'_>)) {
    match effect {
        Effect::Exec { path, argv, script, memfd, deleted, env, .. } => {
            f(Act::Exec { file: path, argv, script: script.as_deref(), memfd: *memfd, deleted: *deleted });
            // Code that comes in by the environment: as notable as a system call that injects it.
            for name in env {
                f(Act::Special { name: env_act(name), result: 0 });
            }
        }
        Effect::Open { path, truncated, read, write, create, truncate, directory, .. } => {
            let mut file = |access| {
                f(Act::File { access, path, directory: *directory, truncated: *truncated });
            };
            if *read {
                file(Access::Read);
            }
            if *write || *create || *truncate {
                file(Access::Write);
            }
        }
        Effect::PathOp { op, path, to, truncated, .. } => {
            let mut file = |access, path| {
                f(Act::File { access, path, directory: false, truncated: *truncated });
            };
            match op {
                PathOpKind::Unlink | PathOpKind::Rmdir => file(Access::Delete, path),
                PathOpKind::Rename => {
                    file(Access::Delete, path);
                    if let Some(to) = to {
                        file(Access::Write, to);
                    }
                }
                PathOpKind::Chmod | PathOpKind::Chown => file(Access::Change, path),
                PathOpKind::Mkdir | PathOpKind::Mknod | PathOpKind::Truncate => file(Access::Write, path),
                // What it points to is only text; the new name is the act. A hard link also gives
                // its old name's bytes another name.
                PathOpKind::Symlink | PathOpKind::Link => {
                    if *op == PathOpKind::Link {
                        file(Access::Read, path);
                    }
                    if let Some(to) = to {
                        file(Access::Write, to);
                    }
                }
            }
        }
        Effect::Net { op, address, port, protocol, name, .. } => {
            let Ok(address) = address.parse() else { return };
            match op {
                NetOp::Connect | NetOp::Sendmsg => {
                    f(Act::Connect { address, name: name.as_deref(), port: *port, protocol });
                }
                NetOp::Bind | NetOp::Listen => f(Act::Listen { address, port: *port, protocol }),
                NetOp::Accept => {}
            }
        }
        Effect::Unix { op, path, .. } => {
            f(Act::Unix { path, listen: matches!(op, NetOp::Bind | NetOp::Listen) });
        }
        Effect::DnsQuery { name, record, .. } => f(Act::Dns { name, record }),
        Effect::TlsHello { sni: Some(name), address, port } => {
            if let Ok(address) = address.parse() {
                f(Act::Sni { name, address, port: *port });
            }
        }
        Effect::Syscall { abi, nr } => f(Act::Syscall { abi: *abi, nr: *nr }),
        Effect::Special { name, result, .. } => f(Act::Special { name, result: *result }),
        Effect::Uring { name, .. } => f(Act::Uring { name }),
        // Nothing was done; that it was tried is told by itself.
        Effect::Denied { .. }
        | Effect::Fork { .. }
        | Effect::Exit { .. }
        | Effect::DnsAnswer { .. }
        | Effect::TlsHello { sni: None, .. }
        | Effect::Flow { .. } => {}
    }
}

/// The act that a variable in the environment of a new program is. Names come from a fixed list.
fn env_act(name: &str) -> &'static str {
    match name {
        "LD_PRELOAD" => "env:LD_PRELOAD",
        "LD_AUDIT" => "env:LD_AUDIT",
        "LD_LIBRARY_PATH" => "env:LD_LIBRARY_PATH",
        "NODE_OPTIONS" => "env:NODE_OPTIONS",
        "PYTHONSTARTUP" => "env:PYTHONSTARTUP",
        "PYTHONPATH" => "env:PYTHONPATH",
        "BASH_ENV" => "env:BASH_ENV",
        _ => "env:other",
    }
}
