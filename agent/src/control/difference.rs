//! What tells two baselines apart, from their JSON: the answer to `BaselineDiff`. Whole scopes are
//! told by their members, so that a new tool shows what it does.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Scope, dimension and member.
type Members<'a> = BTreeSet<(&'a str, &'a str, &'a str)>;

/// `{a, b, same, changes: [{scope, dimension, member, change: "added" | "removed"}]}`, for two
/// answers to `Baseline`. Counts and numbers are no difference: they differ always. Versions and
/// digests are no difference either: they are why one compares.
pub(crate) fn difference(a: &Value, b: &Value) -> Value {
    let identity = |value: &Value| {
        value.pointer("/summary/identity").and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (before, after) = (members(a), members(b));
    let only = |these: &Members<'_>, those: &Members<'_>, change: &str| -> Vec<(String, Value)> {
        let new = these.difference(those);
        new.map(|(scope, dimension, member)| {
            let row = json!({ "scope": scope, "dimension": dimension, "member": member, "change": change });
            ((*scope).to_owned(), row)
        })
        .collect()
    };
    let mut changes = only(&before, &after, "removed");
    changes.extend(only(&after, &before, "added"));
    changes.sort_by(|(x, _), (y, _)| x.cmp(y));
    let same = changes.is_empty();
    let changes: Vec<_> = changes.into_iter().map(|(_, row)| row).collect();
    json!({ "a": identity(a), "b": identity(b), "same": same, "changes": changes })
}

fn members(baseline: &Value) -> Members<'_> {
    let mut all = Members::new();
    for scope in array(baseline, "scopes") {
        let name = word(scope, "scope");
        // A tool that does nothing is there nonetheless.
        all.insert((name, "scope", name));
        for dimension in array(scope, "dimensions") {
            for member in array(dimension, "members") {
                all.insert((name, word(dimension, "dimension"), word(member, "member")));
            }
        }
    }
    all
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(version: &str, member: &str) -> Value {
        json!({
            "summary": { "identity": format!("1000/git@{version}") },
            "scopes": [{ "scope": "tool push", "calls": 4, "dimensions": [
                { "dimension": "destination", "members": [{ "member": member, "count": 1 }] },
            ] }],
        })
    }

    #[test]
    fn members_differ_and_counts_do_not() {
        let (a, b) = (baseline("1", "github.com:443/tcp"), baseline("2", "evil.example:443/tcp"));
        let changes = difference(&a, &b);
        assert_eq!(changes["same"], false);
        assert_eq!((&changes["a"], &changes["b"]), (&json!("1000/git@1"), &json!("1000/git@2")));
        assert_eq!(
            changes["changes"],
            json!([
                { "scope": "tool push", "dimension": "destination", "member": "github.com:443/tcp", "change": "removed" },
                { "scope": "tool push", "dimension": "destination", "member": "evil.example:443/tcp", "change": "added" },
            ])
        );
        let mut later = baseline("3", "github.com:443/tcp");
        later["scopes"][0]["calls"] = json!(400);
        assert_eq!(difference(&a, &later)["same"], true);
        assert_eq!(difference(&a, &json!({}))["same"], false);
    }
}
