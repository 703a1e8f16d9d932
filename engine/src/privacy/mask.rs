//! Masks one direction of one channel, in place.
//!
//! What is masked still scans the same: a [`crate::mcp::Framer`] makes of the masked bytes what it
//! makes of the raw ones, but for values. Strings become `x`es, digits become `1`s, structure,
//! `true`, `false` and `null` stay. In clear stay the values that the framer extracts, the keys
//! beside them, and the names of arguments.
//!
//! Two things can stay in clear that should not, both only after a gap. An object that happens to
//! begin right where captured bytes go on is taken for a message, so its `id`, `method` and the
//! like stay. And what looks like the id at the end of a cut line stays if the pushed bytes end
//! within it.

use blake3::Hasher;

use crate::{
    input::Digest,
    mcp::{
        first16,
        scan::{Scanner, payload::Payload},
        tail::CutPart,
        token::{Step, Token},
    },
};

/// Bytes that are copied aside at a time.
const BLOCK: usize = 32 << 10;

/// Masks one direction of one channel.
#[derive(Debug)]
pub struct Masker {
    scanner: Scanner,
    include_arguments: bool,
    /// Keyed; of the argument value that is being read.
    hasher: Hasher,
    /// An argument value is being read.
    open: bool,
    /// The raw bytes of the current block.
    raw: Vec<u8>,
}

impl Masker {
    /// `key`: of the hashes. `include_arguments`: mask nothing, only hash.
    pub fn new(key: &[u8; 32], include_arguments: bool) -> Self {
        Self {
            scanner: Scanner::default(),
            include_arguments,
            hasher: Hasher::new_keyed(key),
            open: false,
            raw: Vec::new(),
        }
    }

    /// Masks the next bytes, and appends the keyed hash of each top-level argument value that ends
    /// in them: the first 16 bytes of keyed BLAKE3 of the value as written.
    pub fn mask(&mut self, bytes: &mut [u8], digests: &mut Vec<Digest>) {
        let mut raw = std::mem::take(&mut self.raw);
        for block in bytes.chunks_mut(BLOCK) {
            raw.clear();
            raw.extend_from_slice(block);
            self.block(&raw, block, digests);
        }
        // Raw bytes must not outlive the call.
        raw.fill(0);
        self.raw = raw;
    }

    /// Bytes are missing here. The rest of the line is masked, but for an id at its very end.
    pub fn gap(&mut self) {
        self.scanner.gap();
        self.abandon();
    }

    fn block(&mut self, raw: &[u8], block: &mut [u8], digests: &mut Vec<Digest>) {
        let mut at = 0;
        // Where the argument value begins, as far as in here.
        let mut from = 0;
        // What looks like the id at the end of a cut line.
        let mut id = 0..0;
        while let Some(rest) = raw.get(at..).filter(|rest| !rest.is_empty()) {
            let covered = if self.include_arguments { &mut [] } else { &mut *block };
            let step = self.scanner.next(rest, &mut Cover { block: covered, at });
            let end = at + step.len;
            if step.argument && !self.open {
                self.open = true;
                from = at;
            }
            if step.argument_end {
                if self.scanner.argument_counts() {
                    self.hasher.update(raw.get(from..end).unwrap_or_default());
                    digests.push(first16(&self.hasher));
                }
                self.abandon();
            }
            if let Token::Line(_) = step.token {
                self.scanner.line_start();
                self.abandon();
            }
            if !self.include_arguments {
                match step.token {
                    Token::Cut(CutPart::Value) if id.end == at => id.end = end,
                    Token::Cut(CutPart::Value) => id = at..end,
                    Token::Cut(CutPart::NotId { text }) => {
                        cover(block.get_mut(id).unwrap_or_default(), text);
                        id = 0..0;
                    }
                    _ => self.cover(step, block.get_mut(at..end).unwrap_or_default()),
                }
            }
            at = end;
        }
        if self.open && self.scanner.argument_counts() {
            self.hasher.update(raw.get(from..).unwrap_or_default());
        }
    }

    /// The argument value is over.
    fn abandon(&mut self) {
        if self.open {
            self.open = false;
            self.hasher.reset();
        }
    }

    fn cover(&self, step: Step, bytes: &mut [u8]) {
        let kept = self.scanner.field().limit() > 0;
        match step.token {
            Token::Text if !kept => bytes.fill(b'x'),
            Token::Number if !kept => cover(bytes, false),
            Token::Garbage | Token::Cut(CutPart::Lost) => {
                bytes.iter_mut().filter(|byte| **byte != b'\r').for_each(|byte| *byte = b'x');
            }
            _ => {}
        }
    }
}

/// Masks payload; `at`: where the step begins.
struct Cover<'a> {
    block: &'a mut [u8],
    at: usize,
}

impl Payload for Cover<'_> {
    fn text(&mut self, from: usize, to: usize) {
        cover(self.block.get_mut(self.at + from..self.at + to).unwrap_or_default(), true);
    }

    fn number(&mut self, from: usize, to: usize) {
        cover(self.block.get_mut(self.at + from..self.at + to).unwrap_or_default(), false);
    }
}

/// Masks the inside of a string, or a number.
fn cover(bytes: &mut [u8], text: bool) {
    if text {
        bytes.fill(b'x');
    } else {
        bytes.iter_mut().filter(|byte| byte.is_ascii_digit()).for_each(|byte| *byte = b'1');
    }
}
