//! Servers, tools and calls as the lines tell of them; what is new since it was last stored.

use std::collections::{BTreeMap, VecDeque};

use engine::output::{CallLine, Coverage, Line, ServerEvent, ServerLine};

use crate::store::{ServerRow, ToolRow};

/// Calls that are kept.
const CALLS: usize = 1000;
/// Tools of a server; clients may call tools that do not exist.
const TOOLS: usize = 1024;
/// Servers of the inventory.
const SERVERS: usize = 10_000;

/// A server that runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) line: ServerLine,
    /// Of its baseline.
    pub(super) identity: String,
    pub(super) tools: BTreeMap<String, u64>,
    pub(super) calls: u64,
    /// Its session is counted.
    counted: bool,
}

/// See above.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// By id.
    pub(super) servers: BTreeMap<String, Running>,
    pub(super) calls: VecDeque<CallLine>,
    pub(super) coverage: BTreeMap<String, Coverage>,
    pub(super) lost: BTreeMap<String, u64>,
    pub(super) total_calls: u64,
    /// All that were ever seen, by identity and tool.
    pub(super) known: BTreeMap<String, ServerRow>,
    pub(super) tools: BTreeMap<(String, String), ToolRow>,
    new_servers: BTreeMap<String, ServerRow>,
    new_tools: BTreeMap<(String, String), ToolRow>,
}

impl Live {
    /// What was seen before this agent started.
    pub(super) fn restore(&mut self, servers: Vec<ServerRow>, tools: Vec<ToolRow>) {
        self.known.extend(servers.into_iter().map(|row| (row.identity.clone(), row)));
        self.tools.extend(tools.into_iter().map(|row| ((row.identity.clone(), row.tool.clone()), row)));
    }

    /// Takes in a line. `identity_of`: the baseline of a running server.
    pub(super) fn observe(&mut self, line: &Line, identity_of: impl Fn(&str) -> Option<String>) {
        match line {
            Line::Server(line) => self.on_server(line, identity_of(&line.server.id)),
            Line::Call(line) => self.on_call(line),
            Line::Lost(line) => {
                self.lost.insert(line.cause.clone(), line.total);
            }
            Line::Coverage(line) => {
                self.coverage.insert(line.coverage.hook.clone(), line.coverage.clone());
            }
            Line::Effect(_) | Line::Finding(_) | Line::Response(_) => {}
        }
    }

    fn on_server(&mut self, line: &ServerLine, identity: Option<String>) {
        let id = &line.server.id;
        if line.event == ServerEvent::Ended {
            self.servers.remove(id);
            return;
        }
        let running = self.servers.entry(id.clone()).or_insert_with(|| Running {
            line: line.clone(),
            identity: String::new(),
            tools: BTreeMap::new(),
            calls: 0,
            counted: false,
        });
        running.line = line.clone();
        if let Some(identity) = identity {
            running.identity = identity;
        }
        if running.identity.is_empty() {
            return;
        }
        let sessions = u64::from(!std::mem::replace(&mut running.counted, true));
        let seen = ServerRow {
            identity: running.identity.clone(),
            name: line.server.name.clone(),
            uid: line.context.uid,
            package: line.package.clone(),
            version: line.version.clone(),
            entry: line.entry.clone(),
            digest: line.digest.clone(),
            client: line.context.client.clone(),
            project: line.context.project.clone(),
            first_seen: line.time.utc,
            last_seen: line.time.utc,
            sessions,
            calls: 0,
        };
        self.saw(seen);
    }

    fn saw(&mut self, seen: ServerRow) {
        for all in [&mut self.known, &mut self.new_servers] {
            if all.len() >= SERVERS && !all.contains_key(&seen.identity) {
                continue;
            }
            let row = all.entry(seen.identity.clone()).or_insert_with(|| ServerRow {
                sessions: 0,
                calls: 0,
                ..seen.clone()
            });
            let (first_seen, last_seen) =
                (row.first_seen.min(seen.first_seen), row.last_seen.max(seen.last_seen));
            let (sessions, calls) = (row.sessions + seen.sessions, row.calls + seen.calls);
            *row = ServerRow { first_seen, last_seen, sessions, calls, ..seen.clone() };
        }
    }

    fn on_call(&mut self, line: &CallLine) {
        self.total_calls += 1;
        if self.calls.len() >= CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(line.clone());
        let Some(running) = self.servers.get_mut(&line.server.id) else { return };
        running.calls += 1;
        let tool = line.scope.tool.clone().unwrap_or_default();
        let room = running.tools.len() < TOOLS || running.tools.contains_key(&tool);
        let tool = if room { tool } else { "(more)".to_owned() };
        *running.tools.entry(tool.clone()).or_default() += 1;
        let identity = running.identity.clone();
        if identity.is_empty() {
            return;
        }
        let utc = line.time.utc;
        for all in [&mut self.known, &mut self.new_servers] {
            if let Some(row) = all.get_mut(&identity) {
                row.calls += 1;
                row.last_seen = row.last_seen.max(utc);
            } else if let Some(running) = self.servers.get(&line.server.id) {
                // Known and stored already: only what is new since then.
                let sighting = ServerRow {
                    identity: identity.clone(),
                    name: running.line.server.name.clone(),
                    uid: running.line.context.uid,
                    first_seen: utc,
                    last_seen: utc,
                    calls: 1,
                    ..ServerRow::default()
                };
                all.insert(identity.clone(), sighting);
            }
        }
        for all in [&mut self.tools, &mut self.new_tools] {
            let row = all.entry((identity.clone(), tool.clone())).or_insert_with(|| ToolRow {
                identity: identity.clone(),
                tool: tool.clone(),
                calls: 0,
                first_seen: utc,
                last_seen: utc,
            });
            row.calls += 1;
            row.last_seen = row.last_seen.max(utc);
        }
    }

    /// What is new since this was last asked.
    pub(super) fn take_news(&mut self) -> (Vec<ServerRow>, Vec<ToolRow>) {
        let servers = std::mem::take(&mut self.new_servers).into_values().collect();
        (servers, std::mem::take(&mut self.new_tools).into_values().collect())
    }

    /// Running servers of this name, id or identity.
    pub(super) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Running> {
        self.servers.values().filter(move |r| {
            r.line.server.name == name || r.line.server.id == name || (r.identity == name && !name.is_empty())
        })
    }
}
