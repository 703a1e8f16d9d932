//! The wire between the kernel programs (`ebpf`) and the agent: records that travel through the
//! ring buffer, keys and values of the maps, kernel structure offsets, and tuning constants.
//!
//! # Layout
//! - [`record`]: one struct a record kind, [`Header`] first; variable bytes follow the struct
//! - [`map`]: keys and values of the BPF maps
//! - [`offsets`]: where the fields of kernel structures lie, resolved from BTF at load
//! - [`policy`]: keys and values of the maps that verdicts are made from
//! - [`scan`]: the scanner of JSON-RPC lines, for both sides
//! - [`syscalls`]: which system call numbers are what, for both ABIs
//!
//! All integers are little-endian and host-sized only where fixed here; there is no padding
//! (`zerocopy::IntoBytes` proves it at compile time). Agent and kernel object ship in one binary,
//! so [`ABI`] guards only what outlives a process: recordings and pinned maps.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod map;
pub mod offsets;
pub mod paths;
pub mod policy;
pub mod record;
pub mod scan;
#[cfg(test)]
mod scan_tests;
pub mod syscalls;

pub use map::*;
pub use offsets::Offsets;
pub use record::*;

/// Version of everything in this crate.
pub const ABI: u16 = 3;
