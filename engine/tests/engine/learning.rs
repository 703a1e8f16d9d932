//! Baselines: what is learned, when it is tested, and what is found then.

use engine::{
    finding::{Finding, Kind, Severity},
    input::{Fact, Identity},
    judge::{Command, Config, Mode, ModeRule},
    output::Line,
};

use crate::common::{MS, ROOT, TREE, World};

/// A world that lives through many sessions of one server.
pub struct Host {
    pub world: World,
    sessions: u64,
}

impl Host {
    pub fn new(budget: f64) -> Self {
        let mut world = World::bare();
        let config = Config { budget_per_day: budget, sessions_per_day: Some(1.0), ..Config::default() };
        world.fact(&Fact::Command(Command::Configure { config }));
        Self { world, sessions: 0 }
    }

    fn identity(version: &str) -> Identity {
        Identity {
            tree: TREE,
            tgid: ROOT,
            name: "files".into(),
            version: Some(version.into()),
            digest: Some("d".repeat(64)),
            roots: vec!["/srv/data".into(), "/home/dev".into()],
            ..Identity::default()
        }
    }

    /// One session: startup, then what `act` does.
    pub fn session(&mut self, version: &str, act: impl FnOnce(&mut World, u64)) {
        self.sessions += 1;
        let w = &mut self.world;
        w.begin();
        w.fact(&Fact::Identity(Self::identity(version)));
        act(w, self.sessions);
        w.wait(100);
        w.fact(&Fact::Usage(engine::input::Usage {
            tgid: ROOT,
            cpu_ns: 7 * MS,
            rss: 4096,
            peak_rss: 8192,
            ..Default::default()
        }));
        let up_to_ns = w.now;
        w.fact(&Fact::Drained { up_to_ns });
        w.exit(ROOT);
        w.wait(10);
        let up_to_ns = w.now;
        w.fact(&Fact::Drained { up_to_ns });
        w.wait(1100);
    }

    /// Ordinary sessions of a server that reads files under its root.
    pub fn train(&mut self, sessions: u64) {
        for _ in 0..sessions {
            self.session("1", |w, n| {
                let name = |i: u64| char::from(b'a' + (i % 26) as u8);
                for i in 0..5 {
                    read(w, &format!("srv/data/dir{}{}/report-{i}.txt", name(n), name(n / 26)));
                }
            });
        }
    }

    pub fn findings(&self) -> Vec<&Finding> {
        self.world
            .lines()
            .filter_map(|l| if let Line::Finding(f) = l { Some(&**f) } else { None })
            .filter(|f| !matches!(f.kind, Kind::NewServer | Kind::ServerChanged))
            .collect()
    }

    fn state(&self) -> String {
        format!("{:?}", self.world.engine.judge().baselines().map(|b| &b.state).collect::<Vec<_>>())
    }
}

/// One call that opens a file.
fn read(w: &mut World, path: &str) {
    let id = w.next_call();
    w.call(id, "read_file");
    w.open(ROOT, &reversed(path));
    w.reply(id);
    w.wait(30);
}

/// The kernel gives names from the file up.
fn reversed(path: &str) -> String {
    path.split('/').rev().collect::<Vec<_>>().join("/")
}

#[test]
fn a_baseline_is_active_when_its_bound_fits_the_budget_and_not_before() {
    let mut host = Host::new(0.2);
    host.train(20);
    assert!(host.state().contains("Learning"), "{}", host.state());
    host.train(20);
    assert!(host.state().contains("Active"), "{}", host.state());
    assert_eq!(host.findings().len(), 0, "{:#?}", host.findings());
}

#[test]
fn a_new_area_is_one_finding_a_call_and_files_like_the_known_are_none() {
    let mut host = Host::new(0.2);
    host.train(40);
    host.session("1", |w, _| read(w, "srv/data/never-seen/other-77.txt"));
    assert_eq!(host.findings().len(), 0, "{:#?}", host.findings());
    host.session("1", |w, _| {
        let id = w.next_call();
        w.call(id, "read_file");
        w.open(ROOT, &reversed("home/dev/.ssh/id_rsa"));
        w.open(ROOT, &reversed("home/dev/.ssh/id_ed25519"));
        w.reply(id);
        w.wait(30);
    });
    let found = host.findings();
    let ids: std::collections::BTreeSet<&str> = found.iter().map(|f| f.id.as_str()).collect();
    assert_eq!(ids.len(), 1, "{found:#?}");
    let last = found.last().expect("a finding");
    assert_eq!((last.kind, last.severity), (Kind::NewFileArea, Severity::Medium));
    assert_eq!((last.object.as_str(), last.count), ("${home}/.ssh/**", 2));
    assert!(
        last.sentence.contains("200 calls in 40 sessions") || last.sentence.contains("201 calls"),
        "{}",
        last.sentence
    );
}

#[test]
fn what_has_a_finding_is_not_learned_until_a_person_expects_it() {
    let mut host = Host::new(0.2);
    host.train(40);
    for _ in 0..3 {
        host.session("1", |w, _| read(w, "home/dev/notes/a.txt"));
    }
    let found = host.findings();
    let id = found[0].id.clone();
    assert!(found.iter().all(|f| f.id == id), "repeats count on: {found:#?}");
    assert_eq!(found.last().map(|f| f.count), Some(3));
    let before = found.len();
    host.world.fact(&Fact::Command(Command::Ack { finding: id, expected: true }));
    host.session("1", |w, _| read(w, "home/dev/notes/a.txt"));
    assert_eq!(host.findings().len(), before, "{:#?}", host.findings().last());
}

#[test]
fn a_flood_of_junk_names_in_one_session_widens_nothing() {
    let mut host = Host::new(0.2);
    host.train(20);
    host.session("1", |w, _| {
        let id = w.next_call();
        w.call(id, "read_file");
        for i in 0..200 {
            let letters: String = (0..4).map(|k| char::from(b'a' + ((i >> (k * 2)) & 3) as u8)).collect();
            w.open(ROOT, &reversed(&format!("opt/{letters}/x")));
        }
        w.reply(id);
        w.wait(30);
    });
    host.train(40);
    host.session("1", |w, _| read(w, "opt/zzz/secret"));
    assert!(host.findings().iter().any(|f| f.object.starts_with("/opt/zzz")), "{:#?}", host.findings());
}

#[test]
fn another_version_is_compared_with_the_known_one() {
    let mut host = Host::new(0.2);
    host.train(40);
    host.session("2", |w, _| {
        read(w, "srv/data/dirba/report-1.txt");
        read(w, "home/dev/.aws/credentials");
    });
    assert!(host.state().contains("Stale"), "{}", host.state());
    let found = host.findings();
    assert!(found.iter().any(|f| f.object == "${home}/.aws/**"), "{found:#?}");
}

#[test]
fn in_mode_learn_a_baseline_tells_nothing() {
    let mut host = Host::new(0.2);
    host.train(40);
    let rule = ModeRule { server: "files".into(), tool: None, mode: Mode::Learn, strict: false };
    host.world.fact(&Fact::Command(Command::Mode { rule }));
    host.session("1", |w, _| read(w, "home/dev/.ssh/id_rsa"));
    assert_eq!(host.findings().len(), 0);
}

#[test]
fn what_is_stored_is_what_was_learned() {
    let mut host = Host::new(0.2);
    host.train(40);
    let stored = host.world.engine.judge().stored();
    let text = serde_json::to_string(&stored).expect("json");
    let again: engine::judge::Stored = serde_json::from_str(&text).expect("the same");
    let mut other = Host::new(0.2);
    other.world.fact(&Fact::Restore(Box::new(again)));
    other.sessions = 40;
    other.session("1", |w, _| read(w, "home/dev/.ssh/id_rsa"));
    assert_eq!(other.findings().len(), 1, "{:#?}", other.findings());
    assert_eq!(serde_json::to_string(&stored).ok(), Some(text));
}

#[test]
fn what_was_done_before_it_was_known_who_did_it_teaches_nothing() {
    let mut host = Host::new(0.2);
    for _ in 0..10 {
        let w = &mut host.world;
        w.begin();
        w.wait(5_000);
        // Nobody knows yet that this is under its root.
        read(w, "srv/data/early.txt");
        w.fact(&Fact::Identity(Host::identity("1")));
        read(w, "srv/data/late.txt");
        w.close();
        w.exit(ROOT);
        w.wait(1100);
    }
    let judge = host.world.engine.judge();
    let baseline = judge.baselines().next().expect("a baseline");
    let members: Vec<String> = baseline
        .full()
        .scopes
        .into_iter()
        .flat_map(|s| s.dimensions)
        .flat_map(|d| d.members)
        .map(|m| m.member)
        .filter(|m| m.contains(".txt"))
        .collect();
    assert!(!members.is_empty() && members.iter().all(|m| m == "${root}/late.txt"), "{members:?}");
}

#[test]
fn what_is_new_to_the_server_is_found_where_it_is_open_which_tool_did_it() {
    let mut host = Host::new(0.2);
    host.train(40);
    let both = |w: &mut World, path: &str| {
        let (a, b) = (w.next_call(), w.next_call());
        w.call(a, "read_file");
        // A tool that nobody knows: held to what the server does at all.
        w.call(b, "other_tool");
        w.open(ROOT, &reversed(path));
        w.reply(a);
        w.reply(b);
        w.wait(30);
    };
    host.session("1", |w, _| both(w, "srv/data/dirab/report-1.txt"));
    let of_files = |host: &Host| host.findings().iter().filter(|f| f.kind == Kind::NewFileArea).count();
    assert_eq!(of_files(&host), 0, "{:#?}", host.findings());
    host.session("1", |w, _| both(w, "home/dev/notes/secret.txt"));
    assert!(of_files(&host) > 0, "{:#?}", host.findings());
}

#[test]
fn what_is_new_to_the_server_is_one_finding_whichever_of_its_tools_do_it() {
    let mut host = Host::new(0.2);
    let of_tool = |w: &mut World, tool: &str, path: &str| {
        let id = w.next_call();
        w.call(id, tool);
        w.open(ROOT, &reversed(path));
        w.reply(id);
        w.wait(30);
    };
    for n in 0..40 {
        host.session("1", |w, _| {
            for tool in ["read_file", "search"] {
                of_tool(w, tool, &format!("srv/data/dir{n}/report.txt"));
            }
        });
    }
    host.session("1", |w, _| {
        of_tool(w, "read_file", "home/dev/notes/secret.txt");
        of_tool(w, "search", "home/dev/notes/secret.txt");
    });
    let ids: std::collections::BTreeSet<_> = host.findings().iter().map(|f| f.id.clone()).collect();
    assert_eq!(ids.len(), 1, "{:#?}", host.findings());
    let last = host.findings().into_iter().last().expect("a finding");
    assert_eq!((last.kind, last.count), (Kind::NewFileArea, 2));
}
