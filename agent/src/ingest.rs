//! Masks payloads and secrets in place before anything else (engine, recording, printer) sees a
//! record.

use std::collections::HashMap;

use engine::{
    input::Digest,
    privacy::{Masker, redact_argv},
    record,
};

struct Side {
    masker: Masker,
    /// Position of the next byte; another one means that bytes were missed.
    next: u64,
}

/// One masker for each side of each channel.
pub(crate) struct Ingest {
    key: [u8; 32],
    include_arguments: bool,
    sides: HashMap<(u64, u32), Side>,
}

impl Ingest {
    pub(crate) fn new(key: [u8; 32], include_arguments: bool) -> Self {
        Self { key, include_arguments, sides: HashMap::new() }
    }

    /// Masks a record; appends the digests of the argument values that end in it.
    pub(crate) fn mask(&mut self, bytes: &mut [u8], digests: &mut Vec<Digest>) {
        match record::kind_of(bytes) {
            Some(abi::kind::EXEC) => {
                if let Some(argv) = record::argv_mut(bytes) {
                    redact_argv(argv);
                }
            }
            Some(abi::kind::CHUNK) => {
                if let Some((chunk, data)) = record::chunk_bytes_mut(bytes) {
                    let side = self.sides.entry((chunk.channel, chunk.side)).or_insert_with(|| Side {
                        masker: Masker::new(&self.key, self.include_arguments),
                        next: if chunk.side == abi::side::PROOF { chunk.position } else { 0 },
                    });
                    if side.next != chunk.position {
                        side.masker.gap();
                    }
                    side.next = chunk.position.wrapping_add(data.len() as u64);
                    side.masker.mask(data, digests);
                }
            }
            _ => {}
        }
    }

    /// A channel that carried bytes before it was found: the first ones may be the rest of a line.
    pub(crate) fn join(&mut self, channel: u64) {
        for side in [abi::side::REQUEST, abi::side::REPLY] {
            self.sides.entry((channel, side)).or_insert_with(|| {
                let mut masker = Masker::new(&self.key, self.include_arguments);
                masker.gap();
                Side { masker, next: 0 }
            });
        }
    }

    /// A channel is gone.
    pub(crate) fn forget(&mut self, channel: u64) {
        self.sides.retain(|(c, _), _| *c != channel);
    }
}
