//! Rights by path: files, programs, unix sockets.

use std::collections::BTreeSet;

use super::{Compiler, Has, Value, place};
use crate::{
    act::Act,
    baseline::{Dimension, Item, Ratified, ScopeKey},
    judge::is_incidental,
    policy::{
        Family, PathAccess, PathRight, Span,
        permits::{parent, path_right},
        scope::NOBODY,
    },
    rules::outline::{Of, PathShape, Role, Shape, access_of},
};

/// A name that nobody has.
const NAME: &str = "no-such-name";
/// What holds nothing: no baseline looks at it, and every program opens it.
const EMPTY: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// What is done to paths.
pub(super) const ACCESSES: [PathAccess; 6] = [
    PathAccess::Read,
    PathAccess::Write,
    PathAccess::Delete,
    PathAccess::Change,
    PathAccess::Exec,
    PathAccess::Unix,
];

/// A piece of the tree.
type Cell = (String, Span);

/// All or more of what a pattern or member means.
#[derive(Clone, Debug)]
struct Wide {
    path: String,
    span: Span,
    bit: u64,
    by_rule: bool,
}

impl Wide {
    fn covers(&self, path: &str) -> bool {
        let below = || path.strip_prefix(self.path.as_str()).is_some_and(|rest| rest.starts_with('/'));
        match self.span {
            Span::Exact => path == self.path,
            Span::Children => parent(path) == Some(&*self.path),
            Span::Subtree => self.path == "/" || path == self.path || below(),
        }
    }
}

/// What a member means on this host.
pub(super) enum Meant {
    /// Pieces that the baseline itself is asked about.
    Cells(Vec<Cell>),
    /// More than it means.
    Wider(Vec<Cell>),
    /// Less than it means: where else it may be, cannot be said.
    Narrower(Vec<Cell>),
    /// Nothing that a path could say.
    Nothing(&'static str),
    /// No path at all: a pipe, or memory.
    Unnamed,
}

/// Too much to be permitted for the sake of something in it.
fn too_wide(path: &str) -> bool {
    matches!(path, "/" | "/home")
}

/// The part before the first name that is not meant as it stands, and how many names come after it.
fn literal(path: &str) -> (String, usize) {
    let mut kept = String::new();
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let plain = names.iter().take_while(|name| !name.contains(['{', '…']) && **name != "**").count();
    for name in names.iter().take(plain) {
        kept.push('/');
        kept.push_str(name);
    }
    let kept = if kept.is_empty() { "/".to_owned() } else { kept };
    (kept, names.len() - plain)
}

fn wider(path: &str) -> Meant {
    let (kept, rest) = literal(path);
    if too_wide(&kept) {
        return Meant::Nothing("denied in the kernel: no path says it without saying far more");
    }
    Meant::Wider(vec![(kept, if rest == 1 { Span::Children } else { Span::Subtree })])
}

impl Compiler<'_> {
    /// What a member means, at the level at which it is enforced.
    pub(super) fn meant(&self, r: &Ratified<'_>, name: &str) -> Meant {
        let file = r.dimension != Dimension::Unix && r.dimension != Dimension::Exec;
        let bound = if file { None } else { name.strip_prefix("bind ") };
        let name = bound.unwrap_or(name);
        if !name.starts_with(['/', '@', '$']) {
            return Meant::Unnamed;
        }
        if name.starts_with('@') {
            return match name.contains(['{', '…']) {
                true => {
                    Meant::Nothing("denied in the kernel: abstract sockets are permitted by their whole name")
                }
                false => Meant::Cells(vec![(name.to_owned(), Span::Exact)]),
            };
        }
        let Some(places) = self.learned.places(name) else {
            return Meant::Nothing(
                "denied in the kernel until a server of it runs: where that is, is not known",
            );
        };
        let hidden = name.rsplit_once("/**/").map(|(_, hidden)| hidden);
        if let (true, Some(hidden)) = (file && r.level == 2, hidden) {
            return Meant::Narrower(self.located(r, name, hidden));
        }
        let mut cells = Vec::new();
        for place in places {
            let (path, spans): (&str, &[Span]) = if let Some(dir) = place.strip_suffix("/**").filter(|_| file)
            {
                (dir, &[Span::Subtree, Span::Children, Span::Exact])
            } else if let Some(dir) = place.strip_suffix('/').filter(|_| file && r.level == 1) {
                (dir, &[Span::Children])
            } else {
                (&place, &[Span::Exact])
            };
            if path.contains(['{', '…']) {
                return wider(&place);
            }
            let path = if path.is_empty() { "/" } else { path };
            cells.extend(spans.iter().map(|span| (path.to_owned(), *span)));
        }
        Meant::Cells(cells)
    }

    /// Where hidden things of a root were.
    fn located(&self, r: &Ratified<'_>, area: &str, hidden: &str) -> Vec<Cell> {
        let root = area.split_once('/').map_or(area, |(root, _)| root);
        let mut out = BTreeSet::new();
        for fine in
            r.fine.iter().filter(|fine| fine.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')))
        {
            let names: Vec<&str> = fine.split('/').collect();
            let Some(at) = names.iter().position(|name| name.starts_with('.')) else { continue };
            let upto = names.get(..=at).unwrap_or_default().join("/");
            let below = upto.strip_prefix(root).unwrap_or_default();
            if names.get(at) != Some(&hidden) || below.contains(['{', '…']) {
                continue;
            }
            for place in self.learned.places(&upto).unwrap_or_default() {
                out.insert((place, Span::Subtree));
            }
        }
        out.into_iter().collect()
    }

    pub(super) fn paths(&mut self) -> Vec<PathRight> {
        let mut out = Vec::new();
        for access in ACCESSES {
            let (mut cells, mut wide) = (BTreeSet::new(), Vec::new());
            self.of_rules(access, &mut cells, &mut wide);
            self.of_members(access, &mut cells, &mut wide);
            if matches!(access, PathAccess::Read | PathAccess::Write) {
                cells.extend(EMPTY.map(|path| (path.to_owned(), Span::Exact)));
            }
            if access != PathAccess::Exec && access != PathAccess::Unix {
                cells.extend(self.learned.prefixes().into_iter().map(|p| (p.to_owned(), Span::Subtree)));
            }
            self.cut_paths(access, cells, &wide, &mut out);
        }
        out
    }

    fn of_rules(&mut self, access: PathAccess, cells: &mut BTreeSet<Cell>, wide: &mut Vec<Wide>) {
        let mut denied = Vec::new();
        for selected in self.selections() {
            selected.outline(Of::Path(access), self.given.who, self.given.today, &mut |said| {
                let Shape::Paths { paths, more } = &said.shape else { return };
                cells.extend(more.iter().map(|p| (p.path.clone(), p.span)));
                for PathShape { path, span, exact } in paths {
                    if said.role == Role::Allow && !exact {
                        if too_wide(path) {
                            denied.push((place(&said), said.text.to_owned()));
                            continue;
                        }
                        let holders =
                            self.scopes.iter().filter(|s| std::sync::Arc::ptr_eq(&s.selected, &selected));
                        let of = |bit| Wide { path: path.clone(), span: *span, bit, by_rule: true };
                        wide.extend(holders.map(|s| of(s.bit)));
                    }
                    if *exact || said.role == Role::Allow {
                        cells.insert((path.clone(), *span));
                    }
                }
            });
        }
        for (rule, text) in denied {
            if self.given.families.contains(&family(access)) {
                self.list(rule, text, "denied in the kernel: no path says it without saying far more");
            }
        }
    }

    fn of_members(&mut self, access: PathAccess, cells: &mut BTreeSet<Cell>, wide: &mut Vec<Wide>) {
        for r in self.learned.of(dimension(access)) {
            let own = self.scopes.iter().find(|s| s.key == r.scope).map(|s| s.bit);
            let all_bits = self.scopes.iter().fold(0, |all, s| all | s.bit);
            for name in r.names.iter().filter(|name| !name.starts_with("bind ")) {
                let item = Item { dimension: r.dimension, levels: vec![(*name).into()] };
                let bit = if is_incidental(&item) { Some(all_bits) } else { own };
                match self.meant(r, name) {
                    Meant::Cells(all) => cells.extend(all),
                    Meant::Wider(all) | Meant::Narrower(all) => {
                        if let Some(bit) = bit {
                            wide.extend(all.iter().map(|(path, span)| Wide {
                                path: path.clone(),
                                span: *span,
                                bit,
                                by_rule: false,
                            }));
                        }
                        cells.extend(all);
                    }
                    Meant::Nothing(_) | Meant::Unnamed => {}
                }
            }
        }
        if access != PathAccess::Write {
            return;
        }
        // Who binds a socket makes its file.
        for r in self.learned.of(Dimension::Unix) {
            let Some(bit) = self.scopes.iter().find(|s| s.key == r.scope).map(|s| s.bit) else { continue };
            for name in r.names.iter().filter(|name| name.starts_with("bind /") || name.starts_with("bind $"))
            {
                if let Meant::Cells(all) | Meant::Wider(all) = self.meant(r, name) {
                    for (path, span) in all {
                        wide.push(Wide { path: path.clone(), span, bit, by_rule: false });
                        cells.insert((path, span));
                    }
                }
            }
        }
    }

    fn cut_paths(&self, access: PathAccess, cells: BTreeSet<Cell>, wide: &[Wide], out: &mut Vec<PathRight>) {
        // What is in a directory may differ from what is below it, and from itself.
        let mut all: BTreeSet<(usize, Span, String)> = BTreeSet::new();
        let depth = |path: &str| if path == "/" { 0 } else { path.matches('/').count() };
        for (path, span) in cells {
            let spans: &[Span] = match span {
                Span::Exact => &[Span::Exact],
                Span::Children => &[Span::Children],
                Span::Subtree => &[Span::Subtree, Span::Children, Span::Exact],
            };
            all.extend(spans.iter().map(|span| (depth(&path), *span, path.clone())));
        }
        let mut all: Vec<_> = all.into_iter().collect();
        // Wider ones first: what they say already need not be said again.
        all.sort_by(|(a, s, p), (b, t, q)| a.cmp(b).then(t.cmp(s)).then(p.cmp(q)));
        let mut own: Vec<PathRight> = Vec::new();
        for (_, span, path) in all {
            let join = |base: &str| format!("{}/{NAME}", if base == "/" { "" } else { base });
            let at = match span {
                Span::Exact => path.clone(),
                Span::Children => join(&path),
                Span::Subtree => join(&join(&path)),
            };
            let Value { mask, .. } = self.path_value(access, &at, wide);
            if mask == path_right(&own, &at, access).unwrap_or(NOBODY) {
                continue;
            }
            let right = PathRight { path, span, access, mask };
            let place = own.partition_point(|r| (&r.path, r.span) < (&right.path, right.span));
            own.insert(place, right);
        }
        out.extend(own);
        out.sort();
    }

    fn path_value(&self, access: PathAccess, path: &str, wide: &[Wide]) -> Value {
        let act = match (access_of(access), access) {
            (Some(access), _) => Act::File { access, path, directory: false, truncated: false },
            (None, PathAccess::Unix) => Act::Unix { path, listen: false },
            (None, _) => Act::Exec { file: path, argv: &[], script: None, memfd: false, deleted: false },
        };
        let wide: Vec<&Wide> = wide.iter().filter(|w| w.covers(path)).collect();
        self.value(&|rules| rules.decide(&act, self.given.today).verdict, &|s| Has {
            learned: self.learned.has(s.key, &act) || wide.iter().any(|w| !w.by_rule && w.bit & s.bit != 0),
            widened: wide.iter().any(|w| w.by_rule && w.bit & s.bit != 0),
        })
    }
}

/// What baselines know it as.
pub(super) fn dimension(access: PathAccess) -> Dimension {
    match access {
        PathAccess::Read => Dimension::Read,
        PathAccess::Write => Dimension::Write,
        PathAccess::Delete => Dimension::Delete,
        PathAccess::Change => Dimension::Change,
        PathAccess::Exec => Dimension::Exec,
        PathAccess::Unix => Dimension::Unix,
    }
}

/// The family that a right belongs to.
pub(super) fn family(access: PathAccess) -> Family {
    match access {
        PathAccess::Exec => Family::Exec,
        PathAccess::Unix => Family::Unix,
        _ => Family::File,
    }
}

/// The scopes that rights are held by.
pub(super) fn holds_rights(scope: &ScopeKey) -> bool {
    !matches!(scope, ScopeKey::Whole | ScopeKey::Session)
}
