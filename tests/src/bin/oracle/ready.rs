//! What acts need and must not fetch while they act.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::fs::PermissionsExt as _,
    },
    path::Path,
};

use e2e::sys;

/// A static x86-64 program of 132 bytes: `exit(argc - 1)`.
#[rustfmt::skip]
pub(crate) const TINY: [u8; 132] = {
    let mut elf = [0u8; 132];
    let head: [u8; 120] = [
        0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        2, 0, 62, 0, 1, 0, 0, 0,                    // ET_EXEC, x86-64, version
        0x78, 0, 0x40, 0, 0, 0, 0, 0,               // entry: 0x400078
        64, 0, 0, 0, 0, 0, 0, 0,                    // program headers at 64
        0, 0, 0, 0, 0, 0, 0, 0,                     // no sections
        0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 5, 0, 0, 0,                     // PT_LOAD, r-x
        0, 0, 0, 0, 0, 0, 0, 0,                     // from offset 0
        0, 0, 0x40, 0, 0, 0, 0, 0,                  // to 0x400000
        0, 0, 0x40, 0, 0, 0, 0, 0,
        132, 0, 0, 0, 0, 0, 0, 0,
        132, 0, 0, 0, 0, 0, 0, 0,
        0, 0x10, 0, 0, 0, 0, 0, 0,
    ];
    // mov edi, [rsp]; dec edi; push 60; pop rax; syscall; nop; nop
    let code: [u8; 12] = [0x8b, 0x3c, 0x24, 0xff, 0xcf, 0x6a, 0x3c, 0x58, 0x0f, 0x05, 0x90, 0x90];
    let mut i = 0;
    while i < 120 { elf[i] = head[i]; i += 1; }
    while i < 132 { elf[i] = code[i - 120]; i += 1; }
    elf
};

/// How many files lie ready.
pub(crate) const SEEDS: u32 = 64;

/// Made before the first call.
pub(crate) struct Ready {
    null: OwnedFd,
    /// The directory of the acts, open.
    pub(crate) dir: OwnedFd,
    /// Own UTS namespace, open.
    pub(crate) uts: OwnedFd,
    /// /bin/true, resolved.
    pub(crate) bin_true: String,
    /// /bin/sh, resolved.
    pub(crate) shell: String,
    /// What the loader opens for a program that needs libc only, in order; nothing where /bin/true is static.
    pub(crate) loader: Vec<String>,
}

impl Ready {
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        for n in 0..SEEDS {
            fs::write(dir.join(format!("seed{n}")), b"seed\n")?;
        }
        let script = dir.join("script");
        fs::write(&script, "#!/bin/sh\nexit 7\n")?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
        let tiny = dir.join("tiny");
        fs::write(&tiny, TINY)?;
        fs::set_permissions(&tiny, fs::Permissions::from_mode(0o700))?;
        fs::create_dir_all(dir.join("mnt"))?;
        Ok(Self {
            null: sys::open("/dev/null", libc::O_RDWR)?,
            dir: sys::open(&dir.display().to_string(), libc::O_RDONLY)?,
            uts: sys::open("/proc/self/ns/uts", libc::O_RDONLY)?,
            bin_true: resolved("/bin/true")?,
            shell: resolved("/bin/sh")?,
            loader: match interpreter("/bin/true")? {
                Some(interpreter) => vec![resolved("/etc/ld.so.cache")?, libc_path(&interpreter)?],
                None => Vec::new(),
            },
        })
    }

    /// /dev/null, open.
    pub(crate) fn null(&self) -> RawFd {
        self.null.as_raw_fd()
    }
}

fn resolved(path: &str) -> io::Result<String> {
    Ok(fs::canonicalize(path)?.display().to_string())
}

/// The libc of dynamic children: this process's own, or, where this one is static, the one beside the loader.
fn libc_path(interpreter: &str) -> io::Result<String> {
    let own = fs::read_to_string("/proc/self/maps")?
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.contains("/libc.so.6") || path.contains("/libc-"))
        .map(str::to_owned);
    match own {
        Some(own) => Ok(own),
        None => {
            resolved(&Path::new(&resolved(interpreter)?).with_file_name("libc.so.6").display().to_string())
        }
    }
}

/// The loader that an executable names (PT_INTERP), if it is a dynamic one.
fn interpreter(path: &str) -> io::Result<Option<String>> {
    const PT_INTERP: u64 = 3;
    let elf = fs::read(path)?;
    let number = |at: u64, len: usize| -> io::Result<u64> {
        let at = at as usize;
        let bytes = elf.get(at..at + len).ok_or_else(|| io::Error::other(format!("{path} is cut short")))?;
        Ok(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    };
    // Elf64_Ehdr: e_phoff, e_phentsize, e_phnum; Elf64_Phdr: p_type, p_offset.
    let (first, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for header in (0..count).map(|n| first + n * size) {
        if number(header, 4)? == PT_INTERP {
            let text = elf.get(number(header + 8, 8)? as usize..).unwrap_or_default();
            let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
            return Ok(Some(String::from_utf8_lossy(&text[..end]).into_owned()));
        }
    }
    Ok(None)
}
