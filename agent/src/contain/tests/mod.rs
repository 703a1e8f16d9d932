//! Real processes in real cgroups of this host. They need root, like all that the agent does.

mod limits;

use std::{
    collections::{BTreeSet, HashMap},
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use engine::respond::{Action, Order, Outcome, ProcessKey, Verdict};

use super::{
    Contain, Ground, Rate, boot_ns,
    group::Group,
    layout::{Hierarchy, Layout, V2},
    process,
};

const MS: Duration = Duration::from_millis(1);

/// A tree of processes as `/proc` shows it, and a network that is only noted.
struct Family {
    root: Child,
    cut: Option<bool>,
    /// What the kernel's maps would say of a process that is not of the tree.
    stranger: Option<u32>,
}

fn key(pid: u32) -> Option<ProcessKey> {
    let stat = process::stat(pid).filter(|s| !s.dead)?;
    Some(ProcessKey { tgid: pid, start_ns: stat.ticks * 10_000_000 + 1 })
}

impl Family {
    fn start(script: &str) -> Self {
        let root =
            Command::new("sh").args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        Self { root: root.expect("sh"), cut: None, stranger: None }
    }

    /// Starts it and waits for its first line.
    fn ready(script: &str) -> Self {
        let mut family = Self::start(script);
        let out = family.root.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "ready");
        family
    }

    fn pids(&self) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            if let Some(stat) = process::stat(pid) {
                children.entry(stat.parent).or_default().push(pid);
            }
        }
        let mut all = vec![self.root.id()];
        let mut at = 0;
        while let Some(pid) = all.get(at).copied() {
            all.extend(children.get(&pid).into_iter().flatten());
            at += 1;
        }
        all.extend(self.stranger);
        all
    }

    fn alive(&self) -> usize {
        self.pids().into_iter().filter_map(key).count()
    }

    /// CPU time of all of it, in ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let used = |pid: u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let words: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let n = |at: usize| words.get(at).and_then(|w| w.parse::<u64>().ok()).unwrap_or(0);
            n(11) + n(12)
        };
        self.pids().into_iter().map(used).sum()
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        for pid in self.pids() {
            if Some(pid) != self.stranger
                && let Some(held) = key(pid).and_then(|k| process::Held::open(k).ok())
                && let Err(e) = held.signal(rustix::process::Signal::KILL)
            {
                eprintln!("process {pid} is left: {e}");
            }
        }
        // On v1 a SIGKILL waits until they are thawed: a test that failed while they were frozen must end.
        let layout = Layout::of_host();
        for (pid, h) in self.pids().into_iter().zip(std::iter::repeat(layout.freezer())) {
            let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let path = text.lines().find_map(|line| line.split_once(":freezer:")).map(|(_, path)| path);
            if let (Some(h), Some(dir)) = (h, path.and_then(|path| h?.dir(path))) {
                drop(Group::new(h, dir).freeze(false));
            }
        }
        drop(self.root.wait());
    }
}

impl Ground for Family {
    fn members(&self, _tree: u64) -> Vec<ProcessKey> {
        self.pids().into_iter().filter_map(key).collect()
    }

    fn cut(&mut self, _tree: u64, on: bool) -> Result<(), String> {
        self.cut = Some(on);
        Ok(())
    }

    fn rate(&mut self, _tree: u64, _limit: Option<Rate>) -> Result<(), String> {
        Err("not in this test".into())
    }
}

/// An agent's part, with state and trees of its own.
struct World {
    contain: Contain,
    tree: u64,
    state: tempfile::TempDir,
}

impl World {
    fn new(layout: Layout) -> Self {
        let state = tempfile::tempdir().expect("a directory");
        let mut contain = Contain::new(state.path(), layout);
        // Its program is this test's, which has no such verb.
        contain.unwatched = true;
        Self { contain, tree: boot_ns(), state }
    }

    fn order(&self, action: Action) -> Order {
        Order {
            id: "r".into(),
            action,
            tree: self.tree,
            server: "a server/..".into(),
            process: None,
            only: None,
            for_ns: 60_000_000_000,
            dry_run: false,
        }
    }

    fn perform(&mut self, order: &Order, family: &mut Family) -> Outcome {
        self.contain.perform(order, family, BTreeSet::new())
    }

    fn act(&mut self, action: Action, family: &mut Family) -> Outcome {
        let order = self.order(action);
        self.perform(&order, family)
    }

    fn own(&self, h: &Hierarchy) -> Group {
        Group::new(h, h.own(&format!("a_server___-{:x}", self.tree)))
    }

    /// Nothing of it is left anywhere.
    fn assert_clean(&self) {
        assert_eq!(self.contain.records.all(), []);
        for h in self.contain.layout.all() {
            assert!(!self.own(h).exists(), "{:?} is left", self.own(h));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for h in self.contain.layout.all() {
            let group = self.own(h);
            if group.exists() {
                drop(group.freeze(false));
                for pid in group.members() {
                    drop(Group::new(h, h.top().to_owned()).admit(pid));
                }
                drop(group.remove());
            }
        }
    }
}

fn soon(what: &str, mut f: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !f() {
        assert!(Instant::now() < end, "{what}: not within 5 s");
        sleep(5 * MS);
    }
}

/// This host as it is, and as if it had v1 only.
fn layouts() -> Vec<Layout> {
    let v1 = Layout::of_host().without(V2);
    let mut all = vec![Layout::of_host()];
    // A unified host has no v1 freezer to try.
    all.extend(v1.freezer().is_some().then_some(v1));
    all
}

const BUSY: &str = "(while :; do :; done) & echo ready; while :; do :; done";
const SLEEPERS: &str = "sleep 60 & sleep 60 & echo ready; wait";

#[test]
fn what_is_frozen_stands_still_and_goes_on_where_it_was() {
    for layout in layouts() {
        let (mut w, mut f) = (World::new(layout), Family::ready(BUSY));
        let places = |f: &Family, w: &World| -> Vec<Vec<Option<String>>> {
            f.pids().iter().map(|p| w.contain.layout.all().map(|h| h.place(*p)).collect()).collect()
        };
        let before = places(&f, &w);
        let done = w.act(Action::Freeze, &mut f);
        assert_eq!((done.verdict, done.processes, &*done.after), (Verdict::Done, 2, "frozen"), "{done:?}");
        sleep(50 * MS);
        let ticks = f.ticks();
        sleep(300 * MS);
        assert_eq!(f.ticks(), ticks, "it runs");
        // Nobody outside of the cgroup can have it go on.
        for pid in f.pids() {
            let held = key(pid).and_then(|k| process::Held::open(k).ok()).expect("it is there");
            held.signal(rustix::process::Signal::CONT).expect("permitted");
        }
        sleep(100 * MS);
        assert_eq!(f.ticks(), ticks, "a SIGCONT has it run");
        let done = w.act(Action::Release, &mut f);
        assert_eq!((done.verdict, done.processes), (Verdict::Done, 2), "{done:?}");
        assert_eq!(places(&f, &w), before);
        soon("it goes on", || f.ticks() > ticks + 2);
        w.assert_clean();
        let again = w.act(Action::Release, &mut f);
        assert_eq!(again.verdict, Verdict::Nothing, "{again:?}");
    }
}

#[test]
fn all_threads_of_a_process_stand_still() {
    let exe = std::env::current_exe().expect("this test");
    let script =
        format!("exec {} --ignored --exact contain::tests::program_with_threads --nocapture", exe.display());
    let (mut w, mut f) = (World::new(Layout::of_host()), Family::start(&script));
    soon("it has threads", || process::stat(f.root.id()).is_some_and(|s| s.threads >= 9));
    soon("they work", || f.ticks() > 3);
    let done = w.act(Action::Freeze, &mut f);
    assert_eq!(done.verdict, Verdict::Done, "{done:?}");
    sleep(50 * MS);
    let ticks = f.ticks();
    sleep(200 * MS);
    assert_eq!(f.ticks(), ticks);
    assert_eq!(w.act(Action::KillServer, &mut f).verdict, Verdict::Done);
    w.assert_clean();
}

#[test]
#[ignore = "a program that the test above runs"]
fn program_with_threads() {
    for _ in 0..8 {
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    sleep(Duration::from_secs(20));
}

/// As many as it can, up to 64 at a time, each of which lives for a moment or for long.
const FORKS: &str =
    "echo ready; n=0; while :; do n=$((n+1)); if [ $n -lt 60 ]; then sleep 60 & else sh -c : ; fi; done";

#[test]
fn who_forks_is_frozen_whole() {
    for layout in layouts() {
        let (mut w, mut f) = (World::new(layout), Family::ready(FORKS));
        sleep(20 * MS);
        let done = w.act(Action::Freeze, &mut f);
        // A loaded machine needs a moment to end the forks that are under way, which is told.
        assert!(matches!(done.verdict, Verdict::Done | Verdict::Partly), "{done:?}");
        soon("all stand still", || w.contain.layout.freezer().is_some_and(|h| w.own(h).is_frozen()));
        let inside: BTreeSet<u32> =
            w.contain.layout.freezer().map(|h| w.own(h).members()).into_iter().flatten().collect();
        let alive: BTreeSet<u32> = f.pids().into_iter().filter(|p| key(*p).is_some()).collect();
        assert_eq!(alive, inside, "some are outside");
        let n = alive.len();
        sleep(100 * MS);
        assert_eq!(f.alive(), n, "it still forks");
        assert_eq!(w.act(Action::Release, &mut f).verdict, Verdict::Done);
        w.assert_clean();
        let done = w.act(Action::KillServer, &mut f);
        assert_eq!(done.verdict, Verdict::Done, "{done:?}");
        soon("all have ended", || f.alive() == 0);
    }
}

#[test]
fn the_frozen_can_be_ended() {
    // On v1 a SIGKILL waits until they are thawed.
    for layout in layouts() {
        let (mut w, mut f) = (World::new(layout), Family::ready(SLEEPERS));
        assert_eq!(w.act(Action::Freeze, &mut f).processes, 3);
        let done = w.act(Action::KillServer, &mut f);
        assert_eq!((done.verdict, done.processes, &*done.after), (Verdict::Done, 3, "ended"), "{done:?}");
        assert_eq!(f.alive(), 0);
        w.assert_clean();
        assert_eq!(w.act(Action::KillServer, &mut f).verdict, Verdict::Nothing);
        assert_eq!(w.act(Action::Freeze, &mut f).verdict, Verdict::Nothing);
    }
}

#[test]
fn who_ends_while_it_is_frozen_leaves_nothing() {
    let (mut w, mut f) = (World::new(Layout::of_host()), Family::ready(SLEEPERS));
    assert_eq!(w.act(Action::Freeze, &mut f).processes, 3);
    for k in f.members(0) {
        process::Held::open(k)
            .expect("it is there")
            .signal(rustix::process::Signal::KILL)
            .expect("permitted");
    }
    soon("they end", || f.alive() == 0);
    let done = w.act(Action::Release, &mut f);
    assert_eq!((done.verdict, done.processes), (Verdict::Done, 0), "{done:?}");
    w.assert_clean();
}

#[test]
fn a_child_is_ended_with_what_descends_from_it() {
    let mut w = World::new(Layout::of_host());
    let mut f = Family::ready("sh -c 'sleep 61 & sleep 62 & wait' & sleep 63 & sleep 0.1; echo ready; wait");
    let name = |p: &u32| std::fs::read_to_string(format!("/proc/{p}/cmdline")).unwrap_or_default();
    let child = f.pids().into_iter().skip(1).find(|p| name(p).starts_with("sh")).expect("the child");
    let order = Order { process: key(child), ..w.order(Action::KillChild) };
    let done = w.perform(&order, &mut f);
    assert_eq!((done.verdict, done.processes), (Verdict::Done, 3), "{done:?}");
    let left: Vec<String> = f.pids().iter().filter(|p| key(**p).is_some()).map(name).collect();
    assert!(left.len() == 2 && left.iter().any(|n| n.contains("63")), "{left:?}");
    let done = w.perform(&order, &mut f);
    assert_eq!(done.verdict, Verdict::Nothing, "{done:?}");
}

#[test]
fn whom_no_order_touches() {
    let (mut w, mut f) = (World::new(Layout::of_host()), Family::ready(SLEEPERS));
    let parent = process::stat(std::process::id()).expect("this test runs").parent;
    let mut outside = Command::new("sleep").arg("60").spawn().expect("sleep");
    let refused = |w: &mut World, f: &mut Family, pid: u32, clients: &[u32], says: &str| {
        let order = Order { process: key(pid), ..w.order(Action::KillChild) };
        let done = w.contain.perform(&order, f, clients.iter().copied().collect());
        assert_eq!(done.verdict, Verdict::Refused, "{done:?}");
        assert!(done.result.contains(says), "{done:?}");
        assert!(key(pid).is_some(), "{pid} has ended");
    };
    refused(&mut w, &mut f, 1, &[], "first process");
    refused(&mut w, &mut f, std::process::id(), &[], "agent itself");
    refused(&mut w, &mut f, parent, &[], "started by it");
    refused(&mut w, &mut f, outside.id(), &[], "not of this server");
    let child = f.pids()[1];
    refused(&mut w, &mut f, child, &[child], "MCP client");
    // The kernel's maps are wrong, or were made so: what they name is still not touched.
    for (stranger, says) in
        [(1, "first process"), (std::process::id(), "agent itself"), (parent, "started by it")]
    {
        f.stranger = Some(stranger);
        let done = w.act(Action::Freeze, &mut f);
        assert_eq!((done.verdict, done.processes), (Verdict::Partly, 3), "{done:?}");
        assert!(done.spared.iter().any(|s| s.pid == stranger && s.because.contains(says)), "{done:?}");
        assert_eq!(w.act(Action::Release, &mut f).verdict, Verdict::Done);
    }
    f.stranger = Some(parent);
    let done = w.act(Action::KillServer, &mut f);
    assert_eq!((done.verdict, done.processes, done.spared.len()), (Verdict::Partly, 3, 1), "{done:?}");
    outside.kill().and_then(|()| outside.wait()).expect("it is ours");
    w.assert_clean();
}

#[test]
fn a_cgroup_that_is_gone_meanwhile() {
    let (mut w, mut f) = (World::new(Layout::of_host()), Family::ready(SLEEPERS));
    let h = w.contain.layout.freezer().expect("a freezer").clone();
    let outer = h.top().join(format!("respond-test-{}", std::process::id()));
    let inner = Group::new(&h, outer.join("inner"));
    inner.make().expect("made");
    for pid in f.pids() {
        inner.admit(pid).expect("moved");
    }
    assert_eq!(w.act(Action::Freeze, &mut f).verdict, Verdict::Done);
    inner.remove().expect("it is empty");
    let done = w.act(Action::Release, &mut f);
    assert_eq!((done.verdict, done.processes), (Verdict::Done, 3), "{done:?}");
    assert!(done.result.contains("above"), "{done:?}");
    let outer = Group::new(&h, outer);
    assert_eq!(outer.members().len(), 3);
    assert_eq!(w.act(Action::KillServer, &mut f).verdict, Verdict::Done);
    soon("it is empty", || outer.remove().is_ok());
    w.assert_clean();
}
