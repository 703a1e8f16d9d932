//! The attack surface of a server under a policy: how many rights were open for how long, against the same rights standing all the
//! time, which is what an allow-list of the server gives.
//!
//! A right is open while one of the scopes that hold it is live, for whatever process of the server.
//!
//! # Layout
//! - [`meter`]: for how long which scopes were live
//! - this module: what that means for the rights of a policy

mod meter;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Family, PathAccess, Policy, scope};
use meter::Count;
pub use meter::Meter;

/// How far the rights of a policy were open.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Exposure {
    /// Key of the baseline.
    pub identity: String,
    /// Servers that are held now.
    pub held: usize,
    /// For how long this was counted, all servers of the identity taken together.
    pub observed_s: f64,
    /// All rights.
    pub all: Surface,
    /// Those that are not open whatever happens: calls and start-up open them.
    pub opened: Surface,
    /// Scope by scope.
    pub scopes: Vec<ScopeSurface>,
    /// Calls that nobody answered in time: they held their rights for that long.
    pub expired: u64,
    /// Requests that the kernel did not understand: all rights were open until user space had said what they were.
    pub not_understood: u64,
    /// For how long all rights were open because of that.
    pub ceiling_s: f64,
    /// Calls of tools that the policy does not know: they opened nothing.
    pub unknown_tools: u64,
    /// Calls that opened nothing, because their id was in flight or the map was full.
    pub not_opened: u64,
}

/// Rights, and for how long they were open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Surface {
    /// How many.
    pub rights: u64,
    /// Sum of the seconds that each was open.
    pub right_s: f64,
    /// The same if they had stood all the time.
    pub standing_right_s: f64,
    /// The one by the other; absent when nothing was counted or there are no rights.
    pub share: Option<f64>,
}

/// What one scope opens.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ScopeSurface {
    /// `startup`, `ambient` or `tool NAME`.
    pub scope: String,
    /// Calls that were answered.
    pub calls: Option<u64>,
    /// For how long its rights were open.
    pub open_s: f64,
    /// Of that, only because a child that was born in a call lived on.
    pub outlived_s: f64,
    /// What the calls themselves took, settling included, as the kernel counts those that are over: what overlaps counts twice.
    pub calls_s: Option<f64>,
    /// Rights that it opens, without those that are open whatever happens; of `ambient`, those.
    pub surface: Surface,
}

impl Surface {
    fn new(rights: u64, right_ns: u64, observed_ns: u64) -> Self {
        let standing = seconds(observed_ns) * rights as f64;
        let right_s = seconds(right_ns);
        Self {
            rights,
            right_s,
            standing_right_s: standing,
            share: (standing > 0.0).then(|| right_s / standing),
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// What the rights of a policy come to. Nothing was counted yet when its identity is unknown to the meter.
#[must_use]
pub fn exposure(policy: &Policy, meter: &Meter) -> Exposure {
    let none = Count::default();
    let count = meter.count(&policy.identity).unwrap_or(&none);
    let masks = masks(policy);
    let open =
        |mask: u64| count.by_mask.iter().filter(|(live, _)| **live & mask != 0).map(|(_, ns)| ns).sum();
    let surface = |masks: &mut dyn Iterator<Item = u64>| {
        let (rights, ns) = masks.fold((0, 0), |(n, ns), mask| (n + 1, ns + open(mask)));
        Surface::new(rights, ns, count.observed_ns)
    };
    let always = |mask: &u64| *mask & scope::AMBIENT != 0;
    let opened = || masks.iter().copied().filter(|mask| !always(mask));
    let of = |scope: String, bit: u64| {
        let ns: u64 = open(bit);
        let rights = match bit {
            scope::AMBIENT => masks.iter().filter(|mask| always(mask)).count(),
            _ => opened().filter(|mask| mask & bit != 0).count(),
        } as u64;
        ScopeSurface {
            scope,
            calls: None,
            open_s: seconds(ns),
            outlived_s: 0.0,
            calls_s: None,
            surface: Surface::new(rights, ns * rights, count.observed_ns),
        }
    };
    let mut scopes = vec![of("ambient".into(), scope::AMBIENT), of("startup".into(), scope::STARTUP)];
    scopes.extend(policy.tools.iter().map(|tool| {
        let at = |all: &std::collections::BTreeMap<u32, u64>| all.get(&tool.bit).copied().unwrap_or(0);
        ScopeSurface {
            calls: Some(count.calls.get(&tool.name).copied().unwrap_or(0)),
            outlived_s: seconds(at(&count.outlived_ns)),
            calls_s: Some(seconds(at(&count.calls_ns))),
            ..of(format!("tool {}", tool.name), 1 << tool.bit)
        }
    }));
    Exposure {
        identity: policy.identity.clone(),
        held: meter.held(&policy.identity),
        observed_s: seconds(count.observed_ns),
        all: surface(&mut masks.iter().copied()),
        opened: surface(&mut opened()),
        scopes,
        expired: count.expired,
        not_understood: count.unsure,
        ceiling_s: seconds(count.ceiling_ns),
        unknown_tools: count.unknown_tools,
        not_opened: count.full,
    }
}

/// Who holds each right that the kernel decides about. What is denied to everybody is no right.
fn masks(policy: &Policy) -> Vec<u64> {
    let is = |family: Family| policy.families.contains(&family);
    let network = policy.connect.iter().map(|r| r.mask).chain(policy.names.iter().map(|r| r.mask));
    let listen = policy.listen.iter().map(|r| r.mask);
    let paths = policy.paths.iter().filter(|r| {
        is(match r.access {
            PathAccess::Exec => Family::Exec,
            PathAccess::Unix => Family::Unix,
            _ => Family::File,
        })
    });
    let all = network.filter(|_| is(Family::Network));
    let all = all.chain(listen.filter(|_| is(Family::Listen))).chain(paths.map(|r| r.mask));
    all.map(|mask| mask & !scope::NOBODY).filter(|mask| *mask != 0).collect()
}
