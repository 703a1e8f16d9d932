//! The agent's loop. One task owns the engine; `select!` only chooses, and every edge to the outside
//! is bounded.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use engine::{
    Engine, Input, Output,
    input::{Digest, Fact},
    output::Request,
    recording,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::Instant,
};

use crate::{
    cli, clients,
    identity::{self, Asked},
    ingest::Ingest,
    kernel::{Counts, Kernel},
    key, measure,
    print::Printer,
};

/// While a tree is tracked, records do not wake the agent one by one: it looks this often.
const LOOK: Duration = Duration::from_millis(5);
/// Loss counters are read this often.
const COUNTERS: Duration = Duration::from_millis(250);
/// Without calls, counts are collected this often.
const DRAIN: Duration = Duration::from_secs(5);
/// Syscall hooks stay attached this long after the last tree is gone.
const LINGER: Duration = Duration::from_secs(10);
/// Records handled before other events get a turn.
const BATCH: usize = 8192;
/// Questions about identity under way at once; more are answered by a time-out in the engine.
const ASKED: usize = 64;

/// What other threads found out.
enum News {
    Fact(Box<Fact>),
    /// No kernel program still writes the map that was active at this time.
    Settled(u64),
    Clients(Arc<clients::Configured>),
}

/// Everything that the loop owns.
struct Agent {
    kernel: Kernel,
    counts: Counts,
    engine: Engine,
    ingest: Ingest,
    printer: Printer,
    recording: Option<BufWriter<File>>,
    frame: Vec<u8>,
    record: Vec<u8>,
    digests: Vec<Digest>,
    outputs: Vec<Output>,
    news: mpsc::Sender<News>,
    clients: Arc<clients::Configured>,
    draining: bool,
    drain_wanted: bool,
    drained_at: Instant,
    idle_since: Option<Instant>,
}

/// Nanoseconds of a clock.
fn clock(id: ClockId) -> i64 {
    let t = clock_gettime(id);
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

fn now_ns() -> u64 {
    clock(ClockId::Boottime) as u64
}

/// Runs the agent until it is told to stop.
pub(crate) fn run(options: &cli::Run) -> Result<()> {
    let started = std::time::Instant::now();
    // Kernels before 5.11 charge maps to this limit; where it cannot be raised the load says so.
    let unlimited = rustix::process::Rlimit { current: None, maximum: None };
    if let Err(e) = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited) {
        tracing::debug!("cannot raise RLIMIT_MEMLOCK: {e}");
    }
    // First what needs rights, so that their lack is what is told.
    let (kernel, ring, counts) = Kernel::load(options.settle_ms * 1_000_000)?;
    let key = key::load(&options.state_dir)?;
    let recording = match &options.record {
        None => None,
        Some(path) => {
            let context = || format!("cannot write {}", path.display());
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
                .with_context(context)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            file.set_permissions(mode).with_context(context)?;
            let mut writer = BufWriter::with_capacity(1 << 16, file);
            writer.write_all(&recording::header()).with_context(context)?;
            Some(writer)
        }
    };
    tracing::info!(ms = started.elapsed().as_millis(), "attached");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let (news, heard) = mpsc::channel(ASKED);
        let agent = Agent {
            kernel,
            counts,
            engine: Engine::new(),
            ingest: Ingest::new(key, options.include_arguments),
            printer: Printer::new(options.print),
            recording,
            frame: Vec::new(),
            record: Vec::new(),
            digests: Vec::new(),
            outputs: Vec::new(),
            news,
            clients: Arc::default(),
            draining: false,
            drain_wanted: false,
            drained_at: Instant::now(),
            idle_since: None,
        };
        agent.main_loop(ring, heard, options).await
    })
}

impl Agent {
    async fn main_loop(
        mut self,
        ring: RingBuf<MapData>,
        mut heard: mpsc::Receiver<News>,
        options: &cli::Run,
    ) -> Result<()> {
        // SAFETY: the ring owns its descriptor for as long as the AsyncFd lives.
        let mut ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|e| anyhow::anyhow!("cannot watch the ring buffer: {}", e.into_parts().1))?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut counters = tokio::time::interval(COUNTERS);
        counters.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        self.begin(options)?;
        self.find_clients();
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                Some(news) = heard.recv() => {
                    if matches!(news, News::Settled(_)) {
                        // The records that announce the counts come first.
                        while self.take(ring.get_mut())? {}
                    }
                    self.on_news(news)?;
                }
                _ = counters.tick() => self.on_counters()?,
                _ = look.tick(), if self.engine.tracked() > 0 => {
                    let more = self.take(ring.get_mut())?;
                    if !more {
                        self.apply(&Input::Tick { now_ns: now_ns() })?;
                    }
                    self.rest()?;
                }
                guard = ring.readable_mut() => {
                    let mut guard = guard.context("cannot wait for the ring buffer")?;
                    let more = self.take(guard.get_inner_mut())?;
                    if !more {
                        guard.clear_ready();
                    }
                    self.rest()?;
                }
            }
            self.printer.flush()?;
        }
        self.stop(ring.get_mut())
    }

    fn begin(&mut self, options: &cli::Run) -> Result<()> {
        let now = now_ns();
        self.fact(&Fact::Start {
            utc_minus_boot_ns: clock(ClockId::Realtime) - now as i64,
            settle_ns: options.settle_ms * 1_000_000,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            include_arguments: options.include_arguments,
        })?;
        for coverage in std::mem::take(&mut self.kernel.coverage) {
            self.fact(&Fact::Coverage(coverage))?;
        }
        self.printer.ready()
    }

    /// Reads client configurations anew, off the loop.
    fn find_clients(&self) {
        let news = self.news.clone();
        tokio::task::spawn_blocking(move || {
            let configured = clients::discover(&clients::homes());
            for problem in &configured.problems {
                tracing::info!(file = %problem.file.display(), "client configuration: {}", problem.reason);
            }
            // The loop is gone: so is the use of this.
            let _unused = news.blocking_send(News::Clients(Arc::new(configured)));
        });
    }

    /// Feeds records to the engine; true when there may be more.
    fn take(&mut self, ring: &mut RingBuf<MapData>) -> Result<bool> {
        for _ in 0..BATCH {
            let Some(item) = ring.next() else {
                return Ok(false);
            };
            let mut record = std::mem::take(&mut self.record);
            record.clear();
            record.extend_from_slice(item.get(..engine::record::used(&item)).unwrap_or_default());
            drop(item);
            let new_tree = is_new_tree(&record);
            if new_tree {
                self.attach()?;
            }
            let mut digests = std::mem::take(&mut self.digests);
            digests.clear();
            self.ingest.mask(&mut record, &mut digests);
            let done = self.apply(&Input::Record { bytes: &record, digests: &digests });
            self.record = record;
            self.digests = digests;
            done?;
        }
        Ok(true)
    }

    fn attach(&mut self) -> Result<()> {
        self.idle_since = None;
        if !self.kernel.attached() {
            self.kernel.attach_syscalls()?;
            self.fact(&Fact::Attached)?;
        }
        Ok(())
    }

    /// Gives the other processes of the host their speed back when nothing is tracked.
    fn rest(&mut self) -> Result<()> {
        if self.engine.tracked() > 0 || !self.kernel.attached() {
            self.idle_since = None;
            return Ok(());
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() > LINGER {
            self.kernel.detach_syscalls()?;
            self.idle_since = None;
            self.fact(&Fact::Detached)?;
        }
        Ok(())
    }

    fn fact(&mut self, fact: &Fact) -> Result<()> {
        self.apply(&Input::Fact { now_ns: now_ns(), fact })
    }

    fn apply(&mut self, input: &Input<'_>) -> Result<()> {
        if let Some(file) = &mut self.recording {
            self.frame.clear();
            recording::write(*input, &mut self.frame);
            file.write_all(&self.frame).context("cannot write the recording")?;
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.clear();
        self.engine.apply(*input, &mut outputs);
        // Before the lines are printed: what a line says of "from now on" is so when it is read.
        let mut facts = Vec::new();
        for output in &outputs {
            if let Output::Request(request) = output {
                self.perform(*request, &mut facts);
            }
        }
        let result = self.printer.print(&outputs);
        self.outputs = outputs;
        result?;
        facts.iter().try_for_each(|f| self.fact(f))
    }

    fn perform(&mut self, request: Request, facts: &mut Vec<Fact>) {
        match request {
            Request::Forget { tree } => self.kernel.forget(tree),
            Request::ForgetChannel { channel } => {
                self.kernel.forget_channel(channel);
                self.ingest.forget(channel);
            }
            Request::Channel { channel, mode } => self.kernel.set_channel(channel, mode),
            Request::Prove { client } => self.kernel.prove(client),
            Request::Measure { tgid } => facts.extend(measure::usage(tgid)),
            Request::Drain => self.drain_wanted = true,
            Request::Identify { tree, tgid, root, client } => {
                let (news, configured) = (self.news.clone(), Arc::clone(&self.clients));
                let asked = Asked { tree, tgid, root, client };
                tokio::task::spawn_blocking(move || {
                    let found = identity::resolve(&asked, &configured);
                    // The loop is gone: so is the use of this.
                    let _unused = news.blocking_send(News::Fact(Box::new(Fact::Identity(found))));
                });
            }
        }
        if self.drain_wanted && !self.draining {
            self.start_drain();
        }
    }

    fn start_drain(&mut self) {
        self.drain_wanted = false;
        let up_to = now_ns();
        if let Err(e) = self.counts.flip() {
            tracing::error!("{e:#}");
            return;
        }
        self.draining = true;
        let news = self.news.clone();
        tokio::task::spawn_blocking(move || {
            Counts::settle();
            // The loop is gone: so is the use of this.
            let _unused = news.blocking_send(News::Settled(up_to));
        });
    }

    fn hand_in(&mut self, up_to_ns: u64) -> Result<()> {
        let mut facts = Vec::new();
        self.counts.drain(&mut facts);
        facts.push(Fact::Drained { up_to_ns });
        facts.iter().try_for_each(|f| self.fact(f))
    }

    fn on_news(&mut self, news: News) -> Result<()> {
        match news {
            News::Fact(fact) => self.fact(&fact),
            News::Clients(configured) => {
                self.clients = configured;
                Ok(())
            }
            News::Settled(up_to) => {
                self.draining = false;
                self.drained_at = Instant::now();
                self.hand_in(up_to)?;
                if self.drain_wanted {
                    self.start_drain();
                }
                Ok(())
            }
        }
    }

    fn on_counters(&mut self) -> Result<()> {
        let mut losses = self.counts.losses();
        let misses = self.kernel.misses();
        if misses > 0 {
            losses.push(("missed:program-runs".into(), misses));
        }
        for (cause, total) in losses {
            self.fact(&Fact::Lost { cause, total })?;
        }
        if self.engine.tracked() > 0 && !self.draining && self.drained_at.elapsed() > DRAIN {
            self.start_drain();
        }
        self.rest()
    }

    /// Takes in what is still under way, so that the last lines are complete.
    fn stop(mut self, ring: &mut RingBuf<MapData>) -> Result<()> {
        self.kernel.detach_syscalls()?;
        let up_to = now_ns();
        self.counts.flip()?;
        Counts::settle();
        while self.take(ring)? {}
        self.hand_in(up_to)?;
        if self.draining {
            // A drain was under way: its map is the one that is active now.
            self.counts.flip()?;
            Counts::settle();
            self.hand_in(now_ns())?;
        }
        self.on_counters()?;
        self.fact(&Fact::Stop)?;
        self.printer.finish()?;
        if let Some(file) = &mut self.recording {
            file.flush().context("cannot write the recording")?;
        }
        Ok(())
    }
}

/// Whether a record says that a new tree began: the hooks must be attached at once.
fn is_new_tree(record: &[u8]) -> bool {
    use zerocopy::FromBytes as _;
    engine::record::kind_of(record) == Some(abi::kind::EXEC)
        && abi::Exec::read_from_prefix(record)
            .is_ok_and(|(exec, _)| exec.flags & abi::exec_flag::NEW_TREE != 0)
}
