//! What was learned, to the store.

use engine::baseline::Key;
use serde_json::json;

use super::{Hands, Order, Snapshot, off_loop, stopping, utc_ns};
use crate::{control::Failure, store::Job};

/// Note that holds what waits for a person.
pub(super) const WAITING: &str = "waiting";
/// Baselines are stored whole.
pub(super) const ALL: &str = "all";

impl Snapshot {
    /// As one job; `None` when nothing changed.
    pub(super) fn job(&self) -> Option<Job> {
        let at = utc_ns();
        let mut jobs = Vec::new();
        for b in &self.baselines {
            // Plain data: serialising it into memory cannot fail.
            let blob = serde_json::to_string(b).unwrap_or_default();
            let meta =
                json!({ "name": b.key.name, "uid": b.key.uid, "package": b.package, "version": b.version });
            jobs.push(Job::Baselines {
                identity: b.key.to_string(),
                meta: meta.to_string(),
                scopes: vec![(ALL.to_owned(), blob)],
                at,
            });
        }
        if let Some(waiting) = &self.waiting {
            let value = serde_json::to_string(waiting).unwrap_or_default();
            jobs.push(Job::Note { key: WAITING.to_owned(), value });
        }
        (!jobs.is_empty()).then_some(Job::All(jobs))
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.baselines.iter().map(|b| b.key.clone()).collect()
    }
}

impl Hands {
    /// Stores what changed, and says when it is durable.
    pub(crate) async fn save(&self) -> Result<(), Failure> {
        let _turn = self.saving.lock().await;
        let (tell, told) = tokio::sync::oneshot::channel();
        self.order(Order::Changed(tell)).await?;
        let snapshot = told.await.map_err(|_gone| stopping())?;
        let keys = snapshot.keys();
        let Some(job) = off_loop(move || Ok(snapshot.job())).await? else { return Ok(()) };
        if let Err(e) = self.written(job).await {
            tracing::warn!("baselines are not stored yet: {}", e.message);
            self.order(Order::Unsaved(keys)).await?;
            return Err(e);
        }
        Ok(())
    }
}
