//! What is a server and what is not, and which process of a chain it is.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Link, Manner},
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
    let pipeline = Command::new("sh")
        .args(["-c", "find / -maxdepth 2 | xargs -n1 echo | sort | tail -1"])
        .output()?;
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
            cat.send(b"{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}\n")?;
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
        r#"env X=1 nice -n 1 "$0" "$@"; exit $?"#,
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
