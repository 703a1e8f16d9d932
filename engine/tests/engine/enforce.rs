//! Who is held to what, as modes, baselines, rules and servers come and go.

use std::collections::BTreeMap;

use engine::{
    Output,
    act::{Access, Act},
    input::{Fact, Identity, Input},
    judge::{Command, Config, Mode, ModeRule, OnDegraded, RuleText},
    policy::{Change, Family, Policy, scope},
};

use crate::common::{MS, ROOT, TREE, World};

const DAY_MS: u64 = 86_400_000;

struct Host {
    w: World,
    seen: usize,
}

impl Host {
    fn new() -> Self {
        let mut host = Self { w: World::bare(), seen: 0 };
        host.can(&[Family::Network, Family::Listen, Family::File]);
        host
    }

    fn can(&mut self, families: &[Family]) {
        let because =
            BTreeMap::from([(Family::Exec, "no BPF LSM: add lsm=bpf to the kernel line".to_owned())]);
        let families = families.iter().copied().collect();
        self.order(Command::Enforceable { families, because }).expect("it is taken");
    }

    fn order(&mut self, command: Command) -> Result<String, String> {
        let from = self.w.outputs.len();
        self.w.fact(&Fact::Command(command));
        let answers = self.w.outputs[from..].iter();
        answers
            .filter_map(|o| if let Output::Answer(a) = o { Some(a.clone()) } else { None })
            .next()
            .expect("an answer")
    }

    fn mode(&mut self, tool: Option<&str>, mode: Mode) -> Result<String, String> {
        let rule = ModeRule { server: "files".into(), tool: tool.map(Into::into), mode, strict: false };
        self.order(Command::Mode { rule })
    }

    fn ratify(&mut self, version: &str) -> Result<String, String> {
        self.order(Command::Ratify {
            baseline: format!("1000/files@dddddddddddddddd+{version}"),
            by: "uid 0".into(),
        })
    }

    fn rules(&mut self, text: &str) {
        let file = RuleText { name: "own.yaml".into(), text: text.into(), shipped: false };
        self.order(Command::Rules { files: vec![file] }).expect("good rules");
    }

    fn start(&mut self, version: &str) {
        self.w.begin();
        self.w.fact(&Fact::Identity(Identity {
            tree: TREE,
            tgid: ROOT,
            name: "files".into(),
            version: Some(version.into()),
            digest: Some("d".repeat(64)),
            roots: vec!["/srv/data".into()],
            ..Identity::default()
        }));
    }

    fn read(&mut self) {
        let id = self.w.next_call();
        self.w.call(id, "read_file");
        self.w.open(ROOT, "a.txt/data/srv");
        self.w.reply(id);
        self.w.wait(30);
    }

    fn end(&mut self) {
        self.w.close();
        self.w.exit(ROOT);
        self.w.wait(10);
        let up_to_ns = self.w.now;
        self.w.fact(&Fact::Drained { up_to_ns });
        self.w.wait(1100);
    }

    fn session(&mut self, version: &str) {
        self.start(version);
        self.read();
        self.end();
    }

    /// Changes since the last look, in short.
    fn changes(&mut self) -> Vec<String> {
        let new = &self.w.outputs[self.seen..];
        let mut out = Vec::new();
        for output in new {
            let Output::Policy(change) = output else { continue };
            out.push(match change {
                Change::Load(p) => format!("load {}", p.identity),
                Change::Bind { tree, identity, dry_run } => format!("bind {tree} {identity} {dry_run}"),
                Change::Names { .. } => continue,
                Change::Release { tree } => format!("release {tree}"),
                Change::Unload { identity } => format!("unload {identity}"),
            });
        }
        self.seen = self.w.outputs.len();
        out
    }

    fn policies(&self) -> Vec<&Policy> {
        let all = self.w.outputs.iter();
        all.filter_map(|o| if let Output::Policy(Change::Load(p)) = o { Some(&**p) } else { None }).collect()
    }
}

const ONE: &str = "1000/files@dddddddddddddddd+1";

fn read_act(path: &str) -> Act<'_> {
    Act::File { access: Access::Read, path, directory: false, truncated: false }
}

#[test]
fn enforce_needs_a_ratified_baseline_and_says_what_to_do() {
    let mut host = Host::new();
    let why = host.mode(None, Mode::Enforce).expect_err("nothing is known");
    assert!(why.contains("toolwarden baseline ratify"), "{why}");
    host.session("1");
    host.start("1");
    let why = host.mode(None, Mode::Enforce).expect_err("not ratified");
    assert!(why.contains(&format!("toolwarden baseline ratify {ONE}")), "{why}");
    assert_eq!(host.changes(), Vec::<String>::new());
    host.ratify("1").expect("ratified");
    host.mode(None, Mode::Enforce).expect("in enforce");
    let bind = format!("bind {TREE} {ONE} false");
    assert_eq!(host.changes(), [format!("load {ONE}"), bind]);
    host.mode(None, Mode::Watch).expect("back");
    assert_eq!(host.changes(), [format!("release {TREE}"), format!("unload {ONE}")]);
}

#[test]
fn servers_are_bound_when_they_are_known_and_released_when_they_end() {
    let mut host = Host::new();
    host.session("1");
    host.ratify("1").expect("ratified");
    host.mode(None, Mode::Enforce).expect("in enforce");
    // It is in force before the next one runs.
    assert_eq!(host.changes(), [format!("load {ONE}")]);
    host.start("1");
    assert_eq!(host.changes(), [format!("bind {TREE} {ONE} false")]);
    let policy = host.policies().into_iter().next_back().expect("a policy").clone();
    let bit = 1 << policy.tools[0].bit;
    assert!(policy.permits(&read_act("/srv/data/b.txt"), bit));
    assert!(!policy.permits(&read_act("/srv/data/b.txt"), scope::AMBIENT));
    assert!(!policy.permits(&read_act("/etc/shadow"), u64::MAX));
    host.end();
    assert_eq!(host.changes(), [format!("release {TREE}")]);
    let generations: Vec<u64> = host.policies().iter().map(|p| p.generation).collect();
    assert_eq!(generations.len(), 1);
    host.rules("rules:\n  - id: a\n    deny: {network: {connect: [private]}}\n");
    let generations: Vec<u64> = host.policies().iter().map(|p| p.generation).collect();
    assert!(generations.len() == 2 && generations.windows(2).all(|g| g[0] < g[1]), "{generations:?}");
}

#[test]
fn another_version_is_held_to_what_its_predecessor_was_ratified_for() {
    let mut host = Host::new();
    host.session("1");
    host.ratify("1").expect("ratified");
    host.mode(None, Mode::Enforce).expect("in enforce");
    host.changes();
    host.start("2");
    assert_eq!(host.changes().last(), Some(&format!("bind {TREE} {ONE} false")));
    let rule = ModeRule { server: "files".into(), tool: None, mode: Mode::Enforce, strict: true };
    host.order(Command::Mode { rule }).expect("strict");
    let two = "1000/files@dddddddddddddddd+2";
    let changes = host.changes();
    assert!(changes.contains(&format!("bind {TREE} {two} false")), "{changes:?}");
    let policy = host.policies().into_iter().rfind(|p| p.identity == two).expect("a policy").clone();
    assert!(!policy.permits(&read_act("/srv/data/a.txt"), !scope::NOBODY));
    host.read();
    host.w.close();
    host.ratify("2").expect("ratified");
    assert!(host.changes().contains(&format!("load {two}")));
}

#[test]
fn rules_and_expired_exceptions_make_new_generations() {
    let mut host = Host::new();
    host.session("1");
    host.ratify("1").expect("ratified");
    host.start("1");
    host.mode(None, Mode::Enforce).expect("in enforce");
    host.changes();
    // World::bare begins on 2023-11-14.
    host.rules(
        "rules:\n  - id: a\n    deny: {network: {connect: [private]}}\n    exceptions:\n      \
         - {reason: x, expires: 2023-11-16, network: {connect: ['10.1.2.3']}}\n",
    );
    assert_eq!(host.changes(), [format!("load {ONE}")]);
    let to = Act::Connect { address: [10, 1, 2, 3].into(), name: None, port: 443, protocol: "tcp" };
    assert!(host.policies().last().expect("one").permits(&to, scope::AMBIENT));
    for _ in 0..3 {
        host.w.now += DAY_MS * MS;
        let now_ns = host.w.now;
        host.w.engine.apply(Input::Tick { now_ns }, &mut host.w.outputs);
    }
    assert_eq!(host.changes().iter().filter(|c| c.starts_with("load")).count(), 1);
    assert!(!host.policies().last().expect("one").permits(&to, scope::AMBIENT));
}

#[test]
fn what_must_be_enforced_and_cannot_be_is_refused_unless_that_is_accepted() {
    let mut host = Host::new();
    host.can(&[Family::Listen]);
    host.session("1");
    host.ratify("1").expect("ratified");
    let why = host.mode(None, Mode::Enforce).expect_err("refused");
    assert!(why.contains("cannot enforce network") && why.contains("toolwarden doctor"), "{why}");
    let config = Config { on_degraded: OnDegraded::Observe, ..Config::default() };
    host.order(Command::Configure { config }).expect("settings");
    let said = host.mode(None, Mode::Enforce).expect("accepted");
    assert!(said.contains("cannot enforce network"), "{said}");
    assert_eq!(host.policies().last().expect("one").families, [Family::Listen]);
}

#[test]
fn single_tools_are_not_left_out() {
    let mut host = Host::new();
    host.session("1");
    host.ratify("1").expect("ratified");
    assert!(host.mode(Some("read_file"), Mode::Enforce).expect_err("one tool").contains("as a whole"));
    host.mode(Some("read_file"), Mode::Learn).expect("a tool in learn");
    let why = host.mode(None, Mode::Enforce).expect_err("a tool has its own mode");
    assert!(why.contains("`files read_file`"), "{why}");
    let said = host.mode(Some("read_file"), Mode::Enforce).expect("it gives up its own mode");
    assert!(said.contains("once its server"), "{said}");
    host.mode(None, Mode::Enforce).expect("in enforce");
    let why = host.mode(Some("read_file"), Mode::Watch).expect_err("its server is in enforce");
    assert!(why.contains("cannot leave out one tool"), "{why}");
}

#[test]
fn a_policy_that_denies_the_runtime_is_refused() {
    let mut host = Host::new();
    host.start("1");
    host.w.open(ROOT, "libc.so.6/lib/usr");
    host.read();
    host.end();
    host.rules("rules:\n  - id: no-libs\n    deny: {files: {read: ['/usr/lib/**']}}\n");
    let why = host.ratify("1").expect_err("it could not run");
    assert!(why.contains("could not run") && why.contains("/usr/lib/libc.so.{n}"), "{why}");
    host.rules("rules:\n  - id: other\n    deny: {files: {read: ['/usr/share/**']}}\n");
    host.ratify("1").expect("ratified");
    host.rules("rules:\n  - id: no-libs\n    deny: {files: {read: ['/usr/lib/**']}}\n");
    let why = host.mode(None, Mode::Enforce).expect_err("it could not run");
    assert!(why.contains("could not run"), "{why}");
    // What is no part of it may be denied, and is told.
    host.rules("rules:\n  - id: no-data\n    deny: {files: {read: ['/srv/data/**']}}\n");
    let said = host.mode(None, Mode::Enforce).expect("in enforce");
    assert!(said.contains("denied from now on: read ${root}/a.txt (tool read_file)"), "{said}");
}

#[test]
fn restored_state_holds_servers_again() {
    let mut host = Host::new();
    host.session("1");
    host.ratify("1").expect("ratified");
    host.mode(None, Mode::Enforce).expect("in enforce");
    let stored = host.w.engine.judge().stored();
    let mut again = Host::new();
    again.w.fact(&Fact::Restore(Box::new(stored)));
    assert_eq!(again.changes(), [format!("load {ONE}")]);
    assert_eq!(again.w.engine.judge().unenforceable(), None);
    again.start("1");
    assert!(again.changes().contains(&format!("bind {TREE} {ONE} false")));
    again.can(&[]);
    assert!(again.w.engine.judge().unenforceable().is_some_and(|why| why.contains("network")));
}

#[test]
fn the_same_inputs_give_the_same_policies() {
    let run = || {
        let mut host = Host::new();
        host.session("1");
        host.ratify("1").expect("ratified");
        host.mode(None, Mode::Enforce).expect("in enforce");
        host.session("1");
        host.session("2");
        let policies = host.w.outputs.iter().filter(|o| matches!(o, Output::Policy(_)));
        format!("{:?}", policies.collect::<Vec<_>>())
    };
    assert_eq!(run(), run());
}

#[test]
fn a_policy_as_people_see_it() {
    let mut host = Host::new();
    host.session("1");
    host.ratify("1").expect("ratified");
    host.rules(
        "rules:\n  - id: own\n    match: {tool: read_file}\n    allow: {network: {connect: ['api.example.com:443/tcp', '10.0.0.0/8']}}\n    \
         deny: {files: {read: ['**/*.pem']}, network: {connect: ['10.9.0.0/16']}}\n    limits: {connects: 9}\n",
    );
    host.start("1");
    host.mode(None, Mode::Enforce).expect("in enforce");
    let shown = host.w.engine.judge().show_policy("files").expect("one");
    let text = serde_json::to_string_pretty(&shown).expect("JSON") + "\n";
    let path = format!("{}/tests/engine/golden/policy.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("TOOLWARDEN_BLESS").is_some() {
        std::fs::write(&path, &text).expect("its directory is writable");
    }
    let golden = std::fs::read_to_string(&path).expect("it is there");
    assert!(golden == text, "{path} is out of date: run this test with TOOLWARDEN_BLESS=1, then read it");
}
