use super::*;

fn words(text: &str) -> Vec<String> {
    text.split('|').map(str::to_owned).collect()
}

fn server(name: &str, client: &'static str, line: &str) -> ConfiguredServer {
    let mut args = words(line);
    let command = args.remove(0);
    let (name, file) = (name.to_owned(), PathBuf::from("/f"));
    ConfiguredServer { name, client, file, uid: 1000, project: None, command, args }
}

fn kind(line: &str, argv: &str) -> Option<Kind> {
    matches(&server("x", "Cursor", line), &words(argv))
}

#[test]
fn commands_match_behind_their_interpreters() {
    assert_eq!(kind("/opt/x/srv|--a|b", "srv|--a|b"), Some(Kind::Exact));
    assert_eq!(kind("npx|-y|pkg|/d", "node|/usr/bin/npx|-y|pkg|/d"), Some(Kind::Exact));
    assert_eq!(kind("srv.py", "/usr/bin/env|python3|./srv.py"), Some(Kind::Exact));
    assert_eq!(kind("uvx|pkg", "/home/u/.local/bin/uv|tool|uvx|pkg"), Some(Kind::Exact));
    assert_eq!(kind("srv", "sh|-c|srv"), Some(Kind::Exact));
    assert_eq!(kind("node|s.js|/a", "bash|-lc|exec node 's.js' /a"), Some(Kind::Exact));
    assert_eq!(kind("srv --flag|x", "/bin/srv|--flag|x"), Some(Kind::Exact));
    for other in ["srv", "srv|--a|c", "srv|--a", "other|--a|b", "srv|--a|b|c", ""] {
        assert_eq!(kind("/opt/x/srv|--a|b", other), None, "{other}");
    }
    assert_eq!(kind("srv", "grep|-r|what|srv"), None);
    assert_eq!(kind("${CMD}", "anything"), None);
    assert_eq!(matches(&server("x", "Cursor", "srv"), &[]), None);
}

#[test]
fn variables_stand_for_anything() {
    assert_eq!(kind("srv|${HOME}/d", "srv|/home/u/d"), Some(Kind::Wildcard));
    assert_eq!(kind("srv|~/d|$A-$B", "srv|/home/u/d|1-2"), Some(Kind::Wildcard));
    assert_eq!(kind("${bin}/srv|a$", "/x/srv|a$"), Some(Kind::Exact));
    assert_eq!(kind("srv|${A}/d", "srv|/home/u/e"), None);
    assert_eq!(kind("srv|a$", "srv|ab"), None);
    assert!(like("aXbYc", "a${x}${y}b${z}c") && !like("ab", "a${x}bb"));
    assert!(!like("/a", "~b") && like("", "${x}"));
}

#[test]
fn launchers_match_what_they_start() {
    let fs = "npx|-y|@modelcontextprotocol/server-filesystem@2026.8.31|/data";
    let title = "npm exec @modelcontextprotocol/server-filesystem@2026.8.31 /data";
    assert_eq!(kind(fs, title), Some(Kind::Title));
    let cut = title.get(..title.len() - 3).unwrap_or_default();
    assert_eq!(kind(fs, cut), Some(Kind::Title));
    assert_eq!(kind(fs, "npm exec @modelcontextprotocol/server-git"), None);
    let leaf = "node|/h/.npm/_npx/1/node_modules/.bin/mcp-server-filesystem|/data";
    assert_eq!(kind(fs, leaf), Some(Kind::Launched));
    assert_eq!(kind(fs, &leaf.replace("/data", "/other")), None);
    let git = "uvx|--python|3.12|mcp-server-git==1.0|--repository|/r";
    let leaf = "/v/bin/python|/v/bin/mcp-server-git|--repository|/r";
    assert_eq!(kind(git, leaf), Some(Kind::Launched));
}

#[test]
fn equals_are_told_apart() {
    let mut servers = vec![
        server("a", "Cursor", "srv|${X}"),
        server("b", "Cursor", "srv|1"),
        server("c", "Claude Code", "srv|1"),
    ];
    servers.push(ConfiguredServer { project: Some("/p".into()), ..servers[1].clone() });
    servers[3].name = "d".to_owned();
    servers.push(ConfiguredServer { uid: 0, ..servers[1].clone() });
    let chain = [words("sh"), words("srv|1")];
    let name = |uid, client, dirs: &[PathBuf]| {
        best(&servers, uid, &chain, &Hints { client, dirs }).map(|server| server.name.as_str())
    };
    assert_eq!(name(1000, "", &[]), Some("b"));
    assert_eq!(name(1000, "/usr/bin/Claude", &[]), Some("c"));
    assert_eq!(name(1000, "/opt/cursor/cursor", &["/p/sub".into()]), Some("d"));
    assert_eq!(name(1000, "/opt/cursor/cursor", &["/q".into()]), Some("b"));
    assert_eq!(name(1001, "", &[]), None);
    servers[0].uid = ANY_USER;
    let hints = Hints::default();
    assert_eq!(best(&servers, 1001, &chain, &hints).map(|s| s.name.as_str()), Some("a"));
}
