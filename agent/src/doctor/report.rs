//! What the doctor says. The JSON form is stable: docs/schema/doctor.schema.json.

use std::io::{self, Write};

use engine::policy::Family;
use owo_colors::Style;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::commands::show::Screen;

/// Version of the report: a number that only a break of its form raises.
pub(crate) const VERSION: u32 = 1;

/// How all of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// All is well: exit code 0.
    Ok,
    /// The agent runs, and does less than it could, or not all could be checked: exit code 1.
    Degraded,
    /// The agent cannot run, or is blind to what it must see: exit code 2.
    Failed,
}

/// How a hook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Its act was done, and its record came; or nothing on this host can do the act.
    Works,
    /// It tells of some acts and not of others.
    Degraded,
    /// It tells of nothing.
    Blind,
    /// It could not be tried.
    Unknown,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Degraded => "degraded",
            Self::Blind => "blind",
            Self::Unknown => "unknown",
        }
    }
}

/// A hook, and what a real act proved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct HookReport {
    /// Which.
    pub(crate) hook: String,
    /// How it is.
    pub(crate) state: State,
    /// What it sees.
    pub(crate) sees: String,
    /// Without it the agent is no use.
    pub(crate) required: bool,
    /// Why it is not better.
    pub(crate) because: Option<String>,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

/// One provider of a family, and how far it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Rung {
    /// Which.
    pub(crate) provider: String,
    /// It can deny, not just see.
    pub(crate) denies: bool,
    /// How it is.
    pub(crate) state: State,
    /// Why it is not better.
    pub(crate) because: Option<String>,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

/// The providers of a family of rights, in the order in which they were tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LadderReport {
    /// Which.
    pub(crate) family: Family,
    /// The first that works and has a program in this agent.
    pub(crate) chosen: Option<String>,
    /// All of them.
    pub(crate) tried: Vec<Rung>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mark {
    /// As it should be.
    Ok,
    /// It could not be checked.
    Unknown,
    /// The agent runs, and could do more.
    Warn,
    /// The agent cannot run, or must not.
    Fail,
}

impl Mark {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Check {
    /// Which; stable.
    pub(crate) id: String,
    /// How it ended.
    pub(crate) state: Mark,
    /// What was seen.
    pub(crate) seen: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
}

impl Check {
    pub(crate) fn ok(id: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { id: id.into(), state: Mark::Ok, seen: seen.into(), remedy: None }
    }

    pub(crate) fn bad(
        id: impl Into<String>,
        state: Mark,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { id: id.into(), state, seen: seen.into(), remedy: Some(remedy.into()) }
    }
}

/// All that the doctor says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Report {
    /// Version of this form.
    pub(crate) version: u32,
    /// How all of it is.
    pub(crate) outcome: Outcome,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Hooks, each proved with a real act.
    pub(crate) hooks: Vec<HookReport>,
    /// Providers of each family of rights.
    pub(crate) ladders: Vec<LadderReport>,
    /// Families that the agent can enforce here.
    pub(crate) enforceable: Vec<Family>,
    /// Checks of the host.
    pub(crate) checks: Vec<Check>,
}

/// How all of it is: the worst part decides.
pub(crate) fn outcome(hooks: &[HookReport], ladders: &[LadderReport], checks: &[Check]) -> Outcome {
    let hook = |h: &HookReport| match h.state {
        State::Works => Outcome::Ok,
        State::Blind if h.required => Outcome::Failed,
        State::Blind | State::Degraded | State::Unknown => Outcome::Degraded,
    };
    let ladder = |l: &LadderReport| match l.tried.iter().any(|rung| rung.denies && rung.state == State::Works)
    {
        true => Outcome::Ok,
        false => Outcome::Degraded,
    };
    let check = |c: &Check| match c.state {
        Mark::Ok => Outcome::Ok,
        Mark::Unknown | Mark::Warn => Outcome::Degraded,
        Mark::Fail => Outcome::Failed,
    };
    let all = hooks.iter().map(hook).chain(ladders.iter().map(ladder)).chain(checks.iter().map(check));
    all.max().unwrap_or(Outcome::Ok)
}

fn style(word: &str) -> Style {
    match word {
        "works" | "ok" => Style::new().green(),
        "blind" | "fail" => Style::new().red(),
        _ => Style::new().yellow(),
    }
}

impl Report {
    /// Prints it for people: a line for what is well, and reasons and remedies for the rest.
    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut to = Screen::new(out);
        to.field("kernel", &self.kernel)?;
        to.heading("Hooks, each proved with a real act")?;
        let rows = self.hooks.iter().map(|h| {
            let word = h.state.word();
            (vec![h.hook.clone(), word.to_owned(), h.sees.clone()], style(word))
        });
        to.table(&["hook", "state", "sees"], rows.collect())?;
        to.heading("What can be denied, by family of rights")?;
        let rows = self.ladders.iter().flat_map(|l| {
            l.tried.iter().map(move |rung| {
                let word = rung.state.word();
                let chosen = if l.chosen.as_ref() == Some(&rung.provider) { "chosen" } else { "" };
                let can = if rung.denies { "deny" } else { "see" };
                let cells = [&l.family.to_string(), &rung.provider, can, word, chosen];
                (cells.iter().map(ToString::to_string).collect(), style(word))
            })
        });
        to.table(&["family", "provider", "can", "state", ""], rows.collect())?;
        to.heading("This host")?;
        let rows = self.checks.iter().map(|c| {
            let word = c.state.word();
            (vec![c.id.clone(), word.to_owned(), c.seen.clone()], style(word))
        });
        to.table(&["check", "state", "seen"], rows.collect())?;
        self.remedies(&mut to)?;
        to.heading(match self.outcome {
            Outcome::Ok => "All is well.",
            Outcome::Degraded => "The agent runs here, and does less than it could: see above.",
            Outcome::Failed => "The agent cannot do its work here: see above.",
        })
    }

    /// Equal ones once.
    fn remedies(&self, to: &mut Screen<'_>) -> io::Result<()> {
        let mut told: Vec<(Vec<&str>, &str, &str)> = Vec::new();
        let hooks = self.hooks.iter().map(|h| (h.hook.as_str(), &h.because, &h.remedy));
        let rungs = self.ladders.iter().flat_map(|l| &l.tried);
        let rungs = rungs.filter(|r| r.provider.starts_with("lsm/"));
        let rungs = rungs.map(|r| (r.provider.as_str(), &r.because, &r.remedy));
        for (name, because, remedy) in hooks.chain(rungs) {
            let (because, remedy) =
                (because.as_deref().unwrap_or_default(), remedy.as_deref().unwrap_or_default());
            if because.is_empty() {
                continue;
            }
            match told.iter_mut().find(|t| t.1 == because && t.2 == remedy) {
                Some(known) => known.0.push(name),
                None => told.push((vec![name], because, remedy)),
            }
        }
        for c in self.checks.iter().filter(|c| c.state != Mark::Ok) {
            told.push((vec![&c.id], &c.seen, c.remedy.as_deref().unwrap_or_default()));
        }
        if told.is_empty() {
            return Ok(());
        }
        to.heading("Why, and what to do")?;
        for (names, because, remedy) in told {
            to.line(crate::print::safe(&format!("{}: {because}", names.join(", "))))?;
            if !remedy.is_empty() {
                to.line(format!("    remedy: {}", crate::print::safe(remedy)))?;
            }
        }
        Ok(())
    }
}

/// The report as lines: what each is about in `type`; the last one tells the outcome.
pub(crate) fn rows(report: &Value) -> Vec<Value> {
    let of = |key: &str, kind: &str| -> Vec<Value> {
        let all = report[key].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().cloned().map(|row| typed(row, kind)).collect()
    };
    let mut rows = [of("hooks", "hook"), of("ladders", "ladder"), of("checks", "check")].concat();
    let mut whole = report.clone();
    if let Some(whole) = whole.as_object_mut() {
        for key in ["hooks", "ladders", "checks"] {
            whole.remove(key);
        }
    }
    rows.push(typed(whole, "outcome"));
    rows
}

fn typed(mut row: Value, kind: &str) -> Value {
    row["type"] = kind.into();
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let text = serde_json::to_string_pretty(&schemars::schema_for!(Report)).expect("JSON") + "\n";
        let path = format!("{}/../docs/schema/doctor.schema.json", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("TOOLWARDEN_BLESS").is_some() {
            std::fs::write(&path, &text).expect("its directory is writable");
        }
        let published = std::fs::read_to_string(&path).expect("it is there");
        assert!(published == text, "{path} is out of date: run this test with TOOLWARDEN_BLESS=1");
    }

    #[test]
    fn the_worst_part_decides() {
        let hook = |state, required| HookReport {
            hook: "h".into(),
            state,
            sees: String::new(),
            required,
            because: None,
            remedy: None,
        };
        let check = |state| Check { id: "c".into(), state, seen: String::new(), remedy: None };
        for (hooks, checks, wanted) in [
            (vec![hook(State::Works, true)], vec![check(Mark::Ok)], Outcome::Ok),
            (vec![hook(State::Blind, false)], vec![check(Mark::Ok)], Outcome::Degraded),
            (vec![hook(State::Degraded, true)], vec![check(Mark::Ok)], Outcome::Degraded),
            (vec![hook(State::Unknown, true)], vec![], Outcome::Degraded),
            (vec![hook(State::Blind, true)], vec![check(Mark::Warn)], Outcome::Failed),
            (vec![hook(State::Works, true)], vec![check(Mark::Unknown)], Outcome::Degraded),
            (vec![hook(State::Works, true)], vec![check(Mark::Warn), check(Mark::Fail)], Outcome::Failed),
        ] {
            assert_eq!(outcome(&hooks, &[], &checks), wanted, "{hooks:?} {checks:?}");
        }
    }
}
