//! The canary: a child of ours does real acts, and each must come out of the ring as a record. That a program is
//! loaded and attached proves nothing: with `bpf` missing from the boot's `lsm=` list, programs load, attach and
//! never run.
//!
//! The child is tracked as a tree of its own, whose records are taken out before anything else sees them.
//!
//! # Layout
//! - [`acts`]: the child's side; [`space`]: what it needs of the kernel
//! - [`proof`]: which record proves what
//! - this module: the parent's side

mod acts;
mod proof;
mod space;

use std::{
    collections::HashSet,
    io::{self, Read as _, Write as _},
    os::fd::AsFd,
    process::{Child, ChildStderr, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use zerocopy::FromBytes as _;

pub(crate) use proof::{Act, Done, Proof};

use crate::{
    kernel::Kernel,
    running::{self, Adopted, Seen},
};

/// It takes some 20 ms; a busy host may need more.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// Records of what the child did before it ended come within this.
const AFTER: Duration = Duration::from_millis(300);

/// What the child is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Stage {
    /// Wait until it is tracked.
    Wait,
    /// Act.
    Acts,
}

/// Runs the child's side.
pub(crate) fn child(stage: Stage, dns: bool) -> Result<()> {
    let done = match stage {
        Stage::Wait => acts::wait(dns),
        Stage::Acts => acts::all(dns),
    };
    done.context("the canary cannot go on")
}

/// A canary under way. Dropped, its child is gone.
#[derive(Debug)]
pub(crate) struct Canary {
    child: Child,
    input: ChildStdin,
    reports: ChildStderr,
    unread: Vec<u8>,
    /// It can report nothing more.
    silent: bool,
    tree: u64,
    channels: [u64; 2],
    /// Cookie of the socket that nothing is done with.
    cookie: Option<u64>,
    proof: Proof,
    /// Records that further occurrences may be counted under.
    announced: HashSet<u64>,
    began: Instant,
    ended: Option<Instant>,
    /// The record of the child's own end is here: it is the last one.
    complete: bool,
}

impl Canary {
    /// Starts a child and tracks it. The syscall hooks must be attached. `dns`: it may leave the host's network
    /// to ask for a name.
    pub(crate) fn start(kernel: &mut Kernel, dns: bool, now_ns: u64) -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .args(["canary", "wait"])
            .args(dns.then_some("--dns"))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the canary")?;
        let (Some(input), Some(reports)) = (child.stdin.take(), child.stderr.take()) else {
            bail!("the canary has no pipes");
        };
        rustix::io::ioctl_fionbio(&reports, true).context("cannot read from the canary")?;
        let pid = child.id();
        let mut canary = Self {
            channels: [inode(&input)?, inode(&reports)?],
            child,
            input,
            reports,
            unread: Vec::new(),
            silent: false,
            tree: now_ns & !0x3f_ffff | u64::from(pid & 0x3f_ffff),
            cookie: None,
            proof: Proof::default(),
            announced: HashSet::new(),
            began: Instant::now(),
            ended: None,
            complete: false,
        };
        let start_ns = running::start_of(pid).context("the canary ended at once")?;
        let [stdin, stdout] = canary.channels;
        let seen = Seen { pid, parent: std::process::id(), start_ns, stdin, stdout };
        let adopted = Adopted { seen, tree: canary.tree, root: true, parent_tree: None };
        if !kernel.adopt(&adopted, now_ns)? {
            bail!("the canary cannot be tracked: the process or tree map is full, or it ended at once");
        }
        kernel.hold_canary(canary.tree)?;
        canary.tell()?;
        Ok(canary)
    }

    fn tell(&mut self) -> Result<()> {
        self.input.write_all(b"go\n").context("the canary has ended")
    }

    /// Takes in a record if it is of the canary's tree.
    pub(crate) fn claims(&mut self, record: &[u8]) -> bool {
        let Ok((header, _)) = abi::Header::read_from_prefix(record) else {
            return false;
        };
        if header.tree != self.tree {
            return false;
        }
        if header.flags & abi::flag::AGGREGATED != 0 {
            self.announced.insert(header.id);
        }
        let told = proof::told(record);
        self.proof.seen.extend(told);
        self.complete |= told == Some(Act::Exit) && header.tgid == self.child.id();
        true
    }

    /// Goes on as far as it can without waiting; true when it is through.
    pub(crate) fn poll(&mut self, kernel: &Kernel) -> bool {
        if let Err(e) = self.listen(kernel) {
            self.proof.broken.get_or_insert(format!("{e:#}"));
        }
        if self.ended.is_none() {
            match self.child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    self.ended = Some(Instant::now());
                    self.proof.done.insert(Act::Exit, Done::Yes);
                    if !status.success() {
                        self.proof.broken.get_or_insert(format!("the canary ended early ({status})"));
                    }
                }
                Err(e) => {
                    self.proof.broken.get_or_insert(format!("the canary cannot be waited for: {e}"));
                    self.ended = Some(Instant::now());
                }
            }
        }
        if self.began.elapsed() > DEADLINE && self.ended.is_none() {
            self.proof.broken.get_or_insert(format!("the canary was not through within {DEADLINE:?}"));
            return true;
        }
        self.ended.is_some_and(|at| self.complete && self.silent || at.elapsed() > AFTER)
    }

    /// Reads what the child reports, and answers it.
    fn listen(&mut self, kernel: &Kernel) -> Result<()> {
        let mut bytes = [0; 1024];
        loop {
            match self.reports.read(&mut bytes) {
                Ok(0) => {
                    self.silent = true;
                    break;
                }
                Ok(n) => self.unread.extend(bytes.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("cannot read from the canary"),
            }
        }
        while let Some(end) = self.unread.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            self.on_line(String::from_utf8_lossy(&line).trim_end(), kernel)?;
        }
        Ok(())
    }

    fn on_line(&mut self, line: &str, kernel: &Kernel) -> Result<()> {
        // To report anything it must have read our word, executed itself, and be writing.
        for act in [Act::Exec, Act::LsmExec, Act::Read, Act::Write] {
            self.proof.done.entry(act).or_insert(Done::Yes);
        }
        if let Some(cookie) = line.strip_prefix("socket ").and_then(|n| n.parse().ok()) {
            self.cookie = Some(cookie);
            self.proof.done.insert(Act::Socket, Done::Yes);
            if kernel.owner(cookie) == Some(self.tree) {
                self.proof.seen.insert(Act::Socket);
            }
            return self.tell();
        }
        if let ("closed", Some(cookie)) = (line, self.cookie) {
            self.proof.done.insert(Act::Release, Done::Yes);
            // What was never entered proves nothing by its absence.
            if self.proof.seen.contains(&Act::Socket) && kernel.owner(cookie).is_none() {
                self.proof.seen.insert(Act::Release);
            }
            return self.tell();
        }
        if !self.proof.report(line) {
            self.proof.broken.get_or_insert(format!("the canary says: {line}"));
        }
        Ok(())
    }

    /// What came of it, and the records that counts may still come in for. The kernel forgets the tree.
    pub(crate) fn finish(mut self, kernel: &mut Kernel) -> (Proof, HashSet<u64>) {
        kernel.forget(self.tree);
        self.channels.iter().for_each(|channel| kernel.forget_channel(*channel));
        (std::mem::take(&mut self.proof), std::mem::take(&mut self.announced))
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone now.
        let _gone = (self.child.kill(), self.child.wait());
    }
}

fn inode(pipe: impl AsFd) -> Result<u64> {
    Ok(rustix::fs::fstat(pipe).context("cannot look at a pipe")?.st_ino)
}
