//! A rule file as it is written: the types that YAML is read into, the JSON Schema is generated
//! from, and an exported baseline is written with. What they *mean* is checked by `compile`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::inline::{Expect, Test};
use super::value::{Text, Texts};
use crate::finding::{Kind, Severity};

/// A file of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// A hard statement by a person, in force even while learning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique among all files: lower-case letters, digits, `-`, `_` and `.`.
    pub id: Text,
    /// A short title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for, and what a hit means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whom it is about; all that is left out matches everything.
    #[serde(default, rename = "match", skip_serializing_if = "is_default")]
    pub matches: Match,
    /// What a hit is called; `rule-hit` unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// How bad a hit is; that of the kind unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// What is to be done about a hit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response: Vec<Response>,
    /// What becomes of the learned baseline of whom it matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<Learned>,
    /// What is permitted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow: Sections,
    /// What is forbidden.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deny: Sections,
    /// What one call may use at most.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// What the field calls it; that of the kind unless told.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tags: Tags,
    /// What is permitted all the same, why, and until when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<Exception>,
    /// What it must say; `toolwarden rules test` runs them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<Test>,
}

/// Whom a rule is about. Globs: `*` is any text, `?` any character, `{a,b}` either, `\` takes the
/// meaning from the next character.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// Names of servers.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub server: Texts,
    /// Names of tools, or the scopes `@startup` and `@ambient`.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub tool: Texts,
    /// Packages such as `npm:@modelcontextprotocol/server-git`.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub package: Texts,
    /// Users that servers run as.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub user: Texts,
}

/// Acts of all sorts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sections {
    /// Files, by what is done to them.
    #[serde(skip_serializing_if = "is_default")]
    pub files: Files,
    /// The network.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Network,
    /// Programs.
    #[serde(skip_serializing_if = "is_default")]
    pub exec: Exec,
    /// Unix sockets that are connected to: path globs, or `@name` for abstract ones.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub unix: Texts,
    /// Unix sockets that are bound.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub unix_listen: Texts,
    /// System calls: `ptrace`, `x86_64:ptrace`, `i386:*`.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub syscalls: Texts,
    /// io_uring operations by name: `connect`, `*`.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub io_uring: Texts,
}

/// Files. Path globs: `*` and `?` stay within a name, `**` is any number of names, a final `/**` is
/// the directory and all below it. `~` is every home, `${home}` and `${user}` the server's own,
/// `${root}` each directory that the server was given or started in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    /// Opened for reading, directories included.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub read: Texts,
    /// Made, or opened for writing, or the new name of something.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub write: Texts,
    /// Removed.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub delete: Texts,
    /// Given another mode or owner.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub change: Texts,
}

/// The network. `HOST[:PORTS][/PROTOCOL]`: a host is an address, a range (`10.0.0.0/8`,
/// `[fd00::/8]:443`), a name glob (`*.github.com:443/tcp`), or one of `any`, `public`, `private`,
/// `loopback`; ports are `443`, `8000-8999` or `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Peers.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub connect: Texts,
    /// Own addresses and ports; no names.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub listen: Texts,
    /// Names asked for. A denied name is denied in a TLS handshake as well; an allowed one is not
    /// allowed there, because anyone can write any name into a handshake.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub dns: Texts,
}

/// Programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Exec {
    /// Path globs of programs. A script is permitted by its own path, forbidden by that of its
    /// interpreter too.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub paths: Texts,
    /// Globs of single arguments, the program's name left out: permitted when every argument
    /// matches one of them, forbidden when any does.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub args: Texts,
    /// Programs from memory (`memfd_create`).
    #[serde(skip_serializing_if = "is_default")]
    pub memfd: bool,
    /// Programs whose file has no name any more.
    #[serde(skip_serializing_if = "is_default")]
    pub deleted: bool,
}

/// What one call may use at most. Units: `64KiB`, `1MB`, `250ms`, `30s`, `5m`; counts are numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections and datagrams to new destinations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connects: Option<Text>,
    /// Payload bytes sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<Text>,
    /// Payload bytes received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<Text>,
    /// Processes born.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub children: Option<Text>,
    /// Files opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Text>,
    /// Programs executed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execs: Option<Text>,
    /// From the request to the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<Text>,
    /// CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Text>,
    /// Highest resident set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Text>,
    /// Bytes of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_bytes: Option<Text>,
}

/// What the field calls it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tags {
    /// MITRE ATT&CK technique ids.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub attack: Texts,
    /// MITRE ATLAS technique ids.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub atlas: Texts,
    /// OWASP MCP Top 10 ids.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub owasp_mcp: Texts,
    /// Words of your own.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub labels: Texts,
}

/// What is permitted all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// A name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Text>,
    /// Why, and who says so.
    pub reason: Text,
    /// The first day on which it no longer holds, UTC: `2027-01-31`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Text>,
    /// Files.
    #[serde(default, skip_serializing_if = "is_default")]
    pub files: Files,
    /// The network.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: Network,
    /// Programs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exec: Exec,
    /// Unix sockets that are connected to.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub unix: Texts,
    /// Unix sockets that are bound.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub unix_listen: Texts,
    /// System calls.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub syscalls: Texts,
    /// io_uring operations.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub io_uring: Texts,
}

impl Exception {
    /// Its acts. (They are not a struct within it in YAML either: flattening loses places.)
    #[must_use]
    pub fn sections(&self) -> Sections {
        let Self {
            id: _,
            reason: _,
            expires: _,
            files,
            network,
            exec,
            unix,
            unix_listen,
            syscalls,
            io_uring,
        } = self;
        Sections {
            files: files.clone(),
            network: network.clone(),
            exec: exec.clone(),
            unix: unix.clone(),
            unix_listen: unix_listen.clone(),
            syscalls: syscalls.clone(),
            io_uring: io_uring.clone(),
        }
    }

    /// An exception for these acts.
    #[must_use]
    pub fn new(reason: impl Into<String>, sections: Sections) -> Self {
        let Sections { files, network, exec, unix, unix_listen, syscalls, io_uring } = sections;
        let (id, reason, expires) = (None, Text::new(reason), None);
        Self { id, reason, expires, files, network, exec, unix, unix_listen, syscalls, io_uring }
    }
}

/// What becomes of the learned baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Learned {
    /// It counts beside the rules.
    #[default]
    Merge,
    /// It does not count: what no rule permits is a finding.
    Ignore,
    /// Only it counts for what is permitted; rules can only forbid.
    Only,
}

/// What is to be done about a hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Tell.
    Alert,
    /// Slow the server down.
    Throttle,
    /// Take the network from the server.
    CutNetwork,
    /// Stop the server until a person decides.
    Freeze,
    /// End the process, then the server.
    Kill,
    /// Refuse this act in the kernel.
    Deny,
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
