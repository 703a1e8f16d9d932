//! In the agent: feeds the sinks from the store, stores how far each is, and keeps their process alive. A thread of its own, because it reads the
//! database and waits for a process; the loop never waits for it.

use std::{
    io::{ErrorKind, Read as _},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    board::Board,
    child::{LEAVE, Process, WRITE},
    deliver::pause,
    host::Host,
    process::ALIVE,
    redact::Redactor,
    spec::Spec,
    wire::{BATCH, BATCH_BYTES, Event, Order, Word},
};
use crate::{
    store::{Job, Reader, Store, Wants},
    wake::Wake,
};

/// A process that says nothing for this long is hung.
const SILENT: Duration = ALIVE.saturating_mul(6);
/// After a change of the sinks, what was sent may still be acknowledged for so long; after that it is sent again.
const CHANGE: Duration = Duration::from_secs(2);
/// The store is asked again whether it knows the sinks, which it is told when the agent starts.
const ASK: Duration = Duration::from_millis(100);
/// Words of the process read at a time.
const PIECE: usize = 64 << 10;

/// What to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) host: Host,
    pub(crate) sinks: Vec<(Spec, Wants)>,
    /// User and group of the process.
    pub(crate) user: (u32, u32),
    /// The host's key of argument hashes: markers of what is redacted depend on it.
    pub(crate) redactor: Redactor,
}

/// The thread that feeds sinks.
#[derive(Debug)]
pub(crate) struct Sinks {
    told: Arc<Told>,
    board: Arc<Board>,
    ended: Mutex<Receiver<()>>,
}

#[derive(Debug)]
struct Told {
    /// Something of it changed.
    signal: Wake,
    /// The end: until then what waits may still be delivered.
    until: Mutex<Option<Instant>>,
    plan: Mutex<Arc<Plan>>,
}

impl Told {
    fn until(&self) -> Option<Instant> {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sinks {
    /// Starts. The store knows the sinks already, or is told before anything else; it raises `wake` when there is something new.
    pub(crate) fn start(plan: Plan, store: Arc<Store>, wake: Arc<Wake>) -> Result<Self> {
        let told = Arc::new(Told {
            signal: Wake::new()?,
            until: Mutex::new(None),
            plan: Mutex::new(Arc::new(plan)),
        });
        let board = Arc::new(Board::default());
        let (alive, ended) = channel::<()>();
        let broker = Broker { store, wake, told: Arc::clone(&told), board: Arc::clone(&board) };
        thread::Builder::new()
            .name("sinks".to_owned())
            .spawn(move || {
                broker.run();
                drop(alive);
            })
            .context("cannot start a thread for the sinks")?;
        Ok(Self { told, board, ended: Mutex::new(ended) })
    }

    pub(crate) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Whether anything is delivered anywhere.
    pub(crate) fn any(&self) -> bool {
        !self.told.plan().sinks.is_empty()
    }

    /// Whether that is what is being done: the same sinks with the same secrets, on the same host, by the same user.
    pub(crate) fn follow(&self, plan: &Plan) -> bool {
        let now = self.told.plan();
        (&now.host, &now.sinks, now.user) == (&plan.host, &plan.sinks, plan.user)
    }

    /// From now on this plan. The store was told of its sinks before.
    pub(crate) fn change(&self, plan: Plan) {
        *self.told.plan.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
        self.told.signal.raise();
    }

    /// Delivers what waits to those that work, for so long at most, and ends. What is left waits for the next agent.
    pub(crate) fn finish(&self, limit: Duration) {
        *self.told.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + limit);
        self.told.signal.raise();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent: it ends with the thread, or with the time.
        let _unused = ended.recv_timeout(limit + LEAVE + WRITE);
    }
}

struct Broker {
    store: Arc<Store>,
    wake: Arc<Wake>,
    told: Arc<Told>,
    board: Arc<Board>,
}

/// A sink, as far as the broker knows.
struct Feed {
    /// It has everything up to here, and the store knows or will.
    cursor: i64,
    /// Up to here it was sent.
    sent: i64,
    /// It waits for what comes after `sent`.
    hungry: bool,
}

impl Broker {
    fn run(&self) {
        let mut failures = 0;
        loop {
            // Lowered first: what changes after this look raises it again.
            self.told.signal.lower();
            if self.told.until().is_some() {
                return;
            }
            let plan = self.told.plan();
            self.board.keep(|name| plan.sinks.iter().any(|(spec, _)| spec.name == name));
            if plan.sinks.is_empty() {
                self.wait(ALIVE);
                continue;
            }
            let began = Instant::now();
            match self.serve(&plan) {
                Ok(()) => {
                    self.board.ended();
                    failures = 0;
                }
                Err(e) => {
                    let because = format!("{e:#}");
                    tracing::warn!("the process of the sinks is started again: {because}");
                    self.board.broken(&because);
                    failures = if began.elapsed() > SILENT { 0 } else { failures + 1 };
                    self.wait(pause(failures));
                }
            }
        }
    }

    /// Waits, but not when something changed or the end has come.
    fn wait(&self, time: Duration) {
        let mut fds = [PollFd::new(&self.told.signal, PollFlags::IN)];
        // Interrupted: it was long enough.
        let _unused = poll(&mut fds, Some(&timespec(time)));
    }

    /// One process, from its start to the end of the agent or of the plan; an error when it ended before.
    fn serve(&self, plan: &Arc<Plan>) -> Result<()> {
        let reader = self.store.reader().context("cannot read the store")?;
        let Some(mut feeds) = self.feeds(plan, &reader)? else { return Ok(()) };
        let mut process = Process::start(plan)?;
        let sinks =
            plan.sinks.iter().zip(&feeds).map(|((spec, _), feed)| (spec.clone(), feed.cursor)).collect();
        process.say(&Order::Begin { host: plan.host.clone(), sinks })?;
        let mut leaving = None;
        loop {
            let until = self.told.until().or(leaving);
            let timeout = until.map_or(ALIVE, |until| until.saturating_duration_since(Instant::now()));
            let mut fds = [
                PollFd::new(&process.socket, PollFlags::IN),
                PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
                PollFd::new(&self.told.signal, PollFlags::IN),
            ];
            match poll(&mut fds, Some(&timespec(timeout.min(ALIVE)))) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context("cannot wait for the sinks"),
            }
            let [spoke, new, changed] = [0, 1, 2].map(|n| !fds[n].revents().is_empty());
            if new {
                self.wake.lower();
            }
            if changed {
                self.told.signal.lower();
            }
            if spoke {
                self.listen(plan, &mut process, &mut feeds)?;
            }
            if leaving.is_none() && !Arc::ptr_eq(plan, &self.told.plan()) {
                leaving = Some(Instant::now() + CHANGE);
            }
            if leaving.is_none() {
                self.feed(plan, &reader, &mut process, &mut feeds)?;
            }
            ensure!(process.heard.elapsed() < SILENT, "it said nothing for {SILENT:?}");
            let now = Instant::now();
            let through = || self.through(plan, &feeds);
            if self.told.until().is_some_and(|until| now >= until || through())
                || leaving.is_some_and(|until| now >= until || self.taken(plan, &feeds))
            {
                return process.leave();
            }
        }
    }

    /// How far each sink is, once the store knows them all: only then it is settled what a new one gets. Nothing when the end comes before.
    fn feeds(&self, plan: &Arc<Plan>, reader: &Reader) -> Result<Option<Vec<Feed>>> {
        while self.told.until().is_none() && Arc::ptr_eq(plan, &self.told.plan()) {
            let known = reader.sinks().context("cannot read the store")?;
            let cursor = |name: &str| known.iter().find(|row| row.name == name).map(|row| row.cursor);
            let all: Option<Vec<i64>> = plan.sinks.iter().map(|(spec, _)| cursor(&spec.name)).collect();
            if let Some(all) = all {
                for ((spec, _), cursor) in plan.sinks.iter().zip(&all) {
                    self.board.cursor(&spec.name, *cursor);
                }
                let feed = |cursor| Feed { cursor, sent: cursor, hungry: false };
                return Ok(Some(all.into_iter().map(feed).collect()));
            }
            thread::sleep(ASK);
        }
        Ok(None)
    }

    /// Whether those that work have acknowledged what they were sent.
    fn taken(&self, plan: &Plan, feeds: &[Feed]) -> bool {
        let all = plan.sinks.iter().zip(feeds);
        all.filter(|((spec, _), _)| self.board.works(&spec.name)).all(|(_, feed)| feed.cursor == feed.sent)
    }

    /// Whether there is nothing left to deliver to those that work.
    fn through(&self, plan: &Plan, feeds: &[Feed]) -> bool {
        let all = plan.sinks.iter().zip(feeds);
        let mut working = all.filter(|((spec, _), _)| self.board.works(&spec.name));
        working.all(|(_, feed)| feed.hungry && feed.cursor == feed.sent)
    }

    fn listen(&self, plan: &Plan, process: &mut Process, feeds: &mut [Feed]) -> Result<()> {
        let mut piece = [0; PIECE];
        let n = match process.socket.read(&mut piece) {
            Ok(0) => {
                bail!("it ended: {}", process.child.wait().map_or_else(|e| e.to_string(), |s| s.to_string()))
            }
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(e).context("cannot read from it"),
        };
        process.heard = Instant::now();
        process.frames.add(&piece[..n]);
        while let Some(word) = process.frames.next()? {
            self.hear(plan, word, feeds)?;
        }
        Ok(())
    }

    /// Takes in a word. The process is not trusted: what it says must be about what it was sent.
    fn hear(&self, plan: &Plan, word: Word, feeds: &mut [Feed]) -> Result<()> {
        let sink = match &word {
            Word::Pull { sink, .. }
            | Word::Done { sink, .. }
            | Word::Dead { sink, .. }
            | Word::Health { sink, .. } => *sink,
            Word::Alive => return Ok(()),
        };
        let (Some(feed), Some((spec, _))) = (feeds.get_mut(sink), plan.sinks.get(sink)) else {
            bail!("it speaks of sink {sink}");
        };
        match word {
            Word::Pull { after, .. } => {
                ensure!(after == feed.sent, "the sink {} asks for what comes after {after}", spec.name);
                feed.hungry = true;
                self.board.back(&spec.name);
            }
            Word::Done { through, .. } => {
                ensure!(
                    feed.cursor <= through && through <= feed.sent,
                    "the sink {} claims {through}",
                    spec.name
                );
                self.advance(spec, feed, through);
            }
            Word::Dead { seq, because, .. } => {
                ensure!(feed.cursor < seq && seq <= feed.sent, "the sink {} refuses {seq}", spec.name);
                tracing::warn!("the sink {} refuses an event for good: {because}", spec.name);
                self.submit(Job::Dead { sink: spec.name.clone(), seq, because });
            }
            Word::Health { health, .. } => self.board.health(&spec.name, health),
            Word::Alive => {}
        }
        Ok(())
    }

    fn advance(&self, spec: &Spec, feed: &mut Feed, through: i64) {
        if through > feed.cursor {
            feed.cursor = through;
            self.board.cursor(&spec.name, through);
            self.submit(Job::Cursor { sink: spec.name.clone(), seq: through });
        }
    }

    /// A cursor that the store does not take is stored with the next one; until then events may come twice.
    fn submit(&self, job: Job) {
        if let Err(refused) = self.store.submit(job, None) {
            tracing::debug!("{refused}");
        }
    }

    /// A batch for a sink, and how far it goes.
    fn pick(
        plan: &Plan,
        reader: &Reader,
        after: i64,
        spec: &Spec,
        wants: &Wants,
    ) -> Result<(Vec<Event>, i64)> {
        let (mut events, mut through, mut bytes) = (Vec::new(), after, 0);
        for row in reader.outbox(after, BATCH).context("cannot read the outbox")? {
            if wants.passes(&row.told) {
                let json = plan.redactor.event(row.told.json, &spec.redact);
                bytes += json.len();
                if bytes > BATCH_BYTES && !events.is_empty() {
                    break;
                }
                events.push(Event {
                    seq: row.seq,
                    boot: row.boot,
                    number: row.number,
                    stored_ns: row.stored_ns,
                    json,
                });
            }
            through = row.seq;
        }
        Ok((events, through))
    }

    /// Sends what there is to those that asked.
    fn feed(&self, plan: &Plan, reader: &Reader, process: &mut Process, feeds: &mut [Feed]) -> Result<()> {
        for (number, (feed, (spec, wants))) in feeds.iter_mut().zip(&plan.sinks).enumerate() {
            if feed.hungry {
                let (events, through) = Self::pick(plan, reader, feed.sent, spec, wants)?;
                if through == feed.sent {
                    continue;
                }
                let all_before = feed.cursor == feed.sent;
                feed.sent = through;
                if events.is_empty() && all_before {
                    // Nothing of it is for this sink, which need not know.
                    self.advance(spec, feed, through);
                }
                feed.hungry = false;
                process.say(&Order::Events { sink: number, events, through })?;
            }
        }
        Ok(())
    }
}

fn timespec(time: Duration) -> Timespec {
    // Short times only; the error is that of a time longer than the universe.
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
}
