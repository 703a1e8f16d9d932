//! The id at the very end of a line whose beginning was lost: `..."id":7}`.
//!
//! The TypeScript SDK writes `id` last, so a long reply that was cut still tells whose it is.
//! In a line of JSON the final `}` closes the message itself, so the key before it is its own.

use super::find::find;

/// Longest raw id that is recovered, bytes.
const MAX_ID: usize = 256;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    /// So many bytes of `"id"` seen.
    Key(u8),
    /// After the key.
    Colon,
    /// After the colon.
    Value,
    Number,
    Text,
    Escaped,
    /// After the value.
    Brace,
    /// After the brace: nothing may follow.
    End,
}

/// What the bytes of a cut line are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutPart {
    /// Payload.
    Lost,
    /// Part of what might be `"id":`, a quote of its value, or the brace.
    Frame,
    /// Part of what might be the id.
    Value,
    /// No bytes: the value before was not the id after all (`text`: it was a string).
    NotId {
        /// The value was a string.
        text: bool,
    },
}

/// Looks for the id, byte by byte.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    state: State,
    /// The last byte was a backslash.
    backslash: bool,
    value: Vec<u8>,
    text: bool,
}

impl Tail {
    pub(crate) fn reset(&mut self) {
        self.state = State::Idle;
        self.backslash = false;
        self.value.clear();
    }

    /// The id's raw bytes and whether it is a string, if the line ends here.
    pub(crate) fn id(&self) -> Option<(&[u8], bool)> {
        (self.state == State::End).then_some((&self.value, self.text))
    }

    pub(crate) fn held(&self) -> usize {
        self.value.capacity()
    }

    /// `bytes` is not empty and does not start with a newline.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> (usize, CutPart) {
        let Some(&byte) = bytes.first() else {
            return (0, CutPart::Lost);
        };
        let space = matches!(byte, b' ' | b'\t' | b'\r');
        let next = match (self.state, byte) {
            (State::Idle, _) => return self.idle(bytes),
            (State::Key(1), b'i') => State::Key(2),
            (State::Key(2), b'd') => State::Key(3),
            (State::Key(3), b'"') => State::Colon,
            (State::Colon, b':') => State::Value,
            (State::Value, b'"') => {
                self.text = true;
                State::Text
            }
            (State::Value, b'-' | b'0'..=b'9') => {
                self.text = false;
                return self.keep(byte, State::Number);
            }
            (State::Number, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') => {
                return self.keep(byte, State::Number);
            }
            (State::Text, b'"') => State::Brace,
            (State::Text, b'\\') => return self.keep(byte, State::Escaped),
            (State::Text | State::Escaped, _) => return self.keep(byte, State::Text),
            (State::Number | State::Brace, b'}') => State::End,
            (State::Number, _) if space => State::Brace,
            (State::Colon | State::Value | State::Brace | State::End, _) if space => self.state,
            _ => return self.fail(),
        };
        self.state = next;
        (1, CutPart::Frame)
    }

    fn idle(&mut self, bytes: &[u8]) -> (usize, CutPart) {
        let len = find(bytes, *b"\"\n");
        if let Some(last) = len.checked_sub(1).and_then(|last| bytes.get(last)) {
            self.backslash = *last == b'\\';
            return (len, CutPart::Lost);
        }
        if self.backslash {
            self.backslash = false;
            return (1, CutPart::Lost);
        }
        self.value.clear();
        self.text = false;
        self.state = State::Key(1);
        (1, CutPart::Frame)
    }

    fn keep(&mut self, byte: u8, state: State) -> (usize, CutPart) {
        if self.value.len() == MAX_ID {
            return self.fail();
        }
        self.value.push(byte);
        self.state = state;
        (1, CutPart::Value)
    }

    fn fail(&mut self) -> (usize, CutPart) {
        self.backslash = self.state == State::Escaped;
        self.state = State::Idle;
        (0, CutPart::NotId { text: self.text })
    }
}
