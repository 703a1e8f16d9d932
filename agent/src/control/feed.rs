//! Lines as they come, for those who watch. The loop offers and never waits: who does not read is cut off, and told how much of it they missed.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use engine::{
    finding::{Kind, Severity},
    output::{Line, Scope},
    rules::NameGlob,
};
use hyper::body::Frame;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::Failure;

/// Watchers at a time: each holds one of the connections that are served.
const WATCHERS: usize = 4;
/// Lines that wait for a watcher.
const WAITING: usize = 1024;
/// Bytes of those.
const WAITING_BYTES: usize = 4 << 20;

/// Which lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WatchFilter {
    /// Types of lines, with commas between them.
    pub(crate) r#type: Option<String>,
    /// Pattern for names of servers.
    pub(crate) server: Option<String>,
    /// Pattern for names of tools; lines that may belong to one of its calls, too.
    pub(crate) tool: Option<String>,
    /// Findings of this kind.
    pub(crate) kind: Option<Kind>,
    /// Findings this severe or more.
    pub(crate) severity: Option<Severity>,
}

/// The same, understood.
#[derive(Debug, Default)]
struct Wants {
    types: Vec<String>,
    server: Option<NameGlob>,
    tool: Option<NameGlob>,
    kind: Option<Kind>,
    severity: Option<Severity>,
}

/// Names of the types of lines.
const TYPES: [&str; 7] = ["server", "call", "effect", "lost", "coverage", "finding", "response"];

impl Wants {
    fn parse(filter: &WatchFilter) -> Result<Self, Failure> {
        let glob = |key: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(NameGlob::parse).transpose();
            parsed.map_err(|why| Failure::new(400, format!("{key}: {why}")))
        };
        let types: Vec<String> = filter.r#type.iter().flat_map(|t| t.split(',')).map(str::to_owned).collect();
        if let Some(strange) = types.iter().find(|t| !TYPES.contains(&t.as_str())) {
            return Err(Failure::new(
                400,
                format!("type: no lines are called `{strange}`: {}", TYPES.join(", ")),
            ));
        }
        Ok(Self {
            types,
            server: glob("server", &filter.server)?,
            tool: glob("tool", &filter.tool)?,
            kind: filter.kind,
            severity: filter.severity,
        })
    }

    fn passes(&self, line: &Line) -> bool {
        let (name, server, scope) = match line {
            Line::Server(l) => ("server", Some(&l.server), None),
            Line::Call(l) => ("call", Some(&l.server), Some(&l.scope)),
            Line::Effect(l) => ("effect", Some(&l.server), Some(&l.scope)),
            Line::Lost(_) => ("lost", None, None),
            Line::Coverage(_) => ("coverage", None, None),
            Line::Finding(f) => ("finding", Some(&f.server), Some(&f.scope)),
            Line::Response(r) => ("response", Some(&r.server), None),
        };
        let typed = self.types.is_empty() || self.types.iter().any(|t| t == name);
        let served = self.server.as_ref().is_none_or(|glob| server.is_some_and(|s| glob.matches(&s.name)));
        let tooled = self.tool.as_ref().is_none_or(|glob| scope.is_some_and(|scope| concerns(scope, glob)));
        let found = match line {
            Line::Finding(f) => {
                self.kind.is_none_or(|kind| f.kind == kind)
                    && self.severity.is_none_or(|severity| f.severity >= severity)
            }
            // What has no kind and no severity is not what was asked for.
            _ => self.kind.is_none() && self.severity.is_none(),
        };
        typed && served && tooled && found
    }
}

fn concerns(scope: &Scope, glob: &NameGlob) -> bool {
    let candidates = scope.candidates.iter().map(|c| c.tool.as_deref());
    std::iter::once(scope.tool.as_deref()).chain(candidates).flatten().any(|tool| glob.matches(tool))
}

/// All who watch.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    any: AtomicBool,
    feeds: Mutex<Vec<Feed>>,
}

/// The loop's end of one.
#[derive(Debug)]
struct Feed {
    wants: Wants,
    lines: mpsc::Sender<Bytes>,
    state: Arc<State>,
}

/// What both ends know.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Bytes that wait.
    waiting: AtomicUsize,
    /// It did not read: lines since then are counted only.
    cut: AtomicBool,
    missed: AtomicUsize,
}

impl State {
    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }
}

impl Feeds {
    fn lock(&self) -> MutexGuard<'_, Vec<Feed>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line for whom it concerns. Never waits; costs one look when nobody watches.
    pub(crate) fn offer(&self, line: &Line) {
        if !self.any.load(Relaxed) {
            return;
        }
        let mut feeds = self.lock();
        feeds.retain(|feed| !feed.lines.is_closed());
        let mut text = None;
        for feed in feeds.iter().filter(|feed| feed.wants.passes(line)) {
            let bytes = text.get_or_insert_with(|| {
                // Plain data: serialising it into memory cannot fail.
                let mut bytes = serde_json::to_vec(line).unwrap_or_default();
                bytes.push(b'\n');
                Bytes::from(bytes)
            });
            feed.offer(bytes);
        }
        self.any.store(!feeds.is_empty(), Relaxed);
    }

    /// One more watcher: what it reads, and how it is.
    pub(super) fn open(&self, filter: &WatchFilter) -> Result<(Body, Arc<State>), Failure> {
        let wants = Wants::parse(filter)?;
        let (lines, receiver) = mpsc::channel(WAITING);
        let state = Arc::new(State::default());
        let mut feeds = self.lock();
        feeds.retain(|feed| !feed.lines.is_closed());
        if feeds.len() >= WATCHERS {
            return Err(Failure::unavailable(format!("{WATCHERS} watch already; end one of them")));
        }
        feeds.push(Feed { wants, lines, state: Arc::clone(&state) });
        self.any.store(true, Relaxed);
        Ok((Body::new(Reader { lines: receiver, state: Arc::clone(&state), said: false }), state))
    }
}

impl Feed {
    fn offer(&self, bytes: &Bytes) {
        let state = &self.state;
        let full = state.waiting.load(Relaxed) + bytes.len() > WAITING_BYTES;
        if state.is_cut() || full || self.lines.try_send(bytes.clone()).is_err() {
            state.missed.fetch_add(1, Relaxed);
            state.cut.store(true, Relaxed);
        } else {
            state.waiting.fetch_add(bytes.len(), Relaxed);
        }
    }
}

/// The watcher's end.
struct Reader {
    lines: mpsc::Receiver<Bytes>,
    state: Arc<State>,
    said: bool,
}

impl hyper::body::Body for Reader {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.said {
            return Poll::Ready(None);
        }
        let next = self.lines.poll_recv(cx);
        match next {
            Poll::Ready(Some(bytes)) => {
                self.state.waiting.fetch_sub(bytes.len(), Relaxed);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            // It has read all that waited when it was cut off. `Pending` alone does not say so: tokio also makes who reads much take turns.
            Poll::Pending if self.state.is_cut() && self.lines.is_empty() => {
                self.said = true;
                self.lines.close();
                let missed = self.state.missed.load(Relaxed);
                let line = format!("{}\n", json!({ "type": "cut", "missed": missed }));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from(line)))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::output::{LostLine, Time};
    use http_body_util::BodyExt as _;

    use super::*;

    fn lost(total: u64) -> Line {
        let time = Time { utc: 0, boot_ns: 0 };
        Line::Lost(LostLine { time, cause: "x".into(), count: 1, total })
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut_off_and_told_how_much_is_missing() -> Result<(), Failure> {
        let feeds = Feeds::default();
        feeds.offer(&lost(0));
        let (body, state) = feeds.open(&WatchFilter::default())?;
        let many = WAITING as u64 + 50;
        for total in 0..many {
            feeds.offer(&lost(total));
        }
        assert!(state.is_cut());
        let all = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let lines: Vec<&[u8]> = all.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
        assert_eq!(lines.len(), WAITING + 1);
        assert_eq!(lines.last().copied(), Some(&br#"{"missed":50,"type":"cut"}"#[..]));
        assert_eq!(lines.first().map(|l| l.ends_with(br#""total":0}"#)), Some(true));
        // It is forgotten.
        feeds.offer(&lost(0));
        assert!(feeds.lock().is_empty() && !feeds.any.load(Relaxed));
        Ok(())
    }

    #[tokio::test]
    async fn lines_that_are_large_fill_it_sooner() -> Result<(), Failure> {
        let feeds = Feeds::default();
        let (body, state) = feeds.open(&WatchFilter::default())?;
        let time = Time { utc: 0, boot_ns: 0 };
        let large = LostLine { time, cause: "x".repeat(1 << 20), count: 1, total: 1 };
        for _ in 0..5 {
            feeds.offer(&Line::Lost(large.clone()));
        }
        assert!(state.is_cut());
        let all = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        assert!(all.len() <= WAITING_BYTES + 100 && all.ends_with(b"{\"missed\":2,\"type\":\"cut\"}\n"));
        Ok(())
    }

    #[test]
    fn filters_and_limits_are_told() {
        let feeds = Feeds::default();
        let refused = |filter: WatchFilter| feeds.open(&filter).err().map(|e| e.message).unwrap_or_default();
        let of = |r#type: &str| WatchFilter { r#type: Some(r#type.into()), ..WatchFilter::default() };
        assert!(refused(of("calls")).contains("`calls`"));
        assert!(
            refused(WatchFilter { server: Some(String::new()), ..WatchFilter::default() }).contains("server")
        );
        let lines = |filter: WatchFilter| Wants::parse(&filter).is_ok_and(|wants| wants.passes(&lost(1)));
        assert!(lines(of("lost,call")) && !lines(of("call")));
        assert!(!lines(WatchFilter { server: Some("*".into()), ..WatchFilter::default() }));
        assert!(!lines(WatchFilter { severity: Some(Severity::Info), ..WatchFilter::default() }));
        let open: Vec<_> = (0..WATCHERS).map(|_| feeds.open(&WatchFilter::default())).collect();
        assert!(open.iter().all(Result::is_ok));
        assert!(refused(WatchFilter::default()).contains("watch already"));
        drop(open);
        assert!(feeds.open(&WatchFilter::default()).is_ok());
    }
}
