//! `profile`: what each hook costs.

use std::{collections::BTreeSet, io, io::Write, time::Duration};

use owo_colors::Style;
use serde_json::{Value, json};

use super::{
    answer,
    args::Profile,
    client,
    exit::{Exit, Stop},
    show::{Screen, at, list},
};
use crate::kernel::profile::{Cost, costs, programs_of};

pub(super) fn run(options: &Profile, out: &mut dyn Write) -> Result<Exit, Stop> {
    if !rustix::process::geteuid().is_root() {
        return Err(Stop::new(Exit::Refused, "timing BPF programs needs root: sudo toolwarden profile"));
    }
    let status = client::get(&options.remote, "/v1/status", &[])?;
    let pid = status.get("pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok());
    let pid =
        pid.ok_or_else(|| Stop::new(Exit::Unreachable, "the agent does not say which process it is"))?;
    let failed = |e: anyhow::Error| Stop::new(Exit::Unreachable, format!("{e:#}"));
    let ids: BTreeSet<u32> = programs_of(pid).map_err(failed)?;
    let costs = costs(&ids, Duration::from_secs(options.seconds)).map_err(failed)?;
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    answer(&options.remote, &profile(&costs, options.seconds, cpus), out, page)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn profile(costs: &[Cost], seconds: u64, cpus: usize) -> Value {
    let total: u64 = costs.iter().map(|c| c.ns).sum();
    let share = |ns: u64, of: f64| if of > 0.0 { ns as f64 / of } else { 0.0 };
    let hooks: Vec<Value> = costs
        .iter()
        .map(|c| {
            json!({
                "hook": c.name, "runs": c.runs, "ns": c.ns, "ns_per_run": share(c.ns, c.runs as f64),
                "share": share(c.ns, total as f64),
            })
        })
        .collect();
    let time = seconds as f64 * 1e9;
    json!({
        "seconds": seconds, "cpus": cpus, "ns": total, "of_one_cpu": share(total, time),
        "of_all_cpus": share(total, time * cpus as f64), "hooks": hooks,
    })
}

fn page(data: &Value, to: &mut Screen<'_>) -> io::Result<()> {
    let number = |row: &Value, key: &str| row.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let rows = list(data, "hooks").iter().filter(|row| number(row, "runs") > 0.0).map(|row| {
        let percent = format!("{:.1} %", number(row, "share") * 100.0);
        let per_run = format!("{:.0}", number(row, "ns_per_run"));
        (vec![at(row, "hook"), at(row, "runs"), per_run, percent], Style::new())
    });
    to.table(&["hook", "runs", "ns_per_run", "share"], rows.collect())?;
    let idle = list(data, "hooks").iter().filter(|row| number(row, "runs") <= 0.0).count();
    to.line(format!(
        "{:.3} % of one CPU within {} s ({} CPUs); {idle} programs did not run",
        number(data, "of_one_cpu") * 100.0,
        at(data, "seconds"),
        at(data, "cpus")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_was_spent() {
        let cost = |name: &str, runs, ns| Cost { name: name.into(), runs, ns };
        let data = profile(&[cost("a", 10, 7_500), cost("b", 5, 2_500), cost("c", 0, 0)], 1, 2);
        assert_eq!(data["hooks"][0]["share"], 0.75);
        assert_eq!(data["hooks"][0]["ns_per_run"], 750.0);
        assert_eq!(data["hooks"][2]["ns_per_run"], 0.0);
        assert_eq!(data["of_one_cpu"], 1e-5);
        let mut out = Vec::new();
        page(&data, &mut Screen::new(&mut out)).expect("memory");
        let text = String::from_utf8_lossy(&out);
        assert!(text.contains("75.0 %") && text.contains("1 programs did not run"), "{text}");
    }
}
