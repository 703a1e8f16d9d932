//! Progress of commands that take long: a numbered title, the command, the time it took.
//!
//! Their output goes to a log, since a person wants the last twenty lines of it, and only when the
//! command fails. On a terminal the last line of the log and the time stand under the title.

use std::{
    fmt::Display,
    fs::{self, File},
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::workspace::Workspace;

const TICK: Duration = Duration::from_millis(200);
/// Eyeballed: apt's and cargo's reason for a failure fits.
const LINES_OF_A_FAILURE: usize = 20;

/// Numbered steps.
#[derive(Debug)]
pub(crate) struct Steps {
    total: usize,
    at: usize,
    logs: PathBuf,
}

impl Steps {
    pub(crate) fn new(workspace: &Workspace, total: usize) -> Result<Self> {
        let logs = workspace.target.join("setup-logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        Ok(Self { total, at: 0, logs })
    }

    /// Begins the next step.
    pub(crate) fn begin(&mut self, title: impl Display) {
        self.at += 1;
        println!("[{}/{}] {title}", self.at, self.total);
    }

    /// Counts steps that a part did not need, or did not reach, as gone by.
    pub(crate) fn skip_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Says something about the step that runs.
    pub(crate) fn note(&self, text: impl Display) {
        println!("      {text}");
    }

    /// Runs a command of the step; an error holds the end of what it said.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let log = self.logs.join(format!("step-{}.log", self.at));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        self.note(format_args!("$ {}", shown(command)));
        let started = Instant::now();
        let status = self.wait(command.stdout(file.try_clone()?).stderr(file), &log, started)?;
        if !status.success() {
            bail!(
                "`{}` failed ({status}):\n{}\n(all of it: {})",
                shown(command),
                tail(&log, LINES_OF_A_FAILURE),
                log.display()
            );
        }
        self.note(format_args!("done in {}", seconds(started.elapsed())));
        Ok(())
    }

    /// Tries something that fetches. An archive that is being updated, or a mirror of many, fails now and then: what
    /// package managers themselves try again is not all of it.
    pub(crate) fn again(&self, what: &str, fetch: impl Fn() -> Result<()>) -> Result<()> {
        const PAUSES_S: [u64; 3] = [5, 20, 60];
        for pause in PAUSES_S {
            let Err(e) = fetch() else { return Ok(()) };
            self.note(format_args!("{what} cannot be fetched ({e:#}); again in {pause} s"));
            thread::sleep(Duration::from_secs(pause));
        }
        fetch().with_context(|| format!("{what} cannot be fetched, tried {} times", PAUSES_S.len() + 1))
    }

    fn wait(&self, command: &mut Command, log: &Path, started: Instant) -> Result<ExitStatus> {
        let mut child = command.spawn().with_context(|| format!("cannot run `{}`", shown(command)))?;
        let mut out = io::stdout();
        if !out.is_terminal() {
            return Ok(child.wait()?);
        }
        loop {
            if let Some(status) = child.try_wait()? {
                write!(out, "\r\x1b[K")?;
                out.flush()?;
                return Ok(status);
            }
            let last = tail(log, 1);
            let last: String = last.chars().take(60).collect();
            write!(out, "\r\x1b[K      {} {last}", seconds(started.elapsed()))?;
            out.flush()?;
            thread::sleep(TICK);
        }
    }
}

/// `3.4 s` or `2 min 05 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

/// The command as a person could type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path, wanted: usize) -> String {
    // Lossy: a progress bar may be cut within a character.
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.split(['\n', '\r']).filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(wanted)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        assert_eq!(seconds(Duration::from_millis(3_440)), "3.4 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 05 s");
    }
}
