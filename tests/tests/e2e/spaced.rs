//! One call at a time, spaced: every effect is seen, and charged to the right call.

use std::{collections::HashMap, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::Agent,
    client::{Era, Link, Manner, Order},
    compare::{EXCEPTIONS, judge},
    pace::{fewer, patient_ms},
    scenario::Oracle,
    verdict::Verdict,
    world::World,
};
use engine::output::{CallStatus, Certainty, ScopeKind};

/// Calls over all manners together.
const CALLS: usize = 2_000;

/// After a reply, before the next call: the settling time and half as much again.
pub(crate) fn space() -> Duration {
    patient_ms(30)
}

pub(crate) fn manners() -> [Manner; 4] {
    [
        Manner::default(),
        Manner { link: Link::Sockets, order: Order::Python, era: Era::Stateless, text_ids: true },
        Manner { order: Order::ArgumentsFirst, era: Era::Stateless, ..Manner::default() },
        Manner { link: Link::Sockets, ..Manner::default() },
    ]
}

#[test]
fn oracle_spaced() -> Result<()> {
    let world = World::new()?;
    let agent = Agent::start(&[])?;
    let mut all = Verdict::default();
    let mut calls = 0;
    for (n, manner) in manners().into_iter().enumerate() {
        let mut oracle = Oracle::start(&world, &format!("spaced{n}"), manner)?;
        let tools: Vec<_> = oracle
            .tools()?
            .into_iter()
            .filter(|t| !EXCEPTIONS.contains(&t.as_str()) && t != "stop_timer")
            .collect();
        ensure!(tools.len() > 60, "only {} tools", tools.len());
        thread::sleep(space());
        let rounds = (fewer(CALLS) / manners().len()).div_ceil(tools.len());
        let mut replies = HashMap::new();
        for tool in tools.iter().cycle().take(rounds * tools.len()) {
            let (id, reply) = oracle.call(tool)?;
            replies.insert(id.to_string(), (reply.at_ns, tool.clone()));
            thread::sleep(space());
        }
        agent.rest();
        let server = agent.server(oracle.client.pid())?;
        let seen = agent.observed(&server.server.id)?;
        let times = replies.iter().map(|(id, r)| (id.clone(), r.0)).collect();
        all.merge(judge(&oracle.truths()?, &seen, &times));
        ensure!(
            seen.calls.len() == replies.len(),
            "{} calls made, {} reported",
            replies.len(),
            seen.calls.len()
        );
        for line in &seen.calls {
            let call = line.scope.call.as_ref().context("a call without a call")?;
            let made = replies.get(&call.request_id.to_string());
            let (_, tool) = made.with_context(|| format!("never called: {line:?}"))?;
            let status = match tool.as_str() {
                "error_tool" => CallStatus::ToolError,
                "fail" => CallStatus::Error,
                _ => CallStatus::Ok,
            };
            ensure!(
                line.scope.tool.as_ref() == Some(tool)
                    && line.status == status
                    && line.scope.kind == ScopeKind::Call
                    && line.scope.certainty == Certainty::Certain
                    && !line.overlapped,
                "{tool}: {line:?}"
            );
        }
        calls += replies.len();
    }
    println!("{calls} calls, spaced\n{}", all.table());
    println!("late work delayed past the settling time: {}", all.delayed);
    for lost in agent.lost()? {
        println!("lost: {} {}", lost.cause, lost.total);
    }
    ensure!(calls >= fewer(CALLS), "{calls} calls");
    ensure!(all.by_kind.len() == 17, "kinds: {:?}", all.by_kind.keys());
    ensure!(all.total.seen == all.total.done, "not every effect was seen; {}", agent.refused()?);
    ensure!(all.total.right == all.total.done, "not every charge is right");
    ensure!(all.extra == 0, "more was counted than was done");
    ensure!(all.lineage.right == all.lineage.done, "lineage is not right");
    ensure!(all.delayed * 100 <= all.total.done, "the machine is too busy to judge late work");
    Ok(())
}
