//! Receivers that we did not write: what they have is what is stored, byte for byte and in order, whoever is killed.

pub(crate) mod faults;
mod http;
mod journald;
mod rsyslog;
mod tenzir;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{agent::Agent, client::Client, pace::patient};
use serde_json::{Value, json};

use super::{
    place::{Place, SECOND},
    sinks::{CALLS, DENY, configured, files, reader},
};

/// A sink beside the others: what each of them should have.
const TRUTH: &str = "[sinks.truth]
type = 'file'
path = '@/log/truth'
max_bytes = '1GiB'
";

/// An agent with sinks, and a server that makes findings.
struct Scene {
    place: Place,
    agent: Agent,
    server: Client,
    round: usize,
}

impl Scene {
    /// `sinks` may name files of the place as `@/name`.
    fn new(place: Place, sinks: &str) -> Result<Self> {
        place.rule("deny.yaml", DENY)?;
        let config = configured(&place, &format!("{TRUTH}{sinks}"))?;
        let agent = place.start_with(&["--config", &config])?;
        let server = reader(&place)?;
        files(&place)?;
        Ok(Self { place, agent, server, round: 0 })
    }

    /// Makes findings: more than one for each call.
    fn calls(&mut self, calls: usize) -> Result<()> {
        let mut ids = Vec::new();
        for n in 0..calls {
            let tool = format!("read_{}_{n}", self.round);
            let (id, line) = self.server.compose(&tool, &json!({"file": format!("n{}", n % CALLS)}));
            self.server.send(&line)?;
            ids.push(id);
        }
        self.round += 1;
        for id in &ids {
            self.server.wait(id)?;
        }
        Ok(())
    }

    fn sink(&self, name: &str) -> Result<Value> {
        super::sinks::state(&self.place, name)
    }

    /// Until all of these have everything.
    fn drained(&self, names: &[&str]) -> Result<()> {
        names.iter().chain(&["truth"]).try_for_each(|name| super::sinks::drained(&self.place, name))
    }

    /// Lines of a file beside.
    fn lines(&self, file: &str) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.place.path().join(file))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn truth(&self) -> Result<Vec<String>> {
        self.lines("log/truth")
    }

    /// Until what `received` gives is what is stored; says how many came more than once.
    fn same(&self, who: &str, received: impl Fn() -> Result<Vec<String>>) -> Result<usize> {
        self.same_as("log/truth", who, received)
    }

    /// The same, of another file.
    fn same_as(&self, file: &str, who: &str, received: impl Fn() -> Result<Vec<String>>) -> Result<usize> {
        let end = Instant::now() + patient(30 * SECOND);
        loop {
            let truth = self.lines(file)?;
            match received().and_then(|got| compare(&got, &truth)) {
                Ok(repeats) => {
                    println!("{who}: {} events, {repeats} came again", truth.len());
                    return Ok(repeats);
                }
                Err(e) if Instant::now() > end => return Err(e.context(format!("{who} has other events"))),
                Err(_) => thread::sleep(Duration::from_millis(200)),
            }
        }
    }
}

/// The same events, each for the first time in the same order. How many came again.
fn compare(received: &[String], truth: &[String]) -> Result<usize> {
    let mut seen = std::collections::BTreeSet::new();
    let first: Vec<&String> = received.iter().filter(|line| seen.insert(line.as_str())).collect();
    for (n, (got, want)) in first.iter().zip(truth).enumerate() {
        ensure!(*got == want, "event {n}:\n{got}\ninstead of\n{want}");
    }
    ensure!(first.len() == truth.len(), "{} events instead of {}", first.len(), truth.len());
    Ok(received.len() - first.len())
}

/// A process that is killed in the end, with those that it started.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, log: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let out = fs::File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        let child = command.spawn().with_context(|| {
            let program = command.get_program().to_string_lossy().into_owned();
            format!("cannot start {program}: `cargo xtask setup` installs it")
        })?;
        Ok(Self(child))
    }

    fn kill(mut self) -> Result<()> {
        e2e::sys::kill(self.0.id(), libc::SIGKILL)?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _unused = self.0.kill();
        let _unused = self.0.wait();
    }
}

/// A file that only root may read.
fn secret(place: &Place, name: &str, text: &str) -> Result<PathBuf> {
    let path = place.path().join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

/// Certificates of an authority that nobody else knows: `NAME-ca.pem`, and of `server` and `client`.
fn certificates(dir: &Path, authority: &str) -> Result<()> {
    let openssl = |args: &[&str]| -> Result<()> {
        let done = Command::new("openssl").current_dir(dir).args(args).output().context("openssl")?;
        ensure!(done.status.success(), "openssl: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    };
    let file = |name: &str| format!("{authority}-{name}");
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let subject = format!("/CN={authority}");
    let ca = ["req", "-x509", "-subj", &subject, "-keyout", &file("ca.key"), "-out", &file("ca.pem")];
    openssl(&[&ca[..], &key].concat())?;
    for (name, alternative) in
        [("server", "subjectAltName=IP:127.74.0.1,DNS:localhost"), ("client", "subjectAltName=DNS:client")]
    {
        let subject = format!("/CN={name}");
        let (key_file, pem) = (file(&format!("{name}.key")), file(&format!("{name}.pem")));
        let (ca, ca_key) = (file("ca.pem"), file("ca.key"));
        let leaf = [
            "req", "-x509", "-CA", &ca, "-CAkey", &ca_key, "-subj", &subject, "-keyout", &key_file, "-out",
            &pem,
        ];
        let extensions = ["-addext", alternative, "-addext", "basicConstraints=critical,CA:FALSE"];
        openssl(&[&leaf[..], &key, &extensions].concat())?;
    }
    Ok(())
}

/// Until somebody listens there.
fn listening(address: &str) -> Result<()> {
    let end = Instant::now() + patient(10 * SECOND);
    while let Err(e) = std::net::TcpStream::connect(address) {
        ensure!(Instant::now() < end, "nobody listens at {address}: {e}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
