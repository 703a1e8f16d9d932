//! Answers to the control socket, by the loop.

use std::future::ready;

use serde_json::json;

use crate::control::{AuditRow, Failure, Host, Recorded, Role, Verb};

/// Until the loop has a store and tells its trees, nothing may be changed: see [`answer`].
pub(crate) struct Unknown;

impl Host for Unknown {
    fn role(&self, _pid: u32) -> Role {
        Role::Other
    }

    fn audit(&self, row: AuditRow) -> Recorded {
        tracing::warn!(
            uid = row.uid,
            pid = row.pid,
            verb = row.verb,
            target = row.target,
            "control: {}",
            row.outcome
        );
        Box::pin(ready(Ok(())))
    }
}

/// What the agent can say so far.
pub(crate) fn answer(verb: &Verb, servers: usize) -> crate::control::Answer {
    match verb {
        Verb::Status => Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "servers": servers,
        })),
        other => Err(Failure::missing(format!("this agent cannot answer `{}` yet", other.name()))),
    }
}
