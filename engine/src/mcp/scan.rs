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

mod grammar;
pub(crate) mod payload;
mod scalar;

use self::{grammar::Act, payload::Payload};
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

/// The states between values come first; see [`grammar`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    /// After a value, inside a container.
    After,
    /// Below the levels whose kind is known.
    Deep,
    KeyText,
    Text,
    Number,
    Literal,
    LineStart,
    /// The top-level value is complete.
    Done,
    /// Not JSON, up to the newline.
    Garbage,
    /// Nesting unknown since a gap, up to the newline.
    Cut,
}

#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    /// A gap cut this line, or lies right before it.
    after_gap: bool,
    /// Open containers.
    depth: u64,
    /// Those of them that are tracked: all but the innermost.
    floor: u64,
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
    /// What is left of a literal.
    literal: (Literal, &'static [u8]),
    in_argument: bool,
    arguments: u32,
    batch: bool,
    tail: Tail,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            state: State::LineStart,
            after_gap: false,
            depth: 0,
            floor: 0,
            kinds: 0,
            roles: [Role::Other; TRACKED],
            seen: [0; TRACKED],
            role: Role::Other,
            field: Field::Other,
            duplicate: false,
            key: Decoder::default(),
            escaped: false,
            literal: (Literal::Null, b""),
            in_argument: false,
            arguments: 0,
            batch: false,
            tail: Tail::default(),
        }
    }
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
        if self.state == State::Cut { self.tail.id() } else { None }
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

    /// The next token of `bytes`, which are not empty. A step may have no bytes, but then the state
    /// has changed: going on always ends.
    pub(crate) fn next(&mut self, bytes: &[u8], values: &mut impl Payload) -> Step {
        let Some(&byte) = bytes.first() else {
            return self.step(0, Token::Structure);
        };
        if byte == b'\n' {
            return self.newline();
        }
        if self.depth > self.floor {
            return self.payload(bytes, values);
        }
        match self.state {
            State::Text | State::KeyText => self.text(bytes),
            State::Number => self.number(bytes),
            State::Literal => self.literal(bytes),
            State::Garbage => self.step(find(bytes, [b'\n']), Token::Garbage),
            State::Cut => {
                let (len, part) = self.tail.next(bytes);
                self.step(len, Token::Cut(part))
            }
            State::LineStart | State::Done if is_space(byte) => self.step(spaces(bytes, 1), Token::Structure),
            State::LineStart => match byte {
                b'{' => self.open(true),
                b'[' if !self.after_gap => self.open(false),
                _ if self.after_gap => self.bad(),
                _ => {
                    self.state = State::Garbage;
                    self.step(1, Token::GarbageStart)
                }
            },
            state => match state.act(byte) {
                Act::Bad => self.bad(),
                Act::Space => self.step(spaces(bytes, 1), Token::Structure),
                Act::Open => self.open(byte == b'{'),
                Act::Close => self.close(byte == b'}'),
                Act::Key => {
                    self.state = State::KeyText;
                    self.key.begin(MAX_KEY);
                    self.step(1, Token::Structure)
                }
                Act::Colon => {
                    self.state = State::Value;
                    self.step(spaces(bytes, 1), Token::Structure)
                }
                Act::Comma => {
                    self.state = if self.in_object() { State::Key } else { State::Value };
                    self.step(spaces(bytes, 1), Token::Structure)
                }
                Act::Quote => {
                    self.begin(State::Text);
                    self.step(1, Token::Quote)
                }
                Act::Number => {
                    self.begin(State::Number);
                    self.number(bytes)
                }
                Act::Literal => {
                    self.begin(State::Literal);
                    self.literal_begins(byte);
                    self.literal(bytes)
                }
            },
        }
    }

    fn step(&self, len: usize, token: Token) -> Step {
        Step { len, token, argument: self.in_argument, argument_end: false }
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
        (self.depth, self.floor) = (0, 0);
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
        (self.depth, self.floor) = (0, 0);
        self.tail.reset();
    }

    /// What comes now is not JSON, or the line did not begin here.
    fn bad(&mut self) -> Step {
        self.in_argument = false;
        (self.depth, self.floor) = (0, 0);
        if self.after_gap {
            self.cut();
        } else {
            self.state = State::Garbage;
        }
        self.step(0, Token::Structure)
    }

    fn in_object(&self) -> bool {
        payload::is_object(self.kinds, self.depth)
    }

    /// A value begins.
    fn begin(&mut self, state: State) {
        self.state = state;
        if self.depth > 0 && !self.in_object() {
            self.field = self.role.element();
        }
        if self.role == Role::Arguments {
            self.in_argument = true;
            self.arguments = self.arguments.saturating_add(1);
        }
    }

    /// A value ended; this step is its last.
    fn end(&mut self, len: usize, token: Token) -> Step {
        self.state = match self.depth {
            0 => State::Done,
            1..=KINDS => State::After,
            _ => State::Deep,
        };
        let argument_end = self.in_argument && self.role == Role::Arguments;
        let step = Step { len, token, argument: self.in_argument, argument_end };
        self.in_argument &= !argument_end;
        step
    }

    fn open(&mut self, object: bool) -> Step {
        self.begin(if object { State::KeyOrEnd } else { State::ValueOrEnd });
        let role = match (self.depth, object) {
            (0, true) => Role::Message,
            (0, false) => Role::Batch,
            _ => self.field.role(object),
        };
        let bit = 1 << self.depth;
        self.kinds = if object { self.kinds | bit } else { self.kinds & !bit };
        if role == Role::Other {
            self.field = Field::Other;
        } else {
            let level = usize::try_from(self.depth).unwrap_or(TRACKED);
            if let (Some(slot), Some(seen)) = (self.roles.get_mut(level), self.seen.get_mut(level)) {
                (*slot, *seen) = (role, 0);
            }
            self.floor += 1;
        }
        self.depth += 1;
        self.role = role;
        match role {
            Role::Batch => self.batch = true,
            Role::Message => self.arguments = 0,
            _ => {}
        }
        self.step(1, Token::Open(role))
    }

    /// Only called inside a tracked container.
    fn close(&mut self, object: bool) -> Step {
        if self.in_object() != object {
            return self.bad();
        }
        let closed = self.role;
        self.depth = self.depth.saturating_sub(1);
        self.floor = self.depth;
        self.role = self.outer();
        self.end(1, Token::Close(closed))
    }

    /// Role of the innermost tracked container.
    fn outer(&self) -> Role {
        let level = self.floor.checked_sub(1).and_then(|level| usize::try_from(level).ok());
        level.and_then(|level| self.roles.get(level)).copied().unwrap_or_default()
    }
}
