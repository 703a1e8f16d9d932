//! What a server does to the agent is a finding: denied where the kernel has BPF LSM for us, else told.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::{self, Agent},
    client::{Client, Manner},
    pace::patient,
    scenario::program,
};
use engine::{
    finding::{Finding, Kind, Severity},
    output::Line,
};
use serde_json::{Value, json};

use super::{
    lsm::is_alive,
    outlive::{Site, call},
    place::SECOND,
};

/// A cgroup of its own, with this process for a while.
pub(crate) struct Cgroup {
    mount: PathBuf,
    at: PathBuf,
}

impl Cgroup {
    /// On the unified hierarchy, else on whichever there is.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let of = |kind: &str| {
            let mut all = mounts.lines().map(|l| l.split(' ').skip(1));
            all.find_map(|mut words| {
                let (path, is) = (words.next()?, words.next()?);
                (is == kind && Path::new(path).join("cgroup.procs").exists()).then(|| PathBuf::from(path))
            })
        };
        let mount = of("cgroup2").or_else(|| of("cgroup")).context("no cgroups are mounted")?;
        let at = mount.join(name);
        fs::create_dir(&at)?;
        Ok(Self { mount, at })
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.at.join(name).display().to_string()
    }

    /// A file of the root.
    pub(crate) fn top(&self, name: &str) -> String {
        self.mount.join(name).display().to_string()
    }

    /// Puts this process in.
    pub(crate) fn enter(&self) -> Result<()> {
        Ok(fs::write(self.at.join("cgroup.procs"), "0")?)
    }

    /// And out again.
    pub(crate) fn leave(&self) -> Result<()> {
        Ok(fs::write(self.mount.join("cgroup.procs"), "0")?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let procs = fs::read_to_string(self.at.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            // It may have ended.
            let _gone = fs::write(self.mount.join("cgroup.procs"), pid);
        }
        if let Err(e) = fs::remove_dir(&self.at) {
            eprintln!("{} stays: {e}", self.at.display());
        }
    }
}

/// Number of a BPF object that a process holds: `map_id`, `prog_id` or `link_id`.
pub(crate) fn object_of(pid: u32, name: &str) -> Result<u64> {
    let all = fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten();
    let mut texts = all.filter_map(|e| fs::read_to_string(e.path()).ok());
    let found = texts.find_map(|text| {
        // A link tells of its program, too.
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.filter(|_| name == "link_id" || !text.contains("link_id:"))?.trim().parse().ok()
    });
    found.with_context(|| format!("no {name} of {pid}"))
}

/// What is done, what comes of it where nothing denies it, and the object of its finding.
type Acts = Vec<(Value, &'static str, String)>;

fn acts(agent: &Agent, site: &Site, cgroup: &Cgroup) -> Result<Acts> {
    let pid = agent.pid();
    fs::write(site.place.path().join("state/beside"), "x")?;
    let at = |name: &str| site.place.path().join(name).display().to_string();
    let reached = |what: &str| format!("a {what} of the agent");
    let made = |path: String| (json!({"do": "file-make", "path": path}), "ok", path.clone());
    Ok(vec![
        (
            json!({"do": "kill", "pid": pid, "signal": libc::SIGCONT}),
            "ok",
            format!("the agent, signal {}", libc::SIGCONT),
        ),
        (
            json!({"do": "signal-pidfd", "pid": pid, "signal": libc::SIGURG}),
            "ok",
            format!("the agent, signal {}", libc::SIGURG),
        ),
        (
            json!({"do": "signal-pipe", "pid": pid, "signal": libc::SIGWINCH}),
            "ok",
            format!("the agent, signal {}", libc::SIGWINCH),
        ),
        (json!({"do": "take-fd", "pid": pid}), "ok", "the agent".into()),
        (json!({"do": "object", "command": 14, "id": object_of(pid, "map_id")?}), "ok", reached("map")),
        (json!({"do": "object", "command": 13, "id": object_of(pid, "prog_id")?}), "ok", reached("program")),
        (json!({"do": "object", "command": 30, "id": object_of(pid, "link_id")?}), "ok", reached("link")),
        (
            json!({"do": "write-text", "path": cgroup.path("cgroup.procs"), "text": pid.to_string()}),
            "ok",
            "the agent into another cgroup".into(),
        ),
        (
            json!({"do": "dir-make", "path": agent::pins(site.place.path()).join("x")}),
            "ok",
            agent::pins(site.place.path()).join("x").display().to_string(),
        ),
        (
            json!({"do": "file-write", "path": format!("/proc/{pid}/oom_score_adj")}),
            "ok",
            format!("/proc/{pid}/oom_score_adj"),
        ),
        made(at("state/planted")),
        made(at("rules/planted.txt")),
        (json!({"do": "file-delete", "path": at("state/beside")}), "ok", at("state/beside")),
        (json!({"do": "file-write", "path": at("agent.lock")}), "ok", at("agent.lock")),
        (json!({"do": "file-chmod", "path": at("control.sock")}), "ok", at("control.sock")),
    ])
}

#[test]
fn what_is_done_to_the_agent_is_found() -> Result<()> {
    let site = Site::new()?;
    let cgroup = Cgroup::new(&format!("toolwarden-test-{}", std::process::id()))?;
    let agent = site.start(&[])?;
    let denied = is_alive(&agent)?;
    let mut client = Client::start(Command::new(program("contained")?), Manner::default())?;
    agent.server(client.pid())?;
    let acts = acts(&agent, &site, &cgroup)?;
    for (act, unless_denied, about) in &acts {
        let said = call(&mut client, "net", act)?;
        // A pipe's owner is asked for no more than his number.
        let wanted = if denied && act["do"] != "signal-pipe" { "EPERM" } else { unless_denied };
        ensure!(said == wanted, "{act}: {said}, not {wanted}");
        let is = |f: &Finding| f.kind == Kind::Tampering && f.object == *about;
        // A denied move is the cgroup's file.
        if denied && about.contains("another cgroup") {
            continue;
        }
        let line = agent.wait_for(patient(8 * SECOND), |l| matches!(l, Line::Finding(f) if is(f)));
        let line = line.with_context(|| format!("nobody tells of {about}"))?;
        let Line::Finding(found) = line else { unreachable!("just matched") };
        println!("{}", found.sentence);
        ensure!(found.severity == Severity::Critical, "{found:?}");
        ensure!(found.sentence.contains("not denied") != denied, "{}", found.sentence);
    }
    // What others do to it is nobody's business.
    e2e::sys::kill(agent.pid(), libc::SIGCONT)?;
    // And what the server does to others.
    let own = fs::canonicalize(std::env::temp_dir())?.join(format!("toolwarden-{}", std::process::id()));
    for act in [
        json!({"do": "kill", "pid": std::process::id(), "signal": libc::SIGCONT}),
        json!({"do": "file-make", "path": own}),
    ] {
        ensure!(call(&mut client, "net", &act)? == "ok");
    }
    fs::remove_file(&own)?;
    std::thread::sleep(patient(SECOND));
    let all = agent.lines()?;
    let of_others = |f: &Finding| {
        f.kind == Kind::Tampering
            && (f.object == own.display().to_string()
                || f.evidence.effects.iter().any(|e| format!("{e:?}").contains(&own.display().to_string())))
    };
    ensure!(
        !all.iter().any(|p| matches!(&p.line, Line::Finding(f) if of_others(f))),
        "an innocent act is found"
    );
    Ok(())
}
