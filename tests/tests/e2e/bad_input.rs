//! What must not break it.

use std::{os::unix::process::CommandExt as _, process::Command, time::Duration};

use anyhow::{Result, ensure};
use e2e::{
    agent::{self, Agent},
    client::{Client, Link, Manner},
    scenario::program,
};
use engine::output::CallLine;
use serde_json::{Value, json};

/// nobody
const NOBODY: u32 = 65534;

/// A copy of the agent that any user may execute.
pub(crate) fn open_copy(dir: &std::path::Path) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let copy = dir.join("toolwarden");
    std::fs::copy(agent::executable()?, &copy)?;
    for path in [dir, &copy] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(copy)
}

#[test]
fn not_root() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let run = Command::new(open_copy(dir.path())?)
        .args(["run", "--no-control", "--print", "json"])
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()?;
    let said = String::from_utf8_lossy(&run.stderr);
    println!("as nobody: {}, {said}", run.status);
    ensure!(!run.status.success(), "claims to run");
    ensure!(said.trim().lines().count() == 1, "one message: {said}");
    ensure!(said.contains("root"), "no remedy in: {said}");
    ensure!(run.stdout.is_empty(), "{:?}", String::from_utf8_lossy(&run.stdout));
    Ok(())
}

/// Lines that no MCP client or server should send, each followed by honest calls. Where they are too
/// much for the ring, calls among them may be lost, and that is counted; calls after them are not.
#[test]
fn garbage() -> Result<()> {
    let agent = Agent::start(&[])?;
    let mut peak = 0;
    for link in [Link::Pipes, Link::Sockets] {
        let manner = Manner { link, ..Manner::default() };
        let mut client = Client::start(Command::new(program("garbler")?), manner)?;
        let mut must = Vec::new();
        let mut may = 0;
        for kind in ["long", "deep", "binary", "nul", "open"] {
            for bytes in [10, 100_000, 64 << 20] {
                let arguments = json!({"kind": kind, "bytes": bytes});
                let huge = bytes > 1 << 20;
                let (id, _) = client.call("garbage", &arguments)?;
                // The same towards the server, which ignores it.
                let mut line = match kind {
                    "long" => vec![b'a'; bytes],
                    "deep" => br#"{"a":["#.repeat(bytes / 6 + 1),
                    "binary" => vec![0xfe; bytes],
                    "nul" => vec![0; bytes],
                    _ => [br#"{"method":""#.as_slice(), &vec![b'\\'; bytes]].concat(),
                };
                line.push(b'\n');
                client.send(&line)?;
                let (at_once, _) = client.call("ping", &json!({}))?;
                peak = peak.max(agent.rss()?);
                if huge {
                    // After a gap the stream is read again from the next newline on: the first
                    // call after it may be part of the gap.
                    std::thread::sleep(Duration::from_millis(700));
                    client.call("ping", &json!({}))?;
                    may += 3;
                } else {
                    must.extend([id, at_once]);
                }
                must.push(client.call("ping", &json!({}))?.0);
                peak = peak.max(agent.rss()?);
            }
        }
        agent.rest();
        peak = peak.max(agent.rss()?);
        let server = agent.server(client.pid())?;
        let seen = agent.observed(&server.server.id)?;
        let is_seen = |id: &Value| {
            let call = |c: &CallLine| c.scope.call.as_ref().is_some_and(|r| &r.request_id == id);
            seen.calls.iter().any(call)
        };
        let missing: Vec<_> = must.iter().filter(|id| !is_seen(id)).collect();
        let beside = seen.calls.len() - (must.len() - missing.len());
        println!(
            "{link:?}: {} calls after garbage, missing {missing:?}; of {may} amid 64 MB of it, \
             {beside} reported",
            must.len()
        );
        ensure!(missing.is_empty(), "calls after garbage do not open");
        let lost = agent.lost()?;
        ensure!(
            beside == may || lost.iter().any(|l| l.cause == "ring:chunk"),
            "calls are missing and nothing is counted as lost"
        );
    }
    for lost in agent.lost()? {
        println!("lost: {} {}", lost.cause, lost.total);
    }
    println!("peak RSS {:.1} MB", peak as f64 / 1e6);
    ensure!(peak < 64 << 20, "peak RSS {peak}");
    Ok(())
}
