//! Rules from text to verdict.

mod errors;
mod packs;
mod precedence;
mod properties;
mod verdicts;
mod written;

use std::sync::Arc;

use super::{Day, Origin, Problem, RuleSet, Source, Where, Who};
use crate::act::{Access, Act};

/// 2026-11-22.
pub(super) const TODAY: Day = Day(20_779);

pub(super) fn person(text: &str) -> Source {
    Source { name: "person.yaml".into(), text: text.into(), origin: Origin::Person }
}

pub(super) fn pack(text: &str) -> Source {
    Source { name: "pack.yaml".into(), text: text.into(), origin: Origin::Pack }
}

pub(super) fn compile(sources: &[Source]) -> Arc<RuleSet> {
    match RuleSet::compile(sources, TODAY) {
        Ok(set) => Arc::new(set),
        Err(problems) => panic_with(&problems),
    }
}

#[expect(clippy::panic, reason = "a test that cannot compile its rules has failed")]
fn panic_with(problems: &[Problem]) -> ! {
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    panic!("{}", all.join("\n\n"))
}

pub(super) fn problems(text: &str) -> Vec<Problem> {
    RuleSet::compile(&[person(text)], TODAY).err().unwrap_or_default()
}

pub(super) fn who() -> Who {
    Who {
        server: "git".into(),
        scope: Where::Tool("git_log".into()),
        package: Some("pypi:mcp-server-git".into()),
        user: Some("dev".into()),
        home: Some("/home/dev".into()),
        roots: vec!["/srv/project".into()],
    }
}

pub(super) fn file(access: Access, path: &str) -> Act<'_> {
    Act::File { access, path, directory: false, truncated: false }
}
