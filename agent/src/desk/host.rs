//! Who is what, for the control socket, from what the loop last told; and the audit trail.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use engine::Engine;
use tokio::sync::oneshot;

use crate::{
    control::{AuditRow, Host, Recorded, Role},
    store::{self, Job, Store},
};

/// What the socket's side sees of the loop.
#[derive(Debug)]
pub(crate) struct Watcher {
    roles: RwLock<HashMap<u32, Role>>,
    store: Arc<Store>,
}

impl Watcher {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { roles: RwLock::default(), store }
    }

    /// Takes a new look at the trees.
    pub(super) fn look(&self, engine: &Engine) {
        let mut roles = HashMap::new();
        roles.extend(engine.clients().map(|(pid, of)| (pid, Role::Client(format!("that started {of}")))));
        // A server that starts servers is a server.
        roles.extend(engine.members().map(|(pid, server)| (pid, Role::Server(server.to_owned()))));
        *self.roles.write().unwrap_or_else(PoisonError::into_inner) = roles;
    }
}

impl Host for Watcher {
    fn role(&self, pid: u32) -> Role {
        let roles = self.roles.read().unwrap_or_else(PoisonError::into_inner);
        roles.get(&pid).cloned().unwrap_or_default()
    }

    fn audit(&self, row: AuditRow) -> Recorded {
        let AuditRow { utc_ns, uid, pid, exe, verb, target, arguments, outcome } = row;
        let exe = exe.unwrap_or_default();
        let arguments = arguments.to_string();
        let row = store::AuditRow { utc_ns, uid, pid, exe, verb, target, arguments, outcome };
        let (tell, told) = oneshot::channel();
        let on_done = Box::new(move |outcome| {
            // The peer may have gone.
            drop(tell.send(outcome));
        });
        let submitted = self.store.submit(Job::Audit(row), Some(on_done)).map_err(|e| e.to_string());
        Box::pin(async move {
            submitted?;
            match tokio::time::timeout(super::DURABLE, told).await {
                Ok(Ok(done)) => done.map(drop).map_err(|e| e.to_string()),
                Ok(Err(_)) => Err("the store has ended".into()),
                Err(_) => Err("the disk takes too long".into()),
            }
        })
    }
}
