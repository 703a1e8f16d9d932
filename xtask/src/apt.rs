//! Debian packages, and what to say where they cannot be had.

use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::{
    steps::Steps,
    workspace::{is_root, on_path, output},
};

/// The packages among these that are not installed.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    packages
        .iter()
        .copied()
        .filter(|package| {
            let mut query = Command::new("dpkg-query");
            query.args(["--show", "--showformat=${db:Status-Status}", package]);
            output(&mut query).as_deref() != Some("installed")
        })
        .collect()
}

/// Whether the package lists on this machine offer the package.
pub(crate) fn offers(package: &str) -> bool {
    output(Command::new("apt-cache").args(["policy", package])).is_some_and(|policy| {
        policy
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Candidate:"))
            .any(|candidate| candidate.trim() != "(none)")
    })
}

/// Fetches package lists, for a machine that never did. A failure is told by what follows it.
pub(crate) fn update(steps: &Steps) -> Result<()> {
    if on_path("apt-get").is_none() || !is_root()? {
        return Ok(());
    }
    if let Err(e) = steps.run(Command::new("apt-get").args(["update", "--quiet"])) {
        steps.note(format_args!("{e:#}"));
    }
    Ok(())
}

/// Installs what is missing of these packages, which `why` needs.
pub(crate) fn install(steps: &Steps, packages: &[&str], why: &str) -> Result<()> {
    let packages = missing(packages);
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    let by_hand =
        format!("run `apt-get install --no-install-recommends {list}` as root, then this command again");
    ensure!(
        on_path("apt-get").is_some(),
        "{why} needs the Debian packages {list}, and this machine has no apt-get: install their \
         like by hand"
    );
    ensure!(is_root()?, "{why} needs Debian packages and installing them needs root: {by_hand}");
    if packages.iter().any(|package| !offers(package)) {
        update(steps)?;
    }
    let unknown: Vec<&str> = packages.iter().copied().filter(|p| !offers(p)).collect();
    if !unknown.is_empty() {
        bail!(
            "{why} needs the Debian packages {}, which the configured archives do not offer (no \
             network, or another release): {by_hand}",
            unknown.join(" ")
        );
    }
    steps.again(&list, || {
        let mut install = Command::new("apt-get");
        // A machine that has just come up may be installing its own updates.
        install
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"])
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(&packages);
        let done = steps.run(&mut install);
        // What the lists name may have been replaced since.
        if done.is_err() {
            update(steps)?;
        }
        done
    })
}
