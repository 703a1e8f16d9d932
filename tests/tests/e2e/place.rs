//! A place for an agent with state, rules and a control socket, and its verbs.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::{self, Agent},
    pace::patient,
    person::person,
};
use serde_json::Value;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// How a verb ended.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> Result<Value> {
        ensure!(self.code == 0, "{}: {}", self.code, self.err);
        Ok(serde_json::from_str(&self.out)?)
    }

    pub(crate) fn good(self) -> Result<String> {
        ensure!(self.code == 0, "{}: {}{}", self.code, self.out, self.err);
        Ok(self.out)
    }
}

/// State, rules and socket of an agent, and its executable where everybody may run it.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    exe: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        agent::unpin(self.dir.path());
    }
}

impl Place {
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
        let exe = dir.path().join("toolwarden");
        std::fs::copy(agent::executable()?, &exe)?;
        let rules = dir.path().join("rules");
        std::fs::create_dir(&rules)?;
        std::fs::set_permissions(&rules, PermissionsExt::from_mode(0o755))?;
        Ok(Self { dir, exe })
    }

    /// Where everything is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The agent's executable, for everybody.
    pub(crate) fn program(&self) -> &Path {
        &self.exe
    }

    pub(crate) fn rule(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.path().join("rules").join(name);
        std::fs::write(&path, text)?;
        Ok(std::fs::set_permissions(path, PermissionsExt::from_mode(0o644))?)
    }

    pub(crate) fn start(&self) -> Result<Agent> {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, more: &[&str]) -> Result<Agent> {
        let rules = self.dir.path().join("rules");
        let rules = ["--rules", rules.to_str().context("utf-8")?];
        Agent::start_in(self.dir.path(), &[&rules, more].concat())
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.exe);
        command.args(args).arg("--control").arg(self.dir.path().join("control.sock")).stdin(Stdio::null());
        command
    }

    /// As a child of this test, which is an MCP client.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<Said> {
        said(self.command(args))
    }

    /// As somebody whom no MCP client started: its parent has gone.
    pub(crate) fn person(&self, args: &[&str]) -> Result<Said> {
        let done = person(&self.command(args))?;
        Ok(Said { code: done.code, out: done.out, err: done.err })
    }

    pub(crate) fn findings(&self) -> Result<Vec<Value>> {
        let all = self.ask(&["findings", "list", "--all", "--format", "json"])?.json()?;
        Ok(all.as_array().cloned().unwrap_or_default())
    }

    pub(crate) fn finding(&self, id: &str) -> Result<Value> {
        let found = self.findings()?.into_iter().find(|f| f["id"] == id);
        found.with_context(|| format!("no finding {id}"))
    }

    pub(crate) fn rules(&self) -> Result<u64> {
        let status = self.ask(&["status", "--format", "json"])?.json()?;
        status["rules"]["rules"].as_u64().context("rules")
    }
}

pub(crate) fn said(mut command: Command) -> Result<Said> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: done.status.code().unwrap_or(-1), out: text(&done.stdout), err: text(&done.stderr) })
}

/// Until `f` is content.
pub(crate) fn soon<T>(what: &str, mut f: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + patient(5 * SECOND);
    loop {
        if let Some(found) = f()? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "{what}: not within 5 s");
        thread::sleep(Duration::from_millis(50));
    }
}
