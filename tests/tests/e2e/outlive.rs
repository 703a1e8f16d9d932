//! What is denied stays denied when the agent is killed, started again, or of another version; and is gone when it stops.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    agent::{self, Agent},
    client::{Client, Manner},
    pace::{patient, patient_ms},
    scenario::program,
    sys,
};
use engine::{
    output::{Line, ServerEvent, ServerLine},
    policy::{Family, NetRight, Policy, Ports, Tool},
};
use serde_json::{Value, json};

use super::{
    doctor::detach,
    lsm,
    place::{Place, SECOND, said, soon},
};

/// Permitted to the tool `net`.
pub(crate) const ALLOWED: &str = "127.73.0.1";
/// Permitted to nobody.
pub(crate) const OTHER: &str = "127.73.0.2";

/// A peer that counts its connections.
pub(crate) struct Peer {
    pub(crate) port: u16,
    taken: Arc<AtomicU64>,
}

impl Peer {
    pub(crate) fn new(address: &str, port: u16) -> Result<Self> {
        let listener = TcpListener::bind((address, port))?;
        let (port, taken) = (listener.local_addr()?.port(), Arc::<AtomicU64>::default());
        let count = Arc::clone(&taken);
        thread::spawn(move || {
            listener.incoming().for_each(|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        Ok(Self { port, taken })
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// A place whose agents hold every server to one policy.
pub(crate) struct Site {
    pub(crate) place: Place,
    hold: String,
    pub(crate) allowed: Peer,
    pub(crate) other: Peer,
}

impl Site {
    pub(crate) fn new() -> Result<Self> {
        let place = Place::new()?;
        let policy = Policy {
            identity: "0/contained@test".into(),
            generation: 1,
            tools: vec![
                Tool { name: "net".into(), bit: 0, settle_ns: 50_000_000 },
                Tool { name: "other".into(), bit: 1, settle_ns: 50_000_000 },
            ],
            connect: vec![NetRight {
                address: ALLOWED.parse()?,
                prefix: 32,
                ports: Ports { from: 1, to: 65535, protocol: 0 },
                mask: 1,
            }],
            families: vec![Family::Network, Family::Listen],
            ..Policy::default()
        };
        let file = place.path().join("hold.json");
        fs::write(&file, json!({"policy": serde_json::to_value(policy)?}).to_string())?;
        let allowed = Peer::new(ALLOWED, 0)?;
        let other = Peer::new(OTHER, allowed.port)?;
        Ok(Self { place, hold: file.display().to_string(), allowed, other })
    }

    pub(crate) fn start(&self, more: &[&str]) -> Result<Agent> {
        self.place.start_with(&[&["--hold", &self.hold], more].concat())
    }

    /// An agent that nobody waits for, and that tells nobody anything.
    pub(crate) fn launch(&self) -> Result<std::process::Child> {
        let dir = self.place.path();
        let mut command = self.place.command(&["run", "--hold", &self.hold, "--print", "json"]);
        command.arg("--state-dir").arg(dir.join("state")).arg("--guard").arg(dir.join("agent.lock"));
        command.arg("--pin-dir").arg(agent::pins(dir)).arg("--rules").arg(dir.join("rules"));
        command.stdout(std::process::Stdio::null()).stderr(fs::File::create(dir.join("stderr"))?);
        Ok(command.spawn()?)
    }

    pub(crate) fn act(&self, address: &str) -> Value {
        json!({"do": "tcp", "to": format!("{address}:{}", self.allowed.port)})
    }

    /// Layouts of pins.
    pub(crate) fn layouts(&self) -> Vec<PathBuf> {
        layouts(&self.place)
    }

    /// The map that every program of ours which denies uses.
    pub(crate) fn map(&self) -> Result<u32> {
        let layouts = self.layouts();
        let [layout] = layouts.as_slice() else { anyhow::bail!("pinned are {layouts:?}") };
        Ok(sys::pinned_map(&layout.join("maps/TREE_POLICY"))?)
    }
}

fn layouts(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(agent::pins(place.path())).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_dir()).collect();
    found.sort();
    found
}

pub(crate) fn server() -> Result<Client> {
    let mut client = Client::start(Command::new(program("contained")?), Manner::default())?;
    // The agent binds a tree when it reads of its exec: on a loaded machine not at once.
    thread::sleep(patient_ms(500));
    // Where lines begin is not known before one has passed: the rights of the call that it is part of end later than those of others.
    hurried(&mut client, "other", &json!({"do": "sleep", "ms": 1}))?;
    thread::sleep(patient_ms(200));
    Ok(client)
}

/// Calls a tool with one act; gives its result. Waits until its rights have ended.
pub(crate) fn call(client: &mut Client, tool: &str, act: &Value) -> Result<String> {
    let said = hurried(client, tool, act)?;
    thread::sleep(patient_ms(70));
    Ok(said)
}

fn hurried(client: &mut Client, tool: &str, act: &Value) -> Result<String> {
    let (_, reply) = client.call(tool, &json!({"acts": [act]}))?;
    ensure!(reply.is_ok(), "{reply:?}");
    let results: Vec<String> = serde_json::from_str(reply.text())?;
    results.into_iter().next().context("no result")
}

/// A server that does one thing over and over, in a thread of its own.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: thread::JoinHandle<Result<(Client, Vec<String>)>>,
}

impl Load {
    pub(crate) fn start(mut client: Client, tool: &'static str, act: Value) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let until = Arc::clone(&stop);
        let done = thread::spawn(move || {
            let mut said = Vec::new();
            client.patience = patient(20 * SECOND);
            while !until.load(Ordering::Relaxed) {
                said.push(hurried(&mut client, tool, &act)?);
                thread::sleep(Duration::from_millis(2));
            }
            Ok((client, said))
        });
        Self { stop, done }
    }

    /// What came of each.
    pub(crate) fn end(self) -> Result<(Client, Vec<String>)> {
        self.stop.store(true, Ordering::Relaxed);
        self.done.join().map_err(|_panic| anyhow::anyhow!("the load panicked"))?
    }
}

/// A child that a call starts connects after it.
fn child(client: &mut Client, site: &Site, tool: &str, address: &str) -> Result<String> {
    let to = format!("{address}:{}", site.allowed.port);
    let acts = json!({"acts": [{"do": "child", "to": to, "ms": 150}]});
    client.call(tool, &acts)?;
    thread::sleep(patient_ms(300));
    call(client, "other", &json!({"do": "reap"}))
}

fn holds(client: &mut Client, site: &Site, when: &str) -> Result<()> {
    let (allowed, other) = (site.act(ALLOWED), site.act(OTHER));
    for (tool, act, wanted) in
        [("net", &allowed, "ok"), ("other", &allowed, "EPERM"), ("net", &other, "EPERM")]
    {
        let said = call(client, tool, act)?;
        ensure!(said == wanted, "{when}: {tool} {act}: {said}");
    }
    for (tool, address, wanted) in
        [("net", ALLOWED, "[0]"), ("other", ALLOWED, "[256]"), ("net", OTHER, "[256]")]
    {
        let said = child(client, site, tool, address)?;
        ensure!(said == wanted, "{when}: a child of {tool} to {address}: {said}");
    }
    Ok(())
}

/// Until as many programs use a map.
fn programs(map: u32, wanted: usize) -> Result<()> {
    let count = soon("as many programs as before", || {
        let n = sys::programs_with(map).len();
        Ok((n == wanted).then_some(n))
    });
    count.map(drop).with_context(|| format!("{} programs instead of {wanted}", sys::programs_with(map).len()))
}

/// Nothing of an agent is left.
pub(crate) fn gone(site: &Site, map: u32) -> Result<()> {
    ensure!(site.layouts().is_empty(), "pinned are {:?}", site.layouts());
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let dir = site.place.path().display().to_string();
    ensure!(!mounts.contains(&dir), "something is mounted in {dir}");
    programs(map, 0)?;
    soon("its maps are gone", || Ok((!sys::bpf_ids(12).contains(&map)).then_some(())))
}

#[test]
fn the_agent_is_killed_and_started_again() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.start(&[])?;
    let mut client = server()?;
    holds(&mut client, &site, "before")?;
    let map = site.map()?;
    let before = sys::programs_with(map).len();
    let other = site.other.taken();
    ensure!(other == 0, "{other} connections");

    agent.stop(libc::SIGKILL)?;
    holds(&mut client, &site, "without an agent")?;
    let alone = sys::programs_with(map).len();
    ensure!(alone <= before && alone > 10, "{alone} programs go on, of {before}");
    // Its channels are partly this one's, and the next agent finds it gone.
    ensure!(call(&mut client, "other", &json!({"do": "nested", "path": "/bin/true"}))? == "ok");

    // At every moment of a start.
    let attack = Load::start(server()?, "net", site.act(OTHER));
    let benign = Load::start(client, "net", site.act(ALLOWED));
    let mut agent = site.start(&[])?;
    thread::sleep(patient_ms(500));
    let (_attacker, tried) = attack.end()?;
    let (mut client, done) = benign.end()?;
    // That one began without an agent, so nobody has bound it.
    let denied = done.iter().filter(|said| *said != "ok").count();
    println!(
        "{} acts while an agent started, {denied} of them denied; {} of another",
        done.len(),
        tried.len()
    );
    ensure!(denied == 0, "{done:?}");
    programs(map, before)?;
    ensure!(site.map()? == map, "other maps");
    let reached = site.other.taken();
    holds(&mut client, &site, "with the next agent")?;
    ensure!(site.other.taken() == reached, "another host was reached");

    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.errors());
    println!("{}", agent.errors());
    gone(&site, map)?;
    ensure!(call(&mut client, "other", &site.act(OTHER))? == "ok", "it is denied without an agent");
    Ok(())
}

#[test]
fn not_one_act_is_let_through_while_agents_come_and_go() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.start(&[])?;
    let client = server()?;
    let attack = Load::start(client, "net", site.act(OTHER));
    for _ in 0..2 {
        thread::sleep(patient_ms(300));
        agent.stop(libc::SIGKILL)?;
        agent = site.start(&[])?;
    }
    let (_client, tried) = attack.end()?;
    ensure!(tried.len() > 50 && tried.iter().all(|said| said == "EPERM"), "{tried:?}");
    ensure!(site.other.taken() == 0, "{} connections", site.other.taken());
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.errors());
    Ok(())
}

#[test]
fn a_stop_may_leave_behind_what_is_denied() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.start(&["--keep-enforcing"])?;
    // What BPF LSM denies is pinned where it is at work.
    let links = if lsm::is_alive(&agent)? { 14 + lsm::PROGRAMS } else { 14 };
    let mut client = server()?;
    soon("it is held", || Ok((call(&mut client, "other", &site.act(ALLOWED))? == "EPERM").then_some(())))?;
    let map = site.map()?;
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.errors());
    holds(&mut client, &site, "after a stop")?;
    let dir = agent::pins(site.place.path()).display().to_string();
    let mut doctor = Command::new(site.place.program());
    doctor.args(["doctor", "--format", "json", "--pin-dir", &dir]);
    let told = said(doctor)?;
    let told: Value = serde_json::from_str(&told.out).with_context(|| told.err)?;
    ensure!(told.to_string().contains(&format!(": {links} links, 25 maps")), "{told:#}");
    let mut agent = site.start(&[])?;
    holds(&mut client, &site, "with the next agent")?;
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.errors());
    gone(&site, map)
}

#[test]
fn pins_of_servers_that_are_gone_are_taken_away() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.start(&[])?;
    let client = server()?;
    let map = site.map()?;
    agent.stop(libc::SIGKILL)?;
    drop(client);
    // This one denies nobody anything.
    let _agent = site.place.start()?;
    soon("nothing is pinned", || Ok(site.layouts().is_empty().then_some(())))?;
    // The maps are in use, by this agent.
    ensure!(sys::bpf_ids(12).contains(&map), "the maps were not adopted");
    Ok(())
}

#[test]
fn pins_that_others_may_change_are_refused() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.start(&[])?;
    let mut client = server()?;
    agent.stop(libc::SIGKILL)?;
    let dir = agent::pins(site.place.path());
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let Err(why) = site.start(&[]) else { anyhow::bail!("it adopts what anybody may have pinned") };
    ensure!(format!("{why:#}").contains("--pin-dir"), "{why:#}");
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    ensure!(call(&mut client, "net", &site.act(OTHER))? == "EPERM", "a refused start ended what is denied");
    let mut agent = site.start(&[])?;
    let map = site.map()?;
    agent.stop(libc::SIGTERM)?;
    gone(&site, map)
}

fn found(agent: &Agent, pid: u32) -> Result<ServerLine> {
    let is = |l: &Line| matches!(l, Line::Server(s) if s.pid == pid && s.event == ServerEvent::Found);
    match agent.wait_for(5 * SECOND, is)? {
        Line::Server(line) => Ok(line),
        other => anyhow::bail!("{other:?}"),
    }
}

/// The pinned link of a program.
fn link(site: &Site, program: &str) -> Result<u32> {
    let layouts = site.layouts();
    let terms = fs::read_dir(layouts.first().context("nothing is pinned")?.join("links"))?;
    let links = terms.flatten().flat_map(|term| fs::read_dir(term.path()).into_iter().flatten().flatten());
    let names = links.filter_map(|l| l.file_name().into_string().ok());
    let mut ids = names.filter_map(|n| n.strip_prefix(&format!("{program}-"))?.parse().ok());
    ids.next().with_context(|| format!("no link of {program} is pinned"))
}

#[test]
fn a_link_that_others_took_away_is_pinned_again() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.start(&[])?;
    let mut client = server()?;
    let old = link(&site, "connect4")?;
    detach(old)?;
    // Links are looked at every five seconds.
    thread::sleep(5 * SECOND);
    let new = soon("it is pinned again", || Ok(link(&site, "connect4").ok().filter(|id| *id != old)))?;
    ensure!(new > old);
    agent.stop(libc::SIGKILL)?;
    holds(&mut client, &site, "without an agent")?;
    let mut agent = site.start(&[])?;
    let map = site.map()?;
    agent.stop(libc::SIGTERM)?;
    gone(&site, map)
}

#[test]
fn servers_that_start_without_an_agent_are_told() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.start(&[])?;
    let mut known = server()?;
    call(&mut known, "net", &site.act(ALLOWED))?;
    agent.stop(libc::SIGKILL)?;
    thread::sleep(patient_ms(300));
    let mut new = server()?;
    call(&mut new, "net", &site.act(ALLOWED))?;
    let agent = site.start(&[])?;
    for client in [&mut known, &mut new] {
        call(client, "net", &site.act(ALLOWED))?;
    }
    let (known, new) = (found(&agent, known.pid())?.startup, found(&agent, new.pid())?.startup);
    ensure!(known.pre_existing && !known.unwatched, "{known:?}");
    ensure!(new.pre_existing && new.unwatched && new.gap_ms > 100.0, "{new:?}");
    Ok(())
}

#[test]
fn a_cut_ends_in_time_without_an_agent() -> Result<()> {
    let site = Site::new()?;
    let mut agent = site.start(&[])?;
    let mut client = server()?;
    let id = agent.server(client.pid())?.server.id.clone();
    ensure!(call(&mut client, "net", &site.act(ALLOWED))? == "ok");
    site.place.person(&["respond", "cut", &id, "--for", "3s"])?.good()?;
    let cut = sys::boot_ns();
    agent.stop(libc::SIGKILL)?;
    ensure!(call(&mut client, "net", &site.act(ALLOWED))? != "ok", "it is not cut off");
    thread::sleep(patient(5 * SECOND).saturating_sub(Duration::from_nanos(sys::boot_ns() - cut)));
    ensure!(call(&mut client, "net", &site.act(ALLOWED))? == "ok", "it is still cut off");
    ensure!(call(&mut client, "net", &site.act(OTHER))? == "EPERM", "it is held to nothing any more");
    agent = site.start(&[])?;
    let map = site.map()?;
    agent.stop(libc::SIGTERM)?;
    gone(&site, map)
}

/// Which server it is, once that is known.
fn identified(place: &Place, pid: u32) -> Result<String> {
    soon("it is known who it is", || {
        let all = place.ask(&["servers", "--format", "json"])?.json()?;
        let is = |s: &&Value| s["pid"] == pid && s["identity"].as_str().is_some_and(|i| !i.is_empty());
        let row = all.as_array().and_then(|a| a.iter().find(is).cloned());
        Ok(row.and_then(|r| r["name"].as_str().map(ToOwned::to_owned)))
    })
}

#[test]
fn pins_of_another_version_hold_until_this_one_does() -> Result<()> {
    let site = Site::new()?;
    let place = &site.place;
    let mut agent = place.start()?;
    let mut client = server()?;
    let name = identified(place, client.pid())?;
    for _ in 0..5 {
        ensure!(call(&mut client, "net", &site.act(ALLOWED))? == "ok");
        client.call("other", &json!({"acts": []}))?;
    }
    soon("its calls are learned", || {
        let shown = place.ask(&["baseline", "show", &name, "--format", "json"])?;
        Ok((shown.code == 0 && shown.out.contains(ALLOWED)).then_some(()))
    })?;
    place.person(&["baseline", "ratify", &name])?.good()?;
    place.person(&["mode", &name, "enforce"])?.good()?;
    holds(&mut client, &site, "in enforce")?;
    let reached = site.other.taken();

    // An agent of the same version: the tree is held as it was, and then anew.
    agent.stop(libc::SIGKILL)?;
    let mut agent = place.start()?;
    ensure!(call(&mut client, "net", &site.act(OTHER))? == "EPERM", "the first call after a restart");
    identified(place, client.pid())?;
    holds(&mut client, &site, "with the next agent")?;

    // As if the programs were those of another version.
    agent.stop(libc::SIGKILL)?;
    let layouts_now = site.layouts();
    let old = agent::pins(place.path()).join("v0-before");
    fs::rename(layouts_now.first().context("nothing is pinned")?, &old)?;
    let attack = Load::start(client, "net", site.act(OTHER));
    let map = sys::pinned_map(&old.join("maps/TREE_POLICY"))?;
    let mut agent = place.start()?;
    // Its calls tell who it is: then it is held here, and those are taken away.
    soon("pins of another version are gone", || Ok((!old.exists()).then_some(())))?;
    let (mut client, tried) = attack.end()?;
    ensure!(tried.iter().all(|said| said == "EPERM"), "{tried:?}");
    programs(map, 0)?;
    holds(&mut client, &site, "with an agent of another version")?;
    ensure!(site.other.taken() == reached, "another host was reached");

    // A person lets it go, whoever held it.
    agent.stop(libc::SIGKILL)?;
    let mut agent = place.start()?;
    call(&mut client, "net", &site.act(ALLOWED))?;
    identified(place, client.pid())?;
    place.person(&["mode", &name, "watch"])?.good()?;
    ensure!(call(&mut client, "net", &site.act(OTHER))? == "ok", "it is still held");
    soon("nothing is pinned", || Ok(site.layouts().is_empty().then_some(())))?;
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.errors());
    Ok(())
}
