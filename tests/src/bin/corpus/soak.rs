//! Sessions for as long as asked, under one agent that is killed now and then and goes on where it was.
//! `cargo xtask soak` runs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::{self, Agent},
    corpus::Part,
    sys,
};
use engine::output::Line;
use serde_json::Value;

use crate::{rng::Rng, servers, session};

/// Calls of a session, about.
const SESSION: u64 = 60;
/// Sessions between two kills.
const KILL: u64 = 25;
/// What the agent may hold, bytes.
const MEMORY: u64 = 150 << 20;
/// How often it says how far it is.
const TELL: Duration = Duration::from_secs(30);

/// What was seen.
#[derive(Default)]
struct Seen {
    sessions: u64,
    calls: u64,
    kills: u64,
    /// Resident sets in bytes, in order.
    rss: Vec<u64>,
    /// Findings of the second half by kind, and the calls made in it.
    findings: BTreeMap<String, u64>,
    later_calls: u64,
    lost: BTreeMap<String, u64>,
    /// What must not be.
    faults: Vec<String>,
}

struct Soak {
    dir: PathBuf,
    agent: Agent,
    seen: Seen,
    /// Findings that the store had when it was last asked.
    stored: BTreeSet<String>,
    /// When the second half begins, ns since boot.
    half_ns: u64,
}

/// Runs for `minutes`.
pub(crate) fn run(minutes: u64) -> Result<()> {
    let dir = PathBuf::from("/srv/corpus/soak");
    fs::create_dir_all(&dir)?;
    let (began, length) = (Instant::now(), Duration::from_secs(minutes * 60));
    let half_ns = sys::boot_ns() + length.as_nanos() as u64 / 2;
    let mut soak = Soak { agent: start(&dir)?, dir, seen: Seen::default(), stored: BTreeSet::new(), half_ns };
    let servers = servers::all();
    let mut told = Instant::now();
    for number in 0.. {
        for server in &servers {
            if began.elapsed() > length {
                return soak.finish();
            }
            let mut rng = Rng::new(&["soak", server.name, &number.to_string()]);
            let calls = SESSION / 2 + rng.below(SESSION);
            thread::scope(|scope| {
                let session = scope.spawn(|| session::benign(server, Part::HeldOut, number, calls));
                if soak.seen.sessions % KILL == KILL - 1 {
                    thread::sleep(Duration::from_millis(rng.below(1500)));
                    soak.kill()?;
                }
                let done = session.join().map_err(|_panic| anyhow::anyhow!("a session panicked"))?;
                soak.session(done?.values().sum())
            })
            .with_context(|| format!("session {number} of {}", server.name))?;
            if told.elapsed() > TELL {
                told = Instant::now();
                soak.tell(began.elapsed());
            }
        }
    }
    Ok(())
}

fn start(dir: &Path) -> Result<Agent> {
    Agent::start_in_with(dir, &[], |text| {
        ["\"coverage\"", "\"finding\"", "\"lost\""].iter().any(|kind| text.contains(kind))
    })
}

impl Soak {
    fn session(&mut self, calls: u64) -> Result<()> {
        let seen = &mut self.seen;
        seen.sessions += 1;
        seen.calls += calls;
        if sys::boot_ns() >= self.half_ns {
            seen.later_calls += calls;
        }
        let rss = self.agent.rss().context("the agent ended by itself")?;
        seen.rss.push(rss);
        if rss > MEMORY {
            seen.faults.push(format!("{} MB resident after {} sessions", rss >> 20, seen.sessions));
        }
        Ok(())
    }

    /// Takes in what this agent printed; it is about to go.
    fn collect(&mut self) -> Result<()> {
        let mut lost = BTreeMap::new();
        for printed in self.agent.lines()? {
            match printed.line {
                Line::Finding(f) if f.time.boot_ns >= self.half_ns && f.revision == 1 => {
                    *self.seen.findings.entry(f.kind.id().to_owned()).or_default() += 1;
                }
                Line::Lost(l) => {
                    lost.insert(l.cause, l.total);
                }
                _ => {}
            }
        }
        for (cause, total) in lost {
            *self.seen.lost.entry(cause).or_default() += total;
        }
        Ok(())
    }

    /// Ids of stored findings.
    fn findings(&self) -> Result<BTreeSet<String>> {
        let mut verb = Command::new(agent::executable()?);
        verb.args(["findings", "list", "--all", "--format", "json", "--control"]);
        let done = verb.arg(self.dir.join("control.sock")).output()?;
        ensure!(done.status.success(), "findings list: {}", String::from_utf8_lossy(&done.stderr));
        let all: Vec<Value> = serde_json::from_slice(&done.stdout)?;
        Ok(all.iter().filter_map(|f| Some(f["id"].as_str()?.to_owned())).collect())
    }

    /// What the store told of must be there after a kill.
    fn kill(&mut self) -> Result<()> {
        self.stored.extend(self.findings()?);
        self.collect()?;
        self.agent.stop(libc::SIGKILL)?;
        self.agent = start(&self.dir)?;
        self.seen.kills += 1;
        let now = self.findings()?;
        let missing: Vec<_> = self.stored.difference(&now).collect();
        if !missing.is_empty() {
            self.seen.faults.push(format!("findings lost by kill {}: {missing:?}", self.seen.kills));
        }
        Ok(())
    }

    fn tell(&self, since: Duration) {
        let s = &self.seen;
        let rss = s.rss.last().copied().unwrap_or_default() >> 20;
        println!(
            "soak: {} min: {} sessions, {} calls, {} kills, {rss} MB, {} findings stored",
            since.as_secs() / 60,
            s.sessions,
            s.calls,
            s.kills,
            self.stored.len()
        );
    }

    fn finish(mut self) -> Result<()> {
        self.collect()?;
        let damaged = fs::read_dir(self.dir.join("state"))?
            .filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()))
            .filter(|name| name.contains("damaged"));
        self.seen.faults.extend(damaged.map(|name| format!("the database was moved aside: {name}")));
        let status = self.agent.stop(libc::SIGINT)?;
        if !status.success() {
            self.seen.faults.push(format!("the agent: {status}: {}", self.agent.errors()));
        }
        let s = &self.seen;
        let mb = |n: Option<&u64>| n.copied().unwrap_or_default() >> 20;
        println!("soak: {} sessions, {} calls, {} kills", s.sessions, s.calls, s.kills);
        println!(
            "soak: resident: {} MB first, {} MB at most, {} MB last",
            mb(s.rss.first()),
            mb(s.rss.iter().max()),
            mb(s.rss.last())
        );
        println!("soak: findings in the second half ({} calls): {:?}", s.later_calls, s.findings);
        println!("soak: lost: {:?}", s.lost);
        ensure!(s.faults.is_empty(), "{}", s.faults.join("\n"));
        Ok(())
    }
}
