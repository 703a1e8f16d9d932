//! Every line of the table in `select`.

use super::{compile, file, pack, person, who};
use crate::{
    act::Access,
    finding::Severity,
    rules::{Day, Source, Verdict},
};

const DENY: &str = "rules: [{id: p-deny, deny: {files: {read: /a/**}}}]";
const ALLOW: &str = "rules: [{id: p-allow, allow: {files: {read: /a/**}}}]";

fn with_ids(text: &str, prefix: &str) -> String {
    text.replace("id: p-", &format!("id: {prefix}-"))
}

fn verdict(sources: &[Source]) -> (Verdict, Option<String>) {
    let set = compile(sources);
    let selected = set.for_who(&who());
    let decision = selected.decide(&file(Access::Read, "/a/b"), super::TODAY);
    // Both ways to ask say the same.
    let again = set.decide(&who(), &file(Access::Read, "/a/b"));
    assert_eq!((again.verdict, again.pattern), (decision.verdict, decision.pattern));
    assert_eq!(again.rule.map(|r| &r.id), decision.rule.map(|r| &r.id));
    (decision.verdict, decision.rule.map(|rule| rule.id.clone()))
}

fn says(verdict: Verdict, rule: &str) -> (Verdict, Option<String>) {
    (verdict, Some(rule.to_owned()))
}

#[test]
fn nothing_is_said_where_nothing_matches() {
    let set = compile(&[person(DENY)]);
    assert_eq!(set.decide(&who(), &file(Access::Read, "/b")).verdict, Verdict::None);
    assert_eq!(set.decide(&who(), &file(Access::Write, "/a/b")).verdict, Verdict::None);
}

#[test]
fn within_one_origin_deny_beats_allow_in_any_order() {
    for [first, second] in [[DENY, ALLOW], [ALLOW, DENY]] {
        assert_eq!(verdict(&[person(first), person(second)]), says(Verdict::Deny, "p-deny"));
        assert_eq!(verdict(&[pack(first), pack(second)]), says(Verdict::Deny, "p-deny"));
    }
}

#[test]
fn a_persons_word_beats_a_packs() {
    let (allow, deny) = (with_ids(ALLOW, "own"), with_ids(DENY, "own"));
    assert_eq!(verdict(&[pack(DENY), person(&allow)]), says(Verdict::Allow, "own-allow"));
    assert_eq!(verdict(&[pack(ALLOW), person(&deny)]), says(Verdict::Deny, "own-deny"));
}

#[test]
fn a_persons_exception_beats_a_packs_deny_from_any_rule_and_until_it_expires() {
    let exception =
        "rules: [{id: own, exceptions: [{reason: known, expires: 2026-12-01, files: {read: /a/b}}]}]";
    let sources = [pack(DENY), person(exception)];
    assert_eq!(verdict(&sources), says(Verdict::Allow, "own"));
    let set = compile(&sources);
    let selected = set.for_who(&who());
    let act = file(Access::Read, "/a/b");
    let last = Day::parse("2026-11-30").expect("a day");
    let end = Day::parse("2026-12-01").expect("a day");
    assert_eq!(selected.decide(&act, last).exception.map(|e| e.reason.as_str()), Some("known"));
    assert_eq!(selected.decide(&act, end).verdict, Verdict::Deny);
}

#[test]
fn an_exception_beats_its_own_rules_deny_and_no_other_of_its_origin() {
    let own =
        "rules: [{id: own, deny: {files: {read: /a/**}}, exceptions: [{reason: x, files: {read: /a/b}}]}]";
    assert_eq!(verdict(&[person(own)]), says(Verdict::Allow, "own"));
    assert_eq!(verdict(&[person(own), person(DENY)]), says(Verdict::Deny, "p-deny"));
    let expired = own.replace("reason: x", "reason: x, expires: 2026-11-22");
    assert_eq!(verdict(&[person(&expired)]), says(Verdict::Deny, "own"));
}

#[test]
fn a_packs_exception_takes_back_its_own_deny_and_permits_nothing() {
    let own =
        "rules: [{id: own, deny: {files: {read: /a/**}}, exceptions: [{reason: x, files: {read: /a/b}}]}]";
    assert_eq!(verdict(&[pack(own)]), says(Verdict::None, "own"));
    assert_eq!(verdict(&[pack(own), pack(DENY)]), says(Verdict::Deny, "p-deny"));
    assert_eq!(verdict(&[pack(own), person(DENY)]), says(Verdict::Deny, "p-deny"));
    assert_eq!(verdict(&[pack(own), pack(ALLOW)]), says(Verdict::Allow, "p-allow"));
}

#[test]
fn of_several_denies_the_worst_is_told_and_the_first_among_equals() {
    let text = "rules:\n\
        - {id: low, severity: low, deny: {files: {read: /a/**}}}\n\
        - {id: high, severity: high, deny: {files: {read: /a/*}}}\n\
        - {id: high-too, severity: high, deny: {files: {read: /a/b}}}\n";
    let set = compile(&[person(text)]);
    let rule = set.decide(&who(), &file(Access::Read, "/a/b")).rule.expect("a rule");
    assert_eq!((rule.id.as_str(), rule.severity), ("high", Severity::High));
    assert_eq!(rule.place.to_string(), "person.yaml:3");
}
