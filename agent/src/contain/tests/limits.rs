//! Limits, time, and how long it takes.

use super::*;
use crate::contain::{disarm_file, watchdog};

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
    let kept = later.known(w.tree + 2, &f.members(0)).expect("it is known by its processes");
    assert_eq!((kept.tree, w.contain.records.all().len()), (w.tree + 2, 1));
    let said = later.release_named("a server/..", &mut f).expect("it is known").expect("released");
    assert!(said.contains('3'), "{said}");
    w.assert_clean();
}

fn percentile(times: &mut [u64], p: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * p / 100] as f64 / 1e6
}

/// From the order to the return of the system call that has effect. The tests beside this one burn what the machine has, so
/// times are printed only.
#[test]
fn every_order_is_carried_out() {
    const ROUNDS: usize = 50;
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
