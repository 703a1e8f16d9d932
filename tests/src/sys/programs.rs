//! BPF programs that are loaded, as bpf(2) tells them.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use super::bpf;

/// What the kernel tells of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfProgram {
    /// Its name, cut by the kernel to 15 bytes.
    pub name: String,
    /// Instructions that the verifier looked at; none before 5.16.
    pub verified: Option<u32>,
}

// struct bpf_prog_info
const NAME: usize = 64;
const VERIFIED: usize = 216;
const INFO: usize = 232;

/// The program with this id.
///
/// # Errors
/// errno, when it has gone.
pub fn bpf_program(id: u32) -> io::Result<BpfProgram> {
    const GET_FD_BY_ID: i32 = 13;
    const GET_INFO_BY_FD: i32 = 15;
    let mut attr = [0u64; 16];
    attr[0] = u64::from(id);
    let fd = bpf(GET_FD_BY_ID, &mut attr)?;
    // SAFETY: a descriptor that was just made for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let mut info = [0u8; INFO];
    attr = [0; 16];
    // struct { u32 fd; u32 len; u64 info }
    attr[0] = fd.as_raw_fd() as u64 | (INFO as u64) << 32;
    attr[1] = info.as_mut_ptr() as u64;
    bpf(GET_INFO_BY_FD, &mut attr)?;
    let told = (attr[0] >> 32) as usize;
    let name = CStr::from_bytes_until_nul(&info[NAME..NAME + 16]).map_err(io::Error::other)?;
    let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    Ok(BpfProgram {
        name: name.to_string_lossy().into_owned(),
        verified: (told >= VERIFIED + 4).then(|| word(VERIFIED)),
    })
}
