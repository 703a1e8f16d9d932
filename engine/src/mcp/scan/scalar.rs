//! Strings, numbers and literals.

use super::{Scanner, State, TRACKED};
use crate::mcp::{
    find::find,
    keys::{Field, Role},
    token::{Step, Token},
};

impl Scanner {
    /// Inside a key or a string value, at the closing quote or before.
    pub(super) fn text(&mut self, bytes: &[u8]) -> Step {
        let key = self.state == State::KeyText;
        let mut len = usize::from(self.escaped);
        self.escaped = false;
        loop {
            let rest = bytes.get(len..).unwrap_or_default();
            len += find(rest, |b| (b == b'"') | (b == b'\\') | (b == b'\n'));
            if bytes.get(len) != Some(&b'\\') {
                break;
            }
            len += 1;
            match bytes.get(len) {
                None | Some(b'\n') => {
                    self.escaped = true;
                    break;
                }
                Some(_) => len += 1,
            }
        }
        let (inside, _) = bytes.split_at(len.min(bytes.len()));
        match (key, inside.is_empty()) {
            (true, false) => {
                let kept = self.role.tracked();
                if kept {
                    self.key.feed(inside);
                }
                self.step(len, Token::Key { kept })
            }
            (true, true) => self.key_end(),
            (false, false) => self.step(len, Token::Text),
            (false, true) => self.end(1, Token::TextEnd),
        }
    }

    fn key_end(&mut self) -> Step {
        self.state = State::Colon;
        if !self.role.tracked() {
            return self.step(1, Token::Structure);
        }
        let known = match self.role {
            Role::Arguments => Some(b"".as_slice()),
            _ => self.key.whole(),
        };
        self.field = known.map_or(Field::Other, |key| self.role.member(key));
        let level = usize::try_from(self.depth - 1).unwrap_or(TRACKED);
        if let Some(seen) = self.seen.get_mut(level) {
            self.duplicate = *seen & self.field.bit() != 0;
            *seen |= self.field.bit();
        }
        self.step(1, Token::KeyEnd)
    }

    pub(super) fn number(&mut self, bytes: &[u8]) -> Step {
        let len = bytes
            .iter()
            .position(|b| !matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
            .unwrap_or(bytes.len());
        if len == 0 {
            // The argument, if it is one, ended before this byte.
            return self.end(0, Token::NumberEnd);
        }
        self.step(len, Token::Number)
    }

    pub(super) fn literal(&mut self, bytes: &[u8]) -> Step {
        let Some((literal, rest)) = self.literal else {
            return self.bad(bytes);
        };
        let len = rest.len().min(bytes.len());
        let (expected, rest) = rest.split_at(len);
        let same = expected
            .iter()
            .zip(bytes)
            .take_while(|(a, b)| a == b)
            .count();
        if same == 0 {
            self.bad(bytes)
        } else if same < len {
            self.literal = Some((literal, &expected[same..]));
            self.step(same, Token::Literal)
        } else if rest.is_empty() {
            self.end(len, Token::LiteralEnd(literal))
        } else {
            self.literal = Some((literal, rest));
            self.step(len, Token::Literal)
        }
    }
}
