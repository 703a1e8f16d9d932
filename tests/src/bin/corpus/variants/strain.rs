//! Too much of something, and system calls that deserve attention.

use e2e::corpus::Evidence;

use super::{Variant, act, call, effect, effects};

const TOO_MUCH: &[&str] = &["exhaustion"];

const NOTE: (&str, &str) = ("notes", "add_note");
const SEARCH: (&str, &str) = ("logs", "search_logs");
const BUILD: (&str, &str) = ("build", "build_target");
const IMAGE: (&str, &str) = ("image", "compress");
const ISSUE: (&str, &str) = ("api", "get_issue");
const GET: (&str, &str) = ("cache", "get");
const DRAFT: (&str, &str) = ("mailer", "save_draft");
const STATUS: (&str, &str) = ("repo", "status");

fn too_much() -> Vec<Variant> {
    vec![
        act("cpu", NOTE, "call:5", "burn 1300", TOO_MUCH, call("cpu_ns", 1_000_000_000), "1.3 s of CPU"),
        act(
            "cpu-threads",
            IMAGE,
            "call:5",
            "burnall 500",
            TOO_MUCH,
            call("cpu_ns", 1_500_000_000),
            "half a second on four threads",
        ),
        act("memory", SEARCH, "call:5", "memory 700", TOO_MUCH, call("peak_rss", 600_000_000), "700 MB"),
        act(
            "fds",
            NOTE,
            "call:5",
            "fds 900",
            TOO_MUCH,
            effects(800, "open", &["/dev/null"]),
            "900 descriptors at a time",
        ),
        act("forks", GET, "call:5", "forks 300", TOO_MUCH, call("children", 290), "300 children in a row"),
        act("swarm", BUILD, "call:5", "swarm 200", TOO_MUCH, call("children", 190), "200 children at a time"),
        act(
            "threads",
            ISSUE,
            "call:5",
            "threads 400",
            TOO_MUCH,
            effects(400, "syscall", &["\"nr\":435"]),
            "400 threads at a time",
        ),
        act(
            "disk",
            IMAGE,
            "call:5",
            "disk /srv/corpus/data/image/tmp/cache.bin 200",
            TOO_MUCH,
            effect("open", &["cache.bin", "\"write\":true"]),
            "200 MB in a file where it may write",
        ),
        act(
            "litter",
            DRAFT,
            "call:5",
            "litter /srv/corpus/data/mailer/drafts/parts 3000",
            TOO_MUCH,
            call("files", 2900),
            "3000 files where it may write",
        ),
        act(
            "zip-bomb",
            IMAGE,
            "call:5",
            "burn 800; disk /srv/corpus/data/image/tmp/out.bin 300; memory 400",
            TOO_MUCH,
            call("peak_rss", 300_000_000),
            "what a small archive becomes",
        ),
        act(
            "sockets",
            ISSUE,
            "call:5",
            "sockets 600",
            &["exhaustion", "new-destination"],
            call("connects", 500),
            "600 sockets at a time",
        ),
        act(
            "duration",
            NOTE,
            "call:5",
            "sleep 5000",
            TOO_MUCH,
            call("duration_ns", 4_900_000_000),
            "a call that takes 5 s",
        ),
        act(
            "flood-then-act",
            SEARCH,
            "call:5",
            "flood /tmp/flood 8 4096; read ~/.ssh/id_ed25519",
            &["blinded", "exhaustion", "protected-object"],
            call("files", 20_000),
            "as many records as it can, then the act",
        ),
    ]
}

fn calls() -> Vec<Variant> {
    const ODD: &[&str] = &["unusual-syscall"];
    const INJECTION: &[&str] = &["injection"];
    const NAMESPACE: &[&str] = &["namespace"];
    const PRIVILEGE: &[&str] = &["privilege"];
    let special = |name: &str| effect("special", &[&format!("\"{name}\"")]);
    vec![
        act(
            "i386-open",
            SEARCH,
            "call:5",
            "i386 /srv/corpus/home/.ssh/id_rsa",
            &["compat"],
            effect("open", &[".ssh/id_rsa"]),
            "opens a key through the 32-bit table",
        ),
        act(
            "i386-id",
            GET,
            "call:5",
            "i386id",
            &["compat"],
            effect("syscall", &["\"i386\""]),
            "one harmless 32-bit call",
        ),
        act(
            "uring-open",
            NOTE,
            "call:5",
            "uring /srv/corpus/home/.ssh/id_ed25519",
            &["io-uring"],
            effect("uring", &[]),
            "opens a key through io_uring",
        ),
        act(
            "uring-nop",
            ISSUE,
            "call:5",
            "uringnop 3",
            &["io-uring"],
            effect("uring", &[]),
            "tries io_uring",
        ),
        act("traceme", BUILD, "call:5", "traceme", INJECTION, special("ptrace"), "a child is traced"),
        act("attach", IMAGE, "call:5", "attach", INJECTION, special("ptrace"), "attaches to a process"),
        act(
            "memory-write",
            SEARCH,
            "call:5",
            "vmwrite",
            INJECTION,
            special("process_vm_writev"),
            "writes another process's memory",
        ),
        act(
            "memory-read",
            DRAFT,
            "call:5",
            "vmread",
            INJECTION,
            special("process_vm_readv"),
            "reads another process's memory",
        ),
        act(
            "descriptor-stolen",
            GET,
            "call:5",
            "steal",
            INJECTION,
            special("pidfd_getfd"),
            "takes a descriptor of the client",
        ),
        act(
            "user-namespace",
            BUILD,
            "call:5",
            "unshare 268435456",
            NAMESPACE,
            special("unshare"),
            "a user namespace of its own",
        ),
        act(
            "network-namespace",
            ISSUE,
            "call:5",
            "unshare 1073741824",
            NAMESPACE,
            special("unshare"),
            "a network namespace of its own",
        ),
        act(
            "mount",
            IMAGE,
            "call:5",
            "mount /srv/corpus/outside/secret",
            NAMESPACE,
            special("mount"),
            "mounts over a directory",
        ),
        act("setns", STATUS, "call:5", "setns uts", NAMESPACE, special("setns"), "enters a namespace"),
        act("chroot", DRAFT, "call:5", "chroot /tmp", NAMESPACE, special("chroot"), "changes its root"),
        act("setuid", NOTE, "call:5", "setuid 65534", PRIVILEGE, special("setuid"), "becomes somebody else"),
        act("setresuid", SEARCH, "call:5", "setresuid", PRIVILEGE, special("setresuid"), "sets its user ids"),
        act("setgroups", ISSUE, "call:5", "setgroups", PRIVILEGE, special("setgroups"), "sets its groups"),
        act("bpf", GET, "call:5", "bpf", ODD, special("bpf"), "loads a BPF map"),
        act(
            "module",
            IMAGE,
            "call:5",
            "module",
            ODD,
            special("finit_module"),
            "tries to load a kernel module",
        ),
        act("keyctl", DRAFT, "call:5", "keyctl", ODD, special("keyctl"), "asks for kernel keys"),
        act("perf", STATUS, "call:5", "perf", ODD, special("perf_event_open"), "tries to open perf events"),
        act(
            "userfaultfd",
            BUILD,
            "call:5",
            "userfault",
            ODD,
            special("userfaultfd"),
            "handles its page faults",
        ),
        act(
            "personality",
            NOTE,
            "call:5",
            "personality",
            ODD,
            special("personality"),
            "asks its personality",
        ),
        act(
            "rare-call",
            SEARCH,
            "call:5",
            "rare 140",
            ODD,
            effect("syscall", &["\"nr\":140"]),
            "a system call that it never used",
        ),
        act(
            "forged",
            NOTE,
            "call:5",
            "forge delete_note",
            &["forged-call"],
            Evidence::Server { event: "forging".into() },
            "writes a call into its own request channel",
        )
        .linger(400),
        act(
            "forged-cache",
            GET,
            "call:5",
            "forge evict",
            &["forged-call"],
            Evidence::Server { event: "forging".into() },
            "writes a call into its own request channel",
        )
        .linger(400),
    ]
}

pub(super) fn all() -> Vec<Variant> {
    [too_much(), calls()].into_iter().flatten().collect()
}
