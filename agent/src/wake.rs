//! What one thread raises to wake another that polls.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, eventfd};

/// Raised however often, it wakes once.
#[derive(Debug)]
pub(crate) struct Wake(OwnedFd);

impl Wake {
    pub(crate) fn new() -> Result<Self> {
        let fd =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("cannot make an eventfd")?;
        Ok(Self(fd))
    }

    pub(crate) fn raise(&self) {
        // It takes it unless it was raised 2^64 times.
        let _unused = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Lowered before the work is looked at: what comes later raises it again.
    pub(crate) fn lower(&self) {
        // Nobody raised it: then it is low.
        let _unused = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
