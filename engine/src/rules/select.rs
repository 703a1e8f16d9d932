//! What the rules say: whom they are about, and the verdict on one act.
//!
//! # Precedence
//! 1. a person's `deny`, unless an exception of *its own* rule holds
//! 2. a person's `allow`, or a person's exception (whatever rule it stands in)
//! 3. a pack's `deny`, unless an exception of its own rule holds
//! 4. a pack's `allow`
//! 5. nothing: the baseline decides
//!
//! So within one origin deny beats allow, a person's word beats a pack's, and an exception beats the
//! deny that it stands beside until it expires. A *person's* exception permits; a pack's only takes
//! back its own deny, because a pack knows nothing of this host. Of several denies the worst by
//! severity is told, the first in order among equals.

use std::sync::Arc;

use super::{
    glob::{PathGlob, PathView},
    limits::Exceeded,
    limits::Metric,
    set::{Exception, Matcher, Origin, Rule, RuleSet},
    table::{Hit, Part, SLOTS, Slot},
    units::Day,
    value::At,
    written::Learned,
};
use crate::{act::Act, output::CallLine};

/// Where in a server's life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Where {
    /// Before the first request.
    Startup,
    /// No call runs.
    #[default]
    Ambient,
    /// A call of this tool.
    Tool(String),
}

/// Whose act it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Who {
    /// Name of the server.
    pub server: String,
    /// Tool or scope.
    pub scope: Where,
    /// Package, if known.
    pub package: Option<String>,
    /// User that it runs as: the name, else the number.
    pub user: Option<String>,
    /// Home of that user.
    pub home: Option<String>,
    /// Directories that it was given or started in.
    pub roots: Vec<String>,
}

/// What the rules say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is permitted: no finding, whatever the baseline says.
    Allow,
    /// It is forbidden: a finding, whatever the baseline says.
    Deny,
    /// They say nothing.
    #[default]
    None,
}

/// What the rules say, and which of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decision<'a> {
    /// What they say.
    pub verdict: Verdict,
    /// The rule that decided.
    pub rule: Option<&'a Rule>,
    /// The exception that decided; with `Verdict::None`, one that took back a pack's deny.
    pub exception: Option<&'a Exception>,
    /// The pattern that matched, and where it stands.
    pub pattern: Option<(&'a str, At)>,
}

/// The rules about one server in one scope, ready for many acts.
#[derive(Clone, Debug)]
pub struct Selected {
    set: Arc<RuleSet>,
    /// Rules by what they speak about.
    pub(super) slots: [Box<[u32]>; SLOTS],
    /// Patterns with this server's own directories filled in.
    pub(super) extra: [Box<[Extra]>; SLOTS],
    /// All rules about it.
    all: Box<[u32]>,
    ambient: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Extra {
    pub(super) rule: u32,
    /// Which list of programs, for exec; 0 otherwise.
    pub(super) section: u32,
    pub(super) entry: u32,
    pub(super) glob: PathGlob,
}

impl Matcher {
    pub(super) fn matches(&self, who: &Who) -> bool {
        let any = |globs: &[super::names::NameGlob], name: Option<&str>| {
            globs.is_empty() || name.is_some_and(|name| globs.iter().any(|g| g.matches(name)))
        };
        let scope = self.any_scope
            || match &who.scope {
                Where::Startup => self.startup,
                Where::Ambient => self.ambient,
                Where::Tool(tool) => self.tool.iter().any(|g| g.matches(tool)),
            };
        scope
            && any(&self.server, Some(&who.server))
            && any(&self.package, who.package.as_deref())
            && any(&self.user, who.user.as_deref())
    }
}

impl RuleSet {
    /// The rules about a server in a scope.
    #[must_use]
    pub fn for_who(self: &Arc<Self>, who: &Who) -> Selected {
        self.select(who, |_| true)
    }

    /// Decides about one act, on the day that the set was compiled for. For more than one act,
    /// `for_who` first.
    #[must_use]
    pub fn decide<'a>(self: &'a Arc<Self>, who: &Who, act: &Act<'_>) -> Decision<'a> {
        let selected = self.for_who(who);
        selected.find(act, self.today).map_or_else(Decision::default, |found| found.resolve(self))
    }

    /// The same, sharing a selection of the same server in another scope when it has the same rules: most
    /// rules are about all tools, and a server may have hundreds.
    pub(crate) fn for_who_like(self: &Arc<Self>, who: &Who, others: &[Arc<Selected>]) -> Arc<Selected> {
        let all = self.about(who, |_| true);
        let ambient = who.scope == Where::Ambient;
        let same = |s: &&Arc<Selected>| *s.all == *all && s.ambient == ambient && Arc::ptr_eq(&s.set, self);
        match others.iter().find(same) {
            Some(same) => Arc::clone(same),
            None => Arc::new(self.ready(all, who)),
        }
    }

    pub(super) fn select(self: &Arc<Self>, who: &Who, filter: impl Fn(&Rule) -> bool) -> Selected {
        self.ready(self.about(who, filter), who)
    }

    fn about(&self, who: &Who, filter: impl Fn(&Rule) -> bool) -> Vec<u32> {
        let about = |rule: &&(usize, &Rule)| filter(rule.1) && rule.1.matches.matches(who);
        self.rules
            .iter()
            .enumerate()
            .filter(|rule| about(&rule))
            .filter_map(|(i, _)| u32::try_from(i).ok())
            .collect()
    }

    fn ready(self: &Arc<Self>, all: Vec<u32>, who: &Who) -> Selected {
        let slots = Slot::ALL.map(|slot| {
            let speaks = |i: &&u32| self.at(**i).is_some_and(|rule| rule.table.has(slot));
            all.iter().filter(speaks).copied().collect()
        });
        let extra = Slot::ALL.map(|slot| self.expand(&all, slot, who));
        Selected {
            set: Arc::clone(self),
            slots,
            extra,
            all: all.into(),
            ambient: who.scope == Where::Ambient,
        }
    }

    fn at(&self, i: u32) -> Option<&Rule> {
        self.rules.get(i as usize)
    }

    fn expand(&self, all: &[u32], slot: Slot, who: &Who) -> Box<[Extra]> {
        let mut out = Vec::new();
        let mut globs = Vec::new();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        for &i in all {
            let Some(rule) = self.at(i) else { continue };
            let programs = rule.table.exec.iter().map(|p| p.paths.as_slice());
            let lists: Vec<_> =
                if slot == Slot::Exec { programs.collect() } else { vec![rule.table.paths(slot)] };
            for (section, list) in lists.into_iter().enumerate() {
                for (entry, e) in list.iter().enumerate().filter(|(_, e)| e.pattern.has_unknowns()) {
                    e.pattern.expand(who, &mut globs);
                    let (section, entry) = (number(section), number(entry));
                    out.extend(globs.drain(..).map(|glob| Extra { rule: i, section, entry, glob }));
                }
            }
        }
        out.into()
    }
}

/// A decision by numbers.
#[derive(Clone, Copy, Debug)]
struct Found<'a> {
    verdict: Verdict,
    rule: u32,
    exception: Option<u16>,
    pattern: (&'a str, At),
}

impl Found<'_> {
    /// In terms of a set that outlives the selection.
    fn resolve(self, set: &RuleSet) -> Decision<'_> {
        let rule = set.at(self.rule);
        let exception = self.exception.and_then(|e| rule?.exceptions.get(usize::from(e)));
        // The text stands in the set itself; find it there again.
        let pattern = rule.and_then(|rule| rule.pattern_at(self.pattern));
        Decision { verdict: self.verdict, rule, exception, pattern }
    }
}

impl Selected {
    /// What the rules say about an act.
    #[must_use]
    pub fn decide(&self, act: &Act<'_>, today: Day) -> Decision<'_> {
        self.resolve(self.find(act, today))
    }

    /// The same, of a peer by its name alone, whatever its address.
    pub(crate) fn decide_by_name(&self, act: &Act<'_>, today: Day) -> Decision<'_> {
        self.resolve(self.find_among(act, today, &|hit| hit.by_name))
    }

    fn resolve<'a>(&'a self, found: Option<Found<'a>>) -> Decision<'a> {
        let Some(found) = found else { return Decision::default() };
        let rule = self.set.at(found.rule);
        let exception = found.exception.and_then(|e| rule?.exceptions.get(usize::from(e)));
        Decision { verdict: found.verdict, rule, exception, pattern: Some(found.pattern) }
    }

    /// The rules about this server, in order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.all.iter().filter_map(|i| self.set.at(*i))
    }

    /// What becomes of the learned baseline: a person's word before a pack's, the last one before
    /// earlier ones.
    #[must_use]
    pub fn learned(&self) -> Learned {
        self.rules()
            .filter(|r| r.learned.is_some())
            .max_by_key(|r| r.origin)
            .and_then(|r| r.learned)
            .unwrap_or_default()
    }

    /// The limits of one call.
    pub fn limits(&self) -> impl Iterator<Item = (&Rule, Metric, u64)> {
        self.rules().flat_map(|rule| rule.limits.iter().map(move |(metric, limit)| (rule, *metric, *limit)))
    }

    /// The limits that a call went beyond: for each metric the tightest one.
    #[must_use]
    pub fn exceeded(&self, call: &CallLine) -> Vec<Exceeded<'_>> {
        let mut out: Vec<Exceeded<'_>> = Vec::new();
        for (rule, metric, limit) in self.limits() {
            let value = metric.of(call);
            if value <= limit {
                continue;
            }
            let new = Exceeded { rule, metric, limit, value };
            match out.iter_mut().find(|old| old.metric == metric) {
                Some(old) if limit < old.limit => *old = new,
                Some(_) => {}
                None => out.push(new),
            }
        }
        out
    }

    /// Whether it is about the time when no call runs.
    #[must_use]
    pub fn is_ambient(&self) -> bool {
        self.ambient
    }

    /// A rule by its number.
    pub(super) fn rule(&self, i: u32) -> Option<&Rule> {
        self.set.at(i)
    }

    fn find(&self, act: &Act<'_>, today: Day) -> Option<Found<'_>> {
        self.find_among(act, today, &|_| true)
    }

    fn find_among(&self, act: &Act<'_>, today: Day, counts: &dyn Fn(&Hit<'_>) -> bool) -> Option<Found<'_>> {
        let mut best: [Option<Found<'_>>; 5] = [None; 5];
        self.each(act, &mut |i, rule, hit| {
            if !counts(&hit) {
                return;
            }
            let mut put = |rank: usize, verdict, exception| {
                let new = Found { verdict, rule: i, exception, pattern: (hit.text, hit.at) };
                if let Some(place) = best.get_mut(rank) {
                    let worse = |old: &Found<'_>| {
                        verdict == Verdict::Deny
                            && self.set.at(old.rule).is_some_and(|old| old.severity < rule.severity)
                    };
                    if place.as_ref().is_none_or(worse) {
                        *place = Some(new);
                    }
                }
            };
            let person = rule.origin == Origin::Person;
            match hit.part {
                Part::Deny => match self.excepted(i, rule, act, today, counts) {
                    // A pack's exception decides nothing; it is kept to explain why.
                    Some(exception) if !person => put(4, Verdict::None, Some(exception)),
                    // A person's is counted where it matches itself.
                    Some(_) => {}
                    None => put(if person { 0 } else { 2 }, Verdict::Deny, None),
                },
                Part::Allow => put(if person { 1 } else { 3 }, Verdict::Allow, None),
                Part::Exception(e) => {
                    if person && rule.exceptions.get(usize::from(e)).is_some_and(|e| e.holds(today)) {
                        put(1, Verdict::Allow, Some(e));
                    }
                }
            }
        });
        best.into_iter().flatten().next()
    }

    /// The exception of a rule that holds for an act.
    fn excepted(
        &self,
        i: u32,
        rule: &Rule,
        act: &Act<'_>,
        today: Day,
        counts: &dyn Fn(&Hit<'_>) -> bool,
    ) -> Option<u16> {
        if rule.exceptions.is_empty() {
            return None;
        }
        let mut found = None;
        self.each(act, &mut |other, rule, hit| {
            if let (Part::Exception(e), true) = (hit.part, other == i && counts(&hit))
                && rule.exceptions.get(usize::from(e)).is_some_and(|e| e.holds(today))
            {
                found = found.or(Some(e));
            }
        });
        found
    }

    /// Calls `f` with every pattern that matches.
    pub(super) fn each<'a>(&'a self, act: &Act<'_>, f: &mut impl FnMut(u32, &'a Rule, Hit<'a>)) {
        let slot = Slot::of(act);
        let view = match act {
            Act::File { path, .. } | Act::Unix { path, .. } => Some(PathView::new(path)),
            _ => None,
        };
        if let Some(rules) = self.slots.get(slot as usize) {
            for &i in rules {
                let Some(rule) = self.set.at(i) else { continue };
                rule.table.each(act, view.as_ref(), &mut |hit| f(i, rule, hit));
            }
        }
        let Some(extra) = self.extra.get(slot as usize) else { return };
        for Extra { rule: i, section, entry, glob } in extra {
            let Some(rule) = self.set.at(*i) else { continue };
            let hit = match (act, &view) {
                (Act::Exec { file, script, .. }, _) => {
                    let Some(programs) = rule.table.exec.get(*section as usize) else { continue };
                    let views = [Some(PathView::new(file)), script.map(PathView::new)];
                    let entry = programs.paths.get(*entry as usize);
                    entry.filter(|_| {
                        programs.fits(act) && programs.is_about(&views, |view, cut| glob.matches(view, cut))
                    })
                }
                (_, Some(view)) => {
                    let entry = rule.table.paths(slot).get(*entry as usize);
                    entry.filter(|e| glob.matches(view, e.part == Part::Deny))
                }
                _ => None,
            };
            if let Some(entry) = hit {
                f(*i, rule, entry.hit());
            }
        }
    }
}

impl Rule {
    /// A pattern of this rule, by what it says and where it stands.
    fn pattern_at(&self, (text, at): (&str, At)) -> Option<(&str, At)> {
        let mut found = None;
        self.table.each_pattern(&mut |hit| {
            if hit.text == text && hit.at == at {
                found = found.or(Some((hit.text, hit.at)));
            }
        });
        found
    }
}
