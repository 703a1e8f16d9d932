//! The agent is killed again and again, at any moment of its life, while servers attack and work: nothing is let through, nobody stays
//! frozen, and a clean stop leaves nothing behind. `E2E_KILLS` says how often; `cargo xtask soak` has it done 50 times.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use e2e::{pace::patient_ms, sys};
use serde_json::json;

use super::{
    outlive::{ALLOWED, Load, OTHER, Site, gone, server},
    place::SECOND,
};

const KILLS: u64 = 10;

/// The same numbers each time.
fn random(n: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    for _ in 0..3 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    x
}

/// Cgroups of ours that hold something of a process.
fn placed(pid: u32) -> Result<bool> {
    Ok(fs::read_to_string(format!("/proc/{pid}/cgroup"))?.contains("/toolwarden/"))
}

#[test]
fn killed_again_and_again() -> Result<()> {
    let kills = std::env::var("E2E_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let site = Site::new()?;
    let mut first = site.start(&[])?;
    let (attacker, worker, frozen) = (server()?, server()?, server()?);
    let pid = frozen.pid();
    first.server(attacker.pid())?;
    first.server(worker.pid())?;
    let id = first.server(pid)?.server.id.clone();
    let map = site.map()?;
    let attack = Load::start(attacker, "net", site.act(OTHER));
    let work = Load::start(worker, "net", site.act(ALLOWED));
    let sleeper = Load::start(frozen, "other", json!({"do": "sleep", "ms": 1}));
    let (mut frozen_times, mut freezes) = (0, Vec::new());
    site.place.person(&["respond", "freeze", &id, "--for", "2s"])?.good()?;
    ensure!(placed(pid)?, "it is not frozen");
    first.stop(libc::SIGKILL)?;
    for n in 0..kills {
        let mut agent = site.launch()?;
        // From its first instruction to well after it has taken over.
        let lives = patient_ms(random(n) % 2500);
        thread::sleep(lives);
        if n % 3 == 2 {
            // It may not answer yet, or not know this server yet.
            let said = site.place.person(&["respond", "freeze", &id, "--for", "2s"])?;
            frozen_times += u64::from(said.code == 0);
            freezes.push(said.code);
        }
        sys::kill(agent.id(), libc::SIGKILL)?;
        agent.wait()?;
        ensure!(
            site.other.taken() == 0,
            "after kill {n}, {lives:?} after its start: another host was reached"
        );
    }
    // Time for the watchdog, without an agent.
    let end = Instant::now() + patient_ms(6000);
    while placed(pid)? && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    ensure!(!placed(pid)?, "it is still in a cgroup of ours, and perhaps frozen");
    let (_frozen, awake) = sleeper.end()?;
    let (_attacker, tried) = attack.end()?;
    let (_worker, done) = work.end()?;
    let denied = done.iter().filter(|said| *said != "ok").count();
    println!(
        "{kills} kills: {} attacks, {} let through; {} permitted acts, {denied} denied; frozen {frozen_times} times more {freezes:?}, \
         awake for {} calls",
        tried.len(),
        tried.iter().filter(|said| *said == "ok").count(),
        done.len(),
        awake.len()
    );
    ensure!(tried.len() > 100 && tried.iter().all(|said| said == "EPERM"), "an attack was not denied");
    ensure!(site.other.taken() == 0, "another host was reached");
    ensure!(
        done.len() > 100 && denied * 100 <= done.len(),
        "{denied} of {} permitted acts were denied",
        done.len()
    );
    let mut last = site.start(&[])?;
    thread::sleep(SECOND);
    ensure!(last.stop(libc::SIGTERM)?.success(), "{}", last.errors());
    gone(&site, map)?;
    let records = site.place.path().join("state/contain");
    let left = fs::read_dir(&records).into_iter().flatten().flatten().map(|e| e.path());
    let left: Vec<_> = left.filter(|p| p.extension() == Some(Path::new("json").as_os_str())).collect();
    ensure!(left.is_empty(), "records of containment are left: {left:?}");
    Ok(())
}
