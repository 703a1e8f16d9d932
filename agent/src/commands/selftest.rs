//! `selftest`: a harmless detection goes all the way, from the kernel to every sink. This program plays the MCP client, and a second
//! one of it the server, whose tool reads the first byte of `/etc/shadow`: that is a finding on every host.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    answer,
    args::Remote,
    client,
    exit::{Exit, Stop},
    show::{Screen, at, list, some, style},
};

/// What the server's tool reads.
const OBJECT: &str = "/etc/shadow";
/// Name of the tool, and of the server's verb.
const TOOL: &str = "selftest";
/// The agent has found out and stored it by then.
const FOUND: Duration = Duration::from_secs(20);
/// Receivers have it by then.
const DELIVERED: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(200);

pub(super) fn run(remote: &Remote, out: &mut dyn Write) -> Result<Exit, Stop> {
    if !rustix::process::geteuid().is_root() {
        return Err(Stop::new(Exit::Refused, "the detection needs root: sudo toolwarden selftest"));
    }
    let before = client::get(remote, "/v1/status", &[])?;
    let began = Instant::now();
    let mut server = Server::start().map_err(|e| Stop::new(Exit::Invalid, format!("no server: {e}")))?;
    let mut steps = vec![step("agent", "ok", "it answers")];
    let found = server.talk().map_err(|e| e.to_string()).and_then(|()| finding(remote, server.child.id()));
    let found = match found {
        Ok(found) => found,
        Err(why) => {
            steps.push(step("detection", "failed", &why));
            return told(remote, steps, None, out);
        }
    };
    let what = format!("{} of {OBJECT}, severity {}", at(&found, "kind"), at(&found, "severity"));
    steps.push(step("detection", "ok", &format!("{what}, after {} ms", began.elapsed().as_millis())));
    sinks(remote, &before, &mut steps)?;
    told(remote, steps, some(&found, "id"), out)
}

fn step(of: &str, state: &str, result: &str) -> Value {
    json!({ "of": of, "state": state, "result": result })
}

/// What was found about the server with this pid.
fn finding(remote: &Remote, pid: u32) -> Result<Value, String> {
    let end = Instant::now() + FOUND;
    let get =
        |path: &str, query: &[(&str, &str)]| client::get(remote, path, query).map_err(|stop| stop.message);
    let mut id = None;
    while Instant::now() < end {
        if id.is_none() {
            let servers = get("/v1/servers", &[])?;
            let of_it = servers.as_array().and_then(|all| all.iter().find(|s| s["pid"] == pid));
            id = of_it.and_then(|server| some(server, "id"));
        }
        let all = get("/v1/findings", &[("limit", "200")])?;
        let is = |f: &&Value| f["object"] == OBJECT && id.is_some() && some(&f["server"], "id") == id;
        if let Some(found) = all.as_array().and_then(|all| all.iter().find(is)) {
            return Ok(found.clone());
        }
        thread::sleep(LOOK);
    }
    Err(match id {
        Some(_) => format!("the agent saw the server, and no finding of {OBJECT} within {FOUND:?}"),
        None => format!(
            "the agent did not see the server within {FOUND:?}: toolwarden doctor says which hook is silent"
        ),
    })
}

/// Waits until each sink has all that waits, and says what became of it.
fn sinks(remote: &Remote, before: &Value, steps: &mut Vec<Value>) -> Result<(), Stop> {
    let end = Instant::now() + DELIVERED;
    loop {
        let status = client::get(remote, "/v1/status", &[])?;
        let all = status.pointer("/sinks/sinks").and_then(Value::as_object).cloned().unwrap_or_default();
        let has = |sink: &Value| sink["waiting"] == 0 && sink["state"] == "working";
        if !all.values().all(has) && Instant::now() < end {
            thread::sleep(LOOK);
            continue;
        }
        if all.is_empty() {
            steps.push(step("sinks", "none", "there are none: see [sinks.NAME] of the configuration"));
        }
        for (name, sink) in &all {
            let (state, result) = match some(sink, "because") {
                _ if has(sink) && sent(before, name) == sink["sent"].as_u64() => {
                    ("ok", "nothing of it is for this sink, by its severity, types or servers".into())
                }
                _ if has(sink) => ("ok", some(sink, "said").unwrap_or_else(|| "taken".into())),
                Some(because) => ("failed", because),
                None => ("failed", format!("{} events still wait", at(sink, "waiting"))),
            };
            steps.push(step(&format!("sink {name}"), state, &result));
        }
        return Ok(());
    }
}

/// Events that a sink had taken.
fn sent(status: &Value, sink: &str) -> Option<u64> {
    status.get("sinks")?.get("sinks")?.get(sink)?.get("sent")?.as_u64()
}

fn told(remote: &Remote, steps: Vec<Value>, id: Option<String>, out: &mut dyn Write) -> Result<Exit, Stop> {
    let failed = steps.iter().any(|s| s["state"] == "failed");
    let data = json!({ "finding": id, "steps": steps });
    answer(remote, &data, out, page)?;
    Ok(if failed { Exit::No } else { Exit::Ok })
}

fn page(data: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let row = |s: &Value| (vec![at(s, "of"), at(s, "state"), at(s, "result")], style(&at(s, "state")));
    to.table(&["of", "state", "result"], list(data, "steps").iter().map(row).collect())?;
    match some(data, "finding") {
        Some(id) => {
            to.line(format!("close it: toolwarden findings ack {} --note selftest", crate::print::safe(&id)))
        }
        None => Ok(()),
    }
}

/// The MCP server, as a child.
struct Server {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Server {
    fn start() -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("toolwarden").arg("selftest-server").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let none = || io::Error::other("it has no channel");
        let (to, from) = (child.stdin.take().ok_or_else(none)?, child.stdout.take().ok_or_else(none)?);
        Ok(Self { child, to, from: BufReader::new(from) })
    }

    /// A session with one call.
    fn talk(&mut self) -> io::Result<()> {
        let info = json!({ "name": "toolwarden-selftest", "version": env!("CARGO_PKG_VERSION") });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info });
        self.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }))?;
        // Hooks are attached for the first server; it takes a moment.
        thread::sleep(Duration::from_millis(500));
        self.ask(&json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }))?;
        let params = json!({ "name": TOOL, "arguments": {} });
        self.ask(&json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params }))
    }

    fn ask(&mut self, request: &Value) -> io::Result<()> {
        writeln!(self.to, "{request}")?;
        self.to.flush()?;
        let mut reply = String::new();
        if self.from.read_line(&mut reply)? == 0 {
            return Err(io::Error::other("the server of the test has ended"));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; it is waited for in any case.
        let _unused = self.child.kill();
        let _unused = self.child.wait();
    }
}

/// The server's side: answers until its client goes.
pub(crate) fn serve() -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?).unwrap_or_default();
        let Some(id) = request.get("id") else { continue };
        let result = match request["method"].as_str() {
            Some("initialize") => json!({
                "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                "serverInfo": { "name": "toolwarden-selftest", "version": env!("CARGO_PKG_VERSION") },
            }),
            Some("tools/list") => json!({ "tools": [{ "name": TOOL, "inputSchema": { "type": "object" } }] }),
            Some("tools/call") => {
                // Opened and one byte read; it goes nowhere.
                let read = std::fs::File::open(OBJECT).and_then(|mut file| file.read(&mut [0]));
                json!({ "content": [{ "type": "text", "text": if read.is_ok() { "done" } else { "denied" } }] })
            }
            _ => json!({}),
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{}", json!({ "jsonrpc": "2.0", "id": id, "result": result }))?;
        out.flush()?;
    }
    Ok(())
}
