//! What the scanner says.

use super::{keys::Role, tail::CutPart};

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEnd {
    Empty,
    Message,
    Batch,
    Garbage,
    Cut,
}

/// What a gap met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cutting {
    /// Nothing: it lies between two lines.
    Between,
    /// A complete message or batch that lacked only its newline.
    Complete {
        batch: bool,
    },
    /// A message or batch that began properly.
    Inside,
    Garbage,
    /// A line that was already cut.
    Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Literal {
    True,
    False,
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// White space, commas, colons, quotes of keys.
    Structure,
    /// Payload, or a part of it: its values were told apart already.
    Payload,
    /// Bytes of a key.
    Key,
    /// Closing quote of a key.
    KeyEnd,
    Open(Role),
    Close(Role),
    /// Opening quote of a string value.
    Quote,
    Text,
    /// Closing quote of a string value.
    TextEnd,
    Number,
    /// No bytes.
    NumberEnd,
    Literal,
    LiteralEnd(Literal),
    /// First byte of a line that is not JSON.
    GarbageStart,
    Garbage,
    Cut(CutPart),
    Line(LineEnd),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) len: usize,
    pub(crate) token: Token,
    /// These bytes belong to a member of `params.arguments`.
    pub(crate) argument: bool,
    /// Such a member ends here.
    pub(crate) argument_end: bool,
}
