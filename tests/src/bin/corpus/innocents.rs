//! Benign servers in `enforce`: they learn, a person ratifies, and then they do what they never did before, with arguments that they
//! never saw. What is denied to them stays within what the baseline said it would be; nobody is killed; and who is not tracked
//! notices nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::{self, Agent},
    corpus::Part,
    person::person,
};
use engine::output::{Effect, Line};
use engine::respond::{Action, Verdict};
use serde_json::Value;

use crate::{Options, servers, session};

/// Sessions of each part, and calls of a session.
const SESSIONS: u64 = 12;
const CALLS: u64 = 24;
/// Who takes part when nobody is named: those with network use of every sort, and two without.
const WHO: [&str; 6] = ["api", "filesystem", "mailer", "feeds", "cache", "notes"];

pub(crate) fn run(options: &Options) -> Result<()> {
    let dir = PathBuf::from("/srv/corpus/innocents");
    fs::create_dir_all(&dir)?;
    let agent = Agent::start_in_with(&dir, &["--respond", "critical=kill"], |text| {
        ["\"coverage\"", "\"denied\"", "\"response\"", "\"identified\"", "\"found\""]
            .iter()
            .any(|kind| text.contains(kind))
    })?;
    let wanted = |name: &str| match options.only.is_empty() {
        true => WHO.contains(&name),
        false => options.only.iter().any(|only| only == name),
    };
    let servers: Vec<_> = servers::all().into_iter().filter(|s| wanted(s.name)).collect();
    for server in &servers {
        for number in 0..SESSIONS {
            session::benign(server, Part::Train, number, CALLS)?;
        }
    }
    let verb = |args: &[&str]| {
        let mut verb = Command::new(agent::executable()?);
        verb.args(args).arg("--control").arg(dir.join("control.sock"));
        let done = person(&verb)?;
        ensure!(done.code == 0, "{args:?}: {}{}", done.out, done.err);
        Ok(done.out)
    };
    let learned: Vec<Value> = serde_json::from_str(&verb(&["baseline", "list", "--format", "json"])?)?;
    let (mut expected, mut identities) = (BTreeMap::new(), BTreeMap::new());
    for row in &learned {
        let identity = row["key"].as_str().or(row["identity"].as_str()).with_context(|| format!("{row}"))?;
        let name = row["name"].as_str().map_or_else(|| name_of(identity), str::to_owned);
        // Other servers of this host are none of ours.
        let is_it = |s: &&servers::Server| {
            name == format!("{}-server", s.name) || name.ends_with(&format!("/server-{}", s.name))
        };
        if !servers.iter().any(|s| is_it(&s)) {
            continue;
        }
        verb(&["baseline", "ratify", identity])?;
        verb(&["mode", &name, "enforce"])?;
        let policy: Value = serde_json::from_str(&verb(&["policy", "show", identity, "--format", "json"])?)?;
        let at_most = policy["expected"]["at_most"].as_f64().context("what is expected to be denied")?;
        identities.insert(name.clone(), identity.to_owned());
        expected.insert(name, at_most);
    }
    ensure!(expected.len() == servers.len(), "{} baselines of {} servers", expected.len(), servers.len());

    let before = agent.lines()?.len();
    let (over, bystander) = (AtomicBool::new(false), Bystander::default());
    thread::scope(|scope| {
        scope.spawn(|| bystander.goes_about(&over));
        let done = servers.iter().try_for_each(|server| {
            (0..SESSIONS).try_for_each(|n| session::benign(server, Part::HeldOut, n, CALLS).map(drop))
        });
        over.store(true, Ordering::Relaxed);
        done
    })?;
    caught_up(&agent)?;
    let lines: Vec<Line> = agent.lines()?.into_iter().skip(before).map(|p| p.line).collect();
    let mut faults = told(&lines, &expected);
    println!("exposure: server, scope, calls, rights, open s, right x s, standing right x s, share");
    for (name, identity) in &identities {
        let shown = verb(&["policy", "exposure", identity, "--format", "json"])?;
        faults.extend(exposed(name, &serde_json::from_str(&shown)?)?);
    }
    let (acts, refused) = (bystander.acts.into_inner(), bystander.refused.into_inner());
    println!("innocents: {acts} acts of a process that is not tracked, {refused} refused");
    ensure!(acts > 100 && refused == 0, "who is not tracked was refused something");
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    drop(agent);
    Ok(())
}

/// Waits until the agent has told all: on a busy machine it is behind.
fn caught_up(agent: &Agent) -> Result<()> {
    const ROUNDS: usize = 60;
    let mut told = 0;
    for _ in 0..ROUNDS {
        thread::sleep(Duration::from_secs(2));
        let now = agent.lines()?.len();
        if now == told {
            return Ok(());
        }
        told = now;
    }
    anyhow::bail!("the agent is still telling of sessions that are over")
}

fn name_of(identity: &str) -> String {
    let name = identity.split_once('/').map_or(identity, |(_, rest)| rest);
    name.split_once('@').map_or(name, |(name, _)| name).to_owned()
}

/// Lists what was denied, server by server; and says what should not be.
fn told(lines: &[Line], expected: &BTreeMap<String, f64>) -> Vec<String> {
    let mut denied: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut objects: BTreeMap<(&str, String, String), u64> = BTreeMap::new();
    let mut sessions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut faults = Vec::new();
    for line in lines {
        match line {
            Line::Server(s) => {
                sessions.entry(&s.server.name).or_default().insert(&s.server.id);
            }
            Line::Effect(e) => {
                if let Effect::Denied { op, object, .. } = &*e.effect {
                    *denied.entry(&e.server.name).or_default().entry(&e.server.id).or_default() += e.count;
                    let tool = e.scope.tool.as_deref().unwrap_or("no call").to_owned();
                    *objects.entry((&e.server.name, tool, format!("{op} {object}"))).or_default() += e.count;
                }
            }
            Line::Response(r)
                if r.verdict == Verdict::Done
                    && matches!(r.action, Action::KillServer | Action::KillChild) =>
            {
                faults.push(format!("killed: {r:?}"));
            }
            _ => {}
        }
    }
    println!("innocents: server, held-out sessions, of them denied something, at most expected");
    for (name, at_most) in expected {
        let all = sessions.get(name.as_str()).map_or(0, BTreeSet::len) as u64;
        let some = denied.get(name.as_str()).map_or(0, BTreeMap::len) as u64;
        println!("  {name:<24} {all:>4} {some:>4} {:>6.1} %", at_most * 100.0);
        if all < SESSIONS {
            faults.push(format!("{name}: only {all} sessions were seen"));
        }
        if some > most_of(all, *at_most) {
            faults.push(format!(
                "{name}: {some} of {all} sessions were denied something; expected {at_most:.3} at most"
            ));
        }
    }
    for ((server, tool, what), count) in &objects {
        println!("  denied: {server} {tool}: {what} (x{count})");
    }
    faults
}

/// Tells how far rights were open, and what of that cannot be.
fn exposed(name: &str, exposure: &Value) -> Result<Option<String>> {
    let number = |of: &Value, key: &str| of[key].as_f64().with_context(|| format!("{name}: no {key}"));
    let row = |scope: &str, calls: &Value, open: f64, of: &Value| -> Result<f64> {
        let share = of["share"].as_f64().unwrap_or(0.0);
        let (right_s, standing) = (number(of, "right_s")?, number(of, "standing_right_s")?);
        println!(
            "  {name} | {scope} | {} | {} | {open:.2} | {right_s:.1} | {standing:.1} | {:.1} %",
            calls.as_u64().map_or_else(|| "-".into(), |n| n.to_string()),
            of["rights"],
            share * 100.0
        );
        Ok(share)
    };
    let observed = number(exposure, "observed_s")?;
    row("all rights", &Value::Null, observed, &exposure["all"])?;
    let share = row("opened by calls and start-up", &Value::Null, observed, &exposure["opened"])?;
    for scope in exposure["scopes"].as_array().context("scopes")? {
        let open = number(scope, "open_s")?;
        row(scope["scope"].as_str().unwrap_or_default(), &scope["calls"], open, &scope["surface"])?;
    }
    println!(
        "  {name}: {} requests not understood, {} calls expired, {:.3} s of ceiling",
        exposure["not_understood"],
        exposure["expired"],
        number(exposure, "ceiling_s")?
    );
    Ok((observed == 0.0 || share >= 1.0).then(|| format!("{name}: nothing is gained: {exposure}")))
}

/// The number that a binomial count of `n` trials exceeds one time in a thousand.
fn most_of(n: u64, p: f64) -> u64 {
    let mut sum = 0.0;
    let mut term = (1.0 - p).powf(n as f64);
    for k in 0..n {
        sum += term;
        if sum >= 0.999 {
            return k;
        }
        term *= (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
    }
    n
}

/// A process of no server: this one.
#[derive(Default)]
struct Bystander {
    acts: AtomicU64,
    refused: AtomicU64,
}

impl Bystander {
    fn goes_about(&self, over: &AtomicBool) {
        let act = |ok: bool| {
            self.acts.fetch_add(1, Ordering::Relaxed);
            self.refused.fetch_add(u64::from(!ok), Ordering::Relaxed);
        };
        while !over.load(Ordering::Relaxed) {
            // Hosts that no baseline has.
            act(TcpStream::connect(("10.9.8.7", 4444)).is_ok());
            act(TcpStream::connect(("93.184.77.88", 443)).is_ok());
            act(std::net::UdpSocket::bind("0.0.0.0:0")
                .and_then(|s| s.send_to(b"x", ("8.8.8.8", 53)))
                .is_ok());
            act(Command::new("true").status().is_ok_and(|s| s.success()));
            act(fs::read(Path::new("/etc/passwd")).is_ok());
            thread::sleep(Duration::from_millis(50));
        }
    }
}
