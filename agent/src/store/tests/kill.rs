//! `kill -9` in a loop: what was acknowledged is there.

use std::{
    collections::HashSet,
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use super::*;

/// Tells the test executable to be the writer that gets killed, and where. Also used by
/// `cargo xtask powerloss`, in a machine that gets killed.
const CHILD: &str = "TOOLWARDEN_TEST_STORE_CHILD";
/// A file of ids that the child must find before it writes more.
const EXPECTED: &str = "TOOLWARDEN_TEST_STORE_EXPECTED";
/// Makes the child's database sync nothing: whoever cuts its power has to notice.
const LAX: &str = "TOOLWARDEN_TEST_STORE_LAX";
const ROUNDS: u32 = 30;

/// Writes for ever, printing each id once it is acknowledged. Does nothing unless it is the child.
#[test]
fn child() -> Result {
    let Some(dir) = env::var_os(CHILD) else { return Ok(()) };
    let lax = env::var_os(LAX).is_some();
    // A small WAL, so that checkpoints get killed too; small groups, for an emulated machine is slow.
    let small = Options { queue: 256, group: 8, wal_pages: 20, lax, ..options() };
    let store = Store::open(Path::new(&dir), small)?;
    if let Started::Replaced { .. } = store.started() {
        return Err(format!("{:?}", store.started()).into());
    }
    if let Some(file) = env::var_os(EXPECTED) {
        let expected = fs::read_to_string(file)?.lines().map(str::to_owned).collect();
        say(&match missing(&store, &expected)?.as_slice() {
            [] => format!("verified {}", expected.len()),
            missing => format!("lost {} of {}, {} is one", missing.len(), expected.len(), missing[0]),
        });
    }
    // Process ids repeat from boot to boot.
    let prefix = format!("{}-{}", std::process::id(), now());
    for n in 0u64.. {
        let id = format!("{prefix}-{n}");
        let job = Job::All(vec![
            Job::Finding(Box::new(finding(&id, 1, Severity::Low))),
            Job::Note { key: "last".to_owned(), value: id.clone() },
        ]);
        let line = format!("acknowledged {id}");
        let on_done: OnDone = Box::new(move |outcome| {
            if outcome.is_ok() {
                say(&line);
            }
        });
        if store.submit(job, Some(on_done)).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// One write: a line is whole or absent, whenever the end comes.
fn say(line: &str) {
    drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
}

#[test]
fn nothing_acknowledged_is_lost() -> Result {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let mut acknowledged = HashSet::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(env::current_exe()?)
            .args(["--exact", "store::tests::kill::child", "--nocapture", "--test-threads=1"])
            .env(CHILD, &state)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stderr.take().ok_or("no stderr")?);
        let reader = std::thread::spawn(move || {
            lines
                .lines()
                .map_while(std::result::Result::ok)
                .filter_map(|line| line.strip_prefix("acknowledged ").map(str::to_owned))
                .collect::<Vec<_>>()
        });
        let mut random = [0; 1];
        rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())?;
        std::thread::sleep(Duration::from_millis(30 + u64::from(random[0]) * 2));
        child.kill()?;
        child.wait()?;
        acknowledged.extend(reader.join().map_err(|_panic| "no lines")?);
        if state.join(place::DATABASE).exists() && round % 5 == 4 {
            verify(&state, &acknowledged)?;
        }
    }
    assert!(acknowledged.len() > 100, "{} acknowledged: too few to mean anything", acknowledged.len());
    verify(&state, &acknowledged)?;
    assert!(
        !fs::read_dir(&state)?.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().contains("corrupt")))
    );
    sound(dir.path())
}

/// Opening it checks the whole of it.
fn verify(state: &Path, acknowledged: &HashSet<String>) -> Result {
    let store = Store::open(state, options())?;
    assert_eq!(*store.started(), Started::Kept);
    let missing = missing(&store, acknowledged)?;
    assert!(missing.is_empty(), "{missing:?} were acknowledged and are gone");
    Ok(())
}

fn missing(store: &Store, expected: &HashSet<String>) -> Result<Vec<String>> {
    let reader = store.reader()?;
    let mut missing = Vec::new();
    for id in expected {
        if reader.finding(id)?.is_none() {
            missing.push(id.clone());
        }
    }
    Ok(missing)
}
