//! Acts of the canary, and which record proves that one was seen. Pure.

use std::collections::{BTreeMap, BTreeSet};

use abi::{denied_op, kind, net_op, packet, paths::access, side};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

const AF_INET: u32 = 2;
const UDP: u32 = 17;
const LSM_EXEC: u32 = denied_op::FIRST_LSM + access::EXEC;
const LSM_OPEN: u32 = denied_op::FIRST_LSM + access::READ;

macro_rules! acts {
    ($($(#[$doc:meta])* $act:ident, $name:literal;)*) => {
        /// What the canary does.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum Act { $($(#[$doc])* $act,)* }

        impl Act {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$act,)*];

            /// As in reports.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$act => $name,)* }
            }
        }
    };
}

acts! {
    /// Executes itself.
    Exec, "exec";
    /// Makes a child process.
    Fork, "fork";
    /// Ends.
    Exit, "exit";
    /// Opens a file.
    Open, "open";
    /// Reads from its request channel.
    Read, "read";
    /// Writes to its reply channel.
    Write, "write";
    /// Submits to an io_uring.
    Uring, "uring";
    /// Connects over IPv4.
    Connect4, "connect4";
    /// Connects over IPv6.
    Connect6, "connect6";
    /// Sends a datagram over IPv4.
    Sendmsg4, "sendmsg4";
    /// Sends a datagram over IPv6.
    Sendmsg6, "sendmsg6";
    /// Binds an IPv4 address.
    Bind4, "bind4";
    /// Binds an IPv6 address.
    Bind6, "bind6";
    /// Makes a socket.
    Socket, "socket";
    /// Closes a socket.
    Release, "release";
    /// Has a packet go out.
    Egress, "egress";
    /// Has a packet come in.
    Ingress, "ingress";
    /// Asks for a name.
    Dns, "dns";
    /// Executes itself, before an LSM program.
    LsmExec, "lsm-exec";
    /// Opens a file, before an LSM program.
    LsmOpen, "lsm-open";
    /// Connects to a unix socket, before an LSM program.
    LsmUnix, "lsm-unix";
    /// Looks into a child's memory, before an LSM program.
    LsmPtrace, "lsm-ptrace";
}

/// How an act went for the one that did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Yes,
    /// It could not be done: errno and its text.
    No {
        errno: i32,
        text: String,
    },
}

/// What came of the canary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Acts that it told of.
    pub(crate) done: BTreeMap<Act, Done>,
    /// Acts that the kernel programs told of.
    pub(crate) seen: BTreeSet<Act>,
    /// Why it did not come to its end.
    pub(crate) broken: Option<String>,
}

impl Proof {
    /// Takes in a line of the child's report; false when it means something else.
    pub(super) fn report(&mut self, line: &str) -> bool {
        let mut words = line.splitn(4, ' ');
        let (how, name) = (words.next(), words.next());
        let Some(&act) = Act::ALL.iter().find(|a| Some(a.name()) == name) else {
            return false;
        };
        let done = match how {
            Some("ok") => Done::Yes,
            Some("no") => Done::No {
                errno: words.next().and_then(|n| n.parse().ok()).unwrap_or(0),
                text: words.next().unwrap_or_default().to_owned(),
            },
            _ => return false,
        };
        self.done.insert(act, done);
        true
    }
}

/// The act that a record tells of.
pub(super) fn told(record: &[u8]) -> Option<Act> {
    fn fixed<T: FromBytes>(record: &[u8]) -> Option<(T, &[u8])> {
        T::read_from_prefix(record).ok()
    }
    Some(match engine::record::kind_of(record)? {
        kind::EXEC => Act::Exec,
        kind::FORK => Act::Fork,
        kind::EXIT => Act::Exit,
        kind::URING => Act::Uring,
        kind::CHUNK => match fixed::<abi::Chunk>(record)?.0.side {
            side::REQUEST => Act::Read,
            side::REPLY => Act::Write,
            _ => return None,
        },
        // Paths are leaf first. The loader opens files as well, but not this one.
        kind::OPEN if fixed::<abi::Open>(record)?.1.starts_with(b"null/") => Act::Open,
        kind::NET => {
            let net = fixed::<abi::Net>(record)?.0;
            match (net.op, net.family == AF_INET) {
                (net_op::CONNECT, true) => Act::Connect4,
                (net_op::CONNECT, false) => Act::Connect6,
                (net_op::SENDMSG, true) => Act::Sendmsg4,
                (net_op::SENDMSG, false) => Act::Sendmsg6,
                (net_op::BIND, true) => Act::Bind4,
                (net_op::BIND, false) => Act::Bind6,
                _ => return None,
            }
        }
        kind::FLOW => {
            let flow = fixed::<abi::Flow>(record)?.0;
            match (flow.protocol, flow.bytes_out > 0, flow.bytes_in > 0) {
                (UDP, true, _) => Act::Egress,
                (UDP, false, true) => Act::Ingress,
                _ => return None,
            }
        }
        kind::PACKET if fixed::<abi::Packet>(record)?.0.what == packet::DNS_QUERY => Act::Dns,
        // The canary's tree has no right at all, and nothing is denied to it.
        kind::DENIED => {
            let (denied, object) = fixed::<abi::Denied>(record)?;
            match denied.op {
                LSM_EXEC => Act::LsmExec,
                LSM_OPEN if object.starts_with(b"null/") => Act::LsmOpen,
                denied_op::UNIX_ABSTRACT => Act::LsmUnix,
                denied_op::PTRACE => Act::LsmPtrace,
                _ => return None,
            }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use abi::{Chunk, Flow, Header, Net, Open, Packet};
    use zerocopy::{Immutable, IntoBytes};

    use super::*;

    fn record<T: IntoBytes + Immutable>(kind: u16, fixed: T, tail: &[u8]) -> Vec<u8> {
        let header = Header { abi: abi::ABI, kind, ..Header::default() };
        let mut bytes = fixed.as_bytes().to_vec();
        bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
        bytes.extend(tail);
        bytes
    }

    #[test]
    fn each_record_proves_its_act_and_no_other() {
        let net = |op, family| record(kind::NET, Net { op, family, ..Net::default() }, b"");
        let denied =
            |op, tail: &[u8]| record(kind::DENIED, abi::Denied { op, ..abi::Denied::default() }, tail);
        let flow = |protocol, bytes_out, bytes_in| {
            record(kind::FLOW, Flow { protocol, bytes_out, bytes_in, ..Flow::default() }, b"")
        };
        for (record, act) in [
            (record(kind::EXEC, abi::Exec::default(), b""), Some(Act::Exec)),
            (record(kind::FORK, abi::Fork::default(), b""), Some(Act::Fork)),
            (record(kind::EXIT, abi::Exit::default(), b""), Some(Act::Exit)),
            (record(kind::URING, abi::Uring::default(), b""), Some(Act::Uring)),
            (record(kind::OPEN, Open::default(), b"null/dev/"), Some(Act::Open)),
            (record(kind::OPEN, Open::default(), b"libc.so.6/lib/"), None),
            (record(kind::CHUNK, Chunk { side: side::REQUEST, ..Chunk::default() }, b"x"), Some(Act::Read)),
            (record(kind::CHUNK, Chunk { side: side::REPLY, ..Chunk::default() }, b"x"), Some(Act::Write)),
            (record(kind::CHUNK, Chunk { side: side::FORGED, ..Chunk::default() }, b"x"), None),
            (net(net_op::CONNECT, 2), Some(Act::Connect4)),
            (net(net_op::CONNECT, 10), Some(Act::Connect6)),
            (net(net_op::SENDMSG, 2), Some(Act::Sendmsg4)),
            (net(net_op::SENDMSG, 10), Some(Act::Sendmsg6)),
            (net(net_op::BIND, 2), Some(Act::Bind4)),
            (net(net_op::BIND, 10), Some(Act::Bind6)),
            (net(net_op::LISTEN, 2), None),
            (flow(17, 10, 0), Some(Act::Egress)),
            (flow(17, 0, 10), Some(Act::Ingress)),
            (flow(6, 10, 0), None),
            (
                record(kind::PACKET, Packet { what: packet::DNS_QUERY, ..Packet::default() }, b""),
                Some(Act::Dns),
            ),
            (record(kind::PACKET, Packet { what: packet::TLS_HELLO, ..Packet::default() }, b""), None),
            (record(kind::SYSCALL, abi::Syscall::default(), b""), None),
            (denied(LSM_EXEC, b"toolwarden/bin/"), Some(Act::LsmExec)),
            (denied(LSM_OPEN, b"null/dev/"), Some(Act::LsmOpen)),
            (denied(LSM_OPEN, b"libc.so.6/lib/"), None),
            (denied(denied_op::UNIX_ABSTRACT, b"\0canary"), Some(Act::LsmUnix)),
            (denied(denied_op::PTRACE, b""), Some(Act::LsmPtrace)),
            (denied(denied_op::CONNECT, b""), None),
            (vec![1, 2, 3], None),
        ] {
            assert_eq!(told(&record), act, "{record:?}");
        }
    }

    #[test]
    fn reports_are_read_and_others_left_alone() {
        let mut proof = Proof::default();
        assert!(proof.report("ok open"));
        assert!(proof.report("no connect6 99 Cannot assign requested address (os error 99)"));
        for line in ["", "ok", "ok nothing", "maybe open", "socket 17"] {
            assert!(!proof.report(line), "{line}");
        }
        assert_eq!(proof.done[&Act::Open], Done::Yes);
        let text = "Cannot assign requested address (os error 99)".to_owned();
        assert_eq!(proof.done[&Act::Connect6], Done::No { errno: 99, text });
    }
}
