//! Replays the corpus through the engine and says what is detected, what is not, and how often it is wrong.
//! Needs no root and no kernel.
//!
//! # Layout
//! - `arm`: which half of detection is on, and with which budget
//! - `replay`: one recording, from stored baselines to findings
//! - `tally`: figures
//! - `report`: `docs/detection.md`

mod arm;
mod replay;
mod report;
mod tally;

use std::{path::PathBuf, sync::Mutex, time::Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use e2e::corpus::{Manifest, Part};
use engine::baseline::{Baseline, Dimension, ScopeKey};

use arm::Arm;
use replay::Trained;
use tally::Tally;

#[derive(Debug, Parser)]
struct Options {
    /// Where the recordings are
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Write the figures into docs/detection.md
    #[arg(long)]
    write: bool,
    /// Only these servers
    #[arg(long)]
    only: Vec<String>,
    /// Print each finding of benign calls, and each variant that is missed
    #[arg(long)]
    verbose: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let directory = options.corpus.clone().unwrap_or_else(Manifest::directory);
    let manifest = Manifest::read(&directory).context(
        "there is no corpus: record it with `cargo xtask evaluate --record` (root, about half an hour)",
    )?;
    let started = Instant::now();
    let mut servers: Vec<String> = manifest.recordings.iter().map(|r| r.server.clone()).collect();
    servers.dedup();
    servers.retain(|s| options.only.is_empty() || options.only.contains(s));
    let queue = Mutex::new(servers);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..std::thread::available_parallelism()?.get())
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let Some(server) = locked(&queue).pop() else { return Ok(()) };
                        let one = evaluate(&manifest, &directory, &server, options.verbose)
                            .with_context(|| server.clone())?;
                        locked(&tally).add(one);
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|t| t.join().map_err(|_panic| anyhow::anyhow!("a thread panicked"))?)
    })?;
    let mut tally = tally.into_inner().map_err(|_panic| anyhow::anyhow!("a thread panicked"))?;
    tally.sort();
    let figures = report::figures(&tally);
    println!("{figures}");
    eprintln!("evaluated in {:.1} s", started.elapsed().as_secs_f64());
    if options.write {
        report::write(&figures)?;
    }
    Ok(())
}

fn locked<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// All recordings of one server, in all arms.
fn evaluate(manifest: &Manifest, directory: &std::path::Path, server: &str, verbose: bool) -> Result<Tally> {
    let mut tally = Tally::default();
    let own: Vec<_> = manifest.recordings.iter().filter(|r| r.server == server).collect();
    let unpacked: Vec<_> = own.iter().map(|r| Ok((*r, r.unpack(directory)?))).collect::<Result<Vec<_>>>()?;
    let train = unpacked.iter().find(|(r, _)| r.part == Part::Train);
    for arm in Arm::all() {
        let trained = match train {
            Some((_, bytes)) => Trained::by(bytes, &arm)?,
            None => Trained::default(),
        };
        if verbose && arm.baselines && !arm.rules {
            for b in &trained.stored.baselines {
                print_tested(server, &arm, b);
            }
        }
        tally.trained(server, &arm, &trained);
        for (recording, bytes) in &unpacked {
            match recording.part {
                Part::Train => {}
                Part::HeldOut => {
                    let seen = replay::findings(bytes, &arm, &trained)?;
                    if verbose {
                        let new = |s: &&replay::Session| {
                            s.findings
                                .clone()
                                .into_iter()
                                .filter(|f| !s.again.contains(&f.id))
                                .collect::<Vec<_>>()
                        };
                        for f in seen.sessions.iter().flat_map(|s| new(&s)) {
                            println!(
                                "benign {server} [{}] {} {} {}",
                                arm.name(),
                                f.severity.name(),
                                f.kind.id(),
                                f.sentence
                            );
                        }
                    }
                    tally.benign(recording, &arm, &seen);
                }
                Part::Malicious => {
                    let seen = replay::findings(bytes, &arm, &trained)?;
                    tally.malicious(recording, &arm, &seen, verbose);
                }
            }
        }
    }
    Ok(tally)
}

/// What of a baseline is tested, for people who change that.
fn print_tested(server: &str, arm: &Arm, baseline: &Baseline) {
    for dimension in [Dimension::Write, Dimension::Delete, Dimension::Read, Dimension::Connect] {
        let coarse = baseline.scope(&ScopeKey::Whole).map(|s| s.coarse(dimension)).unwrap_or_default();
        println!("coarse {server} [{}] {dimension:?} {coarse:?}", arm.name());
    }
    for scope in baseline.full().scopes {
        for set in scope.dimensions {
            println!(
                "tested {server} [{}] {} {:?} levels {:?} of {} members",
                arm.name(),
                scope.scope,
                set.dimension,
                set.tested_levels,
                set.members.len()
            );
        }
        for n in scope.numbers {
            println!(
                "tested {server} [{}] {} {:?} max {} limit {:?}",
                arm.name(),
                scope.scope,
                n.metric,
                n.max,
                n.limit
            );
        }
    }
}
