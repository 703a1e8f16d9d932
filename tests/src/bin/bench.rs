//! What the agent costs, as ratios measured side by side in one run.
//!
//! Each round measures the same loops without an agent, with an idle one (no server tracked), and
//! with one that tracks a server; the smallest time of all rounds counts, so that other load on the
//! machine disturbs little. Ratios are to the bare loop of the same run.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    scenario::Oracle,
    world::World,
};
use engine::{Engine, recording::Reader};
use hdrhistogram::Histogram;
use serde_json::json;

const ROUNDS: usize = 8;
const CALLS: usize = 500;
const WARM_UP: usize = 200;

/// A loop in this process, which is not tracked.
struct Loop {
    name: &'static str,
    run: fn() -> Result<()>,
}

const LOOPS: [Loop; 3] = [
    Loop { name: "getppid", run: getppid },
    Loop { name: "open+read+close", run: open_read_close },
    Loop { name: "compile", run: compile },
];

fn getppid() -> Result<()> {
    for _ in 0..400_000 {
        // SAFETY: no arguments.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
    Ok(())
}

fn open_read_close() -> Result<()> {
    let mut byte = [0; 64];
    for _ in 0..40_000 {
        let n = File::open("/etc/passwd")?.read(&mut byte)?;
        ensure!(n > 0, "/etc/passwd is empty");
    }
    Ok(())
}

fn compile() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let source = dir.path().join("a.c");
    std::fs::write(&source, "#include <stdio.h>\n#include <stdlib.h>\nint main(){puts(\"x\");return 0;}\n")?;
    for _ in 0..5 {
        let done = Command::new("cc").arg("-o").arg(dir.path().join("a")).arg(&source).status()?;
        ensure!(done.success(), "cc failed");
    }
    Ok(())
}

fn time(run: fn() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed())
}

/// Smallest times of one condition, by loop.
type Times = [Duration; LOOPS.len()];

fn measure(best: &mut Times) -> Result<()> {
    for (l, best) in LOOPS.iter().zip(best) {
        *best = (*best).min(time(l.run)?);
    }
    Ok(())
}

/// A tracked server whose round trips are measured.
#[derive(Clone, Copy)]
enum Server {
    /// npm's filesystem server, reading a small file: what people run.
    Filesystem,
    /// Our oracle, one of whose tools does nothing: the worst case, where all is overhead.
    Oracle,
}

fn round_trips(world: &World, name: &str, server: Server, into: &mut Histogram<u64>) -> Result<()> {
    let file = world.dir().join("bench.txt");
    std::fs::write(&file, "small")?;
    let (mut client, calls) = match server {
        Server::Filesystem => {
            let entry = "target/e2e/npm/node_modules/@modelcontextprotocol/server-filesystem/dist/index.js";
            let mut command = Command::new("node");
            command.arg(e2e::workspace().join(entry)).arg(world.dir()).stderr(Stdio::null());
            (Client::start(command, Manner::default())?, vec![("read_text_file", json!({ "path": file }))])
        }
        Server::Oracle => {
            let oracle = Oracle::start(world, name, Manner::default())?;
            (oracle.client, vec![("echo", json!({})), ("open_read", json!({}))])
        }
    };
    for i in 0..CALLS + WARM_UP {
        let (tool, arguments) = &calls[i % calls.len()];
        let start = Instant::now();
        client.call(tool, arguments)?;
        if i >= WARM_UP {
            into.record(start.elapsed().as_nanos() as u64)?;
        }
    }
    Ok(())
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

fn main() -> Result<()> {
    let world = World::new()?;
    let max = [Duration::MAX; LOOPS.len()];
    let (mut bare, mut idle, mut tracking) = (max, max, max);
    let fresh = || Histogram::<u64>::new(3);
    let mut trips = [
        ("npm filesystem", Server::Filesystem, fresh()?, fresh()?),
        ("oracle", Server::Oracle, fresh()?, fresh()?),
    ];
    let recording = world.dir().join("bench.twrec");
    let file = recording.to_str().context("a plain path")?;
    for round in 1..=ROUNDS {
        eprintln!("[{round}/{ROUNDS}] bare, idle, tracking");
        measure(&mut bare)?;
        for (_, server, without, _) in &mut trips {
            round_trips(&world, &format!("bare{round}"), *server, without)?;
        }
        let watching = Watching::start(world.dir())?;
        measure(&mut idle)?;
        let mut oracle = Oracle::start(&world, &format!("tracked{round}"), Manner::default())?;
        oracle.call("open_read")?;
        measure(&mut tracking)?;
        drop(oracle);
        for (_, server, _, with) in &mut trips {
            round_trips(&world, &format!("with{round}"), *server, with)?;
        }
        watching.stop()?;
    }
    record(&world, file)?;
    println!("\nuntracked process            bare       idle agent        tracking a server");
    for (i, l) in LOOPS.iter().enumerate() {
        println!(
            "  {:<20} {:>10.1?}    {:>10.1?} {:.3}x   {:>10.1?} {:.3}x",
            l.name,
            bare[i],
            idle[i],
            ratio(idle[i], bare[i]),
            tracking[i],
            ratio(tracking[i], bare[i]),
        );
    }
    println!("\ntracked server, tools/call round trip, back to back");
    for (name, _, without, with) in &trips {
        for (label, q) in [("p50", 0.5), ("p99", 0.99)] {
            let (a, b) = (without.value_at_quantile(q) as f64, with.value_at_quantile(q) as f64);
            println!(
                "  {name:<15} {label}  {:>8.1} us bare  {:>8.1} us watched  {:.3}x",
                a / 1e3,
                b / 1e3,
                b / a
            );
        }
    }
    replay(&std::fs::read(&recording)?)
}

/// An agent as it runs in service: its output costs nobody here anything.
struct Watching(std::process::Child);

impl Watching {
    fn start(state: &Path) -> Result<Self> {
        let child = Command::new(e2e::agent::executable()?)
            .args(["run", "--no-control", "--print", "json", "--state-dir"])
            .arg(state)
            .arg("--guard")
            .arg(state.join("agent.lock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start toolwarden")?;
        // It attaches in a third of a second.
        std::thread::sleep(Duration::from_secs(1));
        Ok(Self(child))
    }

    fn stop(mut self) -> Result<()> {
        // SAFETY: a child of ours that has not been waited for.
        ensure!(unsafe { libc::kill(self.0.id() as i32, libc::SIGINT) } == 0, "the agent is gone");
        ensure!(self.0.wait()?.success(), "the agent failed");
        Ok(())
    }
}

/// Records both servers at work.
fn record(world: &World, file: &str) -> Result<()> {
    let mut agent = Agent::start(&["--record", file])?;
    let mut unused = Histogram::<u64>::new(3)?;
    for server in [Server::Filesystem, Server::Oracle] {
        round_trips(world, "recorded", server, &mut unused)?;
    }
    agent.stop(libc::SIGINT)?;
    Ok(())
}

/// Feeds the recording to fresh engines for a while.
fn replay(bytes: &[u8]) -> Result<()> {
    let (mut events, mut lines) = (0_u64, 0_usize);
    let mut spent = Duration::ZERO;
    while spent < Duration::from_secs(3) {
        let mut engine = Engine::new();
        let mut reader = Reader::new(bytes)?;
        let mut outputs = Vec::new();
        let start = Instant::now();
        while let Some(input) = reader.next()? {
            engine.apply(input, &mut outputs);
            events += 1;
            if outputs.len() > 1024 {
                lines += outputs.len();
                outputs.clear();
            }
        }
        spent += start.elapsed();
        ensure!(events > 0, "an empty recording");
    }
    println!(
        "\nengine replay  {:.2} M inputs/s on one core, {lines} outputs",
        events as f64 / spent.as_secs_f64() / 1e6
    );
    Ok(())
}
