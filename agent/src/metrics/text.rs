//! The text that Prometheus reads (exposition format 0.0.4).
//!
//! By hand: libraries write OpenMetrics, of which `promtool check metrics` says that its counters have no help.

use std::{collections::BTreeMap, fmt::Write as _};

use engine::{finding::Severity, output::CoverageState};

use super::measures::{BOUNDS, Histogram, Measures};
use crate::{
    desk::Figures,
    kernel::{LOSSES, Work},
};

/// Characters of a label's value.
const LABEL: usize = 128;
/// Records of the ring, by kind.
const KINDS: [&str; abi::kind::COUNT] = [
    "other", "fork", "exec", "exit", "chunk", "open", "path", "net", "unix", "packet", "flow", "syscall",
    "special", "uring", "blind", "denied",
];
const SEVERITIES: [Severity; 5] =
    [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
const BASELINES: [&str; 4] = ["learning", "active", "stale", "too-large"];

/// Labels of a sample.
type Labels<'a> = &'a [(&'a str, &'a str)];

#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP toolwarden_{name} {help}\n# TYPE toolwarden_{name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into memory cannot fail.
        let _unused = self.0.write_fmt(format_args!("{line}\n"));
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.line(format_args!("toolwarden_{name}{labels} {value}"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// One sample for each value of a label.
    fn each<'a, V: std::fmt::Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        label: &str,
        values: impl IntoIterator<Item = (&'a str, V)>,
    ) {
        self.family(name, kind, help);
        for (of, value) in values {
            self.sample(name, &[(label, of)], value);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, times: &Histogram) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut sum = 0;
        for (bound, count) in BOUNDS.iter().zip(times.counts) {
            sum += count;
            self.sample(&bucket, &[("le", &seconds(*bound).to_string())], sum);
        }
        sum += times.counts[BOUNDS.len()];
        self.sample(&bucket, &[("le", "+Inf")], sum);
        self.sample(&format!("{name}_sum"), &[], seconds(times.sum_ns));
        self.sample(&format!("{name}_count"), &[], sum);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time for people: 15 digits are enough")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn escaped(value: &str) -> String {
    let cut: String = value.chars().take(LABEL).collect();
    cut.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// All of it. What the agent uses itself: CPU time in ns, and bytes of memory.
pub(crate) fn text(f: &Figures, m: &Measures, work: &Work, usage: Option<(u64, u64)>) -> String {
    let mut t = Text::default();
    t.family("build_info", "gauge", "Version of the agent.");
    t.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    t.gauge(
        "start_time_seconds",
        "When the agent began, since 1970.",
        seconds(u64::try_from(f.since_utc).unwrap_or(0)),
    );
    if let Some((cpu_ns, rss)) = usage {
        t.counter("cpu_seconds_total", "CPU time of the agent.", seconds(cpu_ns));
        t.gauge("resident_memory_bytes", "Memory of the agent.", rss);
    }
    records(&mut t, f, m, work);
    t.gauge("servers", "MCP servers that run.", f.servers);
    t.gauge("tools", "Tools of running servers that were called.", f.tools);
    t.gauge("enforcing_servers", "Running servers in mode enforce.", f.enforcing);
    t.counter("calls_total", "Calls of tools.", f.tally.calls);
    let by =
        |map: &BTreeMap<Severity, u64>| SEVERITIES.map(|s| (s.name(), map.get(&s).copied().unwrap_or(0)));
    let help = ("findings_total", "counter", "New findings.");
    t.each(help, "severity", by(&f.tally.findings));
    t.each(
        ("open_findings", "gauge", "Findings that nobody has acknowledged."),
        "severity",
        by(&f.open_findings),
    );
    t.family("responses_total", "counter", "What was done about servers, by what became of it.");
    for ((action, verdict), n) in &f.tally.responses {
        t.sample("responses_total", &[("action", action), ("verdict", verdict)], n);
    }
    t.gauge("disarmed", "Whether no response is carried out.", u8::from(f.disarmed));
    let states = BASELINES.map(|state| (state, f.baselines.get(state).copied().unwrap_or(0)));
    t.each(("baselines", "gauge", "Baselines by state."), "state", states);
    t.family("coverage", "gauge", "1 for the state of each hook: enforcing, observing or blind.");
    for (hook, state) in &f.coverage {
        for (is, word) in [
            (CoverageState::Enforcing, "enforcing"),
            (CoverageState::Observing, "observing"),
            (CoverageState::Blind, "blind"),
        ] {
            t.sample("coverage", &[("hook", hook), ("state", word)], u8::from(*state == is));
        }
    }
    sinks(&mut t, f);
    t.0
}

fn records(t: &mut Text, f: &Figures, m: &Measures, work: &Work) {
    let kinds = KINDS.into_iter().zip(m.records);
    t.each(("records_total", "counter", "Records read from the kernel's ring, by kind."), "kind", kinds);
    t.counter("kernel_written_total", "Records that the kernel programs wrote.", work.written);
    t.counter(
        "kernel_aggregated_total",
        "Acts that the kernel programs counted instead of telling.",
        work.aggregated,
    );
    t.each(
        (
            "hook_runs_total",
            "counter",
            "Runs of each hook for processes that are watched, by the kernel programs' own count.",
        ),
        "hook",
        work.runs,
    );
    // Those that did not occur, too: an alert on a rise needs the zero before it.
    let mut lost: BTreeMap<&str, u64> = LOSSES.iter().map(|(_, cause)| (*cause, 0)).collect();
    lost.extend(f.lost.iter().map(|(cause, n)| (cause.as_str(), *n)));
    t.each(("lost_total", "counter", "What was not seen or not kept, by cause."), "cause", lost);
    t.histogram(
        "engine_seconds",
        "Time from the reading of a record until all that it brings about is done, of one record in 13.",
        &m.engine,
    );
    t.histogram(
        "record_delay_seconds",
        "Time from the act in the kernel until its record is dealt with, of one record in 13.",
        &m.delay,
    );
}

fn sinks(t: &mut Text, f: &Figures) {
    t.gauge("store_queued_jobs", "Changes that wait to be written to the state.", f.store.queued);
    t.counter("store_written_total", "Changes of the state that are on disk.", f.store.written);
    t.counter("store_refused_total", "Changes that found no room in the queue.", f.store.refused);
    t.counter("store_failed_total", "Changes that could not be written.", f.store.failed);
    t.gauge("store_degraded", "Whether the state cannot be written now.", u8::from(f.store_degraded));
    let of = |value: fn(&crate::desk::Sink) -> u64| {
        f.sinks.iter().map(move |(name, sink)| (name.as_str(), value(sink)))
    };
    t.each(
        ("sink_waiting_events", "gauge", "Events in the outbox after the last one that the sink has."),
        "sink",
        of(|s| s.waiting),
    );
    t.each(("sink_sent_events_total", "counter", "Events that the sink took."), "sink", of(|s| s.sent));
    t.each(("sink_sent_bytes_total", "counter", "Bytes of them."), "sink", of(|s| s.bytes));
    t.each(("sink_failures_total", "counter", "Tries that failed."), "sink", of(|s| s.failures));
    t.each(
        (
            "sink_lost_events_total",
            "counter",
            "Events that the outbox could not hold for the sink: the sum of its gaps.",
        ),
        "sink",
        of(|s| s.missed.lost),
    );
    t.each(
        ("sink_dead_letters_total", "counter", "Events that the receiver refused for good."),
        "sink",
        of(|s| s.missed.dead),
    );
    t.each(("sink_failing", "gauge", "Whether the last try failed."), "sink", of(|s| u64::from(s.failing)));
    t.counter(
        "sink_process_restarts_total",
        "Times that the process of the sinks had to be started again.",
        f.sink_restarts,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_its_help_once_and_labels_cannot_break_out() {
        let mut figures = Figures::default();
        figures.coverage.insert("a\"} 1\nevil 2 \\".into(), CoverageState::Blind);
        let text = text(
            &figures,
            &Measures::default(),
            &Work { written: 3, aggregated: 4, ..Work::default() },
            Some((1_500_000_000, 10)),
        );
        assert!(text.contains(r#"toolwarden_coverage{hook="a\"} 1\nevil 2 \\",state="blind"} 1"#), "{text}");
        assert!(text.contains("toolwarden_cpu_seconds_total 1.5\n"), "{text}");
        assert!(text.contains("toolwarden_lost_total{cause=\"ring:exec\"} 0\n"), "{text}");
        assert!(text.contains("toolwarden_engine_seconds_bucket{le=\"0.001\"} 0\n"), "{text}");
        let helps: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# HELP ")).collect();
        let names: std::collections::BTreeSet<_> = helps.iter().map(|l| l.split(' ').next()).collect();
        assert_eq!(names.len(), helps.len());
        assert!(text.lines().all(|l| l.starts_with("# ") || l.starts_with("toolwarden_")), "{text}");
    }
}
