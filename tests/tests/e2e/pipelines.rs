//! What is a server and what is not, and which process of a chain it is.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Link, Manner},
    real,
    scenario::{Oracle, program},
    world::World,
};
use engine::output::{Line, ServerEvent};
use serde_json::json;

fn servers(agent: &Agent) -> Result<Vec<(u32, Vec<String>)>> {
    let found = agent.lines()?.into_iter().filter_map(|p| match p.line {
        Line::Server(s) if s.event == ServerEvent::Found => Some((s.pid, s.argv)),
        _ => None,
    });
    Ok(found.collect())
}

#[test]
fn no_servers() -> Result<()> {
    let agent = Agent::start(&[])?;
    let pipeline =
        Command::new("sh").args(["-c", "find / -maxdepth 2 | xargs -n1 echo | sort | tail -1"]).output()?;
    ensure!(pipeline.status.success() && !pipeline.stdout.is_empty(), "{pipeline:?}");
    let framed = |body: &str| format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"processId":1,"rootUri":null,"capabilities":{}}}"#;
    let hover = r#"{"jsonrpc":"2.0","id":1,"method":"textDocument/hover","params":{"name":"tools/call"}}"#;
    let streams = [
        // A language server: JSON-RPC, framed by headers.
        framed(initialize) + &framed(hover),
        // JSON-RPC by lines, but not MCP.
        format!("{hover}\n{hover}\n"),
        // A REST-like JSON stream, with MCP's words in the wrong place.
        "{\"event\":\"tools/call\",\"method\":42}\n".repeat(3),
        "hello world\n".into(),
    ];
    for link in [Link::Pipes, Link::Sockets] {
        for stream in &streams {
            let manner = Manner { link, ..Manner::default() };
            let cat = Client::launch(Command::new("cat"), manner)?;
            cat.send(stream.as_bytes())?;
            std::thread::sleep(Duration::from_millis(50));
            // The same words later must not bring it back.
            cat.send(
                b"{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}\n",
            )?;
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    // A real one, so that silence above means something.
    let world = World::new()?;
    let mut oracle = Oracle::start(&world, "real", Manner::default())?;
    oracle.call("noop")?;
    agent.server(oracle.client.pid())?;
    agent.settle(Duration::from_millis(500));
    let found = servers(&agent)?;
    ensure!(found.len() == 1, "these are no servers: {found:?}");
    println!("8 streams and a pipeline: no server; the one real server: found");
    Ok(())
}

/// All members of a chain hold the same descriptors; the server is the one that reads.
#[test]
fn chains() -> Result<()> {
    let agent = Agent::start(&[])?;
    let world = World::new()?;
    for (n, script) in [
        // The shell stays.
        r#""$0" "$@"; exit $?"#,
        // The shell becomes the server.
        r#"exec "$0" "$@""#,
        // Two shells and a subshell stay.
        r#"( sh -c '"$0" "$@"; exit $?' "$0" "$@" ); exit $?"#,
        r#"env X=1 env -u X "$0" "$@"; exit $?"#,
    ]
    .into_iter()
    .enumerate()
    {
        let (direct, truth) = Oracle::command(&world, &format!("chain{n}"), &program("oracle")?)?;
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(direct.get_program());
        command.args(direct.get_args());
        let mut client = Client::start(command, Manner::default())?;
        for _ in 0..3 {
            let (_, reply) = client.call("open_read", &json!({}))?;
            ensure!(reply.is_ok(), "{reply:?}");
        }
        let truths = e2e::scenario::read_truths(&truth)?;
        let leaf = truths.first().map(|t| t.pid).unwrap_or_default();
        let server = agent.server(leaf)?;
        agent.settle(Duration::from_millis(300));
        let calls = agent.observed(&server.server.id)?.calls.len();
        ensure!(calls == 3, "{script}: {calls} calls instead of 3");
        let found = servers(&agent)?;
        ensure!(found.len() == n + 1, "one server a chain: {found:?}");
        println!("{script}: server is {leaf}, started by {}", server.root_pid);
    }
    Ok(())
}

/// The launchers of the wild: npx, a virtual environment's script, `python -m`, a shell before it.
#[test]
fn launchers() -> Result<()> {
    let agent = Agent::start(&[])?;
    let world = World::new()?;
    let memory = real::memory(&world)?;
    let time = real::time(&world)?;
    let python = time.argv[0].replace("mcp-server-time", "python");
    let words = |w: &[&str]| w.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
    let npm = e2e::workspace().join("target/e2e/npm").display().to_string();
    let npx = ["npx", "--offline", "--prefix", &npm, "mcp-server-memory"];
    let shell = format!("cd / && {python} -m mcp_server_time; exit $?");
    // (command line, what the leaf's must contain, package)
    let chains = [
        (words(&npx), "mcp-server-memory", "npm:@modelcontextprotocol/server-memory"),
        (memory.argv.clone(), "server-memory", "npm:@modelcontextprotocol/server-memory"),
        (time.argv.clone(), "mcp-server-time", "pypi:mcp-server-time"),
        (words(&[&python, "-m", "mcp_server_time"]), "mcp_server_time", "pypi:mcp-server-time"),
        (words(&["sh", "-c", &shell]), "mcp_server_time", "pypi:mcp-server-time"),
    ];
    for (argv, mark, package) in &chains {
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).envs(memory.env.iter().map(|(k, v)| (k, v)));
        command.stderr(std::process::Stdio::null());
        let link = if argv[0] == "npx" { Link::Sockets } else { Link::Pipes };
        let mut client = Client::start(command, Manner { link, ..Manner::default() })?;
        client.list()?;
        let (tool, arguments) = match package.starts_with("npm:") {
            true => ("read_graph", json!({})),
            false => ("get_current_time", json!({"timezone": "Europe/Berlin"})),
        };
        let (_, reply) = client.call(tool, &arguments)?;
        ensure!(reply.is_ok(), "{reply:?}");
        // The process that reads is the one without children.
        let mut leaf = client.pid();
        while let Some(child) = child_of(leaf)? {
            leaf = child;
        }
        agent.settle(Duration::from_millis(700));
        let found = agent.server(leaf)?;
        let line = found.argv.join(" ");
        ensure!(line.contains(mark), "{argv:?}: the server is {line}");
        let named = agent.lines()?.into_iter().any(|p| {
            matches!(&p.line, Line::Server(s) if s.server.id == found.server.id
                && s.package.as_deref() == Some(package) && s.digest.is_some())
        });
        ensure!(named, "{argv:?}: not identified as {package}");
        let calls = agent.observed(&found.server.id)?.calls;
        ensure!(calls.len() == 1, "{argv:?}: {} calls", calls.len());
        println!("{}: {package}, leaf {leaf} of {}, startup {:?}", argv[0], client.pid(), found.startup);
    }
    let found = servers(&agent)?;
    ensure!(found.len() == chains.len(), "one server a chain: {found:?}");
    Ok(())
}

/// The one child of a process.
fn child_of(pid: u32) -> Result<Option<u32>> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split_whitespace().next().and_then(|c| c.parse().ok()))
}
