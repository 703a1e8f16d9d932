//! A tree of processes that may be, or is, an MCP server.

use std::sync::Arc;

use crate::{
    input::NameSource,
    mcp::Framer,
    output::{Context, Line, ServerEvent, ServerLine, ServerRef, Startup, Time},
    server::Server,
    text,
};

/// Lines kept of a candidate until it is known what it is.
pub(crate) const HELD_LINES: usize = 8192;

/// One side of a channel.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) channel: u64,
    pub(crate) framer: Framer,
    /// Position of the next byte, as the kernel program counts.
    pub(crate) next: u64,
}

impl Stream {
    pub(crate) fn new(channel: u64, include_arguments: bool) -> Self {
        Self { channel, framer: Framer::new(include_arguments), next: 0 }
    }
}

/// A candidate or a server.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) id: u64,
    /// Tree that it was born in.
    pub(crate) parent: Option<u64>,
    pub(crate) root: u32,
    pub(crate) client: u32,
    pub(crate) uid: u32,
    pub(crate) login_uid: u32,
    pub(crate) cwd: String,
    pub(crate) argv: Vec<String>,
    pub(crate) request: Stream,
    pub(crate) reply: Stream,
    /// What the client writes, once that is needed as proof.
    pub(crate) proof: Stream,
    pub(crate) began_ns: u64,
    /// When the syscall hooks were attached, if that was later.
    pub(crate) gap_ns: u64,
    /// It ran already when it was found.
    pub(crate) pre_existing: bool,
    /// An agent before this one held it to a policy: it is never dismissed, or it would be let go.
    pub(crate) kept: bool,
    /// It began while no agent ran.
    pub(crate) unwatched: bool,
    /// Processes alive.
    pub(crate) alive: u32,
    /// When the last of them ended, and whether the kernel's counts up to then are in.
    pub(crate) ended_ns: Option<u64>,
    pub(crate) counted: bool,
    /// Not MCP: its channels are ignored; it is kept only as part of the server that it is in.
    pub(crate) dismissed: bool,
    /// Lines that wait for the server to be known, and how many found no room.
    pub(crate) held: Vec<Line>,
    pub(crate) overflow: u64,
    pub(crate) server: Option<Box<Server>>,
}

impl Tree {
    /// Makes it a server. `in_flight_ns`: see [`crate::input::Fact::Start`].
    pub(crate) fn promote(&mut self, reader: u32, now: u64, in_flight_ns: u64) {
        let name = self.argv.first().map_or("unknown", |a| text::file_name(a)).to_owned();
        let shown = ServerRef { id: format!("{:x}", self.id), name };
        let context = Context {
            uid: self.uid,
            login_uid: (self.login_uid != u32::MAX).then_some(self.login_uid),
            client: None,
            project: (!self.cwd.is_empty()).then(|| self.cwd.clone()),
            container: None,
        };
        let mut server = Server::new(shown, context, reader, now);
        if self.pre_existing {
            server.was_running(self.began_ns.saturating_add(in_flight_ns));
        }
        self.server = Some(Box::new(server));
    }

    /// A line about the server itself.
    pub(crate) fn line(&self, event: ServerEvent, detail: Option<String>, time: Time) -> Option<ServerLine> {
        let server = self.server.as_ref()?;
        let identity = server.identity.clone().unwrap_or_default();
        Some(ServerLine {
            time,
            server: Arc::clone(&server.shown),
            context: Arc::clone(&server.context),
            event,
            detail,
            pid: server.reader,
            root_pid: self.root,
            argv: self.argv.clone(),
            name_source: if server.identity.is_some() {
                identity.name_source
            } else {
                NameSource::Executable
            },
            package: identity.package,
            version: identity.version.or_else(|| server.claimed_version.clone()),
            entry: identity.entry,
            digest: identity.digest,
            protocol: server.protocol.clone(),
            startup: Startup {
                partial: self.gap_ns > 0,
                gap_ms: self.gap_ns as f64 / 1e6,
                pre_existing: self.pre_existing,
                unwatched: self.unwatched,
            },
            channel: server.channel,
        })
    }
}
