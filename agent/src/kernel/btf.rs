//! Member offsets, and arguments of tracepoints, from the kernel's BTF. aya has no public API for them, and the crate that has one
//! takes 130 ms and is LGPL; this takes 5 ms.
//!
//! The bytes come from `/sys/kernel/btf/vmlinux`; still, every read is bounds-checked.

use std::collections::HashMap;

use thiserror::Error;

/// Why BTF could not be read.
#[derive(Debug, Error)]
pub(crate) enum BtfError {
    #[error("it is cut short")]
    Truncated,
    #[error("it does not begin with the BTF magic number")]
    Magic,
    #[error("it holds a type of unknown kind {0}")]
    Kind(u32),
}

/// What the names of functions begin with that LSM programs attach to.
const LSM_PREFIX: &[u8] = b"bpf_lsm_";

struct Member {
    name: u32,
    target: u32,
    bits: u32,
}

enum Type {
    Composite {
        name: u32,
        members: Vec<Member>,
    },
    Alias(u32),
    Pointer(u32),
    /// Size in bytes.
    Integer(u32),
    /// Types of the parameters.
    Function(Vec<u32>),
    Other,
}

/// What a tracepoint passes to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Argument<'a> {
    /// A pointer to a structure of this name.
    Struct(&'a [u8]),
    /// An integer of so many bytes.
    Integer(u32),
    Other,
}

/// Parsed BTF: structures by name, all definitions of a name.
pub(crate) struct Btf<'a> {
    strings: &'a [u8],
    types: Vec<Type>,
    structs: HashMap<&'a [u8], Vec<u32>>,
    /// Functions that LSM programs attach to, by name.
    lsm: HashMap<&'a [u8], u32>,
    /// Aliases of tracepoints' functions, by name.
    points: HashMap<&'a [u8], u32>,
}

/// Begins the name of the alias of a tracepoint's function.
const POINT: &[u8] = b"btf_trace_";

fn word(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let end = at.checked_add(4).ok_or(BtfError::Truncated)?;
    let four = bytes.get(at..end).ok_or(BtfError::Truncated)?;
    Ok(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}

fn section(raw: &[u8], header: usize, offset: u32, len: u32) -> Result<&[u8], BtfError> {
    let start = header.checked_add(offset as usize).ok_or(BtfError::Truncated)?;
    let end = start.checked_add(len as usize).ok_or(BtfError::Truncated)?;
    raw.get(start..end).ok_or(BtfError::Truncated)
}

impl<'a> Btf<'a> {
    /// Layout: Documentation/bpf/btf.rst.
    pub(crate) fn parse(raw: &'a [u8]) -> Result<Self, BtfError> {
        if raw.get(..2) != Some(&[0x9f, 0xeb]) {
            return Err(BtfError::Magic);
        }
        let header = word(raw, 4)? as usize;
        let types = section(raw, header, word(raw, 8)?, word(raw, 12)?)?;
        let strings = section(raw, header, word(raw, 16)?, word(raw, 20)?)?;
        // Type 0 is void.
        let mut btf = Self {
            strings,
            types: vec![Type::Other],
            structs: HashMap::new(),
            lsm: HashMap::new(),
            points: HashMap::new(),
        };
        let mut at = 0;
        while at < types.len() {
            let (name, info, target) = (word(types, at)?, word(types, at + 4)?, word(types, at + 8)?);
            let (count, kind, bitfields) = ((info & 0xffff) as usize, info >> 24 & 0x1f, info >> 31 == 1);
            at += 12;
            // Bytes after the common part: for each element, and once.
            let (each, once) = match kind {
                1 | 14 | 17 => (0, 4),
                3 => (0, 12),
                4 | 5 | 15 | 19 => (12, 0),
                6 | 13 => (8, 0),
                2 | 7..=12 | 16 | 18 => (0, 0),
                other => return Err(BtfError::Kind(other)),
            };
            let parsed = match kind {
                4 | 5 => {
                    let members = (0..count)
                        .map(|i| {
                            let m = at + i * 12;
                            let offset = word(types, m + 8)?;
                            let bits = if bitfields { offset & 0xff_ffff } else { offset };
                            Ok(Member { name: word(types, m)?, target: word(types, m + 4)?, bits })
                        })
                        .collect::<Result<_, BtfError>>()?;
                    if kind == 4 {
                        let id = btf.types.len() as u32;
                        btf.structs.entry(btf.text(name)).or_default().push(id);
                    }
                    Type::Composite { name, members }
                }
                1 => Type::Integer(target),
                2 => Type::Pointer(target),
                13 => {
                    let types = (0..count).map(|i| word(types, at + i * 8 + 4));
                    Type::Function(types.collect::<Result<_, BtfError>>()?)
                }
                8 => {
                    if let Some(point) = btf.text(name).strip_prefix(POINT) {
                        btf.points.insert(point, target);
                    }
                    Type::Alias(target)
                }
                9..=11 | 18 => Type::Alias(target),
                _ => Type::Other,
            };
            // BTF_KIND_FUNC
            let lsm = || strings.get(name as usize..).is_some_and(|text| text.starts_with(LSM_PREFIX));
            if kind == 12 && lsm() {
                btf.lsm.insert(btf.text(name), btf.types.len() as u32);
            }
            btf.types.push(parsed);
            at += each * count + once;
        }
        Ok(btf)
    }

    fn text(&self, offset: u32) -> &'a [u8] {
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        &tail[..tail.iter().position(|b| *b == 0).unwrap_or(tail.len())]
    }

    /// Type id of the function that an LSM hook's programs attach to; none: built without CONFIG_BPF_LSM.
    pub(crate) fn lsm_hook(&self, hook: &str) -> Option<u32> {
        self.lsm.get([LSM_PREFIX, hook.as_bytes()].concat().as_slice()).copied()
    }

    /// Byte offset of a member path such as `cqe.fd` within a structure. Members of anonymous parts
    /// count as the structure's own. None when it is absent, a bit field, or when the name stands for
    /// several structures that disagree: a wrong read would be worse than none.
    pub(crate) fn offset(&self, name: &str, path: &str) -> Option<u32> {
        let mut found = None;
        for id in self.structs.get(name.as_bytes())? {
            match (self.walk(*id, path), found) {
                (Some(offset), None) => found = Some(offset),
                (Some(offset), Some(earlier)) if offset != earlier => return None,
                _ => {}
            }
        }
        found
    }

    fn walk(&self, mut id: u32, path: &str) -> Option<u32> {
        let mut bits = 0;
        for part in path.split('.') {
            let (at, target) = self.member(id, part.as_bytes(), 0)?;
            bits += at;
            id = target;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    fn member(&self, id: u32, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        // Kernel types nest a handful of levels; a loop of aliases would be a broken file.
        if depth > 16 {
            return None;
        }
        match self.types.get(id as usize)? {
            Type::Alias(target) => self.member(*target, name, depth + 1),
            Type::Composite { name: _, members } => members.iter().find_map(|m| match self.text(m.name) {
                own if own == name => Some((m.bits, m.target)),
                b"" => self.member(m.target, name, depth + 1).map(|(bits, t)| (m.bits + bits, t)),
                _ => None,
            }),
            _ => None,
        }
    }

    /// What a tracepoint passes to its programs; None when the kernel has no such tracepoint.
    pub(crate) fn arguments(&self, point: &str) -> Option<Vec<Argument<'a>>> {
        let Type::Pointer(function) = self.bare(*self.points.get(point.as_bytes())?)? else {
            return None;
        };
        let Type::Function(types) = self.bare(*function)? else {
            return None;
        };
        // The first parameter is the tracer's own.
        let arguments = types.iter().skip(1).map(|&id| match self.bare(id) {
            Some(Type::Integer(bytes)) => Argument::Integer(*bytes),
            Some(Type::Pointer(to)) => match self.bare(*to) {
                Some(Type::Composite { name, members: _ }) => Argument::Struct(self.text(*name)),
                _ => Argument::Other,
            },
            _ => Argument::Other,
        });
        Some(arguments.collect())
    }

    /// A type without its aliases.
    fn bare(&self, mut id: u32) -> Option<&Type> {
        // As above: a loop would be a broken file.
        for _ in 0..16 {
            match self.types.get(id as usize)? {
                Type::Alias(target) => id = *target,
                found => return Some(found),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// struct s { int a; union { int b; struct t c; }; }; struct t { int d; int e; };
    fn sample() -> Vec<u8> {
        let strings = b"\0s\0a\0b\0c\0t\0d\0e\0";
        let mut types = Vec::new();
        let mut put = |words: &[u32]| words.iter().for_each(|w| types.extend(w.to_le_bytes()));
        put(&[0, 1 << 24, 4, 32]); // 1: int
        put(&[9, 4 << 24 | 2, 8, 11, 1, 0, 13, 1, 32]); // 2: struct t
        put(&[0, 5 << 24 | 2, 8, 5, 1, 0, 7, 2, 0]); // 3: union
        put(&[1, 4 << 24 | 2, 12, 3, 1, 0, 0, 3, 32]); // 4: struct s
        let mut raw = vec![0x9f, 0xeb, 1, 0];
        for w in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            raw.extend(w.to_le_bytes());
        }
        raw.extend(&types);
        raw.extend(strings);
        raw
    }

    #[test]
    fn finds_members_through_anonymous_parts_and_paths() {
        let raw = sample();
        let btf = Btf::parse(&raw).expect("well-formed");
        assert_eq!(btf.offset("s", "a"), Some(0));
        assert_eq!(btf.offset("s", "b"), Some(4));
        assert_eq!(btf.offset("s", "c.e"), Some(8));
        assert_eq!(btf.offset("s", "x"), None);
        assert_eq!(btf.offset("nope", "a"), None);
    }

    #[test]
    fn cut_or_changed_bytes_are_errors_or_absent_never_a_panic() {
        let raw = sample();
        for end in 0..raw.len() {
            if let Ok(btf) = Btf::parse(&raw[..end]) {
                let _seen = btf.offset("s", "b");
            }
        }
        for at in 0..raw.len() {
            let mut changed = raw.clone();
            changed[at] ^= 0xff;
            if let Ok(btf) = Btf::parse(&changed) {
                let _seen = btf.offset("s", "c.e");
            }
        }
    }

    #[test]
    fn this_kernel_has_what_we_need() {
        let raw = std::fs::read("/sys/kernel/btf/vmlinux").expect("a kernel with BTF");
        let btf = Btf::parse(&raw).expect("well-formed");
        assert!(btf.offset("task_struct", "tgid").is_some_and(|o| o > 0));
        assert_eq!(btf.offset("pt_regs", "di"), Some(112));
        let exit = btf.arguments("sched_process_exit").expect("a tracepoint of every kernel");
        assert_eq!(exit.first(), Some(&Argument::Struct(b"task_struct")));
        assert_eq!(btf.arguments("nothing_of_the_kind"), None);
    }
}
