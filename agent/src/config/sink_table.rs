//! The keys of a sink.

use std::collections::BTreeMap;

use engine::finding::{Kind, Severity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::written::{Absolute, Bytes, Span, UpTo};
use crate::{
    sinks::{
        Redact,
        secret::Source,
        spec::{Encoding, Format},
    },
    store::Type,
};

/// Where events go. Which keys there are depends on `type`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SinkTable {
    /// What it is
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<SinkKind>,
    /// How an event looks. By default `json`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<Format>,
    /// What it does not get
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) redact: Option<Vec<Redact>>,
    /// Only what is that severe or worse
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) severity: Option<Severity>,
    /// Only these; `gap` comes always, `effect` only when it is named
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) types: Option<Vec<Type>>,
    /// Only of servers with these names (globs)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) servers: Option<Vec<String>>,
    /// Of findings, only those of these kinds
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kinds: Option<Vec<Kind>>,
    /// `file`: where. `journald`: its socket, by default /run/systemd/journal/socket
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<Absolute>,
    /// `file`: it is rotated before it would be larger. By default 64MiB
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_bytes: Option<Bytes>,
    /// `file`: older ones that are kept. By default 4
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep: Option<UpTo<1000>>,
    /// `syslog`: `udp://HOST:514`, `tcp://HOST:514` or `tls://HOST:6514`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    /// `syslog`: by default `audit`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) facility: Option<Facility>,
    /// `syslog`: by default `toolwarden`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_name: Option<String>,
    /// `syslog`: private enterprise number of the structured data `toolwarden@NUMBER`. By default 32473, which is for examples
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enterprise: Option<UpTo<4_294_967_295>>,
    /// `syslog`: longer messages are cut and marked (480 to 1048576 bytes). By default 2048 with UDP; else none is cut
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_message: Option<UpTo<1_048_576>>,
    /// `splunk_hec`, `otlp`, `webhook`: where to; https, or http to this host
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// `splunk_hec`, `otlp`, `webhook`: http to other hosts: anybody on the way can read events and credentials
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_plaintext: Option<bool>,
    /// `splunk_hec`, `otlp`, `webhook`: sent as `Authorization: Splunk ...`, for the others `Bearer ...`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Source>,
    /// `webhook`: key of the signature in `x-toolwarden-signature`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hmac_key: Option<Source>,
    /// `splunk_hec`, `otlp`, `webhook`: further headers, each a text or where its secret stands
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) headers: Option<BTreeMap<String, Header>>,
    /// `splunk_hec`: by default that of the token
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<String>,
    /// `splunk_hec`: by default `toolwarden`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// `splunk_hec`: by default `toolwarden:FORMAT`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sourcetype: Option<String>,
    /// `otlp`: by default `protobuf`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encoding: Option<Encoding>,
    /// `splunk_hec`, `otlp`, `webhook`: events of a request (1 to 500). By default 500
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<UpTo<500>>,
    /// `splunk_hec`, `otlp`, `webhook`: for an answer (1s to 5m). By default 30s
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<Span>,
    /// With TLS: PEM file of who may vouch for the receiver. By default those that the host trusts
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<Absolute>,
    /// With TLS: PEM file with our certificate and its chain
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<Absolute>,
    /// With TLS: its private key, in PEM
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<Source>,
    /// With TLS: name in the receiver's certificate, when it is not the host's
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_name: Option<String>,
}

/// What a sink is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SinkKind {
    /// A file that is rotated
    File,
    /// Standard output, one line an event
    Stdout,
    /// RFC 5424 over UDP, TCP or TLS
    Syslog,
    /// systemd's journal
    Journald,
    /// Splunk's HTTP Event Collector
    SplunkHec,
    /// Logs of OpenTelemetry over HTTP
    Otlp,
    /// Lines over HTTP, signed if there is a key
    Webhook,
}

/// A header's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Header {
    /// Nothing secret
    Text(String),
    /// Where a secret stands
    From(Source),
}

/// Of syslog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Facility {
    User = 1,
    Daemon = 3,
    Auth = 4,
    Syslog = 5,
    Authpriv = 10,
    #[default]
    Audit = 13,
    Alert = 14,
    Local0 = 16,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}
