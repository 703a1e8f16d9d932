//! What sinks write is what its standard says: OCSF by a validator that we did not write, JSON by the published schema.
//!
//! # Layout
//! - [`validator`]: schemas of `ocsf-json-schema`, from the set-up's venv
//! - [`process`]: the process of the sinks, without an agent

mod process;
// Events of every kind, and odd ones: the agent's own tests use them, too.
#[path = "../../../../agent/src/sinks/format/odd.rs"]
mod odd;
#[path = "../../../../agent/src/sinks/format/samples.rs"]
mod samples;
mod validator;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{client::Client, pace::patient};
use engine::{
    Engine, Input, Output,
    input::Fact,
    judge::{Command as Decision, Config, RuleText, Stored},
    output::Line,
    recording::Reader,
};
use serde_json::{Value, json};
use validator::Ocsf;

use super::{
    place::{Place, shell_in, soon},
    sinks::{configured, drained},
};

fn lines(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// All of them, by class and activity.
fn valid(ocsf: &mut Ocsf, events: &[Value]) -> Result<BTreeMap<String, usize>> {
    let mut classes: BTreeMap<String, usize> = BTreeMap::new();
    ocsf.learn(events)?;
    // All that is wrong, each once, with an event.
    let mut wrong: BTreeMap<String, &Value> = BTreeMap::new();
    for event in events {
        wrong.extend(ocsf.errors(event)?.into_iter().map(|error| (error, event)));
        *classes.entry(event["type_name"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
    }
    let first = wrong.values().next();
    ensure!(wrong.is_empty(), "{:#?}\n{first:?}", wrong.keys().collect::<Vec<_>>());
    Ok(classes)
}

/// The schema of what sinks write in format `json`.
fn published() -> Result<jsonschema::Validator> {
    let text = fs::read_to_string(e2e::workspace().join("docs/schema/sink.schema.json"))?;
    jsonschema::validator_for(&serde_json::from_str(&text)?).map_err(|e| anyhow::anyhow!("{e}"))
}

/// Findings of servers that mean harm, as their recordings give them: what the agent makes of real records.
fn recorded() -> Result<Vec<Value>> {
    let directory = e2e::corpus::Manifest::directory();
    let manifest = e2e::corpus::Manifest::read(&directory)?;
    let mut findings = Vec::new();
    for server in ["mailer", "repo"] {
        let mut stored = Stored::default();
        for part in [e2e::corpus::Part::Train, e2e::corpus::Part::Malicious] {
            let recording = manifest.recordings.iter().find(|r| r.server == server && r.part == part);
            let bytes = recording.with_context(|| format!("no recording of {server}"))?.unpack(&directory)?;
            let mut engine = Engine::new();
            let mut out = Vec::new();
            let files = engine::rules::packs()
                .into_iter()
                .map(|p| RuleText { name: p.name, text: p.text, shipped: true })
                .collect();
            let facts = [
                Fact::Command(Decision::Rules { files }),
                Fact::Command(Decision::Configure { config: Config::default() }),
                Fact::Restore(Box::new(std::mem::take(&mut stored))),
            ];
            for fact in &facts {
                engine.apply(Input::Fact { now_ns: 0, fact }, &mut out);
            }
            let mut reader = Reader::new(&bytes)?;
            while let Some(input) = reader.next()? {
                engine.apply(input, &mut out);
                for output in out.drain(..) {
                    if let Output::Line(line) = output
                        && let Line::Finding(_) = &*line
                    {
                        findings.push(serde_json::to_value(&*line)?);
                    }
                }
            }
            stored = engine.judge().stored();
        }
    }
    Ok(findings)
}

#[test]
fn every_kind_of_event_is_valid_in_every_format() -> Result<()> {
    let place = tempfile::tempdir()?;
    let recorded = recorded()?;
    ensure!(recorded.len() >= 20, "{} recorded findings", recorded.len());
    let good: Vec<Value> = samples::events().into_iter().chain(recorded).collect();
    let odd = odd::odd();
    let all: Vec<String> = good.iter().chain(&odd).map(Value::to_string).collect();
    process::write(place.path(), &["json", "flat", "ocsf", "cef"], &all)?;

    let mut ocsf = Ocsf::new();
    let events = lines(&place.path().join("ocsf"))?;
    ensure!(events.len() == all.len(), "{} of {}", events.len(), all.len());
    println!("{:?}", valid(&mut ocsf, &events)?);
    let kinds: std::collections::BTreeSet<&str> =
        events.iter().filter_map(|e| e["unmapped"]["toolwarden"]["kind"].as_str()).collect();
    for kind in engine::finding::Kind::ALL {
        ensure!(kinds.contains(kind.id()), "no finding {}", kind.id());
    }

    let schema = published()?;
    // Odd ones are none that an agent makes.
    for line in &lines(&place.path().join("json"))?[..good.len()] {
        let errors: Vec<_> = schema.iter_errors(line).map(|e| e.to_string()).collect();
        ensure!(errors.is_empty(), "{errors:?}\n{line:#}");
    }
    for line in lines(&place.path().join("flat"))? {
        let within =
            |v: &Value| v.is_object() || v.as_array().is_some_and(|a| a.iter().any(Value::is_object));
        ensure!(!line.as_object().context("an object")?.values().any(within), "{line:#}");
    }
    let cef = fs::read_to_string(place.path().join("cef"))?;
    ensure!(
        cef.lines().count() == all.len() && cef.lines().all(|l| l.starts_with("CEF:0|Toolwarden|")),
        "{cef}"
    );
    Ok(())
}

#[test]
fn a_broken_event_is_refused_by_the_validators() -> Result<()> {
    let place = tempfile::tempdir()?;
    let good: Vec<String> = samples::events()[..1].iter().map(Value::to_string).collect();
    process::write(place.path(), &["json", "ocsf"], &good)?;
    let event = lines(&place.path().join("ocsf"))?.remove(0);
    let mut ocsf = Ocsf::new();
    valid(&mut ocsf, std::slice::from_ref(&event))?;
    let breaks: [(&str, Value); 8] = [
        ("/severity_id", json!(7)),
        ("/time", json!("now")),
        ("/type_uid", json!(200_409)),
        ("/finding_info/unheard_of", json!(1)),
        ("/evidences/0/process/pid", json!("4242")),
        ("/evidences/0/process/unheard_of", json!(1)),
        ("/anomaly_analyses/0/anomalies/0/observations", json!("many")),
        // Attributes of a profile that it does not name.
        ("/metadata/profiles", json!(["host"])),
    ];
    for (at, value) in breaks {
        let mut broken = event.clone();
        let (parent, key) = at.rsplit_once('/').context("a pointer")?;
        let within = broken.pointer_mut(parent).and_then(Value::as_object_mut).context(at)?;
        within.insert(key.to_owned(), value);
        ocsf.learn(std::slice::from_ref(&broken))?;
        ensure!(!ocsf.errors(&broken)?.is_empty(), "passes although broken at {at}");
    }
    for (parent, key) in
        [("", "finding_info"), ("/finding_info", "uid"), ("/metadata", "product"), ("/device", "type_id")]
    {
        let mut broken = event.clone();
        broken.pointer_mut(parent).and_then(Value::as_object_mut).and_then(|o| o.remove(key)).context(key)?;
        ensure!(!ocsf.errors(&broken)?.is_empty(), "passes without {key}");
    }
    let line = lines(&place.path().join("json"))?.remove(0);
    let schema = published()?;
    ensure!(schema.is_valid(&line), "{line:#}");
    for (parent, key) in [("", "event"), ("", "host"), ("/event", "uid"), ("", "evidence"), ("", "type")] {
        let mut broken = line.clone();
        broken.pointer_mut(parent).and_then(Value::as_object_mut).and_then(|o| o.remove(key)).context(key)?;
        ensure!(!schema.is_valid(&broken), "the published schema takes it without {key}");
    }
    Ok(())
}

const RULES: &str = "rules:
  - id: no-reading
    severity: high
    deny:
      files:
        read: ['**/formats-secret/**']
  - id: no-network
    severity: medium
    deny:
      network:
        connect: ['127.0.57.9']
  - id: no-programs
    severity: medium
    deny:
      exec: {paths: ['**/formats-program']}
";

const SINKS: &str = "[identity]
host = 'host-1'
cluster = 'prod'
[sinks.json]
type = 'file'
path = '@/log/json'
[sinks.ocsf]
type = 'file'
path = '@/log/ocsf'
format = 'ocsf'
[sinks.cef]
type = 'file'
path = '@/log/cef'
format = 'cef'
[sinks.flat]
type = 'file'
path = '@/log/flat'
format = 'flat'
[sinks.effects]
type = 'file'
path = '@/log/effects'
format = 'ocsf'
types = ['effect']
[sinks.discreet]
type = 'file'
path = '@/log/discreet'
format = 'ocsf'
redact = ['paths', 'addresses', 'command_lines', 'users']
[sinks.discreet-json]
type = 'file'
path = '@/log/discreet-json'
redact = ['paths', 'addresses', 'command_lines', 'users']
";
const GONE: &str = "[sinks.gone]
type = 'file'
path = '/proc/no/such'
";
const CONTAINER: &str = "3f4e0a8a3b1c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6";

/// A cgroup of the name that a container has.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn new() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let at = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (at, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| Path::new(at).join(format!("docker-{CONTAINER}.scope")))
        });
        let at = at.context("cgroup v2 is mounted nowhere")?;
        fs::create_dir_all(&at)?;
        Ok(Self(at))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its last process may be ending.
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} stays", self.0.display());
    }
}

/// A server in a container, whose tools do what the rules forbid.
fn server(place: &Place, cgroup: &Cgroup) -> Result<Client> {
    let calls = r#"*'"read"'*) cat "$1"/formats-secret/wombat.key >/dev/null;;
    *'"connect"'*) python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.57.9", 9))';;
    *'"run"'*) "$1"/formats-program quokka-7731;;"#;
    let first = r#"echo $$ >"$2"/cgroup.procs || exit 9"#.to_owned() + "\n";
    shell_in(&first, calls, &[place.path().as_os_str(), cgroup.0.as_os_str()])
}

#[test]
fn an_agent_tells_valid_events_and_nothing_that_it_must_not() -> Result<()> {
    let (place, cgroup) = (Place::new()?, Cgroup::new()?);
    place.rule("deny.yaml", RULES)?;
    fs::create_dir(place.path().join("formats-secret"))?;
    fs::write(place.path().join("formats-secret/wombat.key"), "x")?;
    fs::copy("/bin/true", place.path().join("formats-program"))?;
    let config = configured(&place, &format!("{SINKS}{GONE}"))?;
    let mut agent = place.start_with(&["--config", &config])?;
    let mut client = server(&place, &cgroup)?;
    for tool in ["read", "connect", "run"] {
        client.call(tool, &json!({}))?;
    }
    let name = agent.server(client.pid())?.server.name.clone();
    soon("all is found", || {
        let all = place.findings()?;
        let of = |rule: &str| all.iter().any(|f| f["origin"]["rule"] == rule);
        Ok(["no-reading", "no-network", "no-programs"].iter().all(|rule| of(rule)).then_some(()))
    })?;
    place.person(&["respond", "throttle", &name])?.good()?;
    place.person(&["respond", "release", &name])?.good()?;
    drained(&place, "ocsf")?;
    agent.stop(libc::SIGTERM)?;
    // A sink that is gone lacked events: that is a gap.
    let config = configured(&place, SINKS)?;
    let mut agent = place.start_with(&["--config", &config])?;
    std::thread::sleep(patient(Duration::from_secs(1)));
    for sink in ["ocsf", "json", "cef", "flat", "effects", "discreet", "discreet-json"] {
        drained(&place, sink)?;
    }
    agent.stop(libc::SIGTERM)?;
    drop(client);

    let at = |name: &str| place.path().join("log").join(name);
    let mut ocsf = Ocsf::new();
    let events = lines(&at("ocsf"))?;
    let classes = valid(&mut ocsf, &events)?;
    println!("{classes:?}");
    for wanted in [
        "Detection Finding: Create",
        "Process Remediation Activity: Throttle",
        "Process Remediation Activity: Restore",
        "Application Lifecycle: Start",
        "Application Lifecycle: Stop",
        "Application Lifecycle: Gap",
    ] {
        ensure!(classes.contains_key(wanted), "no {wanted}: {classes:?}");
    }
    for event in &events {
        let device = &event["device"];
        ensure!(device["hostname"] == "host-1" && device["groups"][0]["name"] == "prod", "{device}");
        ensure!(device["boot_uid"].is_string() && device["uid"].is_string(), "{device}");
    }
    let mine = |e: &&Value| {
        e["resources"][0]["name"].is_string() && e["finding_info"]["analytic"]["uid"] == "no-reading"
    };
    let found = events.iter().find(mine).context("no finding")?;
    ensure!(found["evidences"][0]["container"]["uid"] == CONTAINER, "{found:#}");
    ensure!(found["evidences"][0]["container"]["runtime"] == "docker", "{found:#}");

    let effects = valid(&mut ocsf, &lines(&at("effects"))?)?;
    println!("{effects:?}");
    for wanted in ["Process Activity: Launch", "File System Activity: Open", "Network Activity: Traffic"] {
        ensure!(effects.contains_key(wanted), "no {wanted}: {effects:?}");
    }
    ensure!(
        !classes.keys().any(|class| effects.contains_key(class) && !class.ends_with("Gap")),
        "nobody else asked"
    );

    valid(&mut ocsf, &lines(&at("discreet"))?)?;
    let schema = published()?;
    for sink in ["json", "discreet-json"] {
        for line in lines(&at(sink))? {
            let errors: Vec<_> = schema.iter_errors(&line).map(|e| e.to_string()).collect();
            ensure!(errors.is_empty(), "{errors:?}\n{line:#}");
        }
    }
    let text = |name: &str| fs::read_to_string(at(name));
    for secret in ["wombat", "formats-program", "127.0.57.9", "quokka-7731"] {
        for open in ["json", "flat"] {
            ensure!(text(open)?.contains(secret), "{open} lacks {secret}");
        }
        for sink in ["discreet", "discreet-json"] {
            ensure!(!text(sink)?.contains(secret), "{secret} is in {sink}");
        }
    }
    let count = |name: &str| -> Result<usize> { Ok(text(name)?.lines().count()) };
    ensure!(count("cef")? == count("ocsf")? && count("flat")? == count("ocsf")?, "each has all");
    for name in ["cef", "flat", "json"] {
        ensure!(text(name)?.contains(CONTAINER) && text(name)?.lines().all(|l| l.contains("prod")), "{name}");
    }
    Ok(())
}
