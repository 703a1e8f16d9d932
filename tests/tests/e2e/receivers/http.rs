//! HTTP: faults cost time and no event; what each profile sends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Running, Scene, certificates,
    faults::{Do, Server},
    listening, secret,
};
use crate::{
    place::{Place, soon},
    sinks::CALLS,
};

const TOKEN: &str = "t0ken-that-nobody-may-see";
const KEY: &str = "k3y-that-nobody-may-see";

const FAULTY: &str = "[sinks.hook]
type = 'webhook'
url = 'http://127.74.0.3:8080/events?a=b'
token = { file = '@/token' }
hmac_key = { file = '@/key' }
headers = { X-Tenant = 'blue' }
timeout = '1s'
";

#[test]
fn every_fault_costs_time_and_no_event() -> Result<()> {
    let place = Place::new()?;
    secret(&place, "token", TOKEN)?;
    secret(&place, "key", KEY)?;
    let elsewhere = Server::start("127.74.0.3:8081", |_, _| Do::Take)?;
    let known = Arc::new(AtomicUsize::new(usize::MAX));
    let first = Arc::clone(&known);
    let server = Server::start("127.74.0.3:8080", move |number, request| {
        // Counted from the first request with a token that is right by now; what comes after a fault is taken, so that pauses stay short.
        match number.checked_sub(first.load(Ordering::Relaxed)) {
            None => Do::Say(401, "", "who is t0ken-that-nobody-may-see?"),
            Some(0) => Do::Say(429, "retry-after: 3\r\n", ""),
            Some(2) => Do::Say(503, "retry-after: 1\r\n", ""),
            Some(4) => Do::Hang,
            Some(6) => Do::Say(307, "location: http://127.74.0.3:8081/\r\n", ""),
            Some(8) => Do::Say(500, "connection: close\r\n", "x"),
            Some(n) if n >= 10 && n % 5 == 0 => Do::Reset,
            Some(_) if request.body.iter().filter(|b| **b == b'\n').count() > 3 => Do::Say(413, "", ""),
            Some(_) => Do::Take,
        }
    })?;
    let mut scene = Scene::new(place, FAULTY)?;
    let because = soon("what the wrong token is told as", || {
        let state = scene.sink("hook")?;
        Ok(state["because"].as_str().filter(|b| b.contains("401")).map(str::to_owned))
    })?;
    ensure!(because.contains("`token`") && because.contains("who is [secret]?"), "{because}");
    // One more may be refused meanwhile.
    known.store(server.requests().len() + 1, Ordering::Relaxed);
    scene.calls(CALLS)?;
    scene.drained(&["hook"])?;
    let repeats =
        scene.same("a server with faults", || Ok(server.taken()?.lines().map(str::to_owned).collect()))?;
    ensure!(repeats == 0, "{repeats} came again, although nothing was lost on the way back");
    ensure!(elsewhere.requests().is_empty(), "it follows redirects");

    let requests = server.requests();
    for (done, least) in [
        (Do::Say(429, "retry-after: 3\r\n", ""), 3),
        (Do::Say(503, "retry-after: 1\r\n", ""), 1),
        // Its own patience.
        (Do::Hang, 1),
    ] {
        let at = requests.iter().position(|r| r.done == done).with_context(|| format!("no {done:?}"))?;
        let next = requests.get(at + 1).context("nothing came after it")?;
        let paused = next.at - requests[at].at;
        ensure!(paused >= Duration::from_secs(least), "{paused:?} after {done:?}");
    }
    for status in [307, 413, 500] {
        ensure!(requests.iter().any(|r| matches!(r.done, Do::Say(s, ..) if s == status)), "no {status}");
    }
    ensure!(requests.iter().any(|r| r.done == Do::Reset), "no reset");
    for request in &requests {
        let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
        ensure!(request.path == "/events?a=b" && header("x-tenant") == "blue", "{request:?}");
        ensure!(header("authorization") == format!("Bearer {TOKEN}"), "{request:?}");
        let signed = signature(header("x-toolwarden-timestamp"), &request.body);
        ensure!(header("x-toolwarden-signature") == signed, "{request:?}");
    }
    // Whoever looks sees where they stand, not what they are.
    let config = scene.place.path().join("toolwarden.toml");
    let config = config.to_str().context("utf-8")?;
    for args in
        [&["config", "show", "--effective", "--config", config][..], &["config", "check", "--config", config]]
    {
        let mut command = std::process::Command::new(scene.place.program());
        let said = crate::place::said({
            command.args(args);
            command
        })?;
        let all = format!("{}{}", said.out, said.err);
        ensure!(!all.contains(TOKEN) && !all.contains(KEY), "{all}");
        ensure!(args[1] != "show" || all.contains("sinks.hook.token.file"), "{all}");
    }
    scene.agent.stop(libc::SIGTERM)?;
    Ok(())
}

/// As any receiver would compute it.
fn signature(timestamp: &str, body: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, KEY.as_bytes());
    let tag = ring::hmac::sign(&key, &[timestamp.as_bytes(), b".", body].concat());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={hex}")
}

const REFUSING: &str = "[sinks.one]
type = 'webhook'
url = 'http://127.74.0.4:8080/one'
[sinks.all]
type = 'webhook'
url = 'http://127.74.0.4:8080/all'
";

#[test]
fn one_event_that_is_refused_holds_up_no_other_and_a_receiver_that_refuses_all_takes_none() -> Result<()> {
    let place = Place::new()?;
    let server = Server::start("127.74.0.4:8080", |_, request| {
        let text = String::from_utf8_lossy(&request.body);
        match request.path.as_str() {
            "/one" if !text.contains("\"number\":13,\"stored\"") => Do::Take,
            _ => Do::Say(400, "", "not this one"),
        }
    })?;
    let mut scene = Scene::new(place, REFUSING)?;
    scene.calls(CALLS)?;
    scene.drained(&["one"])?;
    let truth = scene.truth()?;
    let wanted: Vec<&str> =
        truth.iter().map(String::as_str).filter(|line| !line.contains("\"number\":13,\"stored\"")).collect();
    ensure!(wanted.len() + 1 == truth.len(), "{} of {}", wanted.len(), truth.len());
    let taken = server.taken()?;
    let taken: Vec<&str> = taken.lines().collect();
    ensure!(taken == wanted, "{} instead of {}", taken.len(), wanted.len());
    let all = soon("that all are refused", || {
        let state = scene.sink("all")?;
        Ok(state["because"].as_str().is_some_and(|b| b.contains("in a row")).then_some(state))
    })?;
    let waiting = all["waiting"].as_u64().context("waiting")?;
    ensure!(waiting + 10 >= truth.len() as u64 && all["sent"] == 0, "{all} of {}", truth.len());
    scene.agent.stop(libc::SIGTERM)?;
    Ok(())
}

const PROFILES: &str = "[sinks.hec]
type = 'splunk_hec'
url = 'http://127.74.0.5:8080'
token = { file = '@/token' }
index = 'mcp'
[sinks.otlp]
type = 'otlp'
url = 'http://127.74.0.5:8081'
encoding = 'json'
[sinks.single]
type = 'webhook'
url = 'http://127.74.0.5:8082'
batch = 1
";

#[test]
fn each_profile_is_what_its_receivers_read() -> Result<()> {
    let place = Place::new()?;
    secret(&place, "token", TOKEN)?;
    let take = |address| Server::start(address, |_, _| Do::Take);
    let [hec, otlp, single] = [take("127.74.0.5:8080")?, take("127.74.0.5:8081")?, take("127.74.0.5:8082")?];
    let mut scene = Scene::new(place, PROFILES)?;
    scene.calls(CALLS)?;
    scene.drained(&["hec", "otlp", "single"])?;
    scene.same("HEC", || {
        let text = hec.taken()?;
        let event = |line: &str| {
            let start = line.find("\"event\":").context("no event")? + "\"event\":".len();
            let end = line.rfind(",\"fields\":").context("no fields")?;
            let whole: Value = serde_json::from_str(line)?;
            ensure!(whole["index"] == "mcp" && whole["time"].as_f64() > Some(1e9), "{line}");
            Ok(line.get(start..end).context("odd")?.to_owned())
        };
        text.lines().map(event).collect()
    })?;
    let request = hec.requests().into_iter().next().context("no request")?;
    ensure!(request.path == "/services/collector/event", "{}", request.path);
    ensure!(
        request.headers.get("authorization") == Some(&format!("Splunk {TOKEN}")),
        "{:?}",
        request.headers
    );
    scene.same("OTLP", || {
        let mut all = Vec::new();
        for request in otlp.requests() {
            let body: Value = serde_json::from_slice(&request.body)?;
            let records = body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().cloned();
            let text = |r: &Value| r["body"]["stringValue"].as_str().unwrap_or_default().to_owned();
            all.extend(records.unwrap_or_default().iter().map(text));
        }
        Ok(all)
    })?;
    scene.same("one at a time", || {
        Ok(single.requests().into_iter().map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect())
    })?;
    scene.agent.stop(libc::SIGTERM)?;
    Ok(())
}

/// Writes each body and waits until it is on the disk, then says that it has it.
const DURABLE: &str = r#"
import http.server, os, ssl, sys
out = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        os.write(out, self.rfile.read(int(self.headers["content-length"])))
        os.fsync(out)
        self.send_response(204)
        self.end_headers()
server = http.server.ThreadingHTTPServer((sys.argv[1], 8443), Handler)
tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=sys.argv[3] + "-ca.pem")
tls.verify_mode = ssl.CERT_REQUIRED
tls.load_cert_chain(sys.argv[3] + "-server.pem", sys.argv[3] + "-server.key")
server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

const KILLED: &str = "[sinks.hook]
type = 'webhook'
url = 'https://127.74.0.7:8443/'
batch = 5
ca = '@/good-ca.pem'
cert = '@/good-client.pem'
key = { file = '@/good-client.key' }
server_name = 'localhost'
[sinks.stranger]
type = 'webhook'
url = 'https://127.74.0.7:8443/'
ca = '@/good-ca.pem'
server_name = 'localhost'
[sinks.distrusting]
type = 'webhook'
url = 'https://127.74.0.7:8443/'
";

#[test]
fn a_receiver_that_is_killed_again_and_again_lacks_nothing() -> Result<()> {
    const IP: &str = "127.74.0.7";
    let place = Place::new()?;
    certificates(place.path(), "good")?;
    let [out, log, good] = ["received", "python.log", "good"].map(|name| place.path().join(name));
    let start = || {
        let mut command = std::process::Command::new("python3");
        command.args(["-c", DURABLE, IP]).arg(&out).arg(&good);
        let running = Running::start(&mut command, &log)?;
        listening(&format!("{IP}:8443"))?;
        Ok::<_, anyhow::Error>(running)
    };
    let mut receiver = start()?;
    let mut scene = Scene::new(place, KILLED)?;
    for _ in 0..e2e::pace::rounds(4) {
        scene.calls(CALLS / 2)?;
        receiver.kill()?;
        scene.calls(CALLS / 2)?;
        receiver = start()?;
    }
    scene.drained(&["hook"])?;
    for (name, why) in [("stranger", "CertificateRequired"), ("distrusting", "UnknownIssuer")] {
        let because = soon("that it is refused", || {
            let state = scene.sink(name)?;
            ensure!(state["sent"] == 0, "{name}: {state}");
            Ok(state["because"].as_str().filter(|because| because.contains(why)).map(str::to_owned))
        })?;
        println!("{name}: {because}");
    }
    scene.same("an HTTP receiver that was killed", || {
        let text = std::fs::read_to_string(&out)?;
        Ok(text.lines().map(str::to_owned).collect())
    })?;
    scene.agent.stop(libc::SIGTERM)?;
    Ok(())
}
