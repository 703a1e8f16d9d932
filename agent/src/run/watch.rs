//! Whether the hooks still do their work: links are looked at every few seconds, and a canary does real acts at
//! the start and from time to time. What is lost is told, attached again where that can be done, and told again.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use anyhow::{Result, bail};
use aya::maps::{MapData, RingBuf};
use engine::{
    input::Fact,
    output::{Coverage, CoverageState},
};
use tokio::time::Instant;

use super::{Agent, now_ns};
use crate::{
    cli::OnDegraded,
    config::Settings,
    doctor::{
        canary::{Canary, Proof},
        classify::{enforceable, prove},
        hooks::{HOOKS, Hook},
    },
    kernel::Linked,
};

/// Links are looked at this often: some 40 small files of /proc.
const CHECK: Duration = Duration::from_secs(5);
/// At the start, the canary is looked at this often.
const LOOK: Duration = Duration::from_millis(1);
/// Canaries at the start: on a busy host, the first may come late.
const TRIES: usize = 2;
/// In coverage lines, the v2 hierarchy's mount.
const MOUNT: &str = "cgroup-mount";

/// What is known of the hooks.
pub(super) struct Watch {
    canary: Option<Canary>,
    /// Records of canaries that counts may still come in for.
    announced: HashSet<u64>,
    /// As the hooks were attached at the start.
    attached: BTreeMap<String, Coverage>,
    /// As last told.
    told: BTreeMap<String, Coverage>,
    /// Links that were there when they were last looked at, by program.
    links: BTreeMap<&'static str, u32>,
    /// Hooks that are blind because the canary proved it.
    silent: BTreeSet<String>,
    /// The latest canary found something silent: another one has to say so, too.
    suspected: bool,
    /// A hook was attached again: that it works, too, is for the canary to say.
    doubted: bool,
    every: Option<Duration>,
    checked_at: Instant,
    proved_at: Instant,
}

impl Watch {
    pub(super) fn new(canary_minutes: u64) -> Self {
        Self {
            canary: None,
            announced: HashSet::new(),
            attached: BTreeMap::new(),
            told: BTreeMap::new(),
            links: BTreeMap::new(),
            silent: BTreeSet::new(),
            suspected: false,
            doubted: false,
            every: pause(canary_minutes),
            checked_at: Instant::now(),
            proved_at: Instant::now(),
        }
    }

    /// Canaries run so often from now on.
    pub(super) fn every(&mut self, canary_minutes: u64) {
        self.every = pause(canary_minutes);
    }

    /// The hooks must stay attached.
    pub(super) fn is_busy(&self) -> bool {
        self.canary.is_some()
    }

    /// Takes in a record of the canary's; false when it is another's.
    pub(super) fn claims(&mut self, record: &[u8]) -> bool {
        self.canary.as_mut().is_some_and(|canary| canary.claims(record))
    }

    /// Whether counts that were handed in are the canary's.
    pub(super) fn counted(&self, fact: &Fact) -> bool {
        matches!(fact, Fact::Aggregate { id, .. } if self.announced.contains(id))
    }

    /// All counts that began before now are handed in.
    pub(super) fn drained(&mut self) {
        if self.canary.is_none() {
            self.announced.clear();
        }
    }
}

fn pause(canary_minutes: u64) -> Option<Duration> {
    (canary_minutes > 0).then(|| Duration::from_secs(canary_minutes * 60))
}

fn is_mounted() -> bool {
    // A table that cannot be read says nothing.
    std::fs::read_to_string("/proc/self/mounts")
        .map_or(true, |table| table.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2")))
}

impl Agent {
    /// Proves the hooks before anybody is told that the agent watches.
    pub(super) fn prove_hooks(&mut self, ring: &mut RingBuf<MapData>, options: &Settings) -> Result<()> {
        let mut attached = std::mem::take(&mut self.kernel.coverage);
        if is_mounted() {
            attached.push(Coverage { hook: MOUNT.into(), state: CoverageState::Observing, because: None });
        }
        let mut failed = Vec::new();
        let mut proved = Vec::new();
        for _ in 0..TRIES {
            let proof = self
                .canary(ring)
                .unwrap_or_else(|e| Proof { broken: Some(format!("{e:#}")), ..Proof::default() });
            proved = attached.iter().map(|c| prove(c, &proof)).collect::<Vec<_>>();
            failed = unproved(&proved, &proof);
            let silent = proved.iter().zip(&attached).any(|(p, a)| p.state != a.state);
            if failed.is_empty() && !silent {
                break;
            }
        }
        for (proved, attached) in proved.into_iter().zip(attached) {
            if proved.state != attached.state {
                self.watch.silent.insert(attached.hook.clone());
            }
            self.watch.attached.insert(attached.hook.clone(), attached);
            self.cover(proved)?;
        }
        match (failed.first(), options.on_degraded) {
            (Some(because), OnDegraded::Refuse) => bail!("{because}"),
            (Some(because), OnDegraded::Observe) => anstream::eprintln!("toolwarden: {because}"),
            (None, _) => {}
        }
        // Only now: a hook that is lost later is a finding, and what the others deny stays denied.
        self.fact(&Fact::Command(enforceable(self.watch.told.values())))?;
        self.check_links()
    }

    fn cover(&mut self, coverage: Coverage) -> Result<()> {
        self.watch.told.insert(coverage.hook.clone(), coverage.clone());
        self.fact(&Fact::Coverage(coverage))
    }

    /// One canary, waited for.
    fn canary(&mut self, ring: &mut RingBuf<MapData>) -> Result<Proof> {
        self.attach()?;
        self.watch.canary = Some(Canary::start(&mut self.kernel, false, now_ns())?);
        loop {
            while self.take(ring)? {}
            if let Some(proof) = self.through() {
                return Ok(proof);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What the canary proved, once it is through.
    fn through(&mut self) -> Option<Proof> {
        if !self.watch.canary.as_mut()?.poll(&self.kernel) {
            return None;
        }
        let (proof, announced) = self.watch.canary.take()?.finish(&mut self.kernel);
        self.watch.announced.extend(announced);
        self.watch.proved_at = Instant::now();
        // Without a drain the kernel would keep its counts: nobody else may be tracked.
        self.drain_wanted = true;
        if !self.draining {
            self.start_drain();
        }
        Some(proof)
    }

    /// Looks whether all is as it was.
    pub(super) fn watch(&mut self, ring: &mut RingBuf<MapData>) -> Result<()> {
        if self.watch.canary.is_some() {
            while self.take(ring)? {}
            if let Some(proof) = self.through() {
                self.weigh(&proof)?;
            }
        } else if self.watch.suspected
            || self.watch.doubted
            || self.watch.every.is_some_and(|every| self.watch.proved_at.elapsed() > every)
        {
            self.watch.doubted = false;
            self.attach()?;
            match Canary::start(&mut self.kernel, false, now_ns()) {
                Ok(canary) => self.watch.canary = Some(canary),
                Err(e) => {
                    tracing::warn!("the hooks cannot be proved now: {e:#}");
                    self.watch.suspected = false;
                    self.watch.proved_at = Instant::now();
                }
            }
        }
        if self.watch.checked_at.elapsed() >= CHECK {
            self.watch.checked_at = Instant::now();
            self.check_links()?;
            self.check_mount()?;
        }
        Ok(())
    }

    /// What the canary's proof changes.
    fn weigh(&mut self, proof: &Proof) -> Result<()> {
        let silent: Vec<Coverage> = self
            .watch
            .told
            .values()
            .filter(|c| c.state != CoverageState::Blind)
            .map(|c| prove(c, proof))
            .filter(|c| c.state == CoverageState::Blind)
            .collect();
        if !silent.is_empty() && !self.watch.suspected {
            // Once may be a busy host.
            self.watch.suspected = true;
            return Ok(());
        }
        self.watch.suspected = false;
        for coverage in silent {
            self.watch.silent.insert(coverage.hook.clone());
            self.cover(coverage)?;
        }
        for hook in self.watch.silent.clone() {
            let again = self.watch.attached.get(&hook).map(|c| prove(c, proof));
            let tried = HOOKS.iter().filter(|h| h.coverage == hook).all(|h| proof.seen.contains(&h.acts[0]));
            if let Some(mut again) = again.filter(|c| c.state != CoverageState::Blind && tried) {
                self.watch.silent.remove(&hook);
                again.because = Some("it tells again; before that its acts were not seen".into());
                self.cover(again)?;
            }
        }
        Ok(())
    }

    /// Finds links that others detached, and attaches them again.
    fn check_links(&mut self) -> Result<()> {
        let hooks: Vec<&Hook> = HOOKS
            .iter()
            .filter(|h| self.kernel.attached() || !matches!(h.coverage, "syscalls" | "io_uring"))
            .filter(|h| self.watch.attached.get(h.coverage).is_some_and(|c| c.state != CoverageState::Blind))
            .collect();
        let programs: Vec<&str> = hooks.iter().map(|h| h.program).collect();
        let linked = self.kernel.linked(&programs)?;
        for (hook, (program, linked)) in hooks.into_iter().zip(linked) {
            let gone = match linked {
                Linked::To(id) => {
                    self.watch.links.insert(program, id);
                    continue;
                }
                Linked::Cut(id) => format!("its link {id} was detached by another process"),
                Linked::Never => match self.watch.links.get(program) {
                    Some(id) => format!("its link {id} is gone"),
                    // One of two tracepoints, of which a kernel has one.
                    None => continue,
                },
            };
            self.lost(hook, &gone)?;
        }
        Ok(())
    }

    fn lost(&mut self, hook: &Hook, gone: &str) -> Result<()> {
        let seen = self.watch.told.get(hook.coverage).is_some_and(|c| c.state != CoverageState::Blind);
        if seen {
            let because = Some(format!("{gone}; not seen: {}", hook.sees));
            self.cover(Coverage { hook: hook.coverage.into(), state: CoverageState::Blind, because })?;
        }
        match self.kernel.attach_again(hook.program) {
            Ok(()) => {
                let Some(mut again) = self.watch.attached.get(hook.coverage).cloned() else {
                    return Ok(());
                };
                again.because = Some(format!(
                    "{gone}; it is attached again, and what happened meanwhile was not seen: {}",
                    hook.sees
                ));
                self.cover(again)?;
                self.watch.doubted = true;
            }
            Err(e) => tracing::warn!(hook = hook.name, "it cannot be attached again: {e:#}"),
        }
        Ok(())
    }

    fn check_mount(&mut self) -> Result<()> {
        let Some(told) = self.watch.told.get(MOUNT) else {
            return Ok(());
        };
        let (was, is) = (told.state != CoverageState::Blind, is_mounted());
        if was == is {
            return Ok(());
        }
        let (state, because) = if is {
            (CoverageState::Observing, "the v2 hierarchy is mounted again")
        } else {
            (
                CoverageState::Blind,
                "the v2 hierarchy is not mounted any more: servers cannot be frozen or killed as a whole, and a \
                 network hook that is lost cannot be attached again; mount -t cgroup2 none /sys/fs/cgroup/unified",
            )
        };
        self.cover(Coverage { hook: MOUNT.into(), state, because: Some(because.into()) })
    }
}

/// What nothing works without, and was not proved.
fn unproved(proved: &[Coverage], proof: &Proof) -> Vec<String> {
    let needed = ["lifecycle", "syscalls"];
    let blind =
        proved.iter().filter(|c| needed.contains(&c.hook.as_str()) && c.state == CoverageState::Blind);
    let mut failed: Vec<String> = blind
        .map(|c| format!("the hook `{}` does not work: {}", c.hook, c.because.as_deref().unwrap_or_default()))
        .collect();
    let unseen =
        HOOKS.iter().filter(|h| needed.contains(&h.coverage)).any(|h| !proof.seen.contains(&h.acts[0]));
    if failed.is_empty() && unseen {
        let why = proof.broken.as_deref().unwrap_or("it does not say why");
        failed.push(format!(
            "the hooks could not be proved ({why}); run `toolwarden doctor`, or start with --on-degraded observe"
        ));
    }
    failed
}
