//! A set of members, how often each was seen, and in which sessions.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

use super::risk::{Alarms, WEAK};

/// What is known of one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Occurrences in first calls of a tool (in its scope).
    pub first_calls: u64,
    /// Other occurrences.
    pub count: u64,
    /// Sessions that had it: even and odd ones. See [`super::risk`].
    pub halves: [u32; 2],
    /// The first of them.
    pub first_session: u32,
    /// The last of them.
    pub last_session: u32,
    /// First seen, UTC ns.
    pub first_utc: i64,
    /// Last seen, UTC ns.
    pub last_utc: i64,
    /// A person ratified it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ratified: bool,
}

impl Member {
    /// Sessions that had it.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        self.halves[0] + self.halves[1]
    }

    fn learn(&mut self, when: When) {
        if self.sessions() == 0 || self.last_session != when.session {
            self.halves[(when.session % 2) as usize] += 1;
            self.last_session = when.session;
        }
        self.last_utc = self.last_utc.max(when.utc);
        if when.first_call {
            self.first_calls = self.first_calls.saturating_add(when.count);
        } else {
            self.count = self.count.saturating_add(when.count);
        }
    }
}

/// One set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    pub(crate) members: HashMap<Arc<str>, Member>,
    /// Members that found no room: what is known of this set is not whole, and it says so.
    #[serde(default)]
    pub(crate) refused: u64,
}

/// One occurrence to be learned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    pub(crate) session: u32,
    pub(crate) utc: i64,
    pub(crate) first_call: bool,
    pub(crate) count: u64,
}

impl Family {
    /// Is it a member?
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Learns an occurrence; false when there was no room.
    pub(crate) fn learn(&mut self, name: &Arc<str>, when: When, capacity: usize) -> bool {
        if let Some(m) = self.members.get_mut(name) {
            m.learn(when);
            return true;
        }
        if self.members.len() >= capacity {
            self.refused += 1;
            return false;
        }
        let mut m = Member { first_session: when.session, first_utc: when.utc, ..Member::default() };
        m.learn(when);
        self.members.insert(Arc::clone(name), m);
        true
    }

    /// Sessions that had a member which no other session had: leaving one of them out, its member
    /// would have been new in it. And for each half of the sessions, how many of them have members that it has
    /// seen in fewer than 2, 3 and 5 sessions: sessions, because one that is full of junk is still one.
    pub(crate) fn alarms(&self, rank: u8) -> Alarms {
        let mut alarms = Alarms { rank, ..Alarms::default() };
        let mut weak: [[BTreeSet<u32>; 3]; 2] = Default::default();
        for m in self.members.values() {
            if m.sessions() == 1 {
                alarms.sessions.insert(m.first_session);
            }
            for (half, n) in m.halves.iter().enumerate() {
                let own = |session: u32| session as usize % 2 == half;
                let session = if own(m.first_session) { m.first_session } else { m.last_session };
                for (limit, sessions) in WEAK.iter().zip(&mut weak[half]) {
                    if (1..*limit).contains(n) {
                        sessions.insert(session);
                    }
                }
            }
        }
        alarms.weak = weak.map(|half| half.map(|sessions| sessions.len() as u64));
        alarms
    }

    /// Takes its names from those that are known, and leaves it those that are not.
    pub(super) fn share(&mut self, known: &mut HashSet<Arc<str>>) {
        let members = std::mem::take(&mut self.members).into_iter();
        self.members = members
            .map(|(name, member)| match known.get(&name) {
                Some(same) => (Arc::clone(same), member),
                None => {
                    known.insert(Arc::clone(&name));
                    (name, member)
                }
            })
            .collect();
    }

    /// Members by name.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&Arc<str>, &Member)> {
        let mut all: Vec<_> = self.members.iter().collect();
        all.sort_by_key(|(name, _)| *name);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_sets_have_they_have_once() {
        let family = || {
            let mut family = Family::default();
            family.learn(&Arc::from("a"), When { session: 1, utc: 1, first_call: false, count: 1 }, 9);
            family
        };
        let (mut one, mut two) = (family(), family());
        let before = one.clone();
        let mut known = HashSet::new();
        one.share(&mut known);
        two.share(&mut known);
        let name = |f: &Family| Arc::clone(f.sorted()[0].0);
        assert!(Arc::ptr_eq(&name(&one), &name(&two)));
        assert_eq!((&one, &two), (&before, &before));
    }
}
