//! What is only told, what is wider and what is narrower in the kernel than rules and baseline say. Each line
//! begins with which of the three it is.

use std::collections::BTreeMap;

use super::{
    Compiler, names, net,
    paths::{ACCESSES, Meant, dimension, family, holds_rights},
    place,
};
use crate::{
    baseline::{Dimension, Ratified, ScopeKey},
    policy::{
        Family, Span,
        permits::{DANGEROUS, protocol_number},
    },
    rules::{
        Rule,
        outline::{NameShape, Of, PathShape, Role, Said, Shape},
        value::Texts,
    },
};

const TOLD: &str = "told, not denied";
const WIDER: &str = "wider in the kernel";
const DENIED: &str = "denied in the kernel";

impl Compiler<'_> {
    pub(super) fn list_all(&mut self) {
        self.list_families();
        let lists = [Of::Connect, Of::Listen, Of::Dns].into_iter().chain(ACCESSES.map(Of::Path));
        for of in lists {
            self.list_patterns(of);
        }
        for selected in self.selections() {
            for rule in selected.rules() {
                self.list_rule(rule);
            }
        }
        let sets: Vec<Ratified<'_>> = self.learned.all().filter(|r| holds_rights(r.scope)).cloned().collect();
        for r in &sets {
            self.list_members(r);
        }
        if sets.iter().any(|r| matches!(r.dimension, Dimension::Syscall | Dimension::Uring)) {
            let why = format!("{TOLD}: the kernel denies objects, not calls");
            self.list("baseline", "system calls and io_uring operations", why);
        }
        if self.enforced(Family::Network) {
            let why = format!(
                "{WIDER}: address and name are looked up apart, and either permits; {DENIED}: either denies, \
                 whatever permits the other"
            );
            self.list("names", "destinations with a name", why);
        }
        if self.given.roots.len() > 1 {
            let why = format!("{WIDER}: servers of this identity that run share each other's directories");
            self.list("roots", "${root}, ${cwd}", why);
        }
    }

    fn enforced(&self, family: Family) -> bool {
        self.given.families.contains(&family)
    }

    fn because(&self, family: Family) -> String {
        let told = self.given.because.get(&family);
        told.map_or_else(
            || format!("{TOLD}: the family `{family}` is observed only"),
            |why| format!("{TOLD}: {why}"),
        )
    }

    fn list_families(&mut self) {
        let all =
            [Family::Network, Family::Listen, Family::Exec, Family::File, Family::Unix, Family::Dangerous];
        for family in all.into_iter().filter(|f| !self.enforced(*f)).collect::<Vec<_>>() {
            let why = self.because(family);
            self.list("families", family.to_string(), why);
        }
    }

    /// Patterns of one list.
    fn list_patterns(&mut self, of: Of) {
        let family = match of {
            Of::Connect | Of::Dns => Family::Network,
            Of::Listen => Family::Listen,
            Of::Path(access) => family(access),
        };
        let enforced = self.enforced(family);
        let because = self.because(family);
        let mut lines: Vec<(String, String, String)> = Vec::new();
        let mut denies: BTreeMap<String, u32> = BTreeMap::new();
        for selected in self.selections() {
            let mut here: BTreeMap<String, u32> = BTreeMap::new();
            selected.outline(of, self.given.who, self.given.today, &mut |said| {
                if !enforced {
                    *here.entry(place(&said)).or_default() += u32::from(said.role == Role::Deny);
                    return;
                }
                for why in pattern(&said) {
                    lines.push((place(&said), said.text.to_owned(), why));
                }
                if (of, said.role) == (Of::Dns, Role::Deny) {
                    let why = format!("{TOLD}: the name in a TLS handshake is whatever the client writes");
                    lines.push((place(&said), "TLS server names".into(), why));
                }
            });
            for (rule, n) in here {
                let known = denies.entry(rule).or_default();
                *known = (*known).max(n);
            }
        }
        for (rule, what, why) in lines {
            self.list(rule, what, why);
        }
        for (rule, n) in denies.into_iter().filter(|(_, n)| *n > 0) {
            let patterns = if n == 1 { "pattern" } else { "patterns" };
            self.list(rule, format!("{}: {n} {patterns}", word(of)), because.clone());
        }
    }

    /// Parts of a rule that are about no object.
    fn list_rule(&mut self, rule: &Rule) {
        let at = format!("{} ({})", rule.id, rule.place);
        let dangerous = self.enforced(Family::Dangerous);
        let all = |texts: &Texts| -> Vec<String> { texts.iter().map(|t| t.value.clone()).collect() };
        let deny = &rule.written.deny;
        let mut calls = all(&deny.syscalls);
        calls.retain(|name| !dangerous || !DANGEROUS.contains(&name.as_str()));
        let told = [
            ("syscalls", calls, "the kernel denies objects, not calls"),
            ("io_uring", all(&deny.io_uring), "the kernel denies objects, not calls"),
            ("unix_listen", all(&deny.unix_listen), "sockets that are made are files to the kernel"),
        ];
        for (list, names, why) in told.into_iter().filter(|(_, names, _)| !names.is_empty()) {
            self.list(&at, format!("{list}: {}", names.join(", ")), format!("{TOLD}: {why}"));
        }
        if !rule.limits.is_empty() {
            self.list(&at, "limits", format!("{TOLD}: what a call uses is known when it ends"));
        }
    }

    /// Members that no right says.
    fn list_members(&mut self, r: &Ratified<'_>) {
        let Some(family) = family_of(r.dimension).filter(|f| self.enforced(*f)) else { return };
        if r.scope != &ScopeKey::Whole && r.later > 0 {
            let why = format!("{DENIED}: learned after a person ratified the baseline; ratify it anew");
            self.list(r.scope, format!("{}: {} more", noun(r.dimension), r.later), why);
        }
        if !r.tested && family != Family::File {
            let why = format!(
                "{DENIED}: all that was not seen; how often something new is normal is not known yet"
            );
            self.list(r.scope, noun(r.dimension), why);
        }
        if r.dimension == Dimension::Exec {
            self.list(r.scope, "programs", format!("{WIDER}: the kernel does not look at arguments"));
        }
        for name in &r.names {
            let what = format!("{} {name}", noun(r.dimension));
            match r.dimension {
                Dimension::Connect | Dimension::Dns => {
                    let host = if r.dimension == Dimension::Dns {
                        Some(*name)
                    } else {
                        net::parts(name).map(|p| p.0)
                    };
                    let protocol =
                        net::parts(name).filter(|_| r.dimension == Dimension::Connect).map(|p| p.2);
                    if let Some(why) = member_name(host, protocol) {
                        self.list(r.scope, what, why);
                    }
                }
                Dimension::Listen => {
                    if net::parts(name).is_none_or(|p| protocol_number(p.2).is_none()) {
                        self.list(r.scope, what, format!("{DENIED}: its protocol has no number"));
                    }
                }
                _ => self.list_path(r, name, what),
            }
        }
    }

    fn list_path(&mut self, r: &Ratified<'_>, name: &str, what: String) {
        let why = match self.meant(r, name) {
            Meant::Wider(cells) => {
                format!("{WIDER}: {}", spans(cells.iter().map(|(path, span)| (path, *span))))
            }
            Meant::Narrower(cells) => format!(
                "{DENIED}: elsewhere than in {}",
                spans(cells.iter().map(|(path, span)| (path, *span)))
            ),
            Meant::Nothing(why) => why.to_owned(),
            Meant::Unnamed => return,
            Meant::Cells(_) if r.level == 2 && name.starts_with('$') && name.ends_with("}/**") => {
                format!("{WIDER}: with what is hidden in it, which the baseline tells apart")
            }
            Meant::Cells(_) => return,
        };
        self.list(r.scope, what, why);
    }
}

fn spans<'a>(cells: impl Iterator<Item = (&'a String, Span)>) -> String {
    let all: Vec<String> = cells
        .map(|(path, span)| match span {
            Span::Exact => path.clone(),
            Span::Children => format!("{}/*", path.trim_end_matches('/')),
            Span::Subtree => format!("{}/**", path.trim_end_matches('/')),
        })
        .collect();
    if all.is_empty() { "no known place".into() } else { all.join(", ") }
}

/// What the kernel makes of a pattern, where that is not what it says.
fn pattern(said: &Said<'_>) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(why) = said.narrower {
        let nameless = matches!(&said.shape, Shape::Paths { paths, .. } if paths.is_empty());
        out.push(match said.role {
            Role::Deny => format!("{TOLD}: {why}"),
            Role::Allow if nameless => format!("{DENIED}: {why}"),
            Role::Allow => format!("{WIDER}: {why}"),
            Role::Lift => format!("{DENIED}: {why}"),
        });
    }
    let protocol = match &said.shape {
        Shape::Nets { protocol, .. } => protocol.as_deref(),
        Shape::Names { to, .. } => to.as_ref().and_then(|(_, protocol)| protocol.as_deref()),
        Shape::Paths { .. } => None,
    };
    if protocol.is_some_and(|p| protocol_number(p).is_none()) {
        let kind = if said.role == Role::Deny { TOLD } else { DENIED };
        out.push(format!("{kind}: its protocol has no number that the kernel compares"));
        return out;
    }
    match &said.shape {
        Shape::Nets { .. } => {}
        Shape::Names { names, .. } => out.extend(of_names(said, names)),
        Shape::Paths { paths, more } => {
            let inexact: Vec<&PathShape> = paths.iter().filter(|p| !p.exact).collect();
            if inexact.is_empty() {
                return out;
            }
            let shown = || spans(inexact.iter().map(|p| (&p.path, p.span)));
            out.push(match said.role {
                Role::Deny if more.is_empty() => format!("{TOLD}: no path says it"),
                Role::Deny => format!(
                    "{TOLD}: no path says it, but for {}",
                    spans(more.iter().map(|p| (&p.path, p.span)))
                ),
                Role::Allow => format!("{WIDER}: {}", shown()),
                Role::Lift => format!("{DENIED}: no path says what is excepted"),
            });
        }
    }
    out
}

fn of_names(said: &Said<'_>, names: &[NameShape]) -> Option<String> {
    let wide: Vec<String> = names.iter().filter(|n| !n.exact).map(|n| format!("*.{}", n.name)).collect();
    let shown = wide.join(", ");
    // Alternatives in braces that say nothing are gone.
    match said.role {
        Role::Deny if names.is_empty() || !wide.is_empty() => Some(format!("{TOLD}: no suffix says it")),
        Role::Allow if names.is_empty() => {
            Some(format!("{DENIED}: no suffix says it without saying far more"))
        }
        Role::Allow if !wide.is_empty() => Some(format!("{WIDER}: {shown}")),
        Role::Lift if names.is_empty() || !wide.is_empty() => {
            Some(format!("{DENIED}: no suffix says what is excepted"))
        }
        _ => None,
    }
}

fn member_name(host: Option<&str>, protocol: Option<&str>) -> Option<String> {
    if protocol.is_some_and(|p| protocol_number(p).is_none()) {
        return Some(format!("{DENIED}: its protocol has no number that the kernel compares"));
    }
    match names::general(host?) {
        None => Some(format!("{DENIED}: no suffix says it without saying far more")),
        Some(shape) if !shape.exact => Some(format!("{WIDER}: *.{}", shape.name)),
        Some(_) => None,
    }
}

fn word(of: Of) -> String {
    match of {
        Of::Connect => "network.connect".into(),
        Of::Listen => "network.listen".into(),
        Of::Dns => "network.dns".into(),
        Of::Path(access) => noun(dimension(access)).into(),
    }
}

fn family_of(dimension: Dimension) -> Option<Family> {
    Some(match dimension {
        Dimension::Connect | Dimension::Dns => Family::Network,
        Dimension::Listen => Family::Listen,
        Dimension::Exec => Family::Exec,
        Dimension::Unix => Family::Unix,
        Dimension::Read | Dimension::Write | Dimension::Delete | Dimension::Change => Family::File,
        Dimension::Syscall | Dimension::Special | Dimension::Uring => return None,
    })
}

fn noun(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Exec => "exec",
        Dimension::Read => "read",
        Dimension::Write => "write",
        Dimension::Delete => "delete",
        Dimension::Change => "change",
        Dimension::Connect => "connect",
        Dimension::Listen => "listen",
        Dimension::Dns => "dns",
        Dimension::Unix => "unix",
        Dimension::Syscall => "syscall",
        Dimension::Special => "special",
        Dimension::Uring => "io_uring",
    }
}
