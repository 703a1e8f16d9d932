//! What agent and process say to each other: frames of a length (4 bytes, little endian) and JSON.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{host::Host, spec::Spec};

/// Bytes of a frame. A batch has at most [`BATCH_BYTES`] of events and one event of any size that the engine makes.
pub(super) const MAX_FRAME: usize = 16 << 20;
/// Events of a batch.
pub(super) const BATCH: u32 = 500;
/// Bytes of a batch's events, unless the first one is larger.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// An event on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Event {
    /// Place in the outbox.
    pub(super) seq: i64,
    /// Boot of the host.
    pub(super) boot: String,
    /// Counts the events of that boot from 1, without gaps.
    pub(super) number: u64,
    /// When it was stored.
    pub(super) stored_ns: i64,
    /// An object with `type`.
    pub(super) json: String,
}

impl Event {
    /// The same whenever it is sent again.
    pub(super) fn uid(&self) -> String {
        format!("{}-{}", self.boot, self.number)
    }
}

/// From the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// First: the sinks, and up to where each has everything.
    Begin { host: Host, sinks: Vec<(Spec, i64)> },
    /// What a sink asked for. It may be empty: nothing up to `through` is for it.
    Events { sink: usize, events: Vec<Event>, through: i64 },
    /// Deliver nothing more.
    End,
}

/// From the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// A sink can take what comes after this.
    Pull { sink: usize, after: i64 },
    /// A sink has everything up to here.
    Done { sink: usize, through: i64 },
    /// A sink will never take this one.
    Dead { sink: usize, seq: i64, because: String },
    /// How a sink is.
    Health { sink: usize, health: Health },
    /// Still there.
    Alive,
}

/// How a sink is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Health {
    /// Why it does not work.
    pub(crate) failing: Option<String>,
    /// Tries that failed since the process began.
    pub(crate) failures: u64,
    /// Events that it took since then.
    pub(crate) sent: u64,
    /// Bytes of those.
    pub(crate) bytes: u64,
    /// Of those, events that had to be cut to fit.
    pub(crate) truncated: u64,
    /// Of those, events that the receiver says it dropped, without saying which.
    pub(crate) dropped: u64,
    /// Events that were sent again because a connection was lost.
    pub(crate) again: u64,
    /// What the receiver said when it last took something.
    pub(crate) said: Option<String>,
}

/// A message as a frame.
pub(super) fn frame(message: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    // Plain data: serialising it into memory cannot fail.
    let _unused = serde_json::to_writer(&mut bytes, message);
    let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Bytes that come in pieces.
#[derive(Debug)]
pub(super) struct Frames<T> {
    bytes: Vec<u8>,
    kind: PhantomData<T>,
}

/// The other side does not speak our language.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message: {0}")]
pub(super) struct Garbled(String);

impl<T: DeserializeOwned> Frames<T> {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), kind: PhantomData }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message.
    pub(super) fn next(&mut self) -> Result<Option<T>, Garbled> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(Garbled(format!("{length} bytes")));
        }
        let Some(message) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(message).map_err(|e| Garbled(e.to_string()))?;
        self.bytes.drain(..4 + length);
        Ok(Some(message))
    }
}
