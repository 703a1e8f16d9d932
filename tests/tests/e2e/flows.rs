//! What flows are told as: the bytes that a stream carries, each once.

use std::{
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use e2e::{
    agent::Agent,
    client::{Client, Manner},
    pace::patient_ms,
    scenario::program,
    sys::{deaf, dropped},
};
use engine::output::Effect;
use serde_json::{Value, json};

const PEER: &str = "127.79.0.1";
const BYTES: u64 = 1_000;

/// Runs while the peer hears nothing, until it has not heard at least three packets.
fn unheard(peer: &TcpStream, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = dropped(peer)?;
    deaf(peer, true)?;
    act()?;
    let end = Instant::now() + patient_ms(20_000);
    while dropped(peer)? < before + 3 {
        ensure!(Instant::now() < end, "{} packets were not heard", dropped(peer)? - before);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(deaf(peer, false)?)
}

#[test]
fn what_is_sent_again_is_counted_once() -> Result<()> {
    let listener = TcpListener::bind((PEER, 0))?;
    let at = listener.local_addr()?;
    let agent = Agent::start(&[])?;
    let mut client = Client::start(Command::new(program("contained")?), Manner::default())?;
    let server = agent.server(client.pid())?;
    let mut call = |acts: Value| -> Result<()> {
        let (_, reply) = client.call("stream", &json!({"acts": acts}))?;
        let results: Vec<String> = serde_json::from_str(reply.text())?;
        ensure!(results.iter().all(|r| r == "ok"), "{results:?}");
        Ok(())
    };
    call(json!([{"do": "hold", "as": "peer", "to": at}]))?;
    let (peer, _) = listener.accept()?;
    unheard(&peer, || call(json!([{"do": "write", "as": "peer", "bytes": BYTES}])))?;
    // Its answers are not heard, so that the server gets all again, having it.
    unheard(&peer, || {
        std::io::Write::write_all(&mut &peer, &vec![7; BYTES as usize])?;
        call(json!([{"do": "read", "as": "peer"}]))
    })?;
    // What was sent again while the filter went away is on its way.
    thread::sleep(patient_ms(1_000));
    agent.rest();
    let mut told = [0, 0];
    for line in agent.observed(&server.server.id)?.effects {
        if let Effect::Flow { address, port, bytes_out, bytes_in, .. } = &*line.effect
            && (address.as_str(), *port) == (PEER, at.port())
        {
            println!("{bytes_out} out, {bytes_in} in: {:?}", line.scope);
            told = [told[0] + bytes_out, told[1] + bytes_in];
        }
    }
    ensure!(told == [BYTES, BYTES], "of {BYTES} bytes each way, {told:?} were told");
    Ok(())
}
