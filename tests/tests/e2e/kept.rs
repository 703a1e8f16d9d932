//! What was learned outlives the agent, can be compared, and is forgotten only when a person says so.

use std::thread;

use anyhow::{Context as _, Result, ensure};
use e2e::{client::Manner, pace::patient_ms, scenario::Oracle, world::World};
use serde_json::Value;

use super::place::{Place, SECOND, soon};

const TOOLS: [&str; 4] = ["open_read", "open_write", "child_open", "exec"];

/// A session in which each tool is called five times.
fn session(world: &World, name: &str, tools: &[&str]) -> Result<()> {
    let mut oracle = Oracle::start(world, name, Manner::default())?;
    for tool in tools.iter().cycle().take(tools.len() * 5) {
        oracle.call(tool)?;
        thread::sleep(patient_ms(25));
    }
    Ok(())
}

/// What a baseline knows.
fn known(place: &Place, identity: &str) -> Result<Value> {
    place.ask(&["baseline", "show", identity, "--format", "json"])?.json()
}

fn summaries(place: &Place) -> Result<Vec<Value>> {
    let all = place.ask(&["baseline", "list", "--format", "json"])?.json()?;
    Ok(all.as_array().cloned().unwrap_or_default())
}

fn number(summary: &Value, field: &str) -> u64 {
    summary[field].as_u64().unwrap_or_default()
}

#[test]
fn learning_is_kept_compared_and_forgotten() -> Result<()> {
    let (world, place) = (World::new()?, Place::new()?);
    let mut agent = place.start()?;
    session(&world, "kept", &TOOLS)?;
    // A session is learned when its last process has ended and its last counts are in.
    let learned = |calls: u64| {
        let all = summaries(&place)?;
        let found = all.into_iter().find(|b| number(b, "calls") >= calls && number(b, "sessions") >= 1);
        anyhow::Ok(found)
    };
    agent.rest();
    let summary = soon("the session is learned", || learned(20))?;
    let identity = summary["identity"].as_str().context("identity")?.to_owned();
    ensure!(number(&summary, "members") > 10 && summary["state"] == "learning", "{summary}");
    ensure!(number(&summary, "needs_sessions") > 0, "{summary}");
    let before = known(&place, &identity)?;

    // Over a clean stop, and over a kill once it was saved.
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.errors());
    let mut agent = place.start()?;
    ensure!(known(&place, &identity)? == before, "{}", known(&place, &identity)?);
    agent.stop(libc::SIGKILL)?;
    let mut agent = place.start()?;
    ensure!(known(&place, &identity)? == before, "{}", known(&place, &identity)?);

    // A second session adds to it; the same does not differ from itself.
    session(&world, "kept", &["open_read"])?;
    agent.rest();
    soon("the second session is learned", || {
        Ok(summaries(&place)?.into_iter().find(|b| b["identity"] == identity && number(b, "sessions") == 2))
    })?;
    let same = place.ask(&["baseline", "diff", &identity, &identity])?;
    ensure!(same.code == 0 && same.out.contains("no difference"), "{}{}", same.out, same.err);

    // Forgotten when root says so, at once and for good.
    place.person(&["baseline", "reset", &identity])?.good()?;
    let forgotten = |place: &Place| -> Result<bool> {
        Ok(summaries(place)?.iter().all(|b| b["identity"] != identity || number(b, "members") == 0))
    };
    ensure!(forgotten(&place)?, "{:?}", summaries(&place)?);
    agent.stop(libc::SIGKILL)?;
    let _agent = place.start()?;
    ensure!(forgotten(&place)?, "{:?}", summaries(&place)?);
    Ok(())
}

#[test]
fn old_findings_are_purged_when_root_says_so() -> Result<()> {
    let (world, place) = (World::new()?, Place::new()?);
    let _agent = place.start()?;
    session(&world, "purged", &["open_read"])?;
    soon("a finding is stored", || Ok(place.findings()?.first().cloned()))?;
    thread::sleep(SECOND);
    // What is younger stays.
    place.person(&["purge", "--before-days", "1"])?.good()?;
    ensure!(!place.findings()?.is_empty(), "a finding of today is gone");
    place.person(&["purge", "--before-days", "0"])?.good()?;
    ensure!(place.findings()?.is_empty(), "{:?}", place.findings()?);
    Ok(())
}
