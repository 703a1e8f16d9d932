//! Kernel bytes to events: the only place that reads `abi` structs. Bytes come from the kernel, but
//! also from recordings, so every length is checked.

use abi::{
    ABI, Blind, Chunk, Denied, Exec, Exit, Flow, Fork, Header, Net, Open, Packet, PathOp, Special, Syscall,
    Unix, Uring, env_flag, kind,
};
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// The version before; recordings hold it. Only exec records differ.
pub(crate) const ABI_2: u16 = 2;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Fewer bytes than the kind needs.
    #[error("record is cut short")]
    Short,
    /// No such kind.
    #[error("unknown record kind {0}")]
    UnknownKind(u16),
    /// Of another version.
    #[error("record has version {got}, this program reads {want}", want = ABI)]
    Abi {
        /// Version in the record.
        got: u16,
    },
}

/// A decoded record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Common part.
    pub header: Header,
    /// The rest.
    pub event: Event<'a>,
}

/// What happened, as the kernel told it. Path bytes are leaf first, as in `abi`.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are those of abi::record")]
pub enum Event<'a> {
    Fork(Fork),
    Exec { exec: Exec, path: &'a [u8], cwd: &'a [u8], script: &'a [u8], argv: &'a [u8] },
    Exit(Exit),
    Chunk { chunk: Chunk, bytes: &'a [u8] },
    Open { open: Open, path: &'a [u8] },
    PathOp { op: PathOp, base: &'a [u8], name: &'a [u8], base2: &'a [u8], name2: &'a [u8] },
    Net(Net),
    Unix { unix: Unix, name: &'a [u8] },
    Packet { packet: Packet, bytes: &'a [u8] },
    Flow(Flow),
    Syscall(Syscall),
    Special { special: Special, text: &'a [u8] },
    Uring(Uring),
    Blind(Blind),
    Denied { denied: Denied, object: &'a [u8] },
}

fn split<T: FromBytes + Immutable + KnownLayout>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    T::read_from_prefix(bytes).ok().ok_or(DecodeError::Short)
}

fn part<'a>(rest: &mut &'a [u8], len: u32) -> Result<&'a [u8], DecodeError> {
    let (head, tail) = rest.split_at_checked(len as usize).ok_or(DecodeError::Short)?;
    *rest = tail;
    Ok(head)
}

/// An exec record of version 2 ends before the environment: what was not looked at is said to be cut.
fn exec_2(bytes: &[u8]) -> Result<(Exec, &[u8]), DecodeError> {
    const OLD: usize = core::mem::offset_of!(Exec, env_flags);
    let (old, rest) = bytes.split_at_checked(OLD).ok_or(DecodeError::Short)?;
    let mut fixed = [0; size_of::<Exec>()];
    fixed[..OLD].copy_from_slice(old);
    let (mut exec, _) = split::<Exec>(&fixed)?;
    exec.env_flags = env_flag::CUT;
    Ok((exec, rest))
}

/// Kind of a record, for callers that need to look before they decode.
pub fn kind_of(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes([*bytes.get(2)?, *bytes.get(3)?]))
}

/// Decodes one record. Never panics, whatever the bytes.
///
/// # Errors
/// When the bytes are too few, or of another kind or version than this program knows.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let (header, _) = split::<Header>(bytes)?;
    if header.abi != ABI && header.abi != ABI_2 {
        return Err(DecodeError::Abi { got: header.abi });
    }
    let event = match header.kind {
        kind::FORK => Event::Fork(split(bytes)?.0),
        kind::EXEC => {
            let (exec, mut rest) = if header.abi == ABI_2 { exec_2(bytes)? } else { split::<Exec>(bytes)? };
            Event::Exec {
                path: part(&mut rest, exec.path_len)?,
                cwd: part(&mut rest, exec.cwd_len)?,
                script: part(&mut rest, exec.script_len)?,
                argv: part(&mut rest, exec.argv_len)?,
                exec,
            }
        }
        kind::EXIT => Event::Exit(split(bytes)?.0),
        kind::CHUNK => {
            let (chunk, mut rest) = split::<Chunk>(bytes)?;
            Event::Chunk { bytes: part(&mut rest, chunk.len)?, chunk }
        }
        kind::OPEN => {
            let (open, mut rest) = split::<Open>(bytes)?;
            Event::Open { path: part(&mut rest, open.path_len)?, open }
        }
        kind::PATH_OP => {
            let (op, mut rest) = split::<PathOp>(bytes)?;
            Event::PathOp {
                base: part(&mut rest, op.base_len)?,
                name: part(&mut rest, op.name_len)?,
                base2: part(&mut rest, op.base2_len)?,
                name2: part(&mut rest, op.name2_len)?,
                op,
            }
        }
        kind::NET => Event::Net(split(bytes)?.0),
        kind::UNIX => {
            let (unix, mut rest) = split::<Unix>(bytes)?;
            Event::Unix { name: part(&mut rest, unix.name_len)?, unix }
        }
        kind::PACKET => {
            let (packet, mut rest) = split::<Packet>(bytes)?;
            Event::Packet { bytes: part(&mut rest, packet.len)?, packet }
        }
        kind::FLOW => Event::Flow(split(bytes)?.0),
        kind::SYSCALL => Event::Syscall(split(bytes)?.0),
        kind::SPECIAL => {
            let (special, mut rest) = split::<Special>(bytes)?;
            Event::Special { text: part(&mut rest, special.text_len)?, special }
        }
        kind::URING => Event::Uring(split(bytes)?.0),
        kind::BLIND => Event::Blind(split(bytes)?.0),
        kind::DENIED => {
            let (denied, mut rest) = split::<Denied>(bytes)?;
            Event::Denied { object: part(&mut rest, denied.len)?, denied }
        }
        other => return Err(DecodeError::UnknownKind(other)),
    };
    Ok(Record { header, event })
}

/// How many bytes of a record were written. A packet has room for the longest: behind its bytes is what the ring held
/// before, payload of other processes too, which nobody may keep.
#[must_use]
pub fn used(record: &[u8]) -> usize {
    if kind_of(record) == Some(kind::DENIED) {
        let len = Denied::read_from_prefix(record).map_or(0, |(d, _)| d.len as usize);
        return record.len().min(size_of::<Denied>().saturating_add(len));
    }
    match Packet::read_from_prefix(record) {
        Ok((packet, _)) if packet.header.kind == kind::PACKET => {
            record.len().min(size_of::<Packet>().saturating_add(packet.len as usize))
        }
        _ => record.len(),
    }
}

/// Where the variable bytes of a chunk lie within its record, so that they can be masked in place.
pub fn chunk_bytes_mut(record: &mut [u8]) -> Option<(Chunk, &mut [u8])> {
    let (chunk, _) = Chunk::read_from_prefix(record).ok()?;
    let bytes = record.get_mut(size_of::<Chunk>()..)?.get_mut(..chunk.len as usize)?;
    Some((chunk, bytes))
}

/// The argument vector of an exec record, so that secrets can be masked in place.
pub fn argv_mut(record: &mut [u8]) -> Option<&mut [u8]> {
    let (exec, _) = Exec::read_from_prefix(record).ok()?;
    let before = [exec.path_len, exec.cwd_len, exec.script_len].iter().map(|n| *n as usize).sum::<usize>();
    record.get_mut(size_of::<Exec>() + before..)?.get_mut(..exec.argv_len as usize)
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn what_the_ring_held_before_is_no_part_of_a_packet() {
        let header = Header { abi: ABI, kind: kind::PACKET, ..Header::default() };
        let packet = Packet { header, len: 5, ..Packet::default() };
        let mut bytes = packet.as_bytes().to_vec();
        bytes.extend(b"query and a secret of before");
        let cut = bytes.get(..used(&bytes)).expect("within");
        let Ok(Record { event: Event::Packet { bytes: kept, .. }, .. }) = decode(cut) else {
            unreachable!("it is a packet")
        };
        assert_eq!((kept, cut.len()), (&b"query"[..], size_of::<Packet>() + 5));
        // A length beyond the record is the decoder's business.
        let long = Packet { header, len: u32::MAX, ..Packet::default() };
        assert_eq!(used(long.as_bytes()), size_of::<Packet>());
        assert_eq!((used(b""), used(&[7; 99])), (0, 99));
    }
}
