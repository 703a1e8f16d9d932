//! A place for an agent with state, rules and a control socket, and its verbs.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::{self, Agent},
    client::{Client, Manner},
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

    /// Of verbs that ask no agent.
    pub(crate) fn ask_alone(&self, args: &[&str]) -> Result<Said> {
        let mut command = Command::new(&self.exe);
        command.args(args).stdin(Stdio::null());
        said(command)
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

/// A server that is a shell. `calls` are branches of a `case` that looks at the line of a call: they do something, `$@` are `args`.
pub(crate) fn shell(calls: &str, args: &[&OsStr]) -> Result<Client> {
    shell_in("", calls, args)
}

/// The same, after `first`.
pub(crate) fn shell_in(first: &str, calls: &str, args: &[&OsStr]) -> Result<Client> {
    const SCRIPT: &str = r#"
while read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\(-\{0,1\}[0-9]*\).*/\1/p')
  r='{"content":[{"type":"text","text":"done"}]}'
  case "$line" in
    *'"initialize"'*) r='{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"shell","version":"1"}}';;
    CALLS
    *) continue;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$r"
done
"#;
    let script = format!("{first}{}", SCRIPT.replace("CALLS", calls));
    let mut command = Command::new("sh");
    command.args(["-c", &script, "shell"]).args(args);
    Client::start(command, Manner::default())
}

/// Until `f` is content.
pub(crate) fn soon<T>(what: &str, f: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    within(5 * SECOND, what, f)
}

/// The same, of what may take longer.
pub(crate) fn within<T>(limit: Duration, what: &str, mut f: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + patient(limit);
    loop {
        if let Some(found) = f()? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
