//! Verified instructions of each BPF program, by kernel: kept in the repository and compared, so that a change
//! that makes the verifier work more is seen before it meets the verifier's limit.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::kernels::Kernel;
use crate::{steps::Steps, workspace::Workspace};

const HEAD: &str =
    "# Instructions that the verifier of each kernel looks at, by BPF program. Kernels before 5.16
# do not tell. Written by `cargo xtask vm --all --update`; a run tells differences, and fails when
# a program has grown by more than a quarter.
";

/// The table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Insns {
    kernels: BTreeMap<String, BTreeMap<String, u32>>,
    grown: Vec<String>,
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

    /// Compares what a run found; with `update`, takes it over.
    pub(super) fn tell(
        &mut self,
        steps: &Steps,
        kernel: Kernel,
        found: &BTreeMap<String, u32>,
        update: bool,
    ) {
        let name = kernel.name();
        if found.is_empty() {
            return steps.note("this run tells no instruction counts");
        }
        let known = self.kernels.entry(name.to_owned()).or_default();
        let mut differ = 0;
        for program in known.keys().chain(found.keys().filter(|p| !known.contains_key(*p))) {
            let (old, new) = (known.get(program), found.get(program));
            if old == new {
                continue;
            }
            differ += 1;
            let shown = |n: Option<&u32>| n.map_or("none".to_owned(), u32::to_string);
            steps.note(format_args!("{program}: {} instructions, before {}", shown(new), shown(old)));
            if let (Some(old), Some(new)) = (old, new)
                && *new > old + old / 4
                && !update
            {
                self.grown.push(format!("{program} on {name} from {old} to {new}"));
            }
        }
        steps.note(format_args!("{} programs, {differ} verified otherwise than before", found.len()));
        if update {
            known.clone_from(found);
        }
    }

    /// Programs that have grown by more than a quarter.
    pub(super) fn grown(&self) -> &[String] {
        &self.grown
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
        let insns = Insns { kernels: BTreeMap::from([("6.1".to_owned(), programs)]), grown: vec![] };
        assert_eq!(Insns::parse(&insns.text()).expect("our own text"), insns);
        assert!(Insns::parse("exec = 5").is_err());
        assert!(Insns::parse("[\"6.1\"]\nexec = many").is_err());
    }
}
