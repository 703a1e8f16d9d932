//! Discovery in made-up home directories.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::*;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn put(base: &Path, path: &str, text: &str) -> Result {
    let path = base.join(path);
    fs::create_dir_all(path.parent().unwrap_or(base))?;
    Ok(fs::write(path, text)?)
}

fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

fn found(system: &Path, home: &Path) -> Configured {
    discover_at(system, &[Home { uid: uid(), dir: home.to_path_buf() }])
}

#[test]
fn every_client_is_read() -> Result {
    let dir = tempfile::tempdir()?;
    let (home, system) = (dir.path().join("home"), dir.path().join("system"));
    let json = |key: &str| {
        format!("// note\n{{\"{key}\": {{\"git\": {{\"command\": \"uvx\", \"args\": [\"g\",],}},}},}}")
    };
    let mut expected = Vec::new();
    for place in table::PLACES {
        let base = match place.under {
            Under::Home => home.clone(),
            Under::System => system.clone(),
            Under::Project => home.join("proj"),
        };
        let text = match place.shape {
            Shape::Json(&[&[key], ..]) => json(key),
            Shape::Json(_) => format!("{{\"mcp\": {}}}", json("servers")),
            Shape::Bare => json("mcpServers"),
            Shape::Claude if place.path == ".claude.json" => format!(
                "{{\"mcpServers\": {{\"git\": {{\"command\": \"uvx\", \"args\": [\"g\"]}},
                 \"web\": {{\"type\": \"http\", \"url\": \"http://x\"}}}},
                 \"projects\": {{\"{}\": {{\"mcpServers\": {{}}}}}}}}",
                home.join("proj").display()
            ),
            Shape::Claude => json("mcpServers"),
            Shape::TomlServers if place.client == "Vibe" => {
                "[[mcp_servers]]\nname = \"git\"\ncommand = \"uvx\"\nargs = [\"g\"]".to_owned()
            }
            Shape::TomlServers => {
                "[mcp_servers.git]\ncommand = \"uvx\"\nargs = [\"g\"]\n[mcp_servers.git.env]\nA = '1'"
                    .to_owned()
            }
            Shape::Yaml(&["extensions"]) => {
                "extensions:\n  git:\n    type: stdio\n    cmd: uvx\n    args:\n      - g\n".to_owned()
            }
            Shape::Yaml(_) => "mcpServers:\n  - name: git\n    command: uvx\n    args: [g]\n".to_owned(),
            Shape::Workspace => "{\"folder\": \"file:///nowhere%20at%20all\"}".to_owned(),
        };
        put(&base, &place.path.replace('*', "some"), &text)?;
        if !matches!(place.shape, Shape::Workspace) {
            expected.push(base.join(place.path.replace('*', "some")));
        }
    }
    let found = found(&system, &home);
    assert_eq!(found.problems, []);
    let mut files: Vec<_> = found.servers.iter().map(|server| server.file.clone()).collect();
    files.sort();
    expected.sort();
    assert_eq!(files, expected);
    for server in &found.servers {
        assert_eq!((server.name.as_str(), server.command.as_str()), ("git", "uvx"));
        assert_eq!(server.args, ["g"], "{server:?}");
        assert_eq!(server.uid == ANY_USER, server.file.starts_with(&system));
        assert_eq!(server.project.is_some(), server.file.starts_with(home.join("proj")));
    }
    Ok(())
}

#[test]
fn odd_shapes_are_read() -> Result {
    let dir = tempfile::tempdir()?;
    put(
        dir.path(),
        ".config/opencode/opencode.json",
        r#"{"mcp": {"a": {"type": "local", "command": ["npx", "-y", "p"]}, "b": {"type": "remote"},
            "c": {"command": []}, "d": 1, "e": {"command": {"path": "/z", "args": [1, true]}}}}"#,
    )?;
    put(
        dir.path(),
        ".claude.json",
        r#"{"projects": {"/no/where": {"mcpServers": {"f": {"command": "f"}}}, "rel": 3}}"#,
    )?;
    put(dir.path(), ".cursor/mcp.json", " \n")?;
    let found = found(&dir.path().join("none"), dir.path());
    assert_eq!(found.problems, []);
    let servers: Vec<_> = found
        .servers
        .iter()
        .map(|s| (s.name.as_str(), s.command.as_str(), s.args.join(" "), s.project.clone()))
        .collect();
    assert_eq!(
        servers,
        [
            ("f", "f", String::new(), Some("/no/where".into())),
            ("a", "npx", "-y p".to_owned(), None),
            ("e", "/z", "1 true".to_owned(), None),
        ]
    );
    Ok(())
}

#[test]
fn bad_files_are_problems_and_the_rest_goes_on() -> Result {
    let dir = tempfile::tempdir()?;
    let home = dir.path();
    put(home, ".cursor/mcp.json", "{\"mcpServers\": secret")?;
    put(home, ".codex/config.toml", "= secret")?;
    put(home, ".config/goose/config.yaml", "a: [secret")?;
    put(home, ".continue/config.yaml", "a: &a [x]\nb: &b [*a,*a]\nc: \u{7}")?;
    put(home, "elsewhere.json", "{}")?;
    fs::create_dir_all(home.join(".kiro/settings/mcp.json"))?;
    fs::create_dir_all(home.join(".kimi"))?;
    symlink(home.join("elsewhere.json"), home.join(".kimi/mcp.json"))?;
    fs::create_dir_all(home.join(".factory"))?;
    let fifo = home.join(".factory/mcp.json");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )?;
    fs::create_dir_all(home.join(".lmstudio"))?;
    let big = fs::File::create(home.join(".lmstudio/mcp.json"))?;
    big.set_len(5 << 20)?;
    put(home, ".vibe/config.toml", "[[mcp_servers]]\nname = 'ok'\ncommand = 'ok'")?;
    let found = found(&home.join("none"), home);
    assert_eq!(found.servers.len(), 1);
    let reasons: Vec<_> = found.problems.iter().map(|p| p.reason.as_str()).collect();
    assert!(reasons.iter().all(|reason| !reason.contains("secret")), "{reasons:?}");
    for part in ["not JSON, at line 1", "not TOML", "not YAML", "symbolic", "regular", "larger"] {
        assert!(reasons.iter().any(|reason| reason.contains(part)), "{part}: {reasons:?}");
    }
    Ok(())
}

#[test]
fn other_users_files_stay_closed() -> Result {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir()?;
    put(dir.path(), ".cursor/mcp.json", r#"{"mcpServers": {"x": {"command": "x"}}}"#)?;
    let file = dir.path().join(".cursor/mcp.json");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let other = [Home { uid: uid() + 1, dir: dir.path().to_path_buf() }];
    let found = discover_at(&dir.path().join("none"), &other);
    assert!(found.servers.is_empty());
    assert_eq!(found.problems.len(), 1);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    assert_eq!(discover_at(&dir.path().join("none"), &other).servers.len(), 1);
    Ok(())
}

#[test]
fn no_bytes_make_a_parser_panic() {
    let seeds: [(Shape, &str); 4] = [
        (Shape::Claude, r#"{"mcpServers": {"a": {"command": "x", "args": ["y"]}}, /* c */}"#),
        (Shape::TomlServers, "[mcp_servers.a]\ncommand = 'x'\nargs = ['y']\n"),
        (Shape::Yaml(&["extensions"]), "extensions:\n  a: &x\n    cmd: x\n  b: *x\n"),
        (Shape::Workspace, r#"{"folder": "file:///a%20%2"}"#),
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..4000_u32 {
        for (shape, seed) in &seeds {
            let mut bytes = seed.as_bytes().to_vec();
            for _ in 0..=next() % 8 {
                let at = usize::try_from(next()).unwrap_or(0) % bytes.len();
                let byte = next().to_le_bytes()[0];
                match next() % 3 {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            if round % 4 == 0 {
                bytes = (0..next() % 64).map(|_| next().to_le_bytes()[0]).collect();
            }
            drop(parse::parse(*shape, &bytes));
        }
    }
    for deep in ["[", "{\"a\":", "- ", "a = [", "[a.", "{a: ", "&a *a "] {
        for (shape, _) in &seeds {
            drop(parse::parse(*shape, deep.repeat(100_000).as_bytes()));
        }
    }
}
