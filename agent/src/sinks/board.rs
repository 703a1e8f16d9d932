//! How sinks are, as last heard.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use super::wire::Health;

/// One sink.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct State {
    /// Why it does not work.
    pub(crate) failing: Option<String>,
    /// Tries that failed.
    pub(crate) failures: u64,
    /// Events that it took since the agent began.
    pub(crate) sent: u64,
    /// Bytes of those.
    pub(crate) bytes: u64,
    /// Of those, events that had to be cut to fit.
    pub(crate) truncated: u64,
    /// Of those, events that the receiver says it dropped, without saying which.
    pub(crate) dropped: u64,
    /// Events that were sent again because a connection was lost.
    pub(crate) again: u64,
    /// What the receiver said when it last took something.
    pub(crate) said: Option<String>,
    /// It has everything up to here.
    pub(crate) cursor: i64,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Board {
    inner: Mutex<Inner>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    sinks: BTreeMap<String, State>,
    /// Of the process that is alive: its counts begin at 0.
    now: BTreeMap<String, Health>,
    restarts: u64,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known now, and how often the process had to be started again.
    pub(crate) fn look(&self) -> (BTreeMap<String, State>, u64) {
        let inner = self.lock();
        let mut sinks = inner.sinks.clone();
        for (name, health) in &inner.now {
            let state = sinks.entry(name.clone()).or_default();
            state.failing.clone_from(&health.failing);
            state.failures += health.failures;
            state.sent += health.sent;
            state.bytes += health.bytes;
            state.truncated += health.truncated;
            state.dropped += health.dropped;
            state.again += health.again;
            if health.said.is_some() {
                state.said.clone_from(&health.said);
            }
        }
        (sinks, inner.restarts)
    }

    /// Takes it in, and tells when a sink begins to fail and when it works again.
    pub(super) fn health(&self, sink: &str, health: Health) {
        let because = health.failing.clone();
        let before = self.lock().now.insert(sink.to_owned(), health);
        let failed = before.is_some_and(|before| before.failing.is_some());
        match because {
            Some(because) if !failed => tracing::warn!("the sink {sink} fails: {because}"),
            None if failed => tracing::warn!("the sink {sink} works again"),
            _ => {}
        }
    }

    pub(crate) fn cursor(&self, sink: &str, cursor: i64) {
        self.lock().sinks.entry(sink.to_owned()).or_default().cursor = cursor;
    }

    /// Forgets all other sinks.
    pub(super) fn keep(&self, is: impl Fn(&str) -> bool) {
        let mut inner = self.lock();
        inner.sinks.retain(|name, _| is(name));
        inner.now.retain(|name, _| is(name));
    }

    /// The process has ended as it should.
    pub(super) fn ended(&self) {
        let (sinks, _) = self.look();
        let mut inner = self.lock();
        (inner.sinks, inner.now) = (sinks, BTreeMap::new());
    }

    /// The process is gone, or could not be started.
    pub(super) fn broken(&self, because: &str) {
        self.ended();
        let mut inner = self.lock();
        inner.restarts += 1;
        for state in inner.sinks.values_mut() {
            state.failing = Some(because.to_owned());
        }
    }

    /// A sink of a new process asks for events: that the process before it is gone is over. Whether it works it says when it has something to send.
    pub(super) fn back(&self, sink: &str) {
        if let Some(state) = self.lock().sinks.get_mut(sink) {
            state.failing = None;
        }
    }

    /// Whether a sink works, as far as is known.
    pub(super) fn works(&self, sink: &str) -> bool {
        self.lock().now.get(sink).is_none_or(|health| health.failing.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_back_does_not_fail_although_there_is_nothing_to_send() {
        let board = Board::default();
        board.cursor("a", 7);
        board.health("a", Health { sent: 3, ..Health::default() });
        board.broken("it ended: signal: 9 (SIGKILL)");
        let state = || board.look().0["a"].clone();
        assert_eq!(state().failing.as_deref(), Some("it ended: signal: 9 (SIGKILL)"));
        board.back("a");
        assert_eq!((state().failing, state().sent, state().cursor), (None, 3, 7));
        // What it says itself counts.
        board.health("a", Health { failing: Some("refused".into()), ..Health::default() });
        board.back("a");
        assert_eq!(state().failing.as_deref(), Some("refused"));
        board.ended();
        assert_eq!((state().failing.as_deref(), board.look().1), (Some("refused"), 1));
        board.keep(|_| false);
        assert!(board.look().0.is_empty());
    }
}
