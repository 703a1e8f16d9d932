//! One sink: batch by batch, each again until it works, with pauses that grow and are never the same for two hosts.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{
    file::Rotated,
    format,
    host::Host,
    http::Http,
    journald::Journald,
    spec::{Output, Spec},
    stdout,
    syslog::Syslog,
    wire::{Event, Health, Word},
};

/// Pauses after failures: up to the first, up to twice that, ... up to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Why events were not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may work later, not before a time if the receiver named one.
    Later { because: String, after: Option<Duration> },
    /// The first of them will never be taken.
    Never { because: String },
}

impl Failure {
    pub(super) fn later(because: String) -> Self {
        Self::Later { because, after: None }
    }
}

/// What a receiver took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// The first so many; none only if there were none.
    pub(super) events: usize,
    pub(super) bytes: usize,
    /// Of those, events that had to be cut.
    pub(super) truncated: u64,
    /// Of those, events that the receiver says it dropped, without saying which.
    pub(super) dropped: u64,
    /// Earlier ones that were sent again.
    pub(super) again: u64,
}

/// What a sink asked for.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    pub(super) through: i64,
}

enum Place {
    Stdout,
    // Taken while it writes on another thread: a hung disk must not hold up other sinks.
    File(Option<Rotated>),
    Syslog(Box<Syslog>),
    Journald(Journald),
    Http(Box<Http>),
}

/// One sink.
pub(super) struct Sink {
    number: usize,
    spec: Spec,
    host: Arc<Host>,
    place: Place,
    health: Health,
    words: mpsc::Sender<Word>,
}

impl Sink {
    pub(super) fn new(number: usize, spec: Spec, host: Arc<Host>, words: mpsc::Sender<Word>) -> Self {
        let place = match &spec.output {
            Output::Stdout => Place::Stdout,
            Output::File(file) => Place::File(Some(Rotated::new(file.clone()))),
            Output::Syslog(syslog) => Place::Syslog(Box::new(Syslog::new(syslog))),
            Output::Journald(journald) => Place::Journald(Journald::new(journald)),
            Output::Http(http) => Place::Http(Box::new(Http::new(http))),
        };
        Self { number, spec, host, place, health: Health::default(), words }
    }

    /// Works until nobody has events for it any more.
    pub(super) async fn run(mut self, mut after: i64, mut batches: mpsc::Receiver<Batch>) {
        let sink = self.number;
        loop {
            self.say(Word::Pull { sink, after }).await;
            let batch = loop {
                tokio::select! {
                    batch = batches.recv() => break batch,
                    // Not only with the next event, which may be hours away.
                    () = self.place.lost() => self.deliver(&[]).await,
                }
            };
            let Some(batch) = batch else { return };
            self.deliver(&batch.events).await;
            after = batch.through;
            self.say(Word::Done { sink, through: after }).await;
        }
    }

    /// Without a reader there is nothing to do but end, which comes soon.
    async fn say(&self, word: Word) {
        let _unused = self.words.send(word).await;
    }

    async fn deliver(&mut self, mut events: &[Event]) {
        let sink = self.number;
        let mut failures = 0;
        while !events.is_empty() || self.place.owes() {
            match self.place.write(&self.spec, &self.host, events).await {
                Ok(taken) => {
                    self.count(taken);
                    failures = 0;
                    let (these, rest) = events.split_at(taken.events.min(events.len()));
                    // What was taken need not come again when the process ends within a batch.
                    if let Some(last) = these.last().filter(|_| !rest.is_empty()) {
                        self.say(Word::Done { sink, through: last.seq }).await;
                    }
                    events = rest;
                }
                Err(Failure::Never { because }) => {
                    if let [first, rest @ ..] = events {
                        self.say(Word::Dead { sink, seq: first.seq, because }).await;
                        events = rest;
                    }
                }
                Err(Failure::Later { because, after }) => {
                    self.health.failing = Some(because);
                    self.health.failures += 1;
                    self.tell().await;
                    // Whoever names a time is asked later by each host, not by all at that moment.
                    let pause = after.map_or_else(|| pause(failures), |after| after + pause(0));
                    tokio::time::sleep(pause).await;
                    failures += 1;
                }
            }
        }
        self.tell().await;
    }

    fn count(&mut self, taken: Taken) {
        let Taken { events, bytes, truncated, dropped, again } = taken;
        let health = &mut self.health;
        health.failing = None;
        health.sent += events as u64;
        health.bytes += bytes as u64;
        health.truncated += truncated;
        health.dropped += dropped;
        health.again += again;
        if events > 0 {
            health.said = Some(self.place.said());
        }
    }

    async fn tell(&self) {
        self.say(Word::Health { sink: self.number, health: self.health.clone() }).await;
    }
}

impl Place {
    /// Sends the first of these, at least one, if there are any.
    async fn write(&mut self, spec: &Spec, host: &Host, events: &[Event]) -> Result<Taken, Failure> {
        match self {
            Self::Syslog(syslog) => return syslog.send(spec.format, host, events).await,
            Self::Journald(journald) => return journald.send(spec.format, host, events).await,
            Self::Http(http) => return http.send(spec.format, host, events).await,
            Self::Stdout | Self::File(_) => {}
        }
        let lines: Vec<Vec<u8>> = events.iter().map(|e| format::line(spec.format, host, e)).collect();
        let lines = lines.concat();
        let taken = Taken { events: events.len(), bytes: lines.len(), ..Taken::default() };
        if let Self::File(file) = self
            && let Output::File(written) = &spec.output
        {
            let mut rotated = file.take().unwrap_or_else(|| Rotated::new(written.clone()));
            let (rotated, outcome) = off(move || {
                let outcome = rotated.write(&lines);
                Ok((rotated, outcome))
            })
            .await?;
            *file = Some(rotated);
            return outcome.map(|()| taken);
        }
        off(move || stdout::write(&lines)).await.map(|()| taken)
    }

    /// What it means that it took something, in the receiver's words where it has any.
    fn said(&self) -> String {
        match self {
            Self::Stdout => "written".into(),
            Self::File(_) => "on the disk".into(),
            Self::Syslog(syslog) => syslog.said().into(),
            Self::Journald(_) => "journald has read it".into(),
            Self::Http(http) => http.last().to_owned(),
        }
    }

    /// Whether something is to be sent again.
    fn owes(&self) -> bool {
        matches!(self, Self::Syslog(syslog) if syslog.owes())
    }

    /// Until there is something to be sent again. May be dropped at any time.
    async fn lost(&mut self) {
        match self {
            Self::Syslog(syslog) => syslog.lost().await,
            _ => std::future::pending().await,
        }
    }
}

/// Runs what may block.
async fn off<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(f).await.unwrap_or_else(|e| Err(Failure::later(e.to_string())))
}

/// "Full jitter": anything up to a bound that doubles, so that hosts do not come back together.
pub(super) fn pause(failures: u32) -> Duration {
    let most = BACK_OFF.0.saturating_mul(1 << failures.min(16)).min(BACK_OFF.1);
    let mut random = [0; 4];
    // Without random bytes all wait the longest.
    let filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).is_ok();
    let share = if filled { f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX) } else { 1.0 };
    most.mul_f64(share)
}
