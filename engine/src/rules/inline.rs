//! Inline tests as they are written; `case` makes acts of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    value::{Text, Texts},
    written::is_default,
};

/// One act and what the rule must say about it. Whom it is not told about is taken from `match`
/// where that names exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// What is tried.
    pub name: Text,
    /// What must come out of it.
    pub expect: Expect,
    /// Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Text>,
    /// Tool, `@startup` or `@ambient`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Text>,
    /// Package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Text>,
    /// User.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Text>,
    /// Home of that user; `/home/dev` unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Text>,
    /// Root of the server; `/srv/project` unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Text>,
    /// A file is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Text>,
    /// A file is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<Text>,
    /// A file is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<Text>,
    /// A file's mode or owner is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Text>,
    /// A program is executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Text>,
    /// Arguments of that program, its name left out.
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub args: Texts,
    /// That program is an interpreter of this script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Text>,
    /// That program has no file.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memfd: bool,
    /// The file of that program has no name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deleted: bool,
    /// A peer: `203.0.113.7:443/tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Text>,
    /// The name that this peer's address was the answer to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Text>,
    /// An address is listened on: `0.0.0.0:8080/tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<Text>,
    /// A name is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Text>,
    /// A TLS handshake names a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<Text>,
    /// A unix socket is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix: Option<Text>,
    /// A unix socket is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix_listen: Option<Text>,
    /// A system call is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscall: Option<Text>,
    /// An io_uring request is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_uring: Option<Text>,
}

/// What a test must come out as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// Permitted.
    Allow,
    /// Forbidden, by this very rule.
    Deny,
    /// The rules of this file say nothing.
    #[default]
    None,
}
