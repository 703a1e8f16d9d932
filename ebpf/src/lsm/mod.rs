//! BPF LSM: what a tree that is held to a policy may not execute, open, change, connect to. Loaded where the kernel has it;
//! elsewhere these acts are only told.
//!
//! # Layout
//! - [`work`]: work spaces, because these programs can be preempted by each other
//! - [`walk`]: a dentry's path as a hash, up to the root of its mount namespace
//! - [`rights`]: who may do what to a path
//! - [`judge`]: verdicts on paths, and telling them
//! - [`exec`], [`file`], [`unix`], [`dangerous`]: the programs, by family
//! - [`guard`], [`place`], [`mounts`], [`objects`]: what no server may do to the agent: its processes; its files, cgroups and mounts; its maps,
//!   programs and links
//!
//! Arguments are read by `bpf_probe_read_kernel` from the program's context: so they are plain numbers to the verifier, which go
//! through global functions and maps. A process that is not tracked pays one inlined array look-up.

mod dangerous;
mod exec;
mod file;
pub mod guard;
pub mod judge;
mod mounts;
pub mod objects;
mod place;
mod rights;
mod unix;
mod walk;
pub mod work;

use aya_ebpf::{EbpfContext as _, programs::LsmContext};

use crate::{kernel::read, track::ours};

/// The act goes on.
pub const ALLOW: i32 = 0;

/// An argument of a hook.
#[inline(always)]
pub fn arg(ctx: &LsmContext, n: usize) -> u64 {
    read(ctx.as_ptr() as usize + n * 8)
}

/// What the hook returns. Two returns, and a constant that LLVM cannot see: 6.12's verifier refuses a value that was computed
/// without a branch.
#[inline(always)]
pub fn said(denied: u64) -> i32 {
    if denied == 0 {
        return ALLOW;
    }
    let eperm: i64;
    // SAFETY: sets one register.
    unsafe { core::arch::asm!("{0} = -1", out(reg) eperm, options(nomem, nostack)) };
    eperm as i32
}
