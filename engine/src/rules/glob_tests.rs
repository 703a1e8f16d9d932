use proptest::prelude::*;

use super::*;

fn who() -> Who {
    Who {
        user: Some("dev".into()),
        home: Some("/var/lib/dev".into()),
        roots: vec!["/srv/pro*ject".into(), "/".into()],
        ..Who::default()
    }
}

fn hits(pattern: &str, path: &str) -> bool {
    let pattern = PathPattern::parse(pattern).expect(pattern);
    let mut globs = pattern.globs.clone();
    pattern.expand(&who(), &mut globs);
    globs.iter().any(|g| g.matches(&PathView::new(path), true))
}

#[test]
fn paths_match_by_name_and_depth() {
    for (pattern, path, expected) in [
        ("/etc/shadow", "/etc/shadow", true),
        ("/etc/shadow", "/etc/shadow-", false),
        ("/etc/*", "/etc/passwd", true),
        ("/etc/*", "/etc/ssh/key", false),
        ("/etc/**", "/etc/ssh/key", true),
        ("/etc/**", "/etc", true),
        ("/etc/**", "/etcetera", false),
        ("/a/**/z", "/a/z", true),
        ("/a/**/z", "/a/b/c/z", true),
        ("/a/**/z", "/a/b/c/zz", false),
        ("/a/**/b/*/c", "/a/b/b/x/c", true),
        ("/a/**/b/**/c", "/a/x/b/y/z/c", true),
        ("/a/**/b/**/c", "/a/x/y/z/c", false),
        ("**/.env", "/srv/x/.env", true),
        ("**/.env", "/.env", true),
        ("**/.env", ".../x/.env", true),
        ("/srv/**", ".../x/.env", false),
        ("**/.env{,.*}", "/x/.env.local", true),
        ("/a/?", "/a/é", true),
        ("/a/?", "/a/bc", false),
        ("/a/b*d?e", "/a/bxxdde", true),
        ("/a/\\*", "/a/*", true),
        ("/a/\\*", "/a/b", false),
        ("/a/\\{b\\}", "/a/{b}", true),
        ("/", "/", true),
        ("/**", "/", true),
        ("/*", "/", false),
        ("~/.ssh/**", "/home/x/.ssh/id", true),
        ("~/.ssh/**", "/root/.ssh/id", true),
        ("~/.ssh/**", "/var/lib/dev/.ssh/id", true),
        ("~/.ssh/**", "/home/x/y/.ssh/id", false),
        ("${home}/x", "/var/lib/dev/x", true),
        ("${home}/x", "/home/dev/x", false),
        ("${root}/**", "/srv/pro*ject/x", true),
        ("${root}/**", "/srv/proXject/x", false),
        // A root of `/` says nothing.
        ("${root}/**", "/etc/shadow", false),
        ("/run/user/${user}/bus", "/run/user/dev/bus", true),
        ("/run/user/${user}/bus", "/run/user/eve/bus", false),
    ] {
        assert_eq!(hits(pattern, path), expected, "{pattern} {path}");
    }
}

#[test]
fn slips_are_told() {
    for (pattern, word) in [
        ("", "empty"),
        ("etc/shadow", "begins with"),
        ("~eve/x", "begins with"),
        ("/a**/b", "stands for whole names"),
        ("/a//b", "two slashes"),
        ("/a/../b", "never part"),
        ("/a/[bc]", "no meaning"),
        ("/a/${hom}/b", "not known here"),
        ("/a/{b", "without `}`"),
        ("/a/{b,{c,d}}", "do not nest"),
        ("/a/b\\", "stands for nothing"),
        ("/a/b\u{1b}", "control character"),
        ("/{a,b,c,d}/{a,b,c,d}/{a,b,c,d}/{a,b}", "more than 64"),
    ] {
        let reason = PathPattern::parse(pattern).expect_err(pattern);
        assert!(reason.contains(word), "{pattern}: {reason}");
    }
    assert!(PathPattern::parse(&"/a".repeat(3000)).is_err());
    assert!(PathPattern::parse(&"/a".repeat(300)).is_err());
}

#[test]
fn names_match() {
    let hits = |pattern: &str, name: &str| NameGlob::parse(pattern).expect(pattern).matches(name);
    assert!(hits("*", ""));
    assert!(hits("npm:@scope/*", "npm:@scope/a/b"));
    assert!(hits("{read,list}_*", "list_x"));
    assert!(!hits("read_*", "xread_"));
    assert!(hits("\\@startup", "@startup"));
}

#[test]
fn wide_patterns_do_not_take_forever() {
    // Exponential matchers need minutes for these.
    let tokens = format!("{}b", "*a".repeat(200));
    assert!(!NameGlob::parse(&tokens).expect("a glob").matches(&"a".repeat(4000)));
    let deep = format!("{}/zz", "/**/a".repeat(60));
    assert!(!hits(&deep, &"/a".repeat(2000)));
    let a = PathPattern::parse(&deep).expect("a glob");
    assert!(a.covers(&a));
}

#[test]
fn covering_is_never_claimed_wrongly() {
    let covers = |a: &str, b: &str| PathPattern::parse(a).expect(a).covers(&PathPattern::parse(b).expect(b));
    for (a, b) in [
        ("/srv/**", "/srv/a/*"),
        ("/srv/**", "/srv"),
        ("/**", "~/.ssh/**"),
        ("/srv/*", "/srv/a*"),
        ("/srv/a*", "/srv/ab*"),
        ("/a/**/c", "/a/b/**/c"),
        ("~/**", "~/.ssh/**"),
        ("/home/**", "/home/*/x"),
        ("/{a,b}/**", "/a/x"),
        ("${root}/**", "${root}/a"),
    ] {
        assert!(covers(a, b), "{a} {b}");
        assert!(a == b || !covers(b, a), "{b} {a}");
    }
    for (a, b) in
        [("/srv/*", "/srv/**"), ("/srv/*", "/srv/a/b"), ("/home/**", "~/x"), ("/srv/**", "${root}/x")]
    {
        assert!(!covers(a, b), "{a} {b}");
    }
}

fn pattern() -> impl Strategy<Value = String> {
    proptest::collection::vec("\\*\\*|\\*|[ab]|a\\*|\\*b|a\\?", 1..5)
        .prop_map(|names| format!("/{}", names.join("/")))
}

proptest! {
    /// What the covering pattern must match, it matches.
    #[test]
    fn a_covering_pattern_matches_all(a in pattern(), b in pattern(), path in "(/[ab]{1,2}){0,5}") {
        let (a, b) = (PathPattern::parse(&a).expect("a"), PathPattern::parse(&b).expect("b"));
        let hits = |p: &PathPattern| p.globs.iter().any(|g| g.matches(&PathView::new(&path), false));
        if a.covers(&b) && hits(&b) {
            prop_assert!(hits(&a));
        }
    }

    /// The matcher agrees with one that tries everything.
    #[test]
    fn matching_agrees_with_brute_force(a in pattern(), path in "(/[ab]{1,2}){1,5}") {
        fn slow(p: &[&str], t: &[&str]) -> bool {
            match (p, t) {
                ([], []) => true,
                (["**", rest @ ..], _) => (0..=t.len()).any(|n| slow(rest, &t[n..])),
                ([p, ps @ ..], [t, ts @ ..]) => NameGlob::parse(p).expect("a glob").matches(t) && slow(ps, ts),
                _ => false,
            }
        }
        let expected = slow(&a[1..].split('/').collect::<Vec<_>>(), &path[1..].split('/').collect::<Vec<_>>());
        prop_assert_eq!(hits(&a, &path), expected);
    }

    #[test]
    fn any_text_is_a_pattern_or_an_error(text in any::<String>(), path in any::<String>()) {
        if let Ok(p) = PathPattern::parse_unix(&text) {
            prop_assert!(p.covers(&p));
            let hit = || p.globs.iter().any(|g| g.matches(&PathView::new(&path), true));
            prop_assert_eq!(hit(), hit());
        }
        if let Ok(glob) = NameGlob::parse(&text) {
            prop_assert_eq!(glob.matches(&path), glob.matches(&path));
        }
    }

    #[test]
    fn an_escaped_path_matches_itself(path in "(/[^/\\x00]{1,8}){1,4}") {
        prop_assume!(!path.split('/').any(|n| n == "." || n == ".."));
        let escaped = escape(&path);
        let p = PathPattern::parse(&escaped).expect("escaped");
        prop_assert!(p.globs.iter().any(|g| g.matches(&PathView::new(&path), false)), "{}", escaped);
    }
}
