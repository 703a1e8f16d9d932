//! Shows what Toolwarden sees: starts the agent and some MCP servers, calls their tools, and says
//! which tool did what; then one tool steps out of line, and is stopped. `cargo xtask demo` runs it.

mod story;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    real::{self, Plan},
    scenario::{Oracle, program},
    world::World,
};
use engine::output::{CallLine, Effect, EffectLine, Line, NetOp};
use serde_json::json;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("demo: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// One row of the last table.
#[derive(Default)]
struct Row {
    calls: u64,
    files: u64,
    execs: u64,
    destinations: BTreeSet<String>,
    cpu_ns: u64,
}

type Table = BTreeMap<(String, String), Row>;

fn run() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--story") {
        return story::tell();
    }
    let world = World::new()?;
    let agent = Agent::start(&[])?;
    println!("toolwarden: attached in {} ms", agent.attached_in.as_millis());
    for printed in agent.lines()? {
        if let Line::Coverage(line) = printed.line
            && let Some(because) = line.coverage.because
        {
            println!("  {}: {:?} ({because})", line.coverage.hook, line.coverage.state);
        }
    }
    let mut table = Table::new();
    show(&agent, &ours(&world)?, &mut table)?;
    let mut plans =
        vec![real::filesystem(&world), real::memory(&world), real::git_server(&world), real::time(&world)];
    if real::fetch_is_warm() {
        plans.push(real::fetch(&world));
    }
    for plan in plans {
        let shown =
            plan.and_then(|plan| show(&agent, &plan, &mut table).with_context(|| plan.name.to_owned()));
        if let Err(e) = shown {
            println!("\ngoing on without this one: {e:#}");
        }
    }
    print(&table);
    drop(agent);
    story::tell()
}

/// Our own server, which needs neither node nor python.
fn ours(world: &World) -> Result<Plan> {
    let (command, _truth) = Oracle::command(world, "demo", &program("oracle")?)?;
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let argv = words.map(|w| w.to_string_lossy().into_owned()).collect();
    let tools = [
        "open_read",
        "open_write",
        "open_many",
        "rename",
        "exec",
        "exec_memfd",
        "double_fork",
        "dns_connected",
        "connect_tcp4",
        "tls_hello",
        "send_bytes",
        "uring_open",
        "burn_cpu",
    ];
    Ok(Plan {
        name: "oracle",
        argv,
        env: Vec::new(),
        calls: tools.map(|tool| (tool, json!({}))).to_vec(),
        installs: false,
    })
}

/// Starts one server, calls its tools, and tells what they did.
fn show(agent: &Agent, plan: &Plan, table: &mut Table) -> Result<()> {
    let mut command = plan.command();
    command.stderr(Stdio::null());
    let mut client = Client::start(command, Manner::default())?;
    client.list()?;
    let mut pid = client.pid();
    while let Some(child) = child_of(pid) {
        pid = child;
    }
    let server = agent.server(pid)?;
    println!(
        "\n{} {} · pid {} · {}",
        server.package.as_deref().unwrap_or(&server.server.name),
        server.version.as_deref().unwrap_or(""),
        server.pid,
        server.protocol.as_deref().unwrap_or("protocol unknown"),
    );
    // Until the list's own settling time is over: its work is no tool's.
    thread::sleep(Duration::from_millis(150));
    for (tool, arguments) in &plan.calls {
        let (id, reply) = client.call(tool, arguments)?;
        if !reply.is_ok() {
            println!("  {tool} fails: {}", reply.text());
        }
        // Some tools leave children that go on after the reply.
        thread::sleep(Duration::from_millis(120));
        let is_it = |line: &Line| {
            matches!(line, Line::Call(c) if c.server.id == server.server.id
                && c.scope.call.as_ref().is_some_and(|r| r.request_id == id))
        };
        let Line::Call(call) = agent.wait_for(Duration::from_secs(3), is_it)? else {
            continue;
        };
        let number = call.scope.call.as_ref().map(|c| c.number);
        let mine = |e: &EffectLine| e.scope.call.as_ref().map(|c| c.number) == number;
        let effects = agent.observed(&server.server.id)?.effects;
        let effects: Vec<_> = effects.into_iter().filter(mine).collect();
        let name = server.server.name.clone();
        let row = table.entry((name, (*tool).to_owned())).or_default();
        tell(tool, &call, &effects, row);
    }
    Ok(())
}

fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// How many effects of one call are told one by one.
const TOLD: usize = 6;

fn tell(tool: &str, call: &CallLine, effects: &[EffectLine], row: &mut Row) {
    println!(
        "  {tool} · {:.1} ms · {} files, {} execs, {} connects, {} B out, {} B in",
        call.duration_ns as f64 / 1e6,
        call.files,
        call.execs,
        call.connects,
        call.bytes_out,
        call.bytes_in
    );
    row.calls += 1;
    row.files += call.files;
    row.execs += call.execs;
    row.cpu_ns += call.cpu_ns;
    let mut lines = Vec::new();
    for line in effects {
        if let Effect::Net { op: NetOp::Connect | NetOp::Sendmsg, address, port, name, .. } = &*line.effect {
            let name = name.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
            row.destinations.insert(format!("{address}:{port}{name}"));
        }
        if let Some(text) = sentence(&line.effect) {
            let late = if line.outlived { ", after the reply" } else { "" };
            let times = if line.count > 1 { format!(" ×{}", line.count) } else { String::new() };
            lines.push((weight(&line.effect), format!("{text}{times}{late}")));
        }
    }
    lines.sort_by_key(|l| l.0);
    for (_, text) in lines.iter().take(TOLD) {
        println!("      {text}");
    }
    if lines.len() > TOLD {
        println!("      and {} more", lines.len() - TOLD);
    }
}

/// What people want to know first.
fn weight(effect: &Effect) -> u8 {
    match effect {
        Effect::Exec { .. } => 0,
        Effect::Open { write: false, .. } => 2,
        _ => 1,
    }
}

/// An effect in words; nothing for the small change.
fn sentence(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Exec { path, argv, memfd, .. } => {
            let from = if *memfd { " from memory" } else { "" };
            format!("executes {path}{from}: {}", argv.join(" "))
        }
        Effect::Open { path, write: true, .. } => format!("writes {path}"),
        Effect::Open { path, directory: false, .. } => format!("reads {path}"),
        Effect::Open { path, .. } => format!("lists {path}"),
        Effect::PathOp { op, path, to, .. } => {
            let to = to.as_ref().map(|t| format!(" -> {t}")).unwrap_or_default();
            format!("{} {path}{to}", word(op))
        }
        Effect::Net { op, address, port, protocol, .. } => {
            format!("{} {protocol} {address}:{port}", word(op))
        }
        Effect::Unix { op, path, .. } => format!("{} unix {path}", word(op)),
        Effect::DnsQuery { name, record, resolver, .. } => format!("asks {resolver} for {record} {name}"),
        Effect::DnsAnswer { name, addresses, .. } => format!("is told {name} = {}", addresses.join(", ")),
        Effect::TlsHello { sni: Some(sni), .. } => format!("says TLS hello to {sni}"),
        Effect::Special { name, .. } => format!("calls {name}"),
        Effect::Uring { name, .. } => format!("io_uring {name}"),
        Effect::Denied { op, object, .. } => format!("denied {op} {object}"),
        _ => return None,
    })
}

fn word(op: &impl std::fmt::Debug) -> String {
    format!("{op:?}").to_lowercase()
}

fn print(table: &Table) {
    let wide = |pick: fn(&(String, String)) -> &String| {
        let widths = table.keys().map(|k| pick(k).len());
        widths.max().unwrap_or(0) + 2
    };
    let (one, two) = (wide(|k| &k.0), wide(|k| &k.1));
    println!(
        "\n{:<one$}{:<two$}{:>6}{:>7}{:>7}{:>10}  destinations",
        "server", "tool", "calls", "files", "execs", "CPU ms"
    );
    for ((server, tool), row) in table {
        let destinations: Vec<_> = row.destinations.iter().cloned().collect();
        println!(
            "{server:<one$}{tool:<two$}{:>6}{:>7}{:>7}{:>10.1}  {}",
            row.calls,
            row.files,
            row.execs,
            row.cpu_ns as f64 / 1e6,
            destinations.join(" ")
        );
    }
}
