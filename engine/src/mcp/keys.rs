//! The only keys that mean something, and where. Everything else is payload.

/// What a container is, as far as we care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// A top-level array.
    Batch,
    /// One JSON-RPC message.
    Message,
    Params,
    ParamsMeta,
    Arguments,
    Client,
    Result,
    ResultMeta,
    Server,
    Task,
    Tools,
    Tool,
    /// Payload, however deep.
    #[default]
    Other,
}

/// What a value is, as far as we care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Field {
    /// An element of a batch.
    Element,
    Id,
    Method,
    JsonRpc,
    Params,
    Result,
    Error,
    /// `params.name`
    Name,
    Arguments,
    /// A member of `params.arguments`, whatever its name.
    Argument,
    RequestId,
    Protocol,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`
    MetaProtocol,
    Capabilities,
    ClientInfo,
    ClientName,
    ClientVersion,
    /// What the language server protocol's `initialize` has and MCP's has not.
    Lsp,
    ParamsMeta,
    TaskId,
    TaskStatus,
    Task,
    ServerInfo,
    ServerName,
    ServerVersion,
    ResultType,
    IsError,
    Tools,
    /// An element of `result.tools`.
    Tool,
    ToolName,
    ResultMeta,
    #[default]
    Other,
}

impl Role {
    /// Field of the elements of an array with this role.
    pub(crate) fn element(self) -> Field {
        match self {
            Self::Batch => Field::Element,
            Self::Tools => Field::Tool,
            _ => Field::Other,
        }
    }

    /// Field of the member `key` of an object with this role.
    pub(crate) fn member(self, key: &[u8]) -> Field {
        match (self, key) {
            (Self::Message, b"id") => Field::Id,
            (Self::Message, b"method") => Field::Method,
            (Self::Message, b"jsonrpc") => Field::JsonRpc,
            (Self::Message, b"params") => Field::Params,
            (Self::Message, b"result") => Field::Result,
            (Self::Message, b"error") => Field::Error,

            (Self::Params, b"name") => Field::Name,
            (Self::Params, b"arguments") => Field::Arguments,
            (Self::Params, b"requestId") => Field::RequestId,
            (Self::Params, b"capabilities") => Field::Capabilities,
            (Self::Params, b"clientInfo") => Field::ClientInfo,
            (Self::Params, b"_meta") => Field::ParamsMeta,
            (Self::Params, b"processId" | b"rootUri" | b"rootPath" | b"workspaceFolders") => Field::Lsp,
            (Self::ParamsMeta, b"io.modelcontextprotocol/protocolVersion") => Field::MetaProtocol,
            (Self::ParamsMeta, b"io.modelcontextprotocol/clientInfo") => Field::ClientInfo,
            (Self::Client, b"name") => Field::ClientName,
            (Self::Client, b"version") => Field::ClientVersion,
            (Self::Arguments, _) => Field::Argument,

            (Self::Result, b"serverInfo") => Field::ServerInfo,
            (Self::Result, b"resultType") => Field::ResultType,
            (Self::Result, b"isError") => Field::IsError,
            (Self::Result, b"tools") => Field::Tools,
            (Self::Result, b"task") => Field::Task,
            (Self::Result, b"_meta") => Field::ResultMeta,
            (Self::ResultMeta, b"io.modelcontextprotocol/serverInfo") => Field::ServerInfo,
            (Self::Server, b"name") => Field::ServerName,
            (Self::Server, b"version") => Field::ServerVersion,
            (Self::Tool, b"name") => Field::ToolName,

            (Self::Params | Self::Result, b"protocolVersion") => Field::Protocol,
            (Self::Params | Self::Result | Self::Task, b"taskId") => Field::TaskId,
            (Self::Params | Self::Result | Self::Task, b"status") => Field::TaskStatus,
            _ => Field::Other,
        }
    }
}

impl Field {
    /// Role of a container that is this field's value.
    pub(crate) fn role(self, object: bool) -> Role {
        match (self, object) {
            (Self::Element, true) => Role::Message,
            (Self::Params, true) => Role::Params,
            (Self::ParamsMeta, true) => Role::ParamsMeta,
            (Self::Arguments, true) => Role::Arguments,
            (Self::ClientInfo, true) => Role::Client,
            (Self::Result, true) => Role::Result,
            (Self::ResultMeta, true) => Role::ResultMeta,
            (Self::ServerInfo, true) => Role::Server,
            (Self::Task, true) => Role::Task,
            (Self::Tools, false) => Role::Tools,
            (Self::Tool, true) => Role::Tool,
            _ => Role::Other,
        }
    }

    /// How many bytes of a string or number in this field are kept, decoded; 0: none.
    /// These values belong to the protocol, so they stay in clear; all others are payload.
    pub(crate) fn limit(self) -> usize {
        match self {
            Self::Id | Self::RequestId | Self::Method => 128,
            Self::JsonRpc
            | Self::Name
            | Self::Protocol
            | Self::MetaProtocol
            | Self::ClientName
            | Self::ClientVersion
            | Self::TaskId
            | Self::TaskStatus
            | Self::ServerName
            | Self::ServerVersion
            | Self::ResultType
            | Self::ToolName => 256,
            _ => 0,
        }
    }

    /// One bit a field, to notice duplicate keys; 0 where one field stands for many keys.
    pub(crate) fn bit(self) -> u64 {
        match self {
            Self::Argument | Self::Lsp | Self::Other => 0,
            _ => 1 << self as u32,
        }
    }
}
