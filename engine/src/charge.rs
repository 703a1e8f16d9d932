//! Whom an effect is charged to.
//!
//! A [`Charge`] is a set of possibilities: calls, and at most one of startup or ambient. One
//! possibility is certain; several calls of one tool are certain for the tool; the rest is ambiguous.

use std::sync::{Arc, atomic::AtomicU64};

use crate::output::{Basis, CallRef, Candidate, Certainty, Scope, ScopeKind};

/// What stays known of a call for as long as anything is charged to it.
#[derive(Debug)]
pub(crate) struct CallInfo {
    /// Counts the calls of a server from 1.
    pub(crate) number: u64,
    pub(crate) tool: Arc<str>,
    /// JSON-RPC id.
    id: serde_json::Value,
    /// Its form among others. Under load a set may have hundreds of members, and there is a new set
    /// with every message: they share this.
    candidate: Arc<Candidate>,
    /// Effects that may belong to it. Counted here, so that a member of a large set is not searched for.
    pub(crate) ambiguous: AtomicU64,
}

impl CallInfo {
    pub(crate) fn new(number: u64, tool: &str, id: serde_json::Value) -> Self {
        let call = Some(CallRef { number, request_id: id.clone() });
        let candidate = Arc::new(Candidate { kind: ScopeKind::Call, tool: Some(tool.to_owned()), call });
        Self { number, tool: tool.into(), id, candidate, ambiguous: AtomicU64::new(0) }
    }

    pub(crate) fn call_ref(&self) -> CallRef {
        CallRef { number: self.number, request_id: self.id.clone() }
    }
}

/// The possibility that is not a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Startup,
    Ambient,
    /// A request that was in flight when the running server was found. Never certain: alone, it stands
    /// beside ambient.
    UnknownStart,
}

impl Base {
    fn kind(self) -> ScopeKind {
        match self {
            Self::Startup => ScopeKind::Startup,
            Self::Ambient => ScopeKind::Ambient,
            Self::UnknownStart => ScopeKind::UnknownStart,
        }
    }
}

/// A set of possibilities, never empty, with its printed form.
#[derive(Clone, Debug)]
pub(crate) struct Charge {
    pub(crate) base: Option<Base>,
    pub(crate) calls: Arc<[Arc<CallInfo>]>,
    pub(crate) scope: Arc<Scope>,
    /// It would be ambiguous had no settling time been learned.
    pub(crate) ambiguous_before: bool,
}

impl Charge {
    /// `base` is left out of the set only when there are calls.
    pub(crate) fn new(base: Option<Base>, calls: Vec<Arc<CallInfo>>, basis: Basis) -> Self {
        let base = if calls.is_empty() { Some(base.unwrap_or(Base::Ambient)) } else { base };
        let scope = Arc::new(scope(base, &calls, basis));
        let ambiguous_before = scope.certainty == Certainty::Ambiguous;
        Self { base, calls: calls.into(), scope, ambiguous_before }
    }

    /// The same set, for a child born now: from here on it is lineage.
    pub(crate) fn inherited(&self) -> Self {
        let mut scope = (*self.scope).clone();
        scope.basis = Basis::Lineage;
        Self { scope: Arc::new(scope), ..self.clone() }
    }

    /// The same set, with one more possibility.
    pub(crate) fn or(&self, base: Base) -> Self {
        if self.base.is_some() && base != Base::UnknownStart {
            return self.clone();
        }
        Self::new(Some(base), self.calls.to_vec(), self.scope.basis)
    }

    /// The one call that it must be.
    pub(crate) fn certain_call(&self) -> Option<&Arc<CallInfo>> {
        match (&self.base, &*self.calls) {
            (None, [call]) => Some(call),
            _ => None,
        }
    }
}

/// Whether calls and a base that may stand beside them leave open whose act it was.
pub(crate) fn is_open(base: Option<Base>, calls: &[&Arc<CallInfo>]) -> bool {
    match base {
        Some(base) => !calls.is_empty() || base == Base::UnknownStart,
        None => calls.windows(2).any(|w| w[0].tool != w[1].tool),
    }
}

fn scope(base: Option<Base>, calls: &[Arc<CallInfo>], basis: Basis) -> Scope {
    let none = |kind| Scope {
        kind,
        tool: None,
        call: None,
        certainty: Certainty::Certain,
        basis,
        candidates: Vec::new(),
    };
    match (base, calls) {
        (Some(base), []) if base != Base::UnknownStart => return none(base.kind()),
        (None, [call]) => {
            let tool = Some(call.tool.to_string());
            return Scope { tool, call: Some(call.call_ref()), ..none(ScopeKind::Call) };
        }
        _ => {}
    }
    let mut candidates: Vec<_> = calls.iter().map(|c| Arc::clone(&c.candidate)).collect();
    let beside = (calls.is_empty()).then_some(Base::Ambient);
    let other = |b: Base| Arc::new(Candidate { kind: b.kind(), tool: None, call: None });
    candidates.extend(base.into_iter().chain(beside).map(other));
    let one_tool = base.is_none() && calls.windows(2).all(|w| w[0].tool == w[1].tool);
    if one_tool {
        let tool = calls.first().map(|c| c.tool.to_string());
        return Scope {
            kind: ScopeKind::Call,
            tool,
            call: None,
            certainty: Certainty::CertainTool,
            basis,
            candidates,
        };
    }
    Scope {
        kind: ScopeKind::Ambiguous,
        tool: None,
        call: None,
        certainty: Certainty::Ambiguous,
        basis,
        candidates,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u64, tool: &str) -> Arc<CallInfo> {
        Arc::new(CallInfo::new(number, tool, number.into()))
    }

    #[test]
    fn one_possibility_is_certain() {
        let c = Charge::new(None, vec![call(1, "a")], Basis::Window);
        assert_eq!((c.scope.kind, c.scope.certainty), (ScopeKind::Call, Certainty::Certain));
        assert!(c.certain_call().is_some() && c.scope.candidates.is_empty());
        let c = Charge::new(Some(Base::Startup), vec![], Basis::Window);
        assert_eq!((c.scope.kind, c.scope.certainty), (ScopeKind::Startup, Certainty::Certain));
    }

    #[test]
    fn several_calls_of_one_tool_are_certain_for_the_tool_only() {
        let c = Charge::new(None, vec![call(1, "a"), call(2, "a")], Basis::Window);
        assert_eq!((c.scope.kind, c.scope.certainty), (ScopeKind::Call, Certainty::CertainTool));
        assert_eq!((c.scope.tool.as_deref(), &c.scope.call), (Some("a"), &None));
        assert!(c.certain_call().is_none());
    }

    #[test]
    fn what_may_have_been_in_flight_unseen_is_never_certain() {
        let alone = Charge::new(Some(Base::UnknownStart), vec![], Basis::Window);
        let ambient = Charge::new(Some(Base::Ambient), vec![], Basis::Window).or(Base::UnknownStart);
        let kinds = |c: &Charge| c.scope.candidates.iter().map(|c| c.kind).collect::<Vec<_>>();
        for c in [&alone, &ambient, &alone.inherited(), &alone.or(Base::Startup)] {
            assert_eq!((c.scope.kind, c.scope.certainty), (ScopeKind::Ambiguous, Certainty::Ambiguous));
            assert_eq!(kinds(c), [ScopeKind::UnknownStart, ScopeKind::Ambient]);
        }
        let c = Charge::new(Some(Base::UnknownStart), vec![call(1, "a")], Basis::Window);
        assert_eq!(kinds(&c), [ScopeKind::Call, ScopeKind::UnknownStart]);
        assert!(c.certain_call().is_none());
    }

    #[test]
    fn several_tools_or_a_base_beside_a_call_are_ambiguous() {
        for c in [
            Charge::new(None, vec![call(1, "a"), call(2, "b")], Basis::Window),
            Charge::new(None, vec![call(1, "a")], Basis::Window).or(Base::Ambient),
            Charge::new(Some(Base::Startup), vec![call(1, "a")], Basis::Window),
        ] {
            assert_eq!((c.scope.kind, c.scope.certainty), (ScopeKind::Ambiguous, Certainty::Ambiguous));
            assert_eq!(c.scope.candidates.len(), 2);
            assert!(c.certain_call().is_none() && c.inherited().certain_call().is_none());
        }
    }
}
