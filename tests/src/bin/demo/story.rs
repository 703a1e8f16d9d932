//! What the product is for, from beginning to end: learned, ratified, attacked, denied in the kernel, frozen, explained, released.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::{self, Agent},
    client::{Client, Manner},
    person::person,
    scenario::program,
};
use engine::{
    output::Line,
    respond::{Action, Verdict},
};
use serde_json::{Value, json};

/// The server's only partner, and somebody else.
const PARTNER: [u8; 4] = [127, 72, 0, 1];
const STRANGER: [u8; 4] = [127, 72, 0, 2];
const CALLS: u32 = 20;
/// Longer than a call takes to settle: what two calls may have done teaches neither.
const SETTLE: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_secs(10);

struct Story<'a> {
    dir: &'a Path,
    server: Client,
}

impl Story<'_> {
    fn verb(&self, args: &[&str]) -> Result<Command> {
        let mut verb = Command::new(agent::executable()?);
        verb.args(args).arg("--control").arg(self.dir.join("control.sock"));
        Ok(verb)
    }

    /// Says what a person types, and does it.
    fn person(&self, args: &[&str]) -> Result<String> {
        println!("  $ toolwarden {}", args.join(" "));
        let done = person(&self.verb(args)?)?;
        ensure!(done.code == 0, "{args:?}: {}{}", done.out, done.err);
        Ok(done.out)
    }

    fn asked(&self, args: &[&str]) -> Result<Value> {
        let done = self.verb(args)?.args(["--format", "json"]).output()?;
        ensure!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(serde_json::from_slice(&done.stdout)?)
    }

    fn connect(&mut self, tool: &str, to: SocketAddr) -> Result<String> {
        let (_, reply) = self.server.call(tool, &json!({"acts": [{"do": "tcp", "to": to}]}))?;
        thread::sleep(SETTLE);
        Ok(reply.text().to_owned())
    }
}

fn listen(address: [u8; 4]) -> Result<SocketAddr> {
    let listener = TcpListener::bind(SocketAddr::new(address.into(), 0))?;
    let at = listener.local_addr()?;
    thread::spawn(move || listener.incoming().for_each(drop));
    Ok(at)
}

fn until<T>(what: &str, mut f: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = f()? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "{what}: not within {} s", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn tell() -> Result<()> {
    println!("\nA tool steps out of line\n");
    let dir = tempfile::tempdir()?;
    let responses = ["--respond", "medium=freeze", "--respond", "high=freeze"];
    let agent = Agent::start_in(dir.path(), &responses)?;
    let (partner, stranger) = (listen(PARTNER)?, listen(STRANGER)?);
    let server = Client::start(Command::new(program("contained")?), Manner::default())?;
    let pid = server.pid();
    let mut story = Story { dir: dir.path(), server };

    thread::sleep(SETTLE);
    for _ in 0..CALLS {
        story.connect("fetch", partner)?;
        story.server.call("summarise", &json!({"acts": []}))?;
        thread::sleep(SETTLE);
    }
    let name = until("it is known who it is", || {
        let all = story.asked(&["servers"])?;
        let row = all.as_array().and_then(|a| a.iter().find(|s| s["pid"] == pid)).cloned();
        Ok(row
            .filter(|s| s["identity"].as_str().is_some_and(|i| !i.is_empty()))
            .and_then(|s| Some(s["name"].as_str()?.to_owned())))
    })?;
    until("its calls are learned", || {
        let shown = story.asked(&["baseline", "show", &name]);
        Ok(shown.ok().filter(|s| s.to_string().contains(&partner.ip().to_string())))
    })?;
    println!(
        "1 learned: {CALLS} calls of `fetch`, which talks to {partner}; {CALLS} of `summarise`, which talks to nobody"
    );
    story.person(&["baseline", "ratify", &name])?;
    story.person(&["mode", &name, "enforce"])?;
    println!("2 ratified: what it did is what it may do, each tool for itself, and only while it is called");
    println!("  `fetch` connects to {partner}: {}", story.connect("fetch", partner)?);

    let attack = json!({"acts": [{"do": "tcp", "to": stranger}]});
    let (id, request) = story.server.compose("summarise", &attack);
    let began = Instant::now();
    story.server.send(&request)?;
    let frozen = agent.wait_for(
        PATIENCE,
        |l| matches!(l, Line::Response(r) if r.action == Action::Freeze && r.verdict == Verdict::Done),
    )?;
    println!("3 attacked: `summarise` connects to {stranger}");
    let Line::Response(response) = frozen else { anyhow::bail!("{frozen:?}") };
    println!(
        "4 denied in the kernel, and frozen {:.1} ms after the request: {}",
        began.elapsed().as_secs_f64() * 1e3,
        response.result
    );
    let object = format!("{}:", stranger.ip());
    let found = until("the finding is stored", || {
        let all = story.asked(&["findings", "list", "--all"])?;
        let is_it = |f: &&Value| f["object"].as_str().is_some_and(|o| o.starts_with(&object));
        Ok(all.as_array().and_then(|a| a.iter().find(is_it)).cloned())
    })?;
    println!("5 explained: {}", found["sentence"].as_str().unwrap_or_default());
    let told = story.person(&["findings", "explain", found["id"].as_str().context("an id")?])?;
    told.lines().for_each(|line| println!("    {line}"));
    story.person(&["respond", "release", &name])?;
    let reply = story.server.wait(&id)?;
    println!("6 released: it goes on, and its reply says {}", reply.text());
    ensure!(reply.text().contains("EPERM"), "the attack was not denied: {}", reply.text());
    println!("  `fetch` connects to {partner}: {}", story.connect("fetch", partner)?);
    Ok(())
}
