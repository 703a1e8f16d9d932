//! BPF objects that no server may reach: the agent's maps, programs and links. Maps and programs by themselves, whichever way one
//! comes to them. No hook knows a link: so servers get none of the agent's by its number, and detach or change none at all.

use abi::{denied_op, paths::object, run};
use aya_ebpf::{
    btf_maps::HashMap,
    macros::{btf_map, lsm},
    programs::LsmContext,
};

use super::{ALLOW, arg, judge::lsm_own, ours, said};
use crate::kernel::read;

/// Keys as in [`object`].
#[btf_map]
pub static GUARDED_BPF: HashMap<u64, u64, 1024> = HashMap::new();

/// Commands of bpf(2).
pub mod command {
    pub const OBJ_GET: u64 = 7;
    pub const PROG_GET_FD_BY_ID: u64 = 13;
    pub const MAP_GET_FD_BY_ID: u64 = 14;
    pub const LINK_UPDATE: u64 = 29;
    pub const LINK_GET_FD_BY_ID: u64 = 30;
    pub const LINK_DETACH: u64 = 34;
}

/// Whether an object is the agent's.
#[inline(always)]
pub fn is_own(kind: u64, id: u32) -> bool {
    GUARDED_BPF.get_ptr(kind | u64::from(id)).is_some()
}

/// A number of a `struct bpf_prog`.
#[inline(always)]
pub fn program_id(program: usize) -> u32 {
    let aux: usize = read(program + off!(bpf_prog_aux));
    read(aux + off!(bpf_aux_id))
}

/// Whether a bpf(2) of a server's goes for links; 1: it must fail.
#[inline(always)]
pub fn guard_links(command: u64, attr: usize) -> u64 {
    let goes = match command {
        command::LINK_UPDATE | command::LINK_DETACH => true,
        command::LINK_GET_FD_BY_ID => is_own(object::LINK, read(attr)),
        _ => false,
    };
    if goes { lsm_own(u64::from(denied_op::AGENT_BPF), object::LINK >> 32) } else { 0 }
}

/// (map, mode): somebody gets a descriptor of it
#[lsm(hook = "bpf_map")]
pub fn lsm_bpf_map(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_GUARD) || !is_own(object::MAP, read(arg(&ctx, 0) as usize + off!(bpf_map_id))) {
        return ALLOW;
    }
    said(lsm_own(u64::from(denied_op::AGENT_BPF), object::MAP >> 32))
}

/// (program): the same
#[lsm(hook = "bpf_prog")]
pub fn lsm_bpf_prog(ctx: LsmContext) -> i32 {
    if !ours(run::LSM_GUARD) || !is_own(object::PROGRAM, program_id(arg(&ctx, 0) as usize)) {
        return ALLOW;
    }
    said(lsm_own(u64::from(denied_op::AGENT_BPF), object::PROGRAM >> 32))
}
