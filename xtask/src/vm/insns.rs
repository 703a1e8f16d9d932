//! Verified instructions of each BPF program, by kernel: kept in the repository and compared, so that a change
//! that makes the verifier work more is seen before it meets the verifier's limit.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::kernels::Kernel;
use crate::{steps::Steps, workspace::Workspace};

const HEAD: &str =
    "# Instructions that the verifier of each kernel looks at, by BPF program. Kernels before 5.16
# do not tell: 0 stands for a program that loads there. Written by
# `cargo xtask vm --all --update -- hooks::`; a run tells differences, and fails when a program has
# grown by more than a quarter, or is not in the table, or is and was not loaded.
";

/// The table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Insns {
    kernels: BTreeMap<String, BTreeMap<String, u32>>,
    bad: Vec<String>,
}

fn file(workspace: &Workspace) -> PathBuf {
    workspace.root.join("tests/kernels/insns.toml")
}

impl Insns {
    pub(super) fn read(workspace: &Workspace) -> Result<Self> {
        let file = file(workspace);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} cannot be understood", file.display()))
    }

    pub(super) fn write(&self, workspace: &Workspace) -> Result<()> {
        let file = file(workspace);
        fs::write(&file, self.text()).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Compares what a run found, and says how it differs; with `update`, takes it over.
    pub(super) fn tell(
        &mut self,
        steps: &Steps,
        kernel: Kernel,
        found: &BTreeMap<String, u32>,
        update: bool,
    ) {
        let name = kernel.name();
        if found.is_empty() {
            return steps.note(format_args!("{name}: this run tells no instruction counts"));
        }
        let differences = self.compare(name, found, update);
        for difference in &differences {
            steps.note(format_args!("{name}: {difference}"));
        }
        let (programs, differ) = (found.len(), differences.len());
        steps.note(format_args!("{name}: {programs} programs, {differ} verified otherwise than before"));
    }

    fn compare(&mut self, kernel: &str, found: &BTreeMap<String, u32>, update: bool) -> Vec<String> {
        let known = self.kernels.entry(kernel.to_owned()).or_default();
        let mut differences = Vec::new();
        for program in known.keys().chain(found.keys().filter(|p| !known.contains_key(*p))) {
            let (old, new) = (known.get(program), found.get(program));
            if old == new {
                continue;
            }
            let shown = |n: Option<&u32>| n.map_or("none".to_owned(), u32::to_string);
            differences.push(format!("{program}: {} instructions, before {}", shown(new), shown(old)));
            let bad = match (old, new) {
                _ if update => continue,
                (Some(old), Some(new)) if *new > old + old / 4 => format!("from {old} to {new}"),
                (Some(_), Some(_)) => continue,
                (None, _) => "not in the table".to_owned(),
                (Some(_), None) => "in the table, and not loaded".to_owned(),
            };
            self.bad.push(format!("{program} on {kernel}: {bad}"));
        }
        if update {
            known.clone_from(found);
        }
        differences
    }

    /// Whether the table knows all programs, and none has grown by more than a quarter.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            self.bad.is_empty(),
            "what verifiers look at is not as tests/kernels/insns.toml has it (`cargo xtask vm --all --update -- \
             hooks::` writes it): {}",
            self.bad.join(", ")
        );
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (kernel, programs) in &self.kernels {
            text.push_str(&format!("\n[\"{kernel}\"]\n"));
            for (program, count) in programs {
                text.push_str(&format!("{program} = {count}\n"));
            }
        }
        text
    }

    /// Only what [`Self::text`] writes.
    fn parse(text: &str) -> Result<Self> {
        let mut insns = Self::default();
        let mut at = None;
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            if let Some(name) = line.strip_prefix("[\"").and_then(|l| l.strip_suffix("\"]")) {
                at = Some(insns.kernels.entry(name.to_owned()).or_default());
                continue;
            }
            let programs = at.as_mut().with_context(|| format!("no kernel before `{line}`"))?;
            let (program, count) = line.split_once(" = ").with_context(|| format!("`{line}`"))?;
            programs.insert(program.to_owned(), count.parse().with_context(|| format!("`{line}`"))?);
        }
        Ok(insns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let programs = BTreeMap::from([("exec".to_owned(), 5), ("sys_exit".to_owned(), 9)]);
        let insns = Insns { kernels: BTreeMap::from([("6.1".to_owned(), programs)]), bad: vec![] };
        assert_eq!(Insns::parse(&insns.text()).expect("our own text"), insns);
        assert!(Insns::parse("exec = 5").is_err());
        assert!(Insns::parse("[\"6.1\"]\nexec = many").is_err());
    }

    #[test]
    fn what_is_bad_fails_and_an_update_takes_it_over() {
        let table = |text: &str| Insns::parse(&format!("[\"6.1\"]\n{text}")).expect("a table");
        let known = || table("a = 100\nb = 100\nc = 0");
        let found = |text| table(text).kernels.remove("6.1").expect("the kernel");
        for (text, differ, good) in [
            ("a = 100\nb = 100\nc = 0", 0, true),
            ("a = 125\nb = 1\nc = 0", 2, true),
            ("a = 126\nb = 100\nc = 0", 1, false),
            ("a = 100\nb = 100", 1, false),
            ("a = 100\nb = 100\nc = 0\nd = 1", 1, false),
        ] {
            let mut insns = known();
            assert_eq!(insns.compare("6.1", &found(text), false).len(), differ, "{text}");
            assert_eq!(insns.check().is_ok(), good, "{text}");
            let mut insns = known();
            insns.compare("6.1", &found(text), true);
            assert_eq!(insns, table(text), "{text}");
        }
    }
}
