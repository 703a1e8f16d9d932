//! What may be tested at all: a bound on false findings, kept within a budget.
//!
//! `docs/detection.md` derives this. In short: sessions are the trials. By a family of possible alarms, a
//! session *would have alarmed* if its members or numbers are new to all other sessions. Choosing the families
//! that never would have, and then counting on the same sessions that they never would have, proves
//! nothing: among many families some are quiet by luck. So sessions are split in halves, by turns: families
//! are chosen by one half, and the sessions of the other half count for the bound. What both halves choose
//! is tested.

use std::collections::BTreeSet;

/// A member is weak in a half when it was seen in fewer sessions of it than this.
pub const WEAK: [u32; 3] = [2, 3, 5];
/// Confidence of the bound: one minus this.
const ALPHA: f64 = 0.05;

/// Upper 95 % bound (Clopper–Pearson, one-sided) on a probability of which `k` of `n` trials came true.
#[must_use]
pub fn upper(k: u64, n: u64) -> f64 {
    if n == 0 || k >= n {
        return 1.0;
    }
    if k == 0 {
        return 1.0 - ALPHA.powf(1.0 / n as f64);
    }
    // The p for which at most k of n has probability ALPHA, by bisection.
    let (mut low, mut high) = (k as f64 / n as f64, 1.0);
    for _ in 0..60 {
        let p = 0.5 * (low + high);
        if at_most(k, n, p) > ALPHA { low = p } else { high = p }
    }
    high
}

/// P(X <= k), X binomial.
fn at_most(k: u64, n: u64, p: f64) -> f64 {
    let (lp, lq) = (p.ln(), (-p).ln_1p());
    let mut choose = 0.0_f64;
    let mut sum = 0.0;
    for i in 0..=k {
        if i > 0 {
            choose += ((n - i + 1) as f64).ln() - (i as f64).ln();
        }
        sum += (choose + i as f64 * lp + (n - i) as f64 * lq).exp();
    }
    sum
}

/// Fewest sessions at which a clean record would be within a bound.
#[must_use]
pub fn sessions_needed(bound: f64) -> u64 {
    if bound >= 1.0 {
        return 2;
    }
    2_u64.saturating_mul((ALPHA.ln() / (-bound).ln_1p()).ceil() as u64)
}

/// What was chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// For each family, whether it is tested.
    pub tested: Vec<bool>,
    /// Upper bound on the chance that a session has a false alarm by any tested family.
    pub bound: f64,
}

/// One family of possible alarms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alarms {
    /// Sessions that would have alarmed by it.
    pub sessions: BTreeSet<u32>,
    /// For even and odd sessions: how many have members that were seen in fewer than [`WEAK`] of them.
    pub weak: [[u64; 3]; 2],
    /// How much it says about new things at all, 0 the most: known before any session is seen. What says most is
    /// tested first when not all can be.
    pub rank: u8,
}

/// Chooses families. `sessions`: trials; `allowed`: highest bound.
#[must_use]
pub fn choose(families: &[Alarms], sessions: u64, allowed: f64) -> Choice {
    let even = half(families, sessions, allowed, 0);
    let odd = half(families, sessions, allowed, 1);
    let (Some((a, bound_a)), Some((b, bound_b))) = (even, odd) else {
        return Choice { tested: vec![false; families.len()], bound: upper(0, sessions / 2) };
    };
    // What both chose is part of what either chose: the lower bound holds for it too.
    let tested = a.iter().zip(&b).map(|(a, b)| *a && *b).collect();
    Choice { tested, bound: bound_a.min(bound_b) }
}

/// Families chosen by the sessions of one half, as many as the other half allows, and their bound.
///
/// The own half puts them in an order, the quiet ones first and of these those that say most; then it is asked, family by
/// family, whether all so far are within what is allowed, and the first no ends it. Risks only grow along
/// the order, so that to accept too many takes one wrong answer at one certain place: a chance of 5 %, however many
/// questions there are (fixed-sequence testing).
fn half(families: &[Alarms], sessions: u64, allowed: f64, half: u32) -> Option<(Vec<bool>, f64)> {
    let mut order: Vec<usize> = (0..families.len()).collect();
    order.sort_by_cached_key(|&i| {
        let f = &families[i];
        let weak = f.weak[half as usize];
        // Nothing seen in fewer than five sessions, than three, than two; then by how many.
        let loud = match weak {
            [0, 0, 0] => 0,
            [0, 0, _] => 1,
            [0, ..] => 2,
            [n, ..] => 2 + n,
        };
        // Among the quiet ones, what says most; the others by how loud they are.
        let quiet = loud <= 2;
        let place = if quiet { 3 * u64::from(f.rank) + loud } else { 2 * loud + u64::from(f.rank) };
        (!quiet, place, i)
    });
    let mut chosen = vec![false; families.len()];
    let mut alarmed: BTreeSet<u32> = BTreeSet::new();
    let mut bound = upper(0, sessions / 2);
    if bound > allowed {
        return None;
    }
    for i in order {
        let more: BTreeSet<u32> = families[i]
            .sessions
            .iter()
            .filter(|s| **s % 2 != half && !alarmed.contains(s))
            .copied()
            .collect();
        if !more.is_empty() {
            let next = upper((alarmed.len() + more.len()) as u64, sessions / 2);
            if next > allowed {
                break;
            }
            alarmed.extend(more);
            bound = next;
        }
        chosen[i] = true;
    }
    Some((chosen, bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_that_of_the_tables() {
        // R: binom.test(k, n, alternative = "less")$conf.int
        for (k, n, expected) in [(0, 10, 0.2589), (0, 100, 0.02951), (1, 100, 0.04656), (5, 100, 0.1023)] {
            assert!((upper(k, n) - expected).abs() < 1e-4, "{k} of {n}: {}", upper(k, n));
        }
        assert_eq!((upper(0, 0), upper(3, 3)), (1.0, 1.0));
        assert_eq!(sessions_needed(0.0296), 200);
    }

    #[test]
    fn families_that_would_have_alarmed_are_left_out_until_the_bound_fits() {
        let of = |s: &[u32], rank| {
            let sessions: BTreeSet<u32> = s.iter().copied().collect();
            let in_half = |half| sessions.iter().filter(|s| **s % 2 == half).count() as u64;
            let weak = [0, 1].map(|half| [in_half(half); 3]);
            Alarms { sessions, weak, rank }
        };
        let noisy: Vec<u32> = (1..40).collect();
        let families = [of(&[], 0), of(&noisy, 0), of(&[9, 10], 2), of(&[9], 1)];
        let c = choose(&families, 200, 0.05);
        assert_eq!(c.tested, [true, false, true, true]);
        let strict = choose(&families, 200, 0.03);
        assert_eq!(strict.tested, [true, false, false, false], "the odd half has an alarm by the last two");
        let none = choose(&families, 100, 0.05);
        assert_eq!(none.tested, [false; 4], "fifty sessions cannot show 5 %");
    }
}
