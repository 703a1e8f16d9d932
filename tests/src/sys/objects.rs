//! Which BPF programs use a map.

use std::{ffi::c_int, fs, io, os::fd::AsRawFd as _, path::Path};

use super::{bpf, bpf_ids, c, owned};

const OBJ_GET: c_int = 7;
const PROG_GET_NEXT_ID: c_int = 11;
const PROG_GET_FD_BY_ID: c_int = 13;
const OBJ_GET_INFO_BY_FD: c_int = 15;
/// Most maps of a program.
const MAPS: usize = 64;

/// Id of a map that is pinned there.
///
/// # Errors
/// errno.
pub fn pinned_map(path: &Path) -> io::Result<u32> {
    let name = c(&path.to_string_lossy())?;
    let mut attr = [0u64; 16];
    attr[0] = name.as_ptr() as u64;
    let map = owned(bpf(OBJ_GET, &mut attr))?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let id = info.lines().find_map(|l| l.strip_prefix("map_id:")).and_then(|id| id.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("it is not a map"))
}

/// Ids of the programs that are loaded and use a map.
#[must_use]
pub fn programs_with(map: u32) -> Vec<u32> {
    let uses = |program: &u32| maps_of(*program).is_ok_and(|maps| maps.contains(&map));
    bpf_ids(PROG_GET_NEXT_ID).into_iter().filter(uses).collect()
}

fn maps_of(program: u32) -> io::Result<Vec<u32>> {
    let mut attr = [0u64; 16];
    attr[0] = u64::from(program);
    let program = owned(bpf(PROG_GET_FD_BY_ID, &mut attr))?;
    let mut maps = [0u32; MAPS];
    // struct bpf_prog_info: nr_map_ids at 52, map_ids at 56.
    let mut info = [0u64; 32];
    info[6] = (MAPS as u64) << 32;
    info[7] = maps.as_mut_ptr() as u64;
    let mut attr = [0u64; 16];
    attr[0] = u64::from(program.as_raw_fd().cast_unsigned()) | (size_of_val(&info) as u64) << 32;
    attr[1] = info.as_mut_ptr() as u64;
    bpf(OBJ_GET_INFO_BY_FD, &mut attr)?;
    let used = (info[6] >> 32) as usize;
    Ok(maps.get(..used.min(MAPS)).unwrap_or_default().to_vec())
}
