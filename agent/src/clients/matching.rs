//! Which configured server a chain of processes is.
//!
//! What a client was told to run and what runs differ: a `#!` line puts an interpreter in front,
//! `npx` renames itself and starts a shell that starts the server, `uvx` starts a script of
//! another name. Each way is tried against each process; the most telling match wins.

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use super::{ANY_USER, ConfiguredServer, table};

/// What else is known, to choose among equals.
#[derive(Default)]
pub(super) struct Hints<'a> {
    /// Executable and command line of the client.
    pub(super) client: &'a str,
    /// Directories that the processes work in.
    pub(super) dirs: &'a [PathBuf],
}

/// Processes of one chain looked at; real ones have up to 5.
const MAX_CHAIN: usize = 32;
/// What may stand before the command: an interpreter and its flags, `env`, `uv tool`.
const MAX_BEFORE: usize = 4;

/// The best match, the first among equals.
pub(super) fn best<'a>(
    servers: &'a [ConfiguredServer],
    uid: u32,
    argvs: &[Vec<String>],
    hints: &Hints<'_>,
) -> Option<&'a ConfiguredServer> {
    let client = hints.client.to_lowercase();
    let mut best = None;
    for server in servers.iter().filter(|server| server.uid == uid || server.uid == ANY_USER) {
        let chain = argvs.iter().take(MAX_CHAIN);
        let Some(kind) = chain.filter_map(|argv| matches(server, argv)).max() else {
            continue;
        };
        let by_client = !client.is_empty() && client.contains(table::mark(server.client));
        let in_project = server
            .project
            .as_ref()
            .is_some_and(|project| hints.dirs.iter().any(|dir| dir.starts_with(project)));
        // A project's server that runs elsewhere is more likely the general one of that name.
        let elsewhere = server.project.is_some() && !in_project && !hints.dirs.is_empty();
        let score = (kind, by_client, in_project, !elsewhere);
        if best.as_ref().is_none_or(|(highest, _)| score > *highest) {
            best = Some((score, server));
        }
    }
    best.map(|(_, server)| server)
}

/// How a command line matches, least telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A script that the launcher would start.
    Launched,
    /// `npm exec PACKAGE`, the title that npx gives itself.
    Title,
    /// Equal where `${VAR}` stands for anything.
    Wildcard,
    /// Equal.
    Exact,
}

fn matches(server: &ConfiguredServer, argv: &[String]) -> Option<Kind> {
    let first = argv.first()?;
    let kinds = [
        direct(&server.command, &server.args, argv),
        shell_text(server, argv),
        title(server, first).then_some(Kind::Title),
        launched(server, argv).then_some(Kind::Launched),
    ];
    kinds.into_iter().flatten().max()
}

/// The command itself, alone or behind what runs it: `node /usr/bin/npx ARGS`, `env FOO=1
/// server`, `uv tool uvx ARGS`.
fn direct(command: &str, args: &[String], argv: &[String]) -> Option<Kind> {
    // A command written with its arguments in one string.
    let words: Vec<&str> = command.split_whitespace().collect();
    if let [command, inner @ ..] = words.as_slice()
        && !inner.is_empty()
        && !command.starts_with('/')
    {
        let joined: Vec<String> =
            inner.iter().map(|word| (*word).to_owned()).chain(args.iter().cloned()).collect();
        if let Some(kind) = direct(command, &joined, argv) {
            return Some(kind);
        }
    }
    let wanted = basename(command);
    // A command that is nothing but a variable would match every process.
    if fixed_parts(wanted).iter().all(|part| part.is_empty()) {
        return None;
    }
    (0..=argv.len().checked_sub(args.len() + 1)?.min(MAX_BEFORE)).find_map(|at| {
        let (name, rest) = argv.get(at..)?.split_first()?;
        let before = argv.get(..at).unwrap_or_default();
        if rest.len() != args.len() || !like(basename(name), wanted) || !leads(before) {
            return None;
        }
        let exact = rest == args;
        let fits = exact || rest.iter().zip(args).all(|(is, written)| like(is, written));
        fits.then_some(if exact { Kind::Exact } else { Kind::Wildcard })
    })
}

/// Whether these words run what follows them, and are not a command of their own.
fn leads(before: &[String]) -> bool {
    let Some((first, flags)) = before.split_first() else {
        return true;
    };
    flags.iter().all(|word| word.starts_with('-') || matches!(word.as_str(), "tool" | "run" | "exec" | "x"))
        || basename(first) == "env"
}

/// `sh -c 'COMMAND ARGS'`, which some clients start everything with.
fn shell_text(server: &ConfiguredServer, argv: &[String]) -> Option<Kind> {
    let (shell, rest) = argv.split_first()?;
    let text = rest.last()?;
    let is_shell = matches!(basename(shell), "sh" | "bash" | "dash" | "zsh" | "ksh" | "fish");
    let runs_text = rest.iter().any(|arg| arg.starts_with('-') && arg.ends_with('c'));
    if !is_shell || !runs_text {
        return None;
    }
    let words: Vec<String> =
        text.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect();
    direct(&server.command, &server.args, &words)
}

/// npx calls itself `npm exec PACKAGE ARGS` and has only the room of its old command line for it.
fn title(server: &ConfiguredServer, title: &str) -> bool {
    let Some(shown) = title.strip_prefix("npm exec ") else {
        return false;
    };
    let Some((package, rest)) = launcher_words(server) else {
        return false;
    };
    let shown = shown.trim_end();
    let full = rest.iter().fold(package.to_owned(), |text, arg| text + " " + arg);
    like(shown, &full) || (shown.len() >= package.len() && full.starts_with(shown))
}

/// Package and its arguments, of a server that a package launcher starts.
fn launcher_words(server: &ConfiguredServer) -> Option<(&str, &[String])> {
    let mut args = server.args.as_slice();
    match basename(&server.command) {
        "npx" | "uvx" | "bunx" | "pnpx" => {}
        "npm" | "bun" | "pnpm" | "yarn" | "pipx" | "uv" => {
            let (verb, rest) = args.split_first()?;
            args = match (verb.as_str(), rest.first().map(String::as_str)) {
                ("tool", Some("run" | "uvx")) => rest.get(1..)?,
                ("exec" | "x" | "dlx" | "run", _) => rest,
                _ => return None,
            };
        }
        _ => return None,
    }
    let mut from = None;
    loop {
        let (word, rest) = args.split_first()?;
        let value = takes_value(word);
        if !word.starts_with('-') {
            return Some((from.unwrap_or(word.as_str()), rest));
        }
        if matches!(word.as_str(), "-p" | "--package") && from.is_none() {
            from = rest.first().map(String::as_str);
        }
        args = if value { rest.get(1..)? } else { rest };
    }
}

/// Flags of package launchers whose value is the next word.
fn takes_value(flag: &str) -> bool {
    matches!(
        flag,
        "-p" | "--package"
            | "--from"
            | "--with"
            | "--with-editable"
            | "--python"
            | "--directory"
            | "--project"
            | "--index"
            | "--index-url"
            | "--registry"
            | "--spec"
            | "-w"
            | "--with-requirements"
            | "--env-file"
            | "--prefix"
            | "--cache"
            | "--extra"
    )
}

/// The script that a launcher starts has the package's arguments, and a name like the package's.
fn launched(server: &ConfiguredServer, argv: &[String]) -> bool {
    let Some((package, args)) = launcher_words(server) else {
        return false;
    };
    let Some((script, rest)) = argv.get(1..).and_then(<[String]>::split_first) else {
        return false;
    };
    if rest.len() != args.len() || !rest.iter().zip(args).all(|(is, written)| like(is, written)) {
        return false;
    }
    let bare = bare_package(package);
    let short = bare.rsplit('/').next().unwrap_or(bare);
    !short.is_empty() && basename(script).ends_with(short)
}

/// A package without its version: `@scope/name@1.2`, `name==1.2`, `name[extra]>=1`.
fn bare_package(package: &str) -> &str {
    let scope = usize::from(package.starts_with('@'));
    let end = package
        .get(scope..)
        .and_then(|rest| rest.find(['@', '=', '<', '>', '~', '!', '[']))
        .map_or(package.len(), |end| end + scope);
    package.get(..end).unwrap_or(package)
}

/// Last component of a path.
pub(crate) fn basename(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// Equality where `${VAR}`, `$VAR` and a leading `~` of `written` stand for anything.
fn like(is: &str, written: &str) -> bool {
    if is == written {
        return true;
    }
    let parts = fixed_parts(written);
    let [first, middle @ .., last] = parts.as_slice() else {
        return false;
    };
    let Some(mut rest) = is.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
        return false;
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

/// The text between variables: one part if there is no variable.
fn fixed_parts(written: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = written;
    if let Some(tail) = rest.strip_prefix('~').filter(|t| t.is_empty() || t.starts_with('/')) {
        parts.push("");
        rest = tail;
    }
    let mut from = 0;
    while let Some(at) = rest.get(from..).and_then(|text| text.find('$')).map(|at| at + from) {
        let tail = rest.get(at + 1..).unwrap_or_default();
        let skip = match tail.strip_prefix('{') {
            Some(inner) => inner.find('}').map(|end| end + 2),
            None => {
                let name = tail.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_');
                Some(name.count()).filter(|&count| count > 0)
            }
        };
        let Some(skip) = skip else {
            // A `$` that starts no variable is text.
            from = at + 1;
            continue;
        };
        parts.push(rest.get(..at).unwrap_or_default());
        rest = tail.get(skip..).unwrap_or_default();
        from = 0;
    }
    parts.push(rest);
    // Two variables side by side are one.
    let last = parts.len() - 1;
    let mut at = 0;
    parts.retain(|part| {
        at += 1;
        at == 1 || at == last + 1 || !part.is_empty()
    });
    parts
}
