//! Packages from the command lines that launch them: `npx -y PACKAGE`, `uvx PACKAGE`,
//! `docker run IMAGE`. A claim of whoever started it, used where no files tell.

use super::package::Package;
use crate::clients::basename;

/// The package that a chain of command lines names, the innermost launcher first.
pub(super) fn package(argvs: &[Vec<String>]) -> Option<Package> {
    argvs.iter().rev().find_map(|argv| of(argv))
}

fn of(argv: &[String]) -> Option<Package> {
    if let [title] = argv
        && let Some(words) = title.strip_prefix("npm exec ")
    {
        // The title may be cut, but hardly in its first word.
        return npm(words.split_whitespace().next()?);
    }
    // The launcher may be a script: `node /usr/bin/npx ...`, `python3 /usr/bin/pipx ...`.
    (0..argv.len().min(2)).find_map(|at| {
        let (name, args) = argv.get(at..)?.split_first()?;
        launched(basename(name).trim_end_matches(".js").trim_end_matches("-cli"), args)
    })
}

fn launched(name: &str, args: &[String]) -> Option<Package> {
    let verb = args.first().map(String::as_str).unwrap_or_default();
    let after = args.get(1..).unwrap_or_default();
    match (name, verb) {
        ("npx" | "bunx" | "pnpx", _) => npm(word(args, NPM_VALUED, &["-p", "--package"])?),
        ("npm", "exec" | "x") | ("pnpm" | "yarn", "dlx") | ("bun", "x") => {
            npm(word(after, NPM_VALUED, &["-p", "--package"])?)
        }
        ("uvx", _) => pypi(word(args, UV_VALUED, &["--from"])?),
        ("uv", "tool") if matches!(after.first().map(String::as_str), Some("run" | "uvx")) => {
            pypi(word(after.get(1..)?, UV_VALUED, &["--from"])?)
        }
        ("pipx", "run") => pypi(word(after, &["--python", "--pip-args"], &["--spec"])?),
        ("docker" | "podman" | "nerdctl", _) => image(args),
        _ => None,
    }
}

const NPM_VALUED: &[&str] = &["-c", "--call", "-w", "--workspace", "--registry", "--prefix", "--cache"];
const UV_VALUED: &[&str] = &[
    "--with",
    "-w",
    "--with-editable",
    "--with-requirements",
    "--python",
    "-p",
    "--index",
    "--index-url",
    "-i",
    "--extra-index-url",
    "--default-index",
    "--env-file",
    "--directory",
    "--project",
    "--refresh-package",
    "--constraints",
    "-c",
    "--prerelease",
    "--cache-dir",
];

/// The first word that is no flag, or the value of one of `named`.
fn word<'a>(args: &'a [String], valued: &[&str], named: &[&str]) -> Option<&'a str> {
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        if named.contains(&arg) {
            return args.next();
        }
        if let Some((flag, value)) = arg.split_once('=')
            && named.contains(&flag)
        {
            return Some(value);
        }
        if arg == "--" {
            return args.next();
        }
        if !arg.starts_with('-') {
            return Some(arg);
        }
        if valued.contains(&arg) {
            args.next();
        }
    }
    None
}

/// `@scope/name@1.2`, `name`; a path, a URL or a git address is no package of the registry.
pub(super) fn npm(spec: &str) -> Option<Package> {
    let scoped = usize::from(spec.starts_with('@'));
    let at = spec.get(scoped..)?.find('@').map(|at| at + scoped);
    let (name, version) = match at {
        Some(at) => (spec.get(..at)?, spec.get(at + 1..)),
        None => (spec, None),
    };
    let slashes = name.matches('/').count();
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"@/._-".contains(&b));
    let relative = name.starts_with('.');
    if !plain || relative || slashes != scoped || name.is_empty() {
        return None;
    }
    // A tag or a range is no version.
    let version = version.filter(|v| exact_version(v)).map(str::to_owned);
    Some(Package::named("npm", name, version))
}

/// `name==1.2`, `name@1.2` (uvx), `name[extra]`.
fn pypi(spec: &str) -> Option<Package> {
    let end = spec.find(['[', '=', '@', '<', '>', '~', '!', ' ', ';']).unwrap_or(spec.len());
    let (name, rest) = (spec.get(..end)?, spec.get(end..)?);
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    // `git+https://...` and paths.
    if name.is_empty() || !plain || name.starts_with('.') {
        return None;
    }
    let version = rest.rsplit_once("==").map(|(_, v)| v).or_else(|| rest.strip_prefix('@'));
    let version = version.filter(|v| exact_version(v)).map(str::to_owned);
    Some(Package::named("pypi", name, version))
}

fn exact_version(version: &str) -> bool {
    version.starts_with(|c: char| c.is_ascii_digit())
        && version.contains('.')
        && !version.contains(['*', ' ', ',', '/'])
        && !version.split('.').any(|part| part == "x")
}

/// The image of `docker run FLAGS IMAGE ARGS`.
fn image(args: &[String]) -> Option<Package> {
    let run = args.iter().position(|arg| arg == "run")?;
    let mut args = args.get(run + 1..)?.iter();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix('-') else {
            let (name, digest) = match arg.split_once('@') {
                Some((name, digest)) => (name, Some(digest)),
                None => (arg.as_str(), None),
            };
            // A port has a slash behind it, a tag has not.
            let (name, tag) = match name.rsplit_once(':') {
                Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
                _ => (name, None),
            };
            let version = digest.or(tag).map(str::to_owned);
            return (!name.is_empty()).then(|| Package::named("docker", name, version));
        };
        let alone = match flag.strip_prefix('-') {
            Some(long) => {
                long.contains('=')
                    || matches!(
                        long,
                        "rm" | "init"
                            | "interactive"
                            | "tty"
                            | "detach"
                            | "privileged"
                            | "read-only"
                            | "publish-all"
                            | "no-healthcheck"
                            | "quiet"
                            | "oom-kill-disable"
                            | "sig-proxy"
                            | "disable-content-trust"
                            | "replace"
                            | "rmi"
                            | "tls-verify"
                            | "no-hosts"
                            | "env-host"
                    )
            }
            // `-it`, or a value that sticks to its flag: `-eKEY=x`.
            None => flag.bytes().all(|b| b"itdPq".contains(&b)) || flag.len() > 1,
        };
        if !alone {
            args.next();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(lines: &[&str]) -> Option<String> {
        let argvs: Vec<Vec<String>> =
            lines.iter().map(|line| line.split('|').map(str::to_owned).collect()).collect();
        package(&argvs).map(|p| format!("{} {}", p.id, p.version.unwrap_or_default()))
    }

    #[test]
    fn launchers_name_packages() {
        for (line, wanted) in [
            ("npx|-y|@a/b@1.2.3|/d", "npm:@a/b 1.2.3"),
            ("node|/usr/bin/npx|--yes|b@latest", "npm:b "),
            ("npx|-p|@a/b|tool", "npm:@a/b "),
            ("npx|--package=@a/b@1.0|tool", "npm:@a/b 1.0"),
            ("npm exec @a/b /d", "npm:@a/b "),
            ("npm|exec|--|b|x", "npm:b "),
            ("node|/usr/lib/node_modules/npm/bin/npx-cli.js|b", "npm:b "),
            ("uvx|--python|3.12|mcp-server-git==1.0", "pypi:mcp-server-git 1.0"),
            ("/x/uv|tool|uvx|--from|a[cli]==2.1|b", "pypi:a 2.1"),
            ("uvx|a@1.0", "pypi:a 1.0"),
            ("python3|/usr/bin/pipx|run|a", "pypi:a "),
            ("docker|run|-i|--rm|-e|KEY|-v/a:/b|--mount|x|mcp/git|/d", "docker:mcp/git "),
            ("docker|--context|x|run|-it|r.io:5000/a/b:1.2", "docker:r.io:5000/a/b 1.2"),
            ("podman|run|--network=none|a@sha256:00", "docker:a sha256:00"),
        ] {
            assert_eq!(named(&[line]).as_deref(), Some(wanted), "{line}");
        }
        for line in ["npx|./local", "npx|github:a/b", "uvx|git+https://x", "docker|ps", "npx", "a"] {
            assert_eq!(named(&[line]), None, "{line}");
        }
        let chain = ["sh|-c|npx -y a", "npm exec b", "sh|-c|b", "node|b"];
        assert_eq!(named(&chain).as_deref(), Some("npm:b "));
    }
}
