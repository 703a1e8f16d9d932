//! Where real processes come from. The test program plays all parts: it starts itself anew, and
//! [`part`] then does what the environment says.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    os::{
        fd::AsFd as _,
        unix::{net::UnixListener, process::CommandExt as _},
    },
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use super::{Agent, Lineage, Made, Peer, Result, Role, UnixStream, message, post};
use crate::control::lineage;

const PART: &str = "TOOLWARDEN_TEST_PART";
const SOCKET: &str = "TOOLWARDEN_TEST_SOCKET";

fn play(program: &Path, part: &str, socket: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--exact", "control::tests::peers::part", "--ignored", "--nocapture"])
        .env(PART, part)
        .env(SOCKET, socket)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// No test: the part of another process.
#[test]
#[ignore = "a part of the other tests"]
fn part() -> Result {
    let Some(socket) = env::var_os(SOCKET) else { return Ok(()) };
    let (socket, own) = (Path::new(&socket), env::current_exe()?);
    match env::var(PART)?.as_str() {
        // Orders something, and says what came of it.
        "order" => {
            let (status, answer) = post(socket, "/v1/baseline/ratify", r#"{"identity":"x"}"#)?;
            println!("\nANSWER {status} {}", message(&answer));
        }
        // Starts one that orders something.
        "client" => {
            let ordered = play(Path::new(&env::var("TOOLWARDEN_TEST_ORDERS")?), "order", socket).output()?;
            println!("\n{}", String::from_utf8_lossy(&ordered.stdout));
        }
        // Connects, and lives until the other end hangs up.
        "connect" => {
            let mut stream = UnixStream::connect(socket)?;
            let _unused = stream.read(&mut [0]);
        }
        // Connects, and becomes another program.
        "exec" => {
            let stream = UnixStream::connect(socket)?;
            rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::empty())?;
            return Err(Command::new("sleep").arg("60").exec().into());
        }
        other => return Err(format!("no part {other} for {}", own.display()).into()),
    }
    Ok(())
}

/// A child that is not left behind.
struct Played(Child);

impl Drop for Played {
    fn drop(&mut self) {
        let _unused = (self.0.kill(), self.0.wait());
    }
}

fn answer(out: ChildStdout) -> Result<String> {
    let lines = BufReader::new(out).lines();
    let found =
        lines.map_while(std::result::Result::ok).find_map(|l| l.strip_prefix("ANSWER ").map(str::to_owned));
    Ok(found.ok_or("no answer")?)
}

fn order_below(program: &Path, agent: &Agent) -> Result<(u32, String)> {
    let mut client = play(program, "client", &agent.path);
    let mut client = Played(client.env("TOOLWARDEN_TEST_ORDERS", env::current_exe()?).spawn()?);
    let (pid, out) = (client.0.id(), client.0.stdout.take().ok_or("no output")?);
    Ok((pid, answer(out)?))
}

#[test]
fn what_a_client_starts_is_refused() -> Result {
    let agent = Agent::start(Made { real_lineage: true, ..Made::default() }, None)?;
    let own = env::current_exe()?;
    // By its executable's name: a link beside the real one, for the directory may not be on /tmp.
    let dir = tempfile::tempdir_in(own.parent().ok_or("no directory")?)?;
    let claude = dir.path().join("claude");
    fs::hard_link(&own, &claude)?;
    let (pid, said) = order_below(&claude, &agent)?;
    assert!(
        said.starts_with("403 refused: ")
            && said.contains(&format!("process {pid} is the MCP client Claude")),
        "{said}"
    );
    let row = agent.host.rows().pop().ok_or("not audited")?;
    assert!(row.outcome.contains("Claude Code"), "{row:?}");
    assert_eq!(row.exe.as_deref(), own.to_str());
    Ok(())
}

fn accept(part: &str) -> Result<(Played, Peer, tempfile::TempDir, UnixStream)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path)?;
    let child = Played(play(&env::current_exe()?, part, &path).spawn()?);
    let (stream, _) = listener.accept()?;
    let peer = Peer::of(stream.as_fd())?;
    Ok((child, peer, dir, stream))
}

#[test]
fn ancestors_are_told_up_to_the_first_process() -> Result {
    let (child, peer, _dir, _stream) = accept("connect")?;
    assert_eq!(peer.pid, child.0.id());
    let lineage = lineage::of(&peer, &|pid| match pid == std::process::id() {
        true => Role::Server("git".into()),
        false => Role::Other,
    });
    let Lineage::Known(ancestors) = lineage else { return Err(format!("{lineage:?}").into()) };
    let pids: Vec<_> = ancestors.iter().map(|a| a.pid).collect();
    assert_eq!(pids.get(..2), Some(&[peer.pid, std::process::id()][..]));
    assert_eq!(pids.last(), Some(&1));
    assert_eq!(ancestors.get(1).map(|a| &a.role), Some(&Role::Server("git".into())));
    Ok(())
}

#[test]
fn a_peer_that_ended_has_no_lineage() -> Result {
    let (mut child, peer, _dir, stream) = accept("connect")?;
    assert!(peer.alive());
    drop(stream);
    child.0.wait()?;
    // Its number is free now, and may mean anybody.
    assert!(!peer.alive());
    let lineage = lineage::of(&peer, &|_| Role::Other);
    assert_eq!(lineage, Lineage::Unreadable("the process that asked has ended".into()));
    Ok(())
}

#[test]
fn a_peer_that_became_another_program_keeps_its_lineage() -> Result {
    let (child, peer, _dir, _stream) = accept("exec")?;
    let own = env::current_exe()?;
    for _ in 0..500 {
        // While a thread becomes the new program, the process has none.
        if fs::read_link(format!("/proc/{}/exe", child.0.id())).is_ok_and(|exe| exe != own) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(peer.alive());
    let Lineage::Known(ancestors) = lineage::of(&peer, &|_| Role::Other) else {
        return Err("unreadable".into());
    };
    assert!(
        ancestors.first().is_some_and(|a| a.pid == peer.pid && !a.exe.contains("toolwarden")),
        "{ancestors:?}"
    );
    assert_eq!(ancestors.get(1).map(|a| a.pid), Some(std::process::id()));
    Ok(())
}
