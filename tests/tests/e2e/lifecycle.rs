//! Attached quickly, and gone without a trace.

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    pace::{fewer, patient_ms},
    scenario::{Oracle, program},
    sys,
    world::World,
};
use serde_json::json;

/// What is loaded: programs, maps, links.
fn loaded() -> [BTreeSet<u32>; 3] {
    // BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID, BPF_LINK_GET_NEXT_ID
    [11, 12, 31].map(|command| sys::bpf_ids(command).into_iter().collect())
}

#[test]
fn lifecycle() -> Result<()> {
    let world = World::new()?;
    let before = loaded();
    let mut starts = Vec::new();
    for (n, signal) in
        [libc::SIGINT, libc::SIGTERM, libc::SIGINT, libc::SIGTERM, libc::SIGINT].into_iter().enumerate()
    {
        let mut agent = Agent::start_with(&[], |_| true)?;
        starts.push(agent.attached_in);
        // With a server alive at the end, so that all hooks are attached.
        let mut oracle = Oracle::start(&world, &format!("life{n}"), Manner::default())?;
        oracle.call("open_read")?;
        // On a loaded machine a cold start may miss all messages so far; the next one tells.
        std::thread::sleep(patient_ms(100));
        oracle.call("open_read")?;
        agent.server(oracle.client.pid())?;
        let during = loaded();
        for (what, (old, new)) in ["programs", "maps", "links"].iter().zip(before.iter().zip(&during)) {
            ensure!(new.difference(old).count() > 0, "no {what} are loaded while it runs");
        }
        let asked = Instant::now();
        let status = agent.stop(signal)?;
        ensure!(status.success(), "after signal {signal}: {status}, {}", agent.errors());
        let stopped = asked.elapsed();
        ensure!(stopped < patient_ms(2000), "took {stopped:?} to stop");
        // The kernel frees programs after a grace period.
        let end = Instant::now() + patient_ms(3000);
        loop {
            let after = loaded();
            let left = |n: usize| after[n].difference(&before[n]).count();
            if left(0) + left(1) + left(2) == 0 {
                break;
            }
            ensure!(
                Instant::now() < end,
                "left loaded: {} programs, {} maps, {} links",
                left(0),
                left(1),
                left(2)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        oracle.call("open_read")?;
        println!(
            "start to attached {:?}; signal {signal} to end {stopped:?}; nothing left loaded",
            starts[n]
        );
    }
    // How fast it is depends on the machine, whose verifier does most of the work: it is told. This is far beyond what any had.
    let fastest = starts.iter().min().copied().unwrap_or_default();
    println!("fastest start {fastest:?}");
    ensure!(fastest < patient_ms(3000), "fastest start {fastest:?}");
    Ok(())
}

/// The first server after a quiet time: what was missed while hooks attached is marked.
#[test]
fn cold_start() -> Result<()> {
    for round in 0..fewer(5) {
        let agent = Agent::start_with(&[], |_| true)?;
        // They are attached already if some process of this machine looks like a server.
        let links = sys::bpf_ids(31).len();
        let mut command = Command::new(program("forger")?);
        command.args(["--forge", "proc"]);
        let mut client = Client::start(command, Manner::default())?;
        for _ in 0..20 {
            client.call("ping_tool", &json!({}))?;
            std::thread::sleep(patient_ms(5));
        }
        let cold = sys::bpf_ids(31).len() > links;
        agent.rest();
        let server = agent.server(client.pid())?;
        let seen = agent.observed(&server.server.id)?;
        let missed = 20 - seen.calls.len();
        println!(
            "round {round}: cold {cold}, gap {:.1} ms, partial {}, {missed} of the first calls missed",
            server.startup.gap_ms, server.startup.partial
        );
        ensure!(seen.calls.len() > 10, "only {} of 20 calls", seen.calls.len());
        ensure!(
            server.startup.partial && server.startup.gap_ms > 0.0 || !cold && missed == 0,
            "hooks that were not attached when it began, and nothing says so: {:?}",
            server.startup
        );
    }
    Ok(())
}
