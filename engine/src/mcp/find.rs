//! Bytes, fast.

pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// `from`, moved past white space.
pub(crate) fn spaces(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|&&b| is_space(b)).count()
}

/// Where the first hit is, else the length. Sixteen bytes at a time; the compiler vectorises it.
pub(crate) fn find(bytes: &[u8], hit: impl Fn(u8) -> bool) -> usize {
    let (blocks, rest) = bytes.as_chunks::<16>();
    let clear = blocks
        .iter()
        .take_while(|block| !block.iter().fold(false, |h, &b| h | hit(b)));
    let from = clear.count() * 16;
    let rest = bytes.get(from..).unwrap_or(rest);
    from + rest.iter().position(|&b| hit(b)).unwrap_or(rest.len())
}
