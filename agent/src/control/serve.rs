//! Connections and their limits. One request a connection: who asks is then as certain as the
//! connection is new. A user who floods the socket fills up to three quarters of each limit; the
//! rest is root's.

use std::{
    future::poll_fn,
    io,
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use axum::Router;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{Ask, Failure, Feeds, Host, Peer, Socket, audit::Refusals, feed::State, quiet::Quiet, routes};

/// Connections served at a time.
const SERVED: usize = 16;
/// Of these, connections of users other than root.
const SERVED_OTHERS: usize = 12;
/// Connections held, served or not; each costs two descriptors.
const HELD: usize = 128;
/// Of these, connections of users other than root.
const HELD_OTHERS: usize = 96;
/// A connection waits this long for its turn.
const TURN: Duration = Duration::from_secs(3);
/// A request's head must be here by then; clients send it at once.
const HEAD: Duration = Duration::from_secs(5);
/// All of a connection, answer included; who watches and reads may stay longer.
const CONNECTION: Duration = Duration::from_secs(90);
/// After an answer, the peer may finish what it sends.
const LINGER: Duration = Duration::from_secs(1);
/// Largest head of a request.
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;

/// What all connections share.
pub(super) struct Shared {
    pub(super) host: Arc<dyn Host>,
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) group: Option<u32>,
    pub(super) refusals: Mutex<Refusals>,
    pub(super) feeds: Arc<Feeds>,
}

/// On a connection whose request is to watch.
#[derive(Clone, Default)]
pub(super) struct Watches(pub(super) Arc<OnceLock<Arc<State>>>);

struct Limits {
    held: Arc<Semaphore>,
    held_others: Arc<Semaphore>,
    served: Arc<Semaphore>,
    served_others: Arc<Semaphore>,
}

type Permits = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// Serves the socket until the loop no longer listens to `asks`. Never fails for what peers do.
pub(crate) async fn serve(
    mut socket: Socket,
    group: Option<u32>,
    host: Arc<dyn Host>,
    asks: mpsc::Sender<Ask>,
    feeds: Arc<Feeds>,
) -> Result<()> {
    let listener = socket.listener()?;
    let closed = asks.clone();
    let shared = Arc::new(Shared { host, asks, group, refusals: Mutex::default(), feeds });
    let router = routes::router(shared);
    let limits = Arc::new(Limits {
        held: Arc::new(Semaphore::new(HELD)),
        held_others: Arc::new(Semaphore::new(HELD_OTHERS)),
        served: Arc::new(Semaphore::new(SERVED)),
        served_others: Arc::new(Semaphore::new(SERVED_OTHERS)),
    });
    loop {
        let accepted = tokio::select! {
            () = closed.closed() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => begin(stream, &limits, &router),
            Err(e) => {
                // Out of descriptors or memory: others may give some back.
                tracing::warn!("control socket: cannot accept: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn begin(stream: UnixStream, limits: &Arc<Limits>, router: &Router) {
    let peer = match Peer::of(stream.as_fd()) {
        Ok(peer) => peer,
        Err(e) => return tracing::warn!("control socket: cannot tell who connected: {e}"),
    };
    let others = (peer.uid != 0).then_some(&limits.held_others);
    let Some(held) = hold(&limits.held, others) else {
        // Not even a word: there is no room for one.
        return tracing::debug!(uid = peer.uid, "control socket: too many connections");
    };
    let (limits, router) = (Arc::clone(limits), router.clone());
    tokio::spawn(async move {
        let _held = held;
        let uid = peer.uid;
        let done = match timeout(TURN, limits.turn(uid)).await {
            Ok(Some(_served)) => connection(stream, peer, router).await,
            Ok(None) | Err(_) => {
                let busy = Failure::unavailable("too many requests at a time; try again");
                say(stream, &busy).await
            }
        };
        if let Err(e) = done {
            tracing::debug!(uid, "control socket: {e}");
        }
    });
}

fn hold(all: &Arc<Semaphore>, others: Option<&Arc<Semaphore>>) -> Option<Permits> {
    let other = match others {
        Some(others) => Some(Arc::clone(others).try_acquire_owned().ok()?),
        None => None,
    };
    Some((Arc::clone(all).try_acquire_owned().ok()?, other))
}

impl Limits {
    async fn turn(&self, uid: u32) -> Option<Permits> {
        let other = match uid {
            0 => None,
            _ => Some(Arc::clone(&self.served_others).acquire_owned().await.ok()?),
        };
        Some((Arc::clone(&self.served).acquire_owned().await.ok()?, other))
    }
}

async fn connection(stream: UnixStream, peer: Peer, router: Router) -> io::Result<()> {
    let understood = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&understood);
    let watches = Watches::default();
    let extension = watches.clone();
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        flag.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(extension.clone());
        inner.call(request)
    });
    let io = TokioIo::new(Quiet { stream, understood: Arc::clone(&understood) });
    let mut connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(io, service);
    let served = loop {
        let served = timeout(CONNECTION, poll_fn(|cx| connection.poll_without_shutdown(cx))).await;
        // Who is cut off had all that time to read what waits.
        if served.is_ok() || watches.0.get().is_none_or(|state| state.is_cut()) {
            break served;
        }
    };
    let stream = connection.into_parts().io.into_inner().stream;
    if understood.load(Ordering::Relaxed) {
        return linger(stream).await;
    }
    match served {
        // It said nothing at all.
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) if e.is_timeout() => {
            say(stream, &Failure::new(408, "the request took too long to arrive")).await
        }
        Ok(Err(e)) if e.is_parse_too_large() => {
            let limit =
                format!("the head of the request is larger than {MAX_HEAD} bytes or {MAX_HEADERS} headers");
            say(stream, &Failure::new(431, limit)).await
        }
        Ok(Err(e)) if e.is_parse() => {
            say(stream, &Failure::new(400, format!("this is not an HTTP/1.1 request: {e}"))).await
        }
        Ok(Err(e)) => Err(io::Error::other(e)),
        Err(_) => say(stream, &Failure::new(408, "the request took too long to arrive")).await,
    }
}

/// Answers by hand, where there is no request to answer.
async fn say(mut stream: UnixStream, failure: &Failure) -> io::Result<()> {
    let body = routes::failed(failure).to_string();
    let reason = failure.code();
    let text = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        failure.status,
        body.len()
    );
    timeout(LINGER, stream.write_all(text.as_bytes())).await??;
    linger(stream).await
}

/// A socket closed with unread data tells its peer an error instead of the answer.
async fn linger(mut stream: UnixStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut waste = [0; 16 << 10];
    let drain = async {
        while stream.read(&mut waste).await? > 0 {}
        Ok(())
    };
    timeout(LINGER, drain).await.unwrap_or(Ok(()))
}
