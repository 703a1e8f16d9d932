//! `watch`: live lines with filters, and what becomes of a reader that does not read; many clients at once.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    client::{Client, Manner},
    pace::patient,
    scenario::program,
    sys,
};
use serde_json::{Value, json};

use super::{
    place::{Place, SECOND, soon},
    story::known,
};

/// Lines that a watcher may leave unread: those that wait in the agent, and what fits into its socket and pipe.
const ENOUGH: usize = 3000;
/// Calls between looks at the other watcher: the agent is not to be flooded.
const STEP: usize = 50;

struct Watcher {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _unused = self.child.kill();
        let _unused = self.child.wait();
    }
}

impl Watcher {
    fn start(place: &Place, args: &[&str]) -> Result<Self> {
        let args = [&["watch"], args].concat();
        let mut child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let out = BufReader::new(child.stdout.take().context("stdout")?);
        let (send, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Ok(Self { child, lines })
    }

    fn next(&self) -> Result<Value> {
        let line = self.lines.recv_timeout(patient(5 * SECOND)).context("no line comes")?;
        Ok(serde_json::from_str(&line)?)
    }
}

fn server(place: &Place, name: &str) -> Result<Client> {
    let exe = place.path().join(name);
    std::fs::copy(program("contained")?, &exe)?;
    Client::start(Command::new(exe), Manner::default())
}

fn call(client: &mut Client, tool: &str) -> Result<()> {
    let (_, reply) = client.call(tool, &json!({"acts": []}))?;
    ensure!(reply.is_ok(), "{reply:?}");
    Ok(())
}

#[test]
fn who_watches_is_told_what_they_asked_for() -> Result<()> {
    let place = Place::new()?;
    let _agent = place.start()?;
    let mut seen = server(&place, "seen-one")?;
    let mut other = server(&place, "other-one")?;
    let name = known(&place, seen.pid())?["name"].as_str().context("a name")?.to_owned();
    known(&place, other.pid())?;
    let calls = Watcher::start(
        &place,
        &["--server", &name, "--tool", "fe*", "--type", "call", "--format", "ndjson"],
    )?;
    let words = Watcher::start(&place, &["--server", &name])?;
    // They are there when something comes; what was before does not.
    soon("both watch", || {
        call(&mut seen, "fetch")?;
        let text = words.lines.try_iter().any(|line| line.contains("fetch"));
        Ok((text && calls.lines.try_iter().count() > 0).then_some(()))
    })?;
    while calls.lines.recv_timeout(Duration::from_millis(300)).is_ok() {}
    call(&mut other, "fetch")?;
    call(&mut seen, "quiet")?;
    call(&mut seen, "fetch")?;
    let line = calls.next()?;
    ensure!(line["type"] == "call" && line["server"]["name"] == *name, "{line}");
    ensure!(line["scope"]["tool"] == "fetch", "{line}");
    ensure!(calls.lines.recv_timeout(Duration::from_millis(300)).is_err(), "more than was asked for");
    let listed = place.ask(&["calls", "--server", &name, "--tool", "quiet", "--format", "json"])?.json()?;
    ensure!(listed.as_array().is_some_and(|all| all.len() == 1), "{listed}");
    ensure!(place.ask(&["calls"])?.good()?.contains("quiet"));
    // A filter that cannot be meant is refused, as are watchers beyond the limit.
    let wrong = place.ask(&["watch", "--type", "calls"])?;
    ensure!(wrong.code == 5 && wrong.err.contains("`calls`"), "{}: {}", wrong.code, wrong.err);
    let more = [Watcher::start(&place, &[])?, Watcher::start(&place, &[])?];
    for watcher in &more {
        soon("they watch too", || {
            call(&mut seen, "fetch")?;
            Ok((watcher.lines.try_iter().count() > 0).then_some(()))
        })?;
    }
    let refused = place.command(&["watch"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let (code, error) = ended(refused, patient(3 * SECOND))?.context("one more may watch")?;
    ensure!(code == 3 && error.contains("watch already"), "{code}: {error}");
    drop(more);
    // Who went makes room.
    soon("there is room again", || {
        let again = Watcher::start(&place, &["--server", &name, "--format", "ndjson"])?;
        call(&mut seen, "fetch")?;
        Ok(again.lines.recv_timeout(SECOND).is_ok().then_some(()))
    })
}

/// Exit code and error of a child, if it ends in time; else it is ended.
fn ended(mut child: Child, limit: Duration) -> Result<Option<(i32, String)>> {
    let end = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = child.wait()?;
    let mut text = String::new();
    child.stderr.take().context("stderr")?.read_to_string(&mut text)?;
    Ok(Some((status.code().unwrap_or(-1), text)))
}

#[test]
fn who_does_not_read_is_cut_off_with_a_count_and_slows_nobody() -> Result<()> {
    let place = Place::new()?;
    let _agent = place.start()?;
    let mut client = server(&place, "busy-one")?;
    let name = known(&place, client.pid())?["name"].as_str().context("a name")?.to_owned();
    let mut slow = Watcher::start(&place, &["--server", &name, "--type", "call", "--format", "ndjson"])?;
    let quick = Watcher::start(&place, &["--server", &name, "--type", "call", "--format", "ndjson"])?;
    soon("both watch", || {
        call(&mut client, "quiet")?;
        Ok((slow.lines.try_iter().count() > 0 && quick.lines.try_iter().count() > 0).then_some(()))
    })?;
    while quick.lines.recv_timeout(Duration::from_millis(300)).is_ok() {}
    while slow.lines.recv_timeout(Duration::from_millis(100)).is_ok() {}
    sys::kill(slow.child.id(), libc::SIGSTOP)?;
    for n in 0..ENOUGH / STEP {
        for _ in 0..STEP {
            call(&mut client, "quiet")?;
        }
        for _ in 0..STEP {
            quick.next().with_context(|| format!("after {n} steps, of the reader that reads"))?;
        }
    }
    sys::kill(slow.child.id(), libc::SIGCONT)?;
    let mut got = 0;
    let missed = loop {
        let line = slow.next()?;
        if line["type"] == "cut" {
            break line["missed"].as_u64().context("a count")?;
        }
        got += 1;
    };
    ensure!(got + missed == ENOUGH as u64, "{got} lines and {missed} that were missed");
    ensure!(missed > 0);
    let status = slow.child.wait()?;
    let mut said = String::new();
    slow.child.stderr.take().context("stderr")?.read_to_string(&mut said)?;
    ensure!(status.code() == Some(1) && said.contains(&missed.to_string()), "{status}: {said}");
    Ok(())
}

#[test]
fn ten_thousand_clients_leave_an_agent_that_answers() -> Result<()> {
    let place = Place::new()?;
    let agent = place.start()?;
    let mut client = server(&place, "served-one")?;
    known(&place, client.pid())?;
    let socket = place.path().join("control.sock");
    let before = agent.rss()?;
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..10_000 {
        match UnixStream::connect(&socket) {
            Ok(stream) => held.push(stream),
            Err(_) => refused += 1,
        }
        // Descriptors of this process are few; those that go have been clients, too.
        if held.len() >= 500 {
            held.drain(..250);
        }
    }
    println!("{refused} of 10,000 could not connect; {} are held", held.len());
    call(&mut client, "quiet")?;
    // While 250 and more are held, it answers; those who said nothing are let go in time.
    soon("it answers", || Ok((place.ask(&["status"])?.code == 0).then_some(())))?;
    let after = agent.rss()?;
    ensure!(after < before + (64 << 20), "from {before} to {after} bytes");
    drop(held);
    ensure!(place.ask(&["calls"])?.good()?.contains("quiet"), "the call was not seen");
    Ok(())
}
