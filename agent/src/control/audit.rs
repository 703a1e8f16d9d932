//! Who changed what, and who was not allowed to.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Peer, Verb};

/// One line of the trail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AuditRow {
    pub(crate) utc_ns: i64,
    pub(crate) uid: u32,
    pub(crate) pid: u32,
    pub(crate) exe: Option<String>,
    pub(crate) verb: String,
    pub(crate) target: String,
    pub(crate) arguments: Value,
    /// `ok`, `refused: ...` or `failed: ...`.
    pub(crate) outcome: String,
}

impl AuditRow {
    pub(super) fn new(peer: &Peer, verb: &Verb, outcome: String) -> Self {
        Self {
            utc_ns: utc_ns(),
            uid: peer.uid,
            pid: peer.pid,
            exe: peer.exe.clone(),
            verb: verb.name().to_owned(),
            target: verb.target(),
            arguments: verb.arguments(),
            outcome,
        }
    }
}

fn utc_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Refusals of one user listed one by one in a [`PERIOD`]; a tool that tries all day must not push
/// everything else out of the trail.
const LISTED: u32 = 32;
const PERIOD: Duration = Duration::from_secs(60);
/// Users counted at a time.
const USERS: usize = 1024;

/// Counts refusals by user.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    users: HashMap<u32, Count>,
}

#[derive(Debug)]
struct Count {
    since: Instant,
    listed: u32,
    unlisted: u64,
}

impl Refusals {
    /// Whether this refusal is listed, and how many before it were not.
    pub(super) fn take(&mut self, uid: u32, now: Instant) -> Option<u64> {
        if self.users.len() >= USERS && !self.users.contains_key(&uid) {
            self.users.retain(|_, count| now.duration_since(count.since) < PERIOD);
            if self.users.len() >= USERS {
                return None;
            }
        }
        let count = self.users.entry(uid).or_insert(Count { since: now, listed: 0, unlisted: 0 });
        if now.duration_since(count.since) >= PERIOD {
            (count.since, count.listed) = (now, 0);
        }
        if count.listed >= LISTED {
            count.unlisted += 1;
            return None;
        }
        count.listed += 1;
        Some(std::mem::take(&mut count.unlisted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_not_listed() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let listed = (0..1000).filter(|_| refusals.take(1000, start).is_some()).count();
        assert_eq!(listed, 32);
        // Another user's trail is not spent by it.
        assert_eq!(refusals.take(1001, start), Some(0));
        assert_eq!(refusals.take(1000, start + PERIOD), Some(968));
    }
}
