//! From a ratified baseline and rules to rights.
//!
//! Rights are cut where the answer may change: at the borders of patterns, and at members. For each piece the
//! rules and the baseline are asked about one object in it that is in no narrower piece, scope by scope; so
//! precedence, exceptions and generalisation are decided where they always are. What prefixes cannot say gets
//! the narrowest piece around it, or none, and is listed.
//!
//! # Layout
//! - `learned`: what the ratified baseline permits
//! - `net`, `names`, `paths`: pieces and their masks
//! - `listed`: what of rules and baseline is only told

mod learned;
mod listed;
mod names;
mod net;
mod paths;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{AlertOnly, Family, Policy, Tool, scope};
use crate::{
    baseline::{Baseline, ScopeKey, roots::Roots},
    rules::{RuleSet, Selected, Verdict, Where, Who, outline::Said, units::Day, written},
};
use learned::Learned;

/// What beside the baseline decides what a policy permits.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The server's directories: of each that runs. None: where they are is not known yet.
    pub roots: &'a [Roots],
    /// Rules in force.
    pub rules: &'a Arc<RuleSet>,
    /// Whom they are about; the scope does not matter.
    pub who: &'a Who,
    /// Exceptions that ended before are none.
    pub today: Day,
    /// What is denied by default.
    pub families: &'a BTreeSet<Family>,
    /// Why others are not.
    pub because: &'a BTreeMap<Family, String>,
    /// Whom the host asks for names.
    pub resolvers: &'a [IpAddr],
    /// Of tools whose own time is not known, ns.
    pub settle_ns: u64,
}

/// A scope with its bit.
struct Scope<'a> {
    key: &'a ScopeKey,
    bit: u64,
    selected: Arc<Selected>,
    learned: written::Learned,
}

struct Compiler<'a> {
    given: Given<'a>,
    scopes: Vec<Scope<'a>>,
    learned: Learned<'a>,
    listed: BTreeSet<AlertOnly>,
}

/// What is made of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Value {
    mask: u64,
    /// It is denied to some, and others may.
    partly: bool,
}

/// Which half of the word permits.
#[derive(Clone, Copy, Debug, Default)]
struct Has {
    learned: bool,
    /// A rule's pattern that had to be widened.
    widened: bool,
}

/// What a server may do. Its generation is 0.
#[must_use]
pub fn compile(baseline: &Baseline, given: Given<'_>) -> Policy {
    let (startup, ambient) = (ScopeKey::Startup, ScopeKey::Ambient);
    let tools: Vec<ScopeKey> =
        baseline.tools_by_age().into_iter().map(|t| ScopeKey::Tool(t.to_owned())).collect();
    let settling: BTreeMap<&str, u64> = baseline
        .settling()
        .filter_map(|(tool, s)| Some((tool, s.learned_ns()?.min(given.settle_ns))))
        .collect();
    let mut c = Compiler {
        given,
        scopes: Vec::new(),
        learned: Learned::new(baseline, given.roots),
        listed: BTreeSet::new(),
    };
    c.add(&startup, scope::STARTUP);
    c.add(&ambient, scope::AMBIENT);
    let mut policy = Policy { identity: baseline.key.to_string(), ..Policy::default() };
    for (n, key) in tools.iter().enumerate() {
        let ScopeKey::Tool(name) = key else { continue };
        let bit = u32::try_from(n).unwrap_or(u32::MAX).min(scope::TOOLS - 1);
        c.add(key, 1 << bit);
        let settle_ns = settling.get(name.as_str()).copied().unwrap_or(given.settle_ns);
        policy.tools.push(Tool { name: name.clone(), bit, settle_ns });
    }
    if tools.len() > scope::TOOLS as usize {
        let shared: Vec<&str> =
            policy.tools.iter().filter(|t| t.bit == scope::TOOLS - 1).map(|t| t.name.as_str()).collect();
        c.list(
            "tools",
            shared.join(", "),
            "wider in the kernel: tools beyond the first 59 share their rights",
        );
    }
    policy.names = c.names();
    let asking = policy.names.iter().filter(|r| r.ports.is_none()).fold(0, |all, r| all | r.mask);
    policy.connect = c.connect(asking & !scope::NOBODY);
    policy.listen = c.listen();
    policy.paths = c.paths();
    policy.families = c.families();
    c.list_all();
    policy.alert_only = c.listed.into_iter().collect();
    policy
}

impl<'a> Compiler<'a> {
    fn add(&mut self, key: &'a ScopeKey, bit: u64) {
        let scope = match key {
            ScopeKey::Startup => Where::Startup,
            ScopeKey::Tool(tool) => Where::Tool(tool.clone()),
            _ => Where::Ambient,
        };
        let who = Who { scope, ..self.given.who.clone() };
        let known: Vec<Arc<Selected>> = self.scopes.iter().map(|s| Arc::clone(&s.selected)).collect();
        let selected = self.given.rules.for_who_like(&who, &known);
        self.scopes.push(Scope { key, bit, learned: selected.learned(), selected });
    }

    fn list(&mut self, rule: impl ToString, what: impl Into<String>, why: impl Into<String>) {
        self.listed.insert(AlertOnly { rule: rule.to_string(), what: what.into(), why: why.into() });
    }

    /// Selections of rules that differ.
    fn selections(&self) -> Vec<Arc<Selected>> {
        let mut all: Vec<Arc<Selected>> = Vec::new();
        for s in &self.scopes {
            if !all.iter().any(|known| Arc::ptr_eq(known, &s.selected)) {
                all.push(Arc::clone(&s.selected));
            }
        }
        all
    }

    /// Asks every scope.
    fn value(&self, verdict: &dyn Fn(&Selected) -> Verdict, has: &dyn Fn(&Scope<'_>) -> Has) -> Value {
        use written::Learned::{Ignore, Only};
        let mut told: Vec<(*const Selected, Verdict)> = Vec::new();
        let (mut mask, mut denied) = (0, false);
        for s in &self.scopes {
            let own = Arc::as_ptr(&s.selected);
            let verdict = match told.iter().find(|(of, _)| *of == own) {
                Some((_, verdict)) => *verdict,
                None => {
                    let verdict = verdict(&s.selected);
                    told.push((own, verdict));
                    verdict
                }
            };
            let may = match verdict {
                Verdict::Deny => {
                    denied = true;
                    false
                }
                Verdict::Allow if s.learned != Only => true,
                Verdict::Allow | Verdict::None => {
                    let has = has(s);
                    has.learned && s.learned != Ignore || has.widened && s.learned != Only
                }
            };
            if may {
                mask |= s.bit;
            }
        }
        let partly = denied && mask != 0;
        Value { mask: if mask == 0 && !denied { scope::NOBODY } else { mask }, partly }
    }

    /// Families that are denied by default.
    fn families(&mut self) -> Vec<Family> {
        let mut families = self.given.families.clone();
        // A ratified act of these cannot be told from others of its family in the kernel.
        let kept: Vec<(String, String)> = self
            .learned
            .of(crate::baseline::Dimension::Special)
            .filter(|r| !matches!(r.scope, ScopeKey::Whole | ScopeKey::Session))
            .flat_map(|r| r.names.iter().map(|name| (r.scope.to_string(), (*name).to_owned())))
            .filter(|(_, name)| super::permits::DANGEROUS.contains(&name.as_str()))
            .collect();
        if !kept.is_empty() && families.remove(&Family::Dangerous) {
            for (scope, name) in kept {
                let why = "the baseline has it, and the kernel permits no single one of these: the family `dangerous` \
                           is observed only";
                self.list(scope, name, why);
            }
        }
        families.into_iter().collect()
    }
}

/// Where a rule stands, for people.
fn place(said: &Said<'_>) -> String {
    format!("{} ({})", said.rule.id, said.rule.place)
}
