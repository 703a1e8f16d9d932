//! What people are shown of a baseline: stable JSON, also what `baseline diff` compares.

use serde::Serialize;

use super::{
    Baseline, Dimension, ScopeKey, State,
    item::{DIMENSIONS, levels_of},
    numbers::Metric,
};

/// A baseline in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Key as text.
    pub identity: String,
    /// Name of the server.
    pub name: String,
    /// User.
    pub uid: u32,
    /// Package, a claim.
    pub package: Option<String>,
    /// Version, a claim.
    pub version: Option<String>,
    /// Beginning of the digest.
    pub digest: String,
    /// learning, active, stale, too-large.
    pub state: &'static str,
    /// Why it is not active, or what its bound is.
    pub because: String,
    /// Who ratified it and when.
    pub ratified: Option<Ratified>,
    /// Sessions with a call.
    pub sessions: u32,
    /// Calls that taught it.
    pub calls: u64,
    /// Since when, RFC 3339.
    pub since: String,
    /// Tools.
    pub tools: usize,
    /// Members of all sets.
    pub members: u64,
    /// Sessions that are needed before it is active.
    pub needs_sessions: Option<u64>,
}

/// A person's word.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratified {
    /// Who.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
}

/// A baseline in full.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Full {
    /// As in a list.
    pub summary: Summary,
    /// Scope by scope.
    pub scopes: Vec<Scope>,
}

/// One scope.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scope {
    /// `startup`, `ambient`, `session`, `tool NAME`, `tool NAME (first call)`.
    pub scope: String,
    /// Sessions that it was seen in.
    pub sessions: u32,
    /// Calls that taught it.
    pub calls: u64,
    /// Anything in it is tested.
    pub testable: bool,
    /// Why not.
    pub because: String,
    /// Of a tool: effects may be its own until so long after a reply; none while the configured time holds.
    pub settle_ms: Option<f64>,
    /// Of a tool: the share of its replies that work came after, if any were observed.
    pub late_share: Option<f64>,
    /// Sets.
    pub dimensions: Vec<Set>,
    /// Numbers.
    pub numbers: Vec<Numbers>,
}

/// One set, at its finest level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Set {
    /// Of what.
    pub dimension: Dimension,
    /// Levels (0 fine) at which something new is a finding.
    pub tested_levels: Vec<usize>,
    /// Whether there is any.
    pub testable: bool,
    /// Members that found no room.
    pub refused: u64,
    /// Members.
    pub members: Vec<Member>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Member {
    /// Its name.
    pub member: String,
    /// Occurrences.
    pub count: u64,
    /// Sessions.
    pub sessions: u32,
    /// First and last seen, RFC 3339.
    pub first: String,
    /// See `first`.
    pub last: String,
}

/// One metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Numbers {
    /// Which.
    pub metric: Metric,
    /// Median and 99th percentile, within 10 %.
    pub p50: u64,
    /// See `p50`.
    pub p99: u64,
    /// Highest.
    pub max: u64,
    /// Values.
    pub n: u64,
    /// Values above this are a finding, when tested.
    pub limit: Option<u64>,
}

fn time(utc: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(utc)).unwrap_or_default().to_string()
}

impl Baseline {
    /// All names at their finest level, scope by scope.
    pub(crate) fn finest(&self) -> impl Iterator<Item = (&ScopeKey, Vec<(Dimension, &str)>)> {
        self.scopes.iter().map(|(key, scope)| {
            let names = scope
                .sets
                .iter()
                .flat_map(|(dimension, sets)| sets[0].sorted().into_iter().map(|(n, _)| (*dimension, &**n)));
            (key, names.collect())
        })
    }

    /// How far it is, in one word.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match &self.state {
            _ if self.too_large => "too-large",
            State::Learning => "learning",
            State::Active => "active",
            State::Stale { .. } => "stale",
        }
    }

    /// As in a list.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let because = match &self.state {
            _ if self.too_large => {
                "a set has no room for more members: what is new in it cannot be told; raise max_members or \
                 write rules"
                    .to_owned()
            }
            State::Learning if self.needs_sessions() == 0 => {
                "not yet testable: something new comes too often for the budget of false findings".to_owned()
            }
            State::Learning => {
                let a_session = self.calls / u64::from(self.trials.max(1));
                let calls = a_session.saturating_mul(self.needs_sessions());
                format!(
                    "not yet testable: needs {} more sessions (about {calls} more calls)",
                    self.needs_sessions()
                )
            }
            State::Active => format!(
                "a session has a false finding with a chance of at most {:.1} % (95 % bound), {} allowed",
                self.bound * 100.0,
                percent(self.allowed)
            ),
            State::Stale { predecessor } => {
                format!("another version or entry point: compared with {predecessor} until ratified")
            }
        };
        Summary {
            identity: self.key.to_string(),
            name: self.key.name.clone(),
            uid: self.key.uid,
            package: self.package.clone(),
            version: self.version.clone(),
            digest: self.key.digest.clone(),
            state: self.state(),
            because,
            ratified: self.ratified.as_ref().map(|(by, at)| Ratified { by: by.clone(), at: time(*at) }),
            sessions: self.trials,
            calls: self.calls,
            since: time(self.since_utc),
            tools: self.tools().count(),
            members: self.members,
            needs_sessions: (self.state == State::Learning).then(|| self.needs_sessions()),
        }
    }

    /// In full.
    #[must_use]
    pub fn full(&self) -> Full {
        let mut scopes = Vec::new();
        for key in self.scopes.keys() {
            scopes.push(self.scope_view(key, false));
            if matches!(key, ScopeKey::Tool(_)) {
                scopes.push(self.scope_view(key, true));
            }
        }
        Full { summary: self.summary(), scopes }
    }

    fn scope_view(&self, key: &ScopeKey, first: bool) -> Scope {
        let mut dimensions = Vec::new();
        let mut numbers = Vec::new();
        let (mut sessions, mut calls) = (0, 0);
        if let Some(s) = self.scopes.get(key) {
            (sessions, calls) = (s.sessions, s.calls);
            for dimension in DIMENSIONS {
                let tested_levels: Vec<usize> =
                    (0..levels_of(dimension)).filter(|&level| s.tested.set(dimension, level)).collect();
                let Some(sets) = s.sets.get(&dimension) else {
                    continue;
                };
                let count = |m: &super::family::Member| if first { m.first_calls } else { m.count };
                let members: Vec<Member> = sets[0]
                    .sorted()
                    .into_iter()
                    .filter(|(_, m)| count(m) > 0)
                    .map(|(name, m)| Member {
                        member: name.to_string(),
                        count: count(m),
                        sessions: m.sessions(),
                        first: time(m.first_utc),
                        last: time(m.last_utc),
                    })
                    .collect();
                if !members.is_empty() {
                    let testable = !tested_levels.is_empty();
                    let refused = sets.iter().map(|f| f.refused).sum();
                    dimensions.push(Set { dimension, tested_levels, testable, refused, members });
                }
            }
            for ((f, metric), n) in &s.numbers {
                if *f == first {
                    numbers.push(Numbers {
                        metric: *metric,
                        p50: n.0.quantile(0.5),
                        p99: n.0.quantile(0.99),
                        max: n.0.max(),
                        n: n.0.count(),
                        limit: s.number_limit(first, *metric).map(|(limit, ..)| limit),
                    });
                }
            }
        }
        let testable = self.scopes.get(key).is_some_and(|s| s.tested.any());
        let because = if testable {
            String::new()
        } else if u64::from(sessions) < super::FEWEST_SESSIONS {
            format!("not yet testable: seen in {sessions} sessions, needs {}", super::FEWEST_SESSIONS)
        } else {
            format!("not yet testable: needs {} more sessions", self.needs_sessions())
        };
        let suffix = if first { " (first call)" } else { "" };
        let settling = match key {
            ScopeKey::Tool(tool) => self.settling.get(tool),
            _ => None,
        };
        Scope {
            scope: format!("{key}{suffix}"),
            sessions,
            calls,
            testable,
            because,
            settle_ms: settling.and_then(|s| s.learned_ns()).map(|ns| ns as f64 / 1e6),
            late_share: settling.filter(|s| s.observed > 0).map(|s| s.late_share()),
            dimensions,
            numbers,
        }
    }
}

fn percent(p: f64) -> String {
    if p >= 1.0 { "any".into() } else { format!("{:.1} %", p * 100.0) }
}

/// What differs between two baselines: `+` and `-` lines, by scope.
#[must_use]
pub fn diff(a: &Baseline, b: &Baseline) -> Vec<String> {
    let lines = |x: &Baseline| {
        let mut all = std::collections::BTreeSet::new();
        for s in x.full().scopes {
            for d in s.dimensions {
                let dimension = format!("{:?}", d.dimension).to_lowercase();
                all.extend(d.members.into_iter().map(|m| format!("{}: {dimension} {}", s.scope, m.member)));
            }
        }
        all
    };
    let (a, b) = (lines(a), lines(b));
    let mut out: Vec<(String, char)> = a.difference(&b).map(|l| (l.clone(), '-')).collect();
    out.extend(b.difference(&a).map(|l| (l.clone(), '+')));
    out.sort();
    out.into_iter().map(|(line, sign)| format!("{sign} {line}")).collect()
}
