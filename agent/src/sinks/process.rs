//! The process that talks to the outside: `toolwarden sinks`, which the broker starts with its socket as standard input.

use std::{
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream as Blocking,
    },
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixStream, unix::OwnedReadHalf},
    sync::mpsc,
};

use super::{
    confine::confine,
    deliver::{Batch, Sink},
    wire::{Frames, Order, Word, frame},
};

/// The broker takes a silent process for a hung one.
pub(super) const ALIVE: Duration = Duration::from_secs(5);
/// Words that may wait: a few for each sink.
const WORDS: usize = 256;

/// Delivers until the agent is gone or says that it is the end.
pub(crate) fn run() -> Result<()> {
    let socket: OwnedFd =
        std::io::stdin().as_fd().try_clone_to_owned().context("no socket on standard input")?;
    // It holds secrets: no core files, and others of the same user cannot look into it.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context("cannot keep others out")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .build()
        .context("cannot start the async runtime")?;
    // Before anything that came from the outside is looked at.
    confine()?;
    runtime.block_on(async {
        let socket = Blocking::from(socket);
        socket.set_nonblocking(true).context("cannot use the socket")?;
        deliver(UnixStream::from_std(socket).context("standard input is no socket")?).await
    })
}

async fn deliver(socket: UnixStream) -> Result<()> {
    let (mut from, mut to) = socket.into_split();
    let mut frames = Frames::new();
    let Some(Order::Begin { host, sinks }) = next(&mut from, &mut frames).await? else {
        bail!("the agent does not say what to do");
    };
    let host = Arc::new(host);
    let (words, mut said) = mpsc::channel(WORDS);
    let mut batches = Vec::new();
    for (number, (spec, after)) in sinks.into_iter().enumerate() {
        // A sink asks for one batch at a time.
        let (sender, receiver) = mpsc::channel(1);
        batches.push(sender);
        tokio::spawn(Sink::new(number, spec, Arc::clone(&host), words.clone()).run(after, receiver));
    }
    let mut alive = tokio::time::interval(ALIVE);
    loop {
        tokio::select! {
            order = next(&mut from, &mut frames) => match order? {
                Some(Order::Events { sink, events, through }) => {
                    let Some(sender) = batches.get(sink) else { bail!("the agent speaks of sink {sink}") };
                    // Nobody asked for it otherwise.
                    sender.try_send(Batch { events, through }).context("a batch that no sink asked for")?;
                }
                Some(Order::Begin { .. }) => bail!("the agent begins twice"),
                Some(Order::End) | None => return Ok(()),
            },
            Some(word) = said.recv() => to.write_all(&frame(&word)).await.context("the agent is gone")?,
            _ = alive.tick() => to.write_all(&frame(&Word::Alive)).await.context("the agent is gone")?,
        }
    }
}

/// What the agent says next; `None` when it is gone. May be dropped at any time without losing anything.
async fn next(from: &mut OwnedReadHalf, frames: &mut Frames<Order>) -> Result<Option<Order>> {
    let mut piece = [0; 64 << 10];
    loop {
        if let Some(order) = frames.next()? {
            return Ok(Some(order));
        }
        let n = from.read(&mut piece).await.context("cannot read from the agent")?;
        if n == 0 {
            return Ok(None);
        }
        frames.add(&piece[..n]);
    }
}
