//! Completions and man pages, from the same definitions as the command line itself.

use std::{io, path::Path};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::cli::Cli;

/// Prints the completions for a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<()> {
    let (all, mut text) = (Cli::command(), Vec::new());
    // Hidden verbs are the agent's own, and completions would offer them.
    let verbs = all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    let mut shown = clap::Command::new("toolwarden").args(all.get_arguments().cloned()).subcommands(verbs);
    clap_complete::generate(shell, &mut shown, "toolwarden", &mut text);
    io::Write::write_all(&mut io::stdout().lock(), &text).context("cannot write to standard output")
}

/// Writes a page for the program and for each verb.
pub(crate) fn man(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command().name("toolwarden"), dir)
        .with_context(|| format!("cannot write man pages into {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_its_page_and_hidden_ones_have_none() {
        let dir = tempfile::tempdir().expect("a directory");
        man(dir.path()).expect("written");
        let page = |name: &str| dir.path().join(name).exists();
        assert!(page("toolwarden.1") && page("toolwarden-status.1") && page("toolwarden-baseline-diff.1"));
        assert!(!page("toolwarden-canary.1") && !page("toolwarden-sinks.1") && !page("toolwarden-man.1"));
        Cli::command().debug_assert();
    }

    /// Of those that people type every day.
    #[test]
    fn each_verb_shows_an_example_and_prints_in_three_formats() {
        let all = Cli::command();
        for name in [
            "status",
            "servers",
            "tools",
            "calls",
            "watch",
            "findings",
            "baseline",
            "rules",
            "respond",
            "mode",
            "reload",
            "doctor",
            "selftest",
            "policy",
            "responses",
            "audit",
            "profile",
            "purge",
            "config",
        ] {
            let verb = all.find_subcommand(name).expect(name);
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{name} shows no example");
            let mut below = vec![verb];
            let mut printed = false;
            while let Some(verb) = below.pop() {
                below.extend(verb.get_subcommands());
                let Some(format) = verb.get_arguments().find(|a| a.get_id() == "format") else { continue };
                let formats: Vec<String> =
                    format.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
                assert_eq!(formats, ["table", "json", "ndjson"], "{name}");
                printed = true;
            }
            assert!(printed, "{name} has no --format");
        }
    }
}
