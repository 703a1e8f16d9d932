//! What is kept of one JSON-RPC message.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{keys::Field, text::Text};
use crate::input::Digest;

/// A request id. Ids are compared, never computed with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A plain integer.
    Number(i64),
    /// A string.
    Text(Box<str>),
    /// Any other number, as written.
    Raw(Box<str>),
    /// BLAKE3 of an id that is too long to keep.
    Hash([u8; 16]),
    /// `null`: a reply to a request that could not be read.
    Null,
}

impl Id {
    pub(crate) fn text(text: Text) -> Self {
        match text {
            Text::Whole(text) => Self::Text(text),
            Text::Long(hash) => Self::Hash(hash),
        }
    }

    pub(crate) fn number(text: Text) -> Self {
        match text {
            Text::Whole(text) => text.parse().map_or(Self::Raw(text), Self::Number),
            Text::Long(hash) => Self::Hash(hash),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) | Self::Raw(text) => f.write_str(text),
            Self::Hash(hash) => hash.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Null => f.write_str("null"),
        }
    }
}

/// One top-level member of `params.arguments`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgumentValue {
    /// Its key.
    pub name: Box<str>,
    /// Length of the value as written.
    pub bytes: u64,
    /// Keyed hash of the value as written; zero if it was not handed in.
    pub digest: Digest,
    /// The value as written, at most its first 4096 bytes; only when asked for.
    pub value: Option<Box<str>>,
}

/// What tells MCP from other protocols that look like it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `jsonrpc` is `"2.0"`.
    pub jsonrpc: bool,
    /// The protocol version stands in `params._meta`.
    pub meta_protocol: bool,
    /// `params.capabilities` is there.
    pub capabilities: bool,
    /// `params` has what only the language server protocol's `initialize` has.
    pub lsp: bool,
}

/// What is kept of one JSON-RPC message. Names that are too long are `blake3:<hash>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Length, without the newline; of the inner object in a batch.
    pub bytes: u64,
    /// Bytes are missing: any field may be, too.
    pub cut: bool,
    /// Part of a batch.
    pub batch: bool,
    /// A key that matters came twice in one object; the last one counts.
    pub duplicate_keys: bool,
    /// BLAKE3 of the line without its newline (of the inner object in a batch); zero when `cut`.
    pub line_hash: [u8; 16],
    /// `id`
    pub id: Option<Id>,
    /// `method`
    pub method: Option<Box<str>>,
    /// `result` is there.
    pub has_result: bool,
    /// `error` is there and not null.
    pub has_error: bool,
    /// `params.name`: the tool, in `tools/call`.
    pub tool: Option<Box<str>>,
    /// `params.requestId`: the request that is cancelled, in `notifications/cancelled`.
    pub cancelled: Option<Id>,
    /// Protocol version, from `params`, `params._meta` or `result`.
    pub protocol: Option<Box<str>>,
    /// Name in `clientInfo`, from `params` or `params._meta`.
    pub client_name: Option<Box<str>>,
    /// Version in `clientInfo`.
    pub client_version: Option<Box<str>>,
    /// Name in `serverInfo`, from `result` or `result._meta`.
    pub server_name: Option<Box<str>>,
    /// Version in `serverInfo`.
    pub server_version: Option<Box<str>>,
    /// `result.resultType`
    pub result_type: Option<Box<str>>,
    /// `result.isError` is true.
    pub is_error: bool,
    /// `taskId` in `params`, `result` or `result.task`.
    pub task_id: Option<Box<str>>,
    /// `status` beside it: `completed`, `failed` and `cancelled` are terminal.
    pub task_status: Option<Box<str>>,
    /// `result.tools[].name`, the first 512.
    pub tools: Vec<Box<str>>,
    /// Names in `result.tools` beyond those.
    pub tools_dropped: u32,
    /// Members of `params.arguments`.
    pub arguments: Vec<ArgumentValue>,
    /// Members beyond the first 64, or cut.
    pub arguments_dropped: u32,
    /// What tells MCP from other protocols.
    pub hints: Hints,
}

impl Message {
    /// A method and an id.
    pub fn is_request(&self) -> bool {
        self.method.is_some() && self.has_id()
    }

    /// A method without an id.
    pub fn is_notification(&self) -> bool {
        self.method.is_some() && !self.has_id()
    }

    /// A result or an error. A `cut` message of which only the id is left is none of the three.
    pub fn is_reply(&self) -> bool {
        self.method.is_none() && (self.has_result || self.has_error)
    }

    /// Is this MCP, rather than something else that speaks JSON on lines?
    pub fn is_mcp(&self) -> bool {
        if self.hints.meta_protocol {
            return true;
        }
        let Some(method) = self.method.as_deref() else {
            return false;
        };
        match method {
            "initialize" => {
                // The language server protocol has it too, others as well, with a number for version.
                let parts = self.hints.capabilities && self.client_name.is_some();
                self.protocol.is_some() || (parts && self.hints.jsonrpc && !self.hints.lsp)
            }
            "ping" => self.hints.jsonrpc,
            "server/discover" | "completion/complete" | "logging/setLevel" | "roots/list" => true,
            _ => match method.split_once('/') {
                Some(("tools", rest)) => matches!(rest, "list" | "call"),
                Some(("resources" | "prompts" | "sampling" | "elicitation" | "tasks", _)) => true,
                Some(("notifications", rest)) => is_notification(rest),
                _ => false,
            },
        }
    }

    /// A duplicate of `field` begins: the first one never was.
    pub(crate) fn clear(&mut self, field: Field) {
        match field {
            Field::Id => self.id = None,
            Field::Method => self.method = None,
            Field::Error => self.has_error = false,
            Field::JsonRpc => self.hints.jsonrpc = false,
            Field::Name => self.tool = None,
            Field::RequestId => self.cancelled = None,
            Field::ResultType => self.result_type = None,
            Field::IsError => self.is_error = false,
            Field::TaskId => self.task_id = None,
            Field::TaskStatus => self.task_status = None,
            Field::ClientName => self.client_name = None,
            Field::ClientVersion => self.client_version = None,
            Field::ServerName => self.server_name = None,
            Field::ServerVersion => self.server_version = None,
            Field::Protocol => self.protocol = None,
            Field::MetaProtocol => {
                self.protocol = None;
                self.hints.meta_protocol = false;
            }
            Field::Arguments => {
                self.arguments.clear();
                self.arguments_dropped = 0;
            }
            Field::Tools => {
                self.tools.clear();
                self.tools_dropped = 0;
            }
            Field::Task => self.clear_all(&[Field::TaskId, Field::TaskStatus]),
            Field::ClientInfo => self.clear_all(&[Field::ClientName, Field::ClientVersion]),
            Field::ServerInfo => self.clear_all(&[Field::ServerName, Field::ServerVersion]),
            Field::ParamsMeta => self.clear_all(&[Field::MetaProtocol, Field::ClientInfo]),
            Field::ResultMeta => self.clear(Field::ServerInfo),
            Field::Params => {
                self.clear_all(&[Field::Name, Field::Arguments, Field::RequestId, Field::Task]);
                self.clear(Field::ParamsMeta);
                self.hints.capabilities = false;
                self.hints.lsp = false;
            }
            Field::Result => {
                self.clear_all(&[Field::ResultType, Field::IsError, Field::Tools, Field::Task]);
                self.clear_all(&[Field::ServerInfo, Field::Protocol]);
            }
            _ => {}
        }
    }

    fn clear_all(&mut self, fields: &[Field]) {
        fields.iter().for_each(|field| self.clear(*field));
    }

    /// Heap held, bytes.
    pub(crate) fn held(&self) -> usize {
        let tools: usize = self.tools.iter().map(|tool| tool.len() + size_of::<Box<str>>()).sum();
        let argument = |argument: &ArgumentValue| {
            size_of::<ArgumentValue>()
                + argument.name.len()
                + argument.value.as_ref().map_or(0, |value| value.len())
        };
        let arguments: usize = self.arguments.iter().map(argument).sum();
        size_of::<Self>() + tools + arguments
    }

    fn has_id(&self) -> bool {
        !matches!(self.id, None | Some(Id::Null))
    }
}

fn is_notification(name: &str) -> bool {
    matches!(
        name,
        "initialized"
            | "cancelled"
            | "progress"
            | "message"
            | "roots/list_changed"
            | "tools/list_changed"
            | "prompts/list_changed"
            | "resources/list_changed"
            | "resources/updated"
            | "elicitation/complete"
            | "tasks/status"
    )
}
