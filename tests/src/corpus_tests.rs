//! The recordings are what the manifest says. Needs no root.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use engine::finding::Kind;

use crate::corpus::{Manifest, Part, Recording, Replayed, Role};

fn corpus() -> Result<(Manifest, std::path::PathBuf)> {
    let directory = Manifest::directory();
    Ok((Manifest::read(&directory)?, directory))
}

/// One after the other on two threads: unpacked they are large.
fn replayed(recordings: &[Recording]) -> Result<Vec<String>> {
    let directory = Manifest::directory();
    let (even, odd): (Vec<&Recording>, Vec<&Recording>) = recordings.iter().partition(|r| r.bytes % 2 == 0);
    let check = |recordings: Vec<&Recording>| -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for recording in recordings {
            let bytes = recording.unpack(&directory)?;
            let malicious = recording.part == Part::Malicious;
            let replayed = Replayed::of(&bytes, malicious, None).with_context(|| recording.file.clone())?;
            problems.extend(replayed.problems(recording));
        }
        Ok(problems)
    };
    std::thread::scope(|scope| {
        let threads = [even, odd].map(|half| scope.spawn(|| check(half)));
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_panic| anyhow::anyhow!("a replay panicked"))??);
        }
        Ok(all)
    })
}

#[test]
fn recordings_are_what_the_manifest_says() -> Result<()> {
    let (manifest, _) = corpus()?;
    let problems = replayed(&manifest.recordings)?;
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

#[test]
fn the_corpus_is_large_enough() -> Result<()> {
    let (manifest, directory) = corpus()?;
    let recordings = &manifest.recordings;
    let servers: BTreeSet<_> = recordings.iter().map(|r| &r.server).collect();
    ensure!(servers.len() >= 12, "{} servers", servers.len());
    let last: BTreeSet<_> = recordings.iter().filter(|r| r.role == Role::Final).map(|r| &r.server).collect();
    ensure!(last.len() == 4, "{} servers for the last run", last.len());
    let held_out: u64 = recordings.iter().filter(|r| r.part == Part::HeldOut).map(|r| r.calls).sum();
    ensure!(held_out >= 40_000, "{held_out} held-out calls");
    let novel: f64 = recordings.iter().filter_map(|r| Some(r.novelty? * r.calls as f64)).sum();
    let novel = novel / held_out as f64;
    ensure!(novel > 0.05, "only {novel:.3} of the held-out calls touch something new: too easy");
    for recording in recordings {
        let file = directory.join(&recording.file);
        ensure!(file.is_file(), "{} is missing", file.display());
        if recording.part == Part::Train {
            ensure!(recording.sessions >= 40, "{}: {} sessions", recording.file, recording.sessions);
            // In sessions of random length they are not quite even.
            let tools = recording.tools.len() as u64;
            ensure!(recording.calls >= 200 * tools, "{}: {} calls", recording.file, recording.calls);
            let least = recording.tools.values().min().copied().unwrap_or(0);
            ensure!(least >= 150, "{}: {least} calls of a tool", recording.file);
        }
    }
    Ok(())
}

#[test]
fn variants_are_many_and_of_known_kinds() -> Result<()> {
    let (manifest, _) = corpus()?;
    let known: BTreeSet<_> = Kind::ALL.iter().map(|k| k.id()).collect();
    let variants: Vec<_> = manifest.recordings.iter().flat_map(|r| &r.variants).collect();
    ensure!(variants.len() >= 80, "{} variants", variants.len());
    let ids: BTreeSet<_> = variants.iter().map(|v| &v.id).collect();
    ensure!(ids.len() == variants.len(), "two variants have one name");
    for variant in &variants {
        for kind in &variant.kinds {
            ensure!(known.contains(kind.as_str()), "{}: unknown kind {kind}", variant.id);
        }
        ensure!(variant.kinds.is_empty() != variant.kernel_visible, "{}: visible or not?", variant.id);
        let trained = manifest.recordings.iter().any(|r| r.file == variant.trained_by);
        ensure!(trained, "{}: {} is missing", variant.id, variant.trained_by);
    }
    // These are told by rules of a person, or of the state of a baseline, of a hook, or of a killed server, not by an act.
    let apart =
        ["new-server", "too-large", "rule-hit", "limit-hit", "coverage-lost", "respawn-loop", "tampering"];
    let tried: BTreeSet<_> = variants.iter().flat_map(|v| &v.kinds).map(String::as_str).collect();
    for kind in known.iter().filter(|k| !apart.contains(*k)) {
        ensure!(tried.contains(kind), "no variant of kind {kind}");
    }
    Ok(())
}
