//! Events to effects: what is told, in words that people and machines read.

use abi::{denied_flag, denied_op, env_flag, exec_flag, flag, net_op, packet, path_op, paths::access};

use crate::{
    output::{Effect, NetOp, PathOpKind, Source, SyscallAbi},
    policy::Family,
    record::{Event, Record},
    text,
};

fn net(op: u32) -> NetOp {
    match op {
        net_op::CONNECT => NetOp::Connect,
        net_op::SENDMSG => NetOp::Sendmsg,
        net_op::BIND => NetOp::Bind,
        net_op::LISTEN => NetOp::Listen,
        _ => NetOp::Accept,
    }
}

fn path_kind(op: u32) -> PathOpKind {
    match op {
        path_op::UNLINK => PathOpKind::Unlink,
        path_op::RMDIR => PathOpKind::Rmdir,
        path_op::RENAME => PathOpKind::Rename,
        path_op::MKDIR => PathOpKind::Mkdir,
        path_op::SYMLINK => PathOpKind::Symlink,
        path_op::LINK => PathOpKind::Link,
        path_op::CHMOD => PathOpKind::Chmod,
        path_op::CHOWN => PathOpKind::Chown,
        path_op::TRUNCATE => PathOpKind::Truncate,
        _ => PathOpKind::Mknod,
    }
}

fn table(compat: bool) -> SyscallAbi {
    if compat { SyscallAbi::I386 } else { SyscallAbi::X86_64 }
}

/// The effect of an event; `None` for those that are not effects (channel bytes).
pub(crate) fn of(record: &Record<'_>) -> Option<Effect> {
    const O_ACCMODE: u32 = 3;
    const O_CREAT: u32 = 0o100;
    const O_TRUNC: u32 = 0o1000;
    const S_IFMT: u32 = 0o170_000;
    const S_IFDIR: u32 = 0o040_000;
    const S_IFIFO: u32 = 0o010_000;
    let cut = record.header.flags & flag::TRUNCATED != 0;
    let compat = record.header.flags & flag::COMPAT != 0;
    Some(match record.event {
        Event::Fork(f) => Effect::Fork { child: f.child },
        Event::Exec { exec, path, cwd, script, argv } => Effect::Exec {
            path: text::kernel_path(path, exec.flags & exec_flag::PATH_CUT != 0),
            truncated: exec.flags & exec_flag::PATH_CUT != 0,
            source: Source::Kernel,
            argv: text::argv(argv),
            argv_truncated: exec.flags & exec_flag::ARGV_CUT != 0,
            cwd: text::kernel_path(cwd, exec.flags & exec_flag::CWD_CUT != 0),
            script: (exec.flags & exec_flag::SHEBANG != 0).then(|| text::lossy(script)),
            memfd: exec.flags & exec_flag::MEMFD != 0,
            deleted: exec.flags & exec_flag::UNLINKED != 0,
            env: env_flag::NAMES
                .iter()
                .enumerate()
                .filter(|(bit, _)| exec.env_flags >> bit & 1 != 0)
                .map(|(_, name)| (*name).to_owned())
                .collect(),
            env_truncated: exec.env_flags & env_flag::CUT != 0,
        },
        Event::Exit(e) => {
            let signal = e.status & 0x7f;
            Effect::Exit {
                code: (signal == 0).then_some(e.status >> 8 & 0xff),
                signal: (signal != 0).then_some(signal),
                cpu_ns: e.cpu_ns,
                peak_rss: e.max_rss,
            }
        }
        Event::Open { open, path } => {
            let access = open.flags & O_ACCMODE;
            Effect::Open {
                path: if path.is_empty() && open.mode & S_IFMT == S_IFIFO {
                    // Unnamed: as /proc/PID/fd shows it.
                    format!("pipe:[{}]", open.ino)
                } else {
                    text::kernel_path(path, cut)
                },
                truncated: cut,
                source: Source::FdAtExit,
                read: access != 1,
                write: access == 1 || access == 2,
                create: open.flags & O_CREAT != 0,
                truncate: open.flags & O_TRUNC != 0,
                directory: open.mode & S_IFMT == S_IFDIR,
                deleted: open.nlink == 0,
            }
        }
        Event::PathOp { op, base, name, base2, name2 } => {
            let kind = path_kind(op.op);
            let has_arg = matches!(
                kind,
                PathOpKind::Chmod
                    | PathOpKind::Chown
                    | PathOpKind::Mkdir
                    | PathOpKind::Mknod
                    | PathOpKind::Truncate
            );
            let wide = kind == PathOpKind::Truncate;
            let arg = u64::from(op.arg[0]) | if wide { u64::from(op.arg[1]) << 32 } else { 0 };
            let second = matches!(kind, PathOpKind::Rename | PathOpKind::Symlink | PathOpKind::Link);
            Effect::PathOp {
                op: kind,
                // A link's target is stored as given: it is not relative to anything yet.
                path: if kind == PathOpKind::Symlink {
                    text::lossy(name)
                } else {
                    text::given_path(base, name, cut)
                },
                to: second.then(|| text::given_path(base2, name2, cut)),
                arg: has_arg.then_some(arg),
                group: (kind == PathOpKind::Chown).then_some(op.arg[1]),
                truncated: cut,
                source: if name.is_empty() { Source::FdAtExit } else { Source::Argument },
            }
        }
        Event::Net(n) => {
            let (address, mapped) = text::address(n.family, &n.addr);
            let seen_at_exit = matches!(n.op, net_op::LISTEN | net_op::ACCEPT);
            Effect::Net {
                op: net(n.op),
                address: address.to_string(),
                port: n.port as u16,
                protocol: text::protocol(n.protocol),
                mapped,
                name: None,
                source: if seen_at_exit { Source::FdAtExit } else { Source::Kernel },
            }
        }
        Event::Unix { unix, name } => Effect::Unix {
            op: net(unix.op),
            path: text::unix_name(name),
            error: unix.result.unsigned_abs(),
            source: if unix.from_kernel != 0 { Source::Kernel } else { Source::Argument },
        },
        Event::Packet { packet: p, bytes } => return packet_effect(&p, bytes),
        Event::Flow(f) => Effect::Flow {
            address: text::address(f.family, &f.addr).0.to_string(),
            port: f.port as u16,
            protocol: text::protocol(f.protocol),
            bytes_out: f.bytes_out,
            bytes_in: f.bytes_in,
        },
        Event::Syscall(s) => Effect::Syscall { abi: table(compat), nr: s.nr },
        Event::Special { special, text: name } => Effect::Special {
            name: special_name(compat, &special),
            abi: table(compat),
            nr: special.nr,
            args: special.args.to_vec(),
            result: special.ret,
            text: (!name.is_empty()).then(|| text::lossy(name)),
        },
        Event::Uring(u) => Effect::Uring { opcode: u.opcode, name: text::uring_name(u.opcode) },
        Event::Denied { denied, object } => denied_effect(&denied, object),
        Event::Chunk { .. } | Event::Blind(_) => return None,
    })
}

fn special_name(compat: bool, special: &abi::Special) -> String {
    /// AF_PACKET
    const PACKET: u64 = 17;
    match text::special_name(compat, special.nr).as_str() {
        "socket" if special.args[0] & 0xffff_ffff == PACKET => "packet_socket".into(),
        "socket" => "raw_socket".into(),
        other => other.into(),
    }
}

/// What stands for the name of a DNS message that is no plain question.
pub(crate) const NO_QUESTION: &str = "(no plain question)";

fn denied_effect(d: &abi::Denied, object: &[u8]) -> Effect {
    use abi::policy::family;
    let op = match d.op {
        denied_op::CONNECT => "connect",
        denied_op::SENDMSG => "sendmsg",
        denied_op::BIND => "bind",
        denied_op::PACKET => "packet",
        denied_op::QUESTION => "dns",
        denied_op::CUT_OUT => "cut-out",
        denied_op::CUT_IN => "cut-in",
        denied_op::PTRACE => "ptrace",
        denied_op::MOUNT => "mount",
        denied_op::UMOUNT => "umount2",
        denied_op::MOVE_MOUNT => "move_mount",
        denied_op::PIVOT_ROOT => "pivot_root",
        denied_op::BPF => "bpf",
        denied_op::SOCKET => "socket",
        denied_op::KILL_AGENT => "signal",
        denied_op::PTRACE_AGENT => "trace",
        denied_op::AGENT_FILE => "alter",
        denied_op::MOVE_AGENT => "move",
        denied_op::LIMIT_AGENT => "limit",
        denied_op::AGENT_BPF => "reach",
        denied_op::AGENT_MOUNT => "mount over",
        denied_op::UNIX_ABSTRACT => UNIX,
        op => path_op_name(op),
    };
    let address = std::net::Ipv6Addr::from(d.addr).to_canonical();
    Effect::Denied {
        family: match d.family {
            family::NETWORK => Family::Network,
            family::LISTEN => Family::Listen,
            family::EXEC => Family::Exec,
            family::FILE => Family::File,
            family::UNIX => Family::Unix,
            _ => Family::Dangerous,
        },
        op: op.to_owned(),
        object: match op {
            "dns" if object.is_empty() => NO_QUESTION.to_owned(),
            "dns" => text::wire_name(object),
            _ if d.op == denied_op::UNIX_ABSTRACT => text::unix_name(object),
            _ if is_path(d.op) => text::kernel_path(object, d.header.flags & flag::TRUNCATED != 0),
            "ptrace" | "mount" | "umount2" | "move_mount" | "pivot_root" | "bpf" => String::new(),
            "socket" => format!("address family {}", d.port),
            "signal" => format!("the agent, signal {}", d.port),
            "trace" => "the agent".to_owned(),
            "move" => "the agent into another cgroup".to_owned(),
            "limit" => "the agent's resources".to_owned(),
            "mount over" => "the agent's files".to_owned(),
            "reach" => match d.port {
                1 => "a map of the agent".to_owned(),
                2 => "a program of the agent".to_owned(),
                _ => "a link of the agent".to_owned(),
            },
            _ => format!("{address}:{}/{}", d.port, text::protocol(d.protocol)),
        },
        dry_run: d.flags & denied_flag::DRY_RUN != 0,
        live: d.live,
        held: d.held,
    }
}

/// Connecting to a unix socket, or sending to one.
const UNIX: &str = "connect-unix";

/// Whether the object of a denied act is a path.
fn is_path(op: u32) -> bool {
    (denied_op::FIRST_LSM..denied_op::ACCESS_END).contains(&op) || op == denied_op::AGENT_FILE
}

/// What was to be done to a path.
fn path_op_name(op: u32) -> &'static str {
    match op.checked_sub(denied_op::FIRST_LSM) {
        Some(access::READ) => "read",
        Some(access::WRITE) => "write",
        Some(access::DELETE) => "delete",
        Some(access::CHANGE) => "change",
        Some(access::EXEC) => "exec",
        Some(access::UNIX) => UNIX,
        _ => "other",
    }
}

fn packet_effect(p: &abi::Packet, bytes: &[u8]) -> Option<Effect> {
    let (address, _) = text::address(p.family, &p.addr);
    let address = address.to_string();
    if p.what == packet::TLS_HELLO {
        return Some(Effect::TlsHello { sni: text::sni(bytes), address, port: p.port as u16 });
    }
    // Not DNS after all, or hostile: nothing to tell beyond the bytes that the flow counts.
    let message = simple_dns::Packet::parse(bytes).ok()?;
    let question = message.questions.first()?;
    let name = question.qname.to_string().to_ascii_lowercase();
    if p.what == packet::DNS_QUERY {
        let record = format!("{:?}", question.qtype);
        let record =
            record.strip_prefix("TYPE(").and_then(|r| r.strip_suffix(')')).unwrap_or(&record).to_owned();
        return Some(Effect::DnsQuery { name, record, resolver: address, port: p.port as u16 });
    }
    let addresses = answers(bytes).into_iter().map(|(address, _)| address.to_string()).collect();
    Some(Effect::DnsAnswer { name, addresses, rcode: message.rcode() as u16, resolver: address })
}

/// Key of a DNS transaction: socket, transaction id, resolver.
pub(crate) fn dns_key(p: &abi::Packet, bytes: &[u8]) -> Option<(u64, u16, [u8; 16])> {
    Some((p.cookie, u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]), p.addr))
}

/// Addresses in a DNS answer, with the name that was asked for.
pub(crate) fn answers(bytes: &[u8]) -> Vec<(std::net::IpAddr, String)> {
    use simple_dns::rdata::RData;
    let Ok(message) = simple_dns::Packet::parse(bytes) else {
        return Vec::new();
    };
    let Some(question) = message.questions.first() else {
        return Vec::new();
    };
    let name = question.qname.to_string().to_ascii_lowercase();
    let address = |a: &simple_dns::ResourceRecord<'_>| match &a.rdata {
        RData::A(a) => Some(std::net::IpAddr::V4(a.address.into())),
        RData::AAAA(a) => Some(std::net::IpAddr::V6(a.address.into())),
        _ => None,
    };
    message.answers.iter().filter_map(address).map(|ip| (ip, name.clone())).collect()
}
