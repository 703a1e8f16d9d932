//! The figures, as they stand in `docs/detection.md`.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result};

use crate::{
    arm::{BUDGETS, SERVERS},
    tally::{Benign, Tally},
};

const BEGIN: &str = "<!-- figures: written by `cargo xtask evaluate --write` -->";
const END: &str = "<!-- end of figures -->";

/// A generator for the bootstrap: splitmix64, so that the same corpus gives the same interval.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// 95 % interval of a ratio of sums, by drawing sessions anew 2,000 times.
fn interval(sessions: &[(f64, f64)]) -> (f64, f64) {
    if sessions.is_empty() {
        return (0.0, 0.0);
    }
    let mut dice = Dice(7);
    let mut ratios: Vec<f64> = (0..2000)
        .map(|_| {
            let (mut a, mut b) = (0.0, 0.0);
            for _ in 0..sessions.len() {
                let s = sessions[dice.below(sessions.len())];
                a += s.0;
                b += s.1;
            }
            a / b.max(1e-9)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    (ratios[50], ratios[1949])
}

pub(crate) fn figures(t: &Tally) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _all = write_all(t, &mut out);
    out
}

fn write_all(t: &Tally, out: &mut String) -> std::fmt::Result {
    let sessions = t.benign.get("both").map_or(0, Vec::len);
    let calls: u64 = t.benign.get("both").into_iter().flatten().map(|(_, b)| b.calls).sum();
    let novel: f64 = t.novelty.iter().map(|(_, calls, n)| *calls as f64 * n).sum::<f64>()
        / t.novelty.iter().map(|(_, calls, _)| *calls as f64).sum::<f64>().max(1.0);
    writeln!(out, "### False findings\n")?;
    writeln!(
        out,
        "{calls} held-out benign calls in {sessions} sessions of {} servers. {:.1} % of these calls touch an object that \
         training never had. {:.1} % of their effects are ambiguous. A host-day is {SERVERS:.0} sessions, one of each \
         server; intervals are by bootstrap over sessions.\n",
        t.novelty.len(),
        novel * 100.0,
        100.0 * t.ambiguous as f64 / t.effects.max(1) as f64
    )?;
    writeln!(
        out,
        "| | findings | per 1,000 calls | per host-day (95 %) | medium or worse per 1,000 calls | of servers untouched until the end, per 1,000 calls |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for (arm, sessions) in &t.benign {
        let sum = |f: &dyn Fn(&Benign) -> u64| sessions.iter().map(|(_, b)| f(b)).sum::<u64>();
        let (findings, serious, calls) = (sum(&|b| b.findings), sum(&|b| b.serious), sum(&|b| b.calls));
        let last: Vec<_> = sessions.iter().filter(|(_, b)| b.last).collect();
        let last_findings: u64 = last.iter().map(|(_, b)| b.findings).sum();
        let last_calls: u64 = last.iter().map(|(_, b)| b.calls).sum();
        let per_day: Vec<(f64, f64)> =
            sessions.iter().map(|(_, b)| (b.findings as f64, 1.0 / SERVERS)).collect();
        let (low, high) = interval(&per_day);
        writeln!(
            out,
            "| {arm} | {findings} | {:.3} | {:.2} ({low:.2} to {high:.2}) | {:.3} | {:.3} |",
            1000.0 * findings as f64 / calls.max(1) as f64,
            findings as f64 * SERVERS / sessions.len().max(1) as f64,
            1000.0 * serious as f64 / calls.max(1) as f64,
            1000.0 * last_findings as f64 / last_calls.max(1) as f64,
        )?;
    }
    writeln!(out, "\nWhat they are, both halves on:\n")?;
    writeln!(out, "| server | finding | how many |\n|---|---|---|")?;
    for ((arm, server, kind), n) in &t.false_kinds {
        if arm == "both" {
            writeln!(out, "| {server} | {kind} | {n} |")?;
        }
    }
    writeln!(out, "\n### Detection\n")?;
    let visible: Vec<_> = t.variants.values().filter(|(v, _)| v.kernel_visible).collect();
    writeln!(out, "{} variants, {} of them visible to the kernel.\n", t.variants.len(), visible.len())?;
    let arms = ["rules".to_owned(), format!("baselines, budget {}", BUDGETS[0]), "both".to_owned()];
    let share = |arm: &str| {
        let caught = visible.iter().filter(|(_, by)| by.get(arm).is_some_and(Option::is_some)).count();
        format!(
            "{caught} of {} ({:.1} %)",
            visible.len(),
            100.0 * caught as f64 / visible.len().max(1) as f64
        )
    };
    for arm in t.benign.keys() {
        writeln!(out, "- {arm}: {} of the visible ones detected", share(arm))?;
    }
    let mut kinds: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (n, (v, _)) in visible.iter().enumerate() {
        let kind = v.kinds.first().map_or("none", String::as_str);
        kinds.entry(kind).or_default().push(n);
    }
    writeln!(
        out,
        "\n| kind expected | variants | rules only | baselines only | both | severity (both) | after the call began, ms (median) |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for (kind, of) in kinds {
        let count =
            |arm: &str| of.iter().filter(|&&n| visible[n].1.get(arm).is_some_and(Option::is_some)).count();
        let both: Vec<_> = of.iter().filter_map(|&n| visible[n].1.get("both")?.as_ref()).collect();
        let mut severities: Vec<_> = both.iter().map(|c| c.severity).collect();
        severities.sort();
        severities.dedup();
        let severities: Vec<&str> = severities.iter().map(|s| s.name()).collect();
        let mut times: Vec<u64> = both.iter().filter_map(|c| c.after_ms).collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2).map_or("-".to_owned(), ToString::to_string);
        writeln!(
            out,
            "| {kind} | {} | {} | {} | {} | {} | {median} |",
            of.len(),
            count(&arms[0]),
            count(&arms[1]),
            count(&arms[2]),
            severities.join(", "),
        )?;
    }
    writeln!(out, "\nEvery variant:\n")?;
    writeln!(out, "| variant | how | rules only | baselines only | both |\n|---|---|---|---|---|")?;
    for (id, (v, by)) in &t.variants {
        let cell = |arm: &str| match by.get(arm).and_then(Option::as_ref) {
            Some(c) if c.as_expected => format!("{} {}", c.severity.name(), c.kind),
            Some(c) => format!("{} ({})", c.severity.name(), c.kind),
            None if v.kernel_visible => "**missed**".into(),
            None => "not visible".into(),
        };
        writeln!(
            out,
            "| {id} | {} | {} | {} | {} |",
            v.how.replace('|', "/"),
            cell(&arms[0]),
            cell(&arms[1]),
            cell(&arms[2])
        )?;
    }
    writeln!(out, "\n### Baselines after training\n")?;
    writeln!(out, "| server | state | findings while learning |\n|---|---|---|")?;
    for (server, arm, state, findings) in &t.states {
        if arm == "both" {
            writeln!(out, "| {server} | {state} | {findings} |")?;
        }
    }
    Ok(())
}

/// Puts the figures where they belong in `docs/detection.md`.
pub(crate) fn write(figures: &str) -> Result<()> {
    let path = e2e::workspace().join("docs/detection.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("no `{BEGIN}` in it"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no `{END}` in it"))?;
    std::fs::write(&path, format!("{before}{BEGIN}\n\n{figures}\n{END}{after}"))
        .with_context(|| format!("cannot write {}", path.display()))
}
