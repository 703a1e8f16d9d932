//! Strings, decoded in pieces and in bounded space.

use blake3::Hasher;

/// A decoded string, or what is left of one that was too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Whole(Box<str>),
    /// First 16 bytes of the BLAKE3 hash of the decoded bytes.
    Long([u8; 16]),
}

impl Text {
    /// The string, or a marker that still compares.
    pub(crate) fn into_name(self) -> Box<str> {
        match self {
            Self::Whole(text) => text,
            Self::Long(hash) => {
                let mut name = String::from("blake3:");
                for byte in hash {
                    for digit in [byte >> 4, byte & 15] {
                        name.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
                    }
                }
                name.into()
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    No,
    Backslash,
    /// After `\u`: digits so far and their value.
    Hex(u8, u16),
}

/// Decodes the inside of a JSON string, given in pieces of any size.
/// Keeps at most `limit` bytes; a longer string becomes a hash.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    kept: Vec<u8>,
    limit: usize,
    hasher: Option<Box<Hasher>>,
    escape: Escape,
    /// A high surrogate that waits for its low half.
    high: Option<u16>,
}

impl Decoder {
    pub(crate) fn begin(&mut self, limit: usize) {
        self.kept.clear();
        self.limit = limit;
        self.hasher = None;
        self.escape = Escape::No;
        self.high = None;
    }

    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.escape {
                Escape::No => {
                    let run = bytes.iter().position(|&b| b == b'\\').unwrap_or(bytes.len());
                    let (plain, rest) = bytes.split_at(run);
                    if !plain.is_empty() {
                        self.lone();
                        self.keep(plain);
                    }
                    bytes = rest;
                    if let Some((_, rest)) = rest.split_first() {
                        self.escape = Escape::Backslash;
                        bytes = rest;
                    }
                }
                Escape::Backslash => {
                    self.escape = Escape::No;
                    if byte == b'u' {
                        self.escape = Escape::Hex(0, 0);
                    } else {
                        self.lone();
                        self.keep(&[match byte {
                            b'b' => 8,
                            b'f' => 12,
                            b'n' => b'\n',
                            b'r' => b'\r',
                            b't' => b'\t',
                            other => other,
                        }]);
                    }
                    bytes = rest;
                }
                Escape::Hex(digits, value) => {
                    let digit = char::from(byte).to_digit(16).and_then(|d| u16::try_from(d).ok());
                    match digit {
                        Some(digit) => {
                            bytes = rest;
                            let value = value << 4 | digit;
                            self.escape = Escape::Hex(digits + 1, value);
                            if digits == 3 {
                                self.escape = Escape::No;
                                self.unit(value);
                            }
                        }
                        None => {
                            self.escape = Escape::No;
                            self.lone();
                            self.keep("\u{fffd}".as_bytes());
                        }
                    }
                }
            }
        }
    }

    /// Takes the string.
    pub(crate) fn take(&mut self) -> Text {
        self.lone();
        match self.hasher.take() {
            Some(hasher) => Text::Long(first16(&hasher)),
            None => Text::Whole(String::from_utf8_lossy(&self.kept).into()),
        }
    }

    /// The decoded bytes, unless the string was too long.
    pub(crate) fn whole(&mut self) -> Option<&[u8]> {
        self.lone();
        self.hasher.is_none().then_some(&self.kept)
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.kept.capacity() + self.hasher.as_ref().map_or(0, |_| size_of::<Hasher>())
    }

    /// One UTF-16 code unit.
    fn unit(&mut self, unit: u16) {
        let high = self.high.take();
        if let Some(high) = high {
            if let Some(Ok(whole)) = char::decode_utf16([high, unit]).next() {
                self.character(whole);
                return;
            }
            self.character('\u{fffd}');
        }
        match char::from_u32(u32::from(unit)) {
            Some(character) => self.character(character),
            None if unit < 0xdc00 => self.high = Some(unit),
            None => self.character('\u{fffd}'),
        }
    }

    /// A high surrogate without its low half.
    fn lone(&mut self) {
        if self.high.take().is_some() {
            self.character('\u{fffd}');
        }
    }

    fn character(&mut self, character: char) {
        let mut utf8 = [0; 4];
        self.keep(character.encode_utf8(&mut utf8).as_bytes());
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        } else if self.kept.len() + bytes.len() > self.limit {
            let mut hasher = Box::new(Hasher::new());
            hasher.update(&self.kept);
            hasher.update(bytes);
            self.kept.clear();
            self.hasher = Some(hasher);
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }
}

/// First 16 bytes of a hash.
pub(crate) fn first16(hasher: &Hasher) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(hasher.finalize().as_bytes().split_at(16).0);
    first
}
