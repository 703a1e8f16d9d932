//! Verdicts: may this act happen. Rights are put into maps by the agent; nothing here knows a rule.
//!
//! # Layout
//! - [`maps`]: what the agent fills, and what is filled here
//! - [`live`]: which scopes are live for a process
//! - [`jit`]: calls that open and close as their lines pass by
//! - [`verdict`]: rights of an address; connect, sendmsg, bind
//! - [`packet`]: what leaves and enters by packet; cut-off, rates
//! - [`names`]: questions and answers of DNS
//! - [`deny`]: telling what was denied
//!
//! For other hooks: [`held_to`] says what a tree is held to, [`live::live`] which scopes are live, [`deny::told`] writes
//! the record. An act is permitted when the mask of a right that covers it meets the live scopes.

pub mod deny;
pub mod jit;
pub mod live;
pub mod maps;
pub mod names;
pub mod packet;
pub mod verdict;

use abi::policy::{TreePolicy, tree_flag};

/// What a tree is held to.
#[inline(always)]
pub fn held_to(tree: u64) -> Option<TreePolicy> {
    let held = maps::TREE_POLICY.get_ptr(tree)?;
    // SAFETY: a live map value.
    Some(unsafe { *held })
}

/// What a tree is held to, if acts of this family are judged.
#[inline(always)]
pub fn judged(tree: u64, family: u32) -> Option<TreePolicy> {
    let held = held_to(tree)?;
    (held.flags & (tree_flag::ENFORCE | tree_flag::DRY_RUN) != 0 && held.families & family != 0)
        .then_some(held)
}

/// Whether packets of a tree are of interest: it is more than a server.
#[inline(always)]
pub fn is_held(tree: u64) -> bool {
    held_to(tree).is_some_and(|held| held.flags & !tree_flag::SERVER != 0)
}

/// Whether a tree has no network at all.
#[inline(always)]
pub fn is_cut(tree: u64) -> bool {
    held_to(tree).is_some_and(|held| held.flags & tree_flag::CUT != 0)
}

/// Whether anything of a tree may be denied.
#[inline(always)]
pub fn is_denying(tree: u64) -> bool {
    held_to(tree).is_some_and(|held| held.flags & (tree_flag::ENFORCE | tree_flag::CUT) != 0)
}
