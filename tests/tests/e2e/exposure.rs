//! For how long rights are open: told by the agent, and held against what the client of the server knows.

use std::{
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    client::{Client, Manner},
    pace::patient,
    scenario::program,
};
use serde_json::{Value, json};

use super::{
    place::{Place, soon},
    story::known,
};

const ALLOWED: &str = "127.73.0.1";
/// The settling time, and two looks of the agent, who may be kept from looking: a call is counted too long by that at most.
fn more() -> f64 {
    0.020 + patient(Duration::from_millis(100)).as_secs_f64()
}

fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn scope<'a>(told: &'a Value, name: &str) -> Result<&'a Value> {
    let all = told["scopes"].as_array().context("scopes")?;
    all.iter().find(|s| s["scope"] == name).with_context(|| format!("no {name} in {told:#}"))
}

fn number(value: &Value, key: &str) -> Result<f64> {
    value[key].as_f64().with_context(|| format!("no {key} in {value}"))
}

/// Calls a tool; gives for how long the client waited.
fn call(client: &mut Client, tool: &str, acts: &Value) -> Result<f64> {
    let began = Instant::now();
    let (_, reply) = client.call(tool, &json!({"acts": acts}))?;
    ensure!(reply.is_ok(), "{reply:?}");
    Ok(began.elapsed().as_secs_f64())
}

#[test]
fn rights_are_open_during_calls_and_while_their_children_live() -> Result<()> {
    let place = Place::new()?;
    let listener = TcpListener::bind((ALLOWED, 0))?;
    let at = listener.local_addr()?;
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let _agent = place.start()?;
    let connect = json!({"do": "tcp", "to": at});
    // Of a name of its own: whoever else runs here is none of this.
    let exe = place.path().join("exposed");
    std::fs::copy(program("contained")?, &exe)?;
    let mut client = Client::start(Command::new(exe), Manner::default())?;
    let row = known(&place, client.pid())?;
    let name = row["name"].as_str().context("a name")?.to_owned();
    for _ in 0..5 {
        call(&mut client, "fetch", &json!([connect]))?;
        call(&mut client, "quiet", &json!([]))?;
        sleep_ms(60);
    }
    soon("its calls are learned", || {
        let shown = place.ask(&["baseline", "show", &name, "--format", "json"])?;
        Ok((shown.code == 0 && shown.out.contains(ALLOWED)).then_some(()))
    })?;
    let none = place.ask(&["policy", "exposure", &name])?;
    ensure!(none.code == 1 && none.err.contains("enforce"), "{}: {}", none.code, none.err);
    place.person(&["baseline", "ratify", &name])?.good()?;
    let began = Instant::now();
    place.person(&["mode", &name, "enforce"])?.good()?;
    let ask = || place.ask(&["policy", "exposure", &name, "--format", "json"])?.json();
    soon("it is counted", || Ok((number(&ask()?, "observed_s")? > 0.0).then_some(())))?;
    // Where lines begin is not known yet: what comes first is not understood.
    call(&mut client, "quiet", &json!([]))?;
    let not_understood = |n: u64| {
        soon("what is not understood is counted", || {
            let told = ask()?;
            Ok((told["not_understood"].as_u64() >= Some(n)).then_some(told))
        })
    };
    not_understood(1)?;
    sleep_ms(300);
    let first = ask()?;
    ensure!(first["not_understood"] == 1, "{first:#}");
    let since_first = |told: &Value, name: &str, key: &str| -> Result<f64> {
        Ok(number(scope(told, name)?, key)? - number(scope(&first, name)?, key)?)
    };

    // Calls of a known length, and pauses.
    let mut waited = 0.0;
    for _ in 0..4 {
        waited += call(&mut client, "fetch", &json!([connect, {"do": "sleep", "ms": 150}]))?;
        sleep_ms(350);
    }
    let told = ask()?;
    let elapsed = began.elapsed().as_secs_f64();
    let fetch = scope(&told, "tool fetch")?;
    let open = since_first(&told, "tool fetch", "open_s")?;
    ensure!((0.6 + 4.0 * 0.002..waited + 4.0 * more()).contains(&open), "{waited} s of calls: {told:#}");
    ensure!(fetch["calls"] == 4 && since_first(&told, "tool quiet", "open_s")? == 0.0, "{told:#}");
    ensure!(number(fetch, "outlived_s")? == 0.0, "{told:#}");
    // What the kernel counted itself: calls did not overlap, so it is the same but for the looks.
    let by_kernel = since_first(&told, "tool fetch", "calls_s")?;
    ensure!((open - by_kernel).abs() < 4.0 * more(), "{open} s, and {by_kernel} s by the kernel");
    let observed = number(&told, "observed_s")?;
    ensure!(observed > 1.9 && observed < elapsed, "{observed} s of {elapsed} s");
    let surface = &fetch["surface"];
    let (rights, share) = (number(surface, "rights")?, number(surface, "share")?);
    ensure!(rights >= 1.0, "it opens no right: {told:#}");
    let whole = number(fetch, "open_s")?;
    ensure!((share - whole / observed).abs() < 1e-6 && share < 0.7, "{told:#}");
    ensure!((number(surface, "standing_right_s")? - rights * observed).abs() < 1e-6, "{told:#}");
    let (all, opened) = (&told["all"], &told["opened"]);
    ensure!(number(opened, "share")? < 0.7 && number(all, "share")? <= 1.0, "{told:#}");
    ensure!(number(all, "right_s")? >= number(opened, "right_s")?, "{told:#}");
    ensure!(told["held"] == 1 && told["expired"] == 0 && told["not_understood"] == 1, "{told:#}");

    // A child keeps its call's rights: they are open for as long as it lives.
    call(&mut client, "fetch", &json!([{"do": "child", "ms": 1500, "to": at}]))?;
    sleep_ms(500);
    let during = number(scope(&ask()?, "tool fetch")?, "outlived_s")?;
    sleep_ms(1400);
    call(&mut client, "quiet", &json!([{"do": "reap"}]))?;
    // The client has its answer before the agent has looked again.
    let after = soon("the last call is counted", || {
        let told = ask()?;
        Ok((since_first(&told, "tool quiet", "open_s")? > 0.0).then_some(told))
    })?;
    let outlived = number(scope(&after, "tool fetch")?, "outlived_s")?;
    ensure!(during > 0.2 && during < outlived, "{during} s while the child lives: {after:#}");
    ensure!((1.4..patient(Duration::from_millis(2000)).as_secs_f64()).contains(&outlived), "{after:#}");
    ensure!(number(scope(&after, "tool fetch")?, "open_s")? - whole > 1.45, "{after:#}");
    let quiet = since_first(&after, "tool quiet", "open_s")?;
    ensure!(quiet < patient(Duration::from_millis(500)).as_secs_f64(), "{after:#}");

    // One that is not answered yet is counted as it goes on.
    let before = number(scope(&after, "tool fetch")?, "open_s")?;
    let (id, line) = client.compose("fetch", &json!({"acts": [{"do": "sleep", "ms": 1500}]}));
    client.send(&line)?;
    sleep_ms(700);
    let half = number(scope(&ask()?, "tool fetch")?, "open_s")? - before;
    ensure!((0.3..1.5 + 2.0 * more()).contains(&half), "{half} s of a call that goes on");
    ensure!(client.wait(&id)?.is_ok());

    // What the kernel does not understand opens all rights, for a few milliseconds.
    let (id, line) = client.compose("quiet", &json!({"acts": []}));
    client.send(String::from_utf8(line)?.replace("tools/call", "tools\\/call").as_bytes())?;
    ensure!(client.wait(&id)?.is_ok());
    let told = not_understood(2)?;
    ensure!(told["not_understood"] == 2, "{told:#}");
    let ceiling = number(&told, "ceiling_s")? - number(&after, "ceiling_s")?;
    ensure!(ceiling > 0.0 && ceiling < patient(Duration::from_millis(500)).as_secs_f64(), "{told:#}");

    let page = place.ask(&["policy", "exposure", &name])?.good()?;
    println!("{page}");
    ensure!(page.contains("tool fetch") && page.contains("right x s"), "{page}");
    // It is counted no more when nobody is held.
    drop(client);
    soon("it has ended", || Ok((ask()?["held"] == 0).then_some(())))?;
    let still = number(&ask()?, "observed_s")?;
    sleep_ms(300);
    ensure!(number(&ask()?, "observed_s")? == still, "time goes on without servers");
    Ok(())
}
