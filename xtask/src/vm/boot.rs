//! One boot, its marker, what it said.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::Path,
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    guest::{BEGINS, ENDED},
    systemd::State,
};
use crate::{
    machine::Machine,
    steps::{Steps, seconds},
};

/// A guest that says nothing for so long hangs. The longest test sleeps for a minute.
const SILENCE: Duration = Duration::from_secs(300);

/// Lines of a failed test that are shown. The reason comes first.
const SAID: usize = 40;

/// How a guest's program ended, and what it said on the way.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) code: i32,
    pub(super) passed: usize,
    pub(super) failed: Vec<String>,
    /// What the failed tests said, at most [`SAID`] lines of each.
    pub(super) said: Vec<String>,
    /// The test that runs.
    test: String,
    /// Lines of a failed test that may still be taken.
    wanted: usize,
    /// Verified instructions by BPF program.
    pub(super) insns: BTreeMap<String, u32>,
    /// What the guest said of itself, where systemd runs it.
    pub(super) state: State,
    pub(super) took: Duration,
}

/// Boots, and once more when the guest did not come to its end. `name`: others may run beside it.
pub(super) fn run(steps: &Steps, machine: &Machine, name: &str, dir: &Path) -> Result<Outcome> {
    let log = dir.join("output.log");
    match once(steps, machine, name, &log) {
        Ok(outcome) => Ok(outcome),
        Err(e) => {
            steps.note(format_args!("{name}: {e:#}; once more"));
            fs::rename(&machine.console, dir.join("console.first.log"))?;
            fs::rename(&log, dir.join("output.first.log"))?;
            once(steps, machine, name, &log)
        }
    }
}

fn once(steps: &Steps, machine: &Machine, name: &str, log: &Path) -> Result<Outcome> {
    let started = Instant::now();
    let mut output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let running = machine.start()?;
    let mut outcome = Outcome::default();
    let mut last = started;
    let mut boots = 0;
    loop {
        let line = match running.lines.recv_timeout(SILENCE) {
            Ok(line) => line,
            Err(e) => {
                let what = match e {
                    RecvTimeoutError::Timeout => "says nothing any more",
                    RecvTimeoutError::Disconnected => "ended before its program did",
                };
                bail!("the guest {what}: see {} and {}", machine.console.display(), log.display());
            }
        };
        writeln!(output, "{line}")?;
        // What it said last before a restart may stand on the same line.
        if line.ends_with(BEGINS) {
            boots += 1;
            // A test may restart it once; more is a kernel that panics.
            ensure!(boots <= 2, "the guest boots again and again: see {}", machine.console.display());
            steps.note(format_args!("{name}: booted in {}", seconds(started.elapsed())));
            last = Instant::now();
        } else if outcome.state.take(&line) {
            steps.note(format_args!("{name}: {line}"));
        } else if let Some(code) = line.strip_prefix(ENDED) {
            outcome.code = code.parse().with_context(|| format!("the guest's {line}"))?;
            outcome.took = started.elapsed();
            return Ok(outcome);
        } else if let Some(said) = outcome.take(&line) {
            steps.note(format_args!("{name}: {said} ({})", seconds(last.elapsed())));
            last = Instant::now();
        }
    }
}

impl Outcome {
    /// Counts what a line says; says what a person wants to see at once.
    fn take(&mut self, line: &str) -> Option<String> {
        if let Some((name, count)) = line.strip_prefix("insns: ").and_then(|rest| rest.split_once(' ')) {
            if let Ok(count) = count.parse() {
                self.insns.insert(name.to_owned(), count);
            }
            return None;
        }
        // When all have run: what each said, and the names of those that failed.
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.wanted = if self.failed.iter().any(|failed| failed == name) { SAID } else { 0 };
        } else if line == "failures:" || line == "successes:" {
            self.wanted = 0;
        }
        if self.wanted > 0 {
            self.wanted -= 1;
            self.said.push(line.to_owned());
            return None;
        }
        let begun = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        let how = begun.map_or(line, |(name, how)| {
            name.clone_into(&mut self.test);
            how
        });
        // What the test's children say on stderr may stand between the name and the end.
        let name = std::mem::take(&mut self.test);
        let said = format!("{name}: {how}");
        match how {
            _ if name.is_empty() => return None,
            "ok" => self.passed += 1,
            "FAILED" => self.failed.push(name),
            _ => {
                self.test = name;
                return None;
            }
        }
        Some(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_say_is_counted() {
        let mut outcome = Outcome::default();
        assert_eq!(outcome.take("test a::b ... ok").as_deref(), Some("a::b: ok"));
        assert_eq!(outcome.take("test a::c ... a child complains"), None);
        assert_eq!(outcome.take("FAILED").as_deref(), Some("a::c: FAILED"));
        assert_eq!(outcome.take("insns: sys_exit 1234"), None);
        assert_eq!(outcome.take("test result: FAILED. 1 passed; 1 failed"), None);
        assert_eq!(outcome.take("ok"), None);
        assert_eq!((outcome.passed, outcome.failed.as_slice()), (1, ["a::c".to_owned()].as_slice()));
        assert_eq!(outcome.insns.get("sys_exit"), Some(&1234));
    }

    #[test]
    fn the_reason_of_a_failure_is_kept() {
        let mut outcome = Outcome::default();
        let told = "test a ... ok\ntest b ... FAILED\n\nsuccesses:\n\n---- a stdout ----\nall is well\n\n\
            successes:\n    a\n\nfailures:\n\n---- b stdout ----\nError: late\n\n\nfailures:\n    b";
        for line in told.lines() {
            outcome.take(line);
        }
        let said: Vec<_> = outcome.said.iter().filter(|line| !line.is_empty()).collect();
        assert_eq!(said, ["---- b stdout ----", "Error: late"]);
        assert_eq!((outcome.passed, outcome.failed.len()), (1, 1));
    }
}
