//! Servers that work while they come under a policy: no call that is permitted is denied because of the moment.

use std::{collections::BTreeMap, fs, net::TcpListener, process::Command, thread, time::Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    client::{Client, Manner, Reply},
    pace::{patient_ms, rounds},
    scenario::program,
};
use serde_json::{Value, json};

use super::{
    place::{Place, soon},
    story::{is_held, known},
};

const ALLOWED: &str = "127.73.0.1";

fn last(reply: &Reply) -> Result<String> {
    ensure!(reply.is_ok(), "{reply:?}");
    let mut results: Vec<String> = serde_json::from_str(reply.text())?;
    results.pop().context("no result")
}

fn call(client: &mut Client, tool: &str, acts: Value) -> Result<String> {
    last(&client.call(tool, &json!({"acts": acts}))?.1)
}

/// A server whose tool `fetch` does `act`, and whose tool `quiet` does nothing, as is learned and ratified; and its name.
fn ratified(place: &Place, act: &Value) -> Result<(Client, String)> {
    let exe = place.path().join("bound");
    fs::copy(program("contained")?, &exe)?;
    let start = || Client::start(Command::new(&exe), Manner::default());
    // The hooks are attached when this one is known: the next is seen from its first instruction, which a policy on files asks for.
    let first = start()?;
    known(place, first.pid())?;
    let mut client = start()?;
    drop(first);
    let row = known(place, client.pid())?;
    let name = row["name"].as_str().context("a name")?.to_owned();
    for _ in 0..5 {
        ensure!(call(&mut client, "fetch", json!([act]))? == "ok");
        call(&mut client, "quiet", json!([{"do": "sleep", "ms": 1}]))?;
        thread::sleep(patient_ms(60));
    }
    soon("its calls are learned", || {
        let shown = place.ask(&["baseline", "show", &name, "--format", "json"])?;
        Ok((shown.code == 0 && shown.out.contains(ALLOWED)).then_some(()))
    })?;
    place.person(&["baseline", "ratify", &name])?.good()?;
    Ok((client, name))
}

/// From then on it is held to its policy, or is not.
fn set_mode(place: &Place, name: &str, enforce: bool) -> Result<()> {
    place.person(&["mode", name, if enforce { "enforce" } else { "watch" }])?.good()?;
    soon("it is held, or is not", || Ok((is_held(place, name)? == enforce).then_some(())))
}

#[test]
fn a_call_in_flight_keeps_its_rights() -> Result<()> {
    let place = Place::new()?;
    let listener = TcpListener::bind((ALLOWED, 0))?;
    let at = listener.local_addr()?;
    thread::spawn(move || listener.incoming().for_each(drop));
    let _agent = place.start()?;
    let connect = json!({"do": "tcp", "to": at});
    let (mut client, name) = ratified(&place, &connect)?;
    for round in 0..3 {
        let wait = json!({"do": "sleep", "ms": patient_ms(1000).as_millis() as u64});
        let (id, line) = client.compose("fetch", &json!({"acts": [wait, connect]}));
        client.send(&line)?;
        thread::sleep(patient_ms(100));
        set_mode(&place, &name, true)?;
        let said = last(&client.wait(&id)?)?;
        ensure!(said == "ok", "round {round}: a permitted connection of the call in flight: {said}");
        for again in 0..3 {
            let said = call(&mut client, "fetch", json!([connect]))?;
            ensure!(said == "ok", "round {round}: a permitted connection, {again}: {said}");
        }
        thread::sleep(patient_ms(100));
        let said = call(&mut client, "quiet", json!([connect]))?;
        ensure!(said == "EPERM", "round {round}: another tool's connection: {said}");
        // While nobody is held, calls pass by uncounted.
        set_mode(&place, &name, false)?;
        ensure!(call(&mut client, "quiet", json!([connect]))? == "ok");
    }
    Ok(())
}

#[test]
fn what_is_permitted_goes_on_while_policies_come_and_go() -> Result<()> {
    let place = Place::new()?;
    let _agent = place.start()?;
    let send = json!({"do": "udp-connected", "to": format!("{ALLOWED}:9")});
    let (mut client, name) = ratified(&place, &send)?;
    // Programs of the kernel are at work all the time, and look at what is taken away.
    let lasts = patient_ms(5_000) * rounds(1) as u32;
    let acts = json!([{"do": "many", "ms": lasts.as_millis() as u64, "act": send}]);
    let (id, line) = client.compose("fetch", &json!({"acts": acts}));
    client.send(&line)?;
    let (begin, mut changes) = (Instant::now(), 0);
    while begin.elapsed() < lasts {
        set_mode(&place, &name, true)?;
        set_mode(&place, &name, false)?;
        changes += 2;
    }
    let said = last(&client.wait(&id)?)?;
    println!("{changes} changes: {said}");
    let results: BTreeMap<String, Value> = serde_json::from_str(&said)?;
    ensure!(results.keys().eq(["ok"]), "what is permitted, during {changes} changes: {said}");
    Ok(())
}
