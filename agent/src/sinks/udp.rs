//! Datagrams. Nobody says that one arrived; that nobody listens is sometimes said.

use std::time::Duration;

use tokio::net::UdpSocket;

use super::{connect::resolve, deliver::Failure, spec::Peer};

/// Receivers have room for some only: so many at a time, then a pause. 8,000 a second.
const BURST: usize = 16;
const PAUSE: Duration = Duration::from_millis(2);

/// Where datagrams go.
pub(super) struct Udp {
    peer: Peer,
    socket: Option<UdpSocket>,
}

impl Udp {
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, socket: None }
    }

    /// Sends one datagram for each message.
    pub(super) async fn send(&mut self, messages: &[Vec<u8>]) -> Result<(), Failure> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(&self.peer).await?,
        };
        let wrong = |e: std::io::Error| Failure::later(format!("{}: {e}", self.peer));
        for (n, message) in messages.iter().enumerate() {
            if n > 0 && n.is_multiple_of(BURST) {
                tokio::time::sleep(PAUSE).await;
            }
            // A new socket asks for the address again: it may have moved.
            socket.send(message).await.map_err(wrong)?;
        }
        // An answer of ICMP that there is nobody. From this host it is here already, from others it comes with a later batch.
        socket.take_error().map_err(wrong)?.map_or(Ok(()), |e| Err(wrong(e)))?;
        self.socket = Some(socket);
        Ok(())
    }
}

async fn open(peer: &Peer) -> Result<UdpSocket, Failure> {
    let mut last = Failure::later(format!("{peer}: the name has no address"));
    for address in resolve(peer).await? {
        let any: (std::net::IpAddr, u16) = match address {
            std::net::SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED.into(), 0),
            std::net::SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        // Connected, so that answers of ICMP are for this socket.
        let opened = async {
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await?;
            Ok::<_, std::io::Error>(socket)
        };
        match opened.await {
            Ok(socket) => return Ok(socket),
            Err(e) => last = Failure::later(format!("{peer}: {e}")),
        }
    }
    Err(last)
}
