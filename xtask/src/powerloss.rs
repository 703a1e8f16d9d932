//! The store in a machine whose power is cut.
//!
//! An emulated machine runs the writer of the agent's own kill test (`agent/src/store/tests/kill.rs`)
//! on an ext4 disk and prints each id that the store acknowledged. QEMU is killed at a random
//! time, which takes the guest's page cache with it, and what the disk image had not flushed: it is
//! qcow2 with `cache=writeback`, whose tables live in QEMU's memory until the guest asks for a
//! flush. The next boot mounts the same disk, looks for every id acknowledged so far, and goes on.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher as _, Hasher as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    apt,
    cpio::Cpio,
    machine::{self, Machine, path_with_sbin},
    steps::Steps,
    vm::kernels::{self, Kernel, Unpacked},
    workspace::{Workspace, on_path, output},
};

/// From power on to the first word of the writer: 3 s, times what a busy machine may need.
const BOOT: Duration = Duration::from_secs(120);
/// How long the writer writes before the power goes: at least and at most.
const WRITES_MS: (u64, u64) = (500, 8000);

pub(crate) fn run(workspace: &Workspace, rounds: u32, control: bool) -> Result<()> {
    let mut steps = Steps::new(workspace, 4)?;
    let dir = workspace.target.join("powerloss");
    fs::create_dir_all(&dir)?;
    steps.begin("emulator and kernel");
    // The disk image is made by a program of another package.
    if on_path("qemu-img").is_none() {
        apt::install(&steps, &["qemu-utils"], "cutting a machine's power")?;
    }
    let qemu = machine::emulator(workspace, &steps, "cutting a machine's power")?;
    let unpacked = kernels::fetch(workspace, &steps, Kernel::V6_1)?;
    let busybox = kernels::busybox(workspace, &steps)?;
    steps.begin("the writer");
    let writer = writer(workspace, &dir)?;
    steps.begin("the disk");
    let disk = disk(&steps, &dir)?;
    let machine = Machine {
        qemu,
        kernel: unpacked.kernel.clone(),
        initrd: dir.join("root.cpio"),
        memory_mb: 1024,
        append: String::new(),
        drives: vec![format!("file={},format=qcow2,if=virtio,cache=writeback", disk.display())],
        console: dir.join("console.log"),
        reboots: false,
    };
    steps.begin(format_args!("{rounds} power cuts"));
    let mut root = root(&unpacked, &busybox, &writer)?;
    root.file("init", init(&unpacked, control)?.as_bytes());
    let mut expected: Vec<String> = Vec::new();
    // Once more than cuts: the last boot only looks.
    for round in 0..=rounds {
        let cut = (round < rounds).then(random_delay);
        let mut archive = root.clone();
        archive.file("expected", expected.join("\n").as_bytes());
        let acknowledged = boot(&machine, archive, expected.len(), cut)?;
        steps.note(format_args!(
            "{} found; {} more acknowledged before the cut",
            expected.len(),
            acknowledged.len()
        ));
        expected.extend(acknowledged);
    }
    ensure!(expected.len() > 20, "only {} were acknowledged: too few to mean anything", expected.len());
    println!("\n{} acknowledged over {rounds} power cuts, none lost", expected.len());
    Ok(())
}

/// The agent's unit tests, of which one is the writer, without what only a debugger needs.
fn writer(workspace: &Workspace, dir: &Path) -> Result<PathBuf> {
    let build = workspace
        .cargo()
        .args(["test", "--package=agent", "--no-run", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(build.status.success(), "the agent's tests do not build");
    let tests = String::from_utf8_lossy(&build.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "toolwarden" && message["profile"]["test"] == true)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no test executable of the agent")?;
    let stripped = dir.join("store");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(&tests).status()?;
    ensure!(status.success(), "strip failed on {}", tests.display());
    Ok(stripped)
}

/// A fresh ext4 file system.
fn disk(steps: &Steps, dir: &Path) -> Result<PathBuf> {
    let (raw, disk) = (dir.join("disk.raw"), dir.join("disk.qcow2"));
    fs::File::create(&raw)?.set_len(256 << 20)?;
    steps.run(
        Command::new("mke2fs").env("PATH", path_with_sbin()?).args(["-q", "-F", "-t", "ext4"]).arg(&raw),
    )?;
    steps.run(Command::new("qemu-img").args(["convert", "-O", "qcow2"]).args([&raw, &disk]))?;
    fs::remove_file(raw)?;
    Ok(disk)
}

/// All that the machine boots but for `init` and what it is to expect.
fn root(unpacked: &Unpacked, busybox: &Path, writer: &Path) -> Result<Cpio> {
    let mut cpio = Cpio::default();
    for directory in ["bin", "proc", "sys", "dev", "mnt", "modules", "tmp"] {
        cpio.directory(directory);
    }
    cpio.file("bin/busybox", &fs::read(busybox)?);
    for (name, bytes) in unpacked.disk()? {
        cpio.file(&format!("modules/{name}.ko"), &bytes);
    }
    cpio.file("store", &fs::read(writer)?);
    let libraries = output(Command::new("ldd").arg(writer)).context("ldd does not know the writer")?;
    let mut made: Vec<PathBuf> = Vec::new();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let inside = Path::new(library.trim_start_matches('/'));
        let mut parents: Vec<&Path> =
            inside.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        parents.reverse();
        for parent in parents {
            if !made.iter().any(|m| m == parent) {
                cpio.directory(&parent.display().to_string());
                made.push(parent.to_owned());
            }
        }
        cpio.file(&inside.display().to_string(), &fs::read(library)?);
    }
    Ok(cpio)
}

fn init(unpacked: &Unpacked, control: bool) -> Result<String> {
    let lax = if control { "TOOLWARDEN_TEST_STORE_LAX=1" } else { "" };
    let modules: Vec<&str> = unpacked.disk()?.into_iter().map(|(name, _)| name).collect();
    let modules = modules.join(" ");
    Ok(format!(
        "#!/bin/busybox sh
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mount -t devtmpfs dev /dev
for module in {modules}; do $busybox insmod /modules/$module.ko; done
$busybox mount -t ext4 /dev/vda /mnt || echo 'lost: the disk does not mount' > /dev/ttyS1
export TOOLWARDEN_TEST_STORE_CHILD=/mnt/state TOOLWARDEN_TEST_STORE_EXPECTED=/expected {lax}
/store --exact store::tests::kill::child --nocapture 2> /dev/ttyS1
echo \"lost: the writer ended with $?\" > /dev/ttyS1
$busybox poweroff -f
"
    ))
}

/// Boots, waits until the writer found what it must, and cuts the power `cut` later. Says what was
/// acknowledged until then.
fn boot(machine: &Machine, archive: Cpio, expected: usize, cut: Option<Duration>) -> Result<Vec<String>> {
    fs::write(&machine.initrd, archive.finish())?;
    let mut running = machine.start()?;
    let verified = verified(&running.lines, expected);
    if let (Ok(()), Some(cut)) = (&verified, cut) {
        thread::sleep(cut);
    }
    running.cut()?;
    verified.with_context(|| format!("the console is in {}", machine.console.display()))?;
    // What it said before it died counts, read or not.
    let mut acknowledged = Vec::new();
    while let Ok(line) = running.lines.try_recv() {
        ensure!(!line.starts_with("lost"), "{line}");
        acknowledged.extend(line.strip_prefix("acknowledged ").map(str::to_owned));
    }
    Ok(acknowledged)
}

/// Waits until the writer says that it found all it had to.
fn verified(lines: &Receiver<String>, expected: usize) -> Result<()> {
    let end = Instant::now() + BOOT;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line == format!("verified {expected}") => return Ok(()),
            Ok(line) if line.starts_with("lost") => bail!("{line}"),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => bail!("the writer said nothing within {BOOT:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the machine ended by itself"),
        }
    }
}

fn random_delay() -> Duration {
    // Randomly keyed by std, which is all the randomness that this needs.
    let random = RandomState::new().build_hasher().finish();
    Duration::from_millis(WRITES_MS.0 + random % (WRITES_MS.1 - WRITES_MS.0))
}
