//! What a sink must not get is taken out in the agent, before the process of the sinks sees it: no format can tell it.
//!
//! A value becomes a marker that is the same for the same value on this host (`[redacted:3f2a9c10b7de]`), so that events can still be told apart
//! and joined. Fields are known by name. Text in plain words can hold anything, and so can command lines and what is not known here: they are
//! taken out whatever is redacted.

use std::fmt;

use engine::finding::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// What is put where a user id was: no user has it.
pub(super) const NO_USER: u32 = u32::MAX;

/// What a sink does not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Redact {
    /// Paths of files, programs and unix sockets
    Paths,
    /// Network addresses and host names
    Addresses,
    /// Command lines of programs that were executed
    CommandLines,
    /// User ids, and names of directories below /home
    Users,
}

/// Takes things out of events. The key stays on this host.
#[derive(Clone)]
pub(crate) struct Redactor {
    key: [u8; 32],
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

/// What a field may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Our own words, numbers, names of servers and tools.
    Plain,
    Path,
    Address,
    User,
    /// `UID/NAME@DIGEST`.
    Identity,
    /// What was executed.
    Command,
    /// Anything.
    Text,
}

impl Redactor {
    /// `secret` is the host's key of argument hashes.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"toolwarden redaction");
        hash.update(secret);
        Self { key: hash.finalize().into() }
    }

    /// An event without these.
    pub(super) fn event(&self, json: String, without: &[Redact]) -> String {
        if without.is_empty() {
            return json;
        }
        // What cannot be read cannot be told.
        let mut event: Value = serde_json::from_str(&json).unwrap_or_default();
        if event.get("type").and_then(Value::as_str) == Some("gap") {
            // Numbers, and our own words.
            return json;
        }
        let sentence = sentence(&event);
        Walk { redactor: self, without }.value(&mut event, &Near::default());
        if let Some(fields) = event.as_object_mut()
            && fields.contains_key("sentence")
        {
            fields.insert("sentence".into(), sentence.into());
        }
        event.to_string()
    }

    fn marker(&self, value: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(value);
        let digest = hash.finalize();
        let number = digest.iter().take(6).fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        format!("[redacted:{number:012x}]")
    }
}

/// What is left of a finding's sentence.
fn sentence(event: &Value) -> String {
    let text = |at| event.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let tool = text("/scope/tool");
    let tool = if tool.is_empty() { String::new() } else { format!(", tool `{tool}`") };
    format!("Server `{}`{tool}: {}. This sink gets no details.", text("/server/name"), text("/kind"))
}

/// The object that a field is in.
#[derive(Default)]
struct Near {
    key: String,
    kind: String,
    family: String,
    /// Of a call to change ids, or a change of owner: its numbers are users.
    ids: bool,
}

struct Walk<'a> {
    redactor: &'a Redactor,
    without: &'a [Redact],
}

impl Walk<'_> {
    fn is_out(&self, what: Redact) -> bool {
        self.without.contains(&what)
    }

    fn value(&self, value: &mut Value, near: &Near) {
        match value {
            Value::Object(fields) => self.object(fields),
            Value::Array(all) if near.ids && near.key == "args" && self.is_out(Redact::Users) => all.clear(),
            Value::Array(all) if near.key == "argv" => {
                let line = all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\0");
                *all = vec![self.redactor.marker(&line).into()];
            }
            Value::Array(all) => all.iter_mut().for_each(|one| self.value(one, near)),
            Value::String(text) => self.text(text, near),
            Value::Number(_) if self.is_out(Redact::Users) => match near.key.as_str() {
                "uid" => *value = NO_USER.into(),
                "login_uid" => *value = Value::Null,
                "arg" | "group" if near.ids => *value = Value::Null,
                _ => {}
            },
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn object(&self, fields: &mut Map<String, Value>) {
        let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, family) = (text("kind"), text("family"));
        let ids =
            kind == "path" && text("op") == "chown" || kind == "special" && text("name").contains("set");
        for (key, value) in fields.iter_mut() {
            let near = Near { key: key.clone(), kind: kind.clone(), family: family.clone(), ids };
            self.value(value, &near);
        }
    }

    fn text(&self, text: &mut String, near: &Near) {
        if text.is_empty() {
            return;
        }
        let out = match holds(near, text) {
            Holds::Plain => false,
            Holds::Path => self.is_out(Redact::Paths),
            Holds::Address => self.is_out(Redact::Addresses),
            Holds::User => self.is_out(Redact::Users),
            Holds::Identity => {
                if self.is_out(Redact::Users)
                    && let Some((user, rest)) = text.split_once('/')
                {
                    *text = format!("{}/{rest}", self.redactor.marker(user));
                }
                return;
            }
            Holds::Command | Holds::Text => true,
        };
        if out {
            *text = self.redactor.marker(text);
        } else if self.is_out(Redact::Users) {
            *text = self.homes(text);
        }
    }

    /// Without the names below `/home` and the ids below `/run/user`.
    fn homes(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for above in ["/home/", "/run/user/"] {
            let mut parts = out.split(above);
            let mut done = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let (user, rest) = part.split_at(part.find('/').unwrap_or(part.len()));
                let user = if user.is_empty() { String::new() } else { self.redactor.marker(user) };
                done = format!("{done}{above}{user}{rest}");
            }
            out = done;
        }
        out
    }
}

/// What a field holds, by its name and by what it is in.
fn holds(near: &Near, text: &str) -> Holds {
    let of_network = matches!(near.kind.as_str(), "net" | "dns_query" | "dns_answer");
    match near.key.as_str() {
        "type" | "id" | "utc" | "kind" | "certainty" | "basis" | "severity" | "by" | "rule" | "finding"
        | "response" | "action" | "only" | "instead_of" | "verdict" | "op" | "family" | "protocol"
        | "source" | "record" | "abi" | "life" | "sink" | "worst" | "hook" | "state" | "version" | "tool"
        | "request_id" | "attack" | "atlas" | "owasp_mcp" | "calls_before" | "env" | "runtime" | "pod"
        | "server" | "in_force" => Holds::Plain,
        "name" if of_network => Holds::Address,
        // Of a server, a system call, an operation.
        "name" => Holds::Plain,
        "address" | "addresses" | "resolver" | "sni" => Holds::Address,
        "path" | "to" | "cwd" | "script" | "exe" | "client" | "project" | "place" => Holds::Path,
        "argv" => Holds::Command,
        "who" => Holds::User,
        "identity" | "quarantined" => Holds::Identity,
        "object" if near.kind == "denied" => match near.family.as_str() {
            "exec" | "file" | "unix" => Holds::Path,
            "network" | "listen" => Holds::Address,
            _ => Holds::Text,
        },
        "object" => object(&near.kind, text),
        _ => Holds::Text,
    }
}

/// What a finding is about.
fn object(kind: &str, text: &str) -> Holds {
    let word = || text.chars().all(|c| c.is_ascii_lowercase() || matches!(c, ' ' | '_' | '-'));
    match Kind::ALL.iter().find(|known| known.id() == kind) {
        Some(
            Kind::NewExec
            | Kind::MemfdExec
            | Kind::NewFileArea
            | Kind::NewWrite
            | Kind::ProtectedObject
            | Kind::Persistence
            | Kind::DeputySocket
            | Kind::NewUnixPeer,
        ) => Holds::Path,
        Some(
            Kind::NewDestination
            | Kind::NewName
            | Kind::NewListener
            | Kind::MetadataService
            | Kind::PrivateRange
            | Kind::DnsTunnel
            | Kind::SniUnbound
            | Kind::Beacon
            | Kind::AmbientNetwork,
        ) => Holds::Address,
        Some(
            Kind::NewTool
            | Kind::Volume
            | Kind::SlowExfiltration
            | Kind::Exhaustion
            | Kind::LimitHit
            | Kind::UnusualSyscall
            | Kind::Compat
            | Kind::IoUring
            | Kind::Namespace
            | Kind::Privilege
            | Kind::Injection
            | Kind::ForgedCall
            | Kind::Blinded
            | Kind::TooLarge,
        ) if word() => Holds::Plain,
        Some(Kind::CoverageLost) => Holds::Plain,
        // A rule can be about anything.
        _ => Holds::Text,
    }
}
