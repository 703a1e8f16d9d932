//! A connection to a receiver: name, TCP, TLS; each with its own time.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{deliver::Failure, queue, spec::Peer, tls};

/// For the name, for each address that it has, and for TLS.
const PHASE: Duration = Duration::from_secs(10);
/// Addresses of a name that are tried.
const ADDRESSES: usize = 4;

/// Bytes to a receiver.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens connections to one peer.
pub(super) struct Connector {
    pub(super) peer: Peer,
    /// Made once: it remembers sessions of TLS.
    config: Option<Arc<ClientConfig>>,
}

impl Connector {
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, config: None }
    }

    /// Connects to who proves to be the peer.
    pub(super) async fn open(&mut self) -> Result<Stream, Failure> {
        let peer = &self.peer;
        let wrong = |why: String| Failure::later(format!("{peer}: {why}"));
        let tcp = tcp(peer).await?;
        // Batches are written whole; what is left of one must not wait for an answer.
        tcp.set_nodelay(true).map_err(|e| wrong(e.to_string()))?;
        let Some(tls) = &peer.tls else { return Ok(Stream::Plain(tcp)) };
        let name = tls::name(&peer.host, tls).map_err(wrong)?;
        let config = match &self.config {
            Some(config) => Arc::clone(config),
            None => Arc::new(tls::config(tls, tls::of_host).map_err(wrong)?),
        };
        self.config = Some(Arc::clone(&config));
        let shaken = timeout(PHASE, TlsConnector::from(config).connect(name, tcp)).await;
        let stream = shaken
            .map_err(|_late| wrong(format!("no TLS handshake within {PHASE:?}")))?
            .map_err(|e| wrong(format!("TLS: {e}")))?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl Stream {
    /// Bytes that the other kernel has not acknowledged.
    pub(super) fn unacknowledged(&self) -> io::Result<usize> {
        queue::unsent(match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        })
    }
}

async fn tcp(peer: &Peer) -> Result<TcpStream, Failure> {
    let mut last = "the name has no address".to_owned();
    for address in resolve(peer).await? {
        last = match timeout(PHASE, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(e)) => e.to_string(),
            Err(_late) => format!("no connection within {PHASE:?}"),
        };
    }
    Err(Failure::later(format!("{peer}: {last}")))
}

/// The addresses that it has now.
pub(super) async fn resolve(peer: &Peer) -> Result<Vec<std::net::SocketAddr>, Failure> {
    let wrong = |why: String| Failure::later(format!("{peer}: cannot find the address: {why}"));
    match timeout(PHASE, tokio::net::lookup_host((peer.host.as_str(), peer.port))).await {
        Ok(Ok(found)) => Ok(found.take(ADDRESSES).collect()),
        Ok(Err(e)) => Err(wrong(e.to_string())),
        Err(_late) => Err(wrong(format!("no answer within {PHASE:?}"))),
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
