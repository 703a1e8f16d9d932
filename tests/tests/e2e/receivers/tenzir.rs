//! Tenzir, which speaks HEC, OTLP and HTTP, and knows CEF.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Running, Scene, listening, secret};
use crate::{place::Place, sinks::CALLS};

/// A pipeline that listens and writes what comes as lines of JSON.
struct Tenzir {
    _running: Running,
    out: PathBuf,
}

impl Tenzir {
    fn start(place: &Place, name: &str, address: &str, pipeline: &str) -> Result<Self> {
        let program = e2e::workspace().join("target/e2e/tenzir/bin/tenzir");
        let out = place.path().join(name);
        let mut command = Command::new("sh");
        // Its own words stay out of what it has received.
        command.args(["-c", "exec \"$0\" \"$1\" 2>>\"$2\""]).arg(program);
        command.arg(format!("{pipeline}\nwrite_ndjson")).arg(out.with_extension("log"));
        let running = Running::start(&mut command, &out)?;
        listening(address).with_context(|| {
            let said = fs::read_to_string(out.with_extension("log")).unwrap_or_default();
            format!("Tenzir: {said}")
        })?;
        Ok(Self { _running: running, out })
    }

    /// What it has, in order.
    fn received(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.out)?;
        // It may be writing.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    fn texts(&self, pointer: &str) -> Result<Vec<String>> {
        let text = |v: &Value| v.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        self.received()?.iter().map(|v| text(v).with_context(|| format!("no {pointer}: {v}"))).collect()
    }
}

const SINKS: &str = "[sinks.cef]
type = 'file'
path = '@/log/cef'
format = 'cef'
[sinks.hec]
type = 'splunk_hec'
url = 'http://127.74.0.6:8088'
token = { file = '@/token' }
format = 'cef'
[sinks.wrong]
type = 'splunk_hec'
url = 'http://127.74.0.6:8088'
token = { file = '@/wrong' }
[sinks.otlp]
type = 'otlp'
url = 'http://127.74.0.6:4318'
[sinks.otlp_json]
type = 'otlp'
url = 'http://127.74.0.6:4319'
encoding = 'json'
[sinks.hook]
type = 'webhook'
url = 'http://127.74.0.6:8090'
";

#[test]
fn it_understands_hec_otlp_http_and_cef() -> Result<()> {
    let place = Place::new()?;
    secret(&place, "token", "right")?;
    secret(&place, "wrong", "n0t-the-token")?;
    let start = |name, address: &str, operator: &str| {
        Tenzir::start(&place, name, address, &operator.replace("ADDRESS", &format!("\"{address}\"")))
    };
    let hec = start(
        "tz-hec",
        "127.74.0.6:8088",
        "accept_splunk ADDRESS, hec_token=\"right\"\ncef = event.parse_cef()",
    )?;
    let otlp = start("tz-otlp", "127.74.0.6:4318", "accept_otlp ADDRESS")?;
    let otlp_json = start("tz-json", "127.74.0.6:4319", "accept_otlp ADDRESS")?;
    let hook = start("tz-hook", "127.74.0.6:8090", "accept_http ADDRESS { read_lines }")?;
    let mut scene = Scene::new(place, SINKS)?;
    scene.calls(CALLS)?;
    scene.drained(&["cef", "hec", "otlp", "otlp_json", "hook"])?;

    scene.same("OTLP as protobuf", || otlp.texts("/body/string_value"))?;
    scene.same("OTLP as JSON", || otlp_json.texts("/body/string_value"))?;
    scene.same("HTTP", || hook.texts("/line"))?;
    scene.same_as("log/cef", "HEC with CEF", || hec.texts("/event"))?;
    for event in hec.received()? {
        ensure!(event["cef"]["device_product"] == "Toolwarden", "{event}");
        ensure!(event["host"].as_str().is_some_and(|h| !h.is_empty()), "{event}");
    }
    for record in otlp.received()? {
        let body: Value = serde_json::from_str(record["body"]["string_value"].as_str().unwrap_or_default())?;
        let name = format!("toolwarden.{}", body["type"].as_str().context("type")?);
        ensure!(record["event_name"] == name && record["severity_number"].as_u64() >= Some(9), "{record}");
        let has = |key: &str, value: &Value| {
            let all = [&record["attributes"], &record["resource"]["attributes"]];
            all.iter().any(|attributes| {
                attributes.as_array().is_some_and(|a| {
                    a.iter().any(|a| a["key"] == key && a["value"]["string_value"] == *value)
                })
            })
        };
        ensure!(
            has("toolwarden.uid", &body["event"]["uid"]) && has("host.name", &body["host"]["name"]),
            "{record}"
        );
    }
    let wrong = scene.sink("wrong")?;
    let because = wrong["because"].as_str().unwrap_or_default();
    ensure!(wrong["state"] == "failing" && wrong["sent"] == 0 && because.contains("`token`"), "{wrong}");
    scene.agent.stop(libc::SIGTERM)?;
    Ok(())
}
