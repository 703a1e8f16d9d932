//! Parts that are pure.

use engine::judge::RuleText;

use super::rules::{check, exception, replaced, with_stored};
use crate::store::ExceptionRow;

const PERMIT: &str = "rules:\n  - id: permit-a\n    match: {server: git}\n    exceptions:\n      - reason: say why\n        files: {read: [/etc/hostname]}\n";

fn row(id: i64, finding: &str, yaml: &str) -> ExceptionRow {
    ExceptionRow { id, finding: Some(finding.into()), yaml: yaml.into(), by: "uid 0".into(), at: id }
}

fn file(text: &str) -> RuleText {
    RuleText { name: "a.yaml".into(), text: text.into(), shipped: false }
}

#[test]
fn an_exception_has_its_reason_and_holds_on_its_last_day() {
    let text = exception(PERMIT, "the backup job", Some("2027-01-31")).expect("an exception");
    assert!(text.contains("the backup job") && text.contains("2027-02-01"), "{text}");
    assert!(!exception(PERMIT, "x", None).expect("an exception").contains("expires"));
    for (yaml, reason, day) in [
        ("", "x", None),
        (PERMIT, " ", None),
        (PERMIT, "x", Some("tomorrow")),
        (PERMIT, "x", Some("9999-12-31")),
        ("rules: [{id: a, dney: {}}]", "x", None),
    ] {
        assert_eq!(exception(yaml, reason, day).expect_err("refused").status, 422, "{reason} {day:?}");
    }
}

#[test]
fn stored_exceptions_give_way_to_files_and_to_later_ones() {
    let other = PERMIT.replace("permit-a", "permit-b");
    let names = |files: &[RuleText], stored: &[ExceptionRow]| {
        let (all, problems) = with_stored(files.to_vec(), stored);
        assert!(check(&all).is_ok());
        (all.into_iter().map(|f| f.name).collect::<Vec<_>>(), problems.len())
    };
    let two = [row(1, "f1", PERMIT), row(2, "f2", &other)];
    assert_eq!(names(&[], &two), (vec!["exception-1".into(), "exception-2".into()], 0));
    // A person has moved it into a file.
    assert_eq!(names(&[file(PERMIT)], &two), (vec!["a.yaml".into(), "exception-2".into()], 0));
    assert_eq!(names(&[], &[row(1, "f1", PERMIT), row(3, "f1", PERMIT)]), (vec!["exception-3".into()], 0));
    assert_eq!(
        names(&[], &[row(1, "f1", "rules: ["), row(2, "f2", PERMIT)]),
        (vec!["exception-2".into()], 1)
    );
}

#[test]
fn what_is_written_anew_replaces_what_was() {
    let other = PERMIT.replace("permit-a", "permit-b");
    let stored = [row(1, "f1", PERMIT), row(2, "import:x.yaml", &other), row(3, "f3", "rules: [")];
    assert_eq!(replaced(&stored, "f9", PERMIT), [1]);
    assert_eq!(replaced(&stored, "import:x.yaml", PERMIT), [1, 2]);
    assert_eq!(replaced(&stored, "f9", "rules: [{id: z, learned: merge}]"), [0_i64; 0]);
}

#[test]
fn broken_rules_are_told_with_their_place() {
    let why = check(&[file("rules:\n  - id: a\n    dney: {}\n")]).expect_err("refused");
    assert!(why.contains("a.yaml:3:"), "{why}");
}
