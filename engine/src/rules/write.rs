//! Rules as text again: what permits a finding, and what a learned baseline is exported as. A
//! person reads, edits and commits it.

use super::{
    names::escape,
    select::{Where, Who},
    value::{Text, Texts},
    written::{Exception, Exec, Files, Match, Network, Rule, RuleFile, Sections},
};
use crate::{
    act::{Access, Act},
    finding::Kind,
    output::SyscallAbi,
};

/// What editors need to complete and check a rule file that stands beside the schema.
pub const EDITOR_LINE: &str = "# yaml-language-server: $schema=./rule.schema.json\n";

/// A rule file as text. `None` never happens for what `parse` gave; the types can hold nothing that
/// YAML cannot.
#[must_use]
pub fn export(file: &RuleFile) -> String {
    let yaml =
        serde_saphyr::to_string(file).unwrap_or_else(|error| format!("# cannot be written: {error}\n"));
    format!("{EDITOR_LINE}{yaml}")
}

/// The rule that would permit an act: an exception for this server and scope only, with a reason to
/// be filled in.
#[must_use]
pub fn permit(kind: Kind, who: &Who, act: &Act<'_>) -> String {
    let rule = Rule {
        id: Text::new(permit_id(kind, who, act)),
        name: Some(format!("Permit one {} of {}", kind.id(), who.server)),
        matches: match_of(who),
        exceptions: vec![Exception::new("say why this is expected, and who says so", sections(who, act))],
        ..Rule::default()
    };
    export(&RuleFile { rules: vec![rule] })
}

/// A match of exactly this server and scope.
#[must_use]
pub fn match_of(who: &Who) -> Match {
    let one = |text: &str| Texts::from_iter([text]);
    Match {
        server: one(&escape(&who.server)),
        tool: match &who.scope {
            Where::Startup => one("@startup"),
            Where::Ambient => one("@ambient"),
            // A tool's own `@` is no scope.
            Where::Tool(tool) if tool.starts_with('@') => one(&format!("\\{}", escape(tool))),
            Where::Tool(tool) => one(&escape(tool)),
        },
        package: who.package.as_deref().map(|p| one(&escape(p))).unwrap_or_default(),
        user: Texts::default(),
    }
}

/// The sections that are about this act and no other.
#[must_use]
pub fn sections(who: &Who, act: &Act<'_>) -> Sections {
    let one = |text: String| Texts::from_iter([text]);
    let mut out = Sections::default();
    match act {
        Act::File { access, path, .. } => {
            let list = one(portable(path, who));
            let files = &mut out.files;
            match access {
                Access::Read => files.read = list,
                Access::Write => files.write = list,
                Access::Delete => files.delete = list,
                Access::Change => files.change = list,
            }
        }
        Act::Exec { file, script, memfd, deleted, .. } => {
            let paths = if *memfd { Texts::default() } else { one(portable(script.unwrap_or(file), who)) };
            out.exec = Exec { paths, args: Texts::default(), memfd: *memfd, deleted: *deleted && !*memfd };
        }
        Act::Connect { address, name, port, protocol } => {
            out.network.connect = one(peer(*address, *name, *port, protocol));
        }
        Act::Listen { address, port, protocol } => {
            out.network.listen = one(peer(*address, None, *port, protocol));
        }
        Act::Dns { name, .. } => out.network.dns = one(escape(name)),
        // No rule permits a handshake; the peer can be permitted.
        Act::Sni { address, port, .. } => {
            out.network.connect = one(peer(*address, None, *port, "tcp"));
        }
        Act::Unix { path, listen } => {
            let text = if path.starts_with('@') { escape(path) } else { portable(path, who) };
            if *listen {
                out.unix_listen = one(text);
            } else {
                out.unix = one(text);
            }
        }
        Act::Syscall { abi, nr } => out.syscalls = one(syscall(*abi, *nr)),
        Act::Special { name, .. } => out.syscalls = one((*name).to_owned()),
        Act::Uring { name } => out.io_uring = one(escape(name)),
    }
    out
}

/// A path as a pattern that moves between hosts: with `${root}` and `${home}`.
#[must_use]
pub fn portable(path: &str, who: &Who) -> String {
    let below = |base: &str| {
        let base = base.strip_suffix('/').unwrap_or(base);
        let rest = path.strip_prefix(base).filter(|_| !base.is_empty())?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    };
    // The longest root says most.
    let mut roots: Vec<&String> = who.roots.iter().collect();
    roots.sort_by_key(|root| std::cmp::Reverse(root.len()));
    if let Some(rest) = roots.into_iter().find_map(|root| below(root)) {
        return format!("${{root}}{}", escape(rest));
    }
    if let Some(rest) = who.home.as_deref().and_then(below) {
        return format!("${{home}}{}", escape(rest));
    }
    escape(path)
}

/// A peer as a pattern.
#[must_use]
pub fn peer(address: std::net::IpAddr, name: Option<&str>, port: u16, protocol: &str) -> String {
    let host = match (name, address.to_canonical()) {
        (Some(name), _) => escape(name),
        (None, std::net::IpAddr::V6(v6)) => format!("[{v6}]"),
        (None, v4) => v4.to_string(),
    };
    // A protocol without a name is left open.
    if super::net::is_protocol(protocol) {
        format!("{host}:{port}/{protocol}")
    } else {
        format!("{host}:{port}")
    }
}

/// A system call as a pattern.
#[must_use]
pub fn syscall(abi: SyscallAbi, nr: u32) -> String {
    let table = match abi {
        SyscallAbi::X86_64 => "x86_64",
        SyscallAbi::I386 => "i386",
    };
    match super::syscalls::name(abi, nr) {
        Some(name) => format!("{table}:{name}"),
        None => format!("{table}:{nr}"),
    }
}

/// Whether a text is a pattern of paths.
#[must_use]
pub fn is_path(text: &str) -> bool {
    super::glob::PathPattern::parse(text).is_ok()
}

/// Whether a text is a pattern of unix sockets.
#[must_use]
pub fn is_unix(text: &str) -> bool {
    super::glob::PathPattern::parse_unix(text).is_ok()
}

/// Whether a text is a pattern of peers.
#[must_use]
pub fn is_peer(text: &str) -> bool {
    super::net::Destination::parse(text).is_ok()
}

/// Whether a text is a pattern of hosts.
#[must_use]
pub fn is_host(text: &str) -> bool {
    super::names::NameGlob::parse_host(text).is_ok()
}

/// Whether a text is a pattern of system calls.
#[must_use]
pub fn is_syscall(text: &str) -> bool {
    super::compile::parse_syscall(text).is_ok()
}

/// Whether a pattern can name a protocol.
#[must_use]
pub fn is_protocol(text: &str) -> bool {
    super::net::is_protocol(text)
}

/// Stable: the same act of the same tool gives the same id.
fn permit_id(kind: Kind, who: &Who, act: &Act<'_>) -> String {
    let what = serde_json::to_string(&sections(who, act)).unwrap_or_default();
    let scope = format!("{:?}", who.scope);
    let mut hash = blake3::Hasher::new();
    for part in [kind.id(), who.server.as_str(), scope.as_str(), what.as_str()] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let hex = hash.finalize().to_hex();
    format!("permit-{}-{}", kind.id(), hex.get(..12).unwrap_or_default())
}

impl Sections {
    /// Adds what another permits.
    pub fn merge(&mut self, other: Self) {
        let Self { files, network, exec, unix, unix_listen, syscalls, io_uring } = other;
        let Files { read, write, delete, change } = files;
        let Network { connect, listen, dns } = network;
        let Exec { paths, args, memfd, deleted } = exec;
        for (to, from) in [
            (&mut self.files.read, read),
            (&mut self.files.write, write),
            (&mut self.files.delete, delete),
            (&mut self.files.change, change),
            (&mut self.network.connect, connect),
            (&mut self.network.listen, listen),
            (&mut self.network.dns, dns),
            (&mut self.exec.paths, paths),
            (&mut self.exec.args, args),
            (&mut self.unix, unix),
            (&mut self.unix_listen, unix_listen),
            (&mut self.syscalls, syscalls),
            (&mut self.io_uring, io_uring),
        ] {
            to.0.extend(from.0);
        }
        self.exec.memfd |= memfd;
        self.exec.deleted |= deleted;
    }
}
