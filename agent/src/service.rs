//! What the service manager is told: ready, how it is, alive, reloading, stopping (sd_notify(3)). Without one, nothing.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// The manager takes a message at once, or is busy: then it is told again.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Service {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    told: Mutex<Told>,
}

/// What it knows.
#[derive(Debug, Default)]
struct Told {
    /// The state to be told, when it was not taken.
    owed: Option<String>,
    status: String,
}

impl Service {
    /// The one that started this process.
    pub(crate) fn of_environment() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|a| !a.is_empty()) else {
            return Self::default();
        };
        let socket = match connect(&address) {
            Ok(socket) => socket,
            Err(e) => {
                tracing::warn!("the service manager cannot be told anything: {e}");
                return Self::default();
            }
        };
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        // It may be meant for the process that started this one.
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog =
            number("WATCHDOG_USEC").filter(|us| ours && *us > 0).map(|us| Duration::from_micros(us) / 3);
        Self { socket: Some(socket), watchdog, told: Mutex::default() }
    }

    /// Whether anybody listens.
    pub(crate) fn listens(&self) -> bool {
        self.socket.is_some()
    }

    /// How often it is to be told that the agent is alive: three times as often as it asks for.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The agent does its work from now on, or again.
    pub(crate) fn ready(&self) {
        self.owe("READY=1".to_owned());
    }

    /// A reload begins; [`Self::ready`] ends it.
    pub(crate) fn reloading(&self) {
        let t = clock_gettime(ClockId::Monotonic);
        let us = t.tv_sec * 1_000_000 + t.tv_nsec / 1000;
        // In one message: systemd 253 and later do not take the one without the other.
        self.owe(format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    /// The end begins.
    pub(crate) fn stopping(&self) {
        self.owe("STOPPING=1\nSTATUS=stopping: delivering what waits".to_owned());
    }

    /// How the agent is, in a line. What was told before is not told again, but what was not taken is.
    pub(crate) fn status(&self, status: &str) {
        let mut told = self.told();
        if let Some(owed) = told.owed.take()
            && !self.say(&owed)
        {
            told.owed = Some(owed);
            return;
        }
        if told.status != status && self.say(&format!("STATUS={}", status.replace('\n', " "))) {
            status.clone_into(&mut told.status);
        }
    }

    /// The agent has just done its work.
    pub(crate) fn alive(&self) {
        // A missed one is followed by two others in time.
        let _unused = self.say("WATCHDOG=1");
    }

    fn owe(&self, state: String) {
        let mut told = self.told();
        told.owed = if self.say(&state) { None } else { Some(state) };
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was taken.
    fn say(&self, message: &str) -> bool {
        let Some(socket) = &self.socket else { return true };
        match socket.send(message.as_bytes()) {
            Ok(_) => true,
            Err(e) => {
                tracing::debug!("the service manager does not take `{message}`: {e}");
                false
            }
        }
    }
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let bytes = address.as_bytes();
    let address = match bytes.split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        Some((b'/', _)) => SocketAddr::from_pathname(address)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "NOTIFY_SOCKET is neither @NAME nor /PATH",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Whether the loop does its work: the kernel programs wrote something, and nothing of it was read for two looks.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Records written and read when it was last asked.
    last: (u64, u64),
    /// Looks at which nothing was read although there was something.
    stuck: u32,
}

impl Progress {
    /// `written`: by the kernel programs so far, as it was before the ring was read. `read`: from the ring so far.
    pub(crate) fn goes_on(&mut self, written: u64, read: u64) -> bool {
        let idle = written == self.last.0;
        // What was written between the look at the counter and the reading was read before it is counted, once.
        self.stuck = if idle || read != self.last.1 { 0 } else { self.stuck + 1 };
        self.last = (written, read);
        self.stuck < 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_is_told_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        manager.set_nonblocking(true).expect("a socket");
        let socket = connect(path.as_os_str()).expect("there");
        socket.set_write_timeout(Some(Duration::from_millis(1))).expect("a socket");
        let service = Service { socket: Some(socket), ..Service::default() };
        let mut heard = Vec::new();
        let mut hear = || {
            let mut buffer = [0; 256];
            heard.clear();
            while let Ok(n) = manager.recv(&mut buffer) {
                heard.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
            }
            heard.clone()
        };
        service.ready();
        service.status("1 server");
        service.status("1 server");
        assert_eq!(hear(), ["READY=1", "STATUS=1 server"]);
        while service.say("X=1") {}
        service.ready();
        hear();
        service.status("2 servers");
        assert_eq!(hear(), ["READY=1", "STATUS=2 servers"]);
        service.reloading();
        assert!(hear()[0].starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert!(connect(OsStr::new("nonsense")).is_err());
        assert!(connect(OsStr::new("@toolwarden-nobody-listens")).is_err());
    }

    #[test]
    fn a_ring_that_nobody_reads_is_no_progress() {
        let mut progress = Progress::default();
        assert!(progress.goes_on(0, 0), "nothing happens");
        assert!(progress.goes_on(10, 10));
        assert!(progress.goes_on(12, 10), "once may be chance");
        assert!(!progress.goes_on(14, 10));
        assert!(progress.goes_on(14, 14));
    }
}
