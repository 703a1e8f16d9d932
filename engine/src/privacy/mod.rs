//! Masks payload values and secrets, at equal length, before anything else sees them.
//!
//! # Layout
//! - [`Masker`]: one direction of one channel
//! - [`redact_argv`]: command lines

mod argv;
mod mask;

#[cfg(test)]
mod agree_tests;
#[cfg(test)]
mod argv_tests;
#[cfg(test)]
mod tests;

pub use argv::redact_argv;
pub use mask::Masker;
