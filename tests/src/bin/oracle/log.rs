//! The truth log, and what an act knows about the call that asked for it.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use e2e::{
    sys,
    truth::{Act, Truth},
};
use serde_json::Value;

/// Where acts are written down: one write(2) a line to a descriptor opened at the start.
pub(crate) struct Log(OwnedFd);

impl Log {
    pub(crate) fn open(path: &str) -> io::Result<Self> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND;
        sys::open(path, flags).map(Self)
    }

    fn write(&self, truth: &Truth) -> io::Result<()> {
        let mut line = serde_json::to_vec(truth)?;
        line.push(b'\n');
        sys::write(self.0.as_raw_fd(), &line)
    }
}

/// Names and addresses of the peers that the harness offers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    /// TCP on every IPv4 address of this host.
    pub(crate) sink4: u16,
    /// TCP on `::1`.
    pub(crate) sink6: Vec<u16>,
    /// Addresses of resolvers, port 53.
    pub(crate) resolvers: Vec<String>,
    /// Paths of listening unix sockets.
    pub(crate) unix: Vec<String>,
    /// Names of listening abstract unix sockets.
    pub(crate) names: Vec<String>,
}

/// What every act has at hand.
pub(crate) struct Env {
    pub(crate) log: Log,
    pub(crate) peers: Peers,
    /// Directory for the acts' files, resolved.
    pub(crate) dir: PathBuf,
    pub(crate) ready: crate::ready::Ready,
}

/// One call.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) env: Arc<Env>,
    pub(crate) id: Value,
    pub(crate) tool: String,
    pub(crate) args: serde_json::Map<String, Value>,
    /// Counts the calls of this process.
    pub(crate) serial: u32,
}

impl Call {
    /// Writes down what this process is about to do.
    pub(crate) fn will(&self, act: Act) -> io::Result<()> {
        self.did(sys::boot_ns(), sys::pid(), 1, act)
    }

    /// The same, `times` over.
    pub(crate) fn will_times(&self, times: u64, act: Act) -> io::Result<()> {
        self.did(sys::boot_ns(), sys::pid(), times, act)
    }

    /// Writes down what could not be known before: `at` is still the time before the act.
    pub(crate) fn did(&self, at: u64, pid: u32, times: u64, act: Act) -> io::Result<()> {
        self.env.log.write(&Truth {
            request_id: self.id.clone(),
            tool: self.tool.clone(),
            at_boot_ns: at,
            pid,
            times,
            act,
        })
    }

    /// A number argument.
    pub(crate) fn number(&self, name: &str, default: u64) -> u64 {
        self.args.get(name).and_then(Value::as_u64).unwrap_or(default)
    }

    /// A path of this call's own.
    pub(crate) fn path(&self, stem: &str) -> String {
        self.env.dir.join(format!("{stem}-{}", self.serial)).display().to_string()
    }

    /// Name of a file that was there before the first call and that the neighbours do not use.
    pub(crate) fn seed_name(&self) -> String {
        format!("seed{}", self.serial % crate::ready::SEEDS)
    }

    /// The same, whole.
    pub(crate) fn seed(&self) -> String {
        let path = self.env.dir.join(self.seed_name());
        path.display().to_string()
    }

    /// An address in 127/8 of this call's own.
    pub(crate) fn address(&self) -> std::net::Ipv4Addr {
        let [_, a, b, c] = (self.serial + 256).to_be_bytes();
        std::net::Ipv4Addr::new(127, 16 + a, b, c)
    }

    /// A port of this call's own among its neighbours.
    pub(crate) fn port(&self) -> u16 {
        20_000 + (self.serial % 10_000) as u16
    }

    /// One of several equal peers that the neighbours do not use.
    pub(crate) fn pick<T: Clone>(&self, peers: &[T]) -> io::Result<T> {
        let pick = peers.get(self.serial as usize % peers.len().max(1));
        pick.cloned().ok_or_else(|| io::Error::other("no such peer"))
    }
}
