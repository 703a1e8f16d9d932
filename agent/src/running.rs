//! Processes that ran before the agent: which of them may be MCP servers, and what belongs to them.
//!
//! [`scan`] reads `/proc`, [`plan`] decides by the rules of the exec program (`ebpf/src/lifecycle.rs`) and
//! touches nothing, [`describe`] reads what only the engine needs.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use engine::{input::Existing, privacy::redact_argv};

/// Longest command line that is kept: as much as the exec program captures.
const ARGV: usize = 4096;
/// Processes looked at.
const PROCESSES: usize = 65536;

/// A process as the first look shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) start_ns: u64,
    /// Channel keys of descriptors 0 and 1, 0 where there is none.
    pub(crate) stdin: u64,
    pub(crate) stdout: u64,
}

/// What the kernel maps hold: processes (tree, stdin, stdout), and trees (request, reply).
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) procs: HashMap<u32, (u64, u64, u64)>,
    pub(crate) trees: HashMap<u64, (u64, u64)>,
}

/// A process that is to be tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Adopted {
    pub(crate) seen: Seen,
    pub(crate) tree: u64,
    pub(crate) root: bool,
    pub(crate) parent_tree: Option<u64>,
}

/// Inodes of the unix stream sockets of each network namespace.
#[derive(Default)]
struct Sockets(HashMap<PathBuf, HashSet<u64>>);

impl Sockets {
    fn has(&mut self, dir: &Path, inode: u64) -> bool {
        let Ok(namespace) = fs::read_link(dir.join("ns/net")) else {
            return false;
        };
        let read = || {
            // Num RefCount Protocol Flags Type St Inode Path
            let text = fs::read(dir.join("net/unix")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let inode = |line: &str| {
                let mut words = line.split_whitespace();
                let stream = words.nth(4)? == "0001";
                let inode = words.nth(1)?.parse().ok()?;
                stream.then_some(inode)
            };
            text.lines().skip(1).filter_map(inode).collect()
        };
        self.0.entry(namespace).or_insert_with(read).contains(&inode)
    }
}

/// Channel key of a descriptor, as the kernel programs make it. Only the link is read: to ask for the file
/// itself may wait for a file server that is gone. So named pipes are not found.
fn key(dir: &Path, fd: u32, sockets: &mut Sockets) -> u64 {
    let Ok(link) = fs::read_link(dir.join(format!("fd/{fd}"))) else {
        return 0;
    };
    let link = link.to_string_lossy();
    let inode = |kind: &str| link.strip_prefix(kind)?.strip_suffix(']')?.parse::<u64>().ok();
    match (inode("pipe:["), inode("socket:[")) {
        (Some(pipe), _) => pipe,
        (_, Some(socket)) if sockets.has(dir, socket) => socket | 1 << 63,
        _ => 0,
    }
}

/// Parent and start of a process; `None` when it is gone or has ended.
fn stat(dir: &Path) -> Option<(u32, u64)> {
    let text = fs::read(dir.join("stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let end = text.iter().rposition(|b| *b == b')')?;
    let text = String::from_utf8_lossy(text.get(end + 1..)?).into_owned();
    let mut words = text.split_whitespace();
    if matches!(words.next()?, "Z" | "X") {
        return None;
    }
    let parent = words.next()?.parse().ok()?;
    let ticks: u64 = words.nth(17)?.parse().ok()?;
    // USER_HZ is 100 on every x86-64 kernel.
    Some((parent, ticks * 10_000_000))
}

/// Whether the process is still the one that was seen.
pub(crate) fn is_alive(seen: &Seen) -> bool {
    stat(&PathBuf::from(format!("/proc/{}", seen.pid))).is_some_and(|(_, start)| start == seen.start_ns)
}

/// When a process started, if it has not ended.
pub(crate) fn start_of(pid: u32) -> Option<u64> {
    stat(&PathBuf::from(format!("/proc/{pid}"))).map(|(_, start)| start)
}

/// Whether a process has threads beside its first one, which may have ended.
pub(crate) fn has_threads(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1)
}

/// All processes.
pub(crate) fn scan() -> Vec<Seen> {
    let mut sockets = Sockets::default();
    let mut seen = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return seen;
    };
    for entry in entries.flatten().take(PROCESSES) {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let dir = entry.path();
        if let Some((parent, start_ns)) = stat(&dir) {
            let (stdin, stdout) = (key(&dir, 0, &mut sockets), key(&dir, 1, &mut sockets));
            seen.push(Seen { pid, parent, start_ns, stdin, stdout });
        }
    }
    seen
}

/// Which processes are to be tracked that are not yet, parents first. `own`: the agent, which is never
/// tracked; what it was started by is not a server either, and begins no tree.
pub(crate) fn plan(seen: &[Seen], known: &Known, own: u32, now_ns: u64) -> Vec<Adopted> {
    let by_pid: HashMap<u32, &Seen> = seen.iter().map(|s| (s.pid, s)).collect();
    let mut above = HashSet::from([own]);
    let mut at = own;
    while let Some(s) = by_pid.get(&at)
        && above.insert(s.parent)
    {
        at = s.parent;
    }
    let mut children: HashMap<u32, Vec<&Seen>> = HashMap::new();
    let mut open: Vec<&Seen> = Vec::new();
    for s in seen {
        match by_pid.contains_key(&s.parent) {
            true => children.entry(s.parent).or_default().push(s),
            false => open.push(s),
        }
    }
    // The last one is taken first: the eldest.
    let age = |s: &&Seen| std::cmp::Reverse((s.start_ns, s.pid));
    open.sort_by_key(age);
    children.values_mut().for_each(|c| c.sort_by_key(age));
    let mut trees = known.trees.clone();
    let mut places: HashMap<u32, (u64, u64, u64)> = HashMap::new();
    let mut plan = Vec::new();
    while let Some(s) = open.pop() {
        open.extend(children.remove(&s.pid).unwrap_or_default());
        if let Some(place) = known.procs.get(&s.pid) {
            places.insert(s.pid, *place);
            continue;
        }
        if above.contains(&s.pid) {
            continue;
        }
        let around = places.get(&s.parent).filter(|(tree, ..)| trees.contains_key(tree)).copied();
        let both = s.stdin != 0 && s.stdout != 0;
        let (tree, new) = match around {
            Some((tree, stdin, stdout)) => {
                let request = trees.get(&tree).map_or(0, |t| t.0);
                let shared = s.stdin == request || (s.stdin, s.stdout) == (stdin, stdout);
                (tree, both && !shared)
            }
            None if !both => continue,
            // Its launcher is gone, and another process of the same chain came first.
            None => match trees.iter().filter(|(_, t)| **t == (s.stdin, s.stdout)).map(|(id, _)| *id).min() {
                Some(tree) => (tree, false),
                None => (0, true),
            },
        };
        let parent_tree = around.map(|(tree, ..)| tree).filter(|_| new);
        let tree = if new { now_ns & !0x3f_ffff | u64::from(s.pid & 0x3f_ffff) } else { tree };
        if new {
            trees.insert(tree, (s.stdin, s.stdout));
        }
        places.insert(s.pid, (tree, s.stdin, s.stdout));
        plan.push(Adopted { seen: *s, tree, root: new, parent_tree });
    }
    plan
}

/// Of a plan, what belongs to these roots, or to trees that are tracked.
pub(crate) fn only(plan: &mut Vec<Adopted>, roots: &HashSet<u32>, known: &Known) {
    let mut kept: HashSet<u64> = HashSet::new();
    plan.retain(|a| {
        let wanted = match (a.root, a.parent_tree) {
            (true, Some(around)) => roots.contains(&a.seen.pid) || kept.contains(&around),
            (true, None) => roots.contains(&a.seen.pid),
            (false, _) => kept.contains(&a.tree) || known.trees.contains_key(&a.tree),
        };
        if wanted {
            kept.insert(a.tree);
        }
        wanted
    });
}

/// Candidates that were let go because they read nothing. What a process has read so far costs one file
/// to look at, and nobody else anything. It may have been from elsewhere: who is found again and still
/// reads nothing from its channel is looked for less and less often.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    adopted: HashMap<u64, Vec<Seen>>,
    trees: Vec<Waiter>,
    /// How often a root was let go, by process and start.
    silent: HashMap<(u32, u64), u32>,
}

#[derive(Debug)]
struct Waiter {
    /// Members of one tree, and how many bytes each had read.
    members: Vec<(Seen, u64)>,
    not_before: Instant,
}

/// Who was let go for the second time is not looked for this long; then twice as long, and so on.
const PATIENCE: Duration = Duration::from_secs(3600);

/// So many roots may be remembered before those that ended are forgotten.
const MANY: usize = 1024;

impl Waiting {
    /// A process is tracked from now on.
    pub(crate) fn adopted(&mut self, a: &Adopted) {
        self.adopted.entry(a.tree).or_default().push(a.seen);
    }

    /// A tree was let go.
    pub(crate) fn wait(&mut self, tree: u64, now: Instant) {
        let members = self.adopted.remove(&tree).unwrap_or_default();
        let Some(root) = members.first() else { return };
        let times = self.silent.entry((root.pid, root.start_ns)).or_default();
        let delay = if *times == 0 { Duration::ZERO } else { PATIENCE * (1 << (*times - 1).min(5)) };
        *times += 1;
        if self.silent.len() > MANY {
            self.silent.retain(|(pid, _), _| Path::new("/proc").join(pid.to_string()).exists());
        }
        let members: Vec<_> = members.into_iter().filter_map(|s| Some((s, bytes_read(&s)?))).collect();
        if !members.is_empty() {
            self.trees.push(Waiter { members, not_before: now + delay });
        }
    }

    /// Processes of trees of which one has read something since, or ended.
    pub(crate) fn woken(&mut self, now: Instant) -> HashSet<u32> {
        let mut woken = HashSet::new();
        self.trees.retain(|w| {
            if now < w.not_before || w.members.iter().all(|(s, before)| bytes_read(s) == Some(*before)) {
                return true;
            }
            woken.extend(w.members.iter().map(|(s, _)| s.pid));
            false
        });
        woken
    }
}

/// Bytes that a process has read from anything; `None` when it is gone.
fn bytes_read(seen: &Seen) -> Option<u64> {
    if !is_alive(seen) {
        return None;
    }
    let text = fs::read_to_string(format!("/proc/{}/io", seen.pid)).ok()?;
    text.lines().find_map(|l| l.strip_prefix("rchar:"))?.trim().parse().ok()
}

/// What the engine is told about a process.
pub(crate) fn describe(a: &Adopted) -> Existing {
    let dir = PathBuf::from(format!("/proc/{}", a.seen.pid));
    let link = |name: &str| {
        let path = fs::read_link(dir.join(name)).ok()?;
        Some(String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned())
    };
    let mut argv = fs::read(dir.join("cmdline")).unwrap_or_default();
    argv.truncate(ARGV);
    redact_argv(&mut argv);
    let end = argv.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let words = argv.get(..end).unwrap_or_default().split(|b| *b == 0);
    let argv =
        if end == 0 { Vec::new() } else { words.map(|w| String::from_utf8_lossy(w).into_owned()).collect() };
    let number = |name: &str| fs::read_to_string(dir.join(name)).ok()?.trim().parse::<u32>().ok();
    let status = fs::read(dir.join("status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
    Existing {
        tree: a.tree,
        root: a.root,
        parent_tree: a.parent_tree,
        tgid: a.seen.pid,
        parent: a.seen.parent,
        start_ns: a.seen.start_ns,
        stdin: a.seen.stdin,
        stdout: a.seen.stdout,
        uid: uid.unwrap_or(0),
        login_uid: number("loginuid").filter(|uid| *uid != u32::MAX),
        exe: link("exe"),
        argv,
        cwd: link("cwd").unwrap_or_default(),
        held: false,
        unwatched: false,
    }
}
