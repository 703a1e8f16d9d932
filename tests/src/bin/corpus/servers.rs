//! The servers of the corpus.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{
    data::{DATA, Pool},
    real_tools,
    rng::Rng,
    tools,
};

/// Arguments for a tool.
pub(crate) type Arguments = fn(&str, &mut Rng, Pool) -> Value;

/// One server.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    argv: Vec<String>,
    env: Vec<(&'static str, String)>,
    /// Name and weight in held-out sessions.
    pub(crate) tools: &'static [(&'static str, u64)],
    pub(crate) arguments: Arguments,
    /// Held-out calls.
    pub(crate) held_out: u64,
    /// Nobody looks at it before the last run.
    pub(crate) last: bool,
    /// Own: takes `delay_ms`, and cancels.
    pub(crate) own: bool,
}

impl Server {
    /// File that makes it what it is.
    pub(crate) fn entry(&self) -> &str {
        if self.argv[0].ends_with("node") { &self.argv[1] } else { &self.argv[0] }
    }

    /// As a command.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).envs(self.env.iter().map(|(k, v)| (k, v)));
        command.current_dir(DATA).stderr(Stdio::null());
        command
    }
}

fn own(
    name: &'static str,
    held_out: u64,
    last: bool,
    tools: &'static [(&'static str, u64)],
    arguments: Arguments,
) -> Server {
    let argv = vec![format!("/srv/corpus/bin/{name}-server"), format!("{DATA}/{name}")];
    Server { name, argv, env: Vec::new(), tools, arguments, held_out, last, own: true }
}

fn npm(
    name: &'static str,
    held_out: u64,
    tools: &'static [(&'static str, u64)],
    arguments: Arguments,
) -> Server {
    let script = format!("/srv/corpus/npm/node_modules/@modelcontextprotocol/server-{name}/dist/index.js");
    let argv = vec!["/usr/bin/node".into(), script];
    Server { name, argv, env: Vec::new(), tools, arguments, held_out, last: false, own: false }
}

fn pypi(
    name: &'static str,
    held_out: u64,
    tools: &'static [(&'static str, u64)],
    arguments: Arguments,
) -> Server {
    let argv = vec![format!("/srv/corpus/venv/bin/mcp-server-{name}")];
    Server { name, argv, env: Vec::new(), tools, arguments, held_out, last: false, own: false }
}

/// Which of them are recorded side by side, each group in namespaces of its own: about equally long.
pub(crate) const GROUPS: [&[&str]; 4] = [
    &["git", "build"],
    &["fetch", "time"],
    &["filesystem", "everything", "sequential-thinking", "memory", "repo"],
    &["notes", "api", "image", "mailer", "cache", "feeds", "convert"],
];

/// Recorded alone, after the groups: one of its variants floods every agent of the host.
pub(crate) const FLOODS: &[&str] = &["logs"];

/// All of them, those that are looked at last at the end.
pub(crate) fn all() -> Vec<Server> {
    let mut filesystem = npm("filesystem", 4000, real_tools::FILESYSTEM, real_tools::filesystem);
    filesystem.argv.push(format!("{DATA}/files"));
    let mut memory = npm("memory", 2000, real_tools::MEMORY, real_tools::memory);
    memory.env.push(("MEMORY_FILE_PATH", format!("{DATA}/memory/memory.json")));
    memory.last = true;
    let mut fetch = pypi("fetch", 500, real_tools::FETCH, real_tools::fetch);
    fetch.argv.push("--allow-private-ips".into());
    let mut time = pypi("time", 1500, real_tools::TIME, real_tools::time);
    time.last = true;
    vec![
        filesystem,
        npm("everything", 4000, real_tools::EVERYTHING, real_tools::everything),
        npm("sequential-thinking", 3000, real_tools::THINKING, real_tools::thinking),
        pypi("git", 400, real_tools::GIT, real_tools::git),
        fetch,
        own("notes", 5000, false, tools::NOTES, tools::notes),
        own("logs", 5000, false, tools::LOGS, tools::logs),
        own("build", 500, false, tools::BUILD, tools::build),
        own("api", 4000, false, tools::API, tools::api),
        own("image", 3000, false, tools::IMAGE, tools::image),
        own("repo", 700, false, tools::REPO, tools::repo),
        own("mailer", 3000, false, tools::MAILER, tools::mailer),
        own("cache", 4000, false, tools::CACHE, tools::cache),
        memory,
        time,
        own("feeds", 3000, true, tools::FEEDS, tools::feeds),
        own("convert", 900, true, tools::CONVERT, tools::convert),
    ]
}
