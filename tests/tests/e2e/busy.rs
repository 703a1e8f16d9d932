//! Back to back and in flight together: the true call is among the candidates, and `certain` is
//! never wrong.

use std::{collections::HashMap, thread, time::Duration};

use anyhow::{Result, ensure};
use e2e::{
    agent::Agent,
    client::Manner,
    compare::{EXCEPTIONS, judge},
    scenario::Oracle,
    verdict::Verdict,
    world::World,
};
use serde_json::json;

/// Numbers without a pattern that matters, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        // Constants of Knuth's MMIX generator.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// How a client that does not wait for things to settle calls.
struct Pace {
    name: &'static str,
    /// In flight at any time; the first ones in one write.
    width: usize,
    /// Pauses before a call are below this, in ms.
    pause: usize,
    /// Only this tool.
    only: Option<&'static str>,
}

const PACES: [Pace; 7] = [
    Pace { name: "back to back", width: 1, pause: 0, only: None },
    Pace { name: "with uneven pauses", width: 1, pause: 50, only: None },
    Pace { name: "one tool only", width: 4, pause: 0, only: Some("open_write") },
    Pace { name: "2 in flight", width: 2, pause: 0, only: None },
    Pace { name: "3 in flight", width: 3, pause: 0, only: None },
    Pace { name: "5 in flight", width: 5, pause: 0, only: None },
    Pace { name: "8 in flight", width: 8, pause: 0, only: None },
];

fn run(oracle: &mut Oracle, tools: &[String], pace: &Pace, count: usize) -> Result<HashMap<String, u64>> {
    let width = pace.width;
    let mut dice = Dice(width as u64);
    let mut replies = HashMap::new();
    let mut burst = Vec::new();
    for _ in 0..width {
        burst.extend(oracle.client.compose(&tools[dice.below(tools.len())], &json!({})).1);
    }
    oracle.client.send(&burst)?;
    for n in 0..count {
        let reply = oracle.client.wait_any()?;
        replies.insert(reply.body["id"].to_string(), reply.at_ns);
        if pace.pause > 0 {
            thread::sleep(Duration::from_millis(dice.below(pace.pause) as u64));
        }
        if n + width < count {
            let tool = &tools[dice.below(tools.len())];
            let (_, line) = oracle.client.compose(tool, &json!({}));
            oracle.client.send(&line)?;
        }
    }
    Ok(replies)
}

/// All but the exceptions, and but `alloc`: one high-water mark cannot tell calls apart.
fn tools(oracle: &mut Oracle) -> Result<Vec<String>> {
    let tools = oracle.tools()?.into_iter();
    Ok(tools.filter(|t| !EXCEPTIONS.contains(&t.as_str()) && t != "stop_timer" && t != "alloc").collect())
}

/// What was charged, and how many calls were reported.
fn verdict(agent: &Agent, oracle: &Oracle, replies: &HashMap<String, u64>) -> Result<(Verdict, usize)> {
    agent.rest();
    let server = agent.server(oracle.client.pid())?;
    let seen = agent.observed(&server.server.id)?;
    Ok((judge(&oracle.truths()?, &seen, replies), seen.calls.len()))
}

/// One pace with a fresh server; true when nothing is wrong.
fn one_pace(world: &World, agent: &Agent, name: &str, n: usize, pace: &Pace) -> Result<bool> {
    let manner = super::spaced::manners()[n % 4];
    let mut oracle = Oracle::start(world, name, manner)?;
    let tools = match pace.only {
        Some(tool) => vec![tool.to_owned()],
        None => tools(&mut oracle)?,
    };
    let replies = run(&mut oracle, &tools, pace, 400)?;
    let (verdict, reported) = verdict(agent, &oracle, &replies)?;
    println!(
        "{} calls, {reported} reported, {} (late work delayed past settling: {})\n{}",
        replies.len(),
        pace.name,
        verdict.delayed,
        verdict.table()
    );
    let t = verdict.total;
    let l = verdict.lineage;
    Ok(reported == replies.len()
        && verdict.extra == 0
        && t.seen == t.done
        && t.missed + t.wrong + l.missed + l.wrong == 0)
}

#[test]
fn oracle_busy() -> Result<()> {
    let world = World::new()?;
    let mut faults = Vec::new();
    for (n, pace) in PACES.iter().enumerate() {
        // A machine that stalls makes the ring refuse records: the agent says so, and what is not
        // seen then says nothing about charging. Such a run is repeated, twice at most.
        for attempt in 0..3 {
            let agent = Agent::start(&[])?;
            let good = one_pace(&world, &agent, &format!("busy{n}-{attempt}"), n, pace)?;
            if good {
                break;
            }
            let refused = agent.lost()?.iter().any(|l| l.cause.starts_with("ring:"));
            println!("{}: {}", pace.name, agent.refused()?);
            if !refused || attempt == 2 {
                faults.push(pace.name);
                break;
            }
        }
    }
    ensure!(faults.is_empty(), "wrong: {faults:?}");
    Ok(())
}

/// What no kernel can tell: measured on its own, and printed.
#[test]
fn known_exceptions() -> Result<()> {
    let world = World::new()?;
    let agent = Agent::start(&[])?;
    for (tool, each, pause) in [
        ("late_sleeper", 4, 0),
        ("late_sleeper", 4, 30),
        ("background_timer", usize::MAX, 0),
        ("background_timer", usize::MAX, 30),
    ] {
        let mut oracle = Oracle::start(&world, &format!("{tool}{pause}"), Manner::default())?;
        let others = ["noop", "open_write", "parallel_sleep", "child_open"].map(str::to_owned);
        let mut replies = HashMap::new();
        let mut call = |oracle: &mut Oracle, tool: &str| {
            let (id, reply) = oracle.call(tool)?;
            replies.insert(id.to_string(), reply.at_ns);
            anyhow::Ok(())
        };
        for n in 0..400 {
            if n % each == 0 {
                call(&mut oracle, tool)?;
            }
            call(&mut oracle, &others[n % 4])?;
            thread::sleep(Duration::from_millis(pause));
        }
        call(&mut oracle, "stop_timer")?;
        let (verdict, reported) = verdict(&agent, &oracle, &replies)?;
        ensure!(reported == replies.len(), "{} calls made, {reported} reported", replies.len());
        let t = verdict.exceptions.get(tool).copied().unwrap_or_default();
        let rate = |n: u64| 100.0 * n as f64 / t.done.max(1) as f64;
        println!(
            "{tool}: {} acts, other tools {pause} ms apart: right {:.1} %, among the candidates \
             {:.1} %, candidates without it {:.1} %, certain and wrong {:.1} %",
            t.done,
            rate(t.right),
            rate(t.among),
            rate(t.missed),
            rate(t.wrong)
        );
        // How often a timer fires while the calls last is up to the machine.
        ensure!(t.done >= 10, "{tool}: only {} acts", t.done);
        ensure!(t.seen == t.done, "{tool}: charged wrong is allowed, unseen is not");
        let rest = verdict.total;
        ensure!(
            rest.seen == rest.done && rest.missed + rest.wrong == 0,
            "the exception spoils others\n{}",
            verdict.table()
        );
    }
    Ok(())
}
