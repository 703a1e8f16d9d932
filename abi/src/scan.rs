//! A bounded JSON scanner for JSON-RPC lines, table-driven, one for the kernel and for user space: there
//! it opens and closes calls, here it is tested against a real parser.
//!
//! It tells of each line only what rights need: the hash of `method`, of `params.name`, of `id` and of
//! `params.requestId`, in any key order. Text within strings is text. What it cannot be sure of (an escape in a
//! key or value that matters, a key that matters twice, a batch, more than one value on a line) it says to be
//! [`flag::UNSURE`]; it never guesses.
//!
//! [`Scan::step`] takes a byte. Nothing that decides a branch in it is a constant that a verifier could follow: states and
//! classes come from [`TABLES`], and the rest lives in memory. All but plain characters goes to [`Scan::event`], which the kernel
//! program makes a function of its own, verified once.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// FNV-1a, 64 bits.
#[must_use]
pub const fn fnv(bytes: &[u8]) -> u64 {
    fnv_from(SEED, bytes)
}

const fn fnv_from(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(PRIME);
        i += 1;
    }
    hash
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;
/// Tokens that are no strings begin with another seed: `7` is not `"7"`.
const BARE: u64 = SEED ^ 1;
/// Of FNV-1a.
pub const PRIME: u64 = 0x100_0000_01b3;

/// Hash of an id as it is written in JSON: a string without its quotes and escapes, or a number.
#[must_use]
pub const fn id_hash(text: &[u8], is_string: bool) -> u64 {
    if is_string { fnv(text) } else { fnv_from(BARE, text) }
}

/// `tools/call`
pub const TOOLS_CALL: u64 = fnv(b"tools/call");
/// `notifications/cancelled`
pub const CANCELLED: u64 = fnv(b"notifications/cancelled");

const METHOD: u64 = fnv(b"method");
const PARAMS: u64 = fnv(b"params");
const NAME: u64 = fnv(b"name");
const ID: u64 = fnv(b"id");
const REQUEST_ID: u64 = fnv(b"requestId");

/// Bits of [`Scan::flags`].
pub mod flag {
    /// The line cannot be understood by this scanner.
    pub const UNSURE: u64 = 1;
    /// Bytes of the line were missed: nothing is said of it.
    pub const TORN: u64 = 2;
    /// A value has ended.
    pub const ENDED: u64 = 4;
    /// The string at work has an escape.
    pub const ESCAPE: u64 = 8;
    /// `params` was there.
    pub const PARAMS: u64 = 16;
}

/// What a byte does, beside going into a hash.
pub mod event {
    /// A string or bare token begins.
    pub const BEGIN: u64 = 1;
    /// A string ends.
    pub const END: u64 = 2;
    /// `{`
    pub const OBJECT: u64 = 3;
    /// `[`
    pub const ARRAY: u64 = 4;
    /// `}` or `]`
    pub const CLOSE: u64 = 5;
    /// `:`
    pub const COLON: u64 = 6;
    /// `,`
    pub const COMMA: u64 = 7;
    /// A backslash in a string.
    pub const BACKSLASH: u64 = 8;
    /// The end of the line.
    pub const LINE: u64 = 9;
    /// Beside another one: a bare token ends.
    pub const TOKEN: u64 = 16;
}

const OUT: u8 = 0;
const STRING: u8 = 1;
const AFTER_BACKSLASH: u8 = 2;
const TOKEN: u8 = 3;

const QUOTE: u8 = 1;
const BACKSLASH: u8 = 2;
const SPACE: u8 = 8;
const NEWLINE: u8 = 9;

/// What the scanner looks up.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Tables {
    /// Class of a byte.
    pub class: [u8; 256],
    /// By mode and class (`mode << 4 | class`): the next mode, and the event above four bits.
    pub next: [u16; 64],
    /// By event: whether a value (1) or a key (0) is expected after it.
    pub value: [u64; 16],
    /// By event: what it adds to the depth.
    pub depth: [u64; 16],
}

const fn classes() -> [u8; 256] {
    let mut t = [0; 256];
    t[b'"' as usize] = QUOTE;
    t[b'\\' as usize] = BACKSLASH;
    t[b'{' as usize] = event::OBJECT as u8;
    t[b'[' as usize] = event::ARRAY as u8;
    t[b'}' as usize] = event::CLOSE as u8;
    t[b']' as usize] = event::CLOSE as u8;
    t[b':' as usize] = event::COLON as u8;
    t[b',' as usize] = event::COMMA as u8;
    t[b' ' as usize] = SPACE;
    t[b'\t' as usize] = SPACE;
    t[b'\r' as usize] = SPACE;
    t[b'\n' as usize] = NEWLINE;
    t
}

const fn transitions() -> [u16; 64] {
    let mut t = [0; 64];
    let mut class = 0;
    while class < 16 {
        // By class, the events of the same numbers; BEGIN for anything that is no structure.
        let structure = match class {
            3..=7 => class,
            8 => 0,
            9 => event::LINE as u16,
            _ => event::BEGIN as u16,
        };
        let next = match class {
            1 => STRING as u16,
            0 | 2 | 10..=15 => TOKEN as u16,
            _ => OUT as u16,
        };
        t[(OUT as usize) << 4 | class as usize] = next | structure << 4;
        t[(STRING as usize) << 4 | class as usize] = match class {
            1 => OUT as u16 | (event::END as u16) << 4,
            2 => AFTER_BACKSLASH as u16 | (event::BACKSLASH as u16) << 4,
            // A line never ends within a string.
            9 => OUT as u16 | (event::LINE as u16) << 4,
            _ => STRING as u16,
        };
        t[(AFTER_BACKSLASH as usize) << 4 | class as usize] =
            if class == 9 { OUT as u16 | (event::LINE as u16) << 4 } else { STRING as u16 };
        t[(TOKEN as usize) << 4 | class as usize] = match class {
            // A quote within a token is no JSON; the string then follows, and the line is unsure.
            1 => STRING as u16 | (event::BEGIN as u16 | event::TOKEN as u16) << 4,
            0 | 2 | 10..=15 => TOKEN as u16,
            _ => OUT as u16 | (structure | event::TOKEN as u16) << 4,
        };
        class += 1;
    }
    t
}

const fn by_event(pairs: &[(u64, u64)]) -> [u64; 16] {
    let mut t = [0; 16];
    let mut i = 0;
    while i < pairs.len() {
        t[pairs[i].0 as usize] = pairs[i].1;
        i += 1;
    }
    t
}

/// See [`Tables`]. A static, so that the kernel programs have it in their read-only data.
pub static TABLES: Tables = Tables {
    class: classes(),
    next: transitions(),
    value: by_event(&[(event::ARRAY, 1), (event::CLOSE, 1), (event::COLON, 1)]),
    depth: by_event(&[(event::OBJECT, 1), (event::ARRAY, 1), (event::CLOSE, u64::MAX)]),
};

/// An AND that LLVM cannot drop: the verifier must see it on the register that becomes an index.
#[inline(always)]
fn below_16(x: u64) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut v = x;
        // SAFETY: one register in, the same one out.
        unsafe { core::arch::asm!("{0} &= 15", inout(reg) v, options(pure, nomem, nostack)) };
        v as usize
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        x as usize & 15
    }
}

/// An entry of a table by event, as a value that no verifier can foresee.
#[inline(always)]
fn look(table: &'static [u64; 16], event: u64) -> u64 {
    // SAFETY: the index is below 16.
    unsafe { core::ptr::from_ref(table).cast::<u64>().add(below_16(event)).read_volatile() }
}

/// Where a scan of one side of a channel stands: value of a map, by channel key and side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Scan {
    /// Of the string or token at work.
    pub hash: u64,
    /// Mode, see the table.
    pub mode: u64,
    /// Nesting.
    pub depth: u64,
    /// A value is expected, no key.
    pub value: u64,
    /// Within an object that is the value of `params`.
    pub params: u64,
    /// Last key of depth 1, or of depth 2 within `params`.
    pub key: u64,
    /// Hash of `method`, 0 if there is none yet.
    pub method: u64,
    /// Of `params.name`.
    pub name: u64,
    /// Of `id`.
    pub id: u64,
    /// Of `params.requestId`.
    pub request_id: u64,
    /// Bits of [`flag`].
    pub flags: u64,
    /// Position of the next byte; another one means that bytes were missed.
    pub position: u64,
}

impl Scan {
    /// In the middle of a line, as far as anybody knows.
    #[must_use]
    pub fn torn(position: u64) -> Self {
        Self { flags: flag::TORN, position, ..Self::default() }
    }

    /// Takes a byte; true when it ends a line. Then the fields say what the line is, until [`Self::begin`].
    pub fn step(&mut self, byte: u8) -> bool {
        let class = TABLES.class[usize::from(byte)];
        let next = TABLES.next[(self.mode as usize & 3) << 4 | usize::from(class)];
        self.mode = u64::from(next & 15);
        let before = self.hash;
        self.hash = (before ^ u64::from(byte)).wrapping_mul(PRIME);
        let event = u64::from(next >> 4);
        // SAFETY: `self` is a live scan.
        event != 0 && unsafe { Self::event(self, event, before, u64::from(byte)) }
    }

    /// Forgets the line.
    pub fn begin(&mut self) {
        *self = Self { position: self.position, ..Self::default() };
    }

    /// What an event does; `hash` is the hash before the byte. True when it ends a line.
    ///
    /// # Safety
    /// `s` points to a live scan that nobody else holds a reference to.
    #[inline(always)]
    pub unsafe fn event(s: *mut Self, event: u64, hash: u64, byte: u64) -> bool {
        macro_rules! get {
            ($f:ident) => {
                // SAFETY: as the function says; volatile, so that a verifier forgets what it knew.
                unsafe { (&raw const (*s).$f).read_volatile() }
            };
        }
        macro_rules! set {
            ($f:ident, $v:expr) => {{
                let value = $v;
                // SAFETY: as above.
                unsafe { (&raw mut (*s).$f).write_volatile(value) }
            }};
        }
        macro_rules! mark {
            ($bits:expr) => {
                set!(flags, get!(flags) | $bits)
            };
        }
        let depth = get!(depth);
        let what = event & 15;
        if event & event::TOKEN != 0 {
            // SAFETY: as the function says.
            unsafe { Self::word(s, hash, depth) };
        }
        if what == event::BEGIN {
            // A message is an object.
            if depth == 0 || event & event::TOKEN != 0 {
                mark!(flag::UNSURE);
            }
            set!(flags, get!(flags) & !flag::ESCAPE);
            if byte == u64::from(b'"') {
                set!(hash, SEED);
            } else {
                set!(hash, (BARE ^ byte).wrapping_mul(PRIME));
            }
            return false;
        }
        if what == event::END {
            // SAFETY: as the function says.
            unsafe { Self::word(s, hash, depth) };
            return false;
        }
        if what == event::BACKSLASH {
            mark!(flag::ESCAPE);
            return false;
        }
        if what == event::LINE {
            if depth != 0 {
                mark!(flag::UNSURE);
            }
            return true;
        }
        if what == 0 {
            return false;
        }
        if what == event::OBJECT || what == event::ARRAY {
            if depth == 0 && (what == event::ARRAY || get!(flags) & flag::ENDED != 0) {
                mark!(flag::UNSURE);
            }
            if depth == 1 {
                let params = get!(value) != 0 && get!(key) == PARAMS;
                set!(params, u64::from(params && what == event::OBJECT));
                if params {
                    if get!(flags) & flag::PARAMS != 0 {
                        mark!(flag::UNSURE);
                    }
                    mark!(flag::PARAMS);
                }
            }
        }
        let now = depth.wrapping_add(look(&TABLES.depth, what));
        set!(depth, now);
        set!(value, look(&TABLES.value, what));
        if what == event::CLOSE {
            if now == 0 {
                mark!(flag::ENDED);
            }
            if now > depth {
                mark!(flag::UNSURE);
            }
        }
        false
    }

    /// A string or a bare token has ended.
    #[inline(always)]
    unsafe fn word(s: *mut Self, hash: u64, depth: u64) {
        // SAFETY: as the caller says; volatile, so that a verifier forgets what it knew.
        unsafe {
            let params = (&raw const (*s).params).read_volatile();
            if depth != 1 && (depth != 2 || params == 0) {
                return;
            }
            let escape = (&raw const (*s).flags).read_volatile() & flag::ESCAPE;
            if (&raw const (*s).value).read_volatile() == 0 {
                (&raw mut (*s).key).write_volatile(hash);
                if escape != 0 {
                    Self::unsure(s);
                }
                return;
            }
            let key = (&raw const (*s).key).read_volatile();
            let to = if depth == 1 {
                match key {
                    METHOD => &raw mut (*s).method,
                    ID => &raw mut (*s).id,
                    PARAMS => {
                        // Neither object nor array: whoever reads it sees no name in it.
                        Self::unsure(s);
                        return;
                    }
                    _ => return,
                }
            } else {
                match key {
                    NAME => &raw mut (*s).name,
                    REQUEST_ID => &raw mut (*s).request_id,
                    _ => return,
                }
            };
            if escape != 0 || to.read_volatile() != 0 {
                Self::unsure(s);
            }
            to.write_volatile(hash);
        }
    }

    #[inline(always)]
    unsafe fn unsure(s: *mut Self) {
        // SAFETY: as the caller says.
        unsafe {
            let flags = (&raw const (*s).flags).read_volatile();
            (&raw mut (*s).flags).write_volatile(flags | flag::UNSURE);
        }
    }
}
