//! What rules say about a running server, scope by scope.

use std::{collections::BTreeSet, sync::Arc};

use foldhash::HashMap;

use crate::{
    act::Act,
    baseline::ScopeKey,
    output::{Scope, ScopeKind},
    rules::{Decision, RuleSet, Selected, Verdict, Where, Who, units::Day},
};

/// Scopes whose rules are kept ready.
const KEPT: usize = 1024;

/// The rules in force, and those of them that speak about one server.
#[derive(Debug, Default)]
pub(super) struct Policy {
    selected: HashMap<ScopeKey, Arc<Selected>>,
    /// Those that differ.
    different: Vec<Arc<Selected>>,
}

impl Policy {
    /// Rules changed, or it became known who the server is.
    pub(super) fn forget(&mut self) {
        self.selected.clear();
        self.different.clear();
    }

    pub(super) fn of(&mut self, rules: &Arc<RuleSet>, who: &Who, scope: &ScopeKey) -> Arc<Selected> {
        if let Some(s) = self.selected.get(scope) {
            return Arc::clone(s);
        }
        if self.selected.len() >= KEPT {
            self.forget();
        }
        let selected = rules.for_who_like(&at(who, scope), &self.different);
        if !self.different.iter().any(|s| Arc::ptr_eq(s, &selected)) {
            self.different.push(Arc::clone(&selected));
        }
        self.selected.insert(scope.clone(), Arc::clone(&selected));
        selected
    }
}

/// The same server in a scope.
pub(super) fn at(who: &Who, scope: &ScopeKey) -> Who {
    let scope = match scope {
        ScopeKey::Startup => Where::Startup,
        ScopeKey::Ambient | ScopeKey::Session | ScopeKey::Whole => Where::Ambient,
        ScopeKey::Tool(tool) => Where::Tool(tool.clone()),
    };
    Who { scope, ..who.clone() }
}

/// Scopes that stand for every tool that an act may be of when a call may be in flight that nobody saw begin: the other candidates, a
/// tool that no rule speaks of, and one for each pattern of tools in the rules (its text matches itself).
pub(super) fn any_tool(rules: &RuleSet, scope: &Scope) -> Vec<ScopeKey> {
    let known = scope.candidates.iter().filter_map(|c| match c.kind {
        ScopeKind::Startup => Some(ScopeKey::Startup),
        ScopeKind::Ambient => Some(ScopeKey::Ambient),
        _ => c.tool.clone().map(ScopeKey::Tool),
    });
    let patterns = rules.rules().iter().flat_map(|rule| &rule.written.matches.tool);
    let named = patterns.map(|text| &text.value).filter(|text| !text.starts_with('@')).cloned();
    let tools = named.chain([String::new()]).map(ScopeKey::Tool);
    let all: BTreeSet<ScopeKey> = known.chain(tools).collect();
    all.into_iter().collect()
}

/// An act that may belong to several scopes is permitted when one of them permits it, and forbidden only
/// when all forbid it.
pub(super) fn decide<'a>(selected: &'a [Arc<Selected>], act: &Act<'_>, today: Day) -> Decision<'a> {
    let mut denied = None;
    let mut all = true;
    for s in selected {
        let d = s.decide(act, today);
        match d.verdict {
            Verdict::Allow => return d,
            Verdict::Deny => denied = denied.or(Some(d)),
            Verdict::None => all = false,
        }
    }
    match denied {
        Some(d) if all => d,
        _ => Decision::default(),
    }
}
