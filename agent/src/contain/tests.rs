//! Real processes in real cgroups of this host. They need root, like all that the agent does.

use std::{
    collections::{BTreeSet, HashMap},
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use engine::respond::{Action, Order, Outcome, ProcessKey, Verdict};

use super::{
    Contain, Ground, Rate, boot_ns, disarm_file,
    group::Group,
    layout::{Hierarchy, Layout, V2},
    process, watchdog,
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
        assert_eq!(done.verdict, Verdict::Done, "{done:?}");
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

#[test]
fn containers_are_limited_where_they_are() {
    let (mut w, mut f) = (World::new(Layout::of_host()), Family::ready(SLEEPERS));
    let h = w.contain.layout.freezer().expect("a freezer").clone();
    let cgroup = format!("docker-{:064x}.scope", boot_ns());
    let group = Group::new(&h, h.top().join(&cgroup));
    group.make().expect("made");
    for pid in f.pids() {
        group.admit(pid).expect("moved");
    }
    let mut other = Command::new("sleep").arg("60").spawn().expect("sleep");
    group.admit(other.id()).expect("moved");
    let done = w.act(Action::Freeze, &mut f);
    assert_eq!(done.verdict, Verdict::Refused, "{done:?}");
    assert!(done.result.contains(&other.id().to_string()) && !group.is_frozen(), "{done:?}");
    w.assert_clean();
    other.kill().and_then(|()| other.wait()).expect("it is ours");
    let done = w.act(Action::Freeze, &mut f);
    assert_eq!((done.verdict, done.processes), (Verdict::Done, 3), "{done:?}");
    assert!(group.is_frozen() && group.members().len() == 3);
    assert_eq!(w.act(Action::Release, &mut f).verdict, Verdict::Done);
    assert!(!group.is_frozen() && group.members().len() == 3);
    assert_eq!(w.act(Action::KillServer, &mut f).verdict, Verdict::Done);
    soon("it is empty", || group.remove().is_ok());
    w.assert_clean();
}

/// CPU seconds a second, over so long.
fn share(f: &Family, over: Duration) -> f64 {
    let (from, began) = (f.ticks(), Instant::now());
    sleep(over);
    (f.ticks() - from) as f64 / 100.0 / began.elapsed().as_secs_f64()
}

#[test]
fn cpu_is_throttled_to_its_quota() {
    let (mut w, mut f) = (World::new(Layout::of_host()), Family::ready(BUSY));
    let done = w.act(Action::Throttle, &mut f);
    assert!(done.result.contains("cpu 10 %") && done.processes == 2, "{done:?}");
    assert!(done.result.contains("memory") && done.result.contains("threads"), "{done:?}");
    sleep(300 * MS);
    let share = share(&f, Duration::from_secs(4));
    println!("throttled to {:.1} % of a CPU, quota 10 %: {}", share * 100.0, done.result);
    assert!((0.09..=0.11).contains(&share), "{share}");
    let done = w.act(Action::Release, &mut f);
    assert_eq!((done.verdict, done.processes), (Verdict::Done, 2), "{done:?}");
    w.assert_clean();
    let ticks = f.ticks();
    soon("it runs freely", || f.ticks() > ticks + 20);
}

#[test]
fn without_a_cpu_controller_it_is_frozen_for_most_of_the_time() {
    let (mut w, mut f) = (World::new(Layout::of_host().without("cpu")), Family::ready(BUSY));
    let done = w.act(Action::Throttle, &mut f);
    assert!(done.result.contains("freeze duty cycle"), "{done:?}");
    let state = w.state.path().to_owned();
    let without = std::thread::spawn(move || watchdog::run_with(&state, &Layout::of_host().without("cpu")));
    sleep(300 * MS);
    let share = share(&f, Duration::from_secs(3));
    println!("duty cycle: {:.1} % of a CPU for two busy processes", share * 100.0);
    assert!((0.02..=0.30).contains(&share), "{share}");
    assert_eq!(w.act(Action::Release, &mut f).verdict, Verdict::Done);
    assert!(without.join().is_ok(), "the watchdog panicked");
    let ticks = f.ticks();
    soon("it runs freely", || f.ticks() > ticks + 20);
    w.assert_clean();
}

#[test]
fn the_watchdog_ends_what_is_over_and_then_itself() {
    let (mut w, mut f) = (World::new(Layout::of_host()), Family::ready(BUSY));
    let order = Order { for_ns: 300_000_000, ..w.order(Action::Freeze) };
    assert_eq!(w.perform(&order, &mut f).verdict, Verdict::Done);
    let ticks = f.ticks();
    let began = Instant::now();
    watchdog::run_with(w.state.path(), &Layout::of_host());
    let took = began.elapsed();
    assert!(took > 800 * MS && took < Duration::from_secs(4), "{took:?}");
    soon("it goes on", || f.ticks() > ticks + 2);
    w.assert_clean();
}

#[test]
fn disarmed_nothing_is_done_and_the_watchdog_releases() {
    let (mut w, mut f) = (World::new(Layout::of_host()), Family::ready(SLEEPERS));
    let order = Order { for_ns: 0, ..w.order(Action::Freeze) };
    assert_eq!(w.perform(&order, &mut f).verdict, Verdict::Done);
    assert_eq!(w.contain.tick(), None);
    std::fs::write(disarm_file(w.state.path()), "").expect("written");
    assert_eq!((w.contain.tick(), w.contain.tick()), (Some(true), None));
    watchdog::run_with(w.state.path(), &Layout::of_host());
    w.assert_clean();
    for action in [Action::Freeze, Action::Throttle, Action::KillServer, Action::CutNetwork] {
        let done = w.act(action, &mut f);
        assert!(done.verdict == Verdict::Refused && done.result.contains("disarmed"), "{done:?}");
    }
    assert_eq!((f.alive(), f.cut), (3, None));
    std::fs::remove_file(disarm_file(w.state.path())).expect("removed");
    assert_eq!(w.contain.tick(), Some(false));
}

#[test]
fn a_dry_run_touches_nothing() {
    let (mut w, mut f) = (World::new(Layout::of_host()), Family::ready(SLEEPERS));
    let actions =
        [Action::Freeze, Action::Throttle, Action::CutNetwork, Action::KillChild, Action::KillServer];
    for action in actions {
        let order = Order { dry_run: true, process: key(f.root.id()), ..w.order(action) };
        let done = w.perform(&order, &mut f);
        assert_eq!((done.verdict, done.processes), (Verdict::Would, 3), "{done:?}");
    }
    assert_eq!((f.alive(), f.cut), (3, None));
    w.assert_clean();
}

#[test]
fn the_network_is_cut_by_the_kernels_maps() {
    let (mut w, mut f) = (World::new(Layout::of_host()), Family::ready(SLEEPERS));
    assert_eq!(w.act(Action::CutNetwork, &mut f).verdict, Verdict::Done);
    assert_eq!((f.cut, w.contain.records.all().len()), (Some(true), 1));
    assert_eq!(w.act(Action::Release, &mut f).verdict, Verdict::Done);
    assert_eq!(f.cut, Some(false));
    w.assert_clean();
}

#[test]
fn a_later_agent_releases_what_an_earlier_one_froze() {
    let (mut w, mut f) = (World::new(Layout::of_host()), Family::ready(SLEEPERS));
    assert_eq!(w.act(Action::Freeze, &mut f).verdict, Verdict::Done);
    let mut later = Contain::new(w.state.path(), Layout::of_host());
    later.unwatched = true;
    // Trees have other numbers in it; the processes are the same.
    let order = Order { tree: w.tree + 1, ..w.order(Action::Release) };
    let done = later.perform(&order, &mut f, BTreeSet::new());
    assert_eq!((done.verdict, done.processes), (Verdict::Done, 3), "{done:?}");
    w.assert_clean();
    assert_eq!(w.act(Action::Freeze, &mut f).verdict, Verdict::Done);
    assert_eq!(later.release_named("nobody", &mut f), None);
    let said = later.release_named("a server/..", &mut f).expect("it is known").expect("released");
    assert!(said.contains('3'), "{said}");
    w.assert_clean();
}

fn percentile(times: &mut [u64], p: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * p / 100] as f64 / 1e6
}

/// From the order to the return of the system call that has effect.
#[test]
fn it_takes_less_than_a_millisecond_to_end_and_five_to_stop() {
    const ROUNDS: usize = 200;
    let (mut kills, mut freezes) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut w, mut f) = (World::new(Layout::of_host()), Family::ready("echo ready; exec sleep 60"));
        // What the kernel's maps answer at once, `/proc` must not be asked for in the middle of it.
        let mut known = Known { keys: f.members(0) };
        let order = w.order(Action::Freeze);
        let done = w.contain.perform(&order, &mut known, BTreeSet::new());
        assert_eq!(done.verdict, Verdict::Done, "{done:?}");
        freezes.push(done.took_ns);
        assert_eq!(w.act(Action::Release, &mut f).verdict, Verdict::Done);
        let order = w.order(Action::KillServer);
        let done = w.contain.perform(&order, &mut known, BTreeSet::new());
        assert_eq!(done.verdict, Verdict::Done, "{done:?}");
        kills.push(done.took_ns);
    }
    let (kill, freeze) = (percentile(&mut kills, 99), percentile(&mut freezes, 99));
    println!(
        "{ROUNDS} rounds: SIGKILL p50 {:.3} ms, p99 {kill:.3} ms; standing still p50 {:.3} ms, p99 {freeze:.3} ms",
        percentile(&mut kills, 50),
        percentile(&mut freezes, 50)
    );
    // The tests beside this one burn what the machine has; `e2e` asserts the 99th percentiles.
    assert!(kills[ROUNDS / 2] < 1_000_000, "{kills:?}");
    assert!(freezes[ROUNDS / 2] < 5_000_000, "{freezes:?}");
}

struct Known {
    keys: Vec<ProcessKey>,
}

impl Ground for Known {
    fn members(&self, _tree: u64) -> Vec<ProcessKey> {
        self.keys.clone()
    }

    fn cut(&mut self, _tree: u64, _on: bool) -> Result<(), String> {
        Ok(())
    }

    fn rate(&mut self, _tree: u64, _limit: Option<Rate>) -> Result<(), String> {
        Ok(())
    }
}
