//! Keys and values of the maps that acts on paths are decided from.
//!
//! A path is known by a keyed hash: the sum of its names' hashes, each times a power of the multiplier, the last name first. So
//! one walk from the file up to the root gives the whole, and taking the last name off and dividing gives the directory.
//! Keyed for the reason that [`crate::policy::names`] is: those who act choose the names.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::policy::names;

/// Names of a path at most, each crossing of a mount included. What is deeper is denied to those who are held to a policy.
pub const DEPTH: usize = 64;
/// Added to the hash of an abstract socket's name: no path has it.
pub const ABSTRACT: u64 = 0x9e37_79b9_7f4a_7c15;

/// What is done to a path: an index of [`PathRights::mask`].
pub mod access {
    /// Opened for reading.
    pub const READ: u32 = 0;
    /// Made, or opened for writing.
    pub const WRITE: u32 = 1;
    /// Its name goes.
    pub const DELETE: u32 = 2;
    /// Mode or owner.
    pub const CHANGE: u32 = 3;
    /// Executed.
    pub const EXEC: u32 = 4;
    /// Connected to.
    pub const UNIX: u32 = 5;
    /// Room for as many.
    pub const COUNT: usize = 8;
}

/// How much of the tree a right covers: the other index.
pub mod span {
    /// The path itself.
    pub const EXACT: u32 = 0;
    /// What is directly in it.
    pub const CHILDREN: u32 = 1;
    /// It and all below it.
    pub const SUBTREE: u32 = 2;
}

/// A path of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PathKey {
    /// Number of the policy.
    pub policy: u64,
    /// [`names::Key::path`], or that of an abstract name.
    pub path: u64,
}

/// What is said of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PathRights {
    /// Which of the masks say anything: [`said_bit`].
    pub said: u64,
    /// Who, by [`span`] and [`access`]. 0: nobody, whatever a wider right says.
    pub mask: [[u64; access::COUNT]; 3],
}

/// Bit of a mask in [`PathRights::said`].
#[inline(always)]
#[must_use]
pub const fn said_bit(span: u32, access: u32) -> u64 {
    1 << (span * 8 + access)
}

/// A file or directory that servers must leave alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InodeKey {
    /// Device as the kernel writes it.
    pub dev: u64,
    /// Number.
    pub ino: u64,
}

/// How much of it.
pub mod guarded {
    /// It and all below it.
    pub const SUBTREE: u64 = 1;
    /// Its name: it holds what is guarded.
    pub const NAME: u64 = 2;
    /// Files directly in it: those by which a cgroup is frozen, limited and killed.
    pub const INSIDE: u64 = 4;
}

/// A process that servers must leave alone, by its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GuardedTask {
    /// Its start, ns since boot, to a clock tick: its number may be another one's by now.
    pub start_ns: u64,
    /// Not 0: acts against it are denied, by LSM programs that tell of them.
    pub denied: u64,
}

/// Start times are compared in these.
pub const TICK_NS: u64 = 10_000_000;

/// Keys of BPF objects that servers must leave alone: kind above 32 bits, and number.
pub mod object {
    /// Maps.
    pub const MAP: u64 = 1 << 32;
    /// Programs.
    pub const PROGRAM: u64 = 2 << 32;
    /// Links.
    pub const LINK: u64 = 3 << 32;
}

impl names::Key {
    /// Takes four bytes of a file's name into its hash. Not eight: with bytes of the attacker's in all of the word, a
    /// difference in its top bit would come out the same whatever the key is.
    #[inline(always)]
    #[must_use]
    pub const fn word(&self, hash: u64, word: u32) -> u64 {
        let mixed = (hash ^ word as u64).wrapping_mul(self.multiplier);
        mixed ^ mixed >> 29
    }

    /// Hash of a file's name, or of an abstract socket's.
    #[must_use]
    pub fn file_name(&self, name: &[u8]) -> u64 {
        let hash = name.chunks(4).fold(self.seed, |hash, part| {
            let mut four = [0; 4];
            for (to, from) in four.iter_mut().zip(part) {
                *to = *from;
            }
            self.word(hash, u32::from_le_bytes(four))
        });
        self.word(hash, name.len() as u32)
    }

    /// Hash of an absolute path without `.` and `..`.
    #[must_use]
    pub fn path(&self, path: &[u8]) -> u64 {
        let (mut sum, mut power) = (0u64, 1u64);
        for name in path.rsplit(|b| *b == b'/').filter(|name| !name.is_empty()) {
            sum = sum.wrapping_add(self.file_name(name).wrapping_mul(power));
            power = power.wrapping_mul(self.multiplier);
        }
        sum
    }

    /// Hash of an abstract socket's name, without what stands before it.
    #[must_use]
    pub fn abstract_name(&self, name: &[u8]) -> u64 {
        self.file_name(name).wrapping_add(ABSTRACT)
    }
}

const _: () = assert!(size_of::<PathRights>() == 8 + 3 * 64);

#[cfg(feature = "user")]
mod pod {
    use super::{GuardedTask, InodeKey, PathKey, PathRights};
    // SAFETY: `repr(C)`, `Copy + 'static`, without padding (zerocopy::IntoBytes) and valid for any bit pattern
    // (zerocopy::FromBytes).
    unsafe impl aya::Pod for PathKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PathRights {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InodeKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for GuardedTask {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_its_files_hash_divided() {
        let key = names::Key::new(0x1234_5678_9abc_def0, 0xfeed_beef);
        let file = key.path(b"/usr/lib/libc.so.6");
        let up = |hash: u64, name: &[u8]| hash.wrapping_sub(key.file_name(name)).wrapping_mul(key.inverse);
        let dir = up(file, b"libc.so.6");
        assert_eq!(dir, key.path(b"/usr/lib"));
        assert_eq!(up(up(dir, b"lib"), b"usr"), key.path(b"/"));
        assert_eq!((key.path(b"/"), key.path(b"//usr/lib/")), (0, key.path(b"/usr/lib")));
    }

    #[test]
    fn names_that_differ_have_other_hashes() {
        let key = names::Key::new(7, 9);
        let names: [&[u8]; 8] = [b"a", b"a\0", b"ab", b"b", b"abcd", b"abcde", b"abcd\0", b"\xe1bcd"];
        for (i, a) in names.iter().enumerate() {
            for b in &names[i + 1..] {
                assert_ne!(key.file_name(a), key.file_name(b), "{a:?} {b:?}");
            }
        }
        assert_ne!(key.path(b"/a/b"), key.path(b"/b/a"));
        assert_ne!(key.abstract_name(b"a"), key.path(b"/a"));
    }
}
