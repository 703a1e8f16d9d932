//! rsyslog over UDP, TCP and TLS.

use std::{fs, path::PathBuf, process::Command, thread};

use anyhow::{Context as _, Result, ensure};

use super::{Running, Scene, certificates, listening};
use crate::{
    place::{Place, SECOND, soon},
    sinks::CALLS,
};

/// A message as rsyslog understood it.
#[derive(Debug, PartialEq)]
struct Message {
    head: String,
    data: String,
    body: String,
}

/// What it writes: its own words for the header, structured data, body.
const TEMPLATE: &str = r#"template(name="t" type="list") {
  property(name="syslogfacility") constant(value=" ") property(name="syslogseverity") constant(value=" ")
  property(name="app-name") constant(value=" ") property(name="msgid") constant(value=" ")
  property(name="hostname") constant(value="\t") property(name="structured-data") constant(value="\t")
  property(name="msg") constant(value="\n")
}
ruleset(name="out") { action(type="omfile" file="OUT" template="t") }
"#;

struct Rsyslog {
    running: Option<Running>,
    conf: PathBuf,
    out: PathBuf,
    address: String,
}

impl Rsyslog {
    /// `inputs` listens at `address`.
    fn new(place: &Place, name: &str, address: &str, globals: &str, inputs: &str) -> Result<Self> {
        let dir = place.path().join(name);
        fs::create_dir(&dir)?;
        let (conf, out) = (dir.join("conf"), dir.join("out"));
        let text = format!(
            "global(workDirectory=\"{}\" maxMessageSize=\"256k\" parser.escapeControlCharactersOnReceive=\"off\" {globals})\n{}{inputs}",
            dir.display(),
            TEMPLATE.replace("OUT", &out.display().to_string())
        );
        fs::write(&conf, text)?;
        let mut this = Self { running: None, conf, out, address: address.to_owned() };
        this.start()?;
        Ok(this)
    }

    fn start(&mut self) -> Result<()> {
        let mut command = Command::new("rsyslogd");
        command.args(["-n", "-iNONE", "-f"]).arg(&self.conf);
        self.running = Some(Running::start(&mut command, &self.conf.with_file_name("log"))?);
        listening(&self.address)
            .with_context(|| fs::read_to_string(self.conf.with_file_name("log")).unwrap_or_default())
    }

    fn stop(&self) -> Result<()> {
        self.running.as_ref().map_or(Ok(()), |running| Ok(e2e::sys::kill(running.0.id(), libc::SIGSTOP)?))
    }

    fn kill(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), Running::kill)
    }

    fn received(&self) -> Result<Vec<Message>> {
        let text = fs::read_to_string(&self.out).unwrap_or_default();
        // It is killed while it writes.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let message = |line: &str| {
            let mut parts = line.splitn(3, '\t').map(str::to_owned);
            let (head, data, body) = (parts.next()?, parts.next()?, parts.next()?);
            Some(Message { head, data, body })
        };
        whole.lines().map(|line| message(line).with_context(|| format!("not a message: {line}"))).collect()
    }

    fn bodies(&self) -> Result<Vec<String>> {
        Ok(self.received()?.into_iter().map(|m| m.body).collect())
    }

    /// Half a line may be left by a kill.
    fn whole_bodies(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(&self.out).unwrap_or_default();
        let body = |line: &str| {
            let body = line.rsplit_once('\t')?.1;
            body.ends_with('}').then(|| body.to_owned())
        };
        Ok(text.lines().filter_map(body).collect())
    }
}

fn plain(place: &Place, name: &str, ip: &str) -> Result<Rsyslog> {
    let inputs = format!(
        "module(load=\"imudp\") module(load=\"imtcp\")
         input(type=\"imudp\" address=\"{ip}\" port=\"5514\" ruleset=\"out\" rcvbufSize=\"4m\")
         input(type=\"imtcp\" address=\"{ip}\" port=\"5514\" ruleset=\"out\")\n"
    );
    Rsyslog::new(place, name, &format!("{ip}:5514"), "", &inputs)
}

/// It wants a certificate of the client, of the authority `good`.
fn secure(place: &Place, name: &str, ip: &str) -> Result<Rsyslog> {
    let dir = place.path().display();
    let globals = format!(
        "defaultNetstreamDriver=\"gtls\" defaultNetstreamDriverCAFile=\"{dir}/good-ca.pem\" \
         defaultNetstreamDriverCertFile=\"{dir}/good-server.pem\" defaultNetstreamDriverKeyFile=\"{dir}/good-server.key\""
    );
    let inputs = format!(
        "module(load=\"imtcp\" streamDriver.name=\"gtls\" streamDriver.mode=\"1\" streamDriver.authMode=\"x509/certvalid\")
         input(type=\"imtcp\" address=\"{ip}\" port=\"6514\" ruleset=\"out\")\n"
    );
    Rsyslog::new(place, name, &format!("{ip}:6514"), &globals, &inputs)
}

const SINKS: &str = "[sinks.udp]
type = 'syslog'
address = 'udp://127.74.0.1:5514'
facility = 'local3'
[sinks.tcp]
type = 'syslog'
address = 'tcp://127.74.0.1:5514'
app_name = 'tw-tcp'
[sinks.tls]
type = 'syslog'
address = 'tls://localhost:6514'
ca = '@/good-ca.pem'
cert = '@/good-client.pem'
key = { file = '@/good-client.key' }
enterprise = 99999
[sinks.distrusting]
type = 'syslog'
address = 'tls://127.74.0.1:6514'
app_name = 'distrusting'
ca = '@/other-ca.pem'
cert = '@/good-client.pem'
key = { file = '@/good-client.key' }
[sinks.untold]
type = 'syslog'
address = 'tls://127.74.0.1:6514'
app_name = 'untold'
[sinks.misnamed]
type = 'syslog'
address = 'tls://127.74.0.1:6514'
app_name = 'misnamed'
server_name = 'siem.example'
ca = '@/good-ca.pem'
cert = '@/good-client.pem'
key = { file = '@/good-client.key' }
[sinks.stranger]
type = 'syslog'
address = 'tls://127.74.0.1:6514'
app_name = 'stranger'
ca = '@/good-ca.pem'
cert = '@/other-client.pem'
key = { file = '@/other-client.key' }
";

#[test]
fn it_gets_every_byte_over_udp_tcp_and_tls_and_nobody_else_does() -> Result<()> {
    let place = Place::new()?;
    certificates(place.path(), "good")?;
    certificates(place.path(), "other")?;
    let open = plain(&place, "open", "127.74.0.1")?;
    // `localhost` is 127.0.0.1: there it listens at all addresses.
    let closed = secure(&place, "closed", "0.0.0.0")?;
    let mut scene = Scene::new(place, SINKS)?;
    scene.calls(CALLS)?;
    scene.drained(&["udp", "tcp", "tls"])?;

    let of = |all: Vec<Message>, app: &str| -> Vec<Message> {
        all.into_iter().filter(|m| m.head.split(' ').nth(2) == Some(app)).collect()
    };
    let bodies = |all: Vec<Message>| all.into_iter().map(|m| m.body).collect::<Vec<_>>();
    let tcp = || Ok(bodies(of(open.received()?, "tw-tcp")));
    ensure!(scene.same("rsyslog, TCP", tcp)? == 0, "repeats without a broken connection");
    ensure!(scene.same("rsyslog, TLS", || closed.bodies())? == 0, "repeats without a broken connection");

    // Structured data of each, as rsyslog has it.
    let truth = scene.truth()?;
    for message in of(closed.received()?, "toolwarden") {
        let event: serde_json::Value = serde_json::from_str(&message.body)?;
        let uid = event["event"]["uid"].as_str().context("uid")?;
        ensure!(
            message.data.starts_with(&format!("[toolwarden@99999 uid=\"{uid}\" severity=\"")),
            "{message:?}"
        );
        if event["type"] == "finding" {
            let [name, severity, kind] = [&event["server"]["name"], &event["severity"], &event["kind"]];
            let level = if severity == "high" { 3 } else { 5 };
            let host = event["host"]["name"].as_str().context("host")?;
            ensure!(
                message.data.contains(&format!(" severity={severity} kind={kind}"))
                    && message.data.contains(&format!(" server={name}")),
                "{message:?}: {event}"
            );
            ensure!(
                severity != "high" && severity != "low"
                    || message.head == format!("13 {level} toolwarden finding {host}"),
                "{message:?}"
            );
        }
    }

    // Datagrams hold 2048 bytes; what is longer says so.
    let udp = soon("all datagrams", || {
        let udp = of(open.received()?, "toolwarden");
        Ok((udp.len() >= truth.len()).then_some(udp))
    })?;
    let mut cut = 0_u64;
    for (message, whole) in udp.iter().zip(&truth) {
        ensure!(message.head.starts_with("19 "), "{message:?}");
        if message.body != *whole {
            cut += 1;
            ensure!(whole.starts_with(&message.body) && message.body.len() > 1500, "{message:?}");
            ensure!(message.data.ends_with(&format!(" truncated=\"{}\"]", whole.len())), "{message:?}");
        }
    }
    ensure!(udp.len() == truth.len() && scene.sink("udp")?["truncated"] == cut, "{cut} were cut");

    for (name, why) in [
        ("distrusting", "UnknownIssuer"),
        // No `ca`: those whom the host trusts did not make it.
        ("untold", "UnknownIssuer"),
        ("misnamed", "certificate not valid for name"),
        ("stranger", "closed the connection right after the handshake"),
    ] {
        let state = scene.sink(name)?;
        let because = state["because"].as_str().unwrap_or_default();
        println!("{name}: {because}");
        ensure!(
            state["state"] == "failing" && because.contains(why) && state["sent"] == 0,
            "{name}: {state}"
        );
        ensure!(of(closed.received()?, name).is_empty(), "{name} was let in");
    }
    scene.agent.stop(libc::SIGTERM)?;
    Ok(())
}

const KILLED: &str = "[sinks.tcp]
type = 'syslog'
address = 'tcp://127.74.0.2:5514'
[sinks.tls]
type = 'syslog'
address = 'tls://127.74.0.2:6514'
server_name = 'localhost'
ca = '@/good-ca.pem'
cert = '@/good-client.pem'
key = { file = '@/good-client.key' }
";

#[test]
fn it_is_killed_again_and_again_and_lacks_nothing() -> Result<()> {
    let place = Place::new()?;
    certificates(place.path(), "good")?;
    let mut open = plain(&place, "open", "127.74.0.2")?;
    let mut closed = secure(&place, "closed", "127.74.0.2")?;
    let mut scene = Scene::new(place, KILLED)?;
    for round in 0..e2e::pace::rounds(4) {
        for part in 0..4 {
            scene.calls(CALLS / 4)?;
            match (part + 4 - round % 4) % 4 {
                // Its kernel goes on to take what it will never read.
                0 => [&open, &closed].into_iter().try_for_each(Rsyslog::stop)?,
                1 => {
                    thread::sleep(SECOND);
                    open.kill()?;
                    closed.kill()?;
                }
                _ => {}
            }
        }
        open.kill()?;
        closed.kill()?;
        if round % 2 == 0 {
            thread::sleep(SECOND);
        }
        open.start()?;
        closed.start()?;
    }
    scene.calls(CALLS)?;
    scene.drained(&["tcp", "tls"])?;
    scene.same("rsyslog that was killed, TCP", || open.whole_bodies())?;
    scene.same("rsyslog that was killed, TLS", || closed.whole_bodies())?;
    let again = scene.sink("tcp")?["again"].as_u64().context("again")?;
    ensure!(again > 0, "nothing was sent again");
    scene.agent.stop(libc::SIGTERM)?;
    Ok(())
}
