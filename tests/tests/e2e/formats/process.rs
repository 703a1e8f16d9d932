//! The process of the sinks, fed as an agent feeds it.

use std::{
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// Events of a batch.
const BATCH: usize = 100;

struct Process {
    child: std::process::Child,
    socket: UnixStream,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    fn start() -> Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        let child = Command::new(e2e::agent::executable()?)
            .arg("sinks")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok(Self { child, socket })
    }

    fn say(&mut self, order: &Value) -> Result<()> {
        let text = order.to_string();
        self.socket.write_all(&u32::try_from(text.len())?.to_le_bytes())?;
        Ok(self.socket.write_all(text.as_bytes())?)
    }

    fn hear(&mut self) -> Result<Value> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).context("it says nothing")?;
        let mut text = vec![0; u32::from_le_bytes(length) as usize];
        self.socket.read_exact(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// Has events written in these formats, each into a file of that name.
pub(super) fn write(dir: &Path, formats: &[&str], events: &[String]) -> Result<()> {
    let mut process = Process::start()?;
    let sinks: Vec<Value> = formats
        .iter()
        .map(|format| {
            let file = json!({ "path": dir.join(format), "max_bytes": 1_u64 << 30, "keep": 1 });
            json!([{ "name": format, "format": format, "redact": [], "output": { "file": file } }, 0])
        })
        .collect();
    let host = json!({ "name": "host-1", "id": "0123456789abcdef", "cluster": "prod" });
    process.say(&json!({ "Begin": { "host": host, "sinks": sinks } }))?;
    let mut done = vec![0; formats.len()];
    while done.iter().any(|n| *n < events.len()) {
        let word = process.hear()?;
        if let Some(pull) = word.get("Pull") {
            let sink = usize::try_from(pull["sink"].as_u64().context("a sink")?)?;
            let after = usize::try_from(pull["after"].as_u64().context("a place")?)?;
            let batch: Vec<Value> = (after..events.len().min(after + BATCH))
                .map(|n| {
                    let stored_ns = 1_795_324_390_000_000_000_u64;
                    json!({ "seq": n + 1, "boot": "boot-1", "number": n + 1, "stored_ns": stored_ns, "json": events[n] })
                })
                .collect();
            if !batch.is_empty() {
                let through = after + batch.len();
                process.say(&json!({ "Events": { "sink": sink, "events": batch, "through": through } }))?;
            }
        }
        if let Some(word) = word.get("Done") {
            let sink = usize::try_from(word["sink"].as_u64().context("a sink")?)?;
            done[sink] = usize::try_from(word["through"].as_u64().context("a place")?)?;
        }
        let failing = word.pointer("/Health/health/failing").filter(|f| !f.is_null());
        ensure!(failing.is_none(), "{failing:?}");
    }
    process.say(&json!("End"))
}
