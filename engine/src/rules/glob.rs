//! Globs of paths. Our own matcher, because rules need what file-name globs lack: `**` that is a
//! segment and nothing else, homes and roots of the server at hand, a test whether one pattern covers
//! another, and matching that allocates nothing.

use super::{
    names::{NameGlob, Reason, Token, braces, covers_tokens, escape, tokens, wild},
    select::Who,
};

/// Names in a path pattern; the kernel programs cut paths far earlier.
const MAX_SEGMENTS: usize = 256;

/// One name in a path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// `**`: any number of names.
    Deep,
    /// `*`
    Any,
    Literal(Box<str>),
    Glob(Box<[Token]>),
    /// Holds `${user}`, which is not known yet.
    User(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// `/`
    Top,
    /// `${home}`
    Home,
    /// `${root}`
    Root,
}

/// A path pattern whose base and user may have to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template {
    base: Base,
    segments: Vec<Segment>,
    /// It stands for `~`, of which `/home/*` and `/root` have globs of their own.
    tilde: bool,
}

/// A path pattern without unknowns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathGlob {
    pub(super) segments: Box<[Segment]>,
    /// One bit for each literal name: a path without one of them cannot match. See [`bit`].
    names: u64,
}

/// A path pattern as written: what is known of it, and what waits for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathPattern {
    /// Unix sockets without a path.
    pub(super) name: Option<NameGlob>,
    pub(super) globs: Vec<PathGlob>,
    templates: Vec<Template>,
}

impl PathPattern {
    pub(super) fn parse(text: &str) -> Result<Self, Reason> {
        if text.is_empty() {
            return Err("the pattern is empty".into());
        }
        let mut out = Self { name: None, globs: Vec::new(), templates: Vec::new() };
        for text in braces(text)? {
            out.add(&text)?;
        }
        Ok(out)
    }

    /// A path, or `@name` for an abstract socket.
    pub(super) fn parse_unix(text: &str) -> Result<Self, Reason> {
        if text.starts_with('@') {
            let name = Some(NameGlob::parse(text)?);
            return Ok(Self { name, globs: Vec::new(), templates: Vec::new() });
        }
        Self::parse(text)
    }

    fn add(&mut self, text: &str) -> Result<(), Reason> {
        let after = |prefix: &str| {
            let rest = text.strip_prefix(prefix)?;
            if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
        };
        let (base, rest, tilde) = if let Some(rest) = after("~") {
            (Base::Home, rest, true)
        } else if let Some(rest) = after("${home}") {
            (Base::Home, rest, false)
        } else if let Some(rest) = after("${root}") {
            (Base::Root, rest, false)
        } else if let Some(rest) = text.strip_prefix('/') {
            (Base::Top, rest, false)
        } else if text == "**" || text.starts_with("**/") {
            (Base::Top, text, false)
        } else {
            return Err("a path pattern begins with `/`, `~/`, `**/`, `${home}/` or `${root}/`".into());
        };
        let segments = segments(rest)?;
        if tilde {
            let with = |base: &[Segment]| base.iter().chain(&segments).cloned().collect::<Vec<_>>();
            let home = with(&[Segment::Literal("home".into()), Segment::Any]);
            let root = with(&[Segment::Literal("root".into())]);
            self.push(Template { base: Base::Top, segments: home, tilde: false });
            self.push(Template { base: Base::Top, segments: root, tilde: false });
        }
        self.push(Template { base, segments, tilde });
        Ok(())
    }

    fn push(&mut self, template: Template) {
        let known = template.base == Base::Top
            && !template.segments.iter().any(|segment| matches!(segment, Segment::User(_)));
        if known {
            self.globs.push(PathGlob::new(template.segments));
        } else {
            self.templates.push(template);
        }
    }

    /// Whether it says more for a server than `globs` does.
    pub(super) fn has_unknowns(&self) -> bool {
        !self.templates.is_empty()
    }

    /// What the unknowns are for this server.
    pub(super) fn expand(&self, who: &Who, out: &mut Vec<PathGlob>) {
        let homes = who.home.as_slice();
        for template in &self.templates {
            let bases: &[String] = match template.base {
                Base::Top => &[],
                Base::Home => homes,
                Base::Root => &who.roots,
            };
            let tail: Option<Vec<Segment>> = template
                .segments
                .iter()
                .map(|segment| match segment {
                    Segment::User(text) => {
                        let user = who.user.as_deref().filter(|u| !u.is_empty() && !u.contains('/'))?;
                        segments(&text.replace("${user}", &escape(user))).ok()?.pop()
                    }
                    other => Some(other.clone()),
                })
                .collect();
            let Some(tail) = tail else { continue };
            if template.base == Base::Top {
                out.push(PathGlob::new(tail));
                continue;
            }
            for base in bases {
                let names: Vec<&str> = base.split('/').filter(|name| !name.is_empty()).collect();
                let usual = matches!(names.as_slice(), ["home", _] | ["root"]);
                // A root of `/` would make `${root}/**` permit everything.
                if names.is_empty() || !base.starts_with('/') || (template.tilde && usual) {
                    continue;
                }
                let names = names.into_iter().map(|name| Segment::Literal(name.into()));
                out.push(PathGlob::new(names.chain(tail.iter().cloned()).collect::<Box<[_]>>()));
            }
        }
    }

    /// Whether everything that `other` matches is matched, as far as that can be told.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let names = match (&self.name, &other.name) {
            (_, None) => true,
            (Some(a), Some(b)) => a.covers(b),
            (None, Some(_)) => false,
        };
        names
            && other.globs.iter().all(|o| self.globs.iter().any(|s| covers(&s.segments, &o.segments)))
            && other.templates.iter().all(|o| {
                self.templates.iter().any(|s| s.base == o.base && covers(&s.segments, &o.segments))
                    || self.globs.iter().any(PathGlob::is_everything)
            })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.globs.iter().any(PathGlob::is_everything)
    }
}

/// A path with its first names at hand: most patterns fail on one of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathView<'a> {
    /// Without its first and last slash; `None` when no pattern for whole paths can match.
    path: &'a str,
    heads: [&'a str; HEADS],
    /// The bits of all its names.
    names: u64,
    whole: bool,
}

/// One bit of 64 for a name: names that differ mostly have different ones.
fn bit(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let (first, last) = (bytes.first().copied().unwrap_or(0), bytes.last().copied().unwrap_or(0));
    let mixed = bytes.len().wrapping_mul(31)
        ^ usize::from(first).wrapping_mul(7)
        ^ usize::from(last).wrapping_mul(13);
    1 << (mixed % 64)
}

/// Names looked at before the walk. Most patterns of a home tell by the third.
const HEADS: usize = 3;

impl<'a> PathView<'a> {
    pub(super) fn new(path: &'a str) -> Self {
        let whole = path.strip_prefix('/');
        let rest = whole.unwrap_or(path);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let mut heads = [""; HEADS];
        let mut names = 0;
        for (n, name) in rest.split('/').enumerate() {
            names |= bit(name);
            if let Some(head) = heads.get_mut(n) {
                *head = name;
            }
        }
        Self { path: rest, heads, names, whole: whole.is_some() }
    }

    /// A path that the kernel programs had to cut: it has no beginning.
    fn is_cut(&self) -> bool {
        !self.whole && self.path.starts_with("...")
    }
}

impl PathGlob {
    fn new(segments: impl Into<Box<[Segment]>>) -> Self {
        let segments = segments.into();
        let names = segments.iter().map(|s| if let Segment::Literal(text) = s { bit(text) } else { 0 });
        let names = names.fold(0, |all, bit| all | bit);
        Self { segments, names }
    }

    /// Whether it matches. A cut path is matched only by patterns for any depth, and only when `cut`
    /// allows that.
    pub(super) fn matches(&self, path: &PathView<'_>, cut: bool) -> bool {
        if self.names & !path.names != 0 {
            return false;
        }
        let any_depth = self.segments.first() == Some(&Segment::Deep);
        if !path.whole && (!cut || !path.is_cut() || !any_depth) {
            return false;
        }
        for (segment, head) in self.segments.iter().zip(path.heads) {
            match segment {
                Segment::Literal(text) if **text != *head => return false,
                Segment::Deep => break,
                _ => {}
            }
        }
        matches_path(&self.segments, path.path)
    }

    pub(super) fn is_everything(&self) -> bool {
        !self.segments.is_empty() && self.segments.iter().all(|segment| *segment == Segment::Deep)
    }
}

/// Segments against a path; `**` is tried with as few names as will do (the last one only: an
/// earlier one that got further cannot do better).
fn matches_path(segments: &[Segment], path: &str) -> bool {
    let (mut s, mut rest) = (0, (!path.is_empty()).then_some(path));
    let mut back: Option<(usize, Option<&str>)> = None;
    loop {
        match (segments.get(s), rest) {
            (Some(Segment::Deep), _) => {
                s += 1;
                if s == segments.len() {
                    return true;
                }
                back = Some((s, rest));
                continue;
            }
            (Some(segment), Some(path)) => {
                let (name, next) = split(path);
                if segment.matches(name) {
                    s += 1;
                    rest = next;
                    continue;
                }
            }
            (None, None) => return true,
            (Some(_), None) | (None, Some(_)) => {}
        }
        // Let the last `**` take one name more.
        let Some((at, Some(path))) = back else { return false };
        let next = split(path).1;
        back = Some((at, next));
        (s, rest) = (at, next);
    }
}

fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    }
}

impl Segment {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Deep | Self::Any => true,
            Self::Literal(text) => **text == *name,
            Self::Glob(tokens) => wild(tokens, name.as_bytes(), false),
            // Never compared: `expand` filled it in.
            Self::User(_) => false,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Deep) => false,
            (Self::Any, _) => true,
            (a, b) if a == b => true,
            (Self::Glob(a), Self::Literal(b)) => wild(a, b.as_bytes(), false),
            (Self::Glob(a), Self::Glob(b)) => covers_tokens(a, b),
            _ => false,
        }
    }
}

fn covers(a: &[Segment], b: &[Segment]) -> bool {
    // A table instead of recursion: two patterns of many `**` would take forever.
    let (n, m) = (a.len(), b.len());
    let mut below = vec![false; m + 1];
    for i in (0..=n).rev() {
        let mut row = vec![false; m + 1];
        for j in (0..=m).rev() {
            let next = |t: &[bool], k: usize| t.get(k).copied().unwrap_or(false);
            let covered = match (a.get(i), b.get(j)) {
                (None, None) => true,
                (None, Some(_)) => false,
                (Some(Segment::Deep), other) => next(&below, j) || (other.is_some() && next(&row, j + 1)),
                (Some(s), Some(o)) => s.covers(o) && next(&below, j + 1),
                (Some(_), None) => false,
            };
            if let Some(slot) = row.get_mut(j) {
                *slot = covered;
            }
        }
        below = row;
    }
    below.first().copied().unwrap_or(false)
}

fn segments(rest: &str) -> Result<Vec<Segment>, Reason> {
    let mut out = Vec::new();
    for name in rest.strip_suffix('/').unwrap_or(rest).split('/') {
        out.push(match name {
            "" if rest.is_empty() => break,
            "" => return Err("two slashes in a row".into()),
            "." | ".." => return Err(format!("`{name}` is never part of a resolved path")),
            "**" => Segment::Deep,
            "*" => Segment::Any,
            _ if name.contains("**") => return Err("`**` stands for whole names: write `/**/`".into()),
            _ if name.contains("${user}") => {
                tokens(&name.replace("${user}", "u"))?;
                Segment::User(name.into())
            }
            _ => {
                let tokens = tokens(name)?;
                let literal: Option<Vec<u8>> =
                    tokens.iter().map(|t| if let Token::Byte(b) = t { Some(*b) } else { None }).collect();
                match literal.and_then(|bytes| String::from_utf8(bytes).ok()) {
                    Some(text) => Segment::Literal(text.into()),
                    None => Segment::Glob(tokens),
                }
            }
        });
    }
    if out.len() > MAX_SEGMENTS {
        return Err(format!("more than {MAX_SEGMENTS} names in one path"));
    }
    Ok(out)
}

#[cfg(test)]
#[path = "glob_tests.rs"]
mod tests;
