//! The wire between the kernel programs (`ebpf`) and the agent: records that travel through the
//! ring buffer, keys and values of the maps, kernel structure offsets, and tuning constants.
//!
//! # Layout
//! - [`record`]: one struct a record kind, [`Header`] first; variable bytes follow the struct
//! - [`map`]: keys and values of the BPF maps
//! - [`offsets`]: where the fields of kernel structures lie, resolved from BTF at load
//! - [`syscalls`]: which system call numbers are what, for both ABIs
//!
//! All integers are little-endian and host-sized only where fixed here; there is no padding
//! (`zerocopy::IntoBytes` proves it at compile time). Agent and kernel object ship in one binary,
//! so [`ABI`] guards only what outlives a process: recordings and pinned maps.
#![no_std]

pub mod map;
pub mod offsets;
pub mod record;
pub mod syscalls;

pub use map::*;
pub use offsets::Offsets;
pub use record::*;

/// Version of everything in this crate.
pub const ABI: u16 = 3;
