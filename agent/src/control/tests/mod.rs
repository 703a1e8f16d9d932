//! The control socket as peers meet it: a real socket, real processes, a made-up loop.

mod hostile;
mod peers;
pub(crate) mod rights;

use std::{
    future::ready,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    AuditRow, Failure, Host, Lineage, Peer, Recorded, Role, Socket, Verb, WAITING, authorise::Ancestor, serve,
};

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What of the agent the made-up one is.
#[derive(Default)]
pub(crate) struct Made {
    audit: Mutex<Vec<AuditRow>>,
    /// Roles by pid.
    roles: Mutex<Vec<(u32, Role)>>,
    /// Looks at `/proc`, where these tests may run below an MCP client themselves.
    real_lineage: bool,
    disk_full: bool,
}

impl Host for Made {
    fn role(&self, pid: u32) -> Role {
        let roles = self.roles.lock().map(|roles| roles.clone()).unwrap_or_default();
        roles.into_iter().find(|(of, _)| *of == pid).map(|(_, role)| role).unwrap_or_default()
    }

    fn lineage(&self, peer: &Peer) -> Lineage {
        if self.real_lineage {
            return super::lineage::of(peer, &|pid| self.role(pid));
        }
        let ancestor = Ancestor { pid: peer.pid, exe: "/bin/x".into(), role: self.role(peer.pid) };
        Lineage::Known(vec![ancestor])
    }

    fn audit(&self, row: AuditRow) -> Recorded {
        if let Ok(mut rows) = self.audit.lock() {
            rows.push(row);
        }
        Box::pin(ready(if self.disk_full { Err("no space left".into()) } else { Ok(()) }))
    }
}

impl Made {
    fn rows(&self) -> Vec<AuditRow> {
        self.audit.lock().map(|rows| rows.clone()).unwrap_or_default()
    }
}

/// An agent that serves a socket until it is dropped.
pub(crate) struct Agent {
    pub(crate) path: PathBuf,
    host: Arc<Made>,
    stop: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Agent {
    pub(crate) fn start(host: Made, group: Option<u32>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        // Others must reach the socket, if its own rights let them.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let path = dir.path().join("control.sock");
        let socket = Socket::bind(&path, group)?;
        let host = Arc::new(host);
        let (stop, stopped) = std::sync::mpsc::channel();
        let shared = Arc::clone(&host);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let (asks, mut asked) = mpsc::channel::<super::Ask>(WAITING);
                tokio::spawn(serve(socket, group, shared, asks, Arc::default()));
                let mut tick = tokio::time::interval(Duration::from_millis(10));
                loop {
                    tokio::select! {
                        Some(ask) = asked.recv() => {
                            let _unused = ask.answer.send(made_up(&ask.verb, &ask.peer));
                        }
                        _ = tick.tick() => {
                            if stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Empty) {
                                break;
                            }
                        }
                    }
                }
            });
        });
        Ok(Self { path, host, stop: Some(stop), thread: Some(thread), _dir: dir })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok(), "the loop was disturbed");
        }
    }
}

fn made_up(verb: &Verb, peer: &Peer) -> super::Answer {
    match verb {
        Verb::Finding { .. } => Err(Failure::not_found("no such finding")),
        Verb::Import { .. } => Err(Failure::invalid("line 3: no")),
        verb => Ok(json!({ "verb": verb.name(), "target": verb.target(), "uid": peer.uid })),
    }
}

/// Sends bytes, reads to the end: status and body.
fn send(path: &Path, bytes: &[u8]) -> Result<(u16, Value)> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    // The other end may answer and hang up before all is written.
    let _unused = stream.write_all(bytes);
    receive(&mut stream)
}

fn receive(stream: &mut UnixStream) -> Result<(u16, Value)> {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    // After the answer, a reset is as good as an end.
    while let Ok(n @ 1..) = stream.read(&mut part) {
        text.extend_from_slice(part.get(..n).unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {text:?}"))?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    Ok((status, serde_json::from_str(body).map_err(|e| format!("{e} in {text:?}"))?))
}

fn get(path: &Path, target: &str) -> Result<(u16, Value)> {
    send(path, format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
}

fn post(path: &Path, target: &str, body: &str) -> Result<(u16, Value)> {
    let head = format!("POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    send(path, format!("{head}{body}").as_bytes())
}

fn message(answer: &Value) -> &str {
    answer.pointer("/error/message").and_then(Value::as_str).unwrap_or_default()
}
