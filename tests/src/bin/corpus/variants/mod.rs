//! Malicious variants. Each is a server that was trained benignly and does one bad thing once its time
//! has come. The acts are the little scripts of `fixture::evil`; `hook.cjs` understands some of them.

mod files;
mod net;
mod packages;
mod process;
mod strain;

use e2e::corpus::Evidence;
use serde_json::Value;

/// One of them.
pub(crate) struct Variant {
    pub(crate) id: &'static str,
    pub(crate) server: &'static str,
    /// Tool that is called when it shall happen.
    pub(crate) tool: &'static str,
    /// As `FIXTURE_WHEN`.
    pub(crate) when: &'static str,
    /// As `FIXTURE_ACT`.
    pub(crate) act: &'static str,
    pub(crate) kinds: &'static [&'static str],
    pub(crate) evidence: Evidence,
    pub(crate) how: &'static str,
    pub(crate) visible: bool,
    /// The server's file changes, to this more.
    pub(crate) version: Option<&'static str>,
    /// More environment.
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// Arguments of the call.
    pub(crate) arguments: Option<Value>,
    /// After the last call.
    pub(crate) linger_ms: u64,
    /// Calls after the one that triggers.
    pub(crate) more: u64,
}

/// A variant that an act makes.
fn act(
    id: &'static str,
    (server, tool): (&'static str, &'static str),
    when: &'static str,
    act: &'static str,
    kinds: &'static [&'static str],
    evidence: Evidence,
    how: &'static str,
) -> Variant {
    Variant {
        id,
        server,
        tool,
        when,
        act,
        kinds,
        evidence,
        how,
        visible: true,
        version: None,
        env: &[],
        arguments: None,
        linger_ms: 150,
        more: 3,
    }
}

impl Variant {
    fn linger(mut self, ms: u64) -> Self {
        self.linger_ms = ms;
        self
    }

    fn more(mut self, calls: u64) -> Self {
        self.more = calls;
        self
    }

    fn version(mut self, more: &'static str) -> Self {
        self.version = Some(more);
        self
    }

    fn arguments(mut self, arguments: Value) -> Self {
        self.arguments = Some(arguments);
        self
    }

    fn env(mut self, env: &'static [(&'static str, &'static str)]) -> Self {
        self.env = env;
        self
    }

    /// No new effect comes of it.
    fn hidden(mut self) -> Self {
        self.visible = false;
        self
    }

    /// Number of the call that triggers it.
    pub(crate) fn call(&self) -> Option<u64> {
        let (word, n) = self.when.split_once(':').unwrap_or((self.when, ""));
        match word {
            "call" | "every" => n.parse().ok(),
            "start" | "ambient" | "never" => None,
            _ => Some(5),
        }
    }

    /// In words.
    pub(crate) fn trigger(&self) -> String {
        let (word, n) = self.when.split_once(':').unwrap_or((self.when, ""));
        let when = match word {
            "call" => format!("call {n}"),
            "every" => format!("every call from {n} on"),
            "arg" => format!("the word {n} in an argument"),
            "after" => format!("the first call after {n} ms"),
            "start" => "start".into(),
            "never" => "nothing more".into(),
            "ambient" => format!("{n} ms after a call, while none runs"),
            _ => "an argument".into(),
        };
        let version = if self.version.is_some() { "another version of the package, " } else { "" };
        let env = if self.env.is_empty() { "" } else { "the environment, " };
        format!("{version}{env}{when}")
    }
}

/// An effect of this kind whose JSON holds all of these.
fn effect(kind: &str, parts: &[&str]) -> Evidence {
    effects(1, kind, parts)
}

fn effects(at_least: u64, kind: &str, parts: &[&str]) -> Evidence {
    let kind = format!("\"kind\":\"{kind}\"");
    let all = std::iter::once(kind).chain(parts.iter().map(|&p| p.to_owned())).collect();
    Evidence::Effect { all, at_least }
}

fn call(field: &str, at_least: u64) -> Evidence {
    Evidence::Call { field: field.into(), at_least }
}

/// All of them.
pub(crate) fn all() -> Vec<Variant> {
    [files::all(), net::all(), process::all(), strain::all(), packages::all()].into_iter().flatten().collect()
}
