//! Programs that cargo builds for us, kept under `target/tools`.

use std::fs;

use anyhow::Result;

use crate::{steps::Steps, workspace::Workspace};

/// One program from crates.io, at the version that we have tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

/// Licences, bans and sources of dependencies.
pub(crate) const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

/// Coverage-guided fuzzing.
pub(crate) const FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2" };

/// Debian packages.
pub(crate) const DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0" };

/// For tools that do little: to optimise them takes longer than they ever run.
pub(crate) const QUICKLY: &[&str] = &["--debug"];

impl Tool {
    /// Whether this very version was installed here.
    pub(crate) fn is_there(self, workspace: &Workspace) -> bool {
        let record = workspace.target.join("tools/.crates.toml");
        let entry = format!("\"{} {} (", self.name, self.version);
        fs::read_to_string(record).is_ok_and(|text| text.contains(&entry))
            && workspace.tool(self.name).exists()
    }

    /// Builds it; `args` and `envs` are for how.
    pub(crate) fn install(
        self,
        workspace: &Workspace,
        steps: &Steps,
        args: &[&str],
        envs: &[(&str, &str)],
    ) -> Result<()> {
        let mut cargo = workspace.clean_cargo();
        cargo
            .args(["install", self.name, "--version", self.version, "--locked", "--force"])
            .args(args)
            .arg("--root")
            .arg(workspace.target.join("tools"))
            .envs(envs.iter().copied());
        steps.run(&mut cargo)
    }
}
