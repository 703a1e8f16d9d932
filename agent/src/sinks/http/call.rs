//! One request and its answer, on a connection that is kept.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{SendRequest, handshake},
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::Content;
use crate::sinks::{
    connect::Connector,
    deliver::Failure,
    secret::Secret,
    spec::{self, Peer, Profile},
};

/// Bytes of an answer that are looked at.
const MAX_ANSWER: usize = 64 << 10;
/// For the rest of an answer.
const BODY: Duration = Duration::from_secs(10);
/// Characters of an answer that are told.
const TOLD: usize = 200;

/// What a receiver said.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Calls one receiver.
pub(super) struct Caller {
    connector: Connector,
    path: String,
    /// Of every request.
    headers: HeaderMap,
    /// What must not be told, although a receiver may repeat it.
    secrets: Vec<Secret>,
    timeout: Duration,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Caller {
    pub(super) fn new(spec: &spec::Http) -> Self {
        let mut headers = HeaderMap::new();
        let mut secrets = Vec::new();
        let mut add = |name: &str, value: String, secret: &Secret| {
            // They were looked at when the configuration was read.
            if let (Ok(name), Ok(mut value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::try_from(value))
            {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            secrets.push(secret.clone());
        };
        for (name, value) in &spec.headers {
            add(name, value.reveal().to_owned(), value);
        }
        if let Some(token) = &spec.token {
            let scheme = match spec.profile {
                Profile::SplunkHec { .. } => "Splunk",
                Profile::Otlp { .. } | Profile::Webhook { .. } => "Bearer",
            };
            add("authorization", format!("{scheme} {}", token.reveal()), token);
        }
        if let Profile::Webhook { hmac_key: Some(key) } = &spec.profile {
            secrets.push(key.clone());
        }
        let agent = concat!("toolwarden/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        if let Ok(host) = HeaderValue::try_from(spec.peer.to_string()) {
            headers.insert(header::HOST, host);
        }
        Self {
            connector: Connector::new(spec.peer.clone()),
            path: spec.path.clone(),
            headers,
            secrets,
            timeout: spec.timeout,
            open: None,
        }
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.connector.peer
    }

    /// What the receiver wrote, for people.
    pub(super) fn said(&self, answer: &Answer) -> String {
        let text = String::from_utf8_lossy(&answer.body);
        let text = self.secrets.iter().fold(text.into_owned(), |text, secret| secret.struck_from(&text));
        let plain: String =
            text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(TOLD).collect();
        if plain.is_empty() { plain } else { format!(": {plain}") }
    }

    /// Sends it and waits for the answer.
    pub(super) async fn call(&mut self, content: Content) -> Result<Answer, Failure> {
        let wrong = |peer: &Peer, why: String| Failure::later(format!("{peer}: {why}"));
        let Content { kind, body, headers } = content;
        let request = |extra: &[(&'static str, String)]| {
            let mut request = Request::post(self.path.as_str());
            if let Some(all) = request.headers_mut() {
                all.clone_from(&self.headers);
                all.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
                for (name, value) in extra {
                    if let Ok(value) = HeaderValue::try_from(value) {
                        all.insert(*name, value);
                    }
                }
            }
            request.body(Full::new(body.clone())).map_err(|e| e.to_string())
        };
        // A receiver may close what was idle just when we use it.
        for kept in [true, false] {
            let mut old = self.open.take().filter(|_| kept);
            if let Some(sender) = &mut old
                && sender.ready().await.is_err()
            {
                old = None;
            }
            let reused = old.is_some();
            let mut sender = match old {
                Some(sender) => sender,
                None => open(&mut self.connector).await?,
            };
            let request = request(&headers).map_err(|why| wrong(&self.connector.peer, why))?;
            match timeout(self.timeout, sender.send_request(request)).await {
                Ok(Ok(response)) => {
                    let (answer, whole) = read(response).await;
                    // What is left of an answer would be taken for the next one.
                    if whole {
                        self.open = Some(sender);
                    }
                    return Ok(answer);
                }
                Ok(Err(_closed)) if reused => {}
                Ok(Err(e)) => return Err(wrong(&self.connector.peer, cause(&e))),
                Err(_late) => {
                    return Err(wrong(&self.connector.peer, format!("no answer within {:?}", self.timeout)));
                }
            }
        }
        Err(wrong(&self.connector.peer, "it closes connections".into()))
    }
}

async fn open(connector: &mut Connector) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let stream = connector.open().await?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|e| Failure::later(format!("{}: {}", connector.peer, cause(&e))))?;
    // It ends with the sender; what went wrong is told by the request.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

/// The answer, of its body only so much, and whether that was all of it.
async fn read(response: Response<Incoming>) -> (Answer, bool) {
    let (parts, body) = response.into_parts();
    let body = timeout(BODY, Limited::new(body, MAX_ANSWER).collect()).await;
    let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes);
    let whole = body.is_some();
    (Answer { status: parts.status, headers: parts.headers, body: body.unwrap_or_default() }, whole)
}

/// hyper's own words leave out why.
fn cause(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
