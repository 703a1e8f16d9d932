//! A person at a terminal, for whom an MCP client's descendants may not speak.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::pace::patient;

/// How a verb ended.
pub struct Done {
    /// Exit code.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

/// Runs a verb as somebody whom no MCP client started: its parent has gone.
///
/// # Errors
/// When it does not end in time.
pub fn person(verb: &Command) -> Result<Done> {
    let files = tempfile::tempdir()?;
    let at = |name: &str| files.path().join(name);
    let script = r#"d=$1; shift; ( sleep 0.2; "$@" >"$d/out" 2>"$d/err" </dev/null; echo $? >"$d/rc.new"; mv "$d/rc.new" "$d/rc" ) >/dev/null 2>&1 &"#;
    let mut sh = Command::new("setsid");
    sh.args(["sh", "-c", script, "sh"]).arg(files.path()).arg(verb.get_program()).args(verb.get_args());
    ensure!(sh.stdin(Stdio::null()).status()?.success(), "sh");
    let end = Instant::now() + patient(Duration::from_secs(20));
    while !at("rc").exists() {
        ensure!(Instant::now() < end, "{verb:?} does not end");
        thread::sleep(Duration::from_millis(10));
    }
    let text = |name: &str| std::fs::read_to_string(at(name));
    Ok(Done { code: text("rc")?.trim().parse()?, out: text("out")?, err: text("err")? })
}
