//! A raw MCP client: every byte that it writes is chosen by the test.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{pace::patient_ms, sys};

/// What the server's stdin and stdout are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// As Python and Rust clients do.
    Pipes,
    /// As Node clients do: two pairs of unix stream sockets.
    Sockets,
}

/// Key order of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// method, params, jsonrpc, id
    TypeScript,
    /// jsonrpc, id, method, params
    Python,
    /// As Python's, with `arguments` before `name`.
    ArgumentsFirst,
}

/// Protocol era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// 2025-11-25: initialize first.
    Handshake,
    /// 2026-07-28: server/discover, and metadata in every request.
    Stateless,
}

/// How to talk.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// What the server's stdin and stdout are.
    pub link: Link,
    /// Key order of requests.
    pub order: Order,
    /// Protocol era.
    pub era: Era,
    /// Ids are strings.
    pub text_ids: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { link: Link::Pipes, order: Order::TypeScript, era: Era::Handshake, text_ids: false }
    }
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Whole message.
    pub body: Value,
    /// When it was read, ns since boot.
    pub at_ns: u64,
}

impl Reply {
    /// The text of the first content block.
    #[must_use]
    pub fn text(&self) -> &str {
        let text = &self.body["result"]["content"][0]["text"];
        text.as_str().unwrap_or_default()
    }

    /// A result that is not an error of the tool.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.body.get("result").is_some() && self.body["result"]["isError"] != true
    }
}

/// One server and its channel.
pub struct Client {
    child: Child,
    to: Arc<Mutex<Option<File>>>,
    from: Receiver<Reply>,
    early: HashMap<String, Reply>,
    manner: Manner,
    next: i64,
    /// How long to wait for a reply.
    pub patience: Duration,
}

impl Client {
    /// Starts a server and shakes hands.
    ///
    /// # Errors
    /// When it does not start or does not speak MCP.
    pub fn start(command: Command, manner: Manner) -> Result<Self> {
        let mut client = Self::launch(command, manner)?;
        let reply = match manner.era {
            Era::Handshake => {
                let params = json!({"protocolVersion": "2025-11-25",
                    "capabilities": {"roots": {"listChanged": true}},
                    "clientInfo": {"name": "e2e", "version": "1"}});
                let reply = client.request("initialize", &params.to_string())?;
                client.send(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n")?;
                reply
            }
            Era::Stateless => {
                let params = json!({"_meta": meta()});
                client.request("server/discover", &params.to_string())?
            }
        };
        if reply.body.get("result").is_none() {
            bail!("the server refuses the handshake: {}", reply.body);
        }
        Ok(client)
    }

    /// Starts a process and says nothing.
    ///
    /// # Errors
    /// When it does not start.
    pub fn launch(mut command: Command, manner: Manner) -> Result<Self> {
        let (to, from, theirs_in, theirs_out) = match manner.link {
            Link::Pipes => {
                let (theirs_in, to) = sys::pipe()?;
                let (from, theirs_out) = sys::pipe()?;
                (to, from, theirs_in, theirs_out)
            }
            Link::Sockets => {
                let (theirs_in, to) = sys::socketpair()?;
                let (from, theirs_out) = sys::socketpair()?;
                (to, from, theirs_in, theirs_out)
            }
        };
        command.stdin(Stdio::from(theirs_in)).stdout(Stdio::from(theirs_out));
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        // Closes our copies of its ends.
        drop(command);
        let to = Arc::new(Mutex::new(Some(File::from(to))));
        let from = receive(from, Arc::clone(&to));
        Ok(Self {
            child,
            to,
            from,
            early: HashMap::new(),
            manner,
            // The handshake has -1, so that the first call has 0.
            next: -1,
            patience: patient_ms(30_000),
        })
    }

    /// Process id of what was started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A `tools/call` line and its id.
    pub fn compose(&mut self, tool: &str, arguments: &Value) -> (Value, Vec<u8>) {
        let name = json!(tool);
        let extra = match self.manner.era {
            Era::Handshake => json!({"progressToken": self.next}),
            Era::Stateless => {
                let mut meta = meta();
                meta["progressToken"] = json!(self.next);
                meta
            }
        };
        let params = match self.manner.order {
            Order::ArgumentsFirst => {
                format!(r#"{{"arguments":{arguments},"_meta":{extra},"name":{name}}}"#)
            }
            _ => format!(r#"{{"name":{name},"arguments":{arguments},"_meta":{extra}}}"#),
        };
        self.line("tools/call", &params)
    }

    fn line(&mut self, method: &str, params: &str) -> (Value, Vec<u8>) {
        let id = match self.manner.text_ids {
            true => json!(format!("call-{}", self.next)),
            false => json!(self.next),
        };
        self.next += 1;
        let line = match self.manner.order {
            Order::TypeScript => {
                format!(r#"{{"method":"{method}","params":{params},"jsonrpc":"2.0","id":{id}}}"#)
            }
            _ => format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#),
        };
        let mut line = line.into_bytes();
        line.push(b'\n');
        (id, line)
    }

    /// Writes bytes with one write(2) where the kernel takes them whole.
    ///
    /// # Errors
    /// When the server has gone.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let to = to.as_mut().context("the channel is closed")?;
        to.write_all(bytes).context("cannot write to the server")
    }

    /// Waits for the reply to `id`.
    ///
    /// # Errors
    /// When the server ends or says nothing for too long.
    pub fn wait(&mut self, id: &Value) -> Result<Reply> {
        let key = id.to_string();
        let end = Instant::now() + self.patience;
        loop {
            if let Some(reply) = self.early.remove(&key) {
                return Ok(reply);
            }
            let left = end.saturating_duration_since(Instant::now());
            let reply = self.from.recv_timeout(left).with_context(|| format!("no reply to {id}"))?;
            self.early.insert(reply.body["id"].to_string(), reply);
        }
    }

    /// Waits for the next reply to anything.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn wait_any(&mut self) -> Result<Reply> {
        if let Some(key) = self.early.keys().next().cloned()
            && let Some(reply) = self.early.remove(&key)
        {
            return Ok(reply);
        }
        let reply = self.from.recv_timeout(self.patience);
        reply.context("no reply to anything")
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::wait`].
    pub fn request(&mut self, method: &str, params: &str) -> Result<Reply> {
        let (id, line) = self.line(method, params);
        self.send(&line)?;
        self.wait(&id)
    }

    /// tools/list.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::wait`].
    pub fn list(&mut self) -> Result<Reply> {
        let params = match self.manner.era {
            Era::Handshake => json!({}),
            Era::Stateless => json!({"_meta": meta()}),
        };
        self.request("tools/list", &params.to_string())
    }

    /// Calls a tool and waits for its reply.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::wait`].
    pub fn call(&mut self, tool: &str, arguments: &Value) -> Result<(Value, Reply)> {
        let (id, line) = self.compose(tool, arguments);
        self.send(&line)?;
        let reply = self.wait(&id)?;
        Ok((id, reply))
    }

    /// Cancels a call.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn cancel(&self, id: &Value) -> Result<()> {
        let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": id, "reason": "test"}});
        self.send(format!("{note}\n").as_bytes())
    }

    /// Closes the server's stdin.
    pub fn close(&self) {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        *to = None;
    }

    /// Whether the process has ended, and how.
    ///
    /// # Errors
    /// errno of waitpid.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Client {
    /// As the specification has it: close stdin, then SIGTERM, then SIGKILL.
    fn drop(&mut self) {
        self.close();
        for signal in [libc::SIGTERM, libc::SIGKILL] {
            for _ in 0..100 {
                if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                    return;
                }
                std::thread::sleep(patient_ms(10));
            }
            drop(sys::kill(self.child.id(), signal));
        }
        drop(self.child.wait());
    }
}

/// Metadata that every stateless request carries.
fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "e2e", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// Reads lines: replies go to the channel, requests of the server are answered, the rest is noise.
fn receive(from: OwnedFd, to: Arc<Mutex<Option<File>>>) -> Receiver<Reply> {
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        let mut from = BufReader::new(File::from(from));
        let mut line = Vec::new();
        while matches!(from.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            let at_ns = sys::boot_ns();
            let body: Value = serde_json::from_slice(&line).unwrap_or_default();
            line.clear();
            if body.get("id").is_some() && body.get("method").is_none() {
                if tx.send(Reply { body, at_ns }).is_err() {
                    return;
                }
                continue;
            }
            if let (Some(id), Some(method)) = (body.get("id"), body.get("method")) {
                let answer = match method.as_str() {
                    Some("roots/list") => json!({"roots": []}),
                    _ => json!({}),
                };
                let answer = json!({"jsonrpc": "2.0", "id": id, "result": answer});
                let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(to) = to.as_mut()
                    && writeln!(to, "{answer}").is_err()
                {
                    return;
                }
            }
        }
    });
    rx
}
