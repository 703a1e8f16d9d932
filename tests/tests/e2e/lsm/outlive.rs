//! What BPF LSM denies stays denied when the agent is killed, and so does what guards what it keeps.

use std::{fs, path::PathBuf, process::Command, thread};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::{self, Agent},
    client::{Client, Manner},
    pace::{patient, patient_ms},
    scenario::program,
    sys,
};
use engine::policy::{Family, PathAccess, Span};
use serde_json::{Value, json};

use super::{
    super::{
        outlive::{self, Load, call, server},
        place::{Place, SECOND, soon},
    },
    Dir, NET, NO_MEMORY, copy, is_alive, policy, right,
};

/// A place whose agents hold every server to a policy of programs, files, unix sockets and what is dangerous.
struct Site {
    place: Place,
    dir: Dir,
    hold: String,
}

impl Site {
    fn new() -> Result<Self> {
        let (place, dir) = (Place::new()?, Dir::new()?);
        for name in ["own", "secret"] {
            fs::write(dir.path(name), "x")?;
        }
        let (good, _bad) = (copy(&dir, "good")?, copy(&dir, "bad")?);
        let families = [Family::Exec, Family::File, Family::Unix, Family::Dangerous];
        let all = u64::MAX >> 4;
        let mut rights = vec![
            right(dir.path("own"), Span::Exact, PathAccess::Read, NET),
            right(good, Span::Exact, PathAccess::Exec, NET),
            right("/dev/null", Span::Exact, PathAccess::Write, all),
        ];
        for own in ["/dev/null", "/proc", "/lib", "/usr", "/etc"] {
            rights.push(right(own, Span::Subtree, PathAccess::Read, all));
        }
        let hold = place.path().join("hold.json");
        let policy = serde_json::to_value(policy(&families, rights))?;
        fs::write(&hold, json!({"policy": policy}).to_string())?;
        Ok(Self { place, dir, hold: hold.display().to_string() })
    }

    fn start(&self) -> Result<Agent> {
        self.place.start_with(&["--hold", &self.hold])
    }

    fn read(&self, name: &str) -> Value {
        json!({"do": "file-read", "path": self.dir.path(name)})
    }

    fn run(&self, name: &str) -> Value {
        json!({"do": "exec", "path": self.dir.path(name)})
    }

    /// What is denied is denied, and the rest is not.
    fn holds(&self, client: &mut Client, when: &str) -> Result<()> {
        for (tool, act, wanted) in [
            ("net", self.read("own"), "ok"),
            ("other", self.read("own"), "EPERM"),
            ("net", self.read("secret"), "EPERM"),
            ("net", self.run("good"), "ok"),
            ("net", self.run("bad"), "EPERM"),
            ("net", json!({"do": "unix", "path": "@toolwarden-test-nobody"}), "ECONNREFUSED"),
            ("net", json!({"do": "look"}), NO_MEMORY),
            ("net", json!({"do": "bpf"}), "EPERM"),
        ] {
            let said = call(client, tool, &act)?;
            ensure!(said == wanted, "{when}: {tool} {act}: {said}");
        }
        Ok(())
    }

    fn layout(&self) -> Result<PathBuf> {
        layout(&self.place)
    }
}

fn layout(place: &Place) -> Result<PathBuf> {
    let entries = fs::read_dir(agent::pins(place.path()))?.flatten().map(|e| e.path());
    entries.into_iter().find(|p| p.is_dir()).context("nothing is pinned")
}

/// No change of what an agent keeps succeeds.
fn guards(place: &Place, client: &mut Client, watched: bool, when: &str) -> Result<()> {
    let at = place.path();
    let path = |name: &str| at.join(name).display().to_string();
    let pins = agent::pins(at).display().to_string();
    let layout = layout(place)?;
    let tree = layout.join("maps/TREE_POLICY").display().to_string();
    let map = u64::from(sys::pinned_map(tree.as_ref())?);
    let mut acts = vec![
        json!({"do": "file-delete", "path": tree}),
        json!({"do": "dir-delete", "path": layout.join("links")}),
        json!({"do": "dir-make", "path": format!("{pins}/x")}),
        json!({"do": "pinned", "path": tree}),
        // BPF_MAP_GET_FD_BY_ID
        json!({"do": "object", "command": 14, "id": map}),
        json!({"do": "umount", "path": pins}),
        json!({"do": "mount-over", "path": path("state")}),
        json!({"do": "file-make", "path": path("state/disarm")}),
        json!({"do": "file-make", "path": "/run/toolwarden/disarm"}),
        json!({"do": "file-rename", "path": path("rules"), "to": path("gone")}),
        json!({"do": "file-make", "path": path("rules/own.yaml")}),
        json!({"do": "file-write", "path": path("agent.lock")}),
    ];
    if watched {
        acts.push(json!({"do": "file-delete", "path": path("control.sock")}));
    }
    for act in acts {
        let said = call(client, "net", &act)?;
        ensure!(said == "EPERM", "{when}: {act}: {said}");
    }
    Ok(())
}

#[test]
fn what_lsm_denies_outlives_the_agent() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.start()?;
    if !is_alive(&agent)? {
        return Ok(());
    }
    let mut client = server()?;
    site.holds(&mut client, "before")?;
    let links = |site: &Site| -> Result<usize> {
        let terms = fs::read_dir(site.layout()?.join("links"))?.flatten();
        Ok(terms.flat_map(|term| fs::read_dir(term.path()).into_iter().flatten()).count())
    };
    let before = links(&site)?;
    ensure!(before == 14 + super::PROGRAMS, "{before} links are pinned");

    agent.stop(libc::SIGKILL)?;
    site.holds(&mut client, "without an agent")?;

    // At every moment of a start.
    let attack = Load::start(client, "net", site.read("secret"));
    let mut agent = site.start()?;
    thread::sleep(patient_ms(500));
    let (mut client, tried) = attack.end()?;
    println!("{} acts while an agent started", tried.len());
    ensure!(tried.len() > 20 && tried.iter().all(|said| said == "EPERM"), "{tried:?}");
    ensure!(links(&site)? == before, "{} links are pinned, not {before}", links(&site)?);
    site.holds(&mut client, "with the next agent")?;

    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.errors());
    ensure!(fs::read_dir(agent::pins(site.place.path())).is_err(), "something is pinned after a stop");
    soon("nothing is denied", || Ok((call(&mut client, "net", &site.read("secret"))? == "ok").then_some(())))
}

#[test]
fn what_guards_the_agents_own_outlives_it() -> Result<()> {
    // Nothing is said of files and mounts: only what is the agent's is denied.
    let site = outlive::Site::new()?;
    fs::create_dir_all("/run/toolwarden")?;
    let mut agent = site.start(&[])?;
    if !is_alive(&agent)? {
        return Ok(());
    }
    let mut client = server()?;
    guards(&site.place, &mut client, true, "with an agent")?;
    agent.stop(libc::SIGKILL)?;
    guards(&site.place, &mut client, false, "without an agent")?;
    let mut agent = site.start(&[])?;
    guards(&site.place, &mut client, true, "with the next agent")?;
    let beside = json!({"do": "file-write", "path": site.place.path().join("hold.json")});
    ensure!(call(&mut client, "net", &beside)? == "ok", "what is not the agent's is guarded");
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.errors());
    Ok(())
}

/// Each act against the agent's processes and cgroups, by a server that is only watched.
#[test]
fn a_server_cannot_move_freeze_or_slow_the_agent() -> Result<()> {
    let place = Place::new()?;
    let cgroup = super::super::tampering::Cgroup::new("toolwarden-test-own")?;
    cgroup.enter()?;
    let started = place.start();
    cgroup.leave()?;
    let agent = started?;
    if !is_alive(&agent)? {
        return Ok(());
    }
    let mut client = Client::start(Command::new(program("contained")?), Manner::default())?;
    agent.server(client.pid())?;
    let pid = agent.pid();
    let object = |name: &str| super::super::tampering::object_of(pid, name);
    let at = |name: &str| cgroup.path(name);
    let acts = [
        json!({"do": "signal-pidfd", "pid": pid, "signal": libc::SIGCONT}),
        json!({"do": "take-fd", "pid": pid}),
        json!({"do": "trace", "pid": pid}),
        json!({"do": "nice", "pid": pid}),
        json!({"do": "ioprio", "pid": pid}),
        json!({"do": "same-limit", "pid": pid}),
        json!({"do": "file-write", "path": format!("/proc/{pid}/oom_score_adj")}),
        json!({"do": "write-text", "path": cgroup.top("cgroup.procs"), "text": pid.to_string()}),
        json!({"do": "file-write", "path": at("cgroup.procs")}),
        json!({"do": "file-write", "path": at("cgroup.threads")}),
        json!({"do": "write-text", "path": at("cgroup.freeze"), "text": "1"}),
        json!({"do": "object", "command": 14, "id": object("map_id")?}),
        json!({"do": "object", "command": 13, "id": object("prog_id")?}),
        json!({"do": "object", "command": 30, "id": object("link_id")?}),
        // BPF_LINK_DETACH
        json!({"do": "object", "command": 34, "id": 0}),
        json!({"do": "mount-over", "path": place.path().join("state")}),
    ];
    for act in acts {
        let said = call(&mut client, "net", &act)?;
        ensure!(said == "EPERM", "{act}: {said}");
    }
    // Whoever reads from the pipe gets the byte; the agent gets no signal.
    let pipe = json!({"do": "signal-pipe", "pid": pid, "signal": libc::SIGKILL});
    ensure!(call(&mut client, "net", &pipe)? == "ok");
    thread::sleep(patient(SECOND));
    e2e::sys::kill(pid, 0)?;
    for (op, about) in [
        ("signal", format!("the agent, signal {}", libc::SIGCONT)),
        ("signal", format!("the agent, signal {}", libc::SIGKILL)),
        ("trace", "the agent".into()),
        ("limit", "the agent's resources".into()),
        ("alter", cgroup.top("cgroup.procs")),
        ("alter", at("cgroup.freeze")),
        ("reach", "a map of the agent".into()),
        ("reach", "a program of the agent".into()),
        ("reach", "a link of the agent".into()),
        ("mount over", "the agent's files".into()),
    ] {
        super::told(&agent, op, &about, false)?;
    }
    // Its own files of procfs, and other cgroups' files, are others'.
    for act in [
        json!({"do": "file-write", "path": "/proc/self/oom_score_adj"}),
        json!({"do": "file-read", "path": at("cgroup.procs")}),
    ] {
        let said = call(&mut client, "net", &act)?;
        ensure!(said == "ok", "{act}: {said}");
    }
    Ok(())
}
