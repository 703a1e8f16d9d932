//! The archive that a kernel unpacks as its first root ("newc", uncompressed).

use std::fmt::Write as _;

/// An archive in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

impl Cpio {
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, 0o040_755, &[]);
    }

    /// A file that anybody may execute.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, 0o100_755, content);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let mut header = String::from("070701");
        // inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name, checksum
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        for field in [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0] {
            // Writing to a String cannot fail.
            write!(header, "{field:08x}").ok();
        }
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_sized() {
        let mut cpio = Cpio::default();
        cpio.directory("a");
        cpio.file("init", b"12345");
        let bytes = cpio.finish();
        assert_eq!(bytes.len() % 4, 0);
        let second = 112; // 110 of the header, "a\0"
        assert_eq!(&bytes[second..second + 6], b"070701");
        assert_eq!(&bytes[second + 54..second + 62], b"00000005");
        assert_eq!(&bytes[second + 110..second + 114], b"init");
        assert_eq!(&bytes[second + 116..second + 121], b"12345");
    }
}
