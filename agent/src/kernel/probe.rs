//! What bpf() permits this process, found out by doing it: a map is made, a program that only says yes is loaded,
//! attached, and must run when its act is done. Never by the kernel's version: distributions backport, and
//! policies forbid.

use std::{
    ffi::c_int,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

const MAP_CREATE: c_int = 0;
const PROG_LOAD: c_int = 5;
const RAW_TRACEPOINT_OPEN: c_int = 17;
const ENABLE_STATS: c_int = 32;

const MAP_TYPE_ARRAY: u64 = 2;
const PROG_TYPE_LSM: u64 = 29;
const LSM_MAC: u64 = 27;

/// r0 = 0; exit
static PERMIT: [u64; 2] = [0xb7, 0x95];
static LICENSE: &[u8] = b"GPL\0";

/// bpf(2) with a command that makes a descriptor.
fn bpf(command: c_int, attr: &mut [u64; 16]) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads at most the given size of a live array; the pointers in it are to statics.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

fn pair(low: u64, high: u64) -> u64 {
    low | high << 32
}

/// Makes the smallest map.
pub(crate) fn map() -> io::Result<()> {
    let mut attr = [0; 16];
    // map_type, key_size | value_size, max_entries
    attr[0] = pair(MAP_TYPE_ARRAY, 4);
    attr[1] = pair(4, 1);
    bpf(MAP_CREATE, &mut attr).map(drop)
}

/// How far an LSM hook's program came.
#[derive(Debug)]
pub(crate) enum Lsm {
    /// The kernel was built without it.
    Absent,
    /// It was not loaded.
    Refused(io::Error),
    /// It was not attached.
    Detached(io::Error),
    /// It was attached, and the act could not be done.
    Undone(io::Error),
    /// It was attached, and did not run when the act was done.
    Silent,
    /// It ran.
    Runs,
}

/// Loads a program that permits everything at an LSM hook, attaches it, does the act, and looks whether it ran.
pub(crate) fn lsm(btf_id: Option<u32>, act: impl FnOnce() -> io::Result<()>) -> Lsm {
    let Some(btf_id) = btf_id else { return Lsm::Absent };
    let mut attr = [0; 16];
    // prog_type, insn_cnt | insns | license | .. | prog_ifindex, expected_attach_type | .. | .., attach_btf_id
    attr[0] = pair(PROG_TYPE_LSM, PERMIT.len() as u64);
    attr[1] = PERMIT.as_ptr() as u64;
    attr[2] = LICENSE.as_ptr() as u64;
    attr[8] = pair(0, LSM_MAC);
    attr[13] = pair(0, u64::from(btf_id));
    let program = match bpf(PROG_LOAD, &mut attr) {
        Ok(program) => program,
        Err(e) => return Lsm::Refused(e),
    };
    let mut attr = [0; 16];
    // name | prog_fd
    attr[1] = program.as_raw_fd() as u64;
    let _link = match bpf(RAW_TRACEPOINT_OPEN, &mut attr) {
        Ok(link) => link,
        Err(e) => return Lsm::Detached(e),
    };
    // Runs are counted while somebody holds this.
    let _counting = match bpf(ENABLE_STATS, &mut [0; 16]) {
        Ok(counting) => counting,
        Err(e) => return Lsm::Undone(e),
    };
    match act() {
        Err(e) => Lsm::Undone(e),
        Ok(()) if runs(&program) > 0 => Lsm::Runs,
        Ok(()) => Lsm::Silent,
    }
}

fn runs(program: &OwnedFd) -> u64 {
    let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()));
    let fdinfo = fdinfo.unwrap_or_default();
    let count = fdinfo.lines().find_map(|line| line.strip_prefix("run_cnt:"));
    count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Hooks of which the kernel knows, by name.
pub(crate) fn lsm_hooks(names: &[&'static str]) -> anyhow::Result<Vec<(&'static str, Option<u32>)>> {
    use anyhow::Context as _;
    let raw = std::fs::read(BTF).with_context(|| format!("cannot read {BTF}"))?;
    let btf = super::btf::Btf::parse(&raw).with_context(|| format!("cannot use {BTF}"))?;
    Ok(names.iter().map(|name| (*name, btf.lsm_hook(name))).collect())
}

/// The kernel's types.
pub(crate) const BTF: &str = "/sys/kernel/btf/vmlinux";
