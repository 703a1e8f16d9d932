//! What may be tested at all: a bound on false findings, kept within a budget.
//!
//! `docs/detection.md` derives this. In short: sessions are the trials. For every family of
//! possible alarms, a session *would have alarmed* if, leaving it out, its members or numbers had been
//! new. The families that are tested are chosen so that the number of sessions that would have
//! alarmed by any of them, taken as a binomial count, has an upper 95 % bound within the budget.

use std::collections::BTreeSet;

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
        return 1;
    }
    (ALPHA.ln() / (-bound).ln_1p()).ceil() as u64
}

/// What was chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// For each family, whether it is tested.
    pub tested: Vec<bool>,
    /// Upper bound on the chance that a session has a false alarm by any tested family.
    pub bound: f64,
    /// Sessions that would have alarmed by any tested family.
    pub alarmed: u64,
}

/// Chooses families, those that would have alarmed least first. `singles`: for each family the sessions
/// that would have alarmed by it; `sessions`: trials; `allowed`: highest bound.
#[must_use]
pub fn choose(singles: &[BTreeSet<u32>], sessions: u64, allowed: f64) -> Choice {
    let mut order: Vec<usize> = (0..singles.len()).collect();
    order.sort_by_key(|&i| (singles[i].len(), i));
    let mut choice = Choice { tested: vec![false; singles.len()], bound: upper(0, sessions), alarmed: 0 };
    if choice.bound > allowed {
        return choice;
    }
    let mut union: BTreeSet<u32> = BTreeSet::new();
    for i in order {
        let fresh = singles[i].difference(&union).count();
        if fresh > 0 {
            let bound = upper((union.len() + fresh) as u64, sessions);
            if bound > allowed {
                // A later one may add no session that is not counted already.
                continue;
            }
            union.extend(&singles[i]);
            choice.bound = bound;
        }
        choice.tested[i] = true;
    }
    choice.alarmed = union.len() as u64;
    choice
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
        assert_eq!(sessions_needed(0.0296), 100);
    }

    #[test]
    fn families_that_would_have_alarmed_are_left_out_until_the_bound_fits() {
        let set = |s: &[u32]| s.iter().copied().collect::<BTreeSet<_>>();
        let families = [set(&[]), set(&[1, 2, 3, 4, 5, 6, 7]), set(&[9]), set(&[9])];
        let c = choose(&families, 100, 0.05);
        assert_eq!(c.tested, [true, false, true, true]);
        assert_eq!(c.alarmed, 1, "one session, by either of two families");
        let none = choose(&families, 20, 0.05);
        assert_eq!(none.tested, [false; 4], "twenty sessions cannot show 5 %");
    }
}
