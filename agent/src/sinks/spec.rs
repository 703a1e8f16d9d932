//! What a sink is.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{redact::Redact, secret::Secret};

/// Where events go, and how they look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) format: Format,
    /// What it does not get.
    #[serde(default)]
    pub(crate) redact: Vec<Redact>,
    pub(crate) output: Output,
}

/// How an event looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// The line of `--print json` with `event` and `host` (docs/schema/event.schema.json)
    #[default]
    Json,
    /// The same, flat: dotted keys, no lists of objects
    Flat,
    /// OCSF 1.8.0
    Ocsf,
    /// CEF
    Cef,
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Output {
    /// One line an event on standard output.
    Stdout,
    /// One line an event in a file that is rotated.
    File(File),
    /// RFC 5424.
    Syslog(Box<Syslog>),
    /// Its native protocol.
    Journald(Journald),
    /// Requests over HTTP.
    Http(Box<Http>),
}

/// A file that is rotated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    /// Rotated before it would be larger.
    pub(crate) max_bytes: u64,
    /// Older ones that are kept: `path.1` is the latest of them.
    pub(crate) keep: u64,
}

/// How datagrams and bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    /// One message a datagram; nobody says that it arrived.
    Udp,
    /// Messages with their length before them.
    Tcp,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Name or address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Nothing is said before it proved to be who it should be.
    pub(crate) tls: Option<Tls>,
}

impl Peer {
    /// Whether it is this host.
    pub(crate) fn is_here(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Who the other end must be, and who we are. Contents of files: the process may not be able to read them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tls {
    /// Who may vouch for it. Else those that the host trusts.
    pub(crate) ca: Option<String>,
    /// Our certificate with its chain, and its key.
    pub(crate) own: Option<(String, Secret)>,
    /// The name in its certificate, when it is not the host's.
    pub(crate) server_name: Option<String>,
}

/// RFC 5424.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Syslog {
    pub(crate) transport: Transport,
    pub(crate) peer: Peer,
    pub(crate) facility: u8,
    pub(crate) app_name: String,
    /// Private enterprise number: whose the names of structured data are.
    pub(crate) enterprise: u64,
    /// Longer messages are cut.
    pub(crate) max_message: Option<usize>,
}

/// journald's own protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journald {
    pub(crate) socket: PathBuf,
}

/// Requests over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Http {
    pub(crate) peer: Peer,
    /// With its query.
    pub(crate) path: String,
    pub(crate) profile: Profile,
    pub(crate) token: Option<Secret>,
    pub(crate) headers: Vec<(String, Secret)>,
    /// Events of a request.
    pub(crate) batch: usize,
    /// For the answer; connecting has its own.
    pub(crate) timeout: Duration,
}

/// What requests hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Profile {
    /// Splunk's HTTP Event Collector.
    SplunkHec { index: Option<String>, source: Option<String>, sourcetype: Option<String> },
    /// Logs of OpenTelemetry.
    Otlp { encoding: Encoding },
    /// One line an event; signed if there is a key.
    Webhook { hmac_key: Option<Secret> },
}

/// How OTLP is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// Smaller; every receiver knows it
    #[default]
    Protobuf,
    /// To be read by people
    Json,
}
