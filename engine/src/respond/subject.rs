//! Whom a response is about, and what people want.

use std::sync::Arc;

use super::Action;
use crate::output::{Context, ServerRef};

/// Whom it is done to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    /// The server's tree.
    pub tree: u64,
    /// Which server.
    pub server: Arc<ServerRef>,
    /// Who and where.
    pub context: Arc<Context>,
    /// Key of its baseline, empty when it is not known.
    pub identity: String,
    /// The processes that are the server itself: to end one is to end the server.
    pub own: Vec<u32>,
}

impl Subject {
    /// What budgets and quarantines hang on.
    pub(super) fn key(&self) -> String {
        if self.identity.is_empty() { format!("?{}", self.server.id) } else { self.identity.clone() }
    }
}

/// What a person wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What.
    pub action: Action,
    /// For how long, ns; the setting's when absent. Of a kill: for how long the identity may not start again.
    pub for_ns: Option<u64>,
    /// Only tell.
    pub dry_run: bool,
    /// Who.
    pub who: String,
}
