//! A wall clock that is set far ahead, far back, and right again, also between two starts of the agent: nothing is too old because
//! of it, and nothing is lost or out of order.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Result, ensure};
use e2e::sys;

use super::{
    place::{Place, soon},
    sinks::{DENY, configured, drained, events, files, findings, reader, state, whole},
};

const YEAR_NS: i64 = 365 * 86_400 * 1_000_000_000;
/// Calls of a round, each of another tool: each makes a finding.
const FEW: usize = 8;

/// The wall clock, which is right again when this is dropped.
struct Wall {
    /// Of the right time, ns after the machine's start.
    right: i64,
}

impl Wall {
    /// Nothing unless this machine is a guest of the tests: another one's clock is not for a test to set.
    fn ours() -> Option<Self> {
        if std::env::var_os("E2E_GUEST").is_none() {
            println!(
                "not tested here: the clock of this machine is others', too; `cargo xtask vm -- clock::`"
            );
            return None;
        }
        Some(Self { right: sys::wall_ns() - sys::boot_ns() as i64 })
    }

    /// So much later than it is.
    fn set(&self, ahead: i64) -> Result<()> {
        Ok(sys::set_wall_ns(self.right + sys::boot_ns() as i64 + ahead)?)
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        if let Err(e) = self.set(0) {
            eprintln!("the clock stays wrong: {e}");
        }
    }
}

#[test]
fn the_clock_jumps_and_nothing_is_lost() -> Result<()> {
    let Some(wall) = Wall::ours() else { return Ok(()) };
    let place = Place::new()?;
    place.rule("deny.yaml", DENY)?;
    // Not a directory, until the end: all waits for it.
    let blocked = place.path().join("late");
    fs::write(&blocked, "")?;
    let sinks =
        "[sinks.all]\ntype = 'file'\npath = '@/log/all'\n[sinks.late]\ntype = 'file'\npath = '@/late/all'\n";
    let config = configured(&place, sinks)?;
    let mut agent = place.start_with(&["--config", &config])?;
    let mut server = reader(&place)?;
    files(&place)?;
    let mut found = 0;
    for (round, ahead) in [0, 10 * YEAR_NS, -15 * YEAR_NS, 0].into_iter().enumerate() {
        wall.set(ahead)?;
        for n in 0..FEW {
            let file = serde_json::json!({"file": format!("n{n}")});
            server.call(&format!("read_{round}_{n}"), &file)?;
        }
        let hits = soon("they are stored, and those of before still are", || {
            let hits: Vec<_> = findings(&place)?.into_iter().filter(|f| f["kind"] == "rule-hit").collect();
            Ok(Some(hits).filter(|hits| hits.len() >= found + FEW))
        })?;
        found = hits.len();
        // An agent that has just started may name it as one of several calls.
        let newest = hits.first().map(|f| f["scope"].to_string()).unwrap_or_default();
        ensure!(newest.contains(&format!("read_{round}_")), "round {round}: the latest is of {newest}");
        // A machine that starts with a wrong clock.
        agent.stop(libc::SIGTERM)?;
        agent = place.start_with(&["--config", &config])?;
        drained(&place, "all")?;
    }
    let waiting = state(&place, "late")?;
    ensure!(waiting["waiting"].as_u64() >= Some(found as u64) && waiting["dropped"] == 0, "{waiting}");
    fs::remove_file(&blocked)?;
    fs::create_dir(&blocked)?;
    // For the process of the sinks, which is nobody's.
    fs::set_permissions(&blocked, fs::Permissions::from_mode(0o777))?;
    drained(&place, "late")?;
    drained(&place, "all")?;
    let (all, late) = (events(&place.path().join("log/all"))?, events(&blocked.join("all"))?);
    ensure!(whole(&all)? >= found as u64 && whole(&late)? >= found as u64, "{found} findings");
    let uids = |events: &[serde_json::Value]| -> Vec<String> {
        events.iter().map(|e| e["event"]["uid"].to_string()).collect()
    };
    let (all, late) = (uids(&all), uids(&late));
    let lacking: Vec<_> = all.iter().filter(|uid| !late.contains(uid)).collect();
    ensure!(lacking.is_empty(), "the sink that was dead lacks {} of {}", lacking.len(), all.len());
    Ok(())
}
