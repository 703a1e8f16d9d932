//! Which process begins a tree, and which belongs to one.

use super::*;

fn seen(pid: u32, parent: u32, stdin: u64, stdout: u64) -> Seen {
    Seen { pid, parent, start_ns: u64::from(pid), stdin, stdout }
}

/// (pid, pid of the root of its tree, pid of the root of the tree around that)
fn roots(seen: &[Seen], known: &Known) -> Vec<(u32, u32, u32)> {
    let plan = plan(seen, known, 2, 0);
    plan.iter().map(|a| (a.seen.pid, a.tree as u32, a.parent_tree.unwrap_or(0) as u32)).collect()
}

#[test]
fn the_outermost_process_of_a_pair_is_the_root_and_descendants_belong_to_it() {
    let all = [
        seen(1, 0, 0, 0),
        seen(2, 1, 0, 0),
        seen(10, 1, 0, 0),  // the client
        seen(20, 10, 5, 6), // npx
        seen(21, 20, 5, 6), // sh
        seen(22, 21, 5, 6), // the server
        seen(23, 22, 0, 9), // a child
        seen(24, 23, 0, 0), // and its child
        seen(30, 10, 7, 0), // one channel is no pair
        seen(40, 10, 11, 12),
    ];
    let wanted = [(20, 20, 0), (21, 20, 0), (22, 20, 0), (23, 20, 0), (24, 20, 0), (40, 40, 0)];
    assert_eq!(roots(&all, &Known::default()), wanted);
    // In whatever order they are listed.
    let mut turned = all;
    turned.reverse();
    assert_eq!(roots(&turned, &Known::default()), wanted);
}

#[test]
fn a_pair_of_its_own_makes_a_nested_tree_and_a_shared_request_channel_does_not() {
    let all = [seen(20, 1, 5, 6), seen(21, 20, 7, 8), seen(22, 21, 7, 8), seen(23, 20, 5, 9)];
    assert_eq!(roots(&all, &Known::default()), [(20, 20, 0), (21, 21, 20), (22, 21, 0), (23, 20, 0)]);
}

#[test]
fn what_lost_its_launcher_joins_its_pair() {
    let all = [seen(1, 0, 0, 0), seen(20, 1, 5, 6), seen(22, 1, 5, 6)];
    assert_eq!(roots(&all, &Known::default()), [(20, 20, 0), (22, 20, 0)]);
}

#[test]
fn who_is_tracked_stays_and_its_children_join() {
    let known = Known {
        procs: HashMap::from([(20, (77, 5, 6)), (30, (88, 1, 2))]),
        trees: HashMap::from([(77, (5, 6))]),
    };
    // The tree of 30 is gone: nothing is known of its child.
    let all =
        [seen(20, 1, 5, 6), seen(21, 20, 5, 6), seen(22, 20, 0, 0), seen(30, 1, 1, 2), seen(31, 30, 0, 0)];
    assert_eq!(roots(&all, &known), [(21, 77, 0), (22, 77, 0)]);
}

#[test]
fn the_agent_and_what_it_was_started_by_begin_no_tree() {
    let all = [seen(1, 0, 3, 4), seen(4, 1, 5, 6), seen(2, 4, 5, 6), seen(7, 4, 8, 9), seen(9, 2, 5, 6)];
    let mut found = roots(&all, &Known::default());
    found.sort_unstable();
    assert_eq!(found, [(7, 7, 0), (9, 9, 0)]);
}

#[test]
fn this_process_is_seen_with_its_channels() {
    let mut child = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("cat runs");
    // `spawn` is back once the old memory is gone, before the new one has its argv: it has it once it answers.
    {
        use std::io::{Read as _, Write as _};
        child.stdin.as_mut().expect("stdin").write_all(b"x").expect("it reads");
        child.stdout.as_mut().expect("stdout").read_exact(&mut [0]).expect("it answers");
    }
    let all = scan();
    let cat = all.iter().find(|s| s.pid == child.id()).expect("it is listed");
    assert!(is_alive(cat) && cat.parent == std::process::id());
    assert!(cat.stdin != 0 && cat.stdout != 0 && cat.stdin >> 63 == 0 && cat.stdin != cat.stdout);
    let told = describe(&Adopted { seen: *cat, tree: 1, root: true, parent_tree: None });
    assert_eq!((told.argv, told.tgid), (vec!["cat".to_owned()], child.id()));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(!is_alive(cat));
}

#[test]
fn stream_sockets_are_channels_and_datagram_sockets_are_not() {
    use std::os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixStream},
    };
    let (stream, _peer) = UnixStream::pair().expect("a pair");
    let (datagram, _other) = UnixDatagram::pair().expect("a pair");
    let mut child = std::process::Command::new("sleep")
        .arg("10")
        .stdin(OwnedFd::from(stream))
        .stdout(OwnedFd::from(datagram))
        .spawn()
        .expect("sleep runs");
    let all = scan();
    let sleep = all.iter().find(|s| s.pid == child.id()).copied().expect("it is listed");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(sleep.stdin >> 63 == 1 && sleep.stdout == 0, "{sleep:?}");
}

#[test]
fn of_a_plan_only_what_was_asked_for_is_kept() {
    let all =
        [seen(20, 1, 5, 6), seen(21, 20, 0, 0), seen(22, 20, 7, 8), seen(30, 1, 9, 10), seen(31, 30, 0, 0)];
    let known = Known { procs: HashMap::from([(40, (77, 1, 2))]), trees: HashMap::from([(77, (1, 2))]) };
    let all = [all.as_slice(), &[seen(40, 1, 1, 2), seen(41, 40, 0, 0)]].concat();
    let mut plan = plan(&all, &known, 2, 0);
    assert_eq!(plan.len(), 6);
    only(&mut plan, &HashSet::from([20, 21]), &known);
    assert_eq!(plan.iter().map(|a| a.seen.pid).collect::<Vec<_>>(), [20, 21, 22, 41]);
}

#[test]
fn who_reads_again_is_woken() {
    use std::io::{Read as _, Write as _};
    let mut child = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("cat runs");
    // It is in its loop once it has answered.
    let (mut to, mut from) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
    let mut say = || {
        to.write_all(b"x").expect("it reads");
        from.read_exact(&mut [0]).expect("it answers");
    };
    say();
    let cat = scan().into_iter().find(|s| s.pid == child.id()).expect("it is listed");
    let mut waiting = Waiting::default();
    waiting.adopted(&Adopted { seen: cat, tree: 5, root: true, parent_tree: None });
    let now = Instant::now();
    waiting.wait(6, now);
    waiting.wait(5, now);
    assert!(waiting.woken(now).is_empty());
    say();
    assert_eq!(waiting.woken(now), HashSet::from([child.id()]));
    assert!(waiting.woken(now).is_empty());
    // Let go again: it had read from elsewhere.
    waiting.adopted(&Adopted { seen: cat, tree: 7, root: true, parent_tree: None });
    waiting.wait(7, now);
    say();
    assert!(waiting.woken(now + PATIENCE / 2).is_empty());
    assert_eq!(waiting.woken(now + PATIENCE), HashSet::from([child.id()]));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}
