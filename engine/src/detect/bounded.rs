//! A map of bounded size. What a detector remembers is chosen by the watched server, which may be
//! hostile: what was used longest ago makes room, and how much went is counted.

use std::{borrow::Borrow, collections::BTreeMap};

/// At most `N` entries. When full, the eighth that was used longest ago goes at once, so that a
/// flood of new keys costs little for each.
#[derive(Clone, Debug)]
pub(super) struct Lru<K, V, const N: usize> {
    clock: u64,
    map: BTreeMap<K, (u64, V)>,
    /// Entries that made room.
    pub(super) dropped: u64,
}

impl<K, V, const N: usize> Default for Lru<K, V, N> {
    fn default() -> Self {
        Self { clock: 0, map: BTreeMap::new(), dropped: 0 }
    }
}

impl<K: Ord, V: Default, const N: usize> Lru<K, V, N> {
    /// An entry that exists; it counts as used.
    pub(super) fn get<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.clock += 1;
        let (used, value) = self.map.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    /// An entry, made if need be.
    pub(super) fn entry(&mut self, key: K) -> &mut V {
        if self.map.len() >= N && !self.map.contains_key(&key) {
            self.make_room();
        }
        self.clock += 1;
        let slot = self.map.entry(key).or_default();
        slot.0 = self.clock;
        &mut slot.1
    }

    fn make_room(&mut self) {
        let mut used: Vec<u64> = self.map.values().map(|(used, _)| *used).collect();
        let (_, cut, _) = used.select_nth_unstable(N / 8);
        let (cut, before) = (*cut, self.map.len());
        self.map.retain(|_, (used, _)| *used > cut);
        self.dropped += (before - self.map.len()) as u64;
    }

    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.map.remove(key).map(|(_, value)| value)
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.map.iter().map(|(k, (_, v))| (k, v))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.map.iter_mut().map(|(k, (_, v))| (k, v))
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.map.retain(|k, (_, v)| keep(k, v));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut lru = Lru::<u32, u32, 8>::default();
        for k in 0..8 {
            *lru.entry(k) = k;
        }
        assert_eq!(lru.get(&0), Some(&mut 0));
        lru.entry(8);
        assert!(lru.len() <= 8 && lru.dropped > 0);
        assert!(lru.get(&1).is_none(), "oldest");
        assert!(lru.get(&0).is_some() && lru.get(&8).is_some());
    }

    #[test]
    fn it_never_grows_beyond_its_size() {
        let mut lru = Lru::<u32, (), 16>::default();
        for k in 0..10_000 {
            lru.entry(k);
            assert!(lru.len() <= 16);
        }
        assert_eq!(lru.dropped as usize + lru.len(), 10_000);
    }
}
