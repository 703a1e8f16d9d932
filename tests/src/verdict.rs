//! The figures of a comparison.

use std::collections::BTreeMap;

use crate::compare::Charge;

/// Numbers for one kind or tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Acts done.
    pub done: u64,
    /// Acts seen.
    pub seen: u64,
    /// Acts charged with certainty to the right call.
    pub right: u64,
    /// Acts charged to several, the right call among them.
    pub among: u64,
    /// Acts whose candidates lack the right call.
    pub missed: u64,
    /// Acts charged with certainty to something else.
    pub wrong: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, seen: bool, charge: Option<Charge>) {
        self.done += 1;
        self.seen += u64::from(seen);
        match charge {
            Some(Charge::Right) => self.right += 1,
            Some(Charge::Among) => self.among += 1,
            Some(Charge::Missed) => self.missed += 1,
            Some(Charge::Wrong) => self.wrong += 1,
            None => {}
        }
    }
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// All acts but those of the exceptions.
    pub total: Tally,
    /// By kind of effect.
    pub by_kind: BTreeMap<&'static str, Tally>,
    /// By tool.
    pub by_tool: BTreeMap<String, Tally>,
    /// Acts of the two known exceptions, by tool.
    pub exceptions: BTreeMap<String, Tally>,
    /// Lines of processes that a call made, whether or not the truth lists them.
    pub lineage: Tally,
    /// In-process acts after the reply that the scheduler delayed past the settling time.
    pub delayed: u64,
    /// Lines with candidates, and how many candidates those have.
    pub candidates: [u64; 2],
    /// Occurrences counted beyond those that were done.
    pub extra: u64,
    /// The first few acts that were not seen or not charged right.
    pub notes: Vec<String>,
}

/// Notes that are kept.
const NOTES: usize = 40;

impl Verdict {
    /// Adds another server's.
    pub fn merge(&mut self, other: Self) {
        let sum = |a: &mut Tally, b: Tally| {
            a.done += b.done;
            a.seen += b.seen;
            a.right += b.right;
            a.among += b.among;
            a.missed += b.missed;
            a.wrong += b.wrong;
        };
        sum(&mut self.total, other.total);
        sum(&mut self.lineage, other.lineage);
        for (k, v) in other.by_kind {
            sum(self.by_kind.entry(k).or_default(), v);
        }
        for (k, v) in other.by_tool {
            sum(self.by_tool.entry(k).or_default(), v);
        }
        for (k, v) in other.exceptions {
            sum(self.exceptions.entry(k).or_default(), v);
        }
        self.delayed += other.delayed;
        self.extra += other.extra;
        for (mine, theirs) in self.candidates.iter_mut().zip(other.candidates) {
            *mine += theirs;
        }
        self.notes.extend(other.notes);
    }

    /// Keeps a note, unless there are enough.
    pub(crate) fn note(&mut self, note: String) {
        if self.notes.len() < NOTES {
            self.notes.push(note);
        }
    }

    /// A table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = format!(
            "{:<18}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}\n",
            "", "done", "seen", "right", "among", "missed", "wrong"
        );
        let mut row = |name: &str, t: &Tally| {
            out += &format!(
                "{name:<18}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}\n",
                t.done, t.seen, t.right, t.among, t.missed, t.wrong
            );
        };
        self.by_kind.iter().for_each(|(k, t)| row(k, t));
        row("all", &self.total);
        row("lines by lineage", &self.lineage);
        self.exceptions.iter().for_each(|(k, t)| row(k, t));
        let [lines, candidates] = self.candidates;
        if lines > 0 {
            let mean = candidates as f64 / lines as f64;
            out += &format!("candidates of an effect that has some: {mean:.1} on average\n");
        }
        out += &format!("counted beyond what was done: {}\n", self.extra);
        for note in self.notes.iter().take(NOTES) {
            out.push_str(note);
            out.push('\n');
        }
        out
    }
}
