//! A stream without acknowledgements: what the other kernel has, and what its program may not have read before it died.
//!
//! TCP says when the other *kernel* has the bytes. A receiver that is killed leaves what it had not read or not written; so the last frames are
//! kept and come again, before anything new, when a connection is lost.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    connect::{Connector, Stream},
    deliver::Failure,
    spec::Peer,
};

/// What was acknowledged earlier than this before a connection was lost is taken for read.
const KEPT: Duration = Duration::from_secs(30);
/// A receiver that closes what is idle gets the same so often, and again only within that time.
const TIMES: u32 = 3;
/// Bytes that are kept.
const KEPT_BYTES: usize = 8 << 20;
/// Without any byte taken or acknowledged for this long, a connection is a lost one.
const STUCK: Duration = Duration::from_secs(30);
/// In TLS 1.3 a client is through before the server has looked at its certificate, or missed it.
const AFTERTHOUGHT: Duration = Duration::from_millis(300);
/// Bytes written at a time.
const PIECE: usize = 64 << 10;
/// Pauses between looks at what is acknowledged: from the first, doubling, to the last.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A stream, and what was sent over it last.
pub(super) struct Tail {
    connector: Connector,
    stream: Option<Stream>,
    sent: VecDeque<Sent>,
    bytes: usize,
    /// A connection was lost, and what was sent last may be lost with it.
    owes: bool,
}

/// A frame that the other kernel has.
struct Sent {
    frame: Vec<u8>,
    first: Instant,
    last: Instant,
    again: u32,
}

impl Tail {
    pub(super) fn new(peer: Peer) -> Self {
        Self { connector: Connector::new(peer), stream: None, sent: VecDeque::new(), bytes: 0, owes: false }
    }

    pub(super) fn owes(&self) -> bool {
        self.owes
    }

    /// Sends these after those that a lost connection may have swallowed; says how many of those there were.
    pub(super) async fn send(&mut self, frames: Vec<Vec<u8>>) -> Result<u64, Failure> {
        self.look().await;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.fresh().await?,
        };
        let again = if self.owes { self.sent.len() } else { 0 };
        let old = self.sent.iter().map(|sent| sent.frame.as_slice()).take(again);
        let bytes = old.chain(frames.iter().map(Vec::as_slice)).collect::<Vec<_>>().concat();
        if let Err(e) = push(&mut stream, &bytes).await {
            self.broken();
            return Err(Failure::later(format!("{}: {e}", self.connector.peer)));
        }
        self.stream = Some(stream);
        self.owes = false;
        let now = Instant::now();
        for sent in self.sent.iter_mut().take(again) {
            sent.last = now;
            sent.again += 1;
        }
        for frame in frames {
            self.bytes += frame.len();
            self.sent.push_back(Sent { frame, first: now, last: now, again: 0 });
        }
        self.forget(now);
        Ok(again as u64)
    }

    /// Until the connection is lost while something may be lost with it. May be dropped at any time.
    pub(super) async fn lost(&mut self) {
        if let Some(stream) = &mut self.stream {
            ended(stream).await;
            self.broken();
        }
        if !self.owes {
            std::future::pending().await
        }
    }

    /// A connection that the other side means to keep.
    async fn fresh(&mut self) -> Result<Stream, Failure> {
        let mut stream = self.connector.open().await?;
        if matches!(stream, Stream::Tls(_))
            && let Ok(why) = timeout(AFTERTHOUGHT, ended(&mut stream)).await
        {
            let peer = &self.connector.peer;
            let hint = "right after the handshake; it may want another certificate (`cert`, `key`)";
            return Err(Failure::later(format!("{peer}: TLS: {why} {hint}")));
        }
        Ok(stream)
    }

    /// Whether the connection is still there: a receiver that went away is not told by writing.
    async fn look(&mut self) {
        if let Some(stream) = &mut self.stream
            && timeout(Duration::ZERO, ended(stream)).await.is_ok()
        {
            self.broken();
        }
    }

    fn broken(&mut self) {
        self.stream = None;
        if !self.owes {
            self.forget(Instant::now());
            self.owes = !self.sent.is_empty();
        }
    }

    /// Lets go what is too old or too much.
    fn forget(&mut self, now: Instant) {
        while let Some(sent) = self.sent.front()
            && (self.bytes > KEPT_BYTES || sent.is_old(now))
        {
            self.bytes -= sent.frame.len();
            self.sent.pop_front();
        }
    }
}

impl Sent {
    /// Whether it is taken for read by now.
    fn is_old(&self, now: Instant) -> bool {
        let old = |since: Instant| now.duration_since(since) > KEPT;
        old(self.last) || (self.again >= TIMES && old(self.first))
    }
}

/// Until the other side ends, and how. What it says is nothing that syslog knows.
async fn ended(stream: &mut Stream) -> io::Error {
    let mut waste = [0; 512];
    loop {
        match stream.read(&mut waste).await {
            Ok(0) => break,
            Ok(_) => {}
            // Many receivers end TLS without saying so.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(e) => return e,
        }
    }
    io::Error::new(io::ErrorKind::UnexpectedEof, "the receiver closed the connection")
}

/// Writes all of it and waits until the other kernel has it.
async fn push(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    let stuck = || io::Error::new(io::ErrorKind::TimedOut, format!("nothing was taken for {STUCK:?}"));
    for piece in bytes.chunks(PIECE) {
        timeout(STUCK, stream.write_all(piece)).await.map_err(|_late| stuck())??;
    }
    timeout(STUCK, stream.flush()).await.map_err(|_late| stuck())??;
    let (mut pause, mut least, mut since) = (LOOKS.0, usize::MAX, Instant::now());
    loop {
        let left = stream.unacknowledged()?;
        // A connection that is reset has nothing left either.
        if let Ok(e) = timeout(Duration::ZERO, ended(stream)).await {
            return Err(e);
        }
        if left == 0 {
            return Ok(());
        }
        if left < least {
            (least, since) = (left, Instant::now());
        }
        if since.elapsed() > STUCK {
            return Err(stuck());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOKS.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_again_often_comes_again_only_for_so_long() {
        let now = Instant::now();
        let ago =
            |seconds| now.checked_sub(Duration::from_secs(seconds)).expect("the host runs for a minute");
        let sent = |first, last, again| Sent { frame: Vec::new(), first: ago(first), last: ago(last), again };
        assert!(!sent(29, 29, 0).is_old(now) && sent(31, 31, 0).is_old(now));
        // A receiver that is started again and again, and one that closes each connection after ten seconds.
        assert!(!sent(29, 1, 9).is_old(now) && !sent(45, 10, 2).is_old(now) && sent(45, 10, 3).is_old(now));
    }
}
