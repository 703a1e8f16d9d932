//! What a person has ratified, at the level at which it is enforced.

use std::{cmp::Reverse, collections::BTreeSet};

use super::{Baseline, Dimension, Item, ScopeKey, scope::Tested};

/// Ratified members of one set.
#[derive(Clone, Debug)]
pub(crate) struct Ratified<'a> {
    pub(crate) scope: &'a ScopeKey,
    pub(crate) dimension: Dimension,
    /// Which of an item's names these are.
    pub(crate) level: usize,
    pub(crate) names: Vec<&'a str>,
    /// The finest names.
    pub(crate) fine: Vec<&'a str>,
    /// Learned after a person ratified it.
    pub(crate) later: usize,
    /// Something new at that level would be a finding.
    pub(crate) tested: bool,
}

impl Baseline {
    /// Members that a person ratified, in order.
    pub(crate) fn ratified_members(&self) -> impl Iterator<Item = Ratified<'_>> {
        self.scopes.iter().flat_map(|(key, scope)| {
            scope.sets.iter().map(move |(dimension, sets)| {
                let level = enforced_level(*dimension, scope.tested);
                let of = |level: usize| {
                    let all = sets.get(level).map(super::family::Family::sorted).unwrap_or_default();
                    all.into_iter().filter(|(_, m)| m.ratified).map(|(name, _)| &**name).collect::<Vec<_>>()
                };
                let names = of(level);
                let later = sets.get(level).map_or(0, |f| f.members.len()).saturating_sub(names.len());
                let tested = scope.tested.set(*dimension, level);
                Ratified { scope: key, dimension: *dimension, level, names, fine: of(0), later, tested }
            })
        })
    }

    /// Whether a person ratified an item in a scope, at the level at which it would be enforced.
    pub(crate) fn is_ratified(&self, scope: &ScopeKey, item: &Item) -> bool {
        self.scopes.get(scope).is_some_and(|s| {
            let level = enforced_level(item.dimension, s.tested).min(item.levels.len().saturating_sub(1));
            let family = s.sets.get(&item.dimension).and_then(|sets| sets.get(level));
            let member = item.levels.get(level).and_then(|name| family?.members.get(name));
            member.is_some_and(|m| m.ratified)
        })
    }

    /// Of how many of its sessions something would have been denied, had the others been ratified: those that have a member of one of
    /// `dimensions` which no other session has. And how many sessions there are.
    pub(crate) fn would_be_denied(&self, dimensions: &[Dimension]) -> (u64, u64) {
        let mut sessions = BTreeSet::new();
        for (key, scope) in &self.scopes {
            if matches!(key, ScopeKey::Whole | ScopeKey::Session) {
                continue;
            }
            for (dimension, sets) in scope.sets.iter().filter(|(d, _)| dimensions.contains(d)) {
                if let Some(family) = sets.get(enforced_level(*dimension, scope.tested)) {
                    sessions.extend(family.alarms(0).sessions);
                }
            }
        }
        (sessions.len() as u64, u64::from(self.trials))
    }

    /// Its tools, those that did something first before others: a tool that comes later takes no other's place.
    pub(crate) fn tools_by_age(&self) -> Vec<&str> {
        let mut tools: Vec<(Reverse<bool>, i64, &str)> = Vec::new();
        for (key, scope) in &self.scopes {
            let ScopeKey::Tool(tool) = key else { continue };
            let members = scope.sets.values().flatten().flat_map(|f| f.members.values());
            let first = members.map(|m| m.first_utc).min();
            tools.push((Reverse(first.is_some()), first.unwrap_or_default(), tool));
        }
        tools.sort_unstable();
        tools.into_iter().map(|(.., tool)| tool).collect()
    }
}

/// Files by the finest names that are tested, else by their area: the files of tomorrow are not those of today.
/// Programs by path, because arguments are not looked at in the kernel. All else by the finest names: a class of
/// addresses is no permission.
fn enforced_level(dimension: Dimension, tested: Tested) -> usize {
    match dimension {
        Dimension::Read | Dimension::Write | Dimension::Delete | Dimension::Change => {
            (0..2).find(|&level| tested.set(dimension, level)).unwrap_or(2)
        }
        Dimension::Exec => 1,
        _ => 0,
    }
}
