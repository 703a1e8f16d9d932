//! What may come next: JSON's grammar, in one table.

use super::State;

/// What a byte between values means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Bad,
    Space,
    Open,
    Close,
    /// A quote that opens a key.
    Key,
    /// A quote that opens a value.
    Quote,
    Colon,
    Comma,
    Number,
    Literal,
}

/// The states between values come first in [`State`], in this order.
const BETWEEN: [State; 7] =
    [State::Value, State::ValueOrEnd, State::Key, State::KeyOrEnd, State::Colon, State::After, State::Deep];

static ACTS: [[Act; 256]; BETWEEN.len()] = table();

impl State {
    /// What `byte` means in this state; nothing outside JSON.
    #[inline]
    pub(super) fn act(self, byte: u8) -> Act {
        ACTS.get(self as usize).map_or(Act::Bad, |acts| acts[usize::from(byte)])
    }
}

const fn table() -> [[Act; 256]; BETWEEN.len()] {
    let mut table = [[Act::Bad; 256]; BETWEEN.len()];
    let mut state = 0;
    while state < BETWEEN.len() {
        assert!(BETWEEN[state] as usize == state);
        let mut byte = 0;
        while byte < 256 {
            table[state][byte] = act(BETWEEN[state], byte as u8);
            byte += 1;
        }
        state += 1;
    }
    table
}

const fn act(state: State, byte: u8) -> Act {
    let value = matches!(state, State::Value | State::ValueOrEnd | State::Deep);
    match byte {
        b' ' | b'\t' | b'\r' => Act::Space,
        b'{' | b'[' if value => Act::Open,
        b'"' if value => Act::Quote,
        b'-' | b'0'..=b'9' if value => Act::Number,
        b't' | b'f' | b'n' if value => Act::Literal,
        b'"' if matches!(state, State::Key | State::KeyOrEnd) => Act::Key,
        b'}' if matches!(state, State::KeyOrEnd | State::After | State::Deep) => Act::Close,
        b']' if matches!(state, State::ValueOrEnd | State::After | State::Deep) => Act::Close,
        b':' if matches!(state, State::Colon | State::Deep) => Act::Colon,
        b',' if matches!(state, State::After | State::Deep) => Act::Comma,
        _ => Act::Bad,
    }
}
