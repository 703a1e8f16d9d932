//! What is in force on one tree, and how far its ladder was climbed.

use std::collections::BTreeMap;

use super::{Action, Settings};
use crate::rules::written::Response;

/// How strong an action is: ladders are climbed in this order.
fn strength(action: Action) -> u8 {
    match action {
        Action::Release => 0,
        Action::Throttle => 1,
        Action::CutNetwork => 2,
        Action::Freeze => 3,
        Action::KillChild => 4,
        Action::KillServer => 5,
    }
}

/// The steps of a response, weakest first. To tell is done anyway, and to deny is for the kernel's policy.
pub(super) fn ladder(response: &[Response]) -> Vec<Action> {
    let mut steps: Vec<Action> = response
        .iter()
        .flat_map(|r| match r {
            Response::Alert | Response::Deny => &[][..],
            Response::Throttle => &[Action::Throttle],
            Response::CutNetwork => &[Action::CutNetwork],
            Response::Freeze => &[Action::Freeze],
            Response::Kill => &[Action::KillChild, Action::KillServer],
        })
        .copied()
        .collect();
    steps.sort_by_key(|a| strength(*a));
    steps.dedup();
    steps
}

#[derive(Clone, Copy, Debug)]
struct Step {
    action: Action,
    at_ns: u64,
}

/// One tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// The latest step, really and as told only.
    steps: [Option<Step>; 2],
    /// In force, and until when; `u64::MAX`: until it is released.
    pub(super) until: BTreeMap<Action, u64>,
    /// Its end was ordered.
    pub(super) ending: bool,
}

impl Held {
    /// The step that a finding calls for.
    pub(super) fn next(&self, ladder: &[Action], dry: bool, now: u64, settings: &Settings) -> Option<Action> {
        let first = *ladder.first()?;
        if self.ending && !dry {
            return None;
        }
        let step = self.steps[usize::from(dry)];
        let recent = step.filter(|s| now.saturating_sub(s.at_ns) <= settings.again_ns);
        let in_force = if dry { None } else { self.until.keys().copied().max_by_key(|a| strength(*a)) };
        let before = recent.map(|s| s.action).into_iter().chain(in_force).max_by_key(|a| strength(*a));
        let Some(before) = before else { return Some(first) };
        let same_event = recent.is_some_and(|s| now.saturating_sub(s.at_ns) < settings.pause_ns);
        match ladder.iter().copied().find(|a| strength(*a) > strength(before)) {
            // A rule that begins with more than what was done is not a matter of going on.
            Some(wanted) if wanted == first || !same_event => Some(wanted),
            Some(_) => None,
            // At its top: again, if it is over.
            None => {
                let top = *ladder.last()?;
                let over = !dry && in_force.is_none_or(|a| strength(a) < strength(top));
                (over && !same_event).then_some(top)
            }
        }
    }

    pub(super) fn climbed(&mut self, action: Action, dry: bool, now: u64) {
        self.steps[usize::from(dry)] = Some(Step { action, at_ns: now });
    }

    /// It was lifted: what comes next begins at the ladder's foot.
    pub(super) fn lifted(&mut self, only: Option<Action>) {
        match only {
            Some(action) => {
                self.until.remove(&action);
            }
            None => {
                self.until.clear();
                self.steps = [None; 2];
            }
        }
    }
}
