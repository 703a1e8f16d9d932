//! Paths, addresses and names as people read them. All bytes are hostile: the results are valid
//! UTF-8 (other bytes replaced), and printers escape what terminals or formats would interpret.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A path as the kernel programs write it, leaf first, each name followed by '/'.
pub(crate) fn kernel_path(leaf_first: &[u8], cut: bool) -> String {
    if leaf_first.is_empty() {
        return "/".into();
    }
    let mut out = Vec::with_capacity(leaf_first.len() + 1);
    if cut {
        out.extend_from_slice(b"...");
    }
    let names = leaf_first.strip_suffix(b"/").unwrap_or(leaf_first);
    for name in names.rsplit(|b| *b == b'/') {
        out.push(b'/');
        out.extend_from_slice(name);
    }
    String::from_utf8(out).unwrap_or_else(|e| lossy(e.as_bytes()))
}

/// A name as given to a system call, relative to a directory: joined, `.` and `..` resolved by text.
/// (Links along the way are not followed: that is why its source is `argument`.)
pub(crate) fn given_path(base: &[u8], name: &[u8], cut: bool) -> String {
    if name.is_empty() {
        return kernel_path(base, cut);
    }
    let name = lossy(name);
    let joined = if name.starts_with('/') { name } else { format!("{}/{name}", kernel_path(base, cut)) };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    let mut out = String::with_capacity(joined.len());
    for part in parts {
        // A cut path begins with "...": it has no root.
        if !(out.is_empty() && part == "...") {
            out.push('/');
        }
        out.push_str(part);
    }
    if out.is_empty() { "/".into() } else { out }
}

/// Bytes as text, invalid UTF-8 replaced.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// NUL-separated arguments.
pub(crate) fn argv(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() { Vec::new() } else { bytes.split(|b| *b == 0).map(lossy).collect() }
}

/// Last component of a path.
pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('/').find(|p| !p.is_empty()).unwrap_or(path)
}

/// An address, and whether it was given in v4-mapped form.
pub(crate) fn address(family: u32, bytes: &[u8; 16]) -> (IpAddr, bool) {
    const AF_INET: u32 = 2;
    if family == AF_INET {
        return (IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])), false);
    }
    let v6 = Ipv6Addr::from(*bytes);
    match v6.to_ipv4_mapped() {
        Some(v4) => (IpAddr::V4(v4), true),
        None => (IpAddr::V6(v6), false),
    }
}

/// Name of a protocol number.
pub(crate) fn protocol(number: u32) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        132 => "sctp".into(),
        262 => "mptcp".into(),
        n => n.to_string(),
    }
}

/// A unix socket name: a path, or `@name` for an abstract one.
pub(crate) fn unix_name(bytes: &[u8]) -> String {
    match bytes.split_first() {
        None => String::new(),
        Some((0, rest)) => format!("@{}", lossy(rest)),
        Some(_) => lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()),
    }
}

/// The server name of a TLS client hello, if it is in these bytes and in the clear. `None` for
/// anything else, cut messages included. (RFC 8446 section 4.1.2, RFC 6066 section 3.)
pub(crate) fn sni(record: &[u8]) -> Option<String> {
    // Record header 5, handshake header 4, version 2, random 32.
    let mut rest = record.get(43..)?;
    let skip = |rest: &mut &[u8], width: usize| -> Option<()> {
        let len = rest.get(..width)?.iter().fold(0, |n, b| n << 8 | usize::from(*b));
        *rest = rest.get(width + len..)?;
        Some(())
    };
    skip(&mut rest, 1)?; // session id
    skip(&mut rest, 2)?; // cipher suites
    skip(&mut rest, 1)?; // compression
    rest = rest.get(2..)?; // length of the extensions; a cut message has fewer
    loop {
        let kind = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
        let len = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
        let body = rest.get(4..4 + len)?;
        if kind == 0 {
            // server_name_list: length 2, type 1 (host_name), length 2.
            let n = usize::from(u16::from_be_bytes([*body.get(3)?, *body.get(4)?]));
            return body.get(5..5 + n).map(lossy);
        }
        rest = rest.get(4 + len..)?;
    }
}

/// Name of a system call that deserves an event of its own.
pub(crate) fn special_name(compat: bool, nr: u32) -> String {
    let native: &[(u32, &str)] = &[
        (41, "socket"),
        (101, "ptrace"),
        (105, "setuid"),
        (106, "setgid"),
        (113, "setreuid"),
        (114, "setregid"),
        (116, "setgroups"),
        (117, "setresuid"),
        (119, "setresgid"),
        (122, "setfsuid"),
        (123, "setfsgid"),
        (126, "capset"),
        (135, "personality"),
        (155, "pivot_root"),
        (161, "chroot"),
        (165, "mount"),
        (166, "umount2"),
        (175, "init_module"),
        (176, "delete_module"),
        (250, "keyctl"),
        (272, "unshare"),
        (298, "perf_event_open"),
        (308, "setns"),
        (310, "process_vm_readv"),
        (311, "process_vm_writev"),
        (313, "finit_module"),
        (317, "seccomp"),
        (319, "memfd_create"),
        (320, "kexec_file_load"),
        (321, "bpf"),
        (323, "userfaultfd"),
        (425, "io_uring_setup"),
        (427, "io_uring_register"),
        (428, "open_tree"),
        (429, "move_mount"),
        (430, "fsopen"),
        (432, "fsmount"),
        (438, "pidfd_getfd"),
        (442, "mount_setattr"),
        (447, "memfd_secret"),
    ];
    let i386: &[(u32, &str)] = &[
        (21, "mount"),
        (22, "umount"),
        (23, "setuid"),
        (26, "ptrace"),
        (46, "setgid"),
        (52, "umount2"),
        (61, "chroot"),
        (70, "setreuid"),
        (71, "setregid"),
        (80, "setgroups"),
        (128, "init_module"),
        (136, "personality"),
        (138, "setfsuid"),
        (139, "setfsgid"),
        (164, "setresuid"),
        (170, "setresgid"),
        (185, "capset"),
        (203, "setreuid"),
        (204, "setregid"),
        (206, "setgroups"),
        (208, "setresuid"),
        (210, "setresgid"),
        (213, "setuid"),
        (214, "setgid"),
        (215, "setfsuid"),
        (216, "setfsgid"),
        (217, "pivot_root"),
        (310, "unshare"),
        (336, "perf_event_open"),
        (346, "setns"),
        (347, "process_vm_readv"),
        (348, "process_vm_writev"),
        (350, "finit_module"),
        (354, "seccomp"),
        (356, "memfd_create"),
        (357, "bpf"),
        (358, "execveat"),
        (359, "socket"),
        (374, "userfaultfd"),
        (425, "io_uring_setup"),
        (427, "io_uring_register"),
    ];
    let table = if compat { i386 } else { native };
    table.iter().find(|(n, _)| *n == nr).map_or_else(|| format!("syscall_{nr}"), |(_, name)| (*name).into())
}

/// Name of an io_uring operation (include/uapi/linux/io_uring.h).
pub(crate) fn uring_name(opcode: u32) -> String {
    const NAMES: [&str; 51] = [
        "nop",
        "readv",
        "writev",
        "fsync",
        "read_fixed",
        "write_fixed",
        "poll_add",
        "poll_remove",
        "sync_file_range",
        "sendmsg",
        "recvmsg",
        "timeout",
        "timeout_remove",
        "accept",
        "async_cancel",
        "link_timeout",
        "connect",
        "fallocate",
        "openat",
        "close",
        "files_update",
        "statx",
        "read",
        "write",
        "fadvise",
        "madvise",
        "send",
        "recv",
        "openat2",
        "epoll_ctl",
        "splice",
        "provide_buffers",
        "remove_buffers",
        "tee",
        "shutdown",
        "renameat",
        "unlinkat",
        "mkdirat",
        "symlinkat",
        "linkat",
        "msg_ring",
        "fsetxattr",
        "setxattr",
        "fgetxattr",
        "getxattr",
        "socket",
        "uring_cmd",
        "send_zc",
        "sendmsg_zc",
        "read_multishot",
        "waitid",
    ];
    NAMES.get(opcode as usize).map_or_else(|| format!("op_{opcode}"), |n| (*n).into())
}

/// A DNS name as it is on the wire, in lower case; what is no name as far as it is one. Hostile bytes are made visible.
pub(crate) fn wire_name(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = bytes;
    while let Some((len, tail)) = rest.split_first()
        && (1..=63).contains(len)
    {
        let (label, next) = tail.split_at(usize::from(*len).min(tail.len()));
        if !out.is_empty() {
            out.push('.');
        }
        let text = label.to_ascii_lowercase().escape_ascii().to_string();
        // A dot within a label is none between labels.
        out.push_str(&text.replace('.', "\\."));
        rest = next;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_turned_round_joined_and_marked_when_cut() {
        assert_eq!(kernel_path(b"", false), "/");
        assert_eq!(kernel_path(b"passwd/etc/", false), "/etc/passwd");
        assert_eq!(kernel_path(b"c/b/", true), ".../b/c");
        assert_eq!(given_path(b"src/home/", b"../a/./b", false), "/home/a/b");
        assert_eq!(given_path(b"src/home/", b"/etc//x", false), "/etc/x");
        assert_eq!(given_path(b"c/b/", b"d", true), ".../b/c/d");
        assert_eq!(given_path(b"x/", b"../../..", false), "/");
    }

    #[test]
    fn addresses_of_all_forms() {
        let mut b = [0; 16];
        b[..4].copy_from_slice(&[127, 0, 0, 1]);
        assert_eq!(address(2, &b).0.to_string(), "127.0.0.1");
        let mapped: Ipv6Addr = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        assert_eq!(address(10, &mapped.octets()), (IpAddr::V4(Ipv4Addr::LOCALHOST), true));
        assert_eq!(address(10, &Ipv6Addr::LOCALHOST.octets()).0.to_string(), "::1");
    }

    #[test]
    fn a_server_name_is_found_and_a_cut_hello_has_none() {
        let mut hello = vec![0x16, 3, 1, 0, 0, 1, 0, 0, 0, 3, 3];
        hello.extend([7; 32]);
        hello.extend([0]); // session id
        hello.extend([0, 2, 0x13, 1]); // cipher suites
        hello.extend([1, 0]); // compression
        let name = b"evil.example";
        let list = name.len() as u16 + 3;
        let mut body = Vec::new();
        body.extend(list.to_be_bytes());
        body.push(0);
        body.extend((name.len() as u16).to_be_bytes());
        body.extend(name);
        let other = [0, 10, 0, 2, 0, 29];
        hello.extend(((other.len() + 4 + body.len()) as u16).to_be_bytes());
        hello.extend(other);
        hello.extend([0, 0]);
        hello.extend((body.len() as u16).to_be_bytes());
        hello.extend(&body);
        assert_eq!(sni(&hello).as_deref(), Some("evil.example"));
        for end in 0..hello.len() {
            assert_eq!(sni(&hello[..end]), None);
        }
    }
}
