//! What is not wrong but hardly meant: patterns that never decide, patterns that permit the world,
//! exceptions that ended, rules that nobody tested.

use super::{
    problem::Problem,
    set::{Matcher, Rule, RuleSet},
    table::{Entry, Part, Programs, Slot},
    units::Day,
    value::At,
};

/// An exception that ends within this time is told.
const SOON_DAYS: i32 = 14;
/// Pairs of patterns compared: beyond it a set is too large for anybody to look at the result.
const MAX_PAIRS: usize = 4_000_000;

/// Looks over a set that compiled.
#[must_use]
pub fn lint(set: &RuleSet) -> Vec<Problem> {
    let mut out = Vec::new();
    for rule in &set.rules {
        exceptions(set, rule, &mut out);
        broad(set, rule, &mut out);
        let decides = rule.written.allow != Default::default() || rule.written.deny != Default::default();
        if decides && rule.written.tests.is_empty() {
            let message = format!("rule `{}` has no tests", rule.id);
            let remedy = "add `tests:` with one act that it is about and one that it is not about";
            out.push(set.note(rule, At::default(), message).remedy(remedy));
        }
    }
    let mut pairs = 0;
    for (i, rule) in set.rules.iter().enumerate() {
        // Wider or equal matches of the same origin can take a pattern's place.
        let wider: Vec<&Rule> = set
            .rules
            .iter()
            .enumerate()
            .filter(|(j, other)| {
                other.origin == rule.origin && (i == *j || other.matches.covers(&rule.matches))
            })
            .map(|(_, other)| other)
            .collect();
        Shadows { set, rule, wider: &wider, pairs: &mut pairs, out: &mut out }.all();
        if pairs > MAX_PAIRS {
            out.push(set.note(
                rule,
                At::default(),
                "too many patterns: overlaps were not all looked for".into(),
            ));
            break;
        }
    }
    out.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    out.dedup();
    out
}

fn exceptions(set: &RuleSet, rule: &Rule, out: &mut Vec<Problem>) {
    for exception in &rule.exceptions {
        let Some(expires) = exception.expires else { continue };
        let name = exception.id.as_deref().unwrap_or(&rule.id);
        if !exception.holds(set.today) {
            let message = format!("the exception of `{name}` expired on {expires}");
            out.push(
                set.note(rule, exception.at, message).remedy("remove it, or give it a new date and reason"),
            );
        } else if expires <= Day(set.today.0.saturating_add(SOON_DAYS)) {
            let message = format!("the exception of `{name}` expires on {expires}");
            out.push(set.note(rule, exception.at, message).remedy("look whether it is still needed"));
        }
    }
}

/// What permits far more than one can mean. Forbidding everything is a way to work; permitting it is not.
fn broad(set: &RuleSet, rule: &Rule, out: &mut Vec<Problem>) {
    let mut note = |part: Part, text: &str, at: At, slot: Slot| {
        if part != Part::Deny {
            let message = format!("`{text}` permits everything in {}", slot.name());
            out.push(set.note(rule, at, message).remedy("name what is needed"));
        }
    };
    let table = &rule.table;
    for slot in Slot::ALL {
        for e in table.paths(slot).iter().filter(|e| e.pattern.is_everything()) {
            note(e.part, &e.text, e.at, slot);
        }
    }
    for e in table.exec.iter().flat_map(|p| &p.paths).filter(|e| e.pattern.is_everything()) {
        note(e.part, &e.text, e.at, Slot::Exec);
    }
    for slot in [Slot::Connect, Slot::Listen] {
        for e in table.peers(slot).iter().filter(|e| e.pattern.is_broad()) {
            note(e.part, &e.text, e.at, slot);
        }
    }
    for e in table.dns.iter().filter(|e| e.pattern.is_everything()) {
        note(e.part, &e.text, e.at, Slot::Dns);
    }
    for e in table.syscalls.iter().filter(|e| e.pattern.name.is_none()) {
        note(e.part, &e.text, e.at, Slot::Syscall);
    }
}

/// Looks for patterns of one rule that others of the same origin leave nothing to decide.
struct Shadows<'a> {
    set: &'a RuleSet,
    rule: &'a Rule,
    wider: &'a [&'a Rule],
    pairs: &'a mut usize,
    out: &'a mut Vec<Problem>,
}

impl<'a> Shadows<'a> {
    fn all(&mut self) {
        for slot in Slot::ALL {
            match slot {
                Slot::Connect | Slot::Listen => {
                    self.list(slot, |r| r.table.peers(slot).iter().collect(), |a, b| a.covers(b));
                }
                Slot::Dns => self.list(slot, |r| r.table.dns.iter().collect(), |a, b| a.covers(b)),
                Slot::Uring => self.list(slot, |r| r.table.uring.iter().collect(), |a, b| a.covers(b)),
                Slot::Syscall => self.list(slot, |r| r.table.syscalls.iter().collect(), |a, b| a.covers(b)),
                Slot::Exec => {
                    // Sections with conditions beside the path are not compared.
                    let plain = |p: &&Programs| p.args.is_empty() && !p.memfd && !p.deleted;
                    self.list(
                        slot,
                        |r| r.table.exec.iter().filter(plain).flat_map(|p| &p.paths).collect(),
                        |a, b| a.covers(b),
                    );
                }
                _ => self.list(slot, |r| r.table.paths(slot).iter().collect(), |a, b| a.covers(b)),
            }
        }
    }

    fn list<P: 'a>(
        &mut self,
        slot: Slot,
        entries: impl Fn(&'a Rule) -> Vec<&'a Entry<P>>,
        covers: impl Fn(&P, &P) -> bool,
    ) {
        let own = entries(self.rule);
        if own.is_empty() {
            return;
        }
        let others: Vec<(&Rule, &Entry<P>)> =
            self.wider.iter().flat_map(|r| entries(r).into_iter().map(move |e| (*r, e))).collect();
        for entry in own.into_iter().filter(|e| !matches!(e.part, Part::Exception(_))) {
            *self.pairs += others.len();
            if *self.pairs > MAX_PAIRS {
                return;
            }
            let shadow = others.iter().find(|(rule, other)| {
                let same_rule = std::ptr::eq(*rule, self.rule);
                let itself = same_rule && std::ptr::eq(*other, entry);
                // Of two equal patterns the second is the one too many.
                let first =
                    || !covers(&entry.pattern, &other.pattern) || self.is_before(rule, other.at, entry.at);
                // A deny with exceptions, or one of another kind or severity, decides differently.
                let deny = rule.exceptions.is_empty() || same_rule;
                let alike = rule.kind == self.rule.kind && rule.severity >= self.rule.severity;
                let takes = match (other.part, entry.part) {
                    (Part::Allow, Part::Allow) => first(),
                    (Part::Deny, Part::Deny) => deny && alike && first(),
                    (Part::Deny, Part::Allow) => deny && (rule.exceptions.is_empty()),
                    _ => false,
                };
                !itself && takes && covers(&other.pattern, &entry.pattern)
            });
            let Some((rule, other)) = shadow else { continue };
            let by = if std::ptr::eq(*rule, self.rule) {
                "this rule".to_owned()
            } else {
                format!("`{}`", rule.id)
            };
            let place = format!("line {} of {}", other.at.line, rule.place.file);
            let (message, remedy) = if other.part == entry.part {
                let message = format!(
                    "`{}` in {} is never reached: {by} has `{}`, {place}",
                    entry.text,
                    slot.name(),
                    other.text
                );
                (message, "remove the narrower one")
            } else {
                let message = format!(
                    "`{}` in {} permits nothing: {by} denies `{}`, {place}",
                    entry.text,
                    slot.name(),
                    other.text
                );
                (message, "narrow the deny, or make the allow an exception of that rule")
            };
            self.out.push(self.set.note(self.rule, entry.at, message).remedy(remedy));
        }
    }

    fn is_before(&self, rule: &Rule, at: At, own: At) -> bool {
        (rule.file, at) < (self.rule.file, own)
    }
}

impl Matcher {
    /// Whether it is about everyone that `other` is about.
    fn covers(&self, other: &Self) -> bool {
        use super::names::NameGlob;
        let names = |a: &[NameGlob], b: &[NameGlob]| {
            a.is_empty() || (!b.is_empty() && b.iter().all(|b| a.iter().any(|a| a.covers(b))))
        };
        let scope = self.any_scope
            || (!other.any_scope
                && (self.startup || !other.startup)
                && (self.ambient || !other.ambient)
                && other.tool.iter().all(|b| self.tool.iter().any(|a| a.covers(b))));
        scope
            && names(&self.server, &other.server)
            && names(&self.package, &other.package)
            && names(&self.user, &other.user)
    }
}
