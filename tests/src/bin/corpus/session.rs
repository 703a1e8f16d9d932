//! One client and one server, from start to end.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use e2e::{
    client::{Client, Era, Link, Manner, Order},
    corpus::Part,
};
use serde_json::{Value, json};

use crate::{data::Pool, rng::Rng, servers::Server, variants::Variant};

/// Calls by tool.
pub(crate) type Calls = BTreeMap<String, u64>;

/// Longer than the settling time: what follows belongs to no earlier call.
const SETTLE: Duration = Duration::from_millis(22);

fn manner(rng: &mut Rng) -> Manner {
    Manner {
        link: *rng.pick(&[Link::Pipes, Link::Sockets]),
        order: *rng.pick(&[Order::TypeScript, Order::Python, Order::ArgumentsFirst]),
        era: Era::Handshake,
        text_ids: rng.percent(20),
    }
}

fn start(server: &Server, variant: Option<&Variant>, rng: &mut Rng) -> Result<Client> {
    let mut command = server.command();
    if let Some(variant) = variant {
        command.env("FIXTURE_ACT", variant.act).env("FIXTURE_WHEN", variant.when);
        command.envs(variant.env.iter().copied());
    }
    let mut manner = manner(rng);
    if variant.is_some_and(|v| v.act.starts_with("forge")) {
        // Nobody can open a socket by its name in /proc.
        manner.link = Link::Pipes;
    }
    let mut client = Client::start(command, manner).with_context(|| server.name.to_owned())?;
    if rng.percent(80) {
        client.list()?;
    }
    thread::sleep(SETTLE);
    Ok(client)
}

/// The tools of a session's calls.
fn order(server: &Server, part: Part, count: u64, rng: &mut Rng) -> Vec<&'static str> {
    if part == Part::Train {
        // Each tool as often, in any order.
        let mut tools: Vec<_> = (0..count).map(|n| server.tools[n as usize % server.tools.len()].0).collect();
        rng.shuffle(&mut tools);
        return tools;
    }
    let all: u64 = server.tools.iter().map(|t| t.1).sum();
    let one = |rng: &mut Rng| {
        let mut at = rng.below(all);
        let chosen = server.tools.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        chosen.map_or(server.tools[0].0, |t| t.0)
    };
    (0..count).map(|_| one(rng)).collect()
}

/// A benign session of `count` calls.
pub(crate) fn benign(server: &Server, part: Part, number: u64, count: u64) -> Result<Calls> {
    let mut rng = Rng::new(&[server.name, &format!("{part:?}"), &number.to_string()]);
    let pool = Pool::of(part);
    let mut client = start(server, None, &mut rng)?;
    let tools = order(server, part, count, &mut rng);
    // A model thinks between calls; some clients do not.
    let calm = rng.percent(75);
    // Some clients ask for more than one thing at a time.
    let width = if !calm && rng.percent(25) { 2 + rng.below(3) } else { 1 };
    let mut calls = Calls::new();
    let mut flying = 0;
    for tool in tools {
        let mut arguments = (server.arguments)(tool, &mut rng, pool);
        *calls.entry(tool.to_owned()).or_default() += 1;
        if width > 1 {
            let (_, line) = client.compose(tool, &arguments);
            client.send(&line)?;
            flying += 1;
            if flying == width {
                client.wait_any()?;
                flying -= 1;
            }
            continue;
        }
        if server.own && rng.below(100) == 0 {
            arguments["delay_ms"] = json!(20);
            let (id, line) = client.compose(tool, &arguments);
            client.send(&line)?;
            thread::sleep(Duration::from_millis(6));
            client.cancel(&id)?;
            thread::sleep(SETTLE * 2);
            continue;
        }
        client.call(tool, &arguments).with_context(|| format!("{} {tool}", server.name))?;
        if calm {
            thread::sleep(SETTLE);
        }
        if rng.below(if calm { 100 } else { 500 }) == 0 {
            // A person thinks.
            thread::sleep(Duration::from_millis(100 + rng.below(400)));
        }
    }
    while flying > 0 {
        client.wait_any()?;
        flying -= 1;
    }
    thread::sleep(SETTLE);
    Ok(calls)
}

/// A session in which a variant does what it does.
pub(crate) fn malicious(server: &Server, variant: &Variant) -> Result<Calls> {
    let mut rng = Rng::new(&[server.name, variant.id]);
    let pool = Pool::of(Part::Malicious);
    let began = Instant::now();
    let mut client = start(server, Some(variant), &mut rng)?;
    let mut calls = Calls::new();
    let mut call = |client: &mut Client, tool: &str, arguments: Value| -> Result<()> {
        *calls.entry(tool.to_owned()).or_default() += 1;
        client.call(tool, &arguments).with_context(|| format!("{} {tool}", variant.id))?;
        thread::sleep(SETTLE);
        Ok(())
    };
    let (word, value) = variant.when.split_once(':').unwrap_or((variant.when, ""));
    let at = variant.call().unwrap_or(5);
    for n in 1..=at + variant.more {
        let mut tool = variant.tool;
        if n < at || n > at && word != "every" {
            tool = rng.pick(server.tools).0;
        }
        let mut arguments = (server.arguments)(tool, &mut rng, pool);
        if n == at {
            match word {
                "after" => {
                    let time = Duration::from_millis(value.parse::<u64>()? + 100);
                    thread::sleep(time.saturating_sub(began.elapsed()));
                }
                "arg" => arguments["note"] = json!(value),
                _ => {}
            }
            if let Some(own) = &variant.arguments {
                arguments = own.clone();
            }
        }
        call(&mut client, tool, arguments)?;
    }
    thread::sleep(Duration::from_millis(variant.linger_ms));
    Ok(calls)
}
