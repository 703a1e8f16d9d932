//! Keys and values of the maps that verdicts are made from.
//!
//! A policy has a small number of its own for each generation; a tree is bound to one by [`TreePolicy`]. So a new generation is
//! put beside the old one, the trees are flipped, and the old one is removed.
//!
//! Addresses are 128 bits in network order, IPv4 as v4-mapped.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of a mask of scopes that belong to tools.
pub const TOOL_BITS: u64 = (1 << 60) - 1;
/// From exec to the first reply's settling.
pub const STARTUP: u64 = 1 << 62;
/// Whatever is live.
pub const AMBIENT: u64 = 1 << 63;
/// No scope has it: of a right that nobody holds and no rule denies.
pub const NOBODY: u64 = 1 << 61;
/// All scopes: the ceiling.
pub const CEILING: u64 = TOOL_BITS | STARTUP | AMBIENT;

/// Families of objects, as bits.
pub mod family {
    /// connect, sendmsg, packets, names
    pub const NETWORK: u32 = 1;
    /// bind
    pub const LISTEN: u32 = 2;
    /// Programs.
    pub const EXEC: u32 = 4;
    /// Files.
    pub const FILE: u32 = 8;
    /// Unix sockets.
    pub const UNIX: u32 = 16;
    /// ptrace and its like.
    pub const DANGEROUS: u32 = 32;
}

/// Bits of [`TreePolicy::flags`].
pub mod tree_flag {
    /// What the policy does not permit is denied.
    pub const ENFORCE: u32 = 1;
    /// What the policy does not permit is told, and happens.
    pub const DRY_RUN: u32 = 2;
    /// No packet in or out.
    pub const CUT: u32 = 4;
    /// Bytes are limited by `RATES`.
    pub const RATE: u32 = 8;
    /// It is a server's: it must leave the agent alone, whatever its policy says.
    pub const SERVER: u32 = 16;
}

/// What a tree is held to, by tree id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TreePolicy {
    /// Number of the policy, 0 if there is none.
    pub policy: u32,
    /// Bits of [`tree_flag`].
    pub flags: u32,
    /// The tree whose calls count. A child with a pair of channels of its own makes a nested tree: it gets a copy of this
    /// entry when it begins, so that nobody leaves a policy by starting a child.
    pub root: u64,
    /// Families that are denied by default, bits of [`family`].
    pub families: u32,
    /// Keeps alignment.
    pub _pad: u32,
}

/// Recognises a tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ToolKey {
    /// Number of the policy.
    pub policy: u64,
    /// [`crate::scan::fnv`] of its name.
    pub name: u64,
}

/// A tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ToolValue {
    /// Its bit.
    pub bit: u64,
    /// Rights last this long after the reply, ns.
    pub settle_ns: u64,
}

/// Scopes of a tree that are live, by root tree. Counts change by atomic adds; a call counts down only if it could be
/// removed from `INFLIGHT`, so no count goes below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Jit {
    /// Calls in flight, by bit.
    pub count: [u64; 64],
    /// The bit is live until then, ns since boot.
    pub until: [u64; 64],
    /// When the latest call of the bit began.
    pub opened: [u64; 64],
    /// For how long rights of the bit existed because of calls that are over, ns; calls that overlap count twice, so this
    /// is an upper bound.
    pub live_ns: [u64; 64],
    /// [`STARTUP`] is live until then; `u64::MAX` until the first reply.
    pub startup_until: u64,
    /// The ceiling is live until then, unless user space has dealt with it: see [`Jit::understood`].
    pub ceiling_until: u64,
    /// How many requests made the ceiling live because they were not understood. Their records are in the ring before they count.
    pub ceilings: u64,
    /// With how many of them user space has dealt: with all, and the ceiling is not live. No time is set back for that, or one that
    /// comes meanwhile would have its own set back.
    pub understood: u64,
    /// Requests that were not understood.
    pub unsure: u64,
    /// Replies that were not understood: their calls end when user space says so, or expire.
    pub unsure_replies: u64,
    /// Calls that were opened here.
    pub calls: u64,
    /// Calls of tools that the policy does not know.
    pub unknown_tools: u64,
    /// 1: the tree can write its own request channel. Then only user space opens calls, on proof.
    pub forged: u64,
    /// Calls that could not be opened: the map was full.
    pub full: u64,
}

impl Default for Jit {
    fn default() -> Self {
        Self {
            count: [0; 64],
            until: [0; 64],
            opened: [0; 64],
            live_ns: [0; 64],
            startup_until: 0,
            ceiling_until: 0,
            ceilings: 0,
            understood: 0,
            unsure: 0,
            unsure_replies: 0,
            calls: 0,
            unknown_tools: 0,
            forged: 0,
            full: 0,
        }
    }
}

impl Jit {
    /// Until when the ceiling is live; 0 when it is not.
    #[must_use]
    pub const fn ceiling(&self) -> u64 {
        if self.ceilings == self.understood { 0 } else { self.ceiling_until }
    }
}

/// How long the ceiling stays live because of a request that was not understood, if user space says nothing.
pub const CEILING_NS: u64 = 10_000_000_000;
/// A call that was cancelled keeps its rights for this long at most: servers need not stop.
pub const CANCELLED_NS: u64 = 5_000_000_000;
/// A call that is not answered has expired after this: a server can keep it open only by not replying.
pub const CALL_NS: u64 = 300_000_000_000;

/// What user space may say instead of a bit.
pub mod jit_order {
    /// The call is over.
    pub const CLOSE: u64 = u64::MAX;
    /// All calls in flight are known; in place of the id: of how many [`super::Jit::ceilings`].
    pub const UNDERSTOOD: u64 = u64::MAX - 1;
    /// How far the ring was written, the lower 32 bits of the position.
    pub const PRODUCED: u64 = u64::MAX - 2;
    /// And how far it was read.
    pub const CONSUMED: u64 = u64::MAX - 3;
}

/// A call in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CallKey {
    /// Root tree.
    pub tree: u64,
    /// [`crate::scan::id_hash`] of its id.
    pub id: u64,
}

/// See [`CallKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CallValue {
    /// Bit of its tool.
    pub bit: u64,
    /// When it began.
    pub at_ns: u64,
    /// Settling time of its tool.
    pub settle_ns: u64,
    /// 1: it was cancelled, and its bit counted down.
    pub cancelled: u64,
}

/// One side of a channel that is scanned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ScanKey {
    /// Channel key.
    pub channel: u64,
    /// One of [`crate::side`].
    pub side: u64,
}

/// Most rights of one object.
pub const RIGHTS: usize = 8;

/// Ports that a mask of scopes may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PortRight {
    /// Who.
    pub mask: u64,
    /// First port.
    pub from: u16,
    /// Last port.
    pub to: u16,
    /// IPPROTO_*, 0 for any.
    pub protocol: u16,
    /// 1: nobody, and nothing after this one counts.
    pub deny: u16,
}

/// All rights of an object, those of the wider ones that cover it included: most specific first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rights {
    /// Who may ask for the name (names only).
    pub ask: u64,
    /// The rest: an entry with an empty mask is none.
    pub ports: [PortRight; RIGHTS],
}

/// What the tries of addresses are searched by, after the length of the prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NetKey {
    /// Number of the policy. All its 64 bits always count.
    pub policy: u64,
    /// Address.
    pub addr: [u64; 2],
}

/// Bits of a [`NetKey`] before the address.
pub const NET_PREFIX: u32 = 64;

/// A name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NameKey {
    /// Number of the policy.
    pub policy: u64,
    /// [`crate::policy::names`] hash.
    pub name: u64,
}

/// A question that a socket asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QuestionKey {
    /// Cookie.
    pub socket: u64,
    /// Whom.
    pub resolver: [u64; 2],
    /// Transaction id as it stands in the packet.
    pub id: u64,
}

/// See [`QuestionKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Question {
    /// Root tree.
    pub tree: u64,
    /// Hash of the whole name.
    pub name: u64,
    /// Hash of the entry of `NAMES` that lets it be asked for.
    pub right: u64,
    /// When.
    pub at_ns: u64,
}

/// An address that a name gave to a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BoundKey {
    /// Root tree.
    pub tree: u64,
    /// Address.
    pub addr: [u64; 2],
}

/// Names that may share an address.
pub const SHARED: usize = 4;

/// See [`BoundKey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bound {
    /// Entries of `NAMES` that it got its rights from.
    pub right: [u64; SHARED],
    /// Until when, ns since boot.
    pub until: [u64; SHARED],
}

/// An address is bound for its TTL, at least this long: an application may connect a while after it asked.
pub const TTL_FLOOR_NS: u64 = 30_000_000_000;
/// And at most this long.
pub const TTL_CEILING_NS: u64 = 3_600_000_000_000;
/// An answer after this is none.
pub const ANSWER_NS: u64 = 10_000_000_000;

/// What a bucket may owe when an empty packet passes: the largest packet, and 60 empty ones.
pub const RATE_OWED: u64 = (64 << 10) + (4 << 10);

/// A limit of bytes, by root tree: a bucket that fills with time, each way its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rate {
    /// Bytes a second.
    pub bytes_per_s: u64,
    /// Bytes that the bucket holds.
    pub burst: u64,
    /// When it began.
    pub start_ns: u64,
    /// Bytes that went out since.
    pub out: u64,
    /// Bytes that came in since.
    pub inward: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

/// Which agent's programs are at work, and when it last said that it lives. Programs that are pinned outlive their agent; the next
/// one attaches its own beside them, writes its term, and only then takes the old ones away. What must not be done twice for
/// one event (to count the bytes of a channel, to open a call) is done by the programs of this term only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Term {
    /// As in [`crate::Settings`].
    pub term: u64,
    /// Ns since boot.
    pub seen_ns: u64,
}

/// Hashes of DNS names. Keyed, because those who ask choose the name: with a known hash they could find one that collides with a
/// name that they may ask for, and carry data in it.
///
/// A label is hashed byte by byte; a name is the sum of its labels' hashes times powers of the multiplier, so that one
/// pass gives the whole and a second one the hash below each boundary.
pub mod names {
    /// The key, of one host and boot.
    #[derive(
        Clone,
        Copy,
        Debug,
        Default,
        PartialEq,
        Eq,
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout,
    )]
    #[repr(C)]
    pub struct Key {
        /// Where a label's hash begins.
        pub seed: u64,
        /// Odd.
        pub multiplier: u64,
        /// Its inverse.
        pub inverse: u64,
    }

    /// Added to the hash of a name when what is below it is meant.
    pub const BELOW: u64 = 0x9e37_79b9_7f4a_7c15;

    impl Key {
        /// From two random numbers.
        #[must_use]
        pub fn new(seed: u64, random: u64) -> Self {
            let multiplier = random | 1;
            // Newton: each step doubles the bits that are right; an odd number is its own inverse in three.
            let mut inverse = multiplier;
            for _ in 0..5 {
                inverse = inverse.wrapping_mul(2u64.wrapping_sub(multiplier.wrapping_mul(inverse)));
            }
            Self { seed, multiplier, inverse }
        }

        /// Takes a byte of a label into its hash.
        #[inline(always)]
        #[must_use]
        pub const fn byte(&self, hash: u64, byte: u8) -> u64 {
            let mixed = (hash ^ byte as u64).wrapping_mul(self.multiplier);
            mixed ^ mixed >> 29
        }

        /// Hash of a name in lower case, labels separated by dots.
        #[must_use]
        pub fn name(&self, name: &str) -> u64 {
            let (mut sum, mut power) = (0u64, 1u64);
            for label in name.split('.') {
                let hash = label.bytes().fold(self.seed, |h, b| self.byte(h, b));
                sum = sum.wrapping_add(hash.wrapping_mul(power));
                power = power.wrapping_mul(self.multiplier);
            }
            sum
        }
    }
}

const _: () = {
    assert!(size_of::<TreePolicy>() == 24);
    assert!(size_of::<Jit>() == 4 * 512 + 80);
    assert!(size_of::<Rights>() == 8 + 16 * RIGHTS);
};

#[cfg(feature = "user")]
mod pod {
    macro_rules! pod {
        ($($t:ty),+ $(,)?) => {
            $(
                // SAFETY: `repr(C)`, `Copy + 'static`, without padding (zerocopy::IntoBytes) and valid for any bit
                // pattern (zerocopy::FromBytes).
                unsafe impl aya::Pod for $t {}
            )+
        };
    }
    use super::*;
    pod!(
        TreePolicy,
        ToolKey,
        ToolValue,
        Jit,
        CallKey,
        CallValue,
        Rights,
        NetKey,
        NameKey,
        QuestionKey,
        Question,
        BoundKey,
        Bound,
        Rate,
        Term,
        ScanKey,
        names::Key,
        crate::scan::Scan,
    );
}
