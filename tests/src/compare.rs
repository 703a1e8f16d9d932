//! Truth against effect lines: is every act seen, and charged to the call that did it?

use std::collections::HashMap;

use engine::output::{CallLine, Certainty, Effect, EffectLine, Scope};
use serde_json::Value;

use crate::{
    pace::slowness,
    truth::{Act, Truth},
    verdict::Verdict,
};

/// What was printed about one server.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Effects, in order.
    pub effects: Vec<EffectLine>,
    /// Ended calls, in order.
    pub calls: Vec<CallLine>,
}

/// How one charge compares with the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// Certain, and right.
    Right,
    /// Not certain; the true call is among the candidates.
    Among,
    /// Not certain, and the true call is not among the candidates.
    Missed,
    /// Certain, and wrong.
    Wrong,
}

/// Compares a scope with the call that it should be.
#[must_use]
pub fn charge(scope: &Scope, tool: &str, id: &Value) -> Charge {
    let among = scope.candidates.iter().any(|c| c.call.as_ref().is_some_and(|call| &call.request_id == id));
    match scope.certainty {
        Certainty::Certain => match &scope.call {
            Some(call) if &call.request_id == id => Charge::Right,
            _ => Charge::Wrong,
        },
        Certainty::CertainTool if scope.tool.as_deref() != Some(tool) => Charge::Wrong,
        Certainty::CertainTool | Certainty::Ambiguous if among => Charge::Among,
        Certainty::CertainTool | Certainty::Ambiguous => Charge::Missed,
    }
}

/// Tools that may be charged wrongly, as documented.
pub const EXCEPTIONS: [&str; 2] = ["late_sleeper", "background_timer"];

/// Work after a reply that began later than this is a sleeper: 20 ms settling, less the time that
/// a reply may take from the server's write to our read.
const LATE_NS: u64 = 14_000_000;

/// Lines that carry one id: the first and its repeats.
struct Group {
    first_ns: u64,
    lines: Vec<usize>,
    left: u64,
    /// Acts were found on it.
    used: bool,
}

/// Compares all truths of one server with what was printed about it. `replies`: when the client
/// read the reply to each id.
#[must_use]
pub fn judge(truths: &[Truth], seen: &Observed, replies: &HashMap<String, u64>) -> Verdict {
    let mut groups: HashMap<u64, Group> = HashMap::new();
    for (n, line) in seen.effects.iter().enumerate() {
        let group = groups.entry(line.id).or_insert(Group {
            first_ns: line.time.boot_ns,
            lines: Vec::new(),
            left: 0,
            used: false,
        });
        group.lines.push(n);
        group.left += line.count;
    }
    let mut by_pid: HashMap<u32, Vec<u64>> = HashMap::new();
    for (id, group) in &groups {
        let pid = seen.effects[group.lines[0]].process.pid;
        by_pid.entry(pid).or_default().push(*id);
    }
    let mut verdict = Verdict::default();
    for truth in truths {
        let lines = match &truth.act {
            Act::Cpu { .. } | Act::Rss { .. } | Act::Reply { .. } => {
                let good = seen.calls.iter().any(|c| in_call(c, truth));
                record(&mut verdict, truth, good, good.then_some(Charge::Right), seen);
                continue;
            }
            Act::Flow { .. } => flow(truth, truths, seen, replies),
            _ => take(truth, deadline(truth, replies), &mut groups, &by_pid, seen),
        };
        for &n in lines.iter().flatten() {
            let candidates = seen.effects[n].scope.candidates.len() as u64;
            if candidates > 0 {
                verdict.candidates[0] += 1;
                verdict.candidates[1] += candidates;
            }
        }
        let charges = lines.iter().flatten().map(|&n| {
            let scope = &seen.effects[n].scope;
            charge(scope, &truth.tool, &truth.request_id)
        });
        let worst = charges.max_by_key(|c| *c as u8);
        let reply = replies.get(&truth.request_id.to_string());
        // An act is logged before it is done; what is seen of it says when it was.
        let seen_ns = lines.iter().flatten().map(|&n| seen.effects[n].time.boot_ns).min();
        let acted_ns = seen_ns.map_or(truth.at_boot_ns, |t| t.max(truth.at_boot_ns));
        if truth.tool == "late_work" && reply.is_some_and(|r| acted_ns > r + LATE_NS * u64::from(slowness()))
        {
            verdict.delayed += 1;
            continue;
        }
        record(&mut verdict, truth, lines.is_some(), worst, seen);
    }
    for group in groups.values().filter(|g| g.used && g.left > 0) {
        verdict.extra += group.left;
        let line = &seen.effects[group.lines[0]];
        verdict.note(format!("{} too many: {:?}", group.left, line.effect));
    }
    lineage(truths, seen, &mut verdict);
    verdict
}

fn record(verdict: &mut Verdict, truth: &Truth, seen: bool, charge: Option<Charge>, observed: &Observed) {
    if EXCEPTIONS.contains(&truth.tool.as_str()) {
        let tally = verdict.exceptions.entry(truth.tool.clone()).or_default();
        tally.add(seen, charge);
        return;
    }
    verdict.total.add(seen, charge);
    let kind = verdict.by_kind.entry(truth.act.kind()).or_default();
    kind.add(seen, charge);
    let tool = verdict.by_tool.entry(truth.tool.clone()).or_default();
    tool.add(seen, charge);
    if (!seen || matches!(charge, Some(Charge::Missed | Charge::Wrong))) && verdict.notes.len() < 40 {
        let near: Vec<_> = observed
            .effects
            .iter()
            .filter(|l| {
                l.process.pid == truth.pid
                    && l.time.boot_ns.abs_diff(truth.at_boot_ns) < 20_000_000
                    && serde_json::to_value(&l.effect).is_ok_and(|v| v["kind"] == truth.act.kind())
            })
            .take(3)
            .map(|l| format!("\n      {:?} {:?}", l.effect, l.scope))
            .collect();
        let what = if seen { "charged" } else { "not seen" };
        verdict.notes.push(format!(
            "{what} {charge:?}: {} {} {:?}{}",
            truth.tool,
            truth.request_id,
            truth.act,
            near.concat()
        ));
    }
}

fn is_call(line: &CallLine, id: &Value) -> bool {
    let call = line.scope.call.as_ref();
    call.is_some_and(|call| &call.request_id == id)
}

/// Does the sum of the call say so?
fn in_call(line: &CallLine, truth: &Truth) -> bool {
    is_call(line, &truth.request_id)
        && match &truth.act {
            Act::Cpu { at_least_ns } => line.cpu_ns >= *at_least_ns,
            Act::Rss { at_least } => line.peak_rss >= *at_least,
            Act::Reply { at_least } => line.reply_bytes >= *at_least,
            _ => false,
        }
}

/// Until when a call can act: its reply, but for tools that work on after it.
fn deadline(truth: &Truth, replies: &HashMap<String, u64>) -> u64 {
    let late = truth.tool == "late_work" || EXCEPTIONS.contains(&truth.tool.as_str());
    let reply = replies.get(&truth.request_id.to_string()).filter(|_| !late);
    reply.map_or(u64::MAX, |at| *at)
}

/// Takes as many occurrences as the truth has, from groups that match; the lines that they are on.
fn take(
    truth: &Truth,
    deadline: u64,
    groups: &mut HashMap<u64, Group>,
    by_pid: &HashMap<u32, Vec<u64>>,
    seen: &Observed,
) -> Option<Vec<usize>> {
    let mut need = truth.times;
    let mut lines = Vec::new();
    while need > 0 {
        // The next group while the act may have been; else the last one before it, if it counted on
        // (two calls at once did the same); else the next one at all.
        let best = by_pid
            .get(&truth.pid)?
            .iter()
            .filter(|id| {
                groups
                    .get(id)
                    .is_some_and(|g| g.left > 0 && matches(&truth.act, &seen.effects[g.lines[0]].effect))
            })
            .min_by_key(|id| {
                let first = groups.get(id).map_or(0, |g| g.first_ns);
                let class = match first {
                    f if f < truth.at_boot_ns => 1,
                    f if f > deadline => 2,
                    _ => 0,
                };
                (class, first.abs_diff(truth.at_boot_ns))
            })?;
        let group = groups.get_mut(best)?;
        let taken = group.left.min(need);
        group.left -= taken;
        group.used = true;
        need -= taken;
        lines.extend(&group.lines);
    }
    Some(lines)
}

/// Lines of one socket's flow, when their sum is the truth. The next truth about the same peer
/// ends it, unless the two overlap: then the sum over all truths about this peer must be right.
fn flow(
    truth: &Truth,
    truths: &[Truth],
    seen: &Observed,
    replies: &HashMap<String, u64>,
) -> Option<Vec<usize>> {
    let Act::Flow { address, port, protocol, bytes_out, bytes_in } = &truth.act else {
        return None;
    };
    let until = |t: &Truth| replies.get(&t.request_id.to_string()).map_or(t.at_boot_ns, |r| *r);
    let (mut next, mut all, mut overlaps) = (u64::MAX, (0, 0), false);
    for t in truths.iter().filter(|t| t.pid == truth.pid) {
        if let Act::Flow { address: a, port: p, protocol: r, bytes_out: o, bytes_in: i } = &t.act
            && (a, p, r) == (address, port, protocol)
        {
            all = (all.0 + o, all.1 + i);
            if t.at_boot_ns > truth.at_boot_ns {
                next = next.min(t.at_boot_ns);
                overlaps |= t.at_boot_ns < until(truth);
            } else {
                overlaps |= !std::ptr::eq(t, truth) && truth.at_boot_ns < until(t);
            }
        }
    }
    let (mut lines, mut own, mut seen_all) = (Vec::new(), (0, 0), (0, 0));
    for (n, line) in seen.effects.iter().enumerate().filter(|(_, l)| l.process.pid == truth.pid) {
        if let Effect::Flow { address: a, port: p, protocol: r, bytes_out: o, bytes_in: i } = &*line.effect
            && (a, p, r) == (address, port, protocol)
        {
            seen_all = (seen_all.0 + o, seen_all.1 + i);
            if (truth.at_boot_ns..next).contains(&line.time.boot_ns) {
                own = (own.0 + o, own.1 + i);
                lines.push(n);
            }
        }
    }
    (!lines.is_empty() && (own == (*bytes_out, *bytes_in) || overlaps && seen_all == all)).then_some(lines)
}

/// Every line of a process that a call made must be charged to that call, listed or not.
fn lineage(truths: &[Truth], seen: &Observed, verdict: &mut Verdict) {
    let mut born: HashMap<u32, Vec<&Truth>> = HashMap::new();
    for truth in truths {
        if let Act::Fork { child } = truth.act {
            born.entry(child).or_default().push(truth);
        }
    }
    for line in &seen.effects {
        let births = born.get(&line.process.pid);
        let birth = births.and_then(|b| {
            let before = b.iter().filter(|t| t.at_boot_ns <= line.time.boot_ns);
            before.max_by_key(|t| t.at_boot_ns)
        });
        if let Some(birth) = birth {
            let charge = charge(&line.scope, &birth.tool, &birth.request_id);
            verdict.lineage.add(true, Some(charge));
            if matches!(charge, Charge::Missed | Charge::Wrong) {
                verdict.note(format!("lineage {charge:?}: {} {:?}", birth.tool, line));
            }
        }
    }
}

/// Do the fields that the actor knows agree?
#[must_use]
pub fn matches(act: &Act, effect: &Effect) -> bool {
    crate::same::same(act, effect)
}
