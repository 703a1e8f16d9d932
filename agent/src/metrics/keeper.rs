//! In the agent: takes the port, and keeps the process alive that answers there. A thread of its own; the loop only
//! leaves the latest text for it.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::Said;

/// After a port that is taken, or a process that ended, it is tried again: at first soon.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The process takes a frame at once, or it is hung.
const WRITE: Duration = Duration::from_secs(5);

/// Serves what the loop says about itself. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Metrics {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// What the process has not got yet.
    said: Option<Said>,
    failing: Option<String>,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next thing to say; `None` at the end.
    fn next(&self) -> Option<Said> {
        let waits = |inner: &mut Inner| inner.said.is_none() && !inner.stop;
        let mut inner = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        if inner.stop { None } else { inner.said.take() }
    }

    /// Waits for so long; true at the end.
    fn pause(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |inner| !inner.stop);
        waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    /// Tells a reason once.
    fn fails(&self, because: String) {
        let mut inner = self.lock();
        if inner.failing.as_ref() != Some(&because) {
            tracing::warn!("no metrics: {because}");
            inner.failing = Some(because);
        }
    }
}

impl Metrics {
    /// Begins to serve at this address, by a process of this user and group.
    pub(crate) fn start(address: SocketAddr, user: (u32, u32)) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || keep(address, user, &ours))
            .context("cannot start a thread for metrics")?;
        Ok(Self { address, shared })
    }

    /// Leaves something to be served from now on. Never waits.
    pub(crate) fn say(&self, said: Said) {
        self.shared.lock().said = Some(said);
        self.shared.changed.notify_all();
    }

    /// For `status`.
    pub(crate) fn state(&self) -> Value {
        let inner = self.shared.lock();
        let state = if inner.failing.is_some() { "failing" } else { "working" };
        json!({ "listen": self.address, "state": state, "because": inner.failing })
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
    }
}

fn keep(address: SocketAddr, user: (u32, u32), shared: &Shared) {
    let mut wait = AGAIN.0;
    loop {
        match serve(address, user, shared) {
            Ok(()) => return,
            Err(e) => shared.fails(format!("{e:#}")),
        }
        if shared.pause(wait) {
            return;
        }
        wait = (wait * 2).min(AGAIN.1);
    }
}

/// One process, until the end of the agent; an error when it ended before.
fn serve(address: SocketAddr, user: (u32, u32), shared: &Shared) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("cannot listen at {address}: choose another `metrics.listen`, or \"off\"")
    })?;
    let mut process = Process::start(listener, user)?;
    while let Some(said) = shared.next() {
        process.say(&said)?;
        shared.lock().failing = None;
    }
    Ok(())
}

struct Process {
    child: Child,
    socket: UnixStream,
}

impl Process {
    fn start(listener: TcpListener, (uid, gid): (u32, u32)) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
        ours.set_write_timeout(Some(WRITE)).context("cannot set up the socket")?;
        let child = Command::new("/proc/self/exe")
            .arg0("toolwarden")
            .arg("metrics")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // It has nothing to print, and may open nothing by itself.
            .stdout(Stdio::from(OwnedFd::from(listener)))
            .process_group(0)
            // Setting a user other than root also takes all capabilities and other groups away.
            .uid(uid)
            .gid(gid)
            .spawn()
            .context("cannot start the process that serves metrics")?;
        Ok(Self { child, socket: ours })
    }

    fn say(&mut self, said: &Said) -> Result<()> {
        // Plain data: serialising it into memory cannot fail.
        let json = serde_json::to_vec(said).unwrap_or_default();
        let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
        let frame = [&length.to_le_bytes()[..], &json].concat();
        if let Err(e) = self.socket.write_all(&frame) {
            match self.child.try_wait() {
                Ok(Some(status)) => bail!("the process that serves them ended: {status}"),
                _ => return Err(e).context("the process that serves them takes nothing any more"),
            }
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; it is waited for in any case.
        let _unused = self.child.kill();
        let _unused = self.child.wait();
    }
}
