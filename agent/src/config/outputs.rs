//! Where a sink sends, from what was written, with the files and secrets that it needs.

use std::{path::Path, time::Duration};

use hyper::{Uri, header::HeaderName};

use super::{
    read::brief,
    sink_table::{Header, SinkKind, SinkTable},
    sinks::Finder,
    written::UpTo,
};
use crate::{
    files,
    sinks::{
        secret::{Secret, Source},
        spec::{File, Http, Journald, Output, Peer, Profile, Syslog, Tls, Transport},
        tls,
    },
};

/// Bytes of files with certificates. Those of all sinks must fit into one message to the process.
const CA: usize = 256 << 10;
const CERT: usize = 64 << 10;
/// Bytes of a datagram that every receiver takes (RFC 5426: "should").
const DATAGRAM: usize = 2048;
/// A shorter one could not hold its own header.
const SHORTEST: u64 = 480;
/// Headers that are ours.
const OURS: [&str; 6] =
    ["host", "content-length", "content-type", "transfer-encoding", "connection", "user-agent"];
/// Words in names of headers whose values are secrets.
const SECRET: [&str; 6] = ["auth", "token", "key", "secret", "cookie", "password"];

/// What is wrong, and with which key.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) key: Option<String>,
    pub(super) why: String,
}

impl Wrong {
    pub(super) fn all(why: String) -> Self {
        Self { key: None, why: brief(&why) }
    }

    pub(super) fn at(key: &str, why: String) -> Self {
        Self { key: Some(key.to_owned()), why: brief(&why) }
    }
}

/// Where the sink of that type sends. The keys are those of the type.
pub(super) fn output(kind: SinkKind, table: &SinkTable, finder: &mut Finder) -> Result<Output, Wrong> {
    let missing = |key: &str, what: &str| Wrong::all(format!("`{key}` is missing: {what}"));
    let profile = match kind {
        SinkKind::Stdout => return Ok(Output::Stdout),
        SinkKind::File => {
            return Ok(Output::File(File {
                path: table.path.clone().ok_or_else(|| missing("path", "the file to write"))?.0,
                max_bytes: table.max_bytes.map_or(64 << 20, |b| b.0),
                keep: table.keep.map_or(4, |k| k.0),
            }));
        }
        SinkKind::Journald => {
            let socket = table.path.clone().map_or_else(|| "/run/systemd/journal/socket".into(), |p| p.0);
            return Ok(Output::Journald(Journald { socket }));
        }
        SinkKind::Syslog => {
            let address = table
                .address
                .as_deref()
                .ok_or_else(|| missing("address", "such as `tls://siem.example:6514`"))?;
            return syslog(address, table, finder).map(|s| Output::Syslog(Box::new(s)));
        }
        SinkKind::SplunkHec => Profile::SplunkHec {
            index: table.index.clone(),
            source: table.source.clone(),
            sourcetype: table.sourcetype.clone(),
        },
        SinkKind::Otlp => Profile::Otlp { encoding: table.encoding.unwrap_or_default() },
        SinkKind::Webhook => {
            let hmac_key =
                table.hmac_key.as_ref().map(|source| finder.secret("hmac_key", source)).transpose()?;
            Profile::Webhook { hmac_key: hmac_key.flatten() }
        }
    };
    let url = table.url.as_deref().ok_or_else(|| missing("url", "such as `https://siem.example/events`"))?;
    http(url, profile, table, finder).map(|h| Output::Http(Box::new(h)))
}

fn syslog(address: &str, table: &SinkTable, finder: &mut Finder) -> Result<Syslog, Wrong> {
    let wrong = |why: &str| {
        let forms = "write `udp://HOST:514`, `tcp://HOST:514` or `tls://HOST:6514`";
        Wrong::at("address", format!("`address`: `{address}` {why}: {forms}"))
    };
    let parts = Parts::of(address).map_err(wrong)?;
    let (transport, port, secure) = match parts.scheme.as_str() {
        "udp" => (Transport::Udp, 514, false),
        "tcp" => (Transport::Tcp, 514, false),
        "tls" => (Transport::Tcp, 6514, true),
        _ => return Err(wrong("is of no transport of syslog")),
    };
    if parts.path != "/" {
        return Err(wrong("has a path"));
    }
    let app_name = table.app_name.clone().unwrap_or_else(|| "toolwarden".into());
    if app_name.is_empty() || app_name.len() > 48 || !app_name.bytes().all(|b| b.is_ascii_graphic()) {
        let why = "1 to 48 printable ASCII characters without spaces";
        return Err(Wrong::at("app_name", format!("`app_name`: {why}")));
    }
    let max_message = match table.max_message {
        Some(UpTo(n)) if n < SHORTEST => {
            return Err(Wrong::at("max_message", format!("`max_message`: at least {SHORTEST}")));
        }
        Some(UpTo(n)) => usize::try_from(n).ok(),
        None => (transport == Transport::Udp).then_some(DATAGRAM),
    };
    let facility = table.facility.unwrap_or_default();
    Ok(Syslog {
        transport,
        peer: peer(parts, port, secure, "address", table, finder)?,
        // A number of the RFC.
        facility: facility as u8,
        app_name,
        enterprise: table.enterprise.map_or(32473, |n| n.0),
        max_message,
    })
}

fn http(url: &str, profile: Profile, table: &SinkTable, finder: &mut Finder) -> Result<Http, Wrong> {
    let wrong = |why: &str| Wrong::at("url", format!("`url`: `{url}` {why}"));
    let parts = Parts::of(url).map_err(|why| wrong(&format!("{why}: write `https://HOST/PATH`")))?;
    let (port, secure) = match parts.scheme.as_str() {
        "https" => (443, true),
        "http" => (80, false),
        _ => return Err(wrong("is neither https nor http")),
    };
    let usual = match profile {
        Profile::SplunkHec { .. } => "/services/collector/event",
        Profile::Otlp { .. } => "/v1/logs",
        Profile::Webhook { .. } => "/",
    };
    let path = if parts.path == "/" { usual.to_owned() } else { parts.path.clone() };
    let peer = peer(parts, port, secure, "url", table, finder)?;
    if !secure && !peer.is_here() && table.allow_plaintext != Some(true) {
        return Err(wrong(
            "would send events and credentials so that anybody on the way can read them: use https, or write \
             `allow_plaintext = true`",
        ));
    }
    let token = table.token.as_ref().map(|source| finder.secret("token", source)).transpose()?.flatten();
    if let Some(token) = &token
        && !token.is_header()
    {
        return Err(Wrong::at("token", "`token` has characters that no header can hold".into()));
    }
    if matches!(profile, Profile::SplunkHec { .. }) && table.token.is_none() && table.headers.is_none() {
        return Err(Wrong::all("`token` is missing: where it stands, such as `{ file = \"...\" }`".into()));
    }
    let timeout = table.timeout.map_or(Duration::from_secs(30), |span| span.0);
    if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&timeout) {
        return Err(Wrong::at("timeout", "`timeout`: 1s to 5m".into()));
    }
    let batch = match table.batch {
        Some(UpTo(0)) => return Err(Wrong::at("batch", "`batch`: 1 to 500".into())),
        Some(UpTo(n)) => usize::try_from(n).unwrap_or(500),
        None => 500,
    };
    Ok(Http { peer, path, profile, token, headers: headers(table, finder)?, batch, timeout })
}

fn headers(table: &SinkTable, finder: &mut Finder) -> Result<Vec<(String, Secret)>, Wrong> {
    let mut all = Vec::new();
    for (name, value) in table.headers.iter().flatten() {
        let key = format!("headers.{name}");
        let wrong = |why: &str| Wrong::at(&key, format!("`{key}`: {why}"));
        let lower = name.to_ascii_lowercase();
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(wrong("that is no name of a header"));
        }
        if OURS.contains(&lower.as_str()) || (lower == "authorization" && table.token.is_some()) {
            return Err(wrong("this header is written by the sink"));
        }
        let value = match value {
            Header::Text(_) if SECRET.iter().any(|word| lower.contains(word)) => {
                return Err(wrong(
                    "it looks like a secret, which is never written here: `{ file = \"...\" }`",
                ));
            }
            Header::Text(text) => Some(Secret::new(text.clone())),
            Header::From(source) => finder.secret(&key, source)?,
        };
        if let Some(value) = value {
            if !value.is_header() {
                return Err(wrong("its value has characters that no header can hold"));
            }
            all.push((lower, value));
        }
    }
    Ok(all)
}

impl Finder {
    /// Reads a secret; none where it is there for the service only, and this is a person who checks.
    fn secret(&mut self, key: &str, source: &Source) -> Result<Option<Secret>, Wrong> {
        self.secrets.extend(source.file().cloned());
        if !self.strict && source.is_of_service() {
            return Ok(None);
        }
        match source.read(&|name| std::env::var(name).ok()) {
            Ok(found) => {
                self.warnings.extend(found.warning.map(|w| format!("`{key}`: {w}")));
                Ok(Some(found.secret))
            }
            Err(e) if !self.strict && denied(&e) => {
                self.warnings.push(format!("`{key}` is not checked: {e:#}"));
                Ok(None)
            }
            Err(e) => Err(Wrong::at(key, format!("`{key}`: {e:#}"))),
        }
    }

    fn pem(key: &str, path: &Path, max: usize) -> Result<String, Wrong> {
        files::text(path, max).map(|(text, _)| text).map_err(|e| Wrong::at(key, format!("`{key}`: {e:#}")))
    }
}

fn denied(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::PermissionDenied)
}

fn peer(
    parts: Parts,
    port: u16,
    secure: bool,
    about: &str,
    table: &SinkTable,
    finder: &mut Finder,
) -> Result<Peer, Wrong> {
    let SinkTable { ca, cert, key, server_name, .. } = table;
    let Parts { host, port: written, .. } = parts;
    let of_tls = [
        ("ca", ca.is_some()),
        ("cert", cert.is_some()),
        ("key", key.is_some()),
        ("server_name", server_name.is_some()),
    ];
    let tls = if secure {
        let own = match (cert, key) {
            (Some(cert), Some(key)) => {
                let chain = Finder::pem("cert", &cert.0, CERT)?;
                finder.secret("key", key)?.map(|key| (chain, key))
            }
            (None, None) => None,
            (Some(_), None) => {
                return Err(Wrong::at("cert", "`key` is missing: where that of `cert` stands".into()));
            }
            (None, Some(_)) => {
                return Err(Wrong::at("key", "`cert` is missing: the certificate of `key`".into()));
            }
        };
        let ca = ca.as_ref().map(|ca| Finder::pem("ca", &ca.0, CA)).transpose()?;
        let tls = Tls { ca, own, server_name: server_name.clone() };
        tls::name(&host, &tls).map_err(|why| Wrong::at(about, why))?;
        // What the host trusts is looked up when it is needed.
        let none = || Ok(rustls::RootCertStore::empty());
        tls::config(&tls, none).map_err(|why| {
            let key = ["ca", "cert", "key"].into_iter().find(|key| why.starts_with(&format!("`{key}`")));
            Wrong { key: key.map(str::to_owned), why }
        })?;
        Some(tls)
    } else {
        if let Some((key, _)) = of_tls.iter().find(|(_, there)| *there) {
            return Err(Wrong::at(key, format!("`{key}` is for connections with TLS")));
        }
        None
    };
    Ok(Peer { host, port: written.unwrap_or(port), tls })
}

/// An address in parts.
struct Parts {
    scheme: String,
    host: String,
    port: Option<u16>,
    path: String,
}

impl Parts {
    fn of(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_unhelpful| "is no address")?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("is no address");
        };
        if authority.as_str().contains('@') {
            return Err("has credentials in it");
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = authority.port_u16();
        if host.is_empty() || port == Some(0) || (port.is_none() && authority.as_str().ends_with(':')) {
            return Err("is no address");
        }
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        Ok(Self {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            port,
            path: if path.is_empty() { "/".into() } else { path },
        })
    }
}
