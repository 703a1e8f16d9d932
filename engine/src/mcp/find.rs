//! Bytes, fast.

pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// `from`, moved past white space.
pub(crate) fn spaces(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|&&b| is_space(b)).count()
}

const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);

/// Where the first of `needles` is, else the length. Eight bytes at a time.
#[inline]
pub(crate) fn find<const N: usize>(bytes: &[u8], needles: [u8; N]) -> usize {
    let (blocks, rest) = bytes.as_chunks::<8>();
    for (index, block) in blocks.iter().enumerate() {
        let block = u64::from_le_bytes(*block);
        let mut hits = 0;
        for needle in needles {
            // The lowest byte that is zero has its high bit set, and none below has.
            let zero = block ^ u64::from_ne_bytes([needle; 8]);
            hits |= zero.wrapping_sub(LOW) & !zero;
        }
        if hits & HIGH != 0 {
            return index * 8 + (hits & HIGH).trailing_zeros() as usize / 8;
        }
    }
    let at = rest.iter().position(|byte| needles.contains(byte));
    blocks.len() * 8 + at.unwrap_or(rest.len())
}
