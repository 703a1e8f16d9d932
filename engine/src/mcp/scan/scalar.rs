//! Strings, numbers and literals.

use super::{Scanner, State, TRACKED};
use crate::mcp::{
    find::find,
    keys::{Field, Role},
    token::{Literal, Step, Token},
};

impl Scanner {
    /// Inside a string: how many bytes until the closing quote, a newline, or the end of `bytes`.
    pub(super) fn string(&mut self, bytes: &[u8]) -> usize {
        let mut len = usize::from(self.escaped);
        self.escaped = false;
        loop {
            let rest = bytes.get(len..).unwrap_or_default();
            len += find(rest, *b"\"\\\n");
            if bytes.get(len) != Some(&b'\\') {
                return len.min(bytes.len());
            }
            len += 1;
            match bytes.get(len) {
                None | Some(b'\n') => {
                    self.escaped = true;
                    return len;
                }
                Some(_) => len += 1,
            }
        }
    }

    /// Inside a key or a string value, at the closing quote or before.
    pub(super) fn text(&mut self, bytes: &[u8]) -> Step {
        let key = self.state == State::KeyText;
        let len = self.string(bytes);
        let (inside, _) = bytes.split_at(len);
        match (key, inside.is_empty()) {
            (true, false) => {
                self.key.feed(inside);
                self.step(len, Token::Key)
            }
            (true, true) => self.key_end(),
            (false, false) => self.step(len, Token::Text),
            (false, true) => self.end(1, Token::TextEnd),
        }
    }

    fn key_end(&mut self) -> Step {
        self.state = State::Colon;
        let known = match self.role {
            Role::Arguments => Some(b"".as_slice()),
            _ => self.key.whole(),
        };
        self.field = known.map_or(Field::Other, |key| self.role.member(key));
        let level = usize::try_from(self.depth).map_or(TRACKED, |depth| depth.wrapping_sub(1));
        if let Some(seen) = self.seen.get_mut(level) {
            self.duplicate = *seen & self.field.bit() != 0;
            *seen |= self.field.bit();
        }
        self.step(1, Token::KeyEnd)
    }

    pub(super) fn number(&mut self, bytes: &[u8]) -> Step {
        match digits(bytes) {
            // The argument, if it is one, ended before this byte.
            0 => self.end(0, Token::NumberEnd),
            len => self.step(len, Token::Number),
        }
    }

    /// `true`, `false` or `null` begins.
    pub(super) fn literal_begins(&mut self, byte: u8) {
        self.literal = match byte {
            b't' => (Literal::True, b"true"),
            b'f' => (Literal::False, b"false"),
            _ => (Literal::Null, b"null"),
        };
    }

    pub(super) fn literal(&mut self, bytes: &[u8]) -> Step {
        let (literal, rest) = self.literal;
        let len = rest.len().min(bytes.len());
        let (expected, rest) = rest.split_at(len);
        let same = expected.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        if same == 0 {
            self.bad()
        } else if same < len {
            self.literal = (literal, expected.get(same..).unwrap_or_default());
            self.step(same, Token::Literal)
        } else if rest.is_empty() {
            self.end(len, Token::LiteralEnd(literal))
        } else {
            self.literal = (literal, rest);
            self.step(len, Token::Literal)
        }
    }
}

/// How many bytes of a number come first.
pub(super) fn digits(bytes: &[u8]) -> usize {
    let number = |b: &u8| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    bytes.iter().take_while(|byte| number(byte)).count()
}
