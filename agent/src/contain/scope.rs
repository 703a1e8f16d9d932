//! Scopes: where systemd is process 1 it wants to know of every cgroup, so a throttled tree gets a transient unit
//! below `toolwarden.slice`, by D-Bus. Elsewhere, and when systemd does not answer in time, it gets a cgroup of ours.
//!
//! Only throttling, which is not urgent, asks for one. A freeze must stand within milliseconds and does so by a cgroup of ours,
//! or in the scope that is there already. Once the scope exists nothing needs D-Bus any more: it is delegated, so limits are
//! files, processes enter and leave by `cgroup.procs`, and the watchdog can release without a bus. systemd forgets a scope that
//! is empty.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use zbus::{blocking::Connection, zvariant::Value};

use super::{
    group::write,
    layout::{Hierarchy, Layout},
};

/// systemd answers in a few milliseconds; the loop waits for it no longer than this.
const ANSWER: Duration = Duration::from_secs(1);
/// After it did not answer it is left alone for a while.
const REST: Duration = Duration::from_secs(60);

/// What the unit is limited to as far as systemd knows: what it writes again when it reloads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// CPU microseconds a second.
    pub(super) cpu_us: u64,
    /// Bytes.
    pub(super) memory: u64,
    pub(super) threads: u64,
}

/// The way to systemd, if it is process 1 here.
#[derive(Debug)]
pub(super) struct Scopes {
    usable: bool,
    /// It did not answer: not before this.
    rest: Option<Instant>,
    bus: Bus,
}

/// The connection to the system bus, made ahead of time: that takes longer than the call.
type Bus = Arc<Mutex<Option<Connection>>>;

impl Scopes {
    /// Where sd_booted(3) looks; and all controllers must be those of v2, as systemd then has it.
    pub(super) fn of_host(layout: &Layout) -> Self {
        let booted = Path::new("/run/systemd/system").is_dir();
        let usable = booted && layout.of("cpu").is_some_and(Hierarchy::is_v2);
        let bus = Bus::default();
        if usable {
            let bus = Arc::clone(&bus);
            let connects = thread::Builder::new().name("scope".into()).spawn(move || {
                if let Err(e) = connection(&bus) {
                    tracing::debug!("no system bus yet: {e}");
                }
            });
            if let Err(e) = connects {
                tracing::debug!("no thread for the system bus: {e}");
            }
        }
        Self { usable, rest: None, bus }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.usable && self.rest.is_none_or(|until| Instant::now() >= until)
    }

    /// Makes a scope with one process in it, of which `dir` is the directory. The error says why there is none; when systemd makes it
    /// later all the same, the process is brought to `else_in`.
    pub(super) fn start(
        &mut self,
        unit: &str,
        pid: u32,
        limits: Limits,
        dir: &Path,
        else_in: PathBuf,
    ) -> Result<(), String> {
        let (tell, answer) = mpsc::channel();
        let name = unit.to_owned();
        let bus = Arc::clone(&self.bus);
        let asked = thread::Builder::new().name("scope".into()).spawn(move || {
            // Nobody hears it when it is late.
            let _late = tell.send(ask(&bus, &name, pid, limits).map_err(|e| e.to_string()));
        });
        let began = Instant::now();
        let done = match asked {
            Ok(_thread) => answer.recv_timeout(ANSWER).unwrap_or_else(|e| Err(format!("no answer: {e}"))),
            Err(e) => Err(format!("no thread for it: {e}")),
        };
        // The answer says that the job is queued.
        let done = done.and_then(|()| {
            while began.elapsed() < ANSWER {
                if is_in(pid, dir) {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(1));
            }
            Err("systemd did not put the process there in time".into())
        });
        if let Err(why) = &done {
            self.rest = Some(began + REST);
            tracing::warn!(unit, "no scope, a cgroup of ours instead: {why}");
            let name = unit.to_owned();
            let comes = thread::Builder::new().name("scope".into());
            if let Err(e) = comes.spawn(move || come_back(pid, &name, &else_in)) {
                tracing::warn!(unit, "nobody looks whether systemd makes it later: {e}");
            }
        }
        done
    }
}

/// The one that is there, or a new one.
fn connection(bus: &Bus) -> zbus::Result<Connection> {
    // Whoever panicked with it left it as it was.
    let mut bus = bus.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(there) = &*bus {
        return Ok(there.clone());
    }
    let new = Connection::system()?;
    *bus = Some(new.clone());
    Ok(new)
}

/// The call itself.
fn ask(bus: &Bus, unit: &str, pid: u32, limits: Limits) -> zbus::Result<()> {
    let yes = Value::from(true);
    let properties = vec![
        ("Description", Value::from("Processes that toolwarden contains")),
        ("Slice", Value::from("toolwarden.slice")),
        ("PIDs", Value::from(vec![pid])),
        ("Delegate", yes.try_clone()?),
        ("CPUAccounting", yes.try_clone()?),
        ("MemoryAccounting", yes.try_clone()?),
        ("TasksAccounting", yes.try_clone()?),
        ("IOAccounting", yes),
        ("CPUQuotaPerSecUSec", Value::from(limits.cpu_us)),
        ("MemoryHigh", Value::from(limits.memory)),
        ("TasksMax", Value::from(limits.threads)),
        ("CollectMode", Value::from("inactive-or-failed")),
    ];
    let others: Vec<(&str, Vec<(&str, Value<'_>)>)> = Vec::new();
    let done = connection(bus)?.call_method(
        Some("org.freedesktop.systemd1"),
        "/org/freedesktop/systemd1",
        Some("org.freedesktop.systemd1.Manager"),
        "StartTransientUnit",
        &(unit, "fail", properties, others),
    );
    if done.is_err() {
        // The bus may have been started anew.
        *bus.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
    done.map(drop)
}

fn is_in(pid: u32, dir: &Path) -> bool {
    let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    members.lines().any(|l| l.parse() == Ok(pid))
}

/// systemd took a process after it had been given up: it goes back to where the others are.
fn come_back(pid: u32, unit: &str, to: &Path) {
    let end = Instant::now() + REST;
    while Instant::now() < end {
        let place = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if place.contains(unit) {
            if let Err(e) = write(&to.join("cgroup.procs"), &pid.to_string()) {
                tracing::warn!(pid, "a process stays in {unit}: {e}");
            }
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
