//! Identities whose server was killed: clients start killed servers again.

use std::collections::BTreeMap;

/// Identities kept; beyond that the one that ends first is let go.
const IDENTITIES: usize = 1024;

#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Name of the server, for people who ask for it by that.
    pub(super) name: String,
    /// The response that killed it.
    pub(super) response: String,
    pub(super) until_ns: u64,
    /// Starts since then.
    pub(super) starts: u32,
}

/// See above.
#[derive(Clone, Debug, Default)]
pub(super) struct Quarantine {
    entries: BTreeMap<String, Entry>,
}

impl Quarantine {
    pub(super) fn put(&mut self, identity: &str, name: &str, response: &str, until_ns: u64) {
        if self.entries.len() >= IDENTITIES && !self.entries.contains_key(identity) {
            let first = self.entries.iter().min_by_key(|(_, e)| e.until_ns).map(|(k, _)| k.clone());
            first.map(|k| self.entries.remove(&k));
        }
        let entry = Entry { name: name.into(), response: response.into(), until_ns, starts: 0 };
        let starts = self.entries.get(identity).map_or(0, |e| e.starts);
        self.entries.insert(identity.into(), Entry { starts, ..entry });
    }

    /// It started; what holds it, if something does.
    pub(super) fn start(&mut self, identity: &str, now: u64) -> Option<Entry> {
        let entry = self.entries.get_mut(identity)?;
        if entry.until_ns <= now {
            self.entries.remove(identity);
            return None;
        }
        entry.starts = entry.starts.saturating_add(1);
        Some(entry.clone())
    }

    /// A person lets it start; by identity or name. How many were let go.
    pub(super) fn lift(&mut self, name: &str, now: u64) -> usize {
        let of_it = |k: &String, e: &Entry| k == name || e.name == name;
        let held = self.entries.iter().filter(|(k, e)| of_it(k, e) && e.until_ns > now).count();
        self.entries.retain(|k, e| !of_it(k, e));
        held
    }

    /// Identities that are held, and until when.
    pub(super) fn held(&self, now: u64) -> impl Iterator<Item = (&str, u64)> {
        self.entries.iter().filter(move |(_, e)| e.until_ns > now).map(|(k, e)| (k.as_str(), e.until_ns))
    }
}
