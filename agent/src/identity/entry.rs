//! From a command line to the file that makes this server this server.

#[cfg(test)]
mod tests;

use crate::clients::basename;

/// What a process runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Its executable.
    Program,
    /// A file that an interpreter reads.
    Script(String),
    /// A Python module. Isolated: not searched for in the working directory.
    Module { name: String, isolated: bool },
    /// A package that the runtime fetches itself, such as `npm:name@1`.
    Package(String),
    /// No file: code on the command line or on stdin, or a command line that the process wrote
    /// over. The interpreter's own digest would stand for any code, so there is none.
    Unknown,
}

/// A family of interpreters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    Node,
    Bun,
    Deno,
    Python,
    Ruby,
    Php,
    Perl,
    Shell,
    Java,
    Dotnet,
}

/// The interpreter that an executable is, by its name (`python3.12`, `node`, `ruby3.1`).
pub(super) fn runtime(exe: &str, argv0: &str) -> Option<Runtime> {
    // busybox is told what to be.
    let name = basename(if basename(exe) == "busybox" { argv0 } else { exe });
    let family = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    Some(match family {
        "node" | "nodejs" => Runtime::Node,
        "bun" => Runtime::Bun,
        "deno" => Runtime::Deno,
        "ruby" => Runtime::Ruby,
        "php" => Runtime::Php,
        "perl" => Runtime::Perl,
        "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh" | "mksh" => Runtime::Shell,
        "java" => Runtime::Java,
        "dotnet" => Runtime::Dotnet,
        _ if family.starts_with("python") || family.starts_with("pypy") => Runtime::Python,
        _ => return None,
    })
}

pub(super) fn entry(runtime: Option<Runtime>, argv: &[String]) -> Entry {
    let Some(runtime) = runtime else {
        return Entry::Program;
    };
    let args = argv.get(1..).unwrap_or_default();
    match runtime {
        Runtime::Node => node(args),
        Runtime::Bun => bun(args),
        Runtime::Deno => deno(args),
        Runtime::Python => python(args),
        Runtime::Ruby => plain(args, &["-I", "-r", "-C", "-E", "-K"], &["-e"]),
        Runtime::Perl => plain(args, &["-I"], &["-e", "-E"]),
        Runtime::Php => match args.iter().position(|arg| arg == "-f" || arg == "--file") {
            Some(at) => script(args.get(at + 1)),
            None => plain(args, &["-d", "-c", "-z"], &["-r", "-B", "-R", "-S"]),
        },
        Runtime::Shell => shell(args),
        Runtime::Java => match args.iter().position(|arg| arg == "-jar") {
            Some(at) => script(args.get(at + 1)),
            None => Entry::Unknown,
        },
        Runtime::Dotnet => {
            let flags = ["--depsfile", "--runtimeconfig", "--additionalprobingpath", "--fx-version"];
            let args = args.strip_prefix(&["exec".to_owned()]).unwrap_or(args);
            plain(args, &flags, &[])
        }
    }
}

fn script(arg: Option<&String>) -> Entry {
    match arg.map(String::as_str) {
        None | Some("" | "-") => Entry::Unknown,
        Some(path) => Entry::Script(path.strip_prefix("file://").unwrap_or(path).to_owned()),
    }
}

/// The first argument that is no flag, and those after it.
fn positional<'a>(args: &'a [String], valued: &[&str], inline: &[&str]) -> Option<&'a [String]> {
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        if arg == "--" {
            return args.get(at + 1..).filter(|rest| !rest.is_empty());
        }
        if inline.contains(&arg.as_str()) {
            return None;
        }
        if !arg.starts_with('-') || arg == "-" {
            return args.get(at..);
        }
        at += if valued.contains(&arg.as_str()) { 2 } else { 1 };
    }
    None
}

fn plain(args: &[String], valued: &[&str], inline: &[&str]) -> Entry {
    script(positional(args, valued, inline).and_then(<[String]>::first))
}

/// Node's flags whose value may be the next word (`node --help`, v20 to v26).
const NODE_VALUED: &[&str] = &[
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "--env-file",
    "--env-file-if-exists",
    "--input-type",
    "--title",
    "--icu-data-dir",
    "--openssl-config",
    "--dns-result-order",
    "--unhandled-rejections",
    "--redirect-warnings",
    "--report-dir",
    "--report-directory",
    "--report-filename",
    "--report-signal",
    "--diagnostic-dir",
    "--max-http-header-size",
    "--secure-heap",
    "--tls-cipher-list",
    "--tls-keylog",
    "--trace-event-categories",
    "--watch-path",
    "--inspect-port",
    "--debug-port",
    "--experimental-default-type",
    "--disable-warning",
    "--localstorage-file",
    "--stack-trace-limit",
    "--experimental-config-file",
    "--v8-pool-size",
    "--use-largepages",
    "--allow-fs-read",
    "--allow-fs-write",
    "--heapsnapshot-signal",
    "--cpu-prof-dir",
    "--heap-prof-dir",
];

fn node(args: &[String]) -> Entry {
    let inline = ["-e", "--eval", "-p", "--print", "-pe", "--run"];
    let Some(rest) = positional(args, NODE_VALUED, &inline) else {
        return Entry::Unknown;
    };
    let first = rest.first().map(String::as_str).unwrap_or_default();
    // What runs TypeScript is not the server; the script behind it is.
    let runner = matches!(
        basename(first),
        "tsx" | "ts-node" | "ts-node-esm" | "ts-node-transpile-only" | "ts-node-script"
    ) || first.ends_with("/tsx/dist/cli.mjs");
    if runner {
        let valued = ["-P", "--project", "--tsconfig", "-r", "--require", "--import", "-O", "--cwd"];
        let mut rest = rest.get(1..).unwrap_or_default();
        if rest.first().is_some_and(|word| word == "watch") {
            rest = rest.get(1..).unwrap_or_default();
        }
        return plain(rest, &valued, &["-e", "--eval", "-p", "--print"]);
    }
    script(rest.first())
}

fn bun(args: &[String]) -> Entry {
    let valued = ["-r", "--preload", "--cwd", "-c", "--config", "--env-file", "--tsconfig-override"];
    let inline = ["-e", "--eval", "-p", "--print"];
    let Some(rest) = positional(args, &valued, &inline) else {
        return Entry::Unknown;
    };
    match rest.first().map(String::as_str) {
        Some("run") => plain(rest.get(1..).unwrap_or_default(), &valued, &inline),
        // Its child is the server; the launcher rules name the package.
        Some("x") => Entry::Unknown,
        _ => script(rest.first()),
    }
}

fn deno(args: &[String]) -> Entry {
    let valued = ["-c", "--config", "--import-map", "--lock", "--cert", "--location", "--seed"];
    let Some(rest) = positional(args, &valued, &[]) else {
        return Entry::Unknown;
    };
    let rest = match rest.first().map(String::as_str) {
        Some("run" | "serve") => positional(rest.get(1..).unwrap_or_default(), &valued, &[]),
        Some("eval" | "repl" | "task") => None,
        _ => Some(rest),
    };
    match rest.and_then(<[String]>::first) {
        Some(spec) if spec.starts_with("npm:") || spec.starts_with("jsr:") => Entry::Package(spec.clone()),
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => Entry::Unknown,
        other => script(other),
    }
}

/// Python's flags cluster: `-Im mod`, `-uW ignore`, `-Xutf8`.
fn python(args: &[String]) -> Entry {
    let mut isolated = false;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--check-hash-based-pycs" {
            args.next();
            continue;
        }
        let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.starts_with('-')) else {
            if arg.starts_with("--") {
                continue;
            }
            return script(Some(arg));
        };
        if letters.is_empty() {
            return Entry::Unknown;
        }
        for (at, letter) in letters.char_indices() {
            let value = letters.get(at + letter.len_utf8()..).filter(|value| !value.is_empty());
            match letter {
                'c' => return Entry::Unknown,
                'm' => {
                    let name = value.map(str::to_owned).or_else(|| args.next().cloned());
                    return name.map_or(Entry::Unknown, |name| Entry::Module { name, isolated });
                }
                'W' | 'X' => {
                    if value.is_none() {
                        args.next();
                    }
                    break;
                }
                'I' | 'P' => isolated = true,
                _ => {}
            }
        }
    }
    Entry::Unknown
}

fn shell(args: &[String]) -> Entry {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--" => return script(args.next()),
            "-o" | "+o" | "-O" | "+O" | "--rcfile" | "--init-file" => {
                args.next();
            }
            flag if flag.starts_with("--") => {}
            flag if flag.starts_with(['-', '+']) => {
                // `-c text`, also in a cluster (`-lc`); `-s`: from stdin.
                if flag.contains(['c', 's']) || flag == "-" {
                    return Entry::Unknown;
                }
            }
            _ => return script(Some(arg)),
        }
    }
    Entry::Unknown
}
