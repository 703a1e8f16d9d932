//! The agent watches the whole host; only the recorder's own servers belong into the corpus.

use std::collections::HashSet;

use anyhow::Result;
use engine::{
    Input, baseline,
    input::Fact,
    record::{self, Event, Record},
    recording::{self, Reader},
};

use crate::place;

/// What belongs to the children of one process.
#[derive(Default)]
struct Own {
    client: u32,
    trees: HashSet<u64>,
    processes: HashSet<u32>,
    channels: HashSet<u64>,
    counted: HashSet<u64>,
}

impl Own {
    fn keeps(&mut self, input: &Input<'_>) -> bool {
        match input {
            Input::Tick { .. } => true,
            Input::Fact { fact, .. } => match fact {
                // Servers that run already are somebody else's.
                Fact::Existing(process) => self.trees.contains(&process.tree),
                Fact::Identity(identity) => self.trees.contains(&identity.tree),
                Fact::Aggregate { id, .. } => self.counted.contains(id),
                Fact::Usage(usage) => self.processes.contains(&usage.tgid),
                _ => true,
            },
            Input::Record { bytes, .. } => {
                // What cannot be decoded is kept, so that it is found out.
                let Ok(record) = record::decode(bytes) else { return true };
                let header = &record.header;
                let mut own = self.trees.contains(&header.tree);
                match record.event {
                    Event::Exec { exec, .. } => {
                        let ours = exec.parent == self.client || self.processes.contains(&exec.parent);
                        if exec.flags & abi::exec_flag::NEW_TREE != 0 && ours {
                            self.trees.insert(header.tree);
                            self.channels.extend([exec.stdin, exec.stdout]);
                            own = true;
                        }
                        if own {
                            self.processes.insert(header.tgid);
                        }
                    }
                    Event::Fork(fork) if own => {
                        self.processes.insert(fork.child);
                    }
                    // Its number may soon be somebody else's.
                    Event::Exit(_) if own => {
                        self.processes.remove(&header.tgid);
                    }
                    Event::Chunk { chunk, .. } => own |= self.channels.contains(&chunk.channel),
                    _ => {}
                }
                if own && header.flags & abi::flag::AGGREGATED != 0 {
                    self.counted.insert(header.id);
                }
                own
            }
        }
    }
}

/// A system call that no baseline keeps and no detector counts: half of all records are of these.
fn is_idle(record: &Record<'_>) -> bool {
    const CLONE3: u32 = 435;
    let h = &record.header;
    matches!(record.event, Event::Syscall(call) if call.nr != CLONE3 && baseline::is_common(call.nr))
        && h.flags & abi::flag::COMPAT == 0
        && h.lost_before == 0
}

/// Whether a directory, as the kernel told it (names from the last to the first, each with a slash), is in the
/// throw-away one.
fn is_in_place(directory: &[u8]) -> bool {
    let mut names = directory.rsplit(|b| *b == b'/').filter(|name| !name.is_empty());
    place::ROOT.split('/').filter(|name| !name.is_empty()).all(|name| names.next() == Some(name.as_bytes()))
}

/// Trees that another program of the host began under a number that one of ours had before: ours begin in
/// the throw-away directory.
fn foreign(bytes: &[u8]) -> Result<HashSet<u64>> {
    let mut reader = Reader::new(bytes)?;
    let mut foreign = HashSet::new();
    while let Some(input) = reader.next()? {
        if let Input::Record { bytes, .. } = &input
            && let Ok(r) = record::decode(bytes)
            && let Event::Exec { exec, cwd, .. } = r.event
            && exec.flags & abi::exec_flag::NEW_TREE != 0
            && !is_in_place(cwd)
        {
            foreign.insert(r.header.tree);
        }
    }
    Ok(foreign)
}

/// The same recording without idle system calls and foreign trees.
pub(crate) fn thin(bytes: &[u8]) -> Result<Vec<u8>> {
    let foreign = foreign(bytes)?;
    let mut reader = Reader::new(bytes)?;
    let mut out = recording::header();
    let mut left_out = HashSet::new();
    while let Some(input) = reader.next()? {
        let keep = match &input {
            Input::Record { bytes, .. } => match record::decode(bytes) {
                Ok(r) if is_idle(&r) || foreign.contains(&r.header.tree) => {
                    left_out.insert(r.header.id);
                    false
                }
                _ => true,
            },
            Input::Fact { fact, .. } => match fact {
                Fact::Aggregate { id, .. } => !left_out.contains(id),
                Fact::Identity(identity) => !foreign.contains(&identity.tree),
                Fact::Existing(process) => !foreign.contains(&process.tree),
                _ => true,
            },
            Input::Tick { .. } => true,
        };
        match input {
            Input::Record { bytes, digests } if keep => {
                let bytes = bytes.get(..record::used(bytes)).unwrap_or_default();
                recording::write(Input::Record { bytes, digests }, &mut out);
            }
            other if keep => recording::write(other, &mut out),
            _ => {}
        }
    }
    Ok(out)
}

/// The same recording without what is not ours.
pub(crate) fn own(bytes: &[u8], client: u32) -> Result<Vec<u8>> {
    let mut reader = Reader::new(bytes)?;
    let mut out = recording::header();
    let mut own = Own { client, ..Own::default() };
    while let Some(input) = reader.next()? {
        if own.keeps(&input) {
            recording::write(input, &mut out);
        }
    }
    Ok(out)
}
