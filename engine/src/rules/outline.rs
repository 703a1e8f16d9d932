//! What patterns say, as far as prefixes can say it: for kernel policy. Whether an object is permitted is still
//! decided by [`Selected::decide`]; this only tells at which objects the answer may change.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    glob::{PathGlob, Segment},
    names::{NameGlob, Token},
    net::{Destination, Host},
    select::{Selected, Who},
    set::{Origin, Rule},
    table::{Part, Programs, Slot},
    units::Day,
};
use crate::{
    act::Access,
    policy::{PathAccess, Span},
};

/// Bits of a range's network address that count.
pub(crate) type Net = (IpAddr, u8);

/// First and last port, and the protocol.
pub(crate) type Door = ((u16, u16), Option<Box<str>>);

/// Which list of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Connect,
    Listen,
    Dns,
    Path(PathAccess),
}

/// What becomes of what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Allow,
    Deny,
    /// A pack takes back its own deny.
    Lift,
}

/// A name, or all names below one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameShape {
    pub(crate) name: String,
    pub(crate) below: bool,
    /// It says the same as the pattern; else it covers more.
    pub(crate) exact: bool,
}

/// A path, or paths around one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PathShape {
    pub(crate) path: String,
    pub(crate) span: Span,
    /// See [`NameShape::exact`].
    pub(crate) exact: bool,
}

/// What a pattern is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Ranges at whose borders the answer may change.
    Nets { nets: Vec<Net>, ports: (u16, u16), protocol: Option<Box<str>> },
    /// Names; `None` for ports: they are asked for.
    Names { names: Vec<NameShape>, to: Option<Door> },
    /// Paths. The first are the pattern's own, `more` are those of its objects that are known beforehand.
    Paths { paths: Vec<PathShape>, more: Vec<PathShape> },
}

/// A pattern of a rule.
#[derive(Clone, Debug)]
pub(crate) struct Said<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) text: &'a str,
    pub(crate) role: Role,
    pub(crate) shape: Shape,
    /// It has conditions that no kernel look-up can see.
    pub(crate) narrower: Option<&'static str>,
}

impl Selected {
    /// What its rules say in one of their lists. Expired exceptions say nothing.
    pub(crate) fn outline<'a>(&'a self, of: Of, who: &Who, today: Day, f: &mut impl FnMut(Said<'a>)) {
        let slot = slot(of);
        for &i in self.slots.get(slot as usize).into_iter().flatten() {
            let Some(rule) = self.rule(i) else { continue };
            let role = |part: Part| role(rule, part, today);
            match of {
                Of::Connect | Of::Listen => {
                    for e in rule.table.peers(slot) {
                        let Some(role) = role(e.part) else { continue };
                        let shape = peers(&e.pattern, role == Role::Deny);
                        f(Said { rule, text: &e.text, role, shape, narrower: None });
                    }
                }
                Of::Dns => {
                    for e in &rule.table.dns {
                        let Some(role) = role(e.part) else { continue };
                        let shape = Shape::Names { names: names(&e.pattern), to: None };
                        f(Said { rule, text: &e.text, role, shape, narrower: None });
                    }
                }
                Of::Path(PathAccess::Exec) => {
                    for (n, programs) in rule.table.exec.iter().enumerate() {
                        let Some(role) = role(programs.part) else { continue };
                        for (entry, e) in programs.paths.iter().enumerate() {
                            let globs = e.pattern.globs.iter().chain(self.filled(slot, i, n, entry));
                            let shape = paths(globs, who, role);
                            let narrower = condition(programs);
                            f(Said { rule, text: &e.text, role, shape, narrower });
                        }
                        if let (true, Some(why)) = (programs.paths.is_empty(), condition(programs)) {
                            let shape = Shape::Paths { paths: Vec::new(), more: Vec::new() };
                            let text = if programs.args.is_empty() {
                                "exec.memfd or exec.deleted"
                            } else {
                                "exec.args"
                            };
                            f(Said { rule, text, role, shape, narrower: Some(why) });
                        }
                    }
                }
                Of::Path(_) => {
                    for (entry, e) in rule.table.paths(slot).iter().enumerate() {
                        let Some(role) = role(e.part) else { continue };
                        let globs = e.pattern.globs.iter().chain(self.filled(slot, i, 0, entry));
                        let mut shape = paths(globs, who, role);
                        if let (Some(name), Shape::Paths { paths, .. }) = (&e.pattern.name, &mut shape) {
                            paths.extend(abstract_names(name));
                        }
                        f(Said { rule, text: &e.text, role, shape, narrower: None });
                    }
                }
            }
        }
    }

    /// Globs with this server's own directories filled in.
    fn filled(&self, slot: Slot, rule: u32, section: usize, entry: usize) -> impl Iterator<Item = &PathGlob> {
        let all = self.extra.get(slot as usize).into_iter().flatten();
        all.filter(move |e| e.rule == rule && e.section as usize == section && e.entry as usize == entry)
            .map(|e| &e.glob)
    }
}

fn slot(of: Of) -> Slot {
    match of {
        Of::Connect => Slot::Connect,
        Of::Listen => Slot::Listen,
        Of::Dns => Slot::Dns,
        Of::Path(PathAccess::Exec) => Slot::Exec,
        Of::Path(PathAccess::Unix) => Slot::Unix,
        Of::Path(PathAccess::Read) => Slot::Read,
        Of::Path(PathAccess::Write) => Slot::Write,
        Of::Path(PathAccess::Delete) => Slot::Delete,
        Of::Path(PathAccess::Change) => Slot::Change,
    }
}

/// In terms of effects.
pub(crate) fn access_of(access: PathAccess) -> Option<Access> {
    match access {
        PathAccess::Read => Some(Access::Read),
        PathAccess::Write => Some(Access::Write),
        PathAccess::Delete => Some(Access::Delete),
        PathAccess::Change => Some(Access::Change),
        PathAccess::Exec | PathAccess::Unix => None,
    }
}

fn role(rule: &Rule, part: Part, today: Day) -> Option<Role> {
    Some(match part {
        Part::Allow => Role::Allow,
        Part::Deny => Role::Deny,
        Part::Exception(e) => {
            rule.exceptions.get(usize::from(e)).filter(|e| e.holds(today))?;
            if rule.origin == Origin::Person { Role::Allow } else { Role::Lift }
        }
    })
}

fn condition(programs: &Programs) -> Option<&'static str> {
    if !programs.args.is_empty() {
        Some("the kernel does not look at arguments")
    } else if programs.memfd || programs.deleted {
        Some("a program without a name has no path that could be permitted or denied")
    } else {
        None
    }
}

fn peers(pattern: &Destination, deny: bool) -> Shape {
    let (ports, protocol) = (pattern.ports, pattern.protocol.clone());
    let v4 = |a, b, c, d, bits| (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits);
    let v6 = |first, bits| (IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), bits);
    let all = [v4(0, 0, 0, 0, 0), v6(0, 0)];
    let own = [
        v4(127, 0, 0, 0, 8),
        v4(0, 0, 0, 0, 32),
        (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
    ];
    let private = [
        v4(10, 0, 0, 0, 8),
        v4(172, 16, 0, 0, 12),
        v4(192, 168, 0, 0, 16),
        v4(169, 254, 0, 0, 16),
        v4(100, 64, 0, 0, 10),
        v6(0xfc00, 7),
        v6(0xfe80, 10),
    ];
    let mut nets: Vec<Net> = match &pattern.host {
        Host::Name(glob) => return Shape::Names { names: names(glob), to: Some((ports, protocol)) },
        Host::Any => all.to_vec(),
        Host::Public => all.into_iter().chain(own).chain(private).collect(),
        Host::Private => private.to_vec(),
        Host::Loopback => own.to_vec(),
        Host::Range(range) => vec![(range.net.to_canonical(), canonical_bits(range.net, range.bits))],
    };
    if deny {
        let behind: Vec<Net> = nets.iter().flat_map(|net| behind_gateways(*net)).collect();
        nets.extend(behind);
    }
    Shape::Nets { nets, ports, protocol }
}

/// Peers are compared in their canonical form; so is the range.
fn canonical_bits(net: IpAddr, bits: u32) -> u8 {
    let mapped = net.is_ipv6() && net.to_canonical().is_ipv4();
    u8::try_from(if mapped { bits.saturating_sub(96) } else { bits }).unwrap_or(u8::MAX)
}

/// Addresses that gateways make of those of an IPv4 range (NAT64, 6to4).
fn behind_gateways((net, bits): Net) -> Vec<Net> {
    let IpAddr::V4(v4) = net else { return Vec::new() };
    let n = u128::from(v4.to_bits());
    vec![
        (IpAddr::V6(Ipv6Addr::from_bits(0x64_ff9b << 96 | n)), 96 + bits),
        (IpAddr::V6(Ipv6Addr::from_bits(0x2002 << 112 | n << 80)), 16 + bits),
    ]
}

fn names(glob: &NameGlob) -> Vec<NameShape> {
    glob.0.iter().filter_map(|tokens| name(tokens)).collect()
}

/// The narrowest suffix that covers a glob; `None` when that says nothing.
fn name(tokens: &[Token]) -> Option<NameShape> {
    let text = |tokens: &[Token]| {
        let bytes = tokens.iter().map(|t| if let Token::Byte(b) = t { Some(*b) } else { None });
        String::from_utf8(bytes.collect::<Option<Vec<u8>>>()?).ok()
    };
    if let Some(name) = text(tokens) {
        return Some(NameShape { name, below: false, exact: true });
    }
    if tokens == [Token::Star] {
        return Some(NameShape { name: String::new(), below: true, exact: true });
    }
    let after = tokens.iter().rposition(|t| !matches!(t, Token::Byte(_)))? + 1;
    let tail = text(tokens.get(after..)?)?;
    let (head, suffix) = tail.split_once('.')?;
    let exact = head.is_empty() && tokens.get(..after) == Some(&[Token::Star]);
    // What owns the name must be written out, or the suffix is as good as any.
    let owned = exact || suffix.split('.').filter(|label| !label.is_empty()).count() > 1;
    owned.then(|| NameShape { name: suffix.to_owned(), below: true, exact })
}

fn abstract_names(glob: &NameGlob) -> Vec<PathShape> {
    let plain = names(glob).into_iter().filter(|n| !n.below);
    plain.map(|n| PathShape { path: n.name, span: Span::Exact, exact: true }).collect()
}

fn paths<'a>(globs: impl Iterator<Item = &'a PathGlob>, who: &Who, role: Role) -> Shape {
    let (mut paths, mut more) = (Vec::new(), Vec::new());
    for glob in globs {
        if let Some(shape) = path(&glob.segments) {
            paths.push(shape);
        } else {
            // It covers everything; whatever is made of it is listed.
            paths.push(PathShape { path: "/".into(), span: Span::Subtree, exact: glob.is_everything() });
        }
        if role == Role::Deny {
            more.extend(known(&glob.segments, who));
        }
    }
    Shape::Paths { paths, more }
}

/// Paths that a pattern for many places has in this server's own directories.
fn known(segments: &[Segment], who: &Who) -> Vec<PathShape> {
    let literals = |path: &str| -> Vec<Segment> {
        path.split('/').filter(|name| !name.is_empty()).map(|name| Segment::Literal(name.into())).collect()
    };
    let joined = |base: &str, rest: &[Segment]| {
        let all: Vec<Segment> = literals(base).into_iter().chain(rest.iter().cloned()).collect();
        path(&all).filter(|shape| shape.exact)
    };
    match segments {
        [Segment::Literal(home), Segment::Any, rest @ ..] if &**home == "home" => {
            let own = who.home.as_deref().filter(|h| h.starts_with("/home/") && h.matches('/').count() == 2);
            own.and_then(|h| joined(h, rest)).into_iter().collect()
        }
        [Segment::Deep, rest @ ..] if !rest.is_empty() => {
            let bases = who.home.iter().chain(&who.roots);
            bases.filter_map(|base| joined(base, rest)).collect()
        }
        _ => Vec::new(),
    }
}

/// The narrowest span that covers a glob; `None` when that is everything.
fn path(segments: &[Segment]) -> Option<PathShape> {
    let mut path = String::new();
    let mut rest = segments;
    while let [Segment::Literal(name), after @ ..] = rest {
        path.push('/');
        path.push_str(name);
        rest = after;
    }
    let (span, exact) = match rest {
        [] => (Span::Exact, true),
        [Segment::Deep] => (Span::Subtree, true),
        [Segment::Any] => (Span::Children, true),
        [Segment::Glob(_)] => (Span::Children, false),
        _ => (Span::Subtree, false),
    };
    if path.is_empty() {
        path.push('/');
        if matches!(rest, [Segment::Deep, ..]) || span == Span::Subtree {
            return None;
        }
    }
    Some(PathShape { path, span, exact })
}
