//! A thousand findings a second into three sinks, one of them dead: what it costs, and how late the others are. `E2E_SECONDS` says for how
//! long (3). Each is of a cause of its own: the same cause again is counted, not told.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use e2e::{
    client::{Client, Manner},
    pace::patient,
    scenario::program,
};
use serde_json::{Value, json};

use super::{
    place::{Place, SECOND},
    receivers::faults::{Do, Server},
    sinks::{configured, drained, state},
    story::known,
};

/// Findings a second.
const RATE: usize = 1000;
/// Calls between two looks at the clock.
const STEP: usize = 20;

const DENY: &str = "rules:
  - id: none-of-it
    severity: medium
    deny:
      files:
        write: ['**/load-made/**']
";
const SINKS: &str = "[sinks.file]
type = 'file'
path = '@/log/events'
max_bytes = '1GiB'
types = ['finding']
[sinks.hook]
type = 'webhook'
url = 'http://127.75.0.1:8075/'
types = ['finding']
[sinks.dead]
type = 'webhook'
url = 'http://127.75.0.1:9/'
types = ['finding']
";

/// How late each event was, in ms.
type Delays = Arc<Mutex<Vec<f64>>>;

fn utc_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3
}

/// From when it was durable until now.
fn note(delays: &Delays, line: &str) {
    let stored = serde_json::from_str::<Value>(line).ok().and_then(|event| {
        let stored: jiff::Timestamp = event["event"]["stored"].as_str()?.parse().ok()?;
        Some(stored.as_nanosecond() as f64 / 1e6)
    });
    let late = utc_ms() - stored.unwrap_or(0.0);
    delays.lock().unwrap_or_else(PoisonError::into_inner).push(late);
}

/// Follows a file as it grows.
fn follow(path: PathBuf, delays: Delays, stop: Arc<AtomicBool>) {
    thread::spawn(move || {
        let mut file = loop {
            match File::open(&path) {
                Ok(file) => break BufReader::new(file),
                Err(_) if stop.load(Relaxed) => return,
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        let mut line = String::new();
        while !stop.load(Relaxed) {
            match file.read_line(&mut line) {
                Ok(n) if n > 0 && line.ends_with('\n') => {
                    note(&delays, line.trim_end());
                    line.clear();
                }
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
    });
}

/// CPU seconds of a process.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // USER_HZ is 100 on x86.
    Ok((ticks(11) + ticks(12)) / 100.0)
}

fn worst(delays: &Delays) -> (usize, f64, f64) {
    let mut all = delays.lock().unwrap_or_else(PoisonError::into_inner).clone();
    all.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| all.get((all.len() as f64 * share) as usize).or(all.last()).copied().unwrap_or(0.0);
    (all.len(), at(0.5), at(1.0))
}

#[test]
fn a_thousand_findings_a_second_reach_the_sinks_that_live() -> Result<()> {
    let seconds: usize = std::env::var("E2E_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    let place = Place::new()?;
    place.rule("deny.yaml", DENY)?;
    let log = place.path().join("log");
    fs::create_dir(&log)?;
    fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let made = place.path().join("load-made");
    fs::create_dir(&made)?;
    let (by_file, by_hook, stop) = (Delays::default(), Delays::default(), Arc::<AtomicBool>::default());
    let hooked = Arc::clone(&by_hook);
    let _hook = Server::start("127.75.0.1:8075", move |_, request| {
        String::from_utf8_lossy(&request.body).lines().for_each(|line| note(&hooked, line));
        Do::Take
    })?;
    follow(log.join("events"), Arc::clone(&by_file), Arc::clone(&stop));
    let config = configured(&place, SINKS)?;
    let agent = place.start_with(&["--config", &config])?;
    let mut client = Client::start(Command::new(program("contained")?), Manner::default())?;
    known(&place, client.pid())?;
    let cpu_before = cpu_seconds(agent.pid())?;
    let (began, mut most) = (Instant::now(), 0);
    let calls = seconds * RATE;
    for n in 0..calls {
        // Of another tool each, so that each is another finding.
        let act = json!({"do": "create", "dir": made, "first": n, "count": 1});
        let (_, reply) = client.call(&format!("work-{n}"), &json!({"acts": [act]}))?;
        ensure!(reply.is_ok(), "{reply:?}");
        if n % STEP == STEP - 1 {
            most = most.max(agent.rss()?);
            let due = began + Duration::from_millis((1000 * (n + 1) / RATE) as u64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    let took = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds(agent.pid())?;
    drained(&place, "file")?;
    drained(&place, "hook")?;
    thread::sleep(Duration::from_millis(100));
    stop.store(true, Relaxed);
    let dead = state(&place, "dead")?;
    ensure!(dead["state"] == "failing" && dead["waiting"].as_u64() > Some(0), "{dead}");
    let status = place.ask(&["status", "--format", "json"])?.json()?;
    println!(
        "{} findings in {took:.1} s: agent {:.0} % of a CPU, at most {} MiB; lost {}",
        calls,
        (cpu - cpu_before) / took * 100.0,
        most >> 20,
        status["lost"]
    );
    for (name, delays) in [("file", &by_file), ("hook", &by_hook)] {
        let (count, median, max) = worst(delays);
        println!("{name}: {count} events, {median:.0} ms late at the median, {max:.0} ms at most");
        ensure!(count >= calls, "{name} got {count} of {calls} findings");
        ensure!(max < patient(SECOND).as_secs_f64() * 1e3, "{name}: {max} ms late");
    }
    // No bound of time, but of room: a queue that grows would show.
    ensure!(most < 512 << 20, "{most} bytes");
    Ok(())
}
