//! The corpus: recorded sessions of benign and of malicious servers, and what is known about them.
//!
//! `cargo xtask evaluate --record` writes it into `tests/corpus/`; everybody else only reads it, and
//! needs no root for that.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use engine::{
    Engine, Input, Output,
    output::{CallLine, EffectLine, Line, ServerEvent},
    recording::Reader,
};
use serde::{Deserialize, Serialize};

/// What a recording is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Baselines learn from it.
    Train,
    /// Benign, with arguments that training never had.
    HeldOut,
    /// Of a server that nobody looks at before the last run; `part` says which of the two above.
    Final,
    /// One variant a session.
    Malicious,
}

/// Which half of a server's benign life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// To learn from.
    Train,
    /// To be tried.
    HeldOut,
    /// Neither.
    Malicious,
}

/// `manifest.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the recordings' format.
    pub format: u16,
    /// How host-days are counted, for people.
    pub host_day: String,
    /// In order of server and role.
    pub recordings: Vec<Recording>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// In the corpus directory.
    pub file: String,
    /// Server.
    pub server: String,
    /// What it is for.
    pub role: Role,
    /// Which half.
    pub part: Part,
    /// Starts of the server, one after the other.
    pub sessions: u64,
    /// Calls that the client made.
    pub calls: u64,
    /// By tool.
    pub tools: BTreeMap<String, u64>,
    /// See [`Manifest::host_day`].
    pub host_days: f64,
    /// Share of benign calls with an effect on an object that training never had; held-out parts only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub novelty: Option<f64>,
    /// Records that the agent lost.
    pub lost: u64,
    /// Bytes of the recording.
    pub bytes: u64,
    /// Malicious: what each session does.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub variants: Vec<Variant>,
}

/// One malicious session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Unique name.
    pub id: String,
    /// Kinds of finding ([`engine::finding::kind::Kind`]) of which at least one is expected.
    pub kinds: Vec<String>,
    /// Which session of the recording, from 0.
    pub session: usize,
    /// Calls of that session.
    pub calls: u64,
    /// Tool that does it; none when no call does.
    pub tool: Option<String>,
    /// Number of the call (from 1) with the first act; none when no call does it.
    pub call: Option<u64>,
    /// What triggers it.
    pub trigger: String,
    /// What happens, in one line.
    pub how: String,
    /// Whether the kernel sees a new act at all.
    pub kernel_visible: bool,
    /// Recording of the benign training that it belongs to.
    pub trained_by: String,
    /// How to see that it really happened.
    pub evidence: Evidence,
}

/// How to see in the engine's output that an act happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Evidence {
    /// An effect whose JSON holds all of these texts, as often in all.
    Effect {
        /// Texts.
        all: Vec<String>,
        /// Occurrences.
        at_least: u64,
    },
    /// A number of some call line.
    Call {
        /// Field of the line.
        field: String,
        /// Value.
        at_least: u64,
    },
    /// A server line with this event.
    Server {
        /// The event.
        event: String,
    },
    /// Nothing to see.
    None,
}

impl Manifest {
    /// Where the corpus is.
    #[must_use]
    pub fn directory() -> PathBuf {
        crate::workspace().join("tests/corpus")
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is not there or not understood.
    pub fn read(directory: &Path) -> Result<Self> {
        let file = directory.join("manifest.json");
        let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&bytes).with_context(|| file.display().to_string())
    }
}

impl Recording {
    /// The inputs, unpacked.
    ///
    /// # Errors
    /// When the file is not there or damaged.
    pub fn unpack(&self, directory: &Path) -> Result<Vec<u8>> {
        let file = directory.join(&self.file);
        let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        zstd::decode_all(&bytes[..]).with_context(|| file.display().to_string())
    }
}

/// Names of objects that effects touch.
pub type Objects = BTreeSet<String>;

/// What a replay says.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Ids of servers in order of appearance.
    pub servers: Vec<String>,
    /// Calls by server.
    pub calls: BTreeMap<String, u64>,
    /// All lines about loss: cause and total.
    pub lost: BTreeMap<String, u64>,
    /// Lines of effects that were not certain.
    pub ambiguous: u64,
    /// Lines of effects.
    pub effects: u64,
    /// Objects touched.
    pub objects: Objects,
    /// Calls that touched something that is not in the objects given.
    pub novel_calls: u64,
    lines: BTreeMap<String, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    effects: Vec<EffectLine>,
    calls: Vec<CallLine>,
    events: Vec<ServerEvent>,
}

/// What an effect touches, literally.
fn object(line: &EffectLine) -> Option<String> {
    use engine::output::Effect;
    Some(match &*line.effect {
        Effect::Open { path, .. } | Effect::PathOp { path, .. } | Effect::Exec { path, .. } => path.clone(),
        Effect::Net { address, port, .. } => format!("{address}:{port}"),
        Effect::DnsQuery { name, .. } => name.clone(),
        Effect::Unix { path, .. } => path.clone(),
        _ => return None,
    })
}

impl Replayed {
    /// Replays a recording. `keep` keeps the lines for [`Self::problems`]; `known` are the objects of
    /// the training.
    ///
    /// # Errors
    /// When it is not a recording, or damaged.
    pub fn of(bytes: &[u8], keep: bool, known: Option<&Objects>) -> Result<Self> {
        let mut reader = Reader::new(bytes)?;
        let mut engine = Engine::new();
        let mut outputs = Vec::new();
        let mut replayed = Self::default();
        let mut novel = BTreeSet::new();
        while let Some(input) = reader.next()? {
            let _: &Input<'_> = &input;
            engine.apply(input, &mut outputs);
            for output in outputs.drain(..) {
                if let Output::Line(line) = output {
                    replayed.take(*line, keep, known, &mut novel);
                }
            }
        }
        replayed.novel_calls = novel.len() as u64;
        Ok(replayed)
    }

    fn take(&mut self, line: Line, keep: bool, known: Option<&Objects>, novel: &mut BTreeSet<(String, u64)>) {
        match line {
            Line::Server(server) => {
                let id = &server.server.id;
                if !self.servers.contains(id) {
                    self.servers.push(id.clone());
                }
                self.lines.entry(id.clone()).or_default().events.push(server.event);
            }
            Line::Call(call) => {
                *self.calls.entry(call.server.id.clone()).or_default() += 1;
                if keep {
                    self.lines.entry(call.server.id.clone()).or_default().calls.push(call);
                }
            }
            Line::Effect(effect) => {
                self.effects += 1;
                self.ambiguous += u64::from(!effect.scope.candidates.is_empty());
                if let Some(object) = object(&effect) {
                    // Of those that it may belong to, the latest stands for all.
                    let candidates = effect.scope.candidates.iter().filter_map(|c| c.call.as_ref());
                    let call = effect.scope.call.iter().chain(candidates).map(|c| c.number).max();
                    if let (Some(known), Some(call)) = (known, call)
                        && !known.contains(&object)
                    {
                        novel.insert((effect.server.id.clone(), call));
                    }
                    if known.is_none() {
                        self.objects.insert(object);
                    }
                }
                if keep {
                    self.lines.entry(effect.server.id.clone()).or_default().effects.push(effect);
                }
            }
            Line::Lost(line) => {
                self.lost.insert(line.cause, line.total);
            }
            Line::Coverage(_) | Line::Finding(_) | Line::Response(_) => {}
        }
    }

    /// What does not agree with the manifest, in words.
    #[must_use]
    pub fn problems(&self, recording: &Recording) -> Vec<String> {
        let mut problems = Vec::new();
        let mut expect = |what: &str, got: u64, wanted: u64| {
            if got != wanted {
                problems.push(format!("{}: {got} {what}, the manifest says {wanted}", recording.file));
            }
        };
        let lost = self.lost.values().sum();
        expect("sessions", self.servers.len() as u64, recording.sessions);
        expect("lost records", lost, recording.lost);
        expect("undecodable records", self.lost.get("undecodable").copied().unwrap_or(0), 0);
        if recording.part != Part::Malicious {
            expect("calls", self.calls.values().sum(), recording.calls);
        }
        for variant in &recording.variants {
            let Some(seen) = self.servers.get(variant.session).and_then(|s| self.lines.get(s)) else {
                problems.push(format!("{}: its session is not there", variant.id));
                continue;
            };
            if !seen.shows(&variant.evidence) {
                problems.push(format!("{}: no sign of it: {:?}", variant.id, variant.evidence));
            }
        }
        problems
    }
}

impl Seen {
    fn shows(&self, evidence: &Evidence) -> bool {
        match evidence {
            Evidence::None => true,
            Evidence::Effect { all, at_least } => {
                let fits = |e: &&EffectLine| {
                    let text = serde_json::to_string(&*e.effect).unwrap_or_default();
                    all.iter().all(|part| text.contains(part))
                };
                self.effects.iter().filter(fits).map(|e| e.count).sum::<u64>() >= *at_least
            }
            Evidence::Call { field, at_least } => self.calls.iter().any(|call| {
                let value = serde_json::to_value(call).unwrap_or_default();
                value[field].as_u64().is_some_and(|n| n >= *at_least)
            }),
            Evidence::Server { event } => {
                self.events.iter().any(|e| serde_json::to_value(e).is_ok_and(|v| v == **event))
            }
        }
    }
}
