//! One request to the agent, and what its failure means for the person who asked.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

use super::{
    args::Remote,
    exit::{Exit, Stop},
};
use crate::control::VERSION;

/// Longer than the agent's own limit, so that its words are what is told.
const ANSWER: Duration = Duration::from_secs(100);
/// Largest answer: a baseline in full has some MiB.
const MAX_ANSWER: usize = 256 << 20;

/// Longest thing to ask for: the agent takes no more than 16 KiB with all headers.
const MAX_TARGET: usize = 15 << 10;

/// Reads something.
pub(crate) fn get(remote: &Remote, path: &str, query: &[(&str, &str)]) -> Result<Value, Stop> {
    request(remote, "GET", &target(path, query), None)
}

/// Reads what comes, piece by piece, for as long as it comes.
pub(crate) fn stream(
    remote: &Remote,
    path: &str,
    query: &[(&str, &str)],
    mut take: impl FnMut(&[u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let socket = remote.control.as_path();
    let target = target(path, query);
    runtime()?.block_on(async {
        let (mut sender, connection) = connect(socket).await?;
        // It does its work while what it brings is waited for.
        let connection = tokio::spawn(connection);
        let asked = timeout(ANSWER, sender.send_request(ask("GET", &target, None)?)).await;
        let asked = asked.map_err(|_late| silent(socket, "no answer in time"))?;
        let mut response = asked.map_err(|e| silent(socket, &e.to_string()))?;
        let status = response.status().as_u16();
        if status != 200 {
            let bytes = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let bytes = bytes.map_err(|e| silent(socket, &e.to_string()))?.to_bytes();
            return understand(socket, status, &bytes).map(drop);
        }
        while let Some(frame) = response.frame().await {
            // The agent's end is the stream's.
            let Ok(frame) = frame else { break };
            if let Some(piece) = frame.data_ref() {
                take(piece)?;
            }
        }
        connection.abort();
        Ok(())
    })
}

fn target(path: &str, query: &[(&str, &str)]) -> String {
    let mut target = path.to_owned();
    for (at, (key, value)) in query.iter().enumerate() {
        target.push(if at == 0 { '?' } else { '&' });
        target.push_str(key);
        target.push('=');
        target.push_str(&percent(value));
    }
    target
}

/// Changes something.
pub(crate) fn post(remote: &Remote, path: &str, body: &Value) -> Result<Value, Stop> {
    request(remote, "POST", path, Some(body))
}

/// For one part of a path, or one value of a query.
pub(crate) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn request(remote: &Remote, method: &str, target: &str, body: Option<&Value>) -> Result<Value, Stop> {
    let socket = remote.control.as_path();
    runtime()?.block_on(async {
        match timeout(ANSWER, exchange(socket, method, target, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(silent(socket, "no answer in time")),
        }
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Stop> {
    let no_runtime = |e| Stop::new(Exit::Unreachable, format!("cannot start the async runtime: {e}"));
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)
}

type Asker = (http1::SendRequest<Full<Bytes>>, http1::Connection<TokioIo<UnixStream>, Full<Bytes>>);

async fn connect(socket: &Path) -> Result<Asker, Stop> {
    let stream = UnixStream::connect(socket).await.map_err(|e| unreachable(socket, &e))?;
    http1::handshake(TokioIo::new(stream)).await.map_err(|e| silent(socket, &e.to_string()))
}

fn ask(method: &str, target: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, Stop> {
    if target.len() > MAX_TARGET {
        let message =
            format!("names and patterns are too long: {} bytes, of {MAX_TARGET} at most", target.len());
        return Err(Stop::new(Exit::Invalid, message));
    }
    let body = Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default()));
    Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "toolwarden")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|e| Stop::new(Exit::Invalid, format!("cannot ask for {target}: {e}")))
}

async fn exchange(socket: &Path, method: &str, target: &str, body: Option<&Value>) -> Result<Value, Stop> {
    let broken = |e: hyper::Error| silent(socket, &e.to_string());
    let (mut sender, connection) = connect(socket).await?;
    let request = ask(method, target, body)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let bytes = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Ok::<_, Stop>((status, bytes.map_err(|e| silent(socket, &e.to_string()))?.to_bytes()))
    };
    // The connection does its work while the answer is waited for.
    tokio::pin!(answer);
    let mut connection = std::pin::pin!(connection);
    let (status, bytes) = tokio::select! {
        answer = &mut answer => answer,
        _ended = &mut connection => answer.await,
    }?;
    understand(socket, status, &bytes)
}

fn understand(socket: &Path, status: u16, bytes: &[u8]) -> Result<Value, Stop> {
    let strange = || silent(socket, "the answer is not from a toolwarden that this one understands");
    let mut json: Value = serde_json::from_slice(bytes).ok().ok_or_else(strange)?;
    if json.get("version").and_then(Value::as_u64) != Some(u64::from(VERSION)) {
        return Err(strange());
    }
    if status == 200 {
        return json.get_mut("data").map(Value::take).ok_or_else(strange);
    }
    let message = json.pointer("/error/message").and_then(Value::as_str).unwrap_or("no reason was given");
    let exit = match status {
        403 => Exit::Refused,
        404 => Exit::No,
        400 | 405 | 409 | 413 | 414 | 422 | 431 => Exit::Invalid,
        _ => Exit::Unreachable,
    };
    Err(Stop::new(exit, message))
}

fn unreachable(socket: &Path, e: &io::Error) -> Stop {
    let socket = socket.display();
    match e.kind() {
        io::ErrorKind::PermissionDenied => Stop::new(
            Exit::Refused,
            format!(
                "no right to use {socket}: be root or a member of the group toolwarden \
                 (`sudo usermod -aG toolwarden $USER`, then log in again)"
            ),
        ),
        _ => Stop::new(
            Exit::Unreachable,
            format!(
                "cannot reach the agent at {socket}: {e}; is `toolwarden run` running, and with this --control?"
            ),
        ),
    }
}

fn silent(socket: &Path, why: &str) -> Stop {
    Stop::new(Exit::Unreachable, format!("no answer from the agent at {}: {why}", socket.display()))
}
