//! Metrics and health.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{client::Manner, pace::patient, scenario::Oracle, sys, workspace, world::World};

use super::{
    super::place::{Place, SECOND, soon},
    DENY, Running,
};

/// An address of this test's own.
pub(super) fn free(last: u8) -> Result<SocketAddr> {
    let ip = Ipv4Addr::new(127, 94, 65, last);
    let listener = std::net::TcpListener::bind((ip, 0))?;
    Ok(listener.local_addr()?)
}

/// What is answered there: status and body.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    request(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
}

fn request(address: SocketAddr, text: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, 2 * SECOND)?;
    stream.set_read_timeout(Some(patient(5 * SECOND)))?;
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let code = head.split(' ').nth(1).and_then(|c| c.parse().ok()).with_context(|| head.to_owned())?;
    Ok((code, body.to_owned()))
}

/// The value of a sample.
fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Until a path answers with this status.
fn becomes(address: SocketAddr, path: &str, code: u16) -> Result<String> {
    let end = Instant::now() + patient(20 * SECOND);
    loop {
        match get(address, path) {
            Ok((is, body)) if is == code => return Ok(body),
            other => ensure!(Instant::now() < end, "{path}: {other:?}, and not {code}"),
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The process that serves metrics.
fn server_of(agent: u32) -> Result<u32> {
    let tasks = fs::read_dir(format!("/proc/{agent}/task"))?.flatten();
    let children = tasks.map(|t| fs::read_to_string(t.path().join("children")).unwrap_or_default());
    for pid in children.collect::<Vec<_>>().join(" ").split_whitespace() {
        if fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default() == b"toolwarden\0metrics\0" {
            return Ok(pid.parse()?);
        }
    }
    bail!("the agent has no process for its metrics")
}

#[test]
fn metrics_and_health() -> Result<()> {
    let (world, place, other) = (World::new()?, Place::new()?, Place::new()?);
    place.rule("deny.yaml", DENY)?;
    let address = free(8)?;
    let config = format!("[metrics]\nlisten = '{address}'\n");
    let mut agent = Running::start(&place, &[], &config, &[])?;
    agent.answers(&place)?;
    becomes(address, "/readyz", 200)?;
    let mut oracle = Oracle::start(&world, "service", Manner::default())?;
    oracle.call("open_read")?;
    let text = soon("the call and the finding are counted", || {
        let text = get(address, "/metrics")?.1;
        let counted = |name: &str| sample(&text, name).is_some_and(|n| n >= 1.0);
        let all =
            ["toolwarden_calls_total", "toolwarden_servers", "toolwarden_findings_total{severity=\"high\"}"];
        Ok(all.iter().all(|name| counted(name)).then_some(text))
    })?;
    for (name, least) in [
        ("toolwarden_records_total{kind=\"open\"}", 1.0),
        ("toolwarden_kernel_written_total", 1.0),
        ("toolwarden_hook_runs_total{hook=\"lifecycle/exec\"}", 1.0),
        ("toolwarden_hook_runs_total{hook=\"syscalls\"}", 10.0),
        ("toolwarden_hook_runs_total{hook=\"cgroup/connect4\"}", 0.0),
        ("toolwarden_engine_seconds_count", 1.0),
        ("toolwarden_record_delay_seconds_sum", 1e-7),
        ("toolwarden_resident_memory_bytes", 1e6),
        ("toolwarden_store_written_total", 1.0),
        ("toolwarden_lost_total{cause=\"ring:exec\"}", 0.0),
        ("toolwarden_coverage{hook=\"syscalls\",state=\"blind\"}", 0.0),
    ] {
        ensure!(sample(&text, name).is_some_and(|n| n >= least), "{name}: {:?}", sample(&text, name));
    }
    checked(&text)?;
    ensure!(get(address, "/healthz")?.0 == 200 && get(address, "/")?.0 == 404, "health");
    ensure!(
        request(address, "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")?.0 == 405,
        "POST"
    );

    // Others who come, say nothing or nonsense, and stay, hold nobody up for long.
    let mut idlers = Vec::new();
    for n in 0..100 {
        let mut stream = TcpStream::connect(address)?;
        if n % 2 == 0 {
            // It may be closed already.
            drop(stream.write_all(b"\x16\x03\x01 nonsense\r\n"));
        }
        idlers.push(stream);
    }
    becomes(address, "/metrics", 200)?;
    drop(idlers);

    // It is nobody, and may do next to nothing.
    let process = server_of(agent.pid())?;
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let field =
        |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    ensure!(!field("Uid:").starts_with("0\t") && field("Seccomp:") == "2", "{status}");
    ensure!(field("CapEff:").trim_matches('0').is_empty() && field("NoNewPrivs:") == "1", "{status}");

    // The port is taken: the other agent works nevertheless, and says so.
    let mut second = Running::start(&other, &[], &config, &[])?;
    second.answers(&other)?;
    let told = soon("it is told", || {
        let status = other.ask(&["status", "--format", "json"])?.json()?;
        Ok((status["metrics"]["state"] == "failing").then_some(status["metrics"].clone()))
    })?;
    ensure!(told["because"].as_str().is_some_and(|b| b.contains(&address.to_string())), "{told}");
    ensure!(second.errors().contains("choose another `metrics.listen`"), "{}", second.errors());
    drop(second);

    // Killed, it comes back. An agent that stands still is told by its silence, and its last numbers are not served.
    sys::kill(process, libc::SIGKILL)?;
    becomes(address, "/metrics", 200)?;
    ensure!(server_of(agent.pid())? != process, "the same process");
    sys::kill(agent.pid(), libc::SIGSTOP)?;
    let stale = becomes(address, "/healthz", 503);
    let numbers = get(address, "/metrics");
    sys::kill(agent.pid(), libc::SIGCONT)?;
    ensure!(stale?.contains("said nothing for") && numbers?.0 == 503, "stale numbers are served");
    becomes(address, "/healthz", 200)?;
    ensure!(agent.stop()? == 0, "{}", agent.errors());
    ensure!(TcpStream::connect_timeout(&address, SECOND).is_err(), "somebody still listens at {address}");
    Ok(())
}

/// Prometheus' own check says nothing against it, and something against what is broken.
fn checked(text: &str) -> Result<()> {
    let promtool = workspace().join("target/e2e/prometheus/usr/bin/promtool");
    ensure!(promtool.is_file(), "no {}: cargo xtask setup --tests", promtool.display());
    let check = |text: &str| -> Result<(bool, String)> {
        let mut command = Command::new(&promtool);
        command
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().context("stdin")?.write_all(text.as_bytes())?;
        let done = child.wait_with_output()?;
        let said = [done.stdout, done.stderr].concat();
        Ok((done.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (good, said) = check(text)?;
    ensure!(good && said.trim().is_empty(), "{said}");
    let (good, _) = check(&text.replace("# HELP toolwarden_calls_total", "# toolwarden_calls_total"))?;
    ensure!(!good, "promtool finds nothing wrong with anything");
    Ok(())
}
