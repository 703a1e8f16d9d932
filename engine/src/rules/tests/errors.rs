//! What is wrong is told at its place, with a remedy.

use super::{person, problems};
use crate::rules::{MAX_FILE, RuleSet, Source, lint};

#[test]
fn an_unknown_key_is_shown_with_what_was_meant() {
    let text = "rules:\n  - id: a\n    deny:\n      netwrok: {connect: any}\n";
    let shown: Vec<String> = problems(text).iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "person.yaml:4:7: error: unknown key `netwrok`\n  |\n4 |       netwrok: {connect: any}\n  |       ^\n  = help: did you mean `network`?"
        ]
    );
}

#[test]
fn errors_stand_at_their_place_with_a_remedy() {
    for (text, place, message, remedy) in [
        ("rules:\n- id: a\n  allow: {files: {read: [/ok, etc]}}", (3, 31), "begins with", ""),
        ("rules:\n- id: a\n  deny: {network: {connect: 10.0.0.1/8}}", (3, 29), "bits set", "10.0.0.0/8"),
        ("rules:\n- id: a\n  deny: {syscalls: [ptrac]}", (3, 21), "no system call", "`ptrace`"),
        ("rules:\n- id: a\n  limits: {duration: 30}", (3, 22), "no limit of duration", "with its unit"),
        ("rules:\n- id: a\n  limits: {bytes_out: 1Mib}", (3, 23), "no limit of bytes_out", "1MiB"),
        ("rules:\n- id: a\n  learned: merge\n  severity: hihg", (4, 13), "unknown value", "`high`"),
        (
            "rules:\n- id: a\n  learned: merge\n  kind: privat-range",
            (4, 9),
            "unknown value",
            "`private-range`",
        ),
        (
            "rules:\n- id: a\n  exceptions: [{reason: x, expires: soon, files: {read: /a}}]",
            (3, 37),
            "no date",
            "2027-01-31",
        ),
        (
            "rules:\n- id: a\n  exceptions: [{reason: ' ', files: {read: /a}}]",
            (3, 25),
            "reason is empty",
            "say why",
        ),
        ("rules:\n- id: a\n  exceptions: [{files: {read: /a}}]", (3, 0), "`reason` is missing", "say why"),
        ("rules:\n- id: a\n  exceptions: [{reason: x}]", (3, 25), "permits nothing", "name files"),
        (
            "rules:\n- id: a\n  match: {tool: '@start'}\n  learned: merge",
            (3, 17),
            "unknown scope",
            "@startup",
        ),
        ("rules:\n- id: a", (2, 7), "says nothing", "add `allow`"),
        ("rules:\n- id: A b\n  learned: merge", (2, 7), "no id", "lower-case"),
        ("rules:\n- id: a\n  learned: only\n  allow: {unix: /a}", (2, 7), "contradict", "drop `allow`"),
        (
            "rules:\n- id: a\n  allow: {unix: /a}\n  deny: {unix: [/b, /a]}",
            (4, 21),
            "both allowed and denied",
            "remove one",
        ),
        (
            "rules:\n- id: a\n  learned: merge\n- id: a\n  learned: merge",
            (4, 7),
            "taken by person.yaml:2",
            "another one",
        ),
        ("rules:\n- id: a\n  learned: merge\n  learned: merge", (4, 3), "given twice", "into one"),
        ("rules:\n- id: a\n  deny: {network: {dns: *.evil.example}}", (3, 0), "", "quotes"),
        ("rules:\n- id: a\n  match: {tool: @startup}\n", (3, 0), "", "quotes"),
        ("rules:\n- id: a\n  learned: merge\n---\nrules: []", (0, 0), "second YAML document", "one list"),
        ("rules:\n- id: a\n  learned: merge\n  tests: [{name: t, expect: deny}]", (4, 18), "has no act", ""),
        (
            "rules:\n- id: a\n  learned: merge\n  tests: [{name: t, expect: deny, read: /a, write: /b}]",
            (4, 52),
            "second one",
            "",
        ),
        (
            "rules:\n- id: a\n  learned: merge\n  tests: [{name: t, expect: deny, connect: 1.2.3.4}]",
            (4, 44),
            "no address and port",
            "",
        ),
        ("rules: 5", (1, 0), "", ""),
        ("- id: a", (1, 0), "", ""),
        ("", (0, 0), "no rules", "`rules:`"),
        ("# nothing\n", (0, 0), "no rules", "`rules:`"),
    ] {
        let found = problems(text);
        let [first, ..] = found.as_slice() else { unreachable!("no problem with {text}") };
        let shown = first.to_string();
        assert!(first.message.contains(message), "{text}\n{shown}");
        let help = format!("{} {}", first.message, first.remedy.as_deref().unwrap_or_default());
        assert!(help.contains(remedy), "{text}\n{shown}");
        let (line, column) = place;
        assert!(line == 0 || first.line == line, "{text}\n{shown}");
        assert!(column == 0 || first.column == column, "{text}\n{shown}");
    }
}

#[test]
fn all_that_is_wrong_with_meanings_is_told_at_once() {
    let text = "rules:\n- id: a\n  deny: {files: {read: [x, y]}}\n- id: b\n  limits: {cpu: z}";
    assert_eq!(problems(text).len(), 3);
    let endless = format!("rules:\n- id: a\n  deny:\n    unix: [{}]", "x, ".repeat(5000));
    assert!(problems(&endless).len() <= 200);
}

#[test]
fn ids_are_unique_among_files() {
    let text = "rules: [{id: a, learned: merge}]";
    let other = Source { name: "other.yaml".into(), ..person(text) };
    let problems = RuleSet::compile(&[person(text), other], super::TODAY).expect_err("two of one id");
    assert!(
        problems[0].to_string().starts_with("other.yaml:1:14: error: the id `a` is taken by person.yaml:1")
    );
}

#[test]
fn bombs_are_refused_at_once() {
    let started = std::time::Instant::now();
    let mut aliases = String::from("rules:\n- id: a\n  deny:\n    unix: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..20 {
        let refs = vec![format!("*a{}", i - 1); 10].join(",");
        aliases += &format!("- id: b{i}\n  deny:\n    unix: &a{i} [{refs}]\n");
    }
    let list = "/a, ".repeat(1000);
    let uses = "- {id: x, deny: {unix: *a}}\n".repeat(1000);
    for text in [
        aliases,
        format!("rules:\n- id: a\n  deny: {{unix: &a [{list}]}}\n{uses}"),
        format!("rules: {}", "[".repeat(100_000)),
        format!("rules: {}", "{a: ".repeat(10_000)),
        "a: &a [*a]\nrules: *a".to_owned(),
        " ".repeat(MAX_FILE + 1),
        format!("rules: [{}]", "{id: a, learned: merge},".repeat(21_000)),
    ] {
        let found = problems(&text);
        assert!(!found.is_empty());
        assert!(found.iter().all(|p| p.to_string().len() < 2000));
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn problems_are_json_too() {
    let found = problems("rules:\n- id: a\n  deny: {unix: x}");
    let json = serde_json::to_value(&found).expect("JSON");
    assert_eq!(json[0]["level"], "error");
    assert_eq!(json[0]["line"], 3);
    assert_eq!(json[0]["rule"], "a");
}

fn lints(text: &str) -> Vec<String> {
    lint(&super::compile(&[person(text)])).into_iter().map(|p| p.message).collect()
}

#[test]
fn lint_tells_what_is_hardly_meant() {
    let tested = ", tests: [{name: t, expect: none, read: /zz}]";
    for (rule, message) in [
        ("allow: {files: {read: [/srv/**, /srv/a]}}", "`/srv/a` in files.read is never reached"),
        ("allow: {files: {read: /srv/a}}, deny: {files: {read: /srv/**}}", "permits nothing"),
        ("allow: {files: {read: /**}}", "permits everything"),
        ("allow: {network: {connect: 0.0.0.0/0}}", "permits everything"),
        ("allow: {network: {connect: any}}", "permits everything"),
        ("allow: {exec: {paths: \"/**\"}}", "permits everything"),
        ("exceptions: [{reason: x, network: {dns: \"*\"}}]", "permits everything"),
        ("exceptions: [{reason: x, expires: 2026-11-22, unix: /a}]", "expired on 2026-11-22"),
        ("exceptions: [{reason: x, expires: 2026-12-01, unix: /a}]", "expires on 2026-12-01"),
        ("deny: {network: {connect: [10.0.0.0/8, \"10.1.0.0/16:80\"]}}", "never reached"),
        ("deny: {unix: [/a, /a]}", "never reached"),
    ] {
        let found = lints(&format!("rules: [{{id: a, {rule}{tested}}}]"));
        assert_eq!(found.len(), 1, "{rule} {found:?}");
        assert!(found[0].contains(message), "{rule} {found:?}");
    }
    assert_eq!(lints("rules: [{id: a, deny: {unix: /a}}]"), ["rule `a` has no tests"]);
    for clean in [
        "deny: {files: {read: [/srv/a, /srv/b]}}",
        "allow: {files: {read: /srv/**}}, deny: {files: {read: /srv/secret/**}}",
        "deny: {files: {read: /**}}",
        "exceptions: [{reason: x, expires: 2027-12-01, unix: /a}]",
    ] {
        assert!(lints(&format!("rules: [{{id: a, {clean}{tested}}}]")).is_empty(), "{clean}");
    }
}

#[test]
fn lint_looks_across_rules_of_wider_matches() {
    let test = "tests: [{name: t, expect: none, read: /zz}]";
    let rules = |first: &str, second: &str| {
        format!("rules: [{{id: a, {first}, {test}}}, {{id: b, {second}, {test}}}]")
    };
    let wide = "deny: {unix: /run/**}";
    let narrow = "match: {server: x}, deny: {unix: /run/a}";
    assert_eq!(lints(&rules(wide, narrow)).len(), 1);
    assert_eq!(lints(&rules("match: {server: z}, deny: {unix: /run/**}", narrow)).len(), 0);
    // Another severity is another statement.
    assert_eq!(lints(&rules(wide, "severity: high, deny: {unix: /run/a}")).len(), 0);
}
