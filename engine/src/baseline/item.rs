//! Acts in general terms: what sets are kept of.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{general, roots::Roots};
use crate::{
    act::{Access, Act},
    output::SyscallAbi,
};

/// What sets are kept of.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the acts")]
pub enum Dimension {
    Exec,
    Read,
    Write,
    Delete,
    Change,
    Connect,
    Listen,
    Dns,
    Unix,
    Syscall,
    Special,
    Uring,
}

/// Most levels that a dimension has, fine to coarse.
pub const LEVELS: usize = 3;

/// An act in general terms: its name at each level, fine to coarse.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// What it is of.
    pub dimension: Dimension,
    /// Names; never empty.
    pub levels: Vec<Arc<str>>,
}

/// An act in general terms; `None` for acts that are no baseline's business.
#[must_use]
pub fn item(act: &Act<'_>, roots: &Roots) -> Option<Item> {
    fn of<const N: usize>(dimension: Dimension, levels: [String; N]) -> Item {
        Item { dimension, levels: levels.into_iter().map(Arc::from).collect() }
    }
    Some(match act {
        Act::Exec { file, argv, script, .. } => {
            let [path, _, _] = general::path(script.unwrap_or(file), roots);
            let shape = general::shape(argv, roots);
            of(Dimension::Exec, [format!("{path} · {shape}"), path])
        }
        // They hold nothing.
        Act::File {
            path: "/dev/null" | "/dev/zero" | "/dev/full" | "/dev/random" | "/dev/urandom", ..
        } => {
            return None;
        }
        Act::File { access, path, .. } => {
            let dimension = match access {
                Access::Read => Dimension::Read,
                Access::Write => Dimension::Write,
                Access::Delete => Dimension::Delete,
                Access::Change => Dimension::Change,
            };
            of(dimension, general::path(path, roots))
        }
        Act::Connect { address, name, port, protocol } => {
            of(Dimension::Connect, general::destination(*address, *name, *port, protocol))
        }
        Act::Listen { address, port, protocol } => {
            let class = general::address_class(*address);
            let port = if *port == 0 || *port >= 32768 { "{high}".into() } else { port.to_string() };
            of(Dimension::Listen, [format!("{class}:{port}/{protocol}")])
        }
        Act::Dns { name, .. } => of(Dimension::Dns, general::domain(name)),
        Act::Unix { path, listen } => {
            let [fine, _, area] = general::path(path, roots);
            let act = if *listen { "bind " } else { "" };
            of(Dimension::Unix, [format!("{act}{fine}"), format!("{act}{area}")])
        }
        Act::Syscall { abi: SyscallAbi::X86_64, nr } if is_common(*nr) => return None,
        Act::Syscall { abi, nr } => {
            let table = match abi {
                SyscallAbi::X86_64 => "x86_64",
                SyscallAbi::I386 => "i386",
            };
            of(Dimension::Syscall, [format!("{table}:{nr}")])
        }
        Act::Special { name, .. } => of(Dimension::Special, [(*name).to_owned()]),
        Act::Uring { name } => of(Dimension::Uring, [(*name).to_owned()]),
        // What it goes to is judged where it connects; the name itself by a detector.
        Act::Sni { .. } => return None,
    })
}

/// System calls of memory, threads, clocks, signals, descriptors and directories that any runtime makes at times
/// of its own choosing: which call they fall into says nothing about a tool. By number in the x86_64 table.
#[must_use]
pub fn is_common(nr: u32) -> bool {
    matches!(
        nr,
        0..=40 | 44..=48 | 54..=55 | 60..=63 | 72..=81 | 89 | 95..=100 | 102 | 104 | 107..=111 | 131 | 137..=138
            | 157..=158 | 186 | 200..=204 | 217..=219 | 221 | 228..=235 | 247 | 257 | 262 | 270..=271 | 273
            | 280..=281 | 283..=293 | 302 | 309 | 318 | 332 | 334 | 435..=439 | 441
            // Acts on files, programs and peers: they are judged by what they touch.
            | 41..=43 | 49..=50 | 56..=59 | 82..=88 | 90..=94 | 258..=261 | 263..=269 | 299 | 307 | 316 | 322 | 326 | 452
    )
}

pub(super) const DIMENSIONS: [Dimension; 12] = [
    Dimension::Exec,
    Dimension::Read,
    Dimension::Write,
    Dimension::Delete,
    Dimension::Change,
    Dimension::Connect,
    Dimension::Listen,
    Dimension::Dns,
    Dimension::Unix,
    Dimension::Syscall,
    Dimension::Special,
    Dimension::Uring,
];

pub(super) fn levels_of(dimension: Dimension) -> usize {
    match dimension {
        Dimension::Read | Dimension::Write | Dimension::Delete | Dimension::Change | Dimension::Connect => 3,
        Dimension::Exec | Dimension::Dns | Dimension::Unix => 2,
        Dimension::Listen | Dimension::Syscall | Dimension::Special | Dimension::Uring => 1,
    }
}
