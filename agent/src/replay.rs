//! A recording instead of a kernel; with other rules, baselines or another budget: a back-test.

use anyhow::{Context as _, Result, anyhow};
use engine::{
    Engine, Input, Output,
    input::Fact,
    judge::{Command, Config},
    output::Line,
    recording::Reader,
};

use crate::{
    cli,
    commands::{Exit, Stop},
    desk::{self, rules},
    print::Printer,
};

/// What takes the place of what was recorded.
#[derive(Debug, Default)]
struct Instead {
    rules: bool,
    baselines: bool,
    config: bool,
    facts: Vec<Fact>,
}

impl Instead {
    fn of(options: &cli::Replay) -> Result<Self> {
        let mut out = Self::default();
        if let Some(budget) = options.budget {
            out.config = true;
            let config = Config { budget_per_day: budget, ..Config::default() };
            out.facts.push(Fact::Command(Command::Configure { config }));
        }
        if !options.rules.is_empty() {
            out.rules = true;
            let invalid = |why| anyhow::Error::from(Stop::new(Exit::Invalid, why));
            let files = rules::Files::read_loosely(&options.rules).map_err(invalid)?;
            rules::check(&files).map_err(invalid)?;
            out.facts.push(Fact::Command(Command::Rules { files }));
        }
        if let Some(from) = &options.baseline {
            out.baselines = true;
            out.facts.extend(desk::restores(desk::stored(from)?));
        }
        Ok(out)
    }

    /// Whether something recorded counts.
    fn keeps(&self, fact: &Fact) -> bool {
        match fact {
            Fact::Command(Command::Rules { .. }) => !self.rules,
            Fact::Command(Command::Configure { .. }) => !self.config,
            Fact::Restore(_) => !self.baselines,
            _ => true,
        }
    }
}

/// Prints what a recording says.
pub(crate) fn replay(options: &cli::Replay) -> Result<()> {
    let context = || format!("cannot replay {}", options.file.display());
    let instead = Instead::of(options)?;
    let bytes = std::fs::read(&options.file).with_context(context)?;
    let mut reader = Reader::new(&bytes).with_context(context)?;
    let mut engine = Engine::new();
    let mut printer = Printer::new(options.print);
    let mut outputs = Vec::new();
    let wanted = |output: &Output| match output {
        Output::Line(line) => !options.findings || matches!(**line, Line::Finding(_)),
        _ => false,
    };
    loop {
        let from = outputs.len();
        match reader.next() {
            Ok(Some(Input::Fact { fact, .. })) if !instead.keeps(fact) => {}
            Ok(Some(input)) => {
                engine.apply(input, &mut outputs);
                if let Input::Fact { now_ns, fact: Fact::Start { .. } } = input {
                    for fact in &instead.facts {
                        engine.apply(Input::Fact { now_ns, fact }, &mut outputs);
                    }
                    refused(&outputs)?;
                }
            }
            Ok(None) => break,
            Err(e) => {
                // What came before is good: print it, then say where it stops.
                printer.print(&outputs)?;
                printer.flush()?;
                return Err(e).with_context(context);
            }
        }
        let mut at = from;
        outputs.retain(|output| {
            at += 1;
            at <= from || wanted(output)
        });
        if outputs.len() > 4096 {
            printer.print(&outputs)?;
            outputs.clear();
        }
    }
    printer.print(&outputs)?;
    printer.finish()
}

fn refused(outputs: &[Output]) -> Result<()> {
    let said = outputs.iter().find_map(|output| match output {
        Output::Answer(Err(why)) => Some(why),
        _ => None,
    });
    said.map_or(Ok(()), |why| Err(anyhow!("{why}")))
}
