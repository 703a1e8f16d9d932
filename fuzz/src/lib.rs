//! Inputs of the channel targets: how a stream is cut, then the stream.
//!
//! ```text
//! n, n times one byte of cutting, the stream
//! cutting:  0..=247  so many bytes + 1, in one piece
//!         248..=255  one byte, then a gap of 0..=7 bytes
//! ```
#![forbid(unsafe_code)]

/// A stream and where it is cut.
pub struct Stream<'a> {
    cuts: &'a [u8],
    /// All its bytes.
    pub bytes: &'a [u8],
}

impl<'a> Stream<'a> {
    /// Any bytes make a stream.
    pub fn new(data: &'a [u8]) -> Self {
        let (n, rest) = data.split_first().map_or((0, data), |(n, rest)| (usize::from(*n), rest));
        let (cuts, bytes) = rest.split_at(n.min(rest.len()));
        Self { cuts, bytes }
    }

    /// Calls `each` with the pieces and the gaps after them.
    pub fn pieces(&self, mut each: impl FnMut(&'a [u8], Option<u64>)) {
        let mut bytes = self.bytes;
        for cut in self.cuts {
            let gap = cut.checked_sub(248).map(u64::from);
            let len = if gap.is_some() { 1 } else { usize::from(*cut) + 1 };
            let (piece, rest) = bytes.split_at(len.min(bytes.len()));
            each(piece, gap);
            bytes = rest;
        }
        each(bytes, None);
    }
}
