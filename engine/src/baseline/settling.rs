//! How long a tool goes on working after its reply, learned.
//!
//! Effects until so long after a reply may still be the tool's. Taken too long, acts of the next tool are
//! ambiguous; taken too short, a late act is charged to the next tool. So the configured time holds until a
//! tool was seen to end early at least [`REPLIES`] times, with nothing else running that the acts could
//! have been of, in at least [`SESSIONS`] sessions: a session is one process, and what one process has warm
//! (caches, connections) the next must open; many replies of one session, or half an hour of it, show
//! nothing of that.
//!
//! The learned time is twice the latest delay seen, plus a millisecond, at least two milliseconds and at most
//! the configured time. Work that comes later than that resets it: the configured time holds again, and the
//! tool must show itself twice as often as the last time. So a tool that works late once in N replies is
//! misjudged about log2(N / 50) times in all.
//!
//! A hostile tool may behave for fifty replies and then work late, to be taken for the next tool. That is no
//! new power: it may wait for longer than the configured time as well.

use serde::{Deserialize, Serialize};

/// Replies that must have been observed.
pub const REPLIES: u64 = 50;
/// Sessions that they must have been in.
pub const SESSIONS: u32 = 3;
/// Shortest learned time: what the scheduler of a busy machine adds is about this.
pub const SHORTEST_NS: u64 = 2_000_000;
const MARGIN_NS: u64 = 1_000_000;
/// Resets after which no more replies are asked for.
const MOST_DOUBLINGS: u32 = 10;

/// What is known of a tool's work after its replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settling {
    /// Replies observed since the last reset.
    pub replies: u64,
    /// Sessions that they were in.
    pub sessions: u32,
    last_session: u32,
    /// Latest work after one of them, ns.
    pub latest_ns: u64,
    /// How often it worked later than was learned.
    pub resets: u32,
    /// Replies observed in all, and those that work came after.
    pub observed: u64,
    /// See `observed`.
    pub late: u64,
}

impl Settling {
    /// Learns from a reply: the latest work after it, 0 if there was none. `configured`: the time that is
    /// configured.
    pub(crate) fn learn(&mut self, latest_ns: u64, session: u32, configured_ns: u64) {
        self.observed += 1;
        self.late += u64::from(latest_ns > 0);
        if self.learned_ns().is_some_and(|learned| learned < configured_ns && latest_ns >= learned) {
            *self =
                Self { resets: self.resets + 1, observed: self.observed, late: self.late, ..Self::default() };
            return;
        }
        self.replies += 1;
        if self.sessions == 0 || self.last_session != session {
            self.sessions += 1;
            self.last_session = session;
        }
        self.latest_ns = self.latest_ns.max(latest_ns);
    }

    /// The learned time, if enough is known. The configured time holds when it is shorter.
    #[must_use]
    pub fn learned_ns(&self) -> Option<u64> {
        let enough = REPLIES << self.resets.min(MOST_DOUBLINGS);
        let learned = self.latest_ns.saturating_mul(2).saturating_add(MARGIN_NS).max(SHORTEST_NS);
        (self.replies >= enough && self.sessions >= SESSIONS).then_some(learned)
    }

    /// Share of replies that work came after.
    #[must_use]
    pub fn late_share(&self) -> f64 {
        self.late as f64 / self.observed.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn learned(replies: u64, sessions: u32, latest_ns: u64) -> Settling {
        let mut s = Settling::default();
        for n in 0..replies {
            s.learn(latest_ns, n as u32 % sessions, 20 * MS);
        }
        s
    }

    #[test]
    fn fifty_replies_of_three_sessions_are_enough() {
        assert_eq!(learned(50, 3, 0).learned_ns(), Some(2 * MS));
        assert_eq!(learned(49, 3, 0).learned_ns(), None);
        assert_eq!(learned(500, 2, 0).learned_ns(), Some(2 * MS), "sessions that come again count again");
        assert_eq!(learned(500, 1, 0).learned_ns(), None);
        assert_eq!(learned(50, 3, 3 * MS).learned_ns(), Some(7 * MS));
    }

    #[test]
    fn later_work_resets_it_and_doubles_what_is_asked_for() {
        let mut s = learned(50, 3, 0);
        s.learn(2 * MS, 1, 20 * MS);
        assert_eq!((s.learned_ns(), s.resets, s.replies), (None, 1, 0));
        for n in 0..99 {
            s.learn(0, n % 3, 20 * MS);
        }
        assert_eq!(s.learned_ns(), None);
        s.learn(0, 0, 20 * MS);
        assert_eq!(s.learned_ns(), Some(2 * MS));
        assert_eq!((s.observed, s.late), (151, 1));
    }
}
