//! When an effect line tells of an act.

use engine::output::Effect;

use crate::truth::Act;

/// The kernel's mark on a path whose name has gone.
fn bare(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// Do the fields that the actor knows agree?
pub(crate) fn same(act: &Act, effect: &Effect) -> bool {
    match (act, effect) {
        (Act::Fork { child }, Effect::Fork { child: c }) => child == c,
        (
            Act::Exec { path, argv, script, memfd, deleted },
            Effect::Exec { path: p, argv: a, script: s, memfd: m, deleted: d, .. },
        ) => {
            let named = !memfd && !deleted;
            let place = if named { path == p } else { memfd == m && d == deleted };
            place && argv == a && script == s
        }
        (Act::Exit { code, signal }, Effect::Exit { code: c, signal: s, .. }) => (code, signal) == (c, s),
        (
            Act::Open { path, read, write, create, truncate, directory, deleted },
            Effect::Open {
                path: p, read: r, write: w, create: c, truncate: t, directory: d, deleted: x, ..
            },
        ) => {
            path == bare(p)
                && (read, write, create, truncate) == (r, w, c, t)
                && (directory, deleted) == (d, x)
        }
        (Act::PathOp { op, path, to }, Effect::PathOp { op: o, path: p, to: t, .. }) => {
            op == o && path == bare(p) && to == t
        }
        (
            Act::Net { op, address, port, protocol, mapped },
            Effect::Net { op: o, address: a, port: p, protocol: r, mapped: m, .. },
        ) => (op, address, port) == (o, a, p) && protocol == r && mapped == m,
        (Act::Unix { op, path, error }, Effect::Unix { op: o, path: p, error: e, .. }) => {
            (op, path, error) == (o, p, e)
        }
        (
            Act::DnsQuery { name, record, resolver, port },
            Effect::DnsQuery { name: n, record: r, resolver: s, port: p },
        ) => (name, record, resolver, port) == (n, r, s, p),
        (
            Act::DnsAnswer { name, addresses, resolver },
            Effect::DnsAnswer { name: n, addresses: a, resolver: r, .. },
        ) => (name, addresses, resolver) == (n, a, r),
        (Act::TlsHello { sni, address, port }, Effect::TlsHello { sni: s, address: a, port: p }) => {
            (sni, address, port) == (s, a, p)
        }
        (Act::Syscall { abi, nr }, Effect::Syscall { abi: a, nr: n }) => (abi, nr) == (a, n),
        (Act::Special { name, abi, text }, Effect::Special { name: n, abi: a, text: t, .. }) => {
            name == n && abi == a && (text.is_none() || text == t)
        }
        (Act::Uring { opcode }, Effect::Uring { opcode: o, .. }) => opcode == o,
        _ => false,
    }
}
