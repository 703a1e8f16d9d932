//! Sentences that are true to their basis.

use crate::{
    baseline::{Baseline, Dimension, ScopeKey, numbers::Metric},
    finding::Kind,
    output::{Basis, Certainty, Effect, NetOp, Scope, ScopeKind},
};

/// "During call 7 of tool `git_log`", as far as that is known.
pub(super) fn when(scope: &Scope) -> String {
    let tool = scope.tool.as_deref().unwrap_or_default();
    match (scope.kind, scope.certainty, &scope.call) {
        (ScopeKind::Startup, ..) => "While it started".into(),
        (ScopeKind::Ambient, ..) => "While no call was running".into(),
        (ScopeKind::Call, Certainty::Certain, Some(call)) if scope.basis == Basis::Lineage => {
            format!("In a process that call {} of tool `{tool}` started", call.number)
        }
        (ScopeKind::Call, Certainty::Certain, Some(call)) => {
            format!("During call {} of tool `{tool}`", call.number)
        }
        (ScopeKind::Call, ..) => format!("During one of {} calls of tool `{tool}`", scope.candidates.len()),
        (ScopeKind::UnknownStart, ..) => "While calls may have run that nobody saw begin".into(),
        (ScopeKind::Ambiguous, ..) => {
            let mut names: Vec<String> = Vec::new();
            for c in &scope.candidates {
                let name = match (&c.tool, c.kind) {
                    (Some(tool), _) => format!("`{tool}`"),
                    (None, ScopeKind::Startup) => "the startup".into(),
                    (None, ScopeKind::UnknownStart) => "one that nobody saw begin".into(),
                    _ => "none".into(),
                };
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            let more = names.len().saturating_sub(6);
            names.truncate(6);
            let more = if more > 0 { format!(" or {more} more") } else { String::new() };
            format!("While calls were running (it is open whose act it was: {}{more})", names.join(", "))
        }
    }
}

/// What an effect did, as a verb and its object.
pub(super) fn did(effect: &Effect) -> String {
    match effect {
        Effect::Exec { path, script, argv, .. } => {
            let line: String = argv.join(" ").chars().take(120).collect();
            match script {
                Some(script) => format!("executed the script `{script}` (`{line}`)"),
                None => format!("executed `{path}` (`{line}`)"),
            }
        }
        Effect::Open { path, write, create, .. } if *write || *create => {
            format!("opened `{path}` for writing")
        }
        Effect::Open { path, directory: true, .. } => format!("listed `{path}`"),
        Effect::Open { path, .. } => format!("read `{path}`"),
        Effect::PathOp { op, path, to, .. } => {
            let verb = format!("{op:?}").to_lowercase();
            match to {
                Some(to) => format!("did {verb} from `{path}` to `{to}`"),
                None => format!("did {verb} on `{path}`"),
            }
        }
        Effect::Net { op, address, port, protocol, name, .. } => {
            let peer = match name {
                Some(name) => format!("{name} ({address})"),
                None => address.clone(),
            };
            match op {
                NetOp::Connect => format!("connected to {peer} port {port}/{protocol}"),
                NetOp::Sendmsg => format!("sent a datagram to {peer} port {port}/{protocol}"),
                NetOp::Bind | NetOp::Listen => format!("opened port {port}/{protocol} on {address}"),
                NetOp::Accept => format!("accepted a connection from {peer} port {port}/{protocol}"),
            }
        }
        Effect::Unix { op: NetOp::Bind | NetOp::Listen, path, .. } => format!("made the socket `{path}`"),
        Effect::Unix { path, .. } => format!("connected to the socket `{path}`"),
        Effect::DnsQuery { name, record, .. } => format!("asked for the {record} record of {name}"),
        Effect::TlsHello { sni, address, port } => {
            let name = sni.as_deref().unwrap_or("no name");
            format!("began TLS with {address} port {port} for {name}")
        }
        Effect::Syscall { abi, nr } => {
            format!("used system call {nr} of the {} table", format!("{abi:?}").to_lowercase())
        }
        Effect::Special { name, .. } => format!("used the system call {name}"),
        Effect::Uring { name, .. } => format!("used io_uring for {name}"),
        Effect::Denied { op, object, dry_run: false, .. } => format!("was denied {op} of {object}"),
        Effect::Denied { op, object, .. } => format!("would have been denied {op} of {object}"),
        Effect::Fork { child } => format!("started process {child}"),
        Effect::Exit { .. } => "ended a process".into(),
        Effect::DnsAnswer { name, .. } => format!("got an answer for {name}"),
        Effect::Flow { address, port, bytes_out, .. } => {
            format!("sent {bytes_out} bytes to {address} port {port}")
        }
    }
}

/// Kind of a deviation in a dimension.
pub(super) fn kind(dimension: Dimension, name: &str, scopes: &[ScopeKey]) -> Kind {
    match dimension {
        Dimension::Special => match name {
            _ if name.starts_with("env:") => Kind::Injection,
            "ptrace" | "process_vm_readv" | "process_vm_writev" | "pidfd_getfd" => Kind::Injection,
            "unshare" | "setns" | "mount" | "umount2" | "pivot_root" | "chroot" | "open_tree"
            | "move_mount" | "fsopen" | "fsmount" => Kind::Namespace,
            "setuid" | "setgid" | "setreuid" | "setregid" | "setresuid" | "setresgid" | "setfsuid"
            | "setfsgid" | "setgroups" | "capset" | "bpf" => Kind::Privilege,
            _ => Kind::UnusualSyscall,
        },
        Dimension::Exec => Kind::NewExec,
        Dimension::Read => Kind::NewFileArea,
        Dimension::Write | Dimension::Delete | Dimension::Change => Kind::NewWrite,
        Dimension::Connect if scopes == [ScopeKey::Ambient] => Kind::AmbientNetwork,
        Dimension::Connect => Kind::NewDestination,
        Dimension::Listen => Kind::NewListener,
        Dimension::Dns => Kind::NewName,
        Dimension::Unix => Kind::NewUnixPeer,
        Dimension::Syscall => Kind::UnusualSyscall,
        Dimension::Uring => Kind::IoUring,
    }
}

fn date(utc: i64) -> String {
    let t = jiff::Timestamp::from_nanosecond(i128::from(utc)).unwrap_or_default();
    t.to_string().chars().take(10).collect()
}

/// "In 412 calls since 2026-05-03 it never did": what was normal.
pub(super) fn normal(baseline: &Baseline, scope: &ScopeKey, dimension: Dimension) -> String {
    let Some(s) = baseline.scope(scope) else {
        return format!("no {scope} was seen before");
    };
    let what = match scope {
        ScopeKey::Startup => "startups",
        ScopeKey::Ambient => "minutes without a call",
        ScopeKey::Tool(_) | ScopeKey::Session => "calls",
        ScopeKey::Whole => "startups, calls and minutes between",
    };
    let members = s.coarse(dimension);
    let shown: Vec<&str> = members.iter().take(5).map(|m| m.as_ref()).collect();
    let more = members.len().saturating_sub(5);
    let noun = match dimension {
        Dimension::Exec => "programs",
        Dimension::Read => "read",
        Dimension::Write => "written",
        Dimension::Delete => "deleted",
        Dimension::Change => "changed",
        Dimension::Connect => "destinations",
        Dimension::Listen => "listeners",
        Dimension::Dns => "names",
        Dimension::Unix => "sockets",
        Dimension::Syscall | Dimension::Special => "system calls",
        Dimension::Uring => "io_uring operations",
    };
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!(
        "{} {what} in {} sessions since {}, {noun} {{{}{more}}}",
        s.calls,
        s.sessions,
        date(baseline.since_utc),
        shown.join(", ")
    )
}

/// A number in units that people read.
pub(super) fn amount(metric: Metric, value: u64) -> String {
    match metric {
        Metric::Creep => format!("{:.1} bits", value as f64 / 1000.0 / std::f64::consts::LN_2),
        Metric::Duration | Metric::Cpu => format!("{:.1} s", value as f64 / 1e9),
        Metric::Memory | Metric::BytesOut | Metric::BytesIn | Metric::ReplyBytes | Metric::MeanBytesOut => {
            if value >= 10 << 20 {
                format!("{} MiB", value >> 20)
            } else if value >= 10 << 10 {
                format!("{} KiB", value >> 10)
            } else {
                format!("{value} bytes")
            }
        }
        _ => value.to_string(),
    }
}
