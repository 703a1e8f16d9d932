//! The BPF programs: they capture, filter and count. What is denied was decided elsewhere and stands in maps.
//!
//! # Layout
//! - [`kernel`]: reading kernel and user memory at offsets resolved from BTF
//! - [`maps`]: all maps
//! - [`track`]: is this process ours, which tree and epoch
//! - [`record`]: assembling and submitting records, aggregation, loss counters
//! - [`path`]: walking a dentry to its path
//! - [`env`]: names of environment variables that inject code
//! - [`lifecycle`]: fork, exec, exit (always attached)
//! - [`syscall`]: the one program at every system call's exit; dispatches to
//!   [`channel`], [`file`], [`socket`] and [`special`]
//! - [`net`]: cgroup socket-address hooks
//! - [`packet`]: cgroup packet hooks: bytes, DNS, TLS hello
//! - [`uring`]: io_uring submissions
//! - [`policy`]: verdicts, for trees that are held to a policy
//! - [`lsm`]: programs, files, unix sockets and the rest that only BPF LSM denies
//! - [`tamper`]: what is done to the agent where BPF LSM denies nothing
//!
//! Four verifier habits run through everything. Sizes and indices are bounded by an opaque AND on
//! the very register ([`mask!`]), because LLVM drops bounds that it can prove and older verifiers
//! cannot. Loop state lives in map memory, so that its range is unknown and all paths merge.
//! Larger parts are global functions, verified once instead of once per call site. Single
//! [`abi::Offsets`] fields are read with a volatile load: the whole struct would not fit the stack.
#![no_std]
#![no_main]
#![expect(unreachable_pub, reason = "one binary: modules are its only boundary")]
#![feature(asm_experimental_arch)]

#[macro_use]
mod kernel;

mod channel;
mod env;
mod file;
mod lifecycle;
mod lsm;
mod maps;
mod net;
mod packet;
mod path;
mod policy;
mod record;
mod socket;
mod special;
mod syscall;
mod tamper;
mod track;
mod uring;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic; the verifier refuses a loop that never ends.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
