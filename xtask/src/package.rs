//! `cargo xtask package`: a Debian package of one static program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    setup,
    stages::check,
    tools, vm,
    workspace::{Workspace, output},
};

/// Completions: shell, and the file's name.
const SHELLS: [(&str, &str); 3] =
    [("bash", "toolwarden.bash"), ("zsh", "_toolwarden"), ("fish", "toolwarden.fish")];

/// Builds it and says where it is.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    setup::run(workspace, &setup::PACKAGE)?;
    let deb = checked(workspace)?;
    println!("install it: apt install {}", deb.display());
    Ok(())
}

/// The package, made anew, of which lintian has nothing to say.
pub(crate) fn checked(workspace: &Workspace) -> Result<PathBuf> {
    let deb = make(workspace)?;
    println!("\n{} ({} KiB)", deb.display(), fs::metadata(&deb)?.len() >> 10);
    lint(&deb)?;
    Ok(deb)
}

/// What is neither clean nor excused by an override with its reason.
fn lint(deb: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]).arg(deb);
    check(&mut lintian).context("lintian has something to say")
}

/// The package, made anew.
pub(crate) fn make(workspace: &Workspace) -> Result<PathBuf> {
    // The very build that guests run: nothing is compiled twice, and what is tested is what is shipped.
    let built = vm::programs::agent(workspace)?;
    let dir = workspace.target.join("package");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(dir.join("completions"))?;
    let program = dir.join("toolwarden");
    check(Command::new("strip").arg("-o").arg(&program).arg(&built))?;
    check(Command::new(&program).arg("man").arg(dir.join("man")))?;
    for (shell, name) in SHELLS {
        let text = output(Command::new(&program).args(["completions", shell]))
            .with_context(|| format!("no completions for {shell}"))?;
        fs::write(dir.join("completions").join(name), text + "\n")?;
    }
    let mut deb = workspace.cargo_tool(tools::DEB);
    deb.args(["--quiet", "--package=agent", "--no-build", "--no-strip", "--output"]).arg(&dir);
    check(&mut deb)?;
    there(workspace).context("cargo-deb made no package")
}

/// The package that was made last.
pub(crate) fn there(workspace: &Workspace) -> Option<PathBuf> {
    let files = fs::read_dir(workspace.target.join("package")).ok()?.flatten().map(|e| e.path());
    files.filter(|file| file.extension().is_some_and(|e| e == "deb")).max()
}
