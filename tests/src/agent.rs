//! Starts `toolwarden run --print json`, collects its lines, stops it.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use engine::output::{CallLine, EffectLine, Line, LostLine, ServerLine};

use crate::{
    client::{Client, Manner},
    compare::Observed,
    pace::{patient, patient_ms, slowness},
    sys,
};

/// One line as printed, and what it says.
#[derive(Clone, Debug)]
pub struct Printed {
    /// The bytes.
    pub text: String,
    /// Their meaning.
    pub line: Line,
}

type Shared<T> = Arc<Mutex<T>>;

/// A running agent. Dropped, it is stopped.
pub struct Agent {
    child: Child,
    lines: Shared<Vec<Printed>>,
    errors: Shared<String>,
    broken: Shared<Option<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
    /// Holds the key of argument hashes; gone with the agent.
    _state: Option<tempfile::TempDir>,
    /// From start to fully attached.
    pub attached_in: Duration,
}

/// The agent's executable: `TOOLWARDEN`, else built beside the tests, else target/release.
///
/// # Errors
/// When there is none.
pub fn executable() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TOOLWARDEN") {
        return Ok(path.into());
    }
    if let Ok(path) = crate::scenario::program("toolwarden") {
        return Ok(path);
    }
    let path = crate::workspace().join("target/release/toolwarden");
    ensure!(
        path.is_file(),
        "no toolwarden beside the tests nor in target/release: cargo build --release -p agent"
    );
    Ok(path)
}

/// Where an agent with its state in `dir` pins what outlives it.
#[must_use]
pub fn pins(dir: &Path) -> PathBuf {
    dir.join("pins")
}

/// Ends what agents that were killed have left there.
pub fn unpin(dir: &Path) {
    let at = pins(dir);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if mounts.lines().any(|l| l.split(' ').nth(1).is_some_and(|m| Path::new(m) == at))
        && let Err(e) = Command::new("umount").arg("-l").arg(&at).status()
    {
        eprintln!("{} stays mounted: {e}", at.display());
    }
}

/// Makes an agent that has just begun attach the hooks that it attaches for candidates only, so that what follows is seen
/// from its first instruction. They stay attached for a while.
///
/// # Errors
/// When no candidate can be started.
pub fn warm() -> Result<()> {
    let links = || sys::bpf_ids(31).len();
    // Those that proved themselves may be about to go.
    let mut least = links();
    let candidate = Client::launch(Command::new("cat"), Manner::default())?;
    // An emulated machine that shares its processors with another attaches very slowly.
    let end = Instant::now() + patient_ms(1000) * slowness();
    while Instant::now() < end {
        let now = links();
        if now > least {
            break;
        }
        least = now;
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(patient_ms(50));
    drop(candidate);
    Ok(())
}

/// How long after a reply effects may still belong to the call.
#[must_use]
pub fn settling() -> Duration {
    patient_ms(20)
}

impl Agent {
    /// Starts the agent and waits until it says that it is attached.
    ///
    /// # Errors
    /// When it ends early or stays silent for 20 s; with what it said.
    pub fn start(more: &[&str]) -> Result<Self> {
        let agent = Self::start_with(more, |_| true)?;
        warm()?;
        Ok(agent)
    }

    /// The same, but cold, and for floods: of each line as printed, `keep` says whether it is to be understood
    /// and kept.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(more: &[&str], keep: impl FnMut(&str) -> bool + Send + 'static) -> Result<Self> {
        let state = tempfile::tempdir()?;
        let mut command = Command::new(executable()?);
        command.args(["run", "--no-control", "--print", "json", "--state-dir"]).arg(state.path());
        // Others may run an agent beside this one.
        command.arg("--guard").arg(state.path().join("agent.lock"));
        command.arg("--pin-dir").arg(pins(state.path())).args(more);
        Self::launch(command, Some(state), keep)
    }

    /// The same, with a control socket, state and lock under `dir`, which outlive it: `control.sock`, `state` and
    /// `agent.lock`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(dir: &Path, more: &[&str]) -> Result<Self> {
        Self::start_in_with(dir, more, |_| true)
    }

    /// The same, and keeps only some lines.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in_with(
        dir: &Path,
        more: &[&str],
        keep: impl FnMut(&str) -> bool + Send + 'static,
    ) -> Result<Self> {
        let mut command = Command::new(executable()?);
        command.args(["run", "--print", "json", "--control"]).arg(dir.join("control.sock"));
        command
            .arg("--state-dir")
            .arg(dir.join("state"))
            .arg("--guard")
            .arg(dir.join("agent.lock"))
            .arg("--pin-dir")
            .arg(pins(dir))
            .args(more);
        let agent = Self::launch(command, None, keep)?;
        warm()?;
        Ok(agent)
    }

    fn launch(
        mut command: Command,
        kept: Option<tempfile::TempDir>,
        mut keep: impl FnMut(&str) -> bool + Send + 'static,
    ) -> Result<Self> {
        // Work after a reply takes as much longer as everything else.
        if slowness() > 1 && !command.get_args().any(|a| a == "--settle-ms") {
            command.args(["--settle-ms", &settling().as_millis().to_string()]);
        }
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start toolwarden")?;
        let (lines, errors, broken) = <(Shared<Vec<Printed>>, Shared<String>, Shared<_>)>::default();
        let stdout = BufReader::new(child.stdout.take().context("stdout")?);
        let stderr = BufReader::new(child.stderr.take().context("stderr")?);
        let (to, bad, said) = (Arc::clone(&lines), Arc::clone(&broken), Arc::clone(&errors));
        // Two threads: one that is slow to understand lines would hold up the agent that prints them.
        let (texts, read) = std::sync::mpsc::channel();
        let out = std::thread::spawn(move || {
            for text in stdout.lines().map_while(Result::ok) {
                if keep(&text) && texts.send(text).is_err() {
                    return;
                }
            }
        });
        let understood = std::thread::spawn(move || {
            for text in read {
                match serde_json::from_str(&text) {
                    Ok(line) => locked(&to).push(Printed { text, line }),
                    Err(e) => *locked(&bad) = Some(format!("{e}: {text}")),
                }
            }
        });
        let err = std::thread::spawn(move || {
            for text in stderr.lines().map_while(Result::ok) {
                let mut said = locked(&said);
                said.push_str(&text);
                said.push('\n');
            }
        });
        let mut agent = Self {
            child,
            lines,
            errors,
            broken,
            readers: vec![out, understood, err],
            _state: kept,
            attached_in: Duration::ZERO,
        };
        while !agent.is_attached() {
            if let Some(status) = agent.child.try_wait()? {
                bail!("toolwarden ended ({status}): {}", agent.errors());
            }
            ensure!(
                started.elapsed() < patient_ms(20_000),
                "toolwarden does not say that it is attached: {}",
                agent.errors()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        agent.attached_in = started.elapsed();
        Ok(agent)
    }

    /// Coverage is reported once everything is attached, all hooks at once.
    fn is_attached(&self) -> bool {
        let lines = locked(&self.lines);
        lines.iter().any(|p| matches!(p.line, Line::Coverage(_)))
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said on stderr.
    #[must_use]
    pub fn errors(&self) -> String {
        locked(&self.errors).clone()
    }

    /// All lines so far.
    ///
    /// # Errors
    /// When one of them was not understood.
    pub fn lines(&self) -> Result<Vec<Printed>> {
        if let Some(broken) = &*locked(&self.broken) {
            bail!("a line of output is not of the agreed form: {broken}");
        }
        Ok(locked(&self.lines).clone())
    }

    /// Waits until some line satisfies `wanted`.
    ///
    /// # Errors
    /// When that takes longer than `limit`, which follows the machine's pace.
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&Line) -> bool) -> Result<Line> {
        let end = Instant::now() + patient(limit);
        let mut from = 0;
        loop {
            {
                let lines = locked(&self.lines);
                if let Some(found) = lines[from..].iter().find(|p| wanted(&p.line)) {
                    return Ok(found.line.clone());
                }
                from = lines.len();
            }
            ensure!(Instant::now() < end, "the awaited line does not come");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until everything that has happened is printed: without calls the agent collects its
    /// counts every 5 s.
    pub fn rest(&self) {
        std::thread::sleep(Duration::from_secs(5) + patient_ms(500));
        self.settle(Duration::from_millis(500));
    }

    /// Waits until nothing was printed for `quiet`, which follows the machine's pace.
    pub fn settle(&self, quiet: Duration) {
        let mut last = (0, Instant::now());
        while last.1.elapsed() < patient(quiet) {
            let n = locked(&self.lines).len();
            if n != last.0 {
                last = (n, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The server whose channel `pid` reads.
    ///
    /// # Errors
    /// When it was not found within 5 s.
    pub fn server(&self, pid: u32) -> Result<ServerLine> {
        let line =
            self.wait_for(Duration::from_secs(5), |line| matches!(line, Line::Server(s) if s.pid == pid));
        match line.with_context(|| format!("no server with pid {pid}"))? {
            Line::Server(line) => Ok(line),
            other => bail!("not a server: {other:?}"),
        }
    }

    /// What was printed about one server.
    ///
    /// # Errors
    /// As [`Self::lines`].
    pub fn observed(&self, server: &str) -> Result<Observed> {
        Ok(Observed::of(self.lines()?.into_iter().map(|p| p.line), server))
    }

    /// Lines about loss.
    ///
    /// # Errors
    /// As [`Self::lines`].
    pub fn lost(&self) -> Result<Vec<LostLine>> {
        let lost = |p: Printed| match p.line {
            Line::Lost(line) => Some(line),
            _ => None,
        };
        Ok(self.lines()?.into_iter().filter_map(lost).collect())
    }

    /// What the ring refused, in words: the agent watches the whole host, so a flood elsewhere on the
    /// machine takes from every test.
    ///
    /// # Errors
    /// As [`Self::lines`].
    pub fn refused(&self) -> Result<String> {
        let mut totals = std::collections::BTreeMap::new();
        for line in self.lost()?.into_iter().filter(|l| l.cause.starts_with("ring:")) {
            totals.insert(line.cause, line.total);
        }
        Ok(if totals.is_empty() {
            "the ring refused nothing".into()
        } else {
            format!("the ring refused {totals:?}")
        })
    }

    /// Resident set in bytes.
    ///
    /// # Errors
    /// When the agent has gone.
    pub fn rss(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let kib = line.and_then(|l| l.split_whitespace().next());
        Ok(kib.context("VmRSS")?.parse::<u64>()? * 1024)
    }

    /// Stops it by a signal and waits for its end.
    ///
    /// # Errors
    /// When it does not end within 10 s.
    pub fn stop(&mut self, signal: i32) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        sys::kill(self.pid(), signal)?;
        let end = Instant::now() + patient_ms(10_000);
        loop {
            if let Some(status) = self.child.try_wait()? {
                for reader in self.readers.drain(..) {
                    ensure!(reader.join().is_ok(), "a reader panicked");
                }
                return Ok(status);
            }
            ensure!(Instant::now() < end, "toolwarden ignores signal {signal}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.stop(libc::SIGINT).is_err() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if let Some(state) = &self._state {
            unpin(state.path());
        }
        // For whoever looks into a failure: what the agent printed.
        if let Some(file) = std::env::var_os("E2E_KEEP") {
            let lines = locked(&self.lines);
            let text: String = lines.iter().map(|p| p.text.clone() + "\n").collect();
            drop(std::fs::write(file, text));
        }
    }
}

fn locked<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Effects and calls of one server among many lines.
impl Observed {
    /// Picks them.
    #[must_use]
    pub fn of(lines: impl Iterator<Item = Line>, server: &str) -> Self {
        let mut observed = Self::default();
        for line in lines {
            match line {
                Line::Effect(line) if line.server.id == server => {
                    observed.effects.push(EffectLine::clone(&line));
                }
                Line::Call(line) if line.server.id == server => {
                    observed.calls.push(CallLine::clone(&line));
                }
                _ => {}
            }
        }
        observed
    }
}
