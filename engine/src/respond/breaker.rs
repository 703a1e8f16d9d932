//! Caps of kills and freezes: each server identity has a budget of its own, and spends nobody else's.

use std::collections::{BTreeMap, VecDeque};

use super::{Action, Settings};

const HOUR_NS: u64 = 3_600_000_000_000;
/// Identities with a budget; beyond that the one that was quiet for longest starts anew.
const IDENTITIES: usize = 4096;

#[derive(Clone, Debug, Default)]
struct Budget {
    kills: VecDeque<u64>,
    freezes: VecDeque<u64>,
    latest: u64,
}

/// See above.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    budgets: BTreeMap<(String, bool), Budget>,
}

impl Breaker {
    /// Takes one of the identity's kills or freezes; false when there is none left within the hour. What is only
    /// told has a budget of its own.
    pub(super) fn take(
        &mut self,
        identity: &str,
        dry_run: bool,
        action: Action,
        now: u64,
        settings: &Settings,
    ) -> bool {
        let limit = match action {
            Action::KillChild | Action::KillServer => settings.kills_per_hour,
            Action::Freeze => settings.freezes_per_hour,
            Action::Throttle | Action::CutNetwork | Action::Release => return true,
        };
        let key = (identity.to_owned(), dry_run);
        if self.budgets.len() >= IDENTITIES && !self.budgets.contains_key(&key) {
            let oldest = self.budgets.iter().min_by_key(|(_, b)| b.latest).map(|(k, _)| k.clone());
            oldest.map(|k| self.budgets.remove(&k));
        }
        let budget = self.budgets.entry(key).or_default();
        budget.latest = now;
        let spent = if action == Action::Freeze { &mut budget.freezes } else { &mut budget.kills };
        while spent.front().is_some_and(|at| now.saturating_sub(*at) >= HOUR_NS) {
            spent.pop_front();
        }
        if spent.len() >= limit as usize {
            return false;
        }
        spent.push_back(now);
        true
    }
}
