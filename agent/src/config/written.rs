//! The keys, their defaults and limits. Those of a sink are in [`super::sink_table`].

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use engine::finding::Severity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::sink_table::SinkTable;
use crate::{cli::OnDegraded, commands::respond, control, guard, store::Bounds};

/// All of it. Every key has a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// What is read of servers
    pub(crate) capture: Capture,
    /// Where things are
    pub(crate) paths: Paths,
    /// How deviations are judged
    pub(crate) detection: Detection,
    /// What is done about findings in mode `enforce`
    pub(crate) respond: Respond,
    /// What is denied, and how the hooks are proved
    pub(crate) enforce: Enforce,
    /// What events say about where they are from
    pub(crate) identity: Identity,
    /// What waits for sinks
    pub(crate) outbox: Outbox,
    /// Numbers about the agent itself, for Prometheus
    pub(crate) metrics: Metrics,
    /// Where events go, by name
    pub(crate) sinks: BTreeMap<String, SinkTable>,
}

/// What is read of servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Capture {
    /// After a reply, effects may still belong to the call for this many milliseconds (0 to 10000)
    pub(crate) settle_ms: UpTo<10_000>,
    /// When a server is found that runs already, requests that nobody saw may be in flight for this many seconds (0 to 86400)
    pub(crate) in_flight_s: UpTo<86_400>,
    /// Keep values of arguments; by default only their sizes and keyed hashes
    pub(crate) include_arguments: bool,
}

impl Default for Capture {
    fn default() -> Self {
        Self { settle_ms: UpTo(20), in_flight_s: UpTo(300), include_arguments: false }
    }
}

/// Where things are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Paths {
    /// Directory of baselines, findings and the audit trail
    pub(crate) state_dir: Absolute,
    /// Directory of the host's own rules; must exist if it is set. By default /etc/toolwarden/rules.d, if that exists
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rules: Option<Absolute>,
    /// Socket that the verbs of the command line use
    pub(crate) control: Absolute,
    /// Lock of the one agent of a host
    pub(crate) guard: Absolute,
    /// Directory of a bpf file system for what outlives the agent. By default below /sys/fs/bpf, by state directory
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pins: Option<Absolute>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            state_dir: Absolute("/var/lib/toolwarden".into()),
            rules: None,
            control: Absolute(control::SOCKET.into()),
            guard: Absolute(guard::PATH.into()),
            pins: None,
        }
    }
}

/// How deviations are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Detection {
    /// False findings that baselines may make, a day (above 0, at most 1000)
    pub(crate) budget_per_day: Budget,
}

impl Default for Detection {
    fn default() -> Self {
        Self { budget_per_day: Budget(1.0) }
    }
}

/// What is done about findings whose rule says nothing, in mode `enforce`: ladders, climbed when it goes on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Respond {
    /// Only tell what would be done, and what would be denied
    pub(crate) dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) critical: Option<Ladder>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) high: Option<Ladder>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) medium: Option<Ladder>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) low: Option<Ladder>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) info: Option<Ladder>,
}

impl Respond {
    /// The ladders that were written.
    pub(crate) fn ladders(&self) -> impl Iterator<Item = respond::Default> {
        use Severity::{Critical, High, Info, Low, Medium};
        let all = [
            (Critical, &self.critical),
            (High, &self.high),
            (Medium, &self.medium),
            (Low, &self.low),
            (Info, &self.info),
        ];
        all.into_iter().filter_map(|(severity, ladder)| {
            Some(respond::Default { severity, ladder: ladder.as_ref()?.0.clone() })
        })
    }
}

/// What is denied, and how the hooks are proved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Enforce {
    /// What to do when the host cannot do what is asked for: `refuse`, or `observe`: take what can be had
    pub(crate) on_degraded: OnDegraded,
    /// What is denied, cut, frozen or slowed down stays so when the agent stops
    pub(crate) keep: bool,
    /// The hooks are proved with real acts at start and every so many minutes (0: only at start; at most 1440)
    pub(crate) canary_minutes: UpTo<1440>,
}

impl Default for Enforce {
    fn default() -> Self {
        Self { on_degraded: OnDegraded::Refuse, keep: false, canary_minutes: UpTo(10) }
    }
}

/// What events say about where they are from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Identity {
    /// Name of the host. By default the kernel's
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// Cluster that the host is a part of
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
}

/// What waits for sinks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Outbox {
    /// More than this is dropped, the oldest first, and told
    pub(crate) max_bytes: Bytes,
    /// What is older is dropped, and told
    pub(crate) max_age: Span,
    /// Every so many minutes the agent tells that it lives, with its counts (0: never; at most 1440)
    pub(crate) heartbeat_minutes: UpTo<1440>,
    /// User of the process that talks to the outside. By default `toolwarden`, else `nobody`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
}

impl Default for Outbox {
    fn default() -> Self {
        let Bounds { max_bytes, max_age } = Bounds::default();
        Self { max_bytes: Bytes(max_bytes), max_age: Span(max_age), heartbeat_minutes: UpTo(5), user: None }
    }
}

/// Numbers about the agent itself, for Prometheus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metrics {
    /// Address of `/metrics`, `/healthz` and `/readyz`: `127.0.0.1:9465`, or `off`. Whoever can reach it can read it
    pub(crate) listen: Listen,
}

/// An address and a port, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub(crate) struct Listen(pub(crate) Option<SocketAddr>);

impl Default for Listen {
    fn default() -> Self {
        Self(Some(SocketAddr::from(([127, 0, 0, 1], 9465))))
    }
}

impl TryFrom<String> for Listen {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.parse::<SocketAddr>() {
            _ if text == "off" => Ok(Self(None)),
            Ok(address) if address.port() != 0 => Ok(Self(Some(address))),
            _ => Err(format!(
                "`{text}` is no address and port: write \"127.0.0.1:9465\", \"[::1]:9465\" or \"off\""
            )),
        }
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.0.map_or_else(|| "off".into(), |address| address.to_string())
    }
}

/// A number from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub(crate) struct UpTo<const MAX: u64>(pub(crate) u64);

impl<const MAX: u64> TryFrom<u64> for UpTo<MAX> {
    type Error = String;
    fn try_from(n: u64) -> Result<Self, String> {
        if n > MAX { Err(format!("{n} is too large: at most {MAX}")) } else { Ok(Self(n)) }
    }
}

impl<const MAX: u64> JsonSchema for UpTo<MAX> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("UpTo{MAX}").into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": MAX })
    }
}

/// An absolute path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "PathBuf")]
pub(crate) struct Absolute(pub(crate) PathBuf);

impl TryFrom<PathBuf> for Absolute {
    type Error = String;
    fn try_from(path: PathBuf) -> Result<Self, String> {
        // A service has no working directory that anybody meant.
        if path.is_absolute() {
            Ok(Self(path))
        } else {
            Err(format!("`{}` is not absolute: begin it with /", path.display()))
        }
    }
}

/// Findings a day.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64")]
pub(crate) struct Budget(pub(crate) f64);

impl TryFrom<f64> for Budget {
    type Error = String;
    fn try_from(n: f64) -> Result<Self, String> {
        if n > 0.0 && n <= 1000.0 {
            Ok(Self(n))
        } else {
            Err("findings a day, above 0 and at most 1000, such as 1 or 0.1".into())
        }
    }
}

/// Bytes: a number, or `"64KiB"`, `"64MiB"`, `"1GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Number", into = "u64")]
#[schemars(with = "Number")]
pub(crate) struct Bytes(pub(crate) u64);

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Number {
    Plain(u64),
    Text(String),
}

impl TryFrom<Number> for Bytes {
    type Error = String;
    fn try_from(number: Number) -> Result<Self, String> {
        let text = match number {
            Number::Plain(n) => n.to_string(),
            Number::Text(text) => text,
        };
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("", 0)];
        let read = units.iter().find_map(|(unit, shift)| {
            let n: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
            n.checked_mul(1 << shift)
        });
        // Less than an event or two would be no bound but a stop.
        match read {
            Some(n) if (64 << 10..=1 << 40).contains(&n) => Ok(Self(n)),
            Some(_) => Err(format!("`{text}` is out of range: 64KiB to 1024GiB")),
            None => Err(format!("`{text}` is no size: write 65536, \"64KiB\", \"64MiB\" or \"1GiB\"")),
        }
    }
}

impl From<Bytes> for u64 {
    fn from(bytes: Bytes) -> Self {
        bytes.0
    }
}

/// A time: `90s`, `10m`, `2h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match respond::duration(&text)? {
            0 => Err("it must be longer than 0".into()),
            ns => Ok(Self(Duration::from_nanos(ns))),
        }
    }
}

impl From<Span> for String {
    fn from(Span(time): Span) -> Self {
        let seconds = time.as_secs();
        let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
        let unit = units.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit)).unwrap_or((1, 's'));
        format!("{}{}", seconds / unit.0, unit.1)
    }
}

/// Responses, in the order in which they are taken: `throttle,freeze`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub(crate) struct Ladder(pub(crate) Vec<engine::rules::written::Response>);

impl TryFrom<String> for Ladder {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        respond::ladder(&text).map(Self)
    }
}

impl From<Ladder> for String {
    fn from(ladder: Ladder) -> Self {
        let words =
            ladder.0.iter().filter_map(|step| serde_json::to_value(step).ok()?.as_str().map(str::to_owned));
        words.collect::<Vec<_>>().join(",")
    }
}
