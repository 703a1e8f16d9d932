//! The process that answers: `toolwarden metrics`, which the keeper starts with its socket as standard input and the
//! listening socket as standard output.

use std::{
    convert::Infallible,
    net::TcpListener as Blocking,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream as BlockingUnix,
    },
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use super::{MAX_FRAME, Said};
use crate::sinks::confine_to;

/// What was said longer ago is not served.
const STALE: Duration = Duration::from_secs(10);
/// Connections at a time; others are closed at once.
const SERVED: usize = 32;
/// All of a connection.
const CONNECTION: Duration = Duration::from_secs(10);
const HEAD: Duration = Duration::from_secs(5);
const MAX_HEAD: usize = 8 << 10;
const MAX_HEADERS: usize = 64;

/// What it may ask of the kernel: nothing that opens, makes or connects anything but what was given to it.
const PERMITTED: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_futex,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_ioctl,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The latest, and when it came.
type Latest = Arc<Mutex<(Said, Option<Instant>)>>;

/// Answers until the agent is gone.
pub(crate) fn run() -> Result<()> {
    let agent: OwnedFd =
        std::io::stdin().as_fd().try_clone_to_owned().context("no socket on standard input")?;
    let listener: OwnedFd =
        std::io::stdout().as_fd().try_clone_to_owned().context("no socket on standard output")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    // Before anything that came from the outside is looked at.
    confine_to(PERMITTED, std::collections::BTreeMap::new())?;
    runtime.block_on(async {
        let (agent, listener) = (BlockingUnix::from(agent), Blocking::from(listener));
        agent.set_nonblocking(true).context("cannot use the socket of the agent")?;
        listener.set_nonblocking(true).context("cannot use the listening socket")?;
        let agent = UnixStream::from_std(agent).context("standard input is no socket")?;
        let listener = TcpListener::from_std(listener).context("standard output is no socket")?;
        let latest = Latest::default();
        tokio::select! {
            ended = hear(agent, &latest) => ended,
            () = accept(listener, &latest) => Ok(()),
        }
    })
}

async fn hear(mut agent: UnixStream, latest: &Latest) -> Result<()> {
    loop {
        let length = match agent.read_u32_le().await {
            Ok(length) => length as usize,
            // The agent is gone: so is the use of this.
            Err(_gone) => return Ok(()),
        };
        ensure!(length <= MAX_FRAME, "the agent says {length} bytes at once");
        let mut frame = vec![0; length];
        agent.read_exact(&mut frame).await.context("the agent stopped in the middle of a word")?;
        let said = serde_json::from_slice(&frame).context("the agent says what nobody understands")?;
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = (said, Some(Instant::now()));
    }
}

async fn accept(listener: TcpListener, latest: &Latest) {
    let limit = Arc::new(Semaphore::new(SERVED));
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => {
                let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else { continue };
                let latest = Arc::clone(latest);
                tokio::spawn(async move {
                    let _permit = permit;
                    // Whoever is slow or speaks no HTTP goes without an answer.
                    let _unused = timeout(CONNECTION, connection(stream, latest)).await;
                });
            }
            // Out of descriptors, perhaps: it passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connection(stream: TcpStream, latest: Latest) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &latest);
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(method: &Method, path: &str, latest: &Latest) -> Response<Full<Bytes>> {
    let latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
    let (said, at) = &*latest;
    let silent = match at {
        None => Some("the agent has not said anything yet".to_owned()),
        Some(at) if at.elapsed() > STALE => {
            Some(format!("the agent has said nothing for {} s", at.elapsed().as_secs()))
        }
        Some(_) => None,
    };
    let (status, body) = match (path, silent) {
        _ if method != Method::GET && method != Method::HEAD => {
            (StatusCode::METHOD_NOT_ALLOWED, "only GET".to_owned())
        }
        ("/metrics" | "/healthz" | "/readyz", Some(silent)) => (StatusCode::SERVICE_UNAVAILABLE, silent),
        ("/metrics", None) => (StatusCode::OK, said.text.clone()),
        ("/healthz", None) => (StatusCode::OK, format!("alive: {}", said.status)),
        ("/readyz", None) => match &said.unready {
            None => (StatusCode::OK, format!("ready: {}", said.status)),
            Some(because) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {because}")),
        },
        _ => (StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz".to_owned()),
    };
    let body = if body.ends_with('\n') { body } else { body + "\n" };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_blindness_are_told_by_the_status() {
        let latest = Latest::default();
        let code = |path: &str| answer(&Method::GET, path, &latest).status().as_u16();
        assert_eq!((code("/metrics"), code("/healthz"), code("/readyz"), code("/")), (503, 503, 503, 404));
        let said = Said { unready: Some("blind: syscalls".into()), ..Said::default() };
        *latest.lock().expect("free") = (said, Some(Instant::now()));
        assert_eq!((code("/metrics"), code("/healthz"), code("/readyz")), (200, 200, 503));
        latest.lock().expect("free").0.unready = None;
        assert_eq!(code("/readyz"), 200);
        assert_eq!(answer(&Method::POST, "/metrics", &latest).status().as_u16(), 405);
        latest.lock().expect("free").1 = Instant::now().checked_sub(STALE + Duration::from_secs(1));
        assert_eq!((code("/metrics"), code("/healthz"), code("/readyz")), (503, 503, 503));
    }
}
