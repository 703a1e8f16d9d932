//! A tracked tree opens and connects as fast as it can: nothing vanishes without being counted.

use std::{
    collections::HashSet,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::{self, Agent},
    client::{Client, Manner},
    scenario::program,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The little that is needed of an effect line.
#[derive(Deserialize)]
struct Line {
    process: Process,
    effect: Effect,
    count: u64,
    repeat: bool,
}

#[derive(Deserialize)]
struct Process {
    pid: u32,
}

#[derive(Deserialize)]
struct Effect {
    kind: String,
}

/// Sums by pid.
#[derive(Default)]
struct Sums {
    seen: [u64; 2],
    aggregated: [u64; 2],
    lines: u64,
    by_pid: std::collections::HashMap<u32, [u64; 4]>,
}

impl Sums {
    fn add(&mut self, text: &str) {
        self.lines += 1;
        let Ok(line) = serde_json::from_str::<Line>(text) else {
            return;
        };
        let n = match line.effect.kind.as_str() {
            "open" => 0,
            "net" => 1,
            _ => return,
        };
        let sums = self.by_pid.entry(line.process.pid).or_default();
        sums[n + if line.repeat { 2 } else { 0 }] += line.count;
    }

    fn pick(&mut self, pids: &HashSet<u32>) {
        for (_, s) in self.by_pid.iter().filter(|(pid, _)| pids.contains(pid)) {
            for n in 0..2 {
                self.seen[n] += s[n];
                self.aggregated[n] += s[n + 2];
            }
        }
    }
}

fn seconds() -> u64 {
    let set = std::env::var("E2E_FLOOD_SECONDS").ok();
    set.and_then(|s| s.parse().ok()).unwrap_or(30)
}

#[test]
fn flood() -> Result<()> {
    let sums: Arc<Mutex<Sums>> = Arc::default();
    let adding = Arc::clone(&sums);
    let agent = Agent::start_with(&[], move |text| {
        if !text.contains(r#""type":"effect""#) {
            return true;
        }
        adding.lock().unwrap_or_else(PoisonError::into_inner).add(text);
        false
    })?;
    agent::warm()?;
    let dir = tempfile::tempdir()?;
    // Made here, so that the tree does nothing but flood.
    for n in 0..4096 {
        std::fs::write(dir.path().join(format!("f{n}")), b"")?;
    }
    let mut client = Client::start(Command::new(program("flooder")?), Manner::default())?;
    // Lines of a server that is not announced yet are held, few of them: that is another test's.
    agent.server(client.pid())?;
    let arguments = json!({"seconds": seconds(), "workers": 2, "dir": dir.path()});
    let (id, line) = client.compose("flood", &arguments);
    let before: Vec<_> = agent.lost()?;
    client.send(&line)?;
    client.patience = Duration::from_millis(50);
    let end = Instant::now() + Duration::from_secs(seconds() + 60);
    let mut peak = 0;
    let reply = loop {
        peak = peak.max(agent.rss()?);
        if let Ok(reply) = client.wait(&id) {
            break reply;
        }
        ensure!(Instant::now() < end, "the flood does not end");
    };
    ensure!(reply.is_ok(), "{:?}", reply.body);
    // Everything is drained when nothing more is printed and no loss is added.
    let mut last = (0, 0);
    let settled = Instant::now() + Duration::from_secs(60);
    loop {
        std::thread::sleep(Duration::from_secs(6));
        peak = peak.max(agent.rss()?);
        let lines = sums.lock().unwrap_or_else(PoisonError::into_inner).lines;
        let now = (lines, agent.lost()?.len());
        if now == last {
            break;
        }
        last = now;
        ensure!(Instant::now() < settled, "the agent does not come to rest");
    }
    let done: Value = serde_json::from_str(reply.text()).context("the flooder's sums")?;
    let pids = done["pids"].as_array().context("pids")?;
    let pids: HashSet<u32> = pids.iter().filter_map(|p| Some(p.as_u64()? as u32)).collect();
    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
    sums.pick(&pids);
    let lost = agent.lost()?;
    for line in &lost {
        println!("lost line: {} +{} = {}", line.cause, line.count, line.total);
    }
    println!("{} effect lines, peak RSS {:.1} MB", sums.lines, peak as f64 / 1e6);
    let mut wrong = Vec::new();
    for (n, (name, cause)) in [("opens", "ring:open"), ("connects", "ring:net")].iter().enumerate() {
        let sum = |lines: &[engine::output::LostLine]| -> u64 {
            lines.iter().filter(|l| l.cause == *cause).map(|l| l.count).sum()
        };
        let lost = sum(&lost) - sum(&before);
        let did = done[name].as_u64().context("a count")?;
        let (seen, aggregated) = (sums.seen[n], sums.aggregated[n]);
        println!(
            "{name}: done {did}, seen {seen} + aggregated {aggregated} + lost {lost} = {} \
             ({:.0}/s)",
            seen + aggregated + lost,
            did as f64 / seconds() as f64
        );
        ensure!(did > 10_000, "that was no flood");
        if seen + aggregated + lost != did {
            wrong.push(name);
        }
    }
    ensure!(wrong.is_empty(), "the sums do not add up: {wrong:?}");
    ensure!(peak < 64 << 20, "peak RSS {peak}");
    Ok(())
}
