//! Containers that mean nothing to us: skipped in one go, as far as the bytes reach.

use super::{KINDS, Scanner, State, grammar::Act};
use crate::mcp::{
    find::spaces,
    token::{Step, Token},
};

/// Learns where the values in payload are. Positions count from the bytes of the step.
pub(crate) trait Payload {
    /// The inside of a key or a string value.
    fn text(&mut self, from: usize, to: usize);
    /// A number, or a part of one.
    fn number(&mut self, from: usize, to: usize);
}

impl Payload for () {
    fn text(&mut self, _: usize, _: usize) {}
    fn number(&mut self, _: usize, _: usize) {}
}

impl Scanner {
    /// Up to the end of the payload, of the bytes, or to where it stops being JSON.
    pub(super) fn payload(&mut self, bytes: &[u8], values: &mut impl Payload) -> Step {
        let (mut state, mut depth, mut kinds) = (self.state, self.depth, self.kinds);
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let rest = bytes.get(at..).unwrap_or_default();
            match state {
                State::Text | State::KeyText => {
                    let from = at;
                    at += self.string(rest);
                    values.text(from, at);
                    if bytes.get(at) != Some(&b'"') {
                        break;
                    }
                    at += 1;
                    state = if state == State::KeyText { State::Colon } else { after(depth) };
                }
                State::Number => {
                    let from = at;
                    at += super::scalar::digits(rest);
                    values.number(from, at);
                    if at < bytes.len() {
                        state = after(depth);
                    }
                }
                State::Literal => {
                    (self.state, self.depth) = (state, depth);
                    at += self.literal(rest).len;
                    state = self.state;
                    if state == State::Garbage || state == State::Cut {
                        return self.step(at, Token::Payload);
                    }
                }
                _ => match state.act(byte) {
                    Act::Space => at = spaces(bytes, at),
                    Act::Open => {
                        at += 1;
                        let object = byte == b'{';
                        if depth < KINDS {
                            let bit = 1 << depth;
                            kinds = if object { kinds | bit } else { kinds & !bit };
                        }
                        depth += 1;
                        state = match object {
                            _ if depth > KINDS => State::Deep,
                            true => State::KeyOrEnd,
                            false => State::ValueOrEnd,
                        };
                    }
                    Act::Close if depth > KINDS || is_object(kinds, depth) == (byte == b'}') => {
                        at += 1;
                        depth -= 1;
                        if depth == self.floor {
                            self.depth = depth;
                            self.kinds = kinds;
                            self.role = self.outer();
                            return self.end(at, Token::Payload);
                        }
                        state = after(depth);
                    }
                    Act::Key => {
                        at += 1;
                        state = State::KeyText;
                    }
                    Act::Quote => {
                        at += 1;
                        state = State::Text;
                    }
                    Act::Colon | Act::Comma => {
                        at += 1;
                        state = match (state, byte) {
                            (State::Deep, _) => State::Deep,
                            (_, b',') if is_object(kinds, depth) => State::Key,
                            _ => State::Value,
                        };
                    }
                    Act::Number => state = State::Number,
                    Act::Literal => {
                        self.literal_begins(byte);
                        state = State::Literal;
                    }
                    Act::Bad if byte == b'\n' => break,
                    Act::Bad | Act::Close => {
                        self.bad();
                        return self.step(at, Token::Payload);
                    }
                },
            }
        }
        (self.state, self.depth, self.kinds) = (state, depth, kinds);
        self.step(at, Token::Payload)
    }
}

/// The state after a value inside `depth` containers.
fn after(depth: u64) -> State {
    if depth > KINDS { State::Deep } else { State::After }
}

/// The innermost of `depth` containers, at most [`KINDS`], is an object.
pub(super) fn is_object(kinds: u64, depth: u64) -> bool {
    kinds >> (depth.wrapping_sub(1) & (KINDS - 1)) & 1 == 1
}
