//! One recording, from stored baselines to findings.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use engine::{
    Engine, Input, Output,
    baseline::view::Summary,
    finding::{Finding, Kind},
    input::Fact,
    judge::{Command, RuleText, Stored},
    output::Line,
    recording::Reader,
};

use crate::arm::Arm;

/// What training left.
#[derive(Debug, Default)]
pub(crate) struct Trained {
    pub(crate) stored: Stored,
    pub(crate) summaries: Vec<Summary>,
    /// Findings while it learned, other than that the server is new.
    pub(crate) findings: u64,
}

/// One start of a server.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) calls: u64,
    /// The last revision of each, those about the server itself left out.
    pub(crate) findings: Vec<Finding>,
    /// When this session gave rise to revisions: what an earlier session did too is counted on its
    /// finding. Index in `findings`, ns since boot.
    pub(crate) raised: Vec<(usize, u64)>,
    /// Ids of those that an earlier session began.
    pub(crate) again: HashSet<String>,
    /// Begin of each call, ns since boot, by number.
    pub(crate) began: HashMap<u64, u64>,
    /// Effects, and those of them that are ambiguous.
    pub(crate) effects: u64,
    pub(crate) ambiguous: u64,
}

/// What a replay shows.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sessions: Vec<Session>,
}

fn prepare(engine: &mut Engine, arm: &Arm, stored: Option<&Stored>, out: &mut Vec<Output>) {
    let mut fact = |fact: &Fact| engine.apply(Input::Fact { now_ns: 0, fact }, out);
    let packs = engine::rules::packs();
    let files = packs.into_iter().map(|p| RuleText { name: p.name, text: p.text, shipped: true }).collect();
    fact(&Fact::Command(Command::Rules { files }));
    fact(&Fact::Command(Command::Configure { config: arm.config() }));
    if let Some(stored) = stored {
        fact(&Fact::Restore(Box::new(stored.clone())));
    }
}

/// What changes detection in a recording is left out: here it is the evaluation's.
fn is_ours(input: &Input<'_>) -> bool {
    matches!(input, Input::Fact { fact: Fact::Command(_) | Fact::Restore(_), .. })
}

impl Trained {
    pub(crate) fn by(bytes: &[u8], arm: &Arm) -> Result<Self> {
        let mut engine = Engine::new();
        let mut out = Vec::new();
        prepare(&mut engine, arm, None, &mut out);
        for answer in &out {
            if let Output::Answer(Err(e)) = answer {
                anyhow::bail!("{e}");
            }
        }
        let mut findings = std::collections::BTreeSet::new();
        let mut reader = Reader::new(bytes)?;
        while let Some(input) = reader.next()? {
            if !is_ours(&input) {
                engine.apply(input, &mut out);
            }
            for output in out.drain(..) {
                if let Output::Line(line) = output
                    && let Line::Finding(f) = *line
                    && !of_the_server(&f)
                {
                    findings.insert(f.id.clone());
                }
            }
        }
        let summaries = engine.judge().baselines().map(|b| b.summary()).collect();
        Ok(Self { stored: engine.judge().stored(), summaries, findings: findings.len() as u64 })
    }
}

/// Findings about the server as such: every server of a corpus is new once.
fn of_the_server(f: &Finding) -> bool {
    f.kind == Kind::NewServer
}

/// Replays a recording on what was learned.
pub(crate) fn findings(bytes: &[u8], arm: &Arm, trained: &Trained) -> Result<Seen> {
    let mut engine = Engine::new();
    let mut out = Vec::new();
    prepare(&mut engine, arm, Some(&trained.stored), &mut out);
    out.clear();
    let mut seen = Seen::default();
    let mut index: HashMap<String, usize> = HashMap::new();
    let (mut latest, mut now, mut begun) = (None, 0, HashSet::new());
    let mut reader = Reader::new(bytes)?;
    while let Some(input) = reader.next()? {
        if !is_ours(&input) {
            engine.apply(input, &mut out);
        }
        for output in out.drain(..) {
            let Output::Line(line) = output else { continue };
            let (id, time) = match &*line {
                Line::Server(l) => (l.server.id.clone(), l.time.boot_ns),
                Line::Call(l) => (l.server.id.clone(), 0),
                Line::Effect(l) => (l.server.id.clone(), l.time.boot_ns),
                // Sessions run one after the other.
                Line::Finding(l) => (latest.clone().unwrap_or_else(|| l.server.id.clone()), 0),
                Line::Lost(_) | Line::Coverage(_) | Line::Response(_) => continue,
            };
            now = now.max(time);
            if !matches!(*line, Line::Finding(_)) {
                latest = Some(id.clone());
            }
            let at = *index.entry(id).or_insert_with(|| {
                seen.sessions.push(Session::default());
                seen.sessions.len() - 1
            });
            let session = &mut seen.sessions[at];
            match *line {
                Line::Call(l) => {
                    session.calls += 1;
                    if let Some(call) = &l.scope.call {
                        session.began.insert(call.number, l.time.boot_ns);
                    }
                }
                Line::Effect(l) => {
                    session.effects += 1;
                    session.ambiguous += u64::from(!l.scope.candidates.is_empty());
                }
                Line::Finding(f) if !of_the_server(&f) => {
                    if !begun.insert(f.id.clone()) && !session.findings.iter().any(|known| known.id == f.id) {
                        session.again.insert(f.id.clone());
                    }
                    let first = session.findings.iter().position(|known| known.id == f.id);
                    let n = first.unwrap_or(session.findings.len());
                    session.raised.push((n, now.max(f.time.boot_ns)));
                    match first {
                        Some(n) => session.findings[n] = *f,
                        None => session.findings.push(*f),
                    }
                }
                _ => {}
            }
        }
    }
    Ok(seen)
}
