//! Inputs as a file: what `--record` writes and `replay` reads.
//!
//! ```text
//! "TWREC\n"  version: u16  then frames:
//! kind: u8   len: u32   now_ns: u64   payload: len bytes
//!   1 record: digests: u16, 16 bytes each, then the record as the kernel wrote it, values masked
//!   2 tick:   nothing
//!   3 fact:   JSON
//!   4 aggregate (a fact that is frequent): id, count, bytes out, bytes in, u64 each
//! ```
//! All integers are little-endian.

use thiserror::Error;

use crate::input::{Digest, Fact, Input};

const MAGIC: &[u8; 6] = b"TWREC\n";
/// Version of the format; it also changes whenever `abi::ABI` does.
pub const VERSION: u16 = 2 << 8 | abi::ABI;
/// The version before, which is read as well.
const VERSION_2: u16 = 2 << 8 | crate::record::ABI_2;
/// A frame is never longer: a record is at most 20 KiB, a fact a few.
const FRAME: usize = 1 << 20;
const HEAD: usize = 13;

/// Why a file is not a recording, and where.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// It begins with something else.
    #[error("it is not a Toolwarden recording (it does not begin with TWREC)")]
    Magic,
    /// Another version wrote it.
    #[error(
        "it has version {got:#06x}, this program reads {VERSION:#06x}: replay it with the program that wrote it"
    )]
    Version {
        /// Version in the file.
        got: u16,
    },
    /// It ends within a frame.
    #[error("it is cut short: the frame at byte {at} is not whole")]
    Cut {
        /// Where the frame begins.
        at: u64,
    },
    /// A frame makes no sense.
    #[error("the frame at byte {at} is damaged: {why}")]
    Damaged {
        /// Where the frame begins.
        at: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// The first bytes of a recording.
pub fn header() -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out
}

/// Appends an input.
pub fn write(input: Input<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    let mut head = |kind: u8, now: u64| {
        out.push(kind);
        out.extend(0_u32.to_le_bytes());
        out.extend(now.to_le_bytes());
    };
    match input {
        Input::Record { bytes, digests } => {
            head(1, 0);
            out.extend((digests.len() as u16).to_le_bytes());
            digests.iter().for_each(|d| out.extend(d));
            out.extend(bytes);
        }
        Input::Tick { now_ns } => head(2, now_ns),
        Input::Fact { now_ns, fact: Fact::Aggregate { id, count, bytes_out, bytes_in } } => {
            head(4, now_ns);
            [id, count, bytes_out, bytes_in].iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
        Input::Fact { now_ns, fact } => {
            head(3, now_ns);
            // Facts are plain data: serialising them into memory cannot fail.
            out.extend(serde_json::to_vec(fact).unwrap_or_default());
        }
    }
    let len = (out.len() - start - HEAD) as u32;
    out[start + 1..start + 5].copy_from_slice(&len.to_le_bytes());
}

fn u64_of(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(bytes);
    u64::from_le_bytes(eight)
}

/// Reads a recording from memory.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    digests: Vec<Digest>,
    fact: Fact,
}

impl<'a> Reader<'a> {
    /// Checks the header.
    ///
    /// # Errors
    /// When the bytes are not a recording, or of another version.
    pub fn new(bytes: &'a [u8]) -> Result<Self, RecordingError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(RecordingError::Magic)?;
        let version = rest.get(..2).ok_or(RecordingError::Cut { at: 0 })?;
        let got = u16::from_le_bytes([version[0], version[1]]);
        if got != VERSION && got != VERSION_2 {
            return Err(RecordingError::Version { got });
        }
        Ok(Self { bytes, at: MAGIC.len() + 2, digests: Vec::new(), fact: Fact::Detached })
    }

    /// The next input; `None` at the end.
    ///
    /// # Errors
    /// When the file is cut or damaged, with the place.
    #[expect(clippy::should_implement_trait, reason = "the item borrows the reader")]
    pub fn next(&mut self) -> Result<Option<Input<'_>>, RecordingError> {
        let at = self.at as u64;
        let cut = || RecordingError::Cut { at };
        let damaged = |why: String| RecordingError::Damaged { at, why };
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let head = self.bytes.get(self.at..self.at + HEAD).ok_or_else(cut)?;
        let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let now_ns = u64_of(&head[5..]);
        if len > FRAME {
            return Err(damaged(format!("{len} bytes long, more than any frame")));
        }
        let body = self.bytes.get(self.at + HEAD..self.at + HEAD + len).ok_or_else(cut)?;
        self.at += HEAD + len;
        match head[0] {
            1 => {
                let count = body.get(..2).ok_or_else(|| damaged("no digest count".into()))?;
                let count = usize::from(u16::from_le_bytes([count[0], count[1]]));
                let digests =
                    body.get(2..2 + count * 16).ok_or_else(|| damaged("digests are missing".into()))?;
                self.digests.clear();
                for d in digests.chunks_exact(16) {
                    let mut digest = Digest::default();
                    digest.copy_from_slice(d);
                    self.digests.push(digest);
                }
                Ok(Some(Input::Record { bytes: &body[2 + count * 16..], digests: &self.digests }))
            }
            2 => Ok(Some(Input::Tick { now_ns })),
            3 => {
                self.fact = serde_json::from_slice(body)
                    .map_err(|e| damaged(format!("its fact is not readable: {e}")))?;
                Ok(Some(Input::Fact { now_ns, fact: &self.fact }))
            }
            4 => {
                let words: Vec<u64> = body.chunks_exact(8).map(u64_of).collect();
                let [id, count, bytes_out, bytes_in] = words[..] else {
                    return Err(damaged("an aggregate has four words".into()));
                };
                self.fact = Fact::Aggregate { id, count, bytes_out, bytes_in };
                Ok(Some(Input::Fact { now_ns, fact: &self.fact }))
            }
            other => Err(damaged(format!("unknown kind {other}"))),
        }
    }
}
