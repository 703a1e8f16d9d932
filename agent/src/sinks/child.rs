//! The process of the sinks, as the broker holds it.

use std::{
    io::Write as _,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    broker::Plan,
    file::prepare,
    spec::Output,
    wire::{Frames, Order, Word, frame},
};

/// It takes frames at once, or it is hung.
pub(super) const WRITE: Duration = Duration::from_secs(10);
/// After the end was said.
pub(super) const LEAVE: Duration = Duration::from_secs(2);

/// The process, and what it said.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) socket: UnixStream,
    pub(super) frames: Frames<Word>,
    pub(super) heard: Instant,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; it is waited for in any case.
        let _unused = self.child.kill();
        let _unused = self.child.wait();
    }
}

impl Process {
    /// Starts it, as a user who may do nothing.
    pub(super) fn start(plan: &Plan) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
        ours.set_write_timeout(Some(WRITE)).context("cannot set up the socket")?;
        for (spec, _) in &plan.sinks {
            // The sink itself says that it cannot write there; the others can.
            if let Output::File(file) = &spec.output
                && let Err(e) = prepare(&file.path, plan.user)
            {
                tracing::warn!("the sink {}: {e:#}", spec.name);
            }
        }
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("toolwarden")
            .arg("sinks")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        if let Some(filter) = std::env::var_os("RUST_LOG") {
            command.env("RUST_LOG", filter);
        }
        // Ctrl-C is for the agent, which delivers what is left.
        command.process_group(0);
        // Setting a user other than root also takes all capabilities and other groups away.
        command.uid(plan.user.0).gid(plan.user.1);
        let child = command.spawn().context("cannot start the process of the sinks")?;
        Ok(Self { child, socket: ours, frames: Frames::new(), heard: Instant::now() })
    }

    pub(super) fn say(&mut self, order: &Order) -> Result<()> {
        self.socket.write_all(&frame(order)).context("it takes nothing any more")
    }

    /// Says that it is the end, and waits for the process.
    pub(super) fn leave(mut self) -> Result<()> {
        self.say(&Order::End)?;
        let began = Instant::now();
        while began.elapsed() < LEAVE && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}
