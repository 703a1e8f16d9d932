//! What must not break it.

use std::{os::unix::process::CommandExt as _, process::Command, time::Duration};

use anyhow::{Result, ensure};
use e2e::{
    agent::{self, Agent},
    client::{Client, Link, Manner},
    scenario::program,
};
use serde_json::json;

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
        .args(["run", "--print", "json"])
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

/// Lines that no MCP client or server should send, each followed by honest calls.
#[test]
fn garbage() -> Result<()> {
    let agent = Agent::start(&[])?;
    let mut peak = 0;
    for link in [Link::Pipes, Link::Sockets] {
        let manner = Manner { link, ..Manner::default() };
        let mut client = Client::start(Command::new(program("garbler")?), manner)?;
        let mut made = 0;
        for kind in ["long", "deep", "binary", "nul", "open"] {
            for bytes in [10, 100_000, 64 << 20] {
                let arguments = json!({"kind": kind, "bytes": bytes});
                client.call("garbage", &arguments)?;
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
                client.call("ping", &json!({}))?;
                made += 2;
                peak = peak.max(agent.rss()?);
            }
        }
        agent.settle(Duration::from_millis(700));
        peak = peak.max(agent.rss()?);
        let server = agent.server(client.pid())?;
        let seen = agent.observed(&server.server.id)?;
        let pings = seen.calls.iter().filter(|c| c.scope.tool.as_deref() == Some("ping"));
        let pings = pings.count();
        println!("{link:?}: {} of {made} calls reported, {pings} of {} pings", seen.calls.len(), made / 2);
        ensure!(pings == made / 2, "calls after garbage do not open");
        ensure!(seen.calls.len() == made, "calls between garbage do not open");
    }
    for lost in agent.lost()? {
        println!("lost: {} {}", lost.cause, lost.total);
    }
    println!("peak RSS {:.1} MB", peak as f64 / 1e6);
    ensure!(peak < 64 << 20, "peak RSS {peak}");
    Ok(())
}
