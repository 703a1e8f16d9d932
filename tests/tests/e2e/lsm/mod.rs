//! What BPF LSM denies: programs, files, unix sockets, what is dangerous, and what servers do to the agent. Where the kernel has
//! no BPF LSM nothing of it can be tested, and the doctor must say why.

mod outlive;
mod servers;

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{PermissionsExt as _, symlink},
            net::{SocketAddr, UnixDatagram, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::{self, Agent},
    client::{Client, Manner},
    not_tested,
    pace::patient,
    scenario::program,
};
use engine::{
    output::{CoverageState, Effect, Line},
    policy::{Family, PathAccess, PathRight, Policy, Span, Tool},
};
use serde_json::{Value, json};

use super::{
    hooks::coverage,
    place::{SECOND, said},
};

/// LSM programs of the agent.
pub(crate) const PROGRAMS: usize = 34;
/// Bit of the tool `net`.
const NET: u64 = 1;
/// What `/proc/PID/mem` says, whatever the reason is.
const NO_MEMORY: &str = "Permission denied (os error 13)";

/// Whether this kernel has a working BPF LSM. If not, the doctor must say why not, or the test fails.
pub(crate) fn is_alive(agent: &Agent) -> Result<bool> {
    let lines = coverage(agent)?;
    let own: Vec<_> = lines.iter().filter(|c| c.hook.starts_with("lsm/")).collect();
    if own.iter().any(|c| c.hook == "lsm/file_open" && c.state == CoverageState::Enforcing) {
        ensure!(own.iter().all(|c| c.state == CoverageState::Enforcing), "{own:?}");
        return Ok(true);
    }
    let mut doctor = Command::new(agent::executable()?);
    doctor.args(["doctor", "--format", "json"]).stdin(Stdio::null());
    let report: Value = serde_json::from_str(&said(doctor)?.out)?;
    let ladders = report["ladders"].as_array().context("ladders")?;
    let file = ladders.iter().find(|l| l["family"] == "file").context("the ladder of files")?;
    let because = file["tried"][0]["because"].as_str().unwrap_or_default();
    let known = ["Operation not permitted", "CONFIG_BPF_LSM", "not among the active modules"];
    ensure!(known.iter().any(|why| because.contains(why)), "no LSM, and no reason: {file:#}");
    not_tested(&format!("BPF LSM: {because}"));
    Ok(false)
}

fn policy(families: &[Family], paths: Vec<PathRight>) -> Policy {
    let tool = |name: &str, bit| Tool { name: name.into(), bit, settle_ns: 50_000_000 };
    let mut paths = paths;
    paths.sort();
    Policy {
        identity: "0/contained@test".into(),
        generation: 1,
        tools: vec![tool("net", 0), tool("other", 1)],
        families: families.to_vec(),
        paths,
        ..Policy::default()
    }
}

fn right(path: impl AsRef<Path>, span: Span, access: PathAccess, mask: u64) -> PathRight {
    PathRight { path: path.as_ref().display().to_string(), span, access, mask }
}

/// A directory under its real name.
struct Dir {
    _own: tempfile::TempDir,
    at: PathBuf,
}

impl Dir {
    fn new() -> Result<Self> {
        Self::of(tempfile::tempdir()?)
    }

    /// One whose files are an area of their own: what is in `/tmp`, or has a name that was made up, is not told apart.
    fn named(name: &str) -> Result<Self> {
        fs::create_dir_all("/srv")?;
        Self::of(tempfile::Builder::new().prefix(name).rand_bytes(0).tempdir_in("/srv")?)
    }

    fn of(own: tempfile::TempDir) -> Result<Self> {
        let at = fs::canonicalize(own.path())?;
        Ok(Self { _own: own, at })
    }

    fn path(&self, name: &str) -> String {
        self.at.join(name).display().to_string()
    }
}

/// The agent, with every server held to a policy; `None` where nothing of it can be denied.
fn held(dir: &Dir, policy: &Policy, dry_run: bool) -> Result<Option<(Agent, Client)>> {
    let file = dir.path("hold.json");
    fs::write(&file, json!({"policy": serde_json::to_value(policy)?, "dry_run": dry_run}).to_string())?;
    let agent = Agent::start(&["--hold", &file])?;
    if !is_alive(&agent)? {
        return Ok(None);
    }
    let client = Client::start(Command::new(program("contained")?), Manner::default())?;
    // The agent binds a tree when it reads of its exec.
    thread::sleep(patient(Duration::from_millis(100)));
    Ok(Some((agent, client)))
}

fn one(client: &mut Client, tool: &str, act: Value) -> Result<String> {
    let (_, reply) = client.call(tool, &json!({"acts": [act]}))?;
    ensure!(reply.is_ok(), "{reply:?}");
    // No longer than the settling time, and some.
    thread::sleep(patient(Duration::from_millis(80)));
    let mut results: Vec<String> = serde_json::from_str(reply.text())?;
    results.pop().context("no result")
}

/// Requires that acts end as they should.
fn all(client: &mut Client, acts: &[(&str, Value, &str)]) -> Result<()> {
    for (tool, act, wanted) in acts {
        let said = one(client, tool, act.clone())?;
        ensure!(said == *wanted, "{tool} {act}: {said}, not {wanted}");
    }
    Ok(())
}

fn told(agent: &Agent, what: &str, about: &str, dry: bool) -> Result<()> {
    let is = |l: &Line| {
        matches!(l, Line::Effect(e) if matches!(&*e.effect, Effect::Denied { op, object, dry_run, .. }
            if op == what && object == about && *dry_run == dry))
    };
    let all = |l: &Line| match l {
        Line::Effect(e) => match &*e.effect {
            Effect::Denied { op, object, dry_run, .. } => Some(format!("{op} {object} {dry_run}")),
            _ => None,
        },
        _ => None,
    };
    agent.wait_for(patient(3 * SECOND), is).map(drop).with_context(|| {
        let lines = agent.lines().unwrap_or_default();
        format!(
            "nobody tells of {what} {about} among {:#?}",
            lines.iter().filter_map(|p| all(&p.line)).collect::<Vec<_>>()
        )
    })
}

/// A copy of a program that ends at once.
fn copy(dir: &Dir, name: &str) -> Result<String> {
    let to = dir.path(name);
    fs::copy(program("forger")?, &to)?;
    Ok(to)
}

#[test]
fn programs_need_a_right() -> Result<()> {
    let dir = Dir::new()?;
    let (good, bad, forbidden) = (copy(&dir, "good")?, copy(&dir, "bad")?, copy(&dir, "forbidden")?);
    let script = |name: &str, interpreter: &str| -> Result<String> {
        let path = dir.path(name);
        fs::write(&path, format!("#!{interpreter}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    };
    let (written, unknown, evil) =
        (script("script", &bad)?, script("unknown", &good)?, script("evil", &forbidden)?);
    let link = dir.path("link");
    symlink(&script("linked", &bad)?, &link)?;
    let exec = |path: &str, mask| right(path, Span::Exact, PathAccess::Exec, mask);
    let rights =
        vec![exec(&good, NET), exec(&written, NET), exec(&forbidden, 0), exec(&evil, NET), exec(&link, NET)];
    let Some((agent, mut client)) = held(&dir, &policy(&[Family::Exec], rights), false)? else {
        return Ok(());
    };
    let run = |path: &str| json!({"do": "exec", "path": path});
    all(
        &mut client,
        &[
            ("net", run(&good), "ok"),
            ("net", run(&bad), "EPERM"),
            ("other", run(&good), "EPERM"),
            // The script needs a right; its interpreter needs none, unless it is forbidden.
            ("net", run(&written), "ok"),
            ("net", run(&unknown), "EPERM"),
            ("net", run(&evil), "EPERM"),
            // Baselines know it by the name that it was called by.
            ("net", run(&link), "ok"),
            ("net", json!({"do": "exec-memory", "path": good}), "EPERM"),
            // Other families are not judged.
            ("other", json!({"do": "file-read", "path": bad}), "ok"),
        ],
    )?;
    told(&agent, "exec", &bad, false)?;
    told(&agent, "exec", &forbidden, false)?;
    // Another server of the host does as it likes.
    ensure!(Command::new(&bad).stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok());
    Ok(())
}

#[test]
fn files_need_a_right() -> Result<()> {
    let dir = Dir::new()?;
    let at = |name: &str| dir.path(name);
    for name in ["own", "own/deep", "secret", "top"] {
        fs::create_dir(at(name))?;
    }
    for name in ["own/a", "own/b", "own/deep/c", "own/no", "secret/key", "top/a", "top/b"] {
        fs::write(at(name), "x")?;
    }
    symlink(at("secret/key"), at("own/way"))?;
    fs::create_dir(at("own/deep/dir"))?;
    let on = |name: &str, span, access, mask| right(at(name), span, access, mask);
    use PathAccess::{Change, Delete, Read, Write};
    use Span::{Children, Exact, Subtree};
    let mut rights = vec![
        on("own", Subtree, Read, NET),
        on("own", Subtree, Write, NET),
        on("own", Subtree, Delete, NET),
        on("own", Subtree, Change, NET),
        on("own/no", Exact, Read, 0),
        on("top", Children, Read, NET),
    ];
    rights.extend(["/dev/null", "/proc"].map(|path| right(path, Subtree, Read, u64::MAX >> 4)));
    let Some((agent, mut client)) = held(&dir, &policy(&[Family::File], rights), false)? else {
        return Ok(());
    };
    let act = |what: &str, name: &str| json!({"do": what, "path": at(name)});
    let two = |what: &str, name: &str, to: &str| json!({"do": what, "path": at(name), "to": at(to)});
    all(
        &mut client,
        &[
            ("net", act("file-read", "own/a"), "ok"),
            ("net", act("file-read", "own/deep/c"), "ok"),
            ("net", act("dir-list", "own"), "ok"),
            ("other", act("file-read", "own/a"), "EPERM"),
            ("net", act("file-read", "own/no"), "EPERM"),
            ("net", act("file-read", "secret/key"), "EPERM"),
            ("net", act("file-read", "own/way"), "EPERM"),
            ("net", act("file-read", "own/../secret/key"), "EPERM"),
            ("net", act("file-uring", "secret/key"), "EPERM"),
            ("net", act("file-uring", "own/a"), "ok"),
            ("net", act("dir-list", "secret"), "EPERM"),
            ("net", act("file-read", "top/a"), "ok"),
            ("net", act("dir-list", "top"), "EPERM"),
            ("net", act("file-write", "top/a"), "EPERM"),
            ("net", act("file-write", "own/a"), "ok"),
            ("net", act("file-make", "own/new"), "ok"),
            ("net", act("file-make", "top/new"), "EPERM"),
            ("net", act("file-truncate", "top/a"), "EPERM"),
            ("net", act("file-truncate", "own/a"), "ok"),
            ("net", act("dir-make", "own/made"), "ok"),
            ("net", act("dir-make", "top/made"), "EPERM"),
            ("net", act("dir-delete", "own/made"), "ok"),
            ("net", act("file-chmod", "own/a"), "ok"),
            ("net", act("file-chmod", "top/a"), "EPERM"),
            ("net", act("file-chown", "top/a"), "EPERM"),
            ("net", act("file-delete", "own/new"), "ok"),
            ("net", act("file-delete", "top/b"), "EPERM"),
            ("net", two("file-rename", "own/b", "own/c"), "ok"),
            ("net", two("file-rename", "own/c", "top/c"), "EPERM"),
            ("net", two("file-rename", "top/a", "own/a"), "EPERM"),
            // Bytes that it may not read get no other name.
            ("net", two("file-link", "secret/key", "own/key"), "EPERM"),
            ("net", two("file-link", "own/a", "own/d"), "ok"),
            ("net", act("file-make", "secret/new"), "EPERM"),
        ],
    )?;
    for (what, name) in [
        ("read", "secret/key"),
        ("write", "top/a"),
        ("write", "top/new"),
        ("write", "top/made"),
        ("change", "top/a"),
        ("delete", "top/b"),
        ("delete", "top/a"),
    ] {
        told(&agent, what, &at(name), false)?;
    }
    ensure!(!Path::new(&at("top/new")).exists() && !Path::new(&at("own/key")).exists());
    ensure!(fs::read(at("top/a"))? == b"x" && fs::read(at("top/b"))? == b"x");
    // Too deep for the kernel programs: what is below has no right, whatever is above it.
    let deep = (0..70).fold(PathBuf::from(at("own/deep")), |path, _| path.join("d"));
    fs::create_dir_all(&deep)?;
    fs::write(deep.join("f"), "x")?;
    let read = json!({"do": "file-read", "path": deep.join("f")});
    ensure!(one(&mut client, "net", read)? == "EPERM", "what is too deep is opened");
    Ok(())
}

#[test]
fn a_dry_run_tells_and_denies_nothing() -> Result<()> {
    let dir = Dir::new()?;
    let (file, exec) = (dir.path("file"), copy(&dir, "program")?);
    fs::write(&file, "x")?;
    let Some((agent, mut client)) = held(&dir, &policy(&[Family::File, Family::Exec], Vec::new()), true)?
    else {
        return Ok(());
    };
    all(
        &mut client,
        &[
            ("net", json!({"do": "file-read", "path": file}), "ok"),
            ("net", json!({"do": "exec", "path": exec}), "ok"),
        ],
    )?;
    told(&agent, "read", &file, true)?;
    told(&agent, "exec", &exec, true)
}

#[test]
fn unix_sockets_need_a_right() -> Result<()> {
    let dir = Dir::new()?;
    let listen = |name: &str| UnixListener::bind(dir.path(name));
    let _listeners = [listen("good.sock")?, listen("bad.sock")?];
    let _datagrams =
        [UnixDatagram::bind(dir.path("good.dgram"))?, UnixDatagram::bind(dir.path("bad.dgram"))?];
    let names = ["good", "bad"].map(|n| format!("toolwarden-test-{n}-{}", std::process::id()));
    let bound: std::io::Result<Vec<UnixListener>> =
        names.iter().map(|n| UnixListener::bind_addr(&SocketAddr::from_abstract_name(n)?)).collect();
    let _bound = bound?;
    let [good, bad] = names.map(|n| format!("@{n}"));
    let unix = |path: &str| right(path, Span::Exact, PathAccess::Unix, NET);
    let rights = vec![unix(&dir.path("good.sock")), unix(&dir.path("good.dgram")), unix(&good)];
    let Some((agent, mut client)) = held(&dir, &policy(&[Family::Unix], rights), false)? else {
        return Ok(());
    };
    let to = |what: &str, path: &str| json!({"do": what, "path": path});
    all(
        &mut client,
        &[
            ("net", to("unix", &dir.path("good.sock")), "ok"),
            ("net", to("unix", &dir.path("bad.sock")), "EPERM"),
            ("other", to("unix", &dir.path("good.sock")), "EPERM"),
            ("net", to("unix", &good), "ok"),
            ("net", to("unix", &bad), "EPERM"),
            ("net", to("unix-datagram", &dir.path("good.dgram")), "ok"),
            ("net", to("unix-datagram", &dir.path("bad.dgram")), "EPERM"),
        ],
    )?;
    told(&agent, "connect-unix", &dir.path("bad.sock"), false)?;
    told(&agent, "connect-unix", &bad, false)
}

#[test]
fn what_is_dangerous_is_denied() -> Result<()> {
    let dir = Dir::new()?;
    fs::create_dir(dir.path("mount"))?;
    let families = [Family::Dangerous, Family::Network];
    let Some((agent, mut client)) = held(&dir, &policy(&families, Vec::new()), false)? else {
        return Ok(());
    };
    all(
        &mut client,
        &[
            ("net", json!({"do": "look"}), NO_MEMORY),
            ("net", json!({"do": "mount", "path": dir.path("mount")}), "EPERM"),
            ("net", json!({"do": "bpf"}), "EPERM"),
            ("net", json!({"do": "socket", "family": libc::AF_PACKET}), "EPERM"),
            // Its own memory is its own.
            ("net", json!({"do": "file-read", "path": "/proc/self/mem"}), "ok"),
        ],
    )?;
    for op in ["ptrace", "mount", "bpf"] {
        told(&agent, op, "", false)?;
    }
    told(&agent, "socket", "address family 17", false)
}
