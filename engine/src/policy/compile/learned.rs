//! What the ratified baseline permits.

use std::collections::{BTreeMap, HashSet};

use crate::{
    act::{Access, Act},
    baseline::{self, Baseline, Dimension, Item, Ratified, ScopeKey, roots::Roots},
    judge::is_incidental,
};

/// Ratified members by scope and dimension.
#[derive(Debug)]
pub(super) struct Learned<'a> {
    roots: Vec<&'a Roots>,
    sets: BTreeMap<(&'a ScopeKey, Dimension), Set<'a>>,
}

#[derive(Debug)]
struct Set<'a> {
    all: Ratified<'a>,
    names: HashSet<&'a str>,
}

impl<'a> Learned<'a> {
    pub(super) fn new(baseline: &'a Baseline, roots: &'a [Roots]) -> Self {
        let sets = baseline.ratified_members().map(|all| {
            let names = all.names.iter().copied().collect();
            ((all.scope, all.dimension), Set { all, names })
        });
        Self { roots: roots.iter().collect(), sets: sets.collect() }
    }

    /// Whether a scope may do it. What no baseline looks at, it does not forbid.
    pub(super) fn has(&self, scope: &ScopeKey, act: &Act<'_>) -> bool {
        let unknown = Roots::default();
        let known = self.roots.iter().copied().chain(self.roots.is_empty().then_some(&unknown));
        known.into_iter().any(|roots| match baseline::item(act, roots) {
            // Devices that hold nothing: opening them is.
            None => !matches!(act, Act::File { access: Access::Delete | Access::Change, .. }),
            // Which call a runtime loads more of itself in is chance.
            Some(item) if is_incidental(&item) => {
                self.sets.keys().any(|(scope, _)| self.is_member(scope, &item))
            }
            Some(item) => self.is_member(scope, &item),
        })
    }

    fn is_member(&self, scope: &ScopeKey, item: &Item) -> bool {
        let set = self.sets.get(&(scope, item.dimension));
        set.is_some_and(|s| item.levels.get(s.all.level).is_some_and(|name| s.names.contains(&**name)))
    }

    /// Sets of a dimension. What the server does as a whole names objects, too, that all of its scopes may have.
    pub(super) fn of(&self, dimension: Dimension) -> impl Iterator<Item = &Ratified<'a>> {
        self.sets.values().map(|s| &s.all).filter(move |r| r.dimension == dimension)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Ratified<'a>> {
        self.sets.values().map(|s| &s.all)
    }

    /// A path in general terms, in terms of this host: places that each root may be. `None` when that is not
    /// known, or it is no path.
    pub(super) fn places(&self, name: &str) -> Option<Vec<String>> {
        if name.starts_with(['/', '@']) {
            return Some(vec![name.to_owned()]);
        }
        let end = name.strip_prefix("${").and_then(|rest| rest.find('}')).map(|at| at + 3)?;
        let (root, rest) = name.split_at_checked(end)?;
        let mut all: Vec<String> =
            self.roots.iter().flat_map(|r| r.named(root)).map(|prefix| format!("{prefix}{rest}")).collect();
        all.sort();
        all.dedup();
        (!all.is_empty()).then_some(all)
    }

    /// Roots of all servers that run.
    pub(super) fn prefixes(&self) -> Vec<&'a str> {
        let mut all: Vec<&str> = self
            .roots
            .iter()
            .flat_map(|r| {
                let names = [
                    baseline::roots::ROOT,
                    baseline::roots::HOME,
                    baseline::roots::CWD,
                    baseline::roots::PACKAGE,
                ];
                names.into_iter().flat_map(|name| r.named(name))
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
