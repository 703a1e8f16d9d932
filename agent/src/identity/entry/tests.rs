use super::*;

fn of(line: &str) -> Entry {
    let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
    entry(runtime(&argv[0], &argv[0]), &argv)
}

fn file(path: &str) -> Entry {
    Entry::Script(path.to_owned())
}

fn module(name: &str, isolated: bool) -> Entry {
    Entry::Module { name: name.to_owned(), isolated }
}

#[test]
fn scripts_are_found_behind_flags() {
    for (line, path) in [
        ("/usr/bin/node /x/.bin/srv /data", "/x/.bin/srv"),
        ("node --import x --enable-source-maps -r y --max-old-space-size=9 s.js -e", "s.js"),
        ("node --require /t/preflight.cjs --import file:///t/loader.mjs s.ts", "s.ts"),
        ("node -- -s.js", "-s.js"),
        ("node /x/node_modules/.bin/tsx watch --tsconfig t.json src/s.ts", "src/s.ts"),
        ("node file:///s.mjs", "/s.mjs"),
        ("bun run --cwd /x s.ts", "s.ts"),
        ("bun s.ts", "s.ts"),
        ("deno run -A --config c.json s.ts --x", "s.ts"),
        ("python3.12 -u -W ignore -X dev -Xutf8 s.py", "s.py"),
        ("/v/bin/python -I /v/bin/mcp-server-git -m x", "/v/bin/mcp-server-git"),
        ("ruby3.1 -I lib -rjson s.rb", "s.rb"),
        ("php8.2 -d a=b s.php", "s.php"),
        ("php -d a=b -f s.php", "s.php"),
        ("perl -w -I lib -MJSON s.pl", "s.pl"),
        ("bash -e -o pipefail s.sh -c", "s.sh"),
        ("java -Xmx1g -jar s.jar x", "s.jar"),
        ("dotnet exec --depsfile d s.dll", "s.dll"),
        ("dotnet s.dll", "s.dll"),
    ] {
        assert_eq!(of(line), file(path), "{line}");
    }
}

#[test]
fn modules_and_packages_are_found() {
    assert_eq!(of("python -m mcp_server_git --repository /r"), module("mcp_server_git", false));
    assert_eq!(of("python3 -uIm a.b"), module("a.b", true));
    assert_eq!(of("python3 -ma"), module("a", false));
    assert_eq!(of("deno run -A npm:@a/b@1"), Entry::Package("npm:@a/b@1".to_owned()));
    assert_eq!(of("/opt/server --x"), Entry::Program);
}

#[test]
fn code_without_a_file_is_unknown() {
    for line in [
        "node",
        "node -e 1",
        "node --import x",
        "node -",
        "npm exec",
        "python3 -c 1",
        "python3 -",
        "python -m",
        "python3 -Ic 1 x.py",
        "sh -c srv",
        "bash -lc srv",
        "sh -s",
        "ruby -e 1",
        "java -cp a B",
        "deno eval 1",
        "deno run https://x/s.ts",
        "bun x srv",
    ] {
        let found = of(line);
        let wanted = if line == "npm exec" { Entry::Program } else { Entry::Unknown };
        assert_eq!(found, wanted, "{line}");
    }
    assert_eq!(entry(runtime("/bin/busybox", "sh"), &[]), Entry::Unknown);
    assert_eq!(entry(Some(Runtime::Node), &["npm exec x".to_owned()]), Entry::Unknown);
}
