//! The agent's loop. One task owns the engine; `select!` only chooses, and every edge to the outside
//! is bounded.
//!
//! # Layout
//! - this module: start, the loop, stop
//! - [`ring`]: records from the ring, hooks, counters
//! - [`hold`]: what servers are held to
//! - [`exposure`]: for how long their rights are open
//! - [`watch`]: whether the hooks still work
//! - [`requests`]: inputs to the engine, and what it asks of the system
//! - [`respond`]: what is done about servers
//! - [`told`]: how the agent is, for the service manager and for metrics

mod exposure;
mod hold;
mod requests;
mod respond;
mod ring;
mod told;
mod watch;

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use engine::{
    Engine, Input, Output,
    input::{Digest, Fact},
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
    clients,
    config::Settings,
    contain::{Contain, layout::Layout},
    control,
    desk::{self, Desk, Order},
    guard,
    ingest::Ingest,
    kernel::{Counts, Kernel},
    key,
    print::Printer,
    running,
    service::Service,
};

/// While a tree is tracked, records do not wake the agent one by one: it looks this often.
const LOOK: Duration = Duration::from_millis(5);
/// Loss counters are read this often.
const COUNTERS: Duration = Duration::from_millis(250);
/// Without calls, counts are collected this often.
const DRAIN: Duration = Duration::from_secs(5);
/// Syscall hooks stay attached this long after the last tree is gone.
const LINGER: Duration = Duration::from_secs(10);
/// Candidates that were let go are looked at this often.
const WAITING: Duration = Duration::from_secs(1);
/// Looks at the processes that run already, until one finds nothing new.
const ROUNDS: usize = 8;
/// Records handled before other events get a turn.
const BATCH: usize = 8192;
/// Priority of the loop, as of `nice`.
const NICE: i32 = -5;
/// Questions about identity under way at once; more are answered by a time-out in the engine.
const ASKED: usize = 64;

/// Sightings of servers and tools are stored this often.
const INVENTORY: Duration = Duration::from_secs(5);
/// Baselines that changed are stored this often.
const SAVE: Duration = Duration::from_secs(10);
/// Batches of records that a change waits for: under a flood it comes in between.
const FIRST: usize = 16;

/// What other threads found out.
enum News {
    Fact(Box<Fact>),
    /// No kernel program still writes the map that was active at this time.
    Settled(u64),
    /// No kernel program still knows what nobody was held to any more.
    Retired,
    Clients(Arc<clients::Configured>),
}

/// Whom the loop listens to.
struct Heard {
    news: mpsc::Receiver<News>,
    asked: mpsc::Receiver<control::Ask>,
    orders: mpsc::Receiver<Order>,
}

/// Everything that the loop owns.
struct Agent {
    kernel: Kernel,
    counts: Counts,
    contain: Contain,
    engine: Engine,
    desk: Desk,
    /// What the engine last said of a decision.
    answered: Option<std::result::Result<String, String>>,
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
    retiring: bool,
    drained_at: Instant,
    idle_since: Option<Instant>,
    waiting: running::Waiting,
    looked_at: Instant,
    hold: Option<hold::Hold>,
    watch: watch::Watch,
    service: Arc<Service>,
    told: told::Told,
    /// What is in force stays so at a clean stop.
    keep: bool,
}

/// Nanoseconds of a clock.
fn clock(id: ClockId) -> i64 {
    let t = clock_gettime(id);
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    interval
}

pub(crate) fn now_ns() -> u64 {
    clock(ClockId::Boottime) as u64
}

/// A busy host must not starve the loop, or the ring overflows: it comes before ordinary work, as
/// auditd does. The threads of the runtime, which read files, do not.
fn prefer() {
    if let Err(e) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!("cannot raise the loop's priority: {e}");
    }
}

/// Runs the agent until it is told to stop.
pub(crate) fn run(options: &Settings) -> Result<()> {
    let started = std::time::Instant::now();
    let service = Arc::new(Service::of_environment());
    service.status("attaching");
    // Kernels before 5.11 charge maps to this limit; where it cannot be raised the load says so.
    let unlimited = rustix::process::Rlimit { current: None, maximum: None };
    if let Err(e) = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited) {
        tracing::debug!("cannot raise RLIMIT_MEMLOCK: {e}");
    }
    // Without rights there is no lock either: then their lack is what is told.
    let root = rustix::process::geteuid().is_root();
    let _guard = if root { Some(guard::Guard::take(&options.guard)?) } else { None };
    let (kernel, ring, counts) = Kernel::load(options.settle_ms * 1_000_000, Some(&options.pins))?;
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
    let mut kernel = kernel;
    kernel.set_resolvers(&desk::resolvers().unwrap_or_default())?;
    guard(&mut kernel, options)?;
    let hold = options.hold.as_deref().map(|file| hold::Hold::read(file, &mut kernel)).transpose()?;
    let desk::Prepared { desk, orders, facts } = desk::prepare(options, &service)?;
    tracing::info!(ms = started.elapsed().as_millis(), "attached");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .on_thread_start(|| {
            // Lowering it is always allowed.
            let _unused = rustix::process::setpriority_process(None, 0);
        })
        .build()
        .context("cannot start the async runtime")?;
    prefer();
    runtime.block_on(async {
        let (news, heard) = mpsc::channel(ASKED);
        let asked = open_desk(options, &desk)?;
        // It is there only now.
        kernel.guard_files(options.control.as_slice())?;
        let agent = Agent {
            kernel,
            counts,
            contain: Contain::new(&options.state_dir, Layout::of_host()).pinned(&options.pins),
            engine: Engine::new(),
            desk,
            answered: None,
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
            retiring: false,
            drained_at: Instant::now(),
            idle_since: None,
            waiting: running::Waiting::default(),
            looked_at: Instant::now(),
            hold,
            watch: watch::Watch::new(options.canary_minutes),
            service,
            told: told::Told::new(options),
            keep: options.keep_enforcing,
        };
        agent.main_loop(ring, Heard { news: heard, asked, orders }, facts, options).await
    })
}

/// What this process keeps and reads.
fn own_files(options: &Settings) -> Vec<PathBuf> {
    let mut paths = vec![options.state_dir.clone(), options.guard.clone(), options.pins.clone()];
    paths.extend(options.control.iter().chain(&options.rules).chain(&options.files).cloned());
    // A file there disarms all agents.
    paths.extend(["/etc/toolwarden".into(), "/run/toolwarden".into()]);
    paths.extend(std::env::current_exe());
    paths
}

/// The same for the engine, which tells of acts that nothing denies.
fn guarded(options: &Settings) -> Fact {
    let layout = Layout::of_host();
    let real = |path: PathBuf| {
        let real = std::fs::canonicalize(&path).or_else(|_| std::path::absolute(&path)).unwrap_or(path);
        real.to_string_lossy().into_owned()
    };
    let mut files = own_files(options);
    files.extend(layout.homes());
    files.push(format!("/proc/{}", std::process::id()).into());
    Fact::Guarded {
        files: files.into_iter().map(real).collect(),
        inside: layout.around_us().into_iter().map(real).collect(),
    }
}

/// What no server may touch: this process, and what it keeps and reads.
fn guard(kernel: &mut Kernel, options: &Settings) -> Result<()> {
    kernel.guard_task(std::process::id(), true)?;
    let layout = Layout::of_host();
    let mut paths = own_files(options);
    paths.extend(layout.homes());
    kernel.guard_files(&paths)?;
    kernel.guard_inside(&layout.around_us())?;
    kernel.guard_nothing_else();
    Ok(())
}

/// Serves the control socket; what peers may ask arrives at the loop.
fn open_desk(options: &Settings, desk: &Desk) -> Result<mpsc::Receiver<control::Ask>> {
    let (asks, asked) = mpsc::channel(control::WAITING);
    if let Some(path) = &options.control {
        let group = control::group();
        let socket = control::Socket::bind(path, group)?;
        let (watcher, feeds) = (desk.watcher(), desk.feeds());
        tokio::spawn(async move {
            if let Err(e) = control::serve(socket, group, watcher, asks, feeds).await {
                tracing::error!("{e:#}");
            }
        });
    }
    Ok(asked)
}

impl Agent {
    async fn main_loop(
        mut self,
        ring: RingBuf<MapData>,
        mut heard: Heard,
        facts: Vec<Fact>,
        options: &Settings,
    ) -> Result<()> {
        // SAFETY: the ring owns its descriptor for as long as the AsyncFd lives.
        let mut ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|e| anyhow::anyhow!("cannot watch the ring buffer: {}", e.into_parts().1))?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let mut hangup = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
        let (mut look, mut counters) = (every(LOOK), every(COUNTERS));
        let (mut inventory, mut save) = (every(INVENTORY), every(SAVE));
        let mut tell = every(told::TELL);
        // Asked for by the service manager only.
        let mut alive = every(self.service.watchdog().unwrap_or(told::TELL));
        let minutes = options.outbox.heartbeat_minutes.0;
        let mut heartbeat = every(Duration::from_secs(60 * minutes.max(1)));
        heartbeat.reset();
        self.begin(ring.get_mut(), &facts, options)?;
        drop(facts);
        if let Some(why) = self.engine.judge().unenforceable() {
            return Err(crate::commands::Stop::new(crate::commands::Exit::Invalid, why).into());
        }
        self.find_clients();
        self.tell();
        self.service.ready();
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = hangup.recv() => {
                    let hands = self.desk.hands();
                    tokio::spawn(async move { hands.reload_unasked().await });
                }
                _ = alive.tick(), if self.service.watchdog().is_some() => self.prove_progress(ring.get_mut())?,
                Some(news) = heard.news.recv() => {
                    if matches!(news, News::Settled(_)) {
                        // The records that announce the counts come first.
                        while self.take(ring.get_mut())? {}
                    }
                    self.on_news(news)?;
                }
                Some(order) = heard.orders.recv() => self.on_order(order)?,
                Some(ask) = heard.asked.recv() => self.on_ask(ask, ring.get_mut())?,
                _ = inventory.tick() => {
                    self.desk.store_inventory();
                    self.expire();
                }
                _ = save.tick() => {
                    let hands = self.desk.hands();
                    // It says itself what is wrong, and nothing is lost: it is tried again.
                    tokio::spawn(async move { hands.save().await });
                }
                _ = heartbeat.tick(), if minutes > 0 => self.desk.tell(desk::Event::Heartbeat, &self.engine),
                _ = tell.tick() => self.tell(),
                _ = counters.tick() => {
                    self.on_counters()?;
                    self.look_again(ring.get_mut())?;
                    self.watch(ring.get_mut())?;
                }
                _ = look.tick(), if self.engine.tracked() > 0 => {
                    self.count_rights();
                    let unsure = self.kernel.unsure(now_ns());
                    let more = self.take(ring.get_mut())?;
                    if !more {
                        self.apply(&Input::Tick { now_ns: now_ns() })?;
                    }
                    self.clear_up(&unsure, more);
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
        self.service.stopping();
        self.stop(ring.get_mut())
    }

    fn on_ask(&mut self, ask: control::Ask, ring: &mut RingBuf<MapData>) -> Result<()> {
        if ask.verb.changes() {
            // Who asks may belong to a tree that only the ring knows yet.
            for _ in 0..FIRST {
                if !self.take(ring)? {
                    break;
                }
            }
            self.desk.look(&self.engine);
        }
        self.desk.answer(ask, &self.engine);
        Ok(())
    }

    fn begin(&mut self, ring: &mut RingBuf<MapData>, facts: &[Fact], options: &Settings) -> Result<()> {
        let now = now_ns();
        self.fact(&Fact::Start {
            utc_minus_boot_ns: clock(ClockId::Realtime) - now as i64,
            settle_ns: options.settle_ms * 1_000_000,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            include_arguments: options.include_arguments,
            in_flight_ns: options.in_flight_s * 1_000_000_000,
        })?;
        self.fact(&guarded(options))?;
        for fact in facts {
            self.answered = None;
            self.fact(fact)?;
            if let Some(Err(why)) = self.answered.take() {
                anyhow::bail!("{why}");
            }
        }
        self.take_over()?;
        self.prove_hooks(ring, options)?;
        self.find_running(ring, None)?;
        // Attached for the canary only.
        if self.engine.tracked() == 0 {
            self.detach()?;
        }
        self.desk.tell(desk::Event::Started, &self.engine);
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

    /// Takes in what is still under way, so that the last lines are complete.
    fn stop(mut self, ring: &mut RingBuf<MapData>) -> Result<()> {
        let keep = self.keep;
        self.kernel.keep = keep;
        if !keep {
            self.kernel.detach_syscalls()?;
        }
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
        self.desk.tell(desk::Event::Stopped, &self.engine);
        if keep {
            // Whoever comes next does not know what is to go.
            self.kernel.retire_now();
        } else {
            self.contain.close(&mut self.kernel);
            self.kernel.unpin().context("what was denied may still be")?;
        }
        self.printer.finish()?;
        if let Some(file) = &mut self.recording {
            file.flush().context("cannot write the recording")?;
        }
        self.desk.close(&mut self.engine);
        Ok(())
    }
}
