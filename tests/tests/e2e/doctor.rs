//! The doctor, the agent's own canary, hooks that are taken away, and a second agent.

use std::{
    io,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::{self, Agent},
    client::{Client, Manner},
    sys,
};
use engine::{
    finding::{Kind, Severity},
    output::{Coverage, CoverageState, Line},
};
use serde_json::Value;

use super::{
    bad_input::open_copy,
    place::{SECOND, Said, said},
};

/// Hooks that this kernel has.
const HOOKS: [&str; 15] = [
    "lifecycle/fork",
    "lifecycle/exec",
    "lifecycle/exit",
    "syscalls",
    "io_uring",
    "cgroup/connect4",
    "cgroup/connect6",
    "cgroup/sendmsg4",
    "cgroup/sendmsg6",
    "cgroup/bind4",
    "cgroup/bind6",
    "cgroup/sock_create",
    "cgroup/sock_release",
    "cgroup/egress",
    "cgroup/ingress",
];
/// bpf(2): BPF_LINK_GET_FD_BY_ID
const LINK_GET_FD_BY_ID: i32 = 30;
/// bpf(2): BPF_LINK_DETACH
const LINK_DETACH: i32 = 34;
/// A hook that is lost must be noticed within this.
const NOTICED: Duration = Duration::from_secs(10);

fn json(said: &Said) -> Result<Value> {
    serde_json::from_str(&said.out).with_context(|| format!("{}: {}{}", said.code, said.out, said.err))
}

/// Runs the doctor without some capabilities, and checks its report against the published schema.
fn doctor(without: &'static [u32]) -> Result<(i32, Value)> {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(agent::executable()?);
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(|| without.iter().try_for_each(|&cap| sys::drop_capability(cap))) };
    command.args(["doctor", "--format", "json"]).stdin(Stdio::null());
    let said = said(command)?;
    let report = json(&said)?;
    let schema = std::fs::read_to_string(e2e::workspace().join("docs/schema/doctor.schema.json"))?;
    let schema: Value = serde_json::from_str(&schema)?;
    let validator = jsonschema::validator_for(&schema).map_err(|e| anyhow::anyhow!("{e}"))?;
    let errors: Vec<_> = validator.iter_errors(&report).map(|e| e.to_string()).collect();
    ensure!(errors.is_empty(), "{errors:?}");
    Ok((said.code, report))
}

fn list<'a>(report: &'a Value, key: &str) -> &'a [Value] {
    report[key].as_array().map_or(&[], Vec::as_slice)
}

fn one<'a>(report: &'a Value, key: &str, field: &str, name: &str) -> Result<&'a Value> {
    list(report, key).iter().find(|v| v[field] == name).with_context(|| format!("no {name} among the {key}"))
}

/// Every check and hook that is not well has a remedy.
fn remedied(report: &Value) -> Result<()> {
    let checks = list(report, "checks").iter().filter(|c| c["state"] != "ok");
    let hooks = list(report, "hooks").iter().filter(|h| h["state"] != "works");
    for bad in checks.chain(hooks) {
        ensure!(bad["remedy"].as_str().is_some_and(|r| r.len() > 10), "no remedy: {bad}");
    }
    Ok(())
}

#[test]
fn the_doctor_proves_every_hook() -> Result<()> {
    let (code, report) = doctor(&[])?;
    let names: Vec<_> = list(&report, "hooks").iter().filter_map(|h| h["hook"].as_str()).collect();
    ensure!(names == HOOKS, "{names:?}");
    for hook in list(&report, "hooks") {
        ensure!(hook["state"] == "works", "{hook:#}");
    }
    remedied(&report)?;
    let outcome = report["outcome"].as_str().unwrap_or_default();
    let bad = list(&report, "checks").iter().filter(|c| c["state"] == "fail").count();
    println!("{outcome}, exit code {code}, {bad} failed checks of {}", list(&report, "checks").len());
    ensure!(bad == 0, "{:#}", report["checks"]);
    ensure!(code == ["ok", "degraded"].iter().position(|o| *o == outcome).map_or(2, |n| n as i32), "{code}");
    // What the boot says of LSM programs and what the kernel does with one are told apart.
    let file = one(&report, "ladders", "family", "file")?;
    let lsm = &file["tried"][0];
    ensure!(lsm["provider"] == "lsm/file_open", "{file:#}");
    if lsm["state"] != "works" {
        ensure!(file["chosen"] == "syscalls", "{file:#}");
        ensure!(lsm["because"].as_str().is_some() && lsm["remedy"].as_str().is_some(), "{file:#}");
        ensure!(outcome == "degraded", "files cannot be denied, and it says {outcome}");
    }
    println!("lsm/file_open: {} because {}", lsm["state"], lsm["because"]);
    Ok(())
}

#[test]
fn the_doctor_speaks_to_people() -> Result<()> {
    let mut command = Command::new(agent::executable()?);
    command.arg("doctor").stdin(Stdio::null());
    let said = said(command)?;
    let line = |name: &str| said.out.lines().find(|l| l.starts_with(name)).unwrap_or_default();
    for hook in HOOKS {
        ensure!(line(hook).contains("works"), "{hook}: {}", said.out);
    }
    ensure!(!said.out.contains('\u{1b}'), "colours without a terminal");
    let end = said.out.lines().last().unwrap_or_default();
    let wanted = ["All is well", "does less than it could", "cannot do its work"];
    ensure!(
        usize::try_from(said.code).is_ok_and(|code| end.contains(wanted[code.min(2)])),
        "{}: {end}",
        said.code
    );
    Ok(())
}

#[test]
fn the_doctor_names_the_capability_that_is_missing() -> Result<()> {
    // With CAP_SYS_ADMIN (21), which stands for each of them: CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON.
    let cases: [(&[u32], &str, &str); 3] = [
        (&[12, 21], "cap-net-admin", "cgroup/connect4"),
        (&[39, 21], "cap-bpf", "syscalls"),
        (&[38, 21], "cap-perfmon", "lifecycle/exec"),
    ];
    for (dropped, check, blind) in cases {
        let (code, report) = doctor(dropped)?;
        let check = one(&report, "checks", "id", check)?;
        println!("without {dropped:?}: exit code {code}, {}", check["seen"]);
        ensure!(code == 2, "without {dropped:?}: exit code {code}");
        ensure!(check["state"] == "fail", "{check:#}");
        let hook = one(&report, "hooks", "hook", blind)?;
        ensure!(hook["state"] == "blind", "{hook:#}");
        remedied(&report)?;
    }
    Ok(())
}

#[test]
fn without_root_the_doctor_says_what_it_could_not_check() -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(open_copy(dir.path())?);
    command.args(["doctor", "--format", "json"]).stdin(Stdio::null()).current_dir("/").uid(65534).gid(65534);
    let said = said(command)?;
    let report = json(&said)?;
    ensure!(said.code == 1, "exit code {}", said.code);
    for hook in list(&report, "hooks") {
        ensure!(hook["state"] == "unknown", "{hook:#}");
        ensure!(hook["remedy"].as_str().is_some_and(|r| r.contains("root")), "{hook:#}");
    }
    remedied(&report)
}

/// The agent's links: id, cgroup, attach type.
fn links(pid: u32) -> Result<Vec<(u32, u64, u32)>> {
    let mut links = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // One that is closed meanwhile is none of its links.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
        let field = |name: &str| {
            let value = text.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
            value.and_then(|v| v.parse::<u64>().ok())
        };
        if let (Some(id), Some(cgroup), Some(kind)) =
            (field("link_id:"), field("cgroup_id:"), field("attach_type:"))
        {
            links.push((u32::try_from(id)?, cgroup, u32::try_from(kind)?));
        }
    }
    Ok(links)
}

/// What another root process can do: find a link by its id, and detach it.
pub(crate) fn detach(id: u32) -> io::Result<()> {
    let mut attr = [0; 16];
    attr[0] = u64::from(id);
    let fd = sys::bpf(LINK_GET_FD_BY_ID, &mut attr)?;
    let mut attr = [0; 16];
    attr[0] = fd as u64;
    let done = sys::bpf(LINK_DETACH, &mut attr).map(drop);
    sys::close_raw(fd as u32);
    done
}

fn is(line: &Line, hook: &str, state: CoverageState) -> bool {
    matches!(line, Line::Coverage(c) if c.coverage.hook == hook && c.coverage.state == state)
}

#[test]
fn a_detached_link_is_a_finding_and_is_attached_again() -> Result<()> {
    // struct bpf_link_info: BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET_EGRESS
    for (hook, kind, word) in
        [("cgroup/connect4", 10, "connections to IPv4 addresses"), ("cgroup/egress", 1, "bytes sent")]
    {
        let agent = Agent::start_with(&[], |_| true)?;
        let of_kind = |(_, cgroup, k): &(u32, u64, u32)| *k == kind && *cgroup != 0;
        let (id, ..) = links(agent.pid())?.into_iter().find(of_kind).context("no such link")?;
        detach(id).context("BPF_LINK_DETACH")?;
        let at = Instant::now();
        let blind = agent.wait_for(NOTICED, |l| is(l, hook, CoverageState::Blind))?;
        println!("{hook}: noticed after {:?}", at.elapsed());
        let Line::Coverage(line) = &blind else { unreachable!("just matched") };
        let because = line.coverage.because.clone().unwrap_or_default();
        ensure!(because.contains(&format!("link {id}")) && because.contains(word), "{because}");
        let finding =
            agent.wait_for(SECOND, |l| matches!(l, Line::Finding(f) if f.kind == Kind::CoverageLost))?;
        let Line::Finding(finding) = finding else { unreachable!("just matched") };
        ensure!(finding.severity == Severity::High && finding.object == hook, "{finding:?}");
        ensure!(finding.sentence.contains(word), "{}", finding.sentence);
        let again = agent.wait_for(SECOND, |l| {
            matches!(l, Line::Coverage(c) if c.coverage.hook == hook
                && c.coverage.state == CoverageState::Enforcing && c.coverage.because.is_some())
        })?;
        println!("{hook}: {again:?}");
        let now = links(agent.pid())?.into_iter().find(of_kind).context("not attached again")?;
        ensure!(now.0 != id, "the same link {now:?}");
        let dead = links(agent.pid())?.iter().filter(|(_, cgroup, _)| *cgroup == 0).count();
        ensure!(dead == 0, "{dead} dead links are held");
        // The canary looks at it at once; nothing is told any more when all is well.
        std::thread::sleep(3 * SECOND);
        let blind = agent.lines()?.iter().filter(|p| is(&p.line, hook, CoverageState::Blind)).count();
        ensure!(blind == 1, "told blind {blind} times");
    }
    Ok(())
}

/// Before it says that it watches, the agent has proved its hooks, and its own acts are nobody's.
#[test]
fn the_agent_proves_its_hooks_before_it_is_ready() -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let mut agent = Agent::start_with(&[], |_| true)?;
        times.push(agent.attached_in);
        // A drain takes in what the kernel counted under the canary's records.
        std::thread::sleep(Duration::from_millis(300));
        let candidate = Client::launch(Command::new("cat"), Manner::default())?;
        std::thread::sleep(6 * SECOND / 5);
        drop(candidate);
        agent.stop(libc::SIGINT)?;
        let lines = agent.lines()?;
        let blind: Vec<&Coverage> = lines
            .iter()
            .filter_map(|p| match &p.line {
                Line::Coverage(c) if c.coverage.state == CoverageState::Blind => Some(&c.coverage),
                _ => None,
            })
            .collect();
        ensure!(blind.is_empty(), "{blind:?}");
        let unknown = agent.lost()?.into_iter().find(|l| l.cause == "aggregate:unknown");
        ensure!(unknown.is_none(), "counts of the canary came through: {unknown:?}");
        let own = lines.iter().find(|p| p.text.contains("/proc/self/exe") || p.text.contains("canary"));
        ensure!(own.is_none(), "the canary came through: {own:?}");
    }
    times.sort();
    println!("from start to coverage: {times:?}");
    Ok(())
}

#[test]
fn a_second_agent_refuses_and_names_the_first() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let agent = Agent::start_in(dir.path(), &[])?;
    let pid = format!("(process {})", agent.pid());
    let at = |name: &str| dir.path().join(name);
    for (guard, state) in [("agent.lock", "other"), ("other.lock", "state")] {
        let mut command = Command::new(agent::executable()?);
        command.args(["run", "--no-control", "--guard"]).arg(at(guard)).arg("--state-dir").arg(at(state));
        let second = said({
            command.stdin(Stdio::null());
            command
        })?;
        println!("{}: {}", second.code, second.err.trim());
        ensure!(second.code != 0, "two agents run");
        ensure!(second.err.contains("another agent") && second.err.contains(&pid), "{}", second.err);
    }
    let mut command = Command::new(agent::executable()?);
    command.args(["doctor", "--format", "json", "--guard"]).arg(at("agent.lock")).stdin(Stdio::null());
    let report = json(&said(command)?)?;
    let check = one(&report, "checks", "id", "agent")?;
    ensure!(check["seen"].as_str().is_some_and(|s| s.contains(&pid)), "{check:#}");
    Ok(())
}
