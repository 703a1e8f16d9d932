//! Which environment variables that make programs load or run foreign code a process was started with.
//! Names only: values are skipped, and nothing of them leaves this program.

use abi::env_flag::{CUT, NAMES};
use aya_ebpf::helpers::generated::bpf_probe_read_user_str;

use crate::record::{LIFECYCLE, PART, Scratch, scratch};

/// Strings looked at; a longer one than [`PART`] counts as several.
const STRINGS: usize = 1024;

/// A name and its `=`, as three words.
struct Name {
    word: [u64; 3],
    mask: [u64; 3],
}

const fn name(text: &str) -> Name {
    let bytes = text.as_bytes();
    assert!(bytes.len() < 24);
    let mut n = Name { word: [0; 3], mask: [0; 3] };
    let mut i = 0;
    while i <= bytes.len() {
        let byte = if i < bytes.len() { bytes[i] } else { b'=' };
        n.word[i / 8] |= (byte as u64) << (i % 8 * 8);
        n.mask[i / 8] |= 0xff << (i % 8 * 8);
        i += 1;
    }
    n
}

static TABLE: [Name; NAMES.len()] = {
    let mut table = [const { name("") }; NAMES.len()];
    let mut i = 0;
    while i < NAMES.len() {
        table[i] = name(NAMES[i]);
        i += 1;
    }
    table
};

/// Names of the words of `Scratch::state` here.
const ADDRESS: usize = 0;
const END: usize = 1;
const FOUND: usize = 2;
/// The next piece is the rest of a string.
const WITHIN: usize = 3;

#[inline(always)]
fn get(s: *mut Scratch, word: usize) -> u64 {
    // SAFETY: `word` is one of the constants above; volatile so that the verifier forgets ranges.
    unsafe { (&raw const (*s).state).cast::<u64>().add(word).read_volatile() }
}

#[inline(always)]
fn set(s: *mut Scratch, word: usize, value: u64) {
    // SAFETY: as above.
    unsafe { (&raw mut (*s).state).cast::<u64>().add(word).write_volatile(value) }
}

/// Bits of [`abi::env_flag`] for the environment of the current process. Uses the scratch buffer of
/// the lifecycle programs.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn env_flags(start: u64, end: u64) -> u64 {
    let Some(s) = scratch(LIFECYCLE) else { return u64::from(CUT) };
    set(s, ADDRESS, start);
    set(s, END, end);
    set(s, FOUND, 0);
    set(s, WITHIN, 0);
    for _ in 0..STRINGS {
        if env_step() == 0 {
            return get(s, FOUND);
        }
    }
    get(s, FOUND) | u64::from(CUT)
}

/// Looks at the next string; 0 at the end.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn env_step() -> u64 {
    let Some(s) = scratch(LIFECYCLE) else { return 0 };
    let address = get(s, ADDRESS);
    if address >= get(s, END) {
        return 0;
    }
    // SAFETY: the buffer has more than PART bytes, and is aligned.
    let (n, words) = unsafe {
        let to = (&raw mut (*s).bytes).cast::<u64>();
        let n = bpf_probe_read_user_str(to.cast(), PART as u32, address as *const _);
        (n, [to.read_volatile(), to.add(1).read_volatile(), to.add(2).read_volatile()])
    };
    if n <= 0 {
        set(s, FOUND, get(s, FOUND) | u64::from(CUT));
        return 0;
    }
    let begins = get(s, WITHIN) == 0;
    // A piece that fills the buffer ends in a NUL that is not the string's.
    let whole = (n as usize) < PART;
    set(s, WITHIN, u64::from(!whole));
    set(s, ADDRESS, address + if whole { n as u64 } else { PART as u64 - 1 });
    if begins {
        for (bit, name) in TABLE.iter().enumerate() {
            let differs = (words[0] & name.mask[0]) ^ name.word[0]
                | (words[1] & name.mask[1]) ^ name.word[1]
                | (words[2] & name.mask[2]) ^ name.word[2];
            if differs == 0 {
                set(s, FOUND, get(s, FOUND) | 1 << bit);
            }
        }
    }
    1
}
