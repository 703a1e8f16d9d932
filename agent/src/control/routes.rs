//! HTTP to verbs, answers to JSON. `{"version": 1, "data": ...}`, or
//! `{"version": 1, "error": {"status", "code", "message"}}`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{
        FromRequestParts, Path, Query,
        rejection::{PathRejection, QueryRejection},
    },
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use engine::respond::Action;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc::error::SendTimeoutError, oneshot},
    time::timeout,
};

use super::{
    Answer, Ask, AuditRow, CallFilter, Failure, FindingFilter, Mode, Peer, VERSION, Verb,
    authorise::{Facts, Lineage, authorise},
    feed::WatchFilter,
    serve::{Shared, Watches},
};

/// Largest body of a request: far above any rule file that a person reads.
const MAX_BODY: usize = 1 << 20;
/// A body must be here by then.
const BODY: Duration = Duration::from_secs(10);
/// The loop takes a question by then, or is too busy.
const TAKEN: Duration = Duration::from_secs(2);
/// The loop answers by then; a reload compiles rules, and an import reads a baseline.
const ANSWER: Duration = Duration::from_secs(60);
/// A look at a lineage may be stalled by a hostile process.
const LINEAGE: Duration = Duration::from_secs(5);
/// Longest name, note or reason.
const MAX_TEXT: usize = 4096;

type Id = Result<Path<String>, PathRejection>;
type Asked<T> = Result<Query<T>, QueryRejection>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/status", get(|c: Call| c.read(Ok(Verb::Status))))
        .route("/v1/servers", get(|c: Call| c.read(Ok(Verb::Servers))))
        .route(
            "/v1/tools",
            get(|q: Asked<Tools>, c: Call| c.read(query(q).map(|q| Verb::Tools { server: q.server }))),
        )
        .route("/v1/calls", get(|q: Asked<CallFilter>, c: Call| c.read(query(q).map(Verb::Calls))))
        .route("/v1/findings", get(|q: Asked<FindingFilter>, c: Call| c.read(query(q).map(Verb::Findings))))
        .route("/v1/findings/{id}", get(|i: Id, c: Call| c.read(id(i).map(|id| Verb::Finding { id }))))
        .route("/v1/baselines", get(|c: Call| c.read(Ok(Verb::Baselines))))
        .route(
            "/v1/baseline",
            get(|q: Asked<Identity>, c: Call| {
                c.read(query(q).map(|q| Verb::Baseline { identity: q.identity }))
            }),
        )
        .route(
            "/v1/baseline/diff",
            get(|q: Asked<Two>, c: Call| c.read(query(q).map(|q| Verb::BaselineDiff { a: q.a, b: q.b }))),
        )
        .route(
            "/v1/baseline/export",
            get(|q: Asked<Identity>, c: Call| {
                c.read(query(q).map(|q| Verb::BaselineExport { identity: q.identity }))
            }),
        )
        .route(
            "/v1/policy",
            get(|q: Asked<Identity>, c: Call| {
                c.read(query(q).map(|q| Verb::Policy { identity: q.identity }))
            }),
        )
        .route(
            "/v1/policy/exposure",
            get(|q: Asked<Identity>, c: Call| {
                c.read(query(q).map(|q| Verb::Exposure { identity: q.identity }))
            }),
        )
        .route("/v1/rules", get(|c: Call| c.read(Ok(Verb::Rules))))
        .route("/v1/mode", get(|c: Call| c.read(Ok(Verb::Mode))).post(set_mode))
        .route(
            "/v1/audit",
            get(|q: Asked<Limit>, c: Call| c.read(query(q).map(|q| Verb::Audit { limit: q.limit }))),
        )
        .route("/v1/reload", post(|c: Call, b: Body| c.change(b, |w: Wait| Verb::Reload { wait: w.wait })))
        .route("/v1/findings/{id}/ack", post(ack))
        .route("/v1/findings/{id}/permit", post(permit))
        .route(
            "/v1/baseline/ratify",
            post(|c: Call, b: Body| c.change(b, |i: Identity| Verb::Ratify { identity: i.identity })),
        )
        .route(
            "/v1/baseline/reset",
            post(|c: Call, b: Body| c.change(b, |i: Identity| Verb::Reset { identity: i.identity })),
        )
        .route(
            "/v1/baseline/import",
            post(|c: Call, b: Body| c.change(b, |i: Import| Verb::Import { name: i.name, text: i.text })),
        )
        .route(
            "/v1/purge",
            post(|c: Call, b: Body| c.change(b, |p: Purge| Verb::Purge { before_days: p.before_days })),
        )
        .route(
            "/v1/responses",
            get(|q: Asked<ResponseFilter>, c: Call| {
                c.read(query(q).map(|q| Verb::Responses { server: q.server, limit: q.limit }))
            }),
        )
        .route("/v1/responses/{id}", get(|i: Id, c: Call| c.read(id(i).map(|id| Verb::Response { id }))))
        .route("/v1/watch", get(|q: Asked<WatchFilter>, c: Call| c.watch(query(q))))
        .route("/v1/respond", post(respond))
        .route("/v1/disarm", post(|c: Call, b: Body| c.change(b, |Empty {}| Verb::Disarm)))
        .route("/v1/arm", post(|c: Call, b: Body| c.change(b, |Empty {}| Verb::Arm)))
        .fallback(|| async { answer(Err(Failure::not_found("no such path; GET /v1/status is one"))) })
        .method_not_allowed_fallback(|| async {
            answer(Err(Failure::new(405, "this path is not for this method: GET reads, POST changes")))
        })
        .with_state(shared)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tools {
    server: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    identity: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Two {
    a: String,
    b: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    limit: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    #[serde(default)]
    wait: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    note: Option<String>,
    #[serde(default)]
    expected: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Permit {
    reason: String,
    expires: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Import {
    name: String,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetMode {
    server: String,
    tool: Option<String>,
    mode: Mode,
    #[serde(default)]
    strict: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    before_days: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseFilter {
    server: Option<String>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Respond {
    server: String,
    action: Action,
    for_ns: Option<u64>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

async fn respond(call: Call, body: Body) -> Response {
    let verb =
        |Respond { server, action, for_ns, dry_run }| Verb::Respond { server, action, for_ns, dry_run };
    call.change(body, verb).await
}

async fn set_mode(call: Call, body: Body) -> Response {
    let verb = |SetMode { server, tool, mode, strict }: SetMode| Verb::SetMode { server, tool, mode, strict };
    call.change(body, verb).await
}

async fn ack(path: Id, call: Call, body: Body) -> Response {
    let id = match id(path) {
        Ok(id) => id,
        Err(e) => return answer(Err(e)),
    };
    call.change(body, |a: Ack| Verb::Ack { id, note: a.note, expected: a.expected }).await
}

async fn permit(path: Id, call: Call, body: Body) -> Response {
    let id = match id(path) {
        Ok(id) => id,
        Err(e) => return answer(Err(e)),
    };
    call.change(body, |p: Permit| Verb::Permit { id, reason: p.reason, expires: p.expires }).await
}

fn query<T>(query: Asked<T>) -> Result<T, Failure> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(e) => Err(Failure::new(400, e.body_text())),
    }
}

fn id(path: Id) -> Result<String, Failure> {
    match path {
        Ok(Path(id)) => Ok(id),
        Err(e) => Err(Failure::new(400, e.body_text())),
    }
}

/// Who calls, and what answers.
struct Call {
    peer: Peer,
    watches: Watches,
    shared: Arc<Shared>,
}

impl FromRequestParts<Arc<Shared>> for Call {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Response> {
        match parts.extensions.get::<Peer>() {
            Some(peer) => {
                let watches = parts.extensions.get::<Watches>().cloned().unwrap_or_default();
                Ok(Self { peer: peer.clone(), watches, shared: Arc::clone(shared) })
            }
            None => Err(answer(Err(Failure::new(500, "nobody knows who asks")))),
        }
    }
}

impl Call {
    async fn read(self, verb: Result<Verb, Failure>) -> Response {
        answer(match verb {
            Ok(verb) => self.perform(verb).await,
            Err(e) => Err(e),
        })
    }

    /// Answers with lines as they come, until the peer has enough.
    async fn watch(self, filter: Result<WatchFilter, Failure>) -> Response {
        // It is what `calls` and `findings` tell, sooner.
        let verb = Verb::Findings(FindingFilter::default());
        let facts = Facts { group: self.shared.group, lineage: Lineage::Unreadable("not looked at".into()) };
        if let Err(refusal) = authorise(&self.peer, &verb, &facts) {
            return answer(Err(self.refuse(&verb, &refusal.to_string()).await));
        }
        match filter.and_then(|filter| self.shared.feeds.open(&filter)) {
            Ok((body, state)) => {
                // One request a connection: it is empty.
                let _unused = self.watches.0.set(state);
                ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
            }
            Err(e) => answer(Err(e)),
        }
    }

    async fn change<T: DeserializeOwned>(self, body: Body, verb: impl FnOnce(T) -> Verb) -> Response {
        let verb = match json_of(body).await {
            Ok(body) => verb(body),
            Err(e) => return answer(Err(e)),
        };
        // A peer that hangs up must not keep a change out of the trail.
        answer(match tokio::spawn(self.perform(verb)).await {
            Ok(answer) => answer,
            Err(e) => Err(Failure::new(500, format!("the request was dropped: {e}"))),
        })
    }

    async fn perform(self, verb: Verb) -> Answer {
        if verb.target().len() > MAX_TEXT || verb.arguments().to_string().len() > 2 * MAX_TEXT {
            return Err(Failure::new(413, format!("a name or note is longer than {MAX_TEXT} bytes")));
        }
        let lineage = match verb.changes() && self.peer.uid == 0 {
            true => self.lineage().await,
            false => Lineage::Unreadable("not looked at".into()),
        };
        let facts = Facts { group: self.shared.group, lineage };
        if let Err(refusal) = authorise(&self.peer, &verb, &facts) {
            return Err(self.refuse(&verb, &refusal.to_string()).await);
        }
        if !verb.changes() {
            return self.ask(verb).await;
        }
        let done = self.ask(verb.clone()).await;
        let outcome = match &done {
            Ok(_) => "ok".to_owned(),
            Err(e) => format!("failed: {}", e.message),
        };
        self.audit(AuditRow::new(&self.peer, &verb, outcome)).await.map_err(|e| match &done {
            Ok(_) => Failure::new(500, format!("done, but the audit trail could not be written: {e}")),
            Err(failure) => failure.clone(),
        })?;
        done
    }

    async fn lineage(&self) -> Lineage {
        let (peer, host) = (self.peer.clone(), Arc::clone(&self.shared.host));
        let look = tokio::task::spawn_blocking(move || host.lineage(&peer));
        match timeout(LINEAGE, look).await {
            Ok(Ok(lineage)) => lineage,
            Ok(Err(e)) => Lineage::Unreadable(e.to_string()),
            Err(_) => Lineage::Unreadable("it takes too long to look at its processes".into()),
        }
    }

    async fn refuse(&self, verb: &Verb, why: &str) -> Failure {
        let listed = match self.shared.refusals.lock() {
            Ok(mut refusals) => refusals.take(self.peer.uid, Instant::now()),
            // A panic elsewhere: better one row too many.
            Err(_) => Some(0),
        };
        if let Some(unlisted) = listed {
            let mut row = AuditRow::new(&self.peer, verb, format!("refused: {why}"));
            if unlisted > 0
                && let Some(arguments) = row.arguments.as_object_mut()
            {
                arguments.insert("refusals_not_listed".into(), unlisted.into());
            }
            if let Err(e) = self.audit(row).await {
                tracing::error!("the audit trail could not be written: {e}");
            }
        }
        Failure::new(403, why)
    }

    async fn audit(&self, row: AuditRow) -> Result<(), String> {
        self.shared.host.audit(row).await
    }

    async fn ask(&self, verb: Verb) -> Answer {
        let busy = || Failure::unavailable("the agent is busy; try again");
        let (sender, receiver) = oneshot::channel();
        let ask = Ask { verb, peer: self.peer.clone(), answer: sender };
        match self.shared.asks.send_timeout(ask, TAKEN).await {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_)) => return Err(busy()),
            Err(SendTimeoutError::Closed(_)) => return Err(Failure::unavailable("the agent is stopping")),
        }
        match timeout(ANSWER, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Failure::new(500, "the agent did not answer; its log says why")),
            Err(_) => {
                Err(Failure::new(504, "the agent did not answer in time; it may still do what was asked"))
            }
        }
    }
}

async fn json_of<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let all = timeout(BODY, Limited::new(body, MAX_BODY).collect()).await;
    let bytes = match all {
        Err(_) => return Err(Failure::new(408, "the body took too long to arrive")),
        Ok(Err(e)) if e.downcast_ref::<LengthLimitError>().is_some() => {
            return Err(Failure::new(413, format!("the body is larger than {MAX_BODY} bytes")));
        }
        Ok(Err(e)) => return Err(Failure::new(400, format!("cannot read the body: {e}"))),
        Ok(Ok(all)) => all.to_bytes(),
    };
    let bytes = if bytes.is_empty() { &b"{}"[..] } else { &bytes };
    serde_json::from_slice(bytes).map_err(|e| Failure::new(400, format!("the body is not as expected: {e}")))
}

/// The JSON of a failure.
pub(super) fn failed(failure: &Failure) -> Value {
    let Failure { status, message } = failure;
    json!({ "version": VERSION, "error": { "status": status, "code": failure.code(), "message": message } })
}

fn answer(answer: Answer) -> Response {
    let (status, body) = match answer {
        Ok(data) => (StatusCode::OK, json!({ "version": VERSION, "data": data })),
        Err(e) => (StatusCode::from_u16(e.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), failed(&e)),
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
