//! Which half of detection is on, and with which budget.

use engine::judge::Config;

/// Servers that one host is taken to run, each with one session a day.
pub(crate) const SERVERS: f64 = 16.0;
/// Budgets tried: false findings a host-day.
pub(crate) const BUDGETS: [f64; 3] = [2.5, 5.0, 10.0];

/// One way to run detection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arm {
    pub(crate) baselines: bool,
    pub(crate) rules: bool,
    pub(crate) budget: f64,
}

impl Arm {
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self { baselines: false, rules: true, budget: BUDGETS[0] }];
        for budget in BUDGETS {
            all.push(Self { baselines: true, rules: false, budget });
        }
        all.push(Self { baselines: true, rules: true, budget: BUDGETS[0] });
        all
    }

    pub(crate) fn name(&self) -> String {
        match (self.baselines, self.rules) {
            (true, true) => "both".into(),
            (false, _) => "rules".into(),
            (true, false) => format!("baselines, budget {}", self.budget),
        }
    }

    /// One server is replayed at a time: it gets its share of the host's budget.
    pub(crate) fn config(&self) -> Config {
        Config {
            budget_per_day: self.budget / SERVERS,
            sessions_per_day: Some(1.0),
            baselines: self.baselines,
            rules: self.rules,
            ..Config::default()
        }
    }
}
