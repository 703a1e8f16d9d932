//! Masks secrets in command lines, at equal length.

use std::ops::Range;

/// Parts of names whose values are secrets; `_` counts as `-`.
const SECRET: [&[u8]; 13] = [
    b"token",
    b"secret",
    b"password",
    b"passwd",
    b"passphrase",
    b"api-key",
    b"apikey",
    b"access-key",
    b"auth",
    b"credential",
    b"private-key",
    b"privatekey",
    b"bearer",
];
/// Names that contain one of those and yet are harmless.
const HARMLESS: [&[u8]; 2] = [b"author", b"tokenizer"];

/// How tokens of well-known services begin, and how long the rest must be at least.
const SHAPES: [(&[u8], usize); 18] = [
    (b"github_pat_", 10),
    (b"ghp_", 10),
    (b"gho_", 10),
    (b"ghu_", 10),
    (b"ghs_", 10),
    (b"ghr_", 10),
    (b"glpat-", 8),
    (b"sk-ant-", 8),
    (b"sk-", 16),
    (b"xoxb-", 8),
    (b"xoxp-", 8),
    (b"xoxa-", 8),
    (b"xapp-", 8),
    (b"AIza", 20),
    (b"hf_", 16),
    (b"npm_", 30),
    (b"pypi-", 16),
    (b"eyJ", 20),
];

/// Masks secrets in NUL-separated arguments with `*`: values of flags and variables with telling
/// names, passwords in URLs, authorization headers, tokens of well-known shapes.
pub fn redact_argv(args: &mut [u8]) {
    let mut next = false;
    for arg in args.split_mut(|byte| *byte == 0) {
        if std::mem::take(&mut next) && !arg.starts_with(b"--") {
            arg.fill(b'*');
            continue;
        }
        match find_value(arg) {
            Value::At(at) => mask(arg, at..usize::MAX),
            Value::Next => next = true,
            Value::None if arg.iter().any(u8::is_ascii_whitespace) => command_line(arg),
            Value::None => {}
        }
        urls(arg);
        headers(arg);
        shapes(arg);
    }
}

/// Where the secret value of an argument is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    None,
    At(usize),
    /// In the next argument.
    Next,
}

/// An argument that is a command line of its own, as in `sh -c`.
fn command_line(line: &mut [u8]) {
    let mut next = false;
    let mut quote = None;
    for word in line.split_mut(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        if let Some(open) = quote {
            if word.contains(&open) {
                quote = None;
            }
            word.fill(b'*');
            continue;
        }
        let value = match find_value(word) {
            _ if std::mem::take(&mut next) && !word.starts_with(b"--") => 0,
            Value::At(at) => at,
            found => {
                next = found == Value::Next;
                continue;
            }
        };
        // A quoted value goes on to its closing quote.
        let secret = word.get(value..).unwrap_or_default();
        if let Some((&open @ (b'"' | b'\''), rest)) = secret.split_first()
            && !rest.contains(&open)
        {
            quote = Some(open);
        }
        mask(word, value..usize::MAX);
    }
}

/// Finds the secret in `--name=value`, `name=value`, `name: value` and `--name`.
fn find_value(arg: &[u8]) -> Value {
    let mut at = 0;
    loop {
        let rest = arg.get(at..).unwrap_or_default();
        let start = rest.iter().take_while(|byte| matches!(byte, b'\'' | b'"' | b'-')).count();
        let flag = rest.get(..start).is_some_and(|start| start.contains(&b'-'));
        let name = rest.get(start..).unwrap_or_default();
        let len = name.iter().take_while(|byte| is_name(**byte)).count();
        let (name, rest) = name.split_at(len);
        let value = at + start + len + 1;
        let secret = is_secret(name);
        match rest.first() {
            Some(b'=') if secret => return Value::At(value),
            Some(b':') if secret && !name.eq_ignore_ascii_case(b"authorization") => {
                return Value::At(value);
            }
            // `--env=TOKEN=value`, `--header=X-Api-Key: value`
            Some(b'=') if flag => at = value,
            None if secret && (flag || name.eq_ignore_ascii_case(b"bearer")) => return Value::Next,
            _ => return Value::None,
        }
    }
}

/// Masks the password in `scheme://user:password@host`.
fn urls(arg: &mut [u8]) {
    let mut at = 0;
    while let Some(found) = position(arg, at, b"://") {
        let host = found + 3;
        let rest = arg.get(host..).unwrap_or_default();
        let len = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'') || *byte <= b' ')
            .unwrap_or(rest.len());
        let authority = rest.get(..len).unwrap_or_default();
        let user = authority.iter().rposition(|byte| *byte == b'@');
        let password = authority.iter().position(|byte| *byte == b':');
        if let (Some(user), Some(password)) = (user, password) {
            mask(arg, host + password + 1..host + user);
        }
        at = host;
    }
}

/// Masks the value in `Authorization: value`, and what follows `Bearer `.
fn headers(arg: &mut [u8]) {
    for name in [b"authorization:".as_slice(), b"authorization=", b"bearer "] {
        let mut at = 0;
        while let Some(found) = position(arg, at, name) {
            at = found + name.len();
            let rest = arg.get(at..).unwrap_or_default();
            let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
            let rest = rest.get(spaces..).unwrap_or_default();
            let scheme = [b"bearer ".as_slice(), b"basic ", b"token "]
                .iter()
                .find(|scheme| starts(rest, scheme))
                .map_or(0, |scheme| scheme.len());
            let len = rest.iter().position(|byte| matches!(byte, b'"' | b'\'')).unwrap_or(rest.len());
            let from = at + spaces;
            mask(arg, from + scheme..from + len);
        }
    }
}

/// Masks tokens of well-known shapes, but for what tells the shape.
fn shapes(arg: &mut [u8]) {
    let mut at = 0;
    while let Some(rest) = arg.get(at..).filter(|rest| !rest.is_empty()) {
        let len = rest.iter().take_while(|byte| is_token(**byte)).count();
        let (word, _) = rest.split_at(len);
        if let Some(kept) = shape(word) {
            mask(arg, at + kept..at + len);
        }
        at += len + 1;
    }
}

/// How many bytes of a token tell its shape; none if it has none.
fn shape(word: &[u8]) -> Option<usize> {
    let upper = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    if word.starts_with(b"AKIA") || word.starts_with(b"ASIA") {
        let rest = word.get(4..).unwrap_or_default();
        return (rest.len() >= 16 && rest.iter().take(16).all(upper)).then_some(4);
    }
    let (prefix, least) = SHAPES.iter().find(|(prefix, _)| word.starts_with(prefix))?;
    let rest = word.get(prefix.len()..).unwrap_or_default();
    let dots = rest.iter().filter(|byte| **byte == b'.').count();
    let fits = match *prefix {
        b"eyJ" => dots >= 2,
        b"npm_" => rest.iter().all(u8::is_ascii_alphanumeric),
        _ => true,
    };
    (fits && rest.len() >= *least).then_some(prefix.len())
}

fn is_secret(name: &[u8]) -> bool {
    let mut name: Vec<u8> = name.to_ascii_lowercase();
    name.iter_mut().filter(|byte| matches!(byte, b'_' | b'.')).for_each(|byte| *byte = b'-');
    for harmless in HARMLESS {
        while let Some(found) = position(&name, 0, harmless) {
            // `authorization` is not `author`.
            if harmless == b"author" && starts(name.get(found..).unwrap_or_default(), b"authori") {
                break;
            }
            mask(&mut name, found..found + harmless.len());
        }
    }
    SECRET.iter().any(|part| position(&name, 0, part).is_some())
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn starts(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Where `needle` is next, upper or lower case.
fn position(bytes: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let found = rest.windows(needle.len()).position(|part| part.eq_ignore_ascii_case(needle))?;
    Some(from + found)
}

fn mask(bytes: &mut [u8], range: Range<usize>) {
    let end = range.end.min(bytes.len());
    if let Some(part) = bytes.get_mut(range.start..end) {
        part.fill(b'*');
    }
}
