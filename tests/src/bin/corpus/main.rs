//! Records the corpus live: starts the agent, runs sessions of benign and malicious servers under it,
//! and writes what the agent recorded into `tests/corpus/`. `cargo xtask evaluate --record` runs it.
//!
//! It works in namespaces of its own: a network that leads nowhere, and private `/srv`, `/tmp` and
//! `/run`. Nothing outside changes, and no path of this machine gets into the recordings.
//!
//! # Layout
//! - `place`: namespaces, throw-away home, what is installed where
//! - `data`: the servers' files
//! - `peers`: resolver, web, mail and unix peers
//! - `servers`, `tools`, `real_tools`: the servers, and varied arguments for their tools
//! - `session`: one client and one server
//! - `variants` and its parts: the malicious ones
//! - `record`, `filter`: from sessions to files of the corpus
//! - `soak`: sessions for hours, nothing recorded
//! - `innocents`: what is denied to benign sessions of servers in `enforce`

mod data;
mod filter;
mod innocents;
mod peers;
mod place;
mod real_tools;
mod record;
mod rng;
mod servers;
mod session;
mod soak;
mod tools;
mod variants;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use e2e::corpus::{Manifest, Part, Role};

use crate::servers::Server;

#[derive(Clone, Parser)]
#[command(name = "corpus", about = "Records the corpus of the evaluation")]
pub(crate) struct Options {
    /// Only these servers
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these parts: train, held-out, malicious
    #[arg(long, value_delimiter = ',')]
    part: Vec<String>,
    /// How much of everything, 1 for all
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Where to
    #[arg(long, overrides_with = "out")]
    out: Option<PathBuf>,
    /// Keep the agent's recordings as they were, in this directory
    #[arg(long)]
    raw: Option<PathBuf>,
    /// Record nothing: filter and pack again what is there
    #[arg(long)]
    repack: bool,
    /// Record nothing: run sessions for so many minutes, and kill the agent now and then
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u64>,
    /// Record nothing: learn, ratify, enforce, and tell what held-out sessions are denied
    #[arg(long)]
    innocents: bool,
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("corpus: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let out = options.out.clone().unwrap_or_else(Manifest::directory);
    if options.repack {
        return record::repack(&out);
    }
    if !options.inside {
        std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        let hidden = ["/srv", "/tmp", "/run"].iter().any(|dir| out.starts_with(dir));
        ensure!(
            !hidden,
            "{}: the recorder has /srv, /tmp and /run of its own: write elsewhere",
            out.display()
        );
        if options.only.is_empty() && options.soak.is_none() && !options.innocents {
            return groups(options, &out.canonicalize()?);
        }
        return place::enter(&out.canonicalize()?);
    }
    let began = Instant::now();
    place::prepare()?;
    peers::open()?;
    if let Some(minutes) = options.soak {
        return soak::run(minutes);
    }
    if options.innocents {
        return innocents::run(options);
    }
    let servers = servers::all();
    let mut recorder = record::Recorder::new(options, &out)?;
    for server in &servers {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == server.name) {
            continue;
        }
        let role = |own| if server.last { Role::Final } else { own };
        recorder.benign(server, role(Role::Train), Part::Train)?;
        recorder.benign(server, role(Role::HeldOut), Part::HeldOut)?;
        recorder.malicious(server)?;
    }
    recorder.finish()?;
    println!("corpus: {:.0} s in all", began.elapsed().as_secs_f64());
    Ok(())
}

/// Records groups of servers side by side, and puts what they wrote together.
fn groups(options: &Options, out: &Path) -> Result<()> {
    let mut all = if options.part.is_empty() { Manifest::default() } else { Manifest::read(out)? };
    for stage in [&servers::GROUPS[..], &[servers::FLOODS]] {
        let mut children = Vec::new();
        for (n, group) in stage.iter().enumerate() {
            let part = out.join(format!(".part-{n}"));
            let mut child = Command::new(std::env::current_exe()?);
            child
                .args(std::env::args_os().skip(1))
                .arg("--only")
                .arg(group.join(","))
                .arg("--out")
                .arg(&part);
            children.push((part, child.spawn().context("cannot start a recorder")?));
        }
        for (part, mut child) in children {
            ensure!(child.wait()?.success(), "the recorder for {} failed", part.display());
            let manifest = Manifest::read(&part)?;
            for recording in manifest.recordings {
                std::fs::rename(part.join(&recording.file), out.join(&recording.file))?;
                all.recordings.retain(|r| r.file != recording.file);
                all.recordings.push(recording);
            }
            (all.format, all.host_day) = (manifest.format, manifest.host_day);
            std::fs::remove_dir_all(part)?;
        }
    }
    record::write(all, out)
}

/// Name of a server's file.
pub(crate) fn file(server: &Server, part: Part) -> String {
    let part = match part {
        Part::Train => "train",
        Part::HeldOut => "held-out",
        Part::Malicious => "malicious",
    };
    format!("{}.{part}.twrec.zst", server.name)
}
