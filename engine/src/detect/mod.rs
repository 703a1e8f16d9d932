//! Detectors: what no tool should do unseen, whatever was learned. They keep state per server and
//! look at lines; a rule or a learned baseline needs none of them.

use crate::{
    finding::{Kind, Severity},
    output::{CallLine, EffectLine},
};

/// Something that a detector saw in one line.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// What.
    pub kind: Kind,
    /// How bad, when that is not the kind's own.
    pub severity: Option<Severity>,
    /// What it is about: the cause. The same call and cause are one finding.
    pub object: String,
    /// What was seen, as the end of a sentence: "asked for 214 names of one domain in 3 s".
    pub why: String,
}

/// State of the detectors for one server.
#[derive(Clone, Debug, Default)]
pub struct Detectors {}

impl Detectors {
    /// Looks at an effect.
    pub fn effect(&mut self, _line: &EffectLine, _hits: &mut Vec<Hit>) {}

    /// Looks at an ended call.
    pub fn call(&mut self, _line: &CallLine, _hits: &mut Vec<Hit>) {}
}
