//! An emulated machine: QEMU without KVM, a kernel of Debian's, two serial lines. The first is the
//! console and goes to a file; on the second the guest says what the caller asked it for.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    apt,
    archive::{self, Archive},
    steps::Steps,
    workspace::{Workspace, on_path, output},
};

/// What a boot needs.
pub(crate) struct Machine {
    pub(crate) qemu: PathBuf,
    pub(crate) kernel: PathBuf,
    /// First root of the kernel, an archive.
    pub(crate) initrd: PathBuf,
    pub(crate) memory_mb: u32,
    /// Added to the kernel's command line.
    pub(crate) append: String,
    /// QEMU's `-drive` options, one a disk.
    pub(crate) drives: Vec<String>,
    pub(crate) console: PathBuf,
    /// A reboot is not the end.
    pub(crate) reboots: bool,
}

/// A machine that runs, and the lines that it says. Dropped, it loses its power.
pub(crate) struct Running {
    child: Child,
    pub(crate) lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Machine {
    pub(crate) fn start(&self) -> Result<Running> {
        let mut qemu = Command::new(&self.qemu);
        qemu.args(["-M", "q35", "-cpu", "max,la57=off", "-accel", "tcg,thread=multi", "-smp", "2"])
            .args(["-nodefaults", "-display", "none", "-m", &self.memory_mb.to_string()])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initrd)
            .arg("-append")
            .arg(format!("console=ttyS0 panic=-1 quiet mitigations=off random.trust_cpu=on {}", self.append));
        if !self.reboots {
            qemu.arg("-no-reboot");
        }
        for drive in &self.drives {
            qemu.args(["-drive", drive]);
        }
        qemu.arg("-serial")
            .arg(format!("file:{}", self.console.display()))
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = qemu.spawn().with_context(|| format!("cannot run {}", self.qemu.display()))?;
        let stdout = child.stdout.take().context("QEMU has no output")?;
        let (tell, lines) = channel();
        let reader = thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = Vec::new();
            // The last line may be cut anywhere: what has no end was not said.
            while stdout.read_until(b'\n', &mut line).is_ok() && line.ends_with(b"\n") {
                let said = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if tell.send(said).is_err() {
                    break;
                }
            }
        });
        Ok(Running { child, lines, reader: Some(reader) })
    }
}

impl Running {
    /// Cuts the power: nothing in QEMU gets to write anything back. What it said until then can still be read.
    pub(crate) fn cut(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            ensure!(reader.join().is_ok(), "cannot read what the machine says");
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended, and then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const EMULATOR: &str = "qemu-system-x86_64";

/// QEMU, if it is there; `QEMU` names another one.
pub(crate) fn emulator_there() -> Option<PathBuf> {
    env::var_os("QEMU").map(PathBuf::from).or_else(|| on_path(EMULATOR))
}

/// QEMU, installed where it is missing.
pub(crate) fn emulator(workspace: &Workspace, steps: &Steps, why: &str) -> Result<PathBuf> {
    const PACKAGE: &str = "qemu-system-x86";
    ensure!(cfg!(target_arch = "x86_64"), "this task emulates x86-64 with a kernel of Debian's for it");
    if let Some(there) = emulator_there() {
        return Ok(there);
    }
    // QEMU's packages are of one version. Where one of them is from the backports, the rest must be, too.
    let version =
        output(Command::new("dpkg-query").args(["--show", "--showformat=${Version}", "qemu-utils"]));
    if version.is_some_and(|v| v.contains("~bpo")) {
        let release = archive::release()?;
        let backports = format!("{release}-backports");
        let suites = [release.as_str(), &format!("{release}-security"), &backports];
        let root = workspace.target.join("vm/apt").join(&backports);
        steps.again(PACKAGE, || Archive::open(steps, &root, &suites)?.install(steps, &backports, PACKAGE))?;
    } else {
        apt::install(steps, &[PACKAGE], why)?;
    }
    on_path(EMULATOR).with_context(|| format!("no {EMULATOR} on PATH; QEMU=PATH names one"))
}

/// Where tools for file systems are, on PATH as well.
pub(crate) fn path_with_sbin() -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]))?)
}

/// The one entry of a directory whose name begins so.
pub(crate) fn only(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let list = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    list.filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .with_context(|| format!("no {prefix}* in {}", dir.display()))
}
