//! What a server in `enforce` does beyond what a person ratified, where this host cannot deny it: it is told.
//!
//! Programs, unix sockets and system calls only. The files of tomorrow are not those of today, so of files the baseline says what is
//! surprising, as in `watch`.

use std::sync::Arc;

use super::{
    Judge,
    effects::{Found, is_incidental, permit_nth, rests_on},
    words,
};
use crate::{
    baseline::{Dimension, Item, ScopeKey},
    finding::Severity,
    output::EffectLine,
    policy::Family,
};

fn family(dimension: Dimension) -> Option<Family> {
    const TOLD: [Family; 3] = [Family::Exec, Family::Unix, Family::Dangerous];
    TOLD.into_iter().find(|f| f.dimensions().contains(&dimension))
}

impl Judge {
    /// `exempt`: which items a rule permits, as a bit mask.
    pub(super) fn beyond(
        &self,
        line: &EffectLine,
        items: &[Arc<Item>],
        exempt: u64,
        scopes: &[ScopeKey],
        found: &mut Vec<Found>,
    ) {
        let (Some(i), Ok(tree)) =
            (self.instances.get(&line.server.id), u64::from_str_radix(&line.server.id, 16))
        else {
            return;
        };
        let Some(denier) = self.enforcement.denier_of(tree) else {
            return;
        };
        let Some((key, baseline)) =
            self.baselines.iter().find(|(k, b)| k.to_string() == denier && b.ratified.is_some())
        else {
            return;
        };
        for (n, item) in items.iter().enumerate() {
            let Some(family) = family(item.dimension) else { continue };
            let permitted = exempt >> n.min(63) & 1 != 0
                || is_incidental(item)
                || scopes.is_empty()
                || scopes.iter().any(|s| baseline.is_ratified(s, item));
            if permitted || self.enforcement.available.contains(&family) {
                continue;
            }
            let kind = words::kind(item.dimension, &item.levels[0], scopes);
            let normal: Vec<String> =
                scopes.iter().take(3).map(|s| words::normal(baseline, s, item.dimension)).collect();
            let normal = normal.join("; ");
            let because = self.enforcement.because.get(&family).map_or("this host cannot", String::as_str);
            let permit = permit_nth(i, scopes, kind, &line.effect, n);
            found.push(Found {
                kind,
                severity: kind.severity().max(Severity::Medium),
                origin: rests_on(baseline),
                object: item.levels[0].to_string(),
                sentence: format!(
                    "{}, server `{}` {}, which the ratified baseline {key} does not permit; what is normal: {normal}. \
                     It was not denied: {because}.",
                    words::when(&line.scope),
                    line.server.name,
                    words::did(&line.effect),
                ),
                permit,
                baseline: Some(normal),
                whole: false,
            });
        }
    }
}
