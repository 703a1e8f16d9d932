//! Servers that we did not write: what Toolwarden says of each tool agrees with strace.

use std::{
    collections::BTreeMap,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Link, Manner, Order},
    real::{self, Plan},
    strace::{self, Kind, Observer},
    world::World,
};
use engine::output::{Certainty, Effect, EffectLine, NetOp, PathOpKind};

/// Between calls: more than the settling time, also under strace.
const SPACE: Duration = Duration::from_millis(120);

/// A call as made.
struct Made {
    tool: &'static str,
    sent_ns: u64,
    replied_ns: u64,
}

fn utc_ns() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_nanos() as u64
}

fn resolved(path: &str) -> String {
    let real = Path::new(path).canonicalize();
    real.map_or_else(|_| path.to_owned(), |p| p.display().to_string())
}

/// The same words for what a line tells as for what strace tells.
fn understand(line: &EffectLine) -> Option<(Kind, String)> {
    Some(match &*line.effect {
        Effect::Open { path, deleted, .. } => {
            let mark = if *deleted && !path.ends_with(" (deleted)") { " (deleted)" } else { "" };
            (Kind::Open, format!("{path}{mark}"))
        }
        Effect::Exec { path, script, .. } => (Kind::Exec, resolved(script.as_ref().unwrap_or(path))),
        Effect::Net { op: NetOp::Connect, address, port, .. } => (Kind::Connect, format!("{address}:{port}")),
        Effect::Unix { op: NetOp::Connect, path, error: 0, .. } => (Kind::UnixConnect, path.clone()),
        Effect::PathOp { op, path, .. } => match op {
            PathOpKind::Unlink => (Kind::Unlink, path.clone()),
            PathOpKind::Rename => (Kind::Rename, path.clone()),
            PathOpKind::Mkdir => (Kind::Mkdir, path.clone()),
            PathOpKind::Rmdir => (Kind::Rmdir, path.clone()),
            _ => return None,
        },
        _ => return None,
    })
}

/// Why a difference is none of ours. Every difference needs one of these.
fn rule(_kind: Kind, _what: &str) -> Option<&'static str> {
    None
}

/// Counts of one thing: strace's, ours.
type Counts = BTreeMap<(usize, Kind, String), [u64; 2]>;

/// Which call's turn it was.
fn turn(made: &[Made], at_ns: u64) -> Option<usize> {
    made.iter().rposition(|m| m.sent_ns <= at_ns)
}

/// Calls everything once, unwatched.
fn warm(plan: &Plan) -> Result<()> {
    let mut client = Client::start(plan.command(), Manner::default())?;
    client.patience = Duration::from_secs(180);
    for (tool, arguments) in &plan.calls {
        client.call(tool, arguments)?;
    }
    Ok(())
}

fn compare(world: &World, agent: &Agent, plan: &Plan, link: Link) -> Result<BTreeMap<Kind, [u64; 3]>> {
    if plan.installs {
        warm(plan)?;
    }
    let mut command = plan.command();
    command.stderr(std::process::Stdio::null());
    let order = if link == Link::Pipes { Order::Python } else { Order::TypeScript };
    let manner = Manner { link, order, ..Manner::default() };
    let mut client = Client::start(command, manner)?;
    client.list()?;
    let log = world.dir().join(format!("{}.strace", plan.name));
    let observer = Observer::attach(client.pid(), &log)?;
    thread::sleep(SPACE * 4);
    let mut made = Vec::new();
    for (tool, arguments) in &plan.calls {
        let sent_ns = utc_ns();
        let (_, reply) = client.call(tool, arguments)?;
        made.push(Made { tool, sent_ns, replied_ns: utc_ns() });
        ensure!(reply.is_ok(), "{} {tool}: {}", plan.name, reply.body);
        thread::sleep(SPACE);
    }
    let end_ns = utc_ns();
    agent.rest();
    let server = agent.server(client.pid())?;
    let seen = agent.observed(&server.server.id)?;
    observer.finish()?;
    drop(client);

    let mut counts = Counts::new();
    for theirs in strace::read(&log)?.into_iter().filter(|s| s.utc_ns < end_ns) {
        if let Some(n) = turn(&made, theirs.utc_ns) {
            let what = match theirs.kind {
                Kind::Exec => resolved(&theirs.what),
                _ => theirs.what,
            };
            counts.entry((n, theirs.kind, what)).or_default()[0] += 1;
        }
    }
    let (mut charged, mut mischarged) = (0, Vec::new());
    for line in &seen.effects {
        let at = line.time.utc as u64;
        let Some(n) = turn(&made, at).filter(|_| at < end_ns) else {
            continue;
        };
        // The system call that reads the request comes before the call.
        let counted = matches!(*line.effect, Effect::Syscall { .. });
        if at < made[n].replied_ns && !counted {
            let right = line.scope.certainty == Certainty::Certain
                && line.scope.tool.as_deref() == Some(made[n].tool);
            charged += u64::from(right);
            if !right {
                mischarged.push(format!("{:?} during {}: {:?}", line.effect, made[n].tool, line.scope));
            }
        }
        if let Some((kind, what)) = understand(line) {
            counts.entry((n, kind, what)).or_default()[1] += line.count;
        }
    }
    println!(
        "\n{} ({:?}, {} by pid {}): {charged} lines charged to the tool, {} not",
        plan.name,
        link,
        server.server.name,
        server.pid,
        mischarged.len()
    );
    for one in mischarged.iter().take(5) {
        println!("  mischarged: {one}");
    }
    let totals = differences(plan, &made, &counts)?;
    ensure!(mischarged.is_empty(), "{}: charged to something else", plan.name);
    Ok(totals)
}

/// Prints the figures and checks each difference. By kind: strace's, ours, different.
fn differences(plan: &Plan, made: &[Made], counts: &Counts) -> Result<BTreeMap<Kind, [u64; 3]>> {
    let mut totals: BTreeMap<Kind, [u64; 3]> = BTreeMap::new();
    let mut by_tool: BTreeMap<&str, BTreeMap<Kind, [u64; 2]>> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for ((n, kind, what), [theirs, ours]) in counts {
        let total = totals.entry(*kind).or_default();
        total[0] += theirs;
        total[1] += ours;
        total[2] += theirs.abs_diff(*ours);
        let tool = by_tool.entry(made[*n].tool).or_default().entry(*kind).or_default();
        tool[0] += theirs;
        tool[1] += ours;
        if theirs != ours {
            let why = rule(*kind, what);
            println!("  {} {kind:?} {what}: strace {theirs}, ours {ours}: {why:?}", made[*n].tool);
            let vital = matches!(kind, Kind::Exec | Kind::Connect | Kind::UnixConnect);
            if why.is_none() || (vital && ours < theirs) {
                unexplained.push(what);
            }
        }
    }
    for (tool, kinds) in by_tool {
        println!("  {tool}: {kinds:?} (strace, ours)");
    }
    ensure!(unexplained.is_empty(), "{}: unexplained: {unexplained:?}", plan.name);
    Ok(totals)
}

#[test]
fn real_servers() -> Result<()> {
    let world = World::new()?;
    let agent = Agent::start(&[])?;
    let mut totals: BTreeMap<Kind, [u64; 3]> = BTreeMap::new();
    let plans = [
        (real::filesystem(&world)?, Link::Sockets),
        (real::everything(&world)?, Link::Sockets),
        (real::memory(&world)?, Link::Sockets),
        (real::git_server(&world)?, Link::Pipes),
        (real::fetch(&world)?, Link::Pipes),
        (real::time(&world)?, Link::Pipes),
    ];
    let mut failed = Vec::new();
    for (plan, link) in &plans {
        match compare(&world, &agent, plan, *link) {
            Ok(kinds) => {
                for (kind, [theirs, ours, apart]) in kinds {
                    let total = totals.entry(kind).or_default();
                    total[0] += theirs;
                    total[1] += ours;
                    total[2] += apart;
                }
            }
            Err(e) => failed.push(format!("{}: {e:#}", plan.name)),
        }
    }
    println!("\nkind: strace, ours, different");
    for (kind, [theirs, ours, apart]) in &totals {
        println!("{kind:?}: {theirs}, {ours}, {apart}");
    }
    for lost in agent.lost()? {
        println!("lost: {} {}", lost.cause, lost.total);
    }
    ensure!(failed.is_empty(), "{failed:#?}");
    for (kind, [theirs, _, apart]) in &totals {
        ensure!(apart * 100 <= *theirs, "{kind:?}: more than 1 % apart");
    }
    for kind in [Kind::Open, Kind::Exec, Kind::Connect, Kind::Rename, Kind::Mkdir] {
        ensure!(totals.contains_key(&kind), "no {kind:?} to compare");
    }
    Ok(())
}
