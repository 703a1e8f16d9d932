//! Rights by name.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    Compiler, Has, Value,
    net::{Border, joined, parts, pieces, ports},
};
use crate::{
    act::Act,
    baseline::Dimension,
    policy::{
        NameRight,
        permits::{named, protocol_number},
        scope::NOBODY,
    },
    rules::{
        Verdict,
        outline::{NameShape, Of, Role, Shape},
    },
};

/// Any: rules are asked about the name alone, and baselines know a peer with a name by that.
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// A label that nobody has.
const LABEL: &str = "no-such-label";

/// Names that are all or some of those that a pattern or member means.
#[derive(Clone, Debug)]
struct Wide {
    shape: NameShape,
    /// Bit of the scope.
    bit: u64,
    by_rule: bool,
    /// `None`: asked for.
    to: Option<((u16, u16), Option<u8>)>,
}

/// A name in general terms as the narrowest suffix; `None` when nothing is left that says whose it is.
pub(super) fn general(name: &str) -> Option<NameShape> {
    let labels: Vec<&str> = name.split('.').collect();
    let Some(last) = labels.iter().rposition(|label| label.contains(['{', '…'])) else {
        return Some(NameShape { name: name.to_owned(), below: false, exact: true });
    };
    let suffix = labels.get(last + 1..)?;
    (suffix.len() > 1).then(|| NameShape { name: suffix.join("."), below: true, exact: false })
}

/// Whether a shape covers all that another does.
fn around(wide: &NameShape, narrow: &NameShape) -> bool {
    if !wide.below {
        return !narrow.below && wide.name == narrow.name;
    }
    let inside = || narrow.name.strip_suffix(wide.name.as_str()).is_some_and(|rest| rest.ends_with('.'));
    wide.name.is_empty() || inside() || narrow.below && wide.name == narrow.name
}

impl Compiler<'_> {
    pub(super) fn names(&mut self) -> Vec<NameRight> {
        let mut wide = Vec::new();
        let mut borders: Vec<Border<NameShape>> = Vec::new();
        let mut asked: Vec<NameShape> = Vec::new();
        for selected in self.selections() {
            for of in [Of::Connect, Of::Dns] {
                selected.outline(of, self.given.who, self.given.today, &mut |said| {
                    let Shape::Names { names, to } = said.shape else { return };
                    let to = match to {
                        Some((ports, protocol)) => match protocol.as_deref().map(protocol_number) {
                            Some(None) => return,
                            Some(Some(n)) => Some((ports, Some(n))),
                            None => Some((ports, None)),
                        },
                        None => None,
                    };
                    for shape in names {
                        if let (Role::Allow, false) = (said.role, shape.exact) {
                            let holders =
                                self.scopes.iter().filter(|s| std::sync::Arc::ptr_eq(&s.selected, &selected));
                            wide.extend(holders.map(|s| Wide {
                                shape: shape.clone(),
                                bit: s.bit,
                                by_rule: true,
                                to,
                            }));
                        }
                        match to {
                            Some((ports, protocol)) => borders.push(Border { of: shape, ports, protocol }),
                            None => asked.push(shape),
                        }
                    }
                });
            }
        }
        self.learned_names(&mut borders, &mut asked, &mut wide);
        let mut cells: Vec<NameShape> = borders.iter().map(|b| &b.of).chain(&asked).cloned().collect();
        cells.iter_mut().for_each(|c| c.exact = true);
        cells.sort_by(|a, b| (!a.below, a.name.len(), &a.name).cmp(&(!b.below, b.name.len(), &b.name)));
        cells.dedup();
        let mut out = Vec::new();
        for cell in &cells {
            self.cut_name(cell, &borders, &wide, &mut out);
        }
        out
    }

    fn learned_names(
        &mut self,
        borders: &mut Vec<Border<NameShape>>,
        asked: &mut Vec<NameShape>,
        wide: &mut Vec<Wide>,
    ) {
        let bit = |key| self.scopes.iter().find(|s| s.key == key).map(|s| s.bit);
        for r in self.learned.of(Dimension::Connect) {
            for (host, port, protocol) in r.names.iter().filter_map(|name| parts(name)) {
                let (Some(protocol), false) = (protocol_number(protocol), host.parse::<IpAddr>().is_ok())
                else {
                    continue;
                };
                let Some(shape) = general(host) else { continue };
                for ports in ports(port).unwrap_or_default() {
                    let to = Some((ports, Some(protocol)));
                    if let (false, Some(bit)) = (shape.exact, bit(r.scope)) {
                        wide.push(Wide { shape: shape.clone(), bit, by_rule: false, to });
                    }
                    borders.push(Border { of: shape.clone(), ports, protocol: Some(protocol) });
                }
            }
        }
        for r in self.learned.of(Dimension::Dns) {
            for shape in r.names.iter().filter_map(|name| general(name)) {
                if let (false, Some(bit)) = (shape.exact, bit(r.scope)) {
                    wide.push(Wide { shape: shape.clone(), bit, by_rule: false, to: None });
                }
                asked.push(shape);
            }
        }
    }

    fn cut_name(
        &self,
        cell: &NameShape,
        borders: &[Border<NameShape>],
        wide: &[Wide],
        out: &mut Vec<NameRight>,
    ) {
        let name = match (cell.below, cell.name.as_str()) {
            (false, name) => name.to_owned(),
            (true, "") => format!("{LABEL}.{LABEL}"),
            (true, suffix) => format!("{LABEL}.{suffix}"),
        };
        let around_it: Vec<&Border<NameShape>> = borders.iter().filter(|b| around(&b.of, cell)).collect();
        let wide: Vec<&Wide> = wide.iter().filter(|w| around(&w.shape, cell)).collect();
        // Who may connect to it may ask for it.
        let mut connects = 0;
        let mut first = true;
        for (ports, protocol) in pieces(&around_it) {
            let v = self.peer_by_name(&name, ports.from, &protocol, &wide);
            connects |= v.mask & !NOBODY;
            let before = named(out, &name, Some((ports.from, &protocol))).unwrap_or(NOBODY);
            let same = out.iter().any(|r| {
                (r.name.as_str(), r.below) == (cell.name.as_str(), cell.below)
                    && r.ports.is_some_and(|p| p.protocol == 0 && p.from <= ports.from && ports.to <= p.to)
            });
            if v.mask == before && (v.mask == NOBODY || ports.protocol != 0 && same) {
                first = true;
                continue;
            }
            let last = out.last_mut().filter(|r| !first && r.mask == v.mask).and_then(|r| r.ports.as_mut());
            if !joined(last, ports) {
                let (name, below) = (cell.name.clone(), cell.below);
                out.push(NameRight { name, below, ports: Some(ports), mask: v.mask });
            }
            first = false;
        }
        let act = Act::Dns { name: &name, record: "A" };
        let v = self.value(&|rules| rules.decide(&act, self.given.today).verdict, &|s| Has {
            learned: self.learned.has(s.key, &act)
                || wide.iter().any(|w| w.to.is_none() && !w.by_rule && w.bit & s.bit != 0),
            widened: connects & s.bit != 0
                || wide.iter().any(|w| w.to.is_none() && w.by_rule && w.bit & s.bit != 0),
        });
        // `learned: only` and its like speak of what is asked for, too; who may connect must.
        let mask = if v.mask == 0 || connects == 0 { v.mask } else { (v.mask & !NOBODY) | connects };
        if mask != named(out, &name, None).unwrap_or(NOBODY) {
            out.push(NameRight { name: cell.name.clone(), below: cell.below, ports: None, mask });
        }
    }

    fn peer_by_name(&self, name: &str, port: u16, protocol: &str, wide: &[&Wide]) -> Value {
        let act = Act::Connect { address: ANYWHERE, name: Some(name), port, protocol };
        let number = protocol_number(protocol);
        let covers = |w: &Wide, bit: u64| {
            w.bit & bit != 0
                && w.to.is_some_and(|((from, to), own)| {
                    from <= port && port <= to && (own.is_none() || own == number)
                })
        };
        let verdict = |rules: &crate::rules::Selected| -> Verdict {
            rules.decide_by_name(&act, self.given.today).verdict
        };
        self.value(&verdict, &|s| Has {
            learned: self.learned.has(s.key, &act) || wide.iter().any(|w| !w.by_rule && covers(w, s.bit)),
            widened: wide.iter().any(|w| w.by_rule && covers(w, s.bit)),
        })
    }
}
