//! The unit: how hard it is, and that what it leaves is enough.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{client::Manner, pace::patient, scenario::Oracle, workspace, world::World};
use serde_json::Value;

use super::{
    super::place::{Place, SECOND, said, soon},
    DENY, Running,
    metrics::{free, get},
};

/// The unit, as it is shipped, but for where the program is.
fn unit(dir: &Path, program: &Path) -> Result<(PathBuf, String)> {
    let text = fs::read_to_string(workspace().join("packaging/toolwarden.service"))?;
    let here = text.replace("/usr/bin/toolwarden", program.to_str().context("utf-8")?);
    let path = dir.join("toolwarden.service");
    fs::write(&path, here)?;
    Ok((path, text))
}

/// Capabilities of the unit, such as `CAP_BPF`.
fn capabilities(unit: &str) -> Vec<&str> {
    unit.lines()
        .filter_map(|l| l.strip_prefix("CapabilityBoundingSet="))
        .flat_map(str::split_whitespace)
        .collect()
}

#[test]
fn the_unit_is_hard_and_says_why_it_is_not_harder() -> Result<()> {
    let place = Place::new()?;
    let (path, text) = unit(place.path(), place.program())?;
    let analyze = |args: &[&str], path: &Path| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).arg(path).env("SYSTEMD_PAGER", "cat");
        said(command)
    };
    let verified = analyze(&["verify", "--man=no"], &path)?;
    let about = verified.err.lines().filter(|l| l.contains("toolwarden")).collect::<Vec<_>>();
    ensure!(verified.code == 0 && about.is_empty(), "{about:?}");
    let hard = ["security", "--offline=true", "--threshold=40"];
    let rated = analyze(&hard, &path)?;
    let sum = rated.out.lines().last().unwrap_or_default().to_owned();
    println!("{sum}");
    ensure!(rated.code == 0, "{}", rated.out);
    // Control: without its hardening, the same unit is refused.
    let soft = place.path().join("soft.service");
    let kept =
        |l: &&str| !l.starts_with("Protect") && !l.starts_with("Capability") && !l.starts_with("SystemCall");
    fs::write(&soft, text.lines().filter(kept).collect::<Vec<_>>().join("\n"))?;
    ensure!(analyze(&hard, &soft)?.code != 0, "any unit passes");

    let docs = fs::read_to_string(workspace().join("docs/service.md"))?;
    let all = capabilities(&text);
    ensure!(all.len() > 5, "{all:?}");
    for capability in all {
        let in_unit = text.lines().any(|l| l.starts_with("#   ") && l.contains(capability));
        let in_docs =
            docs.lines().any(|l| l.starts_with("| `CAP_") && l.contains(&format!("`{capability}`")));
        ensure!(in_unit && in_docs, "{capability} has no reason in the unit or in docs/service.md");
    }
    Ok(())
}

/// The words that give a program these capabilities and no others.
fn bounded(capabilities: &[&str]) -> Vec<String> {
    let short = |c: &&str| format!("+{}", c.trim_start_matches("CAP_").to_lowercase());
    let set = std::iter::once("-all".to_owned()).chain(capabilities.iter().map(short)).collect::<Vec<_>>();
    ["setpriv", "--bounding-set", &set.join(","), "--inh-caps", "-all", "--no-new-privs"]
        .map(str::to_owned)
        .to_vec()
}

/// The agent does all of its work (but pin into a bpffs that it would have to mount itself) with what the unit leaves it: it sees, tells, stops a server, lets it go, and has
/// others do what faces the outside. E2E_WITHOUT takes one more capability away, to see what it is for.
#[test]
fn its_capabilities_are_enough() -> Result<()> {
    let (world, place) = (World::new()?, Place::new()?);
    place.rule("deny.yaml", DENY)?;
    let text = fs::read_to_string(workspace().join("packaging/toolwarden.service"))?;
    let without = std::env::var("E2E_WITHOUT").unwrap_or_default();
    let kept: Vec<&str> = capabilities(&text).into_iter().filter(|c| *c != without).collect();
    let under = bounded(&kept);
    let under: Vec<&str> = under.iter().map(String::as_str).collect();

    let mut doctor = Command::new(under[0]);
    doctor.args(&under[1..]).arg(place.program()).args(["doctor", "--format", "json"]);
    let doctor: Value = serde_json::from_slice(&doctor.output()?.stdout)?;
    let checks = doctor["checks"].as_array().cloned().unwrap_or_default();
    // What would be to mount is mounted.
    let needed = |id: &str| id.starts_with("cap-") && id != "cap-sys-admin";
    let bad = |c: &&Value| c["id"].as_str().is_some_and(needed) && c["state"] != "ok";
    let bad: Vec<&Value> = checks.iter().filter(bad).collect();
    println!("of the doctor: {bad:?}");
    ensure!(checks.len() > 5 && (bad.is_empty() || !without.is_empty()), "{bad:?}");

    let address = free(7)?;
    let config =
        format!("[metrics]\nlisten = '{address}'\n[sinks.file]\ntype = 'file'\npath = '@/log/events'\n");
    fs::create_dir(place.path().join("log"))?;
    fs::set_permissions(place.path().join("log"), fs::Permissions::from_mode(0o777))?;
    let mut agent = Running::start(&place, &under, &config, &[])?;
    let status = agent.answers(&place)?;
    let blind = |h: &&Value| h["state"] == "blind";
    let hooks = status["coverage"].as_array().cloned().unwrap_or_default();
    let lacking: Vec<&Value> = hooks.iter().filter(blind).map(|h| &h["hook"]).collect();
    ensure!(lacking.iter().all(|h| **h == "io_uring"), "blind: {lacking:?}");
    let caps = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let effective = caps.lines().find(|l| l.starts_with("CapEff")).context("CapEff")?.to_owned();
    println!("{effective}");

    // A server of another user, in another session.
    let mut oracle = Oracle::start(&world, "service", Manner::default())?;
    oracle.call("open_read")?;
    let pid = oracle.client.pid();
    let name = known(&place, pid)?;
    soon("a finding", || Ok(place.findings()?.into_iter().find(|f| f["kind"] == "rule-hit")))?;
    soon("the finding is in the file", || {
        let text = fs::read_to_string(place.path().join("log/events")).unwrap_or_default();
        Ok(text.contains("no-reading").then_some(()))
    })?;
    let groups = || fs::read_to_string(format!("/proc/{pid}/cgroup"));
    let before = groups()?;
    for verb in ["freeze", "throttle", "release", "kill"] {
        let done = place.person(&["respond", verb, &name])?;
        ensure!(done.code == 0, "{verb}: {}{}", done.out, done.err);
        if verb == "release" {
            ensure!(groups()? == before, "it was in {before}, and is in {}", groups()?);
        }
    }
    ensure!(get(address, "/metrics")?.0 == 200, "no metrics");
    ensure!(agent.stop()? == 0, "{}", agent.errors());
    println!("{}", agent.errors());
    Ok(())
}

/// Name of a server, when it is known who it is. A program that was not optimised takes its time to read a large one.
fn known(place: &Place, pid: u32) -> Result<String> {
    let end = Instant::now() + patient(30 * SECOND);
    loop {
        let all = place.ask(&["servers", "--format", "json"])?.json()?;
        let found =
            all.as_array().and_then(|a| a.iter().find(|s| s["pid"] == pid)).cloned().unwrap_or_default();
        if let (Some(name), true) =
            (found["name"].as_str(), found["identity"].as_str().is_some_and(|i| !i.is_empty()))
        {
            return Ok(name.to_owned());
        }
        ensure!(Instant::now() < end, "who is {pid}? {found}");
        thread::sleep(Duration::from_millis(100));
    }
}
