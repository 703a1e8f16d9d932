//! What servers do, for sinks that ask for it: at a bounded rate, and never at the cost of findings. What is left out is counted on the next
//! one that is told, and in `status`.

use std::sync::Arc;

use engine::{
    finding::Severity,
    output::{Effect, EffectLine},
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    sinks::Board,
    store::{Told, Type, Wants, tagged},
};

/// Effects a second, and at a time: each is a row in the database. 200 a second are some 10 MB a minute.
const PER_SECOND: u64 = 200;
const AT_ONCE: u64 = 2_000;
/// Events that may wait for the slowest sink. More effects would push findings out of the outbox.
const WAITING: i64 = 20_000;
/// An effect has about so many bytes; they may fill a quarter of the outbox.
const BYTES: u64 = 1_000;
const SECOND: u64 = 1_000_000_000;

/// An effect, as sinks tell it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Acted<'a> {
    /// The line of `--print json`.
    #[serde(flatten)]
    line: &'a EffectLine,
    /// Effects before this one that were left out because there were too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
}

/// Decides which effects are told.
#[derive(Debug)]
pub(super) struct Activity {
    board: Arc<Board>,
    wants: Vec<Wants>,
    /// Events that may wait.
    room: i64,
    tokens: u64,
    at_ns: u64,
    looked_ns: u64,
    full: bool,
    /// Since the last one that was told.
    left_out: u64,
    /// Since the agent began.
    pub(super) total: u64,
}

impl Activity {
    /// Nothing, when no sink asks for effects.
    pub(super) fn new(
        wants: impl Iterator<Item = Wants>,
        board: Arc<Board>,
        outbox_bytes: u64,
    ) -> Option<Self> {
        let wants: Vec<Wants> = wants.filter(|wants| wants.types.contains(&Type::Effect)).collect();
        if wants.is_empty() {
            return None;
        }
        let room = i64::try_from(outbox_bytes / 4 / BYTES).unwrap_or(WAITING).min(WAITING);
        let (tokens, full) = (AT_ONCE, false);
        Some(Self { board, wants, room, tokens, at_ns: 0, looked_ns: 0, full, left_out: 0, total: 0 })
    }

    /// Takes over the counts of the one before it.
    pub(super) fn go_on(&mut self, before: &Self) {
        (self.left_out, self.total) = (before.left_out, before.total);
    }

    /// The event of an effect, if it is told. `end` is the end of the outbox.
    pub(super) fn tell(&mut self, line: &EffectLine, now_ns: u64, end: impl FnOnce() -> i64) -> Option<Told> {
        let told = |json| Told {
            kind: Type::Effect,
            severity: Severity::Info,
            server: line.server.name.clone(),
            json,
        };
        if matches!(*line.effect, Effect::Syscall { .. }) {
            // Every call number once an epoch: for baselines, and for nobody to read.
            return None;
        }
        // Without text first: most have nobody who wants them.
        let empty = told(String::new());
        if !self.wants.iter().any(|wants| wants.passes(&empty)) {
            return None;
        }
        if !self.admits(now_ns, end) {
            (self.left_out, self.total) = (self.left_out + 1, self.total + 1);
            return None;
        }
        let left_out = Some(std::mem::take(&mut self.left_out)).filter(|n| *n > 0);
        let acted = Acted { line, left_out };
        // Plain data: serialising it into memory cannot fail.
        let json = serde_json::to_string(&acted).unwrap_or_default();
        Some(told(tagged(Type::Effect, &json)))
    }

    fn admits(&mut self, now_ns: u64, end: impl FnOnce() -> i64) -> bool {
        if now_ns.saturating_sub(self.looked_ns) >= SECOND {
            self.looked_ns = now_ns;
            let (sinks, _) = self.board.look();
            let slowest = sinks.values().map(|state| state.cursor).min();
            self.full = slowest.is_some_and(|cursor| end().saturating_sub(cursor) > self.room);
        }
        let new = now_ns.saturating_sub(self.at_ns) / (SECOND / PER_SECOND);
        if new > 0 {
            self.tokens = self.tokens.saturating_add(new).min(AT_ONCE);
            self.at_ns = now_ns;
        }
        let admitted = !self.full && self.tokens > 0;
        self.tokens -= u64::from(admitted);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use engine::output::SyscallAbi;
    use serde_json::{Value, json};

    use super::*;

    fn line() -> EffectLine {
        serde_json::from_value(json!({
            "time": { "utc": "2026-11-28T12:00:00.000000000Z", "boot_ns": 5 }, "server": { "id": "7", "name": "git" },
            "uid": 1, "login_uid": null, "client": null, "project": null,
            "scope": { "kind": "ambient", "tool": null, "call": null, "certainty": "certain", "basis": "window", "candidates": [] },
            "process": { "pid": 1, "start_ns": 1, "exe": null }, "effect": { "kind": "fork", "child": 2 },
            "id": 1, "count": 1, "repeat": false, "outlived": false,
        }))
        .expect("an effect")
    }

    fn wants(types: &[Type]) -> Wants {
        Wants {
            sink: "a".into(),
            severity: Severity::High,
            types: types.to_vec(),
            servers: Vec::new(),
            kinds: Vec::new(),
        }
    }

    #[test]
    fn nobody_gets_effects_who_did_not_ask() {
        let new = |types: &[Type]| Activity::new([wants(types)].into_iter(), Arc::default(), 1 << 30);
        assert!(new(&[]).is_none() && new(&[Type::Finding]).is_none() && new(&[Type::Effect]).is_some());
        let told = new(&[Type::Effect]).and_then(|mut a| a.tell(&line(), 1, || 0)).expect("told");
        assert!(!wants(&[]).passes(&told) && wants(&[Type::Effect]).passes(&told));
        assert!(told.json.starts_with(r#"{"type":"effect","time""#), "{}", told.json);
        let plain =
            EffectLine { effect: Arc::new(Effect::Syscall { abi: SyscallAbi::X86_64, nr: 1 }), ..line() };
        assert_eq!(new(&[Type::Effect]).and_then(|mut a| a.tell(&plain, 1, || 0)), None);
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut activity =
            Activity::new([wants(&[Type::Effect])].into_iter(), Arc::default(), 1 << 30).expect("wanted");
        let told = (0..5_000).filter(|_| activity.tell(&line(), 1, || 0).is_some()).count();
        assert_eq!((told as u64, activity.total), (AT_ONCE, 3_000));
        let next = activity.tell(&line(), 1 + SECOND, || 0).expect("time has passed");
        let json: Value = serde_json::from_str(&next.json).expect("JSON");
        assert_eq!(json["left_out"], 3_000);
        let rest = (0..5_000).filter(|_| activity.tell(&line(), 1 + SECOND, || 0).is_some()).count();
        assert_eq!(rest as u64, PER_SECOND - 1);
    }

    #[test]
    fn findings_keep_their_place_in_the_outbox() {
        let board = Arc::new(Board::default());
        board.cursor("a", 10);
        let mut activity =
            Activity::new([wants(&[Type::Effect])].into_iter(), board, 1 << 30).expect("wanted");
        assert!(activity.tell(&line(), SECOND, || WAITING + 11).is_none(), "too many wait");
        assert!(activity.tell(&line(), 2 * SECOND, || WAITING + 10).is_some());
    }
}
