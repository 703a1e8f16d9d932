//! Questions and answers of DNS. A question leaves only when a live right covers its name; the answer of a configured resolver to
//! a question that this very socket asked binds addresses before the application can read it.
//!
//! Everything that an answer says is hostile: offsets are bounded by the packet (the helper checks), loops by constants,
//! and a compression pointer is skipped, never followed.

use abi::policy::{
    ANSWER_NS, Bound, BoundKey, NameKey, Question, QuestionKey, SHARED, TTL_CEILING_NS, TTL_FLOOR_NS, names,
};
use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};

use super::{
    maps::{BOUND, NAMES, NAMES_KEY, QUESTIONS, RESOLVERS},
    verdict::mapped,
};
use crate::{record::count, track::now};

/// Labels of a name; an address written backwards has 34.
const LABELS: usize = 40;
/// Resource records of an answer that are looked at.
const RECORDS: u64 = 48;
/// Bytes of a DNS header.
const HEADER: u64 = 12;
/// What may follow a question: type, class, and a little of EDNS.
const AFTER_NAME: u64 = 4 + 64;

/// Bytes of a packet.
#[inline(always)]
pub fn load<const N: usize>(skb: *mut __sk_buff, at: u64) -> Option<[u8; N]> {
    let mut b = [0u8; N];
    // SAFETY: N bytes into an array of N.
    let failed = unsafe { bpf_skb_load_bytes(skb.cast(), at as u32, b.as_mut_ptr().cast(), N as u32) };
    if failed != 0 { None } else { Some(b) }
}

#[inline(always)]
fn key() -> Option<names::Key> {
    NAMES_KEY.get(0).copied()
}

/// Hash of a label.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn label_hash(skb: *mut __sk_buff, at: u64, len: u64) -> u64 {
    let Some(key) = key() else { return 0 };
    let mut bytes = [0u8; 64];
    if len == 0 || len > 63 {
        return 0;
    }
    // A comparison with zero tells the older verifiers nothing: this is 1 at least.
    let n = mask!(len - 1, 63) + 1;
    // SAFETY: at most 64 bytes into an array of 64.
    if unsafe { bpf_skb_load_bytes(skb.cast(), at as u32, bytes.as_mut_ptr().cast(), n as u32) } != 0 {
        return 0;
    }
    let mut hash = key.seed;
    for (i, byte) in bytes.iter().enumerate() {
        if i as u64 >= n {
            break;
        }
        let capital = byte.wrapping_sub(b'A') < 26;
        hash = key.byte(hash, byte | u8::from(capital) << 5);
    }
    hash
}

/// Hash of the name at `at`, which must not be compressed; 0 if it is no name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn name_hash(skb: *mut __sk_buff, at: u64) -> u64 {
    let Some(key) = key() else { return 0 };
    let (mut sum, mut power, mut at) = (0u64, 1u64, at);
    for _ in 0..LABELS {
        let Some([len]) = load::<1>(skb, at) else { return 0 };
        let len = u64::from(len);
        if len == 0 {
            return sum;
        }
        if len > 63 {
            return 0;
        }
        sum = sum.wrapping_add(label_hash(skb, at + 1, len).wrapping_mul(power));
        power = power.wrapping_mul(key.multiplier);
        at = at + 1 + len;
    }
    0
}

/// The most specific entry of `NAMES` that covers the name at `at`, whose hash is `whole`; 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn name_right(skb: *mut __sk_buff, at: u64, policy: u64, whole: u64) -> u64 {
    let Some(key) = key() else { return 0 };
    if NAMES.get_ptr(NameKey { policy, name: whole }).is_some() {
        return whole;
    }
    let (mut rest, mut at) = (whole, at);
    for _ in 0..LABELS {
        let Some([len]) = load::<1>(skb, at) else { return 0 };
        let len = u64::from(len);
        if len == 0 || len > 63 {
            return 0;
        }
        rest = rest.wrapping_sub(label_hash(skb, at + 1, len)).wrapping_mul(key.inverse);
        at = at + 1 + len;
        let below = rest.wrapping_add(names::BELOW);
        if NAMES.get_ptr(NameKey { policy, name: below }).is_some() {
            return below;
        }
    }
    0
}

/// Where the name at `at` ends, compressed or not; 0 if it is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn name_end(skb: *mut __sk_buff, at: u64) -> u64 {
    let mut at = at;
    for _ in 0..LABELS {
        let Some([len]) = load::<1>(skb, at) else { return 0 };
        let len = u64::from(len);
        if len == 0 {
            return at + 1;
        }
        if len >= 0xc0 {
            return at + 2;
        }
        if len > 63 {
            return 0;
        }
        at = at + 1 + len;
    }
    0
}

/// Hash of the name that a payload asks for; 0 if it is no plain question.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn asked_for(skb: *mut __sk_buff, at: u64, len: u64) -> u64 {
    let Some(head) = load::<12>(skb, at) else { return 0 };
    // A standard query, one question, nothing answered, EDNS at most.
    if head[2] & 0xf8 != 0 || head[4] != 0 || head[5] != 1 {
        return 0;
    }
    if head[6] | head[7] | head[8] | head[9] | head[10] != 0 || head[11] > 1 {
        return 0;
    }
    let end = name_end(skb, at + HEADER);
    if end == 0 || at + len < end + 4 || at + len > end + AFTER_NAME {
        return 0;
    }
    name_hash(skb, at + HEADER)
}

/// Notes a question that is let out, so that its answer may bind addresses.
#[inline(always)]
pub fn asked(skb: *mut __sk_buff, at: u64, socket: u64, resolver: [u64; 2], question: Question) {
    if RESOLVERS.get_ptr(resolver).is_none() {
        return;
    }
    let Some(id) = load::<2>(skb, at) else { return };
    let key = QuestionKey { socket, resolver, id: u64::from(u16::from_be_bytes(id)) };
    if QUESTIONS.insert(key, question, 0).is_err() {
        count(abi::counter::RIGHTS_FULL, 1);
    }
}

/// Binds what an answer says, if it answers a question of that socket.
#[inline(never)]
pub fn answered(skb: *mut __sk_buff, at: u64, socket: u64, resolver: [u64; 2]) {
    let Some(head) = load::<12>(skb, at) else { return };
    let id = u64::from(u16::from_be_bytes([head[0], head[1]]));
    let key = QuestionKey { socket, resolver, id };
    let Some(question) = QUESTIONS.get_ptr(key) else {
        return;
    };
    // SAFETY: a live map value.
    let question = unsafe { question.read_volatile() };
    // An answer, to one question, the same one, in time.
    if head[2] & 0x80 == 0
        || head[4] != 0
        || head[5] != 1
        || now().wrapping_sub(question.at_ns) > ANSWER_NS
        || name_hash(skb, at + HEADER) != question.name
    {
        return;
    }
    let end = name_end(skb, at + HEADER);
    if end == 0 {
        return;
    }
    let answers = u64::from(u16::from_be_bytes([head[6], head[7]]));
    let mut at = end + 4;
    for i in 0..RECORDS {
        // That there are no more it says itself: with that here, the loop's end would vary, and 6.1 follows each of them.
        at = answer(skb, at, question.tree, question.right, answers.wrapping_sub(i));
        if at == 0 {
            break;
        }
    }
    // Gone already if it was pushed out.
    let _gone = QUESTIONS.remove(key);
}

/// Binds the address of the first of `left` resource records; gives where the next one begins, 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answer(skb: *mut __sk_buff, at: u64, tree: u64, right: u64, left: u64) -> u64 {
    const A: u16 = 1;
    const AAAA: u16 = 28;
    const INTERNET: u16 = 1;
    if left == 0 {
        return 0;
    }
    let end = name_end(skb, at);
    if end == 0 {
        return 0;
    }
    let Some(f) = load::<10>(skb, end) else { return 0 };
    let kind = u16::from_be_bytes([f[0], f[1]]);
    let class = u16::from_be_bytes([f[2], f[3]]);
    let ttl = u32::from_be_bytes([f[4], f[5], f[6], f[7]]);
    let len = u64::from(u16::from_be_bytes([f[8], f[9]]));
    let data = end + 10;
    if class == INTERNET && kind == A && len == 4 {
        if let Some(four) = load::<4>(skb, data) {
            let [a0, a1] = mapped(u32::from_ne_bytes(four));
            bind_address(tree, a0, a1, right, u64::from(ttl));
        }
    } else if class == INTERNET
        && kind == AAAA
        && len == 16
        && let (Some(a), Some(b)) = (load::<8>(skb, data), load::<8>(skb, data + 8))
    {
        bind_address(tree, u64::from_ne_bytes(a), u64::from_ne_bytes(b), right, u64::from(ttl));
    }
    data + len
}

/// An address gets the rights of a name for a while.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn bind_address(tree: u64, a0: u64, a1: u64, right: u64, ttl: u64) -> u64 {
    let at = now();
    let lasts = (ttl & 0xffff_ffff) * 1_000_000_000;
    let lasts = if lasts < TTL_FLOOR_NS { TTL_FLOOR_NS } else { lasts };
    let until = at + if lasts > TTL_CEILING_NS { TTL_CEILING_NS } else { lasts };
    let key = BoundKey { tree, addr: [a0, a1] };
    let Some(bound) = BOUND.get_ptr_mut(key) else {
        let mut new = Bound { right: [0; SHARED], until: [0; SHARED] };
        new.right[0] = right;
        new.until[0] = until;
        // Another processor may just have made it, with another name: then that one stays, and this one is
        // bound by the next answer.
        if BOUND.insert(key, new, 0).is_err() {
            count(abi::counter::RIGHTS_FULL, 1);
        }
        return 0;
    };
    // SAFETY: a live map value.
    unsafe {
        for i in 0..SHARED {
            if (&raw const (*bound).right[i]).read_volatile() == right {
                (&raw mut (*bound).until[i]).write_volatile(until);
                return 0;
            }
        }
        for i in 0..SHARED {
            if (&raw const (*bound).until[i]).read_volatile() <= at {
                (&raw mut (*bound).right[i]).write_volatile(right);
                (&raw mut (*bound).until[i]).write_volatile(until);
                return 0;
            }
        }
    }
    // Four names share the address, and all are in use: this one has to wait, which is loud.
    count(abi::counter::RIGHTS_FULL, 1);
    0
}
