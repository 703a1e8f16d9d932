//! The JSON scanner: lines of JSON in, tokens out, nothing kept but the last key of interest.
//!
//! ```text
//! bytes -> Scanner::next -> Step { len, token } -> Framer (keeps what is asked for)
//!                                               -> Masker (overwrites what is payload)
//! ```
//! A newline ends the line whatever the state: JSON strings cannot contain one. Brackets are
//! counted, their kinds are known for the first 64 levels and checked there. Inside strings only
//! quotes and backslashes matter, so control bytes and invalid UTF-8 pass. Numbers are any run of
//! number bytes. That leniency is what lets a masked line scan exactly like the line itself.

mod scalar;

use super::{
    find::{find, is_space, spaces},
    keys::{Field, Role},
    tail::Tail,
    text::Decoder,
    token::{Cutting, LineEnd, Literal, Step, Token},
};

/// Arguments of one message that are looked at.
pub(crate) const MAX_ARGUMENTS: u32 = 64;
/// Longest key that can be known, decoded bytes.
const MAX_KEY: usize = 128;
/// Levels whose kind of bracket is known.
const KINDS: u64 = 64;
/// Levels that can have a role: batch, message, params, _meta, clientInfo.
const TRACKED: usize = 5;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    LineStart,
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    KeyText,
    Colon,
    /// After a value, inside a container.
    After,
    /// Below the levels whose kind is known.
    Deep,
    Text,
    Number,
    Literal,
    /// The top-level value is complete.
    Done,
    /// Not JSON, up to the newline.
    Garbage,
    /// Nesting unknown since a gap, up to the newline.
    Cut,
}

#[derive(Debug, Default)]
pub(crate) struct Scanner {
    state: State,
    /// A gap cut this line, or lies right before it.
    after_gap: bool,
    depth: u64,
    /// One bit a level: object.
    kinds: u64,
    roles: [Role; TRACKED],
    seen: [u64; TRACKED],
    /// Role of the innermost container.
    role: Role,
    field: Field,
    duplicate: bool,
    key: Decoder,
    escaped: bool,
    literal: Option<(Literal, &'static [u8])>,
    in_argument: bool,
    arguments: u32,
    batch: bool,
    tail: Tail,
}

impl Scanner {
    /// Field of the value that is being scanned, or of the key that just ended.
    pub(crate) fn field(&self) -> Field {
        self.field
    }

    /// The key that just ended was there before, in the same object.
    pub(crate) fn duplicate(&self) -> bool {
        self.duplicate
    }

    /// The key that just ended.
    pub(crate) fn key(&mut self) -> &mut Decoder {
        &mut self.key
    }

    /// The current line is a batch.
    pub(crate) fn batch(&self) -> bool {
        self.batch
    }

    /// The line is not known to be worthless.
    pub(crate) fn healthy(&self) -> bool {
        !matches!(self.state, State::Garbage | State::Cut)
    }

    /// The argument that is being scanned is among the first [`MAX_ARGUMENTS`].
    pub(crate) fn argument_counts(&self) -> bool {
        self.arguments <= MAX_ARGUMENTS
    }

    /// The id at the end of a cut line.
    pub(crate) fn tail_id(&self) -> Option<(&[u8], bool)> {
        if self.state == State::Cut {
            self.tail.id()
        } else {
            None
        }
    }

    /// Bytes held.
    pub(crate) fn held(&self) -> usize {
        self.key.held() + self.tail.held()
    }

    /// Bytes are missing here.
    pub(crate) fn gap(&mut self) -> Cutting {
        let met = match self.state {
            State::LineStart => Cutting::Between,
            State::Done => Cutting::Complete { batch: self.batch },
            State::Garbage => Cutting::Garbage,
            State::Cut => Cutting::Again,
            _ if self.after_gap => Cutting::Again,
            _ => Cutting::Inside,
        };
        match met {
            Cutting::Between | Cutting::Complete { .. } => self.line_start(),
            Cutting::Inside | Cutting::Garbage | Cutting::Again => self.cut(),
        }
        self.after_gap = true;
        met
    }

    /// The next token of `bytes`, which are not empty. A step may have no bytes, but never twice
    /// in a row.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Step {
        let Some(&byte) = bytes.first() else {
            return self.step(0, Token::Structure);
        };
        if byte == b'\n' {
            return self.newline();
        }
        match self.state {
            State::Text | State::KeyText => self.text(bytes),
            State::Number => self.number(bytes),
            State::Literal => self.literal(bytes),
            State::Garbage => self.garbage(bytes),
            State::Cut => {
                let (len, part) = self.tail.next(bytes);
                self.step(len, Token::Cut(part))
            }
            _ if is_space(byte) => self.step(spaces(bytes, 1), Token::Structure),
            State::LineStart => match byte {
                b'{' => self.open(true),
                b'[' if !self.after_gap => self.open(false),
                _ if self.after_gap => self.bad(bytes),
                _ => {
                    self.state = State::Garbage;
                    self.step(1, Token::GarbageStart)
                }
            },
            State::Value => self.value(byte, bytes),
            State::ValueOrEnd if byte == b']' => self.close(byte, bytes),
            State::ValueOrEnd => self.value(byte, bytes),
            State::KeyOrEnd if byte == b'}' => self.close(byte, bytes),
            State::Key | State::KeyOrEnd if byte == b'"' => {
                self.state = State::KeyText;
                self.key.begin(MAX_KEY);
                self.step(1, Token::Structure)
            }
            State::Colon if byte == b':' => {
                self.state = State::Value;
                self.step(spaces(bytes, 1), Token::Structure)
            }
            State::After => match byte {
                b',' => {
                    self.state = if self.in_object() {
                        State::Key
                    } else {
                        State::Value
                    };
                    self.step(spaces(bytes, 1), Token::Structure)
                }
                b'}' | b']' => self.close(byte, bytes),
                _ => self.bad(bytes),
            },
            State::Deep => match byte {
                b',' | b':' => self.step(spaces(bytes, 1), Token::Structure),
                b'}' | b']' => self.close(byte, bytes),
                _ => self.value(byte, bytes),
            },
            State::Key | State::KeyOrEnd | State::Colon | State::Done => self.bad(bytes),
        }
    }

    fn step(&self, len: usize, token: Token) -> Step {
        Step {
            len,
            token,
            argument: self.in_argument,
            argument_end: false,
        }
    }

    fn newline(&mut self) -> Step {
        let end = match self.state {
            State::LineStart => LineEnd::Empty,
            State::Done if self.batch => LineEnd::Batch,
            State::Done => LineEnd::Message,
            _ if self.after_gap => LineEnd::Cut,
            _ => LineEnd::Garbage,
        };
        self.in_argument = false;
        self.step(1, Token::Line(end))
    }

    /// Forgets the line. Must follow [`Token::Line`]; until then [`Self::tail_id`] can be asked.
    pub(crate) fn line_start(&mut self) {
        self.state = State::LineStart;
        self.after_gap = false;
        self.depth = 0;
        self.role = Role::Other;
        self.field = Field::Other;
        self.escaped = false;
        self.in_argument = false;
        self.batch = false;
        self.tail.reset();
    }

    fn cut(&mut self) {
        self.state = State::Cut;
        self.in_argument = false;
        self.tail.reset();
    }

    /// This is not JSON, or not from its beginning.
    fn bad(&mut self, bytes: &[u8]) -> Step {
        self.in_argument = false;
        if self.after_gap {
            self.cut();
            let (len, part) = self.tail.next(bytes);
            return self.step(len, Token::Cut(part));
        }
        self.state = State::Garbage;
        self.garbage(bytes)
    }

    fn garbage(&mut self, bytes: &[u8]) -> Step {
        self.step(find(bytes, |b| b == b'\n'), Token::Garbage)
    }

    fn in_object(&self) -> bool {
        self.kinds >> ((self.depth - 1) & (KINDS - 1)) & 1 == 1
    }

    fn value(&mut self, byte: u8, bytes: &[u8]) -> Step {
        let (literal, rest): (Literal, &'static [u8]) = match byte {
            b'{' => return self.open(true),
            b'[' => return self.open(false),
            b'"' => {
                self.begin();
                self.state = State::Text;
                return self.step(1, Token::Quote);
            }
            b'-' | b'0'..=b'9' => {
                self.begin();
                self.state = State::Number;
                return self.number(bytes);
            }
            b't' => (Literal::True, b"true"),
            b'f' => (Literal::False, b"false"),
            b'n' => (Literal::Null, b"null"),
            _ => return self.bad(bytes),
        };
        self.begin();
        self.state = State::Literal;
        self.literal = Some((literal, rest));
        self.literal(bytes)
    }

    /// A value begins.
    fn begin(&mut self) {
        if self.depth > 0 && self.depth <= KINDS && !self.in_object() {
            self.field = self.role.element();
        }
        if self.role == Role::Arguments {
            self.in_argument = true;
            self.arguments = self.arguments.saturating_add(1);
        }
    }

    /// A value ended; `step` is its last.
    fn end(&mut self, len: usize, token: Token) -> Step {
        self.state = match self.depth {
            0 => State::Done,
            1..=KINDS => State::After,
            _ => State::Deep,
        };
        let argument_end = self.in_argument && self.role == Role::Arguments;
        let step = Step {
            len,
            token,
            argument: self.in_argument,
            argument_end,
        };
        self.in_argument &= !argument_end;
        step
    }

    fn open(&mut self, object: bool) -> Step {
        self.begin();
        let role = match (self.depth, object) {
            (0, true) => Role::Message,
            (0, false) => Role::Batch,
            _ => self.field.role(object),
        };
        if let Ok(level) = usize::try_from(self.depth)
            && let Some(slot) = self.roles.get_mut(level)
        {
            *slot = role;
            self.seen[level] = 0;
        }
        if self.depth < KINDS {
            let bit = 1 << self.depth;
            self.kinds = if object {
                self.kinds | bit
            } else {
                self.kinds & !bit
            };
        }
        self.depth += 1;
        self.role = role;
        match role {
            Role::Batch => self.batch = true,
            Role::Message => self.arguments = 0,
            Role::Other => self.field = Field::Other,
            _ => {}
        }
        self.state = match object {
            _ if self.depth > KINDS => State::Deep,
            true => State::KeyOrEnd,
            false => State::ValueOrEnd,
        };
        self.step(1, Token::Open(role))
    }

    /// Only called inside a container.
    fn close(&mut self, byte: u8, bytes: &[u8]) -> Step {
        if self.depth <= KINDS && self.in_object() != (byte == b'}') {
            return self.bad(bytes);
        }
        let closed = self.role;
        self.depth -= 1;
        let outer = self
            .depth
            .checked_sub(1)
            .and_then(|level| usize::try_from(level).ok());
        self.role = outer
            .and_then(|level| self.roles.get(level))
            .copied()
            .unwrap_or_default();
        self.end(1, Token::Close(closed))
    }
}
