//! Globs of names, in which `*` spans everything, and what path globs are made of as well.

/// Characters of a pattern.
const MAX_PATTERN: usize = 4096;
/// Patterns that braces make of one.
const MAX_BRACES: usize = 64;
/// Why a pattern is none.
pub(super) type Reason = String;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// This byte.
    Byte(u8),
    /// One character.
    One,
    /// Any text.
    Star,
}

/// Any text may stand for `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameGlob(pub(super) Vec<Box<[Token]>>);

impl NameGlob {
    /// Reads it, or says what is wrong with it.
    ///
    /// # Errors
    /// It is no pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the pattern is empty".into());
        }
        braces(text)?.iter().map(|t| tokens(t)).collect::<Result<_, _>>().map(Self)
    }

    /// For names that have no case: hosts.
    pub(super) fn parse_host(text: &str) -> Result<Self, Reason> {
        let text = text.strip_suffix('.').unwrap_or(text);
        Self::parse(&text.to_ascii_lowercase())
    }

    /// Whether it stands for this name.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.0.iter().any(|t| wild(t, text.as_bytes(), false))
    }

    /// `text` may be in any case; the pattern is in lower case.
    pub(super) fn matches_host(&self, text: &str) -> bool {
        let text = text.strip_suffix('.').unwrap_or(text).as_bytes();
        self.0.iter().any(|t| wild(t, text, true))
    }

    /// Whether everything that `other` matches is matched. "No" may be wrong, "yes" is not.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|o| self.0.iter().any(|s| covers_tokens(s, o)))
    }

    pub(super) fn is_everything(&self) -> bool {
        self.0.iter().any(|t| **t == [Token::Star])
    }
}

pub(super) fn covers_tokens(a: &[Token], b: &[Token]) -> bool {
    if a == b || a == [Token::Star] {
        return true;
    }
    // A pattern without wildcards is a text.
    let text: Option<Vec<u8>> =
        b.iter().map(|t| if let Token::Byte(b) = t { Some(*b) } else { None }).collect();
    if let Some(text) = text {
        return wild(a, &text, false);
    }
    // `*x` covers `*yx`, `x*` covers `xy*`.
    match (a, b) {
        ([Token::Star, tail @ ..], _) if !tail.contains(&Token::Star) => b.ends_with(tail),
        ([head @ .., Token::Star], _) if !head.contains(&Token::Star) => b.starts_with(head),
        _ => false,
    }
}

/// Tokens against a text: the usual walk that remembers the last star.
pub(super) fn wild(tokens: &[Token], text: &[u8], fold: bool) -> bool {
    let (mut t, mut i) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        match (tokens.get(t), text.get(i)) {
            (Some(Token::Star), _) => {
                t += 1;
                back = Some((t, i));
                continue;
            }
            (Some(Token::Byte(a)), Some(b)) if a == b || (fold && *a == b.to_ascii_lowercase()) => {
                t += 1;
                i += 1;
                continue;
            }
            (Some(Token::One), Some(_)) => {
                t += 1;
                i += 1;
                // The rest of a character of several bytes.
                while text.get(i).is_some_and(|b| b & 0xc0 == 0x80) {
                    i += 1;
                }
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        match back {
            Some((at, from)) if from < text.len() => {
                back = Some((at, from + 1));
                (t, i) = (at, from + 1);
            }
            _ => return false,
        }
    }
}

pub(super) fn tokens(text: &str) -> Result<Box<[Token]>, Reason> {
    let mut out = Vec::with_capacity(text.len());
    let mut chars = text.char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        match c {
            '*' => {
                if out.last() != Some(&Token::Star) {
                    out.push(Token::Star);
                }
            }
            '?' => out.push(Token::One),
            '\\' => {
                let Some((_, c)) = chars.next() else {
                    return Err("`\\` at the end stands for nothing".into());
                };
                out.extend(c.encode_utf8(&mut [0; 4]).bytes().map(Token::Byte));
            }
            '$' if chars.peek().is_some_and(|(_, c)| *c == '{') => {
                let name: String = text.get(i..).unwrap_or_default().chars().take(24).collect();
                return Err(format!(
                    "`{name}` is not known here: there are ${{home}}, ${{root}} and ${{user}}"
                ));
            }
            '[' | ']' | '{' | '}' => {
                return Err(format!("`{c}` has no meaning here; write `\\{c}` for the character"));
            }
            c if c.is_control() => return Err("a control character".into()),
            c => out.extend(c.encode_utf8(&mut [0; 4]).bytes().map(Token::Byte)),
        }
    }
    Ok(out.into())
}

/// `{a,b}` made into one text each; `${name}` stays.
pub(super) fn braces(text: &str) -> Result<Vec<String>, Reason> {
    if text.len() > MAX_PATTERN {
        return Err(format!("the pattern is longer than {MAX_PATTERN} bytes"));
    }
    let mut out = vec![String::new()];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        let copied = match c {
            '\\' => c.len_utf8() + after.chars().next().map_or(0, char::len_utf8),
            '$' if after.starts_with('{') => match rest.find('}') {
                Some(end) => end + 1,
                None => return Err("`${` without `}`".into()),
            },
            '{' => {
                let Some(end) = after.find('}') else { return Err("`{` without `}`".into()) };
                let choices: Vec<&str> = after.get(..end).unwrap_or_default().split(',').collect();
                if choices.iter().any(|choice| choice.contains(['{', '\\', '$'])) {
                    return Err("braces do not nest".into());
                }
                if out.len() * choices.len() > MAX_BRACES {
                    return Err(format!("the braces make more than {MAX_BRACES} patterns"));
                }
                out = out
                    .iter()
                    .flat_map(|o| choices.iter().map(move |choice| format!("{o}{choice}")))
                    .collect();
                rest = after.get(end + 1..).unwrap_or_default();
                continue;
            }
            c => c.len_utf8(),
        };
        let (head, tail) = rest.split_at(copied);
        out.iter_mut().for_each(|o| o.push_str(head));
        rest = tail;
    }
    Ok(out)
}

/// A text as a pattern that matches only it.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // YAML and terminals do better without these; `?` is one character too.
        if c.is_control() {
            out.push('?');
            continue;
        }
        // `$` only means something before `{`, which is escaped itself.
        if matches!(c, '*' | '?' | '\\' | '[' | ']' | '{' | '}') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
