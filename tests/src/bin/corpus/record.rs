//! From sessions to files of the corpus.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{
    agent::{self, Agent},
    corpus::{Evidence, Manifest, Objects, Part, Recording, Replayed, Role, Variant as Known},
};
use zstd::stream::raw::CParameter;

use crate::{
    Options, file, filter, place,
    servers::Server,
    session::{self, Calls},
    variants,
};

/// Training: calls of each tool, and sessions that they are spread over.
const TRAIN: (u64, u64) = (200, 100);
/// Held-out calls a session, about.
const SESSION: u64 = 60;
/// Sessions of one server that are a host-day of it.
const DAY: u64 = 1;
/// Other programs of this machine may flood the agent: tries until nothing is lost.
const TRIES: u32 = 3;

pub(crate) struct Recorder {
    options: Options,
    out: PathBuf,
    manifest: Manifest,
    /// What the training of the server at hand touched.
    known: Objects,
    packing: Vec<thread::JoinHandle<Result<(String, u64)>>>,
}

impl Recorder {
    pub(crate) fn new(options: &Options, out: &Path) -> Result<Self> {
        let mut manifest = Manifest::read(out).unwrap_or_default();
        if manifest.format != engine::recording::VERSION || options.only.is_empty() && options.part.is_empty()
        {
            manifest = Manifest::default();
        }
        manifest.format = engine::recording::VERSION;
        manifest.host_day = "a host-day is one session of each server".into();
        if let Some(raw) = &options.raw {
            fs::create_dir_all(raw)?;
        }
        let (options, out) = (options.clone(), out.to_owned());
        Ok(Self { options, out, manifest, known: Objects::new(), packing: Vec::new() })
    }

    fn scaled(&self, n: u64) -> u64 {
        ((n as f64 * self.options.scale).round() as u64).max(1)
    }

    fn wanted(&self, part: &str) -> bool {
        self.options.part.is_empty() || self.options.part.iter().any(|p| p == part)
    }

    /// Training or held-out sessions.
    pub(crate) fn benign(&mut self, server: &Server, role: Role, part: Part) -> Result<()> {
        if !self.wanted(if part == Part::Train { "train" } else { "held-out" }) {
            return Ok(());
        }
        let (sessions, calls) = match part {
            Part::Train => {
                let sessions = self.scaled(TRAIN.1);
                (sessions, self.scaled(TRAIN.0).max(sessions) * server.tools.len() as u64)
            }
            _ => {
                let calls = self.scaled(server.held_out);
                ((calls / SESSION).max(self.scaled(20)), calls)
            }
        };
        // Some sessions are long, and see what a short one never does: files that wear out, caches that spill.
        // One in nine, so that halves by turns have as many of them. A real server takes long to start; its
        // sessions are all alike.
        let long = |n: u64| server.own && part == Part::Train && n.is_multiple_of(9);
        let weight = |n: u64| (0..n).map(|n| if long(n) { 11 } else { 1 }).sum::<u64>();
        let each = |n: u64| calls * weight(n + 1) / weight(sessions) - calls * weight(n) / weight(sessions);
        self.record(server, role, part, || {
            (0..sessions).map(|n| Ok((session::benign(server, part, n, each(n))?, None))).collect()
        })
    }

    /// The variants of a server.
    pub(crate) fn malicious(&mut self, server: &Server) -> Result<()> {
        let all: Vec<_> = variants::all().into_iter().filter(|v| v.server == server.name).collect();
        if all.is_empty() || !self.wanted("malicious") {
            return Ok(());
        }
        self.record(server, Role::Malicious, Part::Malicious, || {
            let one = |(n, variant): (usize, &variants::Variant)| {
                place::home()?;
                let entry = Path::new(server.entry());
                if let Some(more) = variant.version {
                    place::change(entry, more)?;
                }
                let calls = session::malicious(server, variant);
                if variant.version.is_some() {
                    place::restore(entry)?;
                }
                let calls = calls?;
                let call = variant.call();
                let known = Known {
                    id: format!("{}-{}", server.name, variant.id),
                    kinds: variant.kinds.iter().map(|&k| k.to_owned()).collect(),
                    session: n,
                    calls: calls.values().sum(),
                    tool: call.map(|_| variant.tool.to_owned()),
                    call,
                    trigger: variant.trigger(),
                    how: variant.how.to_owned(),
                    kernel_visible: variant.visible,
                    trained_by: file(server, Part::Train),
                    evidence: variant.evidence.clone(),
                };
                Ok((calls, Some(known)))
            };
            all.iter().enumerate().map(one).collect()
        })
    }

    fn record(
        &mut self,
        server: &Server,
        role: Role,
        part: Part,
        sessions: impl Fn() -> Result<Vec<(Calls, Option<Known>)>>,
    ) -> Result<()> {
        let began = Instant::now();
        let name = file(server, part);
        let raw = Path::new("/srv/corpus/raw").join(&name);
        for left in (0..TRIES).rev() {
            let mut agent =
                Agent::start_with(&["--record", &raw.display().to_string()], |l| l.contains("\"coverage\""))?;
            agent::warm()?;
            let done = sessions()?;
            // The last processes end, the last counts come in.
            thread::sleep(Duration::from_millis(600));
            let status = agent.stop(libc::SIGINT)?;
            if !status.success() {
                bail!("{name}: the agent: {status}: {}", agent.errors());
            }
            let bytes = fs::read(&raw)?;
            if let Some(keep) = &self.options.raw {
                fs::copy(&raw, keep.join(&name))?;
            }
            fs::remove_file(&raw)?;
            let bytes = filter::thin(&filter::own(&bytes, std::process::id())?)?;
            let known = (part == Part::HeldOut && !self.known.is_empty()).then_some(&self.known);
            let mut replayed = Replayed::of(&bytes, part == Part::Malicious, known)?;
            let mut recording = described(&name, server, role, part, &done);
            recording.lost = replayed.lost.values().sum();
            recording.bytes = bytes.len() as u64;
            recording.novelty = known.map(|_| replayed.novel_calls as f64 / recording.calls.max(1) as f64);
            let problems = replayed.problems(&recording);
            for problem in &problems {
                println!("corpus: {problem}");
            }
            // What a flood does to the agent is part of that flood's variant.
            // Other programs' long names are no loss of ours.
            let missed: u64 =
                replayed.lost.iter().filter(|(cause, _)| *cause != "truncated:text").map(|(_, n)| n).sum();
            let again = missed > 0 && part != Part::Malicious
                || problems.iter().any(|p| p.contains(" sessions,") || p.contains(" calls,"));
            if again && left > 0 {
                println!("corpus: {name}: once more (lost {:?})", replayed.lost);
                continue;
            }
            if part == Part::Train {
                self.known = std::mem::take(&mut replayed.objects);
            }
            self.tell(&recording, &replayed, began.elapsed());
            self.manifest.recordings.retain(|r| r.file != name);
            self.manifest.recordings.push(recording);
            self.pack(name, bytes);
            return Ok(());
        }
        Ok(())
    }

    fn tell(&self, recording: &Recording, replayed: &Replayed, took: Duration) {
        println!(
            "corpus: {}: {} sessions, {} calls, {} effects ({} ambiguous), {:.1} MB, lost {}{} in {:.0} s",
            recording.file,
            recording.sessions,
            recording.calls,
            replayed.effects,
            replayed.ambiguous,
            recording.bytes as f64 / 1e6,
            recording.lost,
            recording.novelty.map(|n| format!(", novel {:.0} %", n * 100.0)).unwrap_or_default(),
            took.as_secs_f64()
        );
    }

    /// Packs while the next is recorded.
    fn pack(&mut self, name: String, bytes: Vec<u8>) {
        let to = self.out.join(&name);
        self.packing.push(thread::spawn(move || {
            let packed = packed(&bytes).with_context(|| name.clone())?;
            let size = packed.len() as u64;
            fs::write(&to, packed).with_context(|| to.display().to_string())?;
            Ok((name, size))
        }));
    }

    /// Waits for the packing and writes the manifest.
    pub(crate) fn finish(mut self) -> Result<()> {
        let mut sizes = BTreeMap::new();
        for thread in self.packing.drain(..) {
            let Ok(done) = thread.join() else { bail!("a packer panicked") };
            let (name, size) = done?;
            sizes.insert(name, size);
        }
        for (name, size) in &sizes {
            println!("corpus: {name}: {:.2} MB", *size as f64 / 1e6);
        }
        write(self.manifest, &self.out)
    }
}

/// Takes out of recordings what this program would not record any more, and packs them again.
pub(crate) fn repack(out: &Path) -> Result<()> {
    let mut manifest = Manifest::read(out)?;
    for recording in &mut manifest.recordings {
        let bytes = filter::thin(&recording.unpack(out)?)?;
        recording.bytes = bytes.len() as u64;
        let problems = Replayed::of(&bytes, recording.part == Part::Malicious, None)?.problems(recording);
        // What is wrong is not written: there is no other copy.
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        let packed = packed(&bytes)?;
        println!("corpus: {}: {:.2} MB", recording.file, packed.len() as f64 / 1e6);
        fs::write(out.join(&recording.file), packed)?;
    }
    write(manifest, out)
}

/// Writes the manifest, and says what it holds.
pub(crate) fn write(mut manifest: Manifest, out: &Path) -> Result<()> {
    manifest.recordings.sort_by(|a, b| (&a.server, a.part).cmp(&(&b.server, b.part)));
    let mut text = serde_json::to_string_pretty(&manifest)?;
    text.push('\n');
    fs::write(out.join("manifest.json"), text)?;
    let recordings = &manifest.recordings;
    let sum = |part: Part| -> u64 { recordings.iter().filter(|r| r.part == part).map(|r| r.calls).sum() };
    let mut total = 0;
    for recording in recordings {
        total += fs::metadata(out.join(&recording.file)).map_or(0, |m| m.len());
    }
    let variants: usize = recordings.iter().map(|r| r.variants.len()).sum();
    println!(
        "corpus: {:.1} MB; {} training calls, {} held-out calls, {variants} variants",
        total as f64 / 1e6,
        sum(Part::Train),
        sum(Part::HeldOut)
    );
    Ok(())
}

fn described(
    name: &str,
    server: &Server,
    role: Role,
    part: Part,
    done: &[(Calls, Option<Known>)],
) -> Recording {
    let mut tools = Calls::new();
    for (tool, n) in done.iter().flat_map(|(calls, _)| calls) {
        *tools.entry(tool.clone()).or_default() += n;
    }
    let variants: Vec<Known> = done.iter().filter_map(|(_, v)| v.clone()).collect();
    debug_assert!(variants.iter().all(|v| v.kernel_visible || v.evidence == Evidence::None), "evidence");
    Recording {
        file: name.to_owned(),
        server: server.name.to_owned(),
        role,
        part,
        sessions: done.len() as u64,
        calls: tools.values().sum(),
        tools,
        host_days: done.len() as f64 / DAY as f64,
        novelty: None,
        lost: 0,
        bytes: 0,
        variants,
    }
}

/// Sessions of one server are much alike: what pays is to look far back.
fn packed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 19)?;
    encoder.set_parameter(CParameter::WindowLog(27))?;
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    encoder.include_checksum(true)?;
    std::io::Write::write_all(&mut encoder, bytes)?;
    Ok(encoder.finish()?)
}
