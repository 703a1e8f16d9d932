//! The store in a machine whose power is cut.
//!
//! An emulated machine runs the writer of the agent's own kill test (`agent/src/store/tests/kill.rs`)
//! on an ext4 disk and prints each id that the store acknowledged. QEMU is killed at a random
//! time, which takes the guest's page cache with it, and what the disk image had not flushed: it is
//! qcow2 with `cache=writeback`, whose tables live in QEMU's memory until the guest asks for a
//! flush. The next boot mounts the same disk, looks for every id acknowledged so far, and goes on.

use std::{
    collections::hash_map::RandomState,
    env, fs,
    hash::{BuildHasher as _, Hasher as _},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::{
    apt,
    cpio::Cpio,
    steps::Steps,
    workspace::{Workspace, on_path, output},
};

/// In the order of loading; Debian's cloud kernel has ext4 built in and virtio not.
const MODULES: [&str; 6] =
    ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"];
/// From power on to the first word of the writer: 3 s, times what a busy machine may need.
const BOOT: Duration = Duration::from_secs(120);
/// How long the writer writes before the power goes: at least and at most.
const WRITES_MS: (u64, u64) = (500, 8000);

/// What a boot needs.
struct Machine {
    qemu: PathBuf,
    kernel: PathBuf,
    dir: PathBuf,
    disk: PathBuf,
}

pub(crate) fn run(workspace: &Workspace, rounds: u32, control: bool) -> Result<()> {
    let mut steps = Steps::new(workspace, 4)?;
    let dir = workspace.target.join("powerloss");
    fs::create_dir_all(&dir)?;
    steps.begin("emulator and kernel");
    let qemu = emulator(&steps)?;
    let unpacked = kernel(&steps, &dir)?;
    steps.begin("the writer");
    let writer = writer(workspace, &dir)?;
    steps.begin("the disk");
    let disk = disk(&steps, &dir)?;
    let kernel = only(&unpacked.join("boot"), "vmlinuz-")?;
    let machine = Machine { qemu, kernel, dir, disk };
    steps.begin(format_args!("{rounds} power cuts"));
    let mut root = root(&unpacked, &writer)?;
    root.file("init", init(control).as_bytes());
    let mut expected: Vec<String> = Vec::new();
    // Once more than cuts: the last boot only looks.
    for round in 0..=rounds {
        let cut = (round < rounds).then(random_delay);
        let mut archive = root.clone();
        archive.file("expected", expected.join("\n").as_bytes());
        let acknowledged = machine.boot(archive, expected.len(), cut)?;
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

fn emulator(steps: &Steps) -> Result<PathBuf> {
    ensure!(cfg!(target_arch = "x86_64"), "this task emulates x86-64 with a kernel of Debian's for it");
    let (name, own) = ("qemu-system-x86_64", env::var_os("QEMU"));
    // The disk image is made by a program of another package.
    if own.is_none() && on_path(name).is_none() || on_path("qemu-img").is_none() {
        apt::install(steps, &["qemu-system-x86", "qemu-utils"], "cutting a machine's power")?;
    }
    if let Some(qemu) = own {
        return Ok(qemu.into());
    }
    on_path(name).with_context(|| format!("no {name} on PATH; QEMU=PATH names one"))
}

/// Kernel, modules and busybox, unpacked and not installed.
fn kernel(steps: &Steps, dir: &Path) -> Result<PathBuf> {
    let unpacked = dir.join("root");
    if only(&unpacked.join("boot"), "vmlinuz-").is_ok() {
        return Ok(unpacked);
    }
    let depends = output(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))
        .context("apt-cache knows no linux-image-cloud-amd64: run `apt-get update` as root")?;
    let image = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .context("linux-image-cloud-amd64 depends on no kernel")?;
    let packages = dir.join("packages");
    fs::create_dir_all(&packages)?;
    steps.run(Command::new("apt-get").current_dir(&packages).args(["download", image, "busybox-static"]))?;
    for package in fs::read_dir(&packages)? {
        steps.run(Command::new("dpkg-deb").arg("--extract").arg(package?.path()).arg(&unpacked))?;
    }
    Ok(unpacked)
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

fn path_with_sbin() -> Result<std::ffi::OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]))?)
}

/// All that the machine boots but for `init` and what it is to expect.
fn root(unpacked: &Path, writer: &Path) -> Result<Cpio> {
    let mut cpio = Cpio::default();
    for directory in ["bin", "proc", "sys", "dev", "mnt", "modules", "tmp"] {
        cpio.directory(directory);
    }
    cpio.file("bin/busybox", &fs::read(unpacked.join("bin/busybox"))?);
    let modules = unpacked.join("lib/modules");
    let modules = only(&modules, "")?.join("kernel/drivers");
    for name in MODULES {
        let group = if name == "virtio_blk" { "block" } else { "virtio" };
        let file = modules.join(group).join(format!("{name}.ko"));
        cpio.file(
            &format!("modules/{name}.ko"),
            &fs::read(&file).with_context(|| format!("no {}", file.display()))?,
        );
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

fn init(control: bool) -> String {
    let lax = if control { "TOOLWARDEN_TEST_STORE_LAX=1" } else { "" };
    let modules = MODULES.join(" ");
    format!(
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
    )
}

impl Machine {
    /// Boots, waits until the writer found what it must, and cuts the power `cut` later. Says what was
    /// acknowledged until then.
    fn boot(&self, archive: Cpio, expected: usize, cut: Option<Duration>) -> Result<Vec<String>> {
        let initrd = self.dir.join("root.cpio");
        fs::write(&initrd, archive.finish())?;
        let console = self.dir.join("console.log");
        let mut qemu = Command::new(&self.qemu);
        qemu.args(["-M", "q35", "-cpu", "max,la57=off", "-accel", "tcg,thread=multi", "-smp", "2"])
            .args(["-m", "1024", "-nodefaults", "-display", "none", "-no-reboot", "-kernel"])
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&initrd)
            .args(["-append", "console=ttyS0 panic=-1 quiet mitigations=off random.trust_cpu=on"])
            .arg("-drive")
            .arg(format!("file={},format=qcow2,if=virtio,cache=writeback", self.disk.display()))
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut running = qemu.spawn().with_context(|| format!("cannot run {}", self.qemu.display()))?;
        let stdout = running.stdout.take().context("QEMU has no output")?;
        let (tell, lines) = channel();
        let reader = thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = Vec::new();
            // The last line may be cut anywhere: what has no end was not said.
            while stdout.read_until(b'\n', &mut line).is_ok() && line.ends_with(b"\n") {
                let said = String::from_utf8_lossy(&line).trim().to_owned();
                line.clear();
                if tell.send(said).is_err() {
                    break;
                }
            }
        });
        let verified = verified(&lines, expected);
        if let (Ok(()), Some(cut)) = (&verified, cut) {
            thread::sleep(cut);
        }
        // SIGKILL: nothing in QEMU gets to write anything back.
        running.kill()?;
        running.wait()?;
        verified.with_context(|| format!("the console is in {}", console.display()))?;
        reader.join().map_err(|_panic| anyhow!("cannot read what the machine says"))?;
        // What it said before it died counts, read or not.
        let mut acknowledged = Vec::new();
        for line in lines {
            ensure!(!line.starts_with("lost"), "{line}");
            acknowledged.extend(line.strip_prefix("acknowledged ").map(str::to_owned));
        }
        Ok(acknowledged)
    }
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

/// The one entry of a directory whose name begins so.
fn only(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let list = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    list.filter_map(std::result::Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .with_context(|| format!("no {prefix}* in {}", dir.display()))
}
